//! The files that the agent leaves on its host during and after its work, and the effect of
//! settings on them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use codedeploy_tests::stub::POLL;
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::wait;

const EVENTS: [&str; 3] = ["DownloadBundle", "BeforeInstall", "Install"];

/// Defines `d-1` of the group `g1`: a file, and a script that runs until `gate` exists.
fn deployment(host: &Lone, gate: &Path) {
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\nhooks:\n  BeforeInstall:\n    - location: hook.sh\n",
        host.path("app").display()
    );
    let script = format!(
        "#!/bin/sh\necho begun > {0}.begun\nwhile ! [ -e {0} ]; do sleep 0.05; done\necho said\n",
        gate.display()
    );
    host.deployment(
        "g1",
        "d-1",
        &[
            ("appspec.yml", &appspec),
            ("hook.sh", &script),
            ("page", "one\n"),
        ],
    );
}

async fn deployed(more: &str) -> Lone {
    let host = Lone::start(more).await;
    let gate = host.path("gate");
    fs::write(&gate, "").unwrap();
    deployment(&host, &gate);
    for event in EVENTS {
        let ended = host.perform("d-1", event).await;
        assert_eq!(ended.status, "Succeeded", "{event}: {}", ended.message);
    }
    host
}

fn mode(path: impl AsRef<Path>) -> u32 {
    let path = path.as_ref();
    path.metadata()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .mode()
        & 0o7777
}

#[tokio::test]
async fn a_command_in_progress_has_a_file_in_the_folder_and_the_agent_the_names_that_are_configured()
 {
    let host = Lone::start("program_name: shop-agent\nongoing_deployment_tracking: busy\n").await;
    let gate = host.path("gate");
    deployment(&host, &gate);
    host.perform("d-1", "DownloadBundle").await;
    let id = host.command("d-1", "BeforeInstall");
    wait::until("the script runs", async || {
        fs::metadata(host.path("gate.begun"))
    })
    .await;
    assert_eq!(fs::read_to_string(host.path("root/busy/d-1")).unwrap(), id);
    let pid = fs::read_to_string(host.path("run/shop-agent.pid")).unwrap();
    assert_eq!(pid.trim().parse(), Ok(host.agent.pid().unwrap()));
    assert!(
        fs::read_to_string(host.path("log/shop-agent.log"))
            .unwrap()
            .contains("agent started")
    );
    fs::write(gate, "").unwrap();
    assert_eq!(host.stub.completed(&id, 1).await.status, "Succeeded");
    wait::until("nothing is in progress", async || {
        if host.path("root/busy/d-1").exists() {
            Err(())
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn records_and_logs_can_be_read_as_with_awss_agents_and_the_agents_own_files_are_private() {
    let host = deployed("").await;
    assert_eq!(mode(host.path("log/codedeploy-agent.log")), 0o644);
    let (root, folder) = (host.path("root"), host.path("root/g1/d-1"));
    for reachable in ["g1", "g1/d-1", "g1/d-1/deployment-archive"] {
        assert_eq!(
            mode(root.join(reachable)) & 0o111,
            0o111,
            "{reachable}: hooks run as other users"
        );
    }
    for script_output in [
        folder.join("logs/scripts.log"),
        root.join("deployment-logs/codedeploy-agent-deployments.log"),
    ] {
        assert!(
            fs::read_to_string(&script_output)
                .unwrap()
                .contains("[stdout]said")
        );
        assert_eq!(mode(&script_output), 0o640, "{}", script_output.display());
    }
    for folder in ["deployment-instructions", "ongoing-deployment"] {
        assert_eq!(mode(root.join(folder)), 0o755, "{folder}");
    }
    for record in [
        "g1-install.json",
        "g1-cleanup",
        "g1_last_successful_install",
        "g1_most_recent_install",
    ] {
        assert_eq!(
            mode(root.join("deployment-instructions").join(record)),
            0o644,
            "{record}"
        );
    }
    for own in [
        root.join("deployment-commands"),
        folder.join("deployment.json"),
        folder.join("undo.json"),
    ] {
        assert_eq!(mode(&own) & 0o077, 0, "{}", own.display());
    }
}

#[tokio::test]
async fn what_is_restricted_is_for_the_agent_and_the_readers_of_logs_alone() {
    let host =
        deployed("restrict_agent_dir_permissions: true\nrestrict_log_dir_permissions: true\n")
            .await;
    assert_eq!(mode(host.path("log/codedeploy-agent.log")), 0o640);
    let root = host.path("root");
    for folder in ["deployment-instructions", "ongoing-deployment"] {
        assert_eq!(mode(root.join(folder)), 0o700, "{folder}");
    }
    for record in fs::read_dir(root.join("deployment-instructions")).unwrap() {
        assert_eq!(mode(record.unwrap().path()) & 0o077, 0);
    }
}

#[tokio::test]
async fn without_the_log_of_all_deployments_each_keeps_its_own() {
    let host = deployed("enable_deployments_log: false\n").await;
    assert!(
        fs::read_to_string(host.path("root/g1/d-1/logs/scripts.log"))
            .unwrap()
            .contains("[stdout]said")
    );
    assert!(
        !host
            .path("root/deployment-logs/codedeploy-agent-deployments.log")
            .exists()
    );
}

#[tokio::test]
async fn with_authorisation_policies_calls_are_made_and_signed_for_the_service_that_knows_them() {
    let host = Lone::start("enable_auth_policy: true\n").await;
    let poll = host.stub.requested(POLL, 1).await;
    assert_eq!(
        poll.headers["x-amz-target"],
        "CodeDeployCommandService.PollHostCommand"
    );
    let signature = &poll.headers["authorization"];
    assert!(
        signature.contains("/us-east-1/codedeploy-commands-secure/aws4_request"),
        "{signature}"
    );
}
