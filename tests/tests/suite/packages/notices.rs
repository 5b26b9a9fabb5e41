//! The third-party notices of a program: the works that are linked into it, each with its licence,
//! and nothing else.

use std::process::Command;

use crate::pages::repository;

fn notices(program: &str) -> String {
    let output = Command::new(repository().join("packaging/notices"))
        .arg(program)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn notices_name_what_is_linked_and_nothing_else() {
    let [agent, controller] = ["codedeploy-agent", "codedeploy-controller"].map(notices);
    for text in [&agent, &controller] {
        for linked in ["aws-lc-sys", "rustls", "tokio"] {
            assert!(
                text.contains(&format!("\n  {linked} ")),
                "{linked} is linked and not named"
            );
        }
        assert!(text.contains("Apache License") && text.contains("Permission is hereby granted"));
        // A procedural macro, a crate for tests, a crate for build scripts, and this project's own
        // crate.
        for other in ["serde_derive", "proptest", "cc", "codedeploy-hooks"] {
            assert!(
                !text.contains(&format!("\n  {other} ")),
                "{other} is not in the program"
            );
        }
    }
    let [in_agent, in_controller] =
        [&agent, &controller].map(|text| text.contains("\n  rusqlite "));
    assert!(
        in_controller && !in_agent,
        "the database is in the controller alone"
    );
}
