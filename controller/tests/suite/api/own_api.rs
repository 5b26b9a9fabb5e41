//! The controller's own API: the fleet, a host, a deployment, and a rollback by hand.

use std::time::{Duration, Instant};

use aws_sdk_codedeploy::types::DeploymentStatus;
use serde_json::{Value, json};

use crate::support::{Agent, Controller, Forgery, QUICK, shop, text};

fn own(operation: &str) -> Forgery {
    Forgery {
        service: "codedeploy",
        target: format!("CodeDeployController_20261201.{operation}"),
        ..Forgery::none("")
    }
}

async fn ask(caller: &Agent, operation: &str, input: Value) -> Value {
    let (status, answer) = caller.send(own(operation), input).await;
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

fn key(location: &Value) -> &str {
    location["s3Location"]["key"].as_str().unwrap_or("-")
}

/// Takes the next commands until one fails.
async fn fail_at(agent: &Agent, last: &str) {
    loop {
        let command = agent.poll().await.expect("a command");
        agent.acknowledge(&command).await;
        if command.name == last {
            return agent.fail(&command).await;
        }
        agent.succeed(&command).await;
    }
}

#[tokio::test]
async fn the_matrix_has_a_row_for_each_group_with_its_revision_and_its_hosts() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    controller.host("box2", &["env=prod"]);
    controller.host("other", &["env=test"]);
    let caller = controller.operator();
    let row = async || {
        let answer = ask(&caller, "GetFleetStatus", json!({})).await;
        assert_eq!(answer.get("nextToken"), None);
        assert_eq!(answer["groups"].as_array().unwrap().len(), 1);
        answer["groups"][0].clone()
    };
    let new = row().await;
    assert_eq!(
        (
            text(&new, "applicationName"),
            text(&new, "deploymentGroupName")
        ),
        ("shop".into(), "web".into())
    );
    assert_eq!(new.get("currentDeployment"), None);
    assert_eq!(
        new["hosts"],
        json!({"total": 2, "healthy": 0, "behind": 0, "drained": 0, "silent": 2})
    );

    // Everything at once: one success is enough, and the host without an agent fails when its time
    // is over.
    let first = shop::deploy(&client, "1.zip").await;
    agent.run_to("DownloadBundle").await;
    let running = row().await;
    assert_eq!(running["runningDeployment"]["deploymentId"], json!(first));
    assert_eq!(running["runningDeployment"]["status"], json!("InProgress"));
    assert_eq!(
        running["runningDeployment"]["deploymentOverview"]["InProgress"],
        json!(1)
    );
    agent.run_to("ValidateService").await;
    assert!(
        controller
            .admin(&["host", "remove", "box2"])
            .status
            .success()
    );
    let info = shop::ended(&client, &first).await;
    assert_eq!(info.status(), Some(&DeploymentStatus::Succeeded));
    controller.host("box3", &["env=prod"]);
    let done = row().await;
    assert_eq!(done.get("runningDeployment"), None);
    assert_eq!(done["currentDeployment"]["deploymentId"], json!(first));
    assert_eq!(key(&done["currentDeployment"]["revision"]), "1.zip");
    assert!(done["currentDeployment"]["completeTime"].is_number());
    assert_eq!(
        done["hosts"],
        json!({"total": 2, "healthy": 1, "behind": 1, "drained": 0, "silent": 1})
    );
    assert!(
        controller
            .admin(&["host", "remove", "box3"])
            .status
            .success()
    );

    let second = shop::deploy(&client, "2.zip").await;
    fail_at(&agent, "AfterInstall").await;
    shop::ended(&client, &second).await;
    let failed = row().await;
    assert_eq!(failed["lastFailure"]["deploymentId"], json!(second));
    assert_eq!(
        failed["lastFailure"]["errorInformation"]["code"],
        json!("HEALTH_CONSTRAINTS")
    );
    assert_eq!(
        failed["hosts"],
        json!({"total": 1, "healthy": 0, "behind": 1, "drained": 0, "silent": 0})
    );

    let one = json!({"applicationName": "shop", "deploymentGroupName": "web"});
    assert_eq!(
        ask(&caller, "GetFleetStatus", one).await["groups"][0],
        failed
    );
    let missing = json!({"applicationName": "shop", "deploymentGroupName": "gone"});
    let (status, refused) = caller.send(own("GetFleetStatus"), missing).await;
    assert_eq!(
        (status, text(&refused, "__type")),
        (400, "DeploymentGroupDoesNotExistException".into())
    );
}

#[tokio::test]
async fn a_host_shows_its_revisions_and_its_command() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    let caller = controller.operator();
    let id = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &id).await;
    let host = async || {
        let answer = ask(&caller, "GetHostStatus", json!({"instanceName": "box1"})).await;
        let listed = ask(&caller, "ListHosts", json!({})).await;
        assert_eq!(listed["hosts"][0], answer["host"]);
        answer["host"].clone()
    };
    let idle = host().await;
    assert_eq!(text(&idle, "state"), "Polling");
    assert_eq!(text(&idle, "agentVersion"), "TEST_1.0");
    assert_eq!(idle["commands"], json!([]));
    let revision = &idle["revisions"][0];
    assert_eq!(key(&revision["revision"]), "1.zip");
    assert_eq!(text(revision, "revisionHealth"), "Current");
    assert_eq!(
        (
            &revision["healthy"],
            &revision["member"],
            &revision["deploymentId"]
        ),
        (&json!(true), &json!(true), &json!(id))
    );
    assert!(revision["since"].is_number());

    let next = shop::deploy(&client, "2.zip").await;
    let command = agent.poll().await.unwrap();
    agent.acknowledge(&command).await;
    let busy = host().await;
    assert_eq!(
        text(&busy["commands"][0], "lifecycleEventName"),
        "ApplicationStop"
    );
    assert_eq!(text(&busy["commands"][0], "state"), "Running");
    assert_eq!(busy["commands"][0]["deploymentId"], json!(next));
    agent.fail(&command).await;
    shop::ended(&client, &next).await;
    let failed = host().await;
    assert_eq!(text(&failed["revisions"][0], "revisionHealth"), "Unknown");
    assert_eq!(failed["revisions"][0]["healthy"], json!(false));
    let in_group = json!({"applicationName": "shop", "deploymentGroupName": "web"});
    let listed = ask(&caller, "ListHosts", in_group).await;
    assert_eq!(listed["hosts"].as_array().unwrap().len(), 1);
    let (_, refused) = caller
        .send(own("GetHostStatus"), json!({"instanceName": "gone"}))
        .await;
    assert_eq!(text(&refused, "__type"), "InstanceNotRegisteredException");
}

#[tokio::test]
async fn a_failed_deployment_shows_its_script_and_what_to_do() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    let caller = controller.operator();
    let good = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &good).await;
    let bad = shop::deploy(&client, "2.zip").await;
    fail_at(&agent, "AfterInstall").await;
    shop::ended(&client, &bad).await;
    let shown = ask(&caller, "GetDeploymentStatus", json!({"deploymentId": bad})).await;
    assert_eq!(text(&shown["deployment"], "status"), "Failed");
    let failure = &shown["failures"][0];
    assert_eq!(text(failure, "instanceName"), "box1");
    assert_eq!(text(failure, "lifecycleEventName"), "AfterInstall");
    assert_eq!(text(failure, "scriptName"), "scripts/after.sh");
    assert_eq!(failure["exitCode"], json!(1));
    assert!(text(failure, "logTail").contains("LifecycleEvent"));
    let advice = shown["advice"].to_string();
    for expected in [
        "codedeploy-agent logs",
        "scripts/after.sh",
        "rollback shop web",
    ] {
        assert!(advice.contains(expected), "{advice}");
    }
    let listed = ask(&caller, "ListDeploymentStatuses", json!({})).await;
    let ids: Vec<_> = listed["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|deployment| text(deployment, "deploymentId"))
        .collect();
    assert_eq!(ids, [bad.clone(), good]);
    let failed = json!({"includeOnlyStatuses": ["Failed"]});
    let listed = ask(&caller, "ListDeploymentStatuses", failed).await;
    assert_eq!(listed["deployments"], json!([shown["deployment"]]));
}

#[tokio::test]
async fn a_rollback_by_hand_goes_one_revision_back_each_time() {
    let (controller, client, agent) = shop::one_host(QUICK).await;
    let caller = controller.operator();
    let group = json!({"applicationName": "shop", "deploymentGroupName": "web"});
    let back = async || {
        caller
            .send(own("RollBackDeploymentGroup"), group.clone())
            .await
    };
    let (status, nothing) = back().await;
    assert_eq!(
        (status, text(&nothing, "__type")),
        (400, "RevisionDoesNotExistException".into())
    );
    let mut last = String::new();
    for revision in ["1.zip", "2.zip", "3.zip"] {
        last = shop::deploy(&client, revision).await;
        agent.run_to("ValidateService").await;
        shop::ended(&client, &last).await;
    }
    for expected in ["2.zip", "1.zip"] {
        let (status, answer) = back().await;
        assert_eq!(
            (status, key(&answer["revision"])),
            (200, expected),
            "{answer}"
        );
        assert_eq!(text(&answer, "rollsBack"), last);
        last = text(&answer, "deploymentId");
        agent.run_to("ValidateService").await;
        let info = shop::ended(&client, &last).await;
        assert_eq!(info.creator().map(|creator| creator.as_str()), Some("user"));
    }
    let (_, nothing) = back().await;
    assert_eq!(text(&nothing, "__type"), "RevisionDoesNotExistException");
    // After a failure, the last successful revision is deployed again.
    let failed = shop::deploy(&client, "4.zip").await;
    let (_, busy) = back().await;
    assert_eq!(text(&busy, "__type"), "DeploymentLimitExceededException");
    fail_at(&agent, "Install").await;
    shop::ended(&client, &failed).await;
    let (_, answer) = back().await;
    assert_eq!(key(&answer["revision"]), "1.zip");
}

#[tokio::test]
async fn roles_apply_to_the_own_api_as_to_the_public_one() {
    let controller = Controller::start("s3: {buckets: [revisions]}");
    let keys = |role: &str, more: &[&str]| {
        let create = ["credentials", "create", "--role", role, "--json"];
        controller.caller(&controller.admin_json(&[&create[..], more].concat()))
    };
    let reader = keys("read-only", &[]);
    for operation in ["GetFleetStatus", "ListHosts", "ListDeploymentStatuses"] {
        ask(&reader, operation, json!({})).await;
    }
    let about = ask(&reader, "GetController", json!({})).await;
    assert_eq!(about["buckets"], json!(["revisions"]));
    assert_eq!(text(&about, "callerRole"), "read-only");
    let host = controller.host("box1", &[]);
    let group = json!({"applicationName": "shop", "deploymentGroupName": "web"});
    for (caller, operation, input) in [
        (&reader, "RollBackDeploymentGroup", &group),
        (&host, "GetFleetStatus", &json!({})),
        (&host, "GetController", &json!({})),
    ] {
        let (status, refused) = caller.send(own(operation), input.clone()).await;
        assert_eq!(
            (status, text(&refused, "__type")),
            (400, "AccessDeniedException".into()),
            "{operation}"
        );
    }
    let (_, unknown) = reader.send(own("GetDeployment"), json!({})).await;
    assert_eq!(text(&unknown, "__type"), "UnknownOperationException");
}

/// 10,000 hosts in one group and in 50 smaller ones, 100,000 finished deployments.
const LARGE: &str = "
    CREATE TEMP TABLE numbers AS
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000) SELECT n FROM n;
    INSERT INTO instances (arn, name, principal, registered, tags, agent_version, last_seen)
        SELECT arn || n, printf('host%05d', n), principal || n, registered,
            printf('[{\"Key\":\"env\",\"Value\":\"prod\"},{\"Key\":\"tier\",\"Value\":\"t%d\"}]', n % 50), 'TEST_1.0', 1
        FROM instances, numbers WHERE name = 'box1' AND n <= 10000;
    INSERT INTO deployment_groups (id, application_id, name, settings, tags, last_attempted, last_successful)
        SELECT printf('g%02d', n - 1), application_id, printf('tier%02d', n - 1),
            replace(replace(settings, 'env', 'tier'), 'prod', printf('t%d', n - 1)), tags, last_attempted, last_successful
        FROM deployment_groups, numbers WHERE name = 'web' AND n <= 50;
    INSERT INTO deployments (id, sequence, group_id, created, status, progress, rules, snapshot, revision, relations)
        SELECT printf('d-S%08d', n), sequence + n, CASE WHEN n % 2 = 0 THEN group_id ELSE printf('g%02d', n % 50) END, created - n, status, progress, rules,
            snapshot, revision, relations
        FROM deployments, numbers WHERE id = ?1;
    INSERT INTO targets (deployment_id, position, target_id, arn, host, status, updated, events, class, attempted)
        SELECT printf('d-S%08d', n), 0, target_id, arn, host, status, updated, events, class, attempted
        FROM targets, numbers WHERE deployment_id = ?1;
    INSERT INTO health (group_id, target_id, healthy, revision, deployment_id)
        SELECT group_id, printf('host%05d', n), 1, revision, deployment_id FROM health, numbers
        WHERE n <= 10000 AND group_id NOT LIKE 'g%' AND target_id = 'box1';
    INSERT INTO health (group_id, target_id, healthy, revision, deployment_id)
        SELECT printf('g%02d', n % 50), printf('host%05d', n), 1, revision, deployment_id FROM health, numbers
        WHERE n <= 10000 AND group_id NOT LIKE 'g%' AND target_id = 'box1';
";

#[tokio::test]
async fn answers_about_a_large_fleet_with_a_long_history_take_milliseconds() {
    let (mut controller, client, agent) = shop::one_host(QUICK).await;
    let id = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &id).await;
    controller.crash_while(|data| {
        let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
        database
            .execute_batch(&LARGE.replace("?1", &format!("'{id}'")))
            .unwrap();
    });
    let caller = controller.operator();
    let fleet = ask(&caller, "GetFleetStatus", json!({})).await;
    assert_eq!(fleet["groups"].as_array().unwrap().len(), 51);
    let web = &fleet["groups"][50];
    assert_eq!(
        web["hosts"],
        json!({"total": 10001, "healthy": 10001, "behind": 0, "drained": 0, "silent": 10000})
    );
    assert_eq!(fleet["groups"][3]["hosts"]["total"], json!(200));
    for (operation, input) in [
        ("GetFleetStatus", json!({})),
        ("ListHosts", json!({})),
        ("GetHostStatus", json!({"instanceName": "host05000"})),
        ("ListDeploymentStatuses", json!({})),
        ("GetDeploymentStatus", json!({"deploymentId": id})),
    ] {
        let mut took = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            ask(&caller, operation, input.clone()).await;
            took.push(began.elapsed());
        }
        took.sort();
        println!("{operation}: {:?}, at best {:?}", took[2], took[0]);
        // Without optimisation, and on a machine that may have much else to do.
        assert!(took[0] < Duration::from_secs(5), "{operation}: {took:?}");
    }
}
