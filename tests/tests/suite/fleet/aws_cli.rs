//! The real, unmodified aws CLI against the service: an operator's commands, from the application
//! to the page.

use std::fs;

use codedeploy_tests::bucket::{Keys, python_tool};
use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::programs::Program;
use codedeploy_tests::{bundle, wait};
use serde_json::Value;

/// The aws CLI with a person's environment.
struct Aws<'a> {
    fleet: &'a Fleet,
    keys: Keys,
}

struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// Expects this exception.
    fn refused(&self, exception: &str) {
        assert_eq!(self.code, Some(255), "{}{}", self.stdout, self.stderr);
        assert!(
            self.stderr.contains(&format!("({exception})")),
            "{}",
            self.stderr
        );
    }
}

impl Aws<'_> {
    async fn run(&self, arguments: &[&str]) -> Answer {
        let output = Program::at(python_tool("aws"))
            .command(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.fleet.path("nobody"))
            .env("AWS_ENDPOINT_URL_CODEDEPLOY", &self.fleet.service.endpoint)
            .env("AWS_ENDPOINT_URL_S3", &self.fleet.bucket.endpoint)
            .env("AWS_ACCESS_KEY_ID", &self.keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.keys.secret_access_key)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_PAGER", "")
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Answer {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    async fn deploy(&self, arguments: &str) -> Answer {
        self.run(
            &[
                &["deploy"],
                &arguments.split_whitespace().collect::<Vec<_>>()[..],
            ]
            .concat(),
        )
        .await
    }
}

#[tokio::test]
async fn an_operator_deploys_with_nothing_but_the_aws_cli() {
    let fleet = Fleet::start(1, "").await;
    let aws = Aws {
        fleet: &fleet,
        keys: fleet.service.operator.clone(),
    };

    let created = aws
        .deploy("create-application --application-name site --compute-platform Server")
        .await
        .json();
    assert_eq!(created["applicationId"].as_str().unwrap().len(), 36);
    aws.deploy("create-application --application-name site")
        .await
        .refused("ApplicationAlreadyExistsException");
    aws.deploy("get-application --application-name none")
        .await
        .refused("ApplicationDoesNotExistException");
    let shown = aws
        .deploy("get-application --application-name site")
        .await
        .json();
    assert_eq!(shown["application"]["computePlatform"], "Server");

    aws.deploy(
        "add-tags-to-on-premises-instances --instance-names box1 --tags Key=tier,Value=front",
    )
    .await;
    let found = aws
        .deploy("list-on-premises-instances --tag-filters Key=tier,Value=front,Type=KEY_AND_VALUE")
        .await
        .json();
    assert_eq!(found["instanceNames"], serde_json::json!(["box1"]));
    let group = "create-deployment-group --application-name site --deployment-group-name front \
        --service-role-arn arn:aws:iam::123456789012:role/cd --deployment-config-name CodeDeployDefault.AllAtOnce \
        --on-premises-instance-tag-filters Key=tier,Value=front,Type=KEY_AND_VALUE";
    let id = aws.deploy(group).await.json()["deploymentGroupId"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = aws
        .deploy("get-deployment-group --application-name site --deployment-group-name front")
        .await
        .json();
    let info = &shown["deploymentGroupInfo"];
    assert_eq!(info["deploymentGroupId"], id.as_str());
    assert_eq!(info["deploymentStyle"]["deploymentType"], "IN_PLACE");
    assert_eq!(info["outdatedInstancesStrategy"], "UPDATE");

    // `aws deploy push` makes the zip, uploads it and registers the revision.
    let source = fleet.path("source");
    let go = fleet.path("go");
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: index.html\n    destination: {}\nhooks:\n  AfterInstall:\n    - location: wait.sh\n",
        fleet.path("www").display()
    );
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.05; done\n",
        go.display()
    );
    bundle::write(
        &source,
        &[
            ("appspec.yml", &appspec),
            ("wait.sh", &script),
            ("index.html", "pushed\n"),
        ],
    );
    let push = format!(
        "push --application-name site --s3-location s3://revisions/site.zip --source {}",
        source.display()
    );
    let pushed = aws.deploy(&push).await;
    assert_eq!(pushed.code, Some(0), "{}", pushed.stderr);
    let location = pushed
        .stdout
        .split_whitespace()
        .skip_while(|word| *word != "--s3-location")
        .nth(1)
        .unwrap();
    assert!(
        location.contains("eTag=") && location.contains("version="),
        "{}",
        pushed.stdout
    );
    let revisions = aws
        .deploy("list-application-revisions --application-name site")
        .await
        .json();
    assert_eq!(revisions["revisions"][0]["s3Location"]["key"], "site.zip");

    let create = format!(
        "create-deployment --application-name site --deployment-group-name front --s3-location {location}"
    );
    let id = aws.deploy(&create).await.json()["deploymentId"]
        .as_str()
        .unwrap()
        .to_owned();
    let target = format!("get-deployment-target --deployment-id {id} --target-id box1");
    wait::until("the hook runs", async || {
        let answer = aws.deploy(&target).await;
        if answer.stdout.contains("\"InProgress\"") {
            Ok(())
        } else {
            Err(answer.stderr)
        }
    })
    .await;
    let again = aws.deploy(&create).await;
    again.refused("DeploymentLimitExceededException");
    assert!(
        again
            .stderr
            .contains(&format!("already has an active Deployment '{id}'")),
        "{}",
        again.stderr
    );
    fs::write(&go, "").unwrap();
    wait::until("the page is installed", async || {
        fs::read_to_string(fleet.path("www/index.html"))
    })
    .await;
    fleet.outcome(&id).await;
    let waited = aws
        .deploy(&format!("wait deployment-successful --deployment-id {id}"))
        .await;
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);

    let shown = aws.deploy(&target).await.json();
    let events = shown["deploymentTarget"]["instanceTarget"]["lifecycleEvents"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(events.len(), 7);
    assert!(
        events.iter().all(|event| event["status"] == "Succeeded"
            && event["diagnostics"]["errorCode"] == "Success")
    );
    let shown = aws
        .deploy(&format!("get-deployment --deployment-id {id}"))
        .await
        .json();
    assert_eq!(
        shown["deploymentInfo"]["deploymentOverview"]["Succeeded"],
        1
    );
    let listed = aws
        .deploy("list-deployments --application-name site --deployment-group-name front")
        .await
        .json();
    assert_eq!(listed["deployments"], serde_json::json!([id]));
    aws.deploy(&format!("stop-deployment --deployment-id {id}"))
        .await
        .refused("DeploymentAlreadyCompletedException");
    fleet.stop().await;
}

#[tokio::test]
async fn a_host_is_registered_and_deregistered_as_with_aws() {
    let fleet = Fleet::start(0, "").await;
    let aws = Aws {
        fleet: &fleet,
        keys: fleet.service.operator.clone(),
    };
    let arn = "arn:aws:iam::123456789012:user/AWS/CodeDeploy/rack7";
    let register =
        format!("register-on-premises-instance --instance-name rack7 --iam-user-arn {arn}");
    assert_eq!(aws.deploy(&register).await.code, Some(0));
    aws.deploy(&register)
        .await
        .refused("InstanceNameAlreadyRegisteredException");
    aws.deploy("register-on-premises-instance --instance-name rack8")
        .await
        .refused("IamArnRequiredException");
    aws.deploy("add-tags-to-on-premises-instances --instance-names ghost --tags Key=a,Value=b")
        .await
        .refused("InstanceNotRegisteredException");
    let helper = aws.deploy(&format!("register --instance-name rack9 --iam-user-arn {arn}9 --tags Key=env,Value=prod --region us-east-1")).await;
    assert!(
        !helper.stdout.contains("ERROR") && !helper.stderr.contains("ERROR"),
        "{}{}",
        helper.stdout,
        helper.stderr
    );
    let shown = aws
        .deploy("get-on-premises-instance --instance-name rack9")
        .await
        .json();
    assert_eq!(
        shown["instanceInfo"]["tags"],
        serde_json::json!([{"Key": "env", "Value": "prod"}])
    );
    let helper = aws
        .deploy("deregister --instance-name rack9 --no-delete-iam-user --region us-east-1")
        .await;
    assert!(
        !helper.stdout.contains("ERROR") && !helper.stderr.contains("ERROR"),
        "{}{}",
        helper.stdout,
        helper.stderr
    );
    let shown = aws
        .deploy("get-on-premises-instance --instance-name rack9")
        .await
        .json();
    assert!(
        !shown["instanceInfo"]["deregisterTime"].is_null(),
        "{shown}"
    );
    fleet.stop().await;
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_key_are_refused() {
    let fleet = Fleet::start(0, "").await;
    let mut keys = fleet.service.operator.clone();
    keys.secret_access_key = "wrong".into();
    let aws = Aws {
        fleet: &fleet,
        keys: keys.clone(),
    };
    aws.deploy("list-applications")
        .await
        .refused("InvalidSignatureException");
    keys.access_key_id = "AKIANOBODYKNOWSTHIS".into();
    let aws = Aws {
        fleet: &fleet,
        keys,
    };
    aws.deploy("list-applications")
        .await
        .refused("UnrecognizedClientException");
    fleet.stop().await;
}
