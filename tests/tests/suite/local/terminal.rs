//! No output affects a terminal, whatever a bundle, a script or a command line contains.

use std::fs;

use codedeploy_tests::bundle;
use codedeploy_tests::programs::Programs;

use super::machine::{Machine, ran};

/// Clears the screen, rings, colours by a C1 control, reorders, isolates, deletes.
const HOSTILE: &str = "\u{1b}[2J\u{7}\u{9b}31m\u{202e}\u{2066}\u{200f}\u{7f}";
/// The same in a double-quoted YAML scalar.
const WRITTEN: &str = r"\e[2J\a\x9b31m\u202E\u2066\u200F\x7f";

fn hostile(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n') || reorders
}

#[tokio::test]
async fn names_of_a_bundle_are_escaped_on_every_output() {
    let machine = Machine::new();
    let app = machine.app();
    fs::create_dir(machine.path("other")).unwrap();
    fs::write(machine.path("other").join(format!("e{HOSTILE}vil")), "mine").unwrap();
    let other = machine.path("other").display().to_string();
    let cases = [
        (
            "source",
            format!("files:\n  - source: \"/x{WRITTEN}\"\n    destination: {app}\n"),
        ),
        (
            "destination",
            format!(
                "files:\n  - source: i\n    destination: \"{app}/x{WRITTEN}\"\n  - source: i\n    destination: \"{app}/x{WRITTEN}\"\n"
            ),
        ),
        (
            "location",
            format!("hooks:\n  BeforeInstall:\n    - location: \"x{WRITTEN}\"\n"),
        ),
        (
            "ran",
            "hooks:\n  BeforeInstall:\n    - location: bad.sh\n".to_owned(),
        ),
        (
            "script",
            format!("hooks:\n  BeforeInstall:\n    - location: \"e{WRITTEN}vil\"\n"),
        ),
        (
            "runas",
            format!(
                "hooks:\n  BeforeInstall:\n    - location: a.sh\n      runas: \"u{WRITTEN}\"\n"
            ),
        ),
        (
            "event",
            format!("hooks:\n  \"Before{WRITTEN}Install\":\n    - location: a.sh\n"),
        ),
        ("key", format!("\"k{WRITTEN}\": 1\n")),
        (
            "owner",
            format!(
                "permissions:\n  - object: {app}\n    owner: \"o{WRITTEN}\"\n  - object: \"/p{WRITTEN}\"\n    group: \"g{WRITTEN}\"\n"
            ),
        ),
        (
            "conflict",
            format!("files:\n  - source: /\n    destination: {other}\n"),
        ),
    ];
    for (name, appspec) in cases {
        let folder = machine.path(name);
        let evil = format!("e{HOSTILE}vil");
        // A script's output: escape sequences are dropped, and marks are left to the program that
        // shows them.
        let bad = format!("#!/bin/sh\nprintf 'said {HOSTILE}\\n'\nexit 3\n");
        let appspec = format!("version: 0.0\nos: linux\n{appspec}");
        bundle::write(
            &folder,
            &[
                ("appspec.yml", &appspec),
                ("i", "1"),
                ("a.sh", "#!/bin/sh\n"),
                ("bad.sh", &bad),
                (&evil, &bad),
            ],
        );
        let folder = folder.to_str().unwrap();
        let conf = machine.path("conf.yml");
        let conf = conf.to_str().unwrap();
        for (arguments, is_json) in [
            (vec!["-c", conf, "-l", folder], false),
            (vec!["plan", "-c", conf, "-l", folder], false),
            (vec!["plan", "--json", "-c", conf, "-l", folder], true),
            (vec!["validate", folder], false),
            (
                vec!["validate", "--strict", "--format", "github", folder],
                false,
            ),
            (vec!["validate", "--json", folder], true),
        ] {
            let ran = ran(Programs::built().local.output(&arguments).await);
            let said = ran.everything();
            assert!(!said.contains(hostile), "{name}: {arguments:?}: {said:?}");
            if is_json {
                serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_name_with_a_line_break_cannot_look_like_a_workflow_command() {
    let machine = Machine::new();
    let folder = machine.path("b");
    let appspec = "version: 0.0\nos: linux\nfiles:\n  - source: \"x\\n::error::forged\"\n    destination: /srv/app\n";
    bundle::write(&folder, &[("appspec.yml", appspec)]);
    for format in ["text", "github"] {
        let ran = ran(Programs::built()
            .local
            .output(["validate", "--format", format, folder.to_str().unwrap()])
            .await);
        assert!(
            !ran.stdout.lines().any(|line| line.starts_with("::error::")),
            "{}",
            ran.stdout
        );
        assert!(
            ran.stdout.contains("does not exist in the bundle"),
            "{}",
            ran.stdout
        );
    }
    let ran = machine.deploy(&["-l", folder.to_str().unwrap()]).await;
    assert!(
        !ran.everything()
            .lines()
            .any(|line| line.starts_with("::error::")),
        "{}",
        ran.everything()
    );
}

#[tokio::test]
async fn the_command_line_is_escaped_as_well() {
    let machine = Machine::new();
    let bad = format!("x{HOSTILE}");
    let option = format!("--{bad}");
    for arguments in [
        vec!["-l", &bad],
        vec!["-t", &bad],
        vec!["-b", &bad],
        vec!["-g", &bad],
        vec!["-e", &bad],
        vec!["-A", &bad],
        vec!["-c", &bad],
        vec!["-l", "s3:x\u{1b}"],
        vec![&option],
        vec![&bad],
        vec!["validate", &bad],
        vec!["validate", "--format", &bad, "x"],
        vec!["plan", "-l", &bad],
    ] {
        let mut command = Programs::built().local.command(&arguments);
        command
            .current_dir(machine.folder.path())
            .env("HOME", machine.folder.path());
        let ran = ran(command.output().await.unwrap());
        assert!(
            !ran.succeeded && !ran.everything().contains(hostile),
            "{arguments:?}: {:?}",
            ran.everything()
        );
    }
}
