//! The number of hosts that are out of service at once, and the other hosts after one dies: real
//! agents, as processes.

use std::collections::BTreeSet;
use std::fs;

use aws_sdk_codedeploy::types::DeploymentInfo;
use codedeploy_tests::fleet::{APPLICATION, Fleet, GROUP};
use codedeploy_tests::wait;

/// Deploys a revision whose scripts record when their host goes out of service (`+box1`) and is
/// back (`-box1`). In between they wait until the file `go` exists.
async fn deploy(fleet: &Fleet, config: &str) -> String {
    let note = |sign: &str| {
        format!(
            "#!/bin/sh\ncase $0 in */box*/*) ;; *) exit 1 ;; esac\n\
             echo \"{sign}$(echo \"$0\" | sed 's,.*/\\(box[0-9]\\)/.*,\\1,')\" >> {}\n",
            fleet.path("notes").display()
        )
    };
    let go = fleet.path("go").display().to_string();
    let start = note("+") + &format!("while [ ! -e {go} ]; do sleep 0.05; done\n");
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: start.sh\n  ValidateService:\n    - \
                   location: validate.sh\n";
    let files = [
        ("appspec.yml", appspec),
        ("start.sh", &start),
        ("validate.sh", &note("-")),
    ];
    let revision = fleet.push(&files).await;
    let created = fleet
        .service
        .client
        .create_deployment()
        .application_name(APPLICATION)
        .deployment_group_name(GROUP)
        .deployment_config_name(config)
        .revision(revision);
    created.send().await.unwrap().deployment_id.unwrap()
}

fn notes(fleet: &Fleet) -> Vec<String> {
    let text = fs::read_to_string(fleet.path("notes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The largest number of hosts out of service at once, and the number in all.
fn out_of_service(fleet: &Fleet) -> (usize, usize) {
    let (mut out, mut all, mut most) = (BTreeSet::new(), BTreeSet::new(), 0);
    for note in notes(fleet) {
        let (sign, host) = note.split_at(1);
        all.insert(host.to_owned());
        match sign {
            "+" => assert!(out.insert(host.to_owned()), "{host} twice"),
            _ => assert!(out.remove(host), "{host} was not out of service"),
        }
        most = most.max(out.len());
    }
    (most, all.len())
}

fn outcome(info: &DeploymentInfo) -> (&str, i64, i64) {
    let overview = info.deployment_overview.as_ref().unwrap();
    (
        info.status.as_ref().unwrap().as_str(),
        overview.succeeded,
        overview.failed,
    )
}

#[tokio::test]
async fn one_host_after_the_other() {
    let fleet = Fleet::start(3, "").await;
    fs::write(fleet.path("go"), "").unwrap();
    let id = deploy(&fleet, "CodeDeployDefault.OneAtATime").await;
    let info = fleet.outcome(&id).await.info;
    assert_eq!(outcome(&info), ("Succeeded", 3, 0));
    assert_eq!(out_of_service(&fleet), (1, 3));
    fleet.stop().await;
}

#[tokio::test]
async fn half_of_the_hosts_at_a_time() {
    let fleet = Fleet::start(4, "").await;
    let id = deploy(&fleet, "CodeDeployDefault.HalfAtATime").await;
    wait::until("two hosts", async || {
        if notes(&fleet).len() == 2 {
            Ok(())
        } else {
            Err(notes(&fleet))
        }
    })
    .await;
    fs::write(fleet.path("go"), "").unwrap();
    let info = fleet.outcome(&id).await.info;
    assert_eq!(outcome(&info), ("Succeeded", 4, 0));
    assert_eq!(out_of_service(&fleet), (2, 4));
    fleet.stop().await;
}

#[tokio::test]
async fn a_host_that_dies_in_the_middle_costs_its_own_success_only() {
    let timers = "timers: {lease: 2, pick_up: 5, run: 5}\n";
    let mut fleet = Fleet::start_with(4, "", |_| timers.into()).await;
    let id = deploy(&fleet, "CodeDeployDefault.HalfAtATime").await;
    let note = wait::until("a host", async || {
        notes(&fleet)
            .into_iter()
            .next()
            .ok_or_else(|| notes(&fleet))
    })
    .await;
    let index = fleet
        .hosts
        .iter()
        .position(|host| note == format!("+{}", host.name))
        .unwrap();
    let (mut agent, host) = (fleet.agents.remove(index), fleet.hosts.remove(index));
    agent.kill().await;
    fs::write(fleet.path("go"), "").unwrap();

    let info = fleet.outcome(&id).await.info;
    assert_eq!(outcome(&info), ("Succeeded", 3, 1));
    let back: BTreeSet<_> = notes(&fleet)
        .into_iter()
        .filter(|note| note.starts_with('-'))
        .collect();
    assert_eq!(back.len(), 3, "{back:?}");
    assert!(!back.contains(&format!("-{}", host.name)));

    // When the host is up again, nothing of the deployment runs there a second time.
    let agent = host.start_agent();
    fleet.agents.push(agent);
    fleet.hosts.push(host);
    let next = deploy(&fleet, "CodeDeployDefault.AllAtOnce").await;
    assert_eq!(
        outcome(&fleet.outcome(&next).await.info),
        ("Succeeded", 4, 0)
    );
    let host = &fleet.hosts[3].name;
    let out = notes(&fleet)
        .into_iter()
        .filter(|note| *note == format!("+{host}"))
        .count();
    assert_eq!(out, 2, "once in each deployment");
    fleet.stop().await;
}
