//! `diff`: a revision compared with the one that a deployment group runs.

use std::path::Path;

use serde_json::Value;

use crate::support::revision::{appspec, revision, write};
use crate::support::{Controller, shop, text};

const SETTINGS: &str = "s3: {buckets: [revisions]}\ntimers: {poll: 0.05}";

fn change(folder: &Path) {
    std::fs::remove_file(folder.join("old.txt")).unwrap();
    write(folder, "appspec.yml", &appspec(60), 0o644);
    write(folder, "start.sh", "#!/bin/sh\nexec true\n", 0o755);
    write(folder, "after.sh", "#!/bin/sh\nexit 0\n", 0o700);
    write(folder, "new\u{1b}[2J.txt", "new", 0o644);
}

/// Runs a command; returns its exit code and its output.
fn operate(controller: &Controller, words: &[&str]) -> (Option<i32>, String) {
    let output = controller.admin(words);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_revision_is_compared_with_the_running_one() {
    let (controller, client, agent) = shop::one_host(SETTINGS).await;
    let folder = controller.folder.path().join("site");
    revision(&folder);
    let path = folder.to_str().unwrap();
    let diff = |revision: &str, more: &[&str]| {
        operate(
            &controller,
            &[&["diff", "shop", "web", revision], more].concat(),
        )
    };
    let (code, shown) = diff(path, &[]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(
        shown.contains("no deployment to it has succeeded"),
        "{shown}"
    );

    let deployed = controller.admin_json(&["deploy", "shop", "web", path, "--json"]);
    agent.run_to("ValidateService").await;
    shop::ended(&client, &text(&deployed, "deploymentId")).await;
    let (code, shown) = diff(path, &[]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("All files are equal.") && !shown.contains("Hooks"),
        "{shown}"
    );

    change(&folder);
    let (code, shown) = diff(path, &[]);
    assert_eq!(code, Some(0), "{shown}");
    for line in [
        r"added    new\u{1b}[2J.txt",
        "removed  old.txt",
        "changed  start.sh, 17 bytes before, now 20 bytes",
        "mode     after.sh, mode 755 before, now 700",
        "1 file is equal.",
        "changed  AfterInstall: after.sh (timeout 30) before, now after.sh (timeout 60)",
        "script   ApplicationStart: start.sh, with another content",
    ] {
        assert!(shown.contains(line), "{line} is missing from\n{shown}");
    }
    let (_, shown) = diff(path, &["--json"]);
    let found: Value = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown}"));
    let changes = &found["changes"];
    assert_eq!(changes["files"].as_array().unwrap().len(), 5, "{shown}");
    assert_eq!(changes["equalFiles"], 1);

    // An object of the controller is fetched, and one of another store is not.
    let running = &found["runningRevision"]["s3Location"];
    let member = |name: &str| running[name].as_str().unwrap();
    let object = format!(
        "s3://{}/{}?versionId={}",
        member("bucket"),
        member("key"),
        member("version")
    );
    let (code, shown) = diff(&object, &[]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("All files are equal."), "{shown}");
    let (code, shown) = diff("s3://elsewhere/site.zip", &[]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(
        shown.contains("not in a bucket of the controller"),
        "{shown}"
    );
    let (code, shown) = diff(path, &["--running", path]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("All files are equal."), "{shown}");
    write(&folder, ".hidden", "", 0o644);
    let (_, shown) = diff(path, &[]);
    assert!(shown.contains("added    .hidden"), "{shown}");
    let (_, shown) = diff(path, &["--ignore-hidden-files"]);
    assert!(!shown.contains(".hidden"), "{shown}");
    let damaged = controller.folder.path().join("damaged.tgz");
    std::fs::write(&damaged, b"\x1f\x8b\x08 and no more").unwrap();
    let (code, shown) = diff(damaged.to_str().unwrap(), &[]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("damaged.tgz cannot be compared"), "{shown}");
}

#[tokio::test]
async fn a_revision_elsewhere_is_named_by_hand() {
    let (controller, client, agent) = shop::one_host(SETTINGS).await;
    let id = shop::deploy(&client, "1.zip").await;
    agent.run_to("ValidateService").await;
    shop::ended(&client, &id).await;
    let folder = controller.folder.path().join("site");
    revision(&folder);
    let path = folder.to_str().unwrap();
    let (code, shown) = operate(&controller, &["diff", "shop", "web", path]);
    assert_eq!(code, Some(1), "{shown}");
    for words in ["s3://bkt/1.zip", "--running PATH"] {
        assert!(shown.contains(words), "{shown}");
    }
    let before = controller.folder.path().join("before");
    revision(&before);
    std::fs::write(before.join("appspec.yml"), "hooks: [").unwrap();
    let words = [
        "diff",
        "shop",
        "web",
        path,
        "--running",
        before.to_str().unwrap(),
    ];
    let (code, shown) = operate(&controller, &words);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("The hooks cannot be compared: the running revision:"),
        "{shown}"
    );
}
