//! A host that its agent rolls back: the reports to the service, and recovery after a kill.

use std::fs;

use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::wait;

use crate::noted::{ALL, deployed, revision, text};

/// A host on which the first revision runs, and the second is installed. Its ValidateService is
/// this script.
async fn second_installed(validate: &str) -> (Lone, String) {
    let host = Lone::start("rollback_on_failure: true\n").await;
    let scripts = [
        ("d-1", "#!/bin/sh\necho first >> NOTES\n".to_owned()),
        ("d-2", validate.to_owned()),
    ];
    for (id, script) in scripts {
        let notes = host.path("notes").display().to_string();
        let script = script.replace("NOTES", &notes);
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\nhooks:\n  ValidateService:\n    - \
             location: validate.sh\n",
            host.path("app").display()
        );
        host.deployment(
            "web",
            id,
            &[
                ("appspec.yml", &appspec),
                ("page", id),
                ("validate.sh", &script),
            ],
        );
        for event in ["DownloadBundle", "Install"] {
            assert_eq!(host.perform(id, event).await.error_code, 0);
        }
    }
    let page = host.path("app/page").display().to_string();
    (host, page)
}

#[tokio::test]
async fn the_service_is_told_of_the_failure_and_in_one_line_more_of_the_rollback() {
    let (host, page) = second_installed("#!/bin/sh\necho it is broken\nexit 9\n").await;
    let completion = host.perform("d-2", "ValidateService").await;
    assert_eq!(
        (completion.error_code, completion.script_name.as_str()),
        (4, "validate.sh"),
        "{completion:?}"
    );
    assert!(completion.message.contains("exit code 9"), "{completion:?}");
    let mut lines = completion.log.lines().rev();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("this host was rolled back: "),
        "{completion:?}"
    );
    assert_eq!(lines.next(), Some("[stdout]it is broken"));
    assert_eq!(fs::read_to_string(page).unwrap(), "d-1");
    assert_eq!(fs::read_to_string(host.path("notes")).unwrap(), "first\n");
}

#[tokio::test]
async fn an_agent_that_is_killed_in_a_script_rolls_back_when_it_starts_again() {
    let (mut host, page) =
        second_installed("#!/bin/sh\necho second >> NOTES\nexec sleep 60\n").await;
    let command = host.command("d-2", "ValidateService");
    wait::until("the script runs", async || {
        fs::read_to_string(host.path("notes")).map_err(|error| error.to_string())
    })
    .await;
    host.kill_and_restart().await;
    let completion = host.stub.completed(&command, 1).await;
    assert_eq!(completion.error_code, 7, "{completion:?}");
    assert!(
        completion.log.starts_with("this host was rolled back: "),
        "{completion:?}"
    );
    assert_eq!(fs::read_to_string(page).unwrap(), "d-1");
    assert_eq!(
        fs::read_to_string(host.path("notes")).unwrap(),
        "second\nfirst\n"
    );
}

#[tokio::test]
async fn a_rollback_that_is_interrupted_is_finished_and_told_with_the_failure() {
    let mut host = Lone::start("rollback_on_failure: true\n").await;
    let at = |name: &str| host.path(name).display().to_string();
    let (hold, pid, running) = (at("hold"), at("pid"), at("running"));
    let start = format!(
        "if rm {hold} 2>/dev/null; then echo $$ > {pid}; exec sleep 1000; fi\necho v1 > {running}"
    );
    deployed(&host, "d-1", &revision(&host, "v1", &start, "true"), &ALL).await;
    let unhealthy = format!("rm {running}; touch {hold}; exit 3");
    deployed(
        &host,
        "d-2",
        &revision(&host, "v2", "true", &unhealthy),
        &ALL[..3],
    )
    .await;
    let _ = fs::remove_file(host.path("notes"));
    let id = host.command("d-2", "ValidateService");
    let script = wait::until("v1 starts again", async || {
        text(&host, "pid").parse::<u32>().map_err(|_| host.log())
    })
    .await;
    host.agent.kill().await;
    let killed = std::process::Command::new("kill")
        .args(["-9", &script.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(
        (
            text(&host, "srv/VERSION").as_str(),
            text(&host, "running").as_str()
        ),
        ("v1", "")
    );
    host.restart();

    let told = host.stub.taken(&id).await;
    assert_eq!(
        (
            told.status.as_str(),
            told.error_code,
            told.script_name.as_str()
        ),
        ("Failed", 4, "validate.sh")
    );
    assert!(told.message.contains("failed with exit code 3"), "{told:?}");
    let line = told.log.lines().last().unwrap_or_default();
    assert_eq!(
        line,
        "this host was rolled back: the files of d-1 are installed again, its ApplicationStart succeeded, its ValidateService succeeded"
    );
    assert_eq!(
        (
            text(&host, "srv/VERSION").as_str(),
            text(&host, "running").as_str()
        ),
        ("v1", "v1")
    );
    assert_eq!(
        text(&host, "notes"),
        "v2 ValidateService\nv1 ApplicationStart\nv1 ApplicationStart\nv1 ValidateService"
    );
    // Before that, a killed agent would report it again.
    wait::until("the agent has the answer to its report", async || {
        fs::metadata(host.record("told", &id))
    })
    .await;
    host.kill_and_restart().await;
    deployed(&host, "d-3", &revision(&host, "v3", "true", "true"), &ALL).await;
    assert_eq!(host.stub.accepted(&id).len(), 1, "told once");
    let left = fs::read_dir(host.path("root/deployment-instructions")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().contains("rollback")),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_rollback_by_hand_is_in_the_log_and_the_status_and_is_no_matter_of_awss_service() {
    let host = Lone::start("").await;
    deployed(&host, "d-1", &revision(&host, "v1", "true", "true"), &ALL).await;
    deployed(&host, "d-2", &revision(&host, "v2", "true", "true"), &ALL).await;
    let output = host.ask(&["rollback", "--deployment-group", "web"]).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(text(&host, "srv/VERSION"), "v1");
    let line = host
        .log()
        .lines()
        .find(|line| line.contains("taken back by hand"))
        .map(str::to_owned);
    let line = line.unwrap_or_else(|| panic!("no line of it in\n{}", host.log()));
    assert!(
        line.contains("d-2") && line.contains("the files of d-1 are installed again"),
        "{line}"
    );
    let status: serde_json::Value =
        serde_json::from_slice(&host.ask(&["status", "--json"]).await.stdout).unwrap();
    let newest = &status["agent"]["deployments"][0];
    assert_eq!(newest["deployment_id"], "d-2", "{status}");
    assert!(
        newest["rolled_back"]
            .as_str()
            .unwrap_or_default()
            .contains("d-1"),
        "{status}"
    );
    wait::until("nothing waits to be told", async || {
        let waiting = fs::read_dir(host.path("root/deployment-commands/rollbacks"))
            .unwrap()
            .count();
        if waiting == 0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    assert_eq!(host.stub.requests("PostHostRollback").len(), 0);
}
