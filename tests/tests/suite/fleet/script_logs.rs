//! The whole output of a failing script, from a real agent through a real controller to an operator.

use codedeploy_tests::fleet::{APPLICATION, Fleet, GROUP};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::wait;
use serde_json::Value;

const APPSPEC: &str =
    "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: after.sh\n";

/// Prints 300 KiB, and a sequence that would clear a terminal.
const SCRIPT: &str =
    "#!/bin/sh\nseq -f 'row %06.0f of the table' 1 9000\nprintf '\\033[2Jthe end\\n'\nexit 3\n";

async fn operate(fleet: &Fleet, words: &[&str]) -> String {
    let mut command = Programs::built().controller.command(words);
    let data = &fleet.service.data;
    let output = command.arg("--data-dir").arg(data).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{words:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

async fn why(fleet: &Fleet, id: &str) -> Value {
    serde_json::from_str(&operate(fleet, &["why", id, "--json"]).await).unwrap()
}

#[tokio::test]
async fn the_output_of_a_failing_script_can_be_read_at_the_controller() {
    let fleet = Fleet::start(2, "").await;
    let deployed = fleet
        .deploy(&[("appspec.yml", APPSPEC), ("after.sh", SCRIPT)])
        .await;
    assert_eq!(deployed.status(), "Failed");
    let id = deployed.id.as_str();
    let found = wait::until("the controller has both logs", async || {
        let found = why(&fleet, id).await;
        let failures = found["failures"].as_array().unwrap();
        if failures.len() == 2
            && failures
                .iter()
                .all(|failure| failure["logState"] == "Whole")
        {
            Ok(found)
        } else {
            Err(found)
        }
    })
    .await;
    let advice = found["advice"][0].as_str().unwrap();
    assert!(
        advice.contains(&format!("why {id} --log --host box")),
        "{advice}"
    );

    let brief = operate(&fleet, &["why", id]).await;
    assert!(
        brief.contains("the end") && !brief.contains("row 000001 of"),
        "{brief}"
    );
    let whole = operate(&fleet, &["why", id, "--log", "--host", "box2"]).await;
    for line in [
        "row 000001 of the table",
        "row 009000 of the table",
        "Script - after.sh",
    ] {
        assert!(whole.contains(line), "{line} is missing");
    }
    assert!(whole.contains("box2 failed") && !whole.contains("box1 failed"));
    assert!(whole.contains("[stdout]the end") && !whole.contains('\u{1b}'));
    let json: Value =
        serde_json::from_str(&operate(&fleet, &["why", id, "--log", "--json"]).await).unwrap();
    let log = &json["scriptLogs"][0];
    assert_eq!(
        (&log["logState"], &log["lifecycleEventName"]),
        (&"Whole".into(), &"AfterInstall".into())
    );
    assert!(log["log"].as_str().unwrap().len() > 300 * 1024);

    // It goes with its deployment.
    let rows = || {
        let database = fleet.service.data.join("codedeploy.sqlite3");
        let database = rusqlite::Connection::open(database).unwrap();
        let count =
            "SELECT (SELECT count(*) FROM script_logs) + (SELECT count(*) FROM script_log_parts)";
        database
            .query_row(count, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(rows(), 2 + 4);
    let delete = fleet.service.client.delete_deployment_group();
    let delete = delete
        .application_name(APPLICATION)
        .deployment_group_name(GROUP);
    delete.send().await.unwrap();
    assert_eq!(rows(), 0);
    fleet.stop().await;
}
