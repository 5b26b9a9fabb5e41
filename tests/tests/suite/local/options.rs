//! Options and events in the form of AWS's tool.

use std::fs;

use codedeploy_tests::bundle;
use codedeploy_tests::programs::Programs;

use super::machine::{DEFAULT_ORDER, Machine, ran};

/// A bundle `b` with an `appspec.yml` that has `hooks`; each runs a script that records its event
/// and its application.
fn revision(machine: &Machine, hooks: &[&str]) -> String {
    let note = format!(
        "#!/bin/sh\necho \"$LIFECYCLE_EVENT of $APPLICATION_NAME\" >> {}\n",
        machine.path("events").display()
    );
    let mut appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\nhooks:\n",
        machine.app()
    );
    for hook in hooks {
        appspec += &format!("  {hook}:\n    - location: note.sh\n");
    }
    let folder = machine.path("b");
    bundle::write(
        &folder,
        &[
            ("appspec.yml", &appspec),
            ("note.sh", &note),
            ("page", "one"),
        ],
    );
    folder.to_str().unwrap().to_owned()
}

fn noted(machine: &Machine) -> Vec<String> {
    let text = fs::read_to_string(machine.path("events")).unwrap_or_default();
    let _ = fs::remove_file(machine.path("events"));
    text.lines()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_empty_value_counts_as_not_given() {
    let machine = Machine::new();
    let folder = revision(&machine, &["ApplicationStart"]);
    for option in [
        "-b",
        "-A",
        "-e",
        "-a",
        "-d",
        "--github-token",
        "--appspec-filename",
        "--events",
    ] {
        let ran = machine.deploy(&["-l", &folder, option, ""]).await;
        assert!(ran.succeeded, "{option} '': {}", ran.everything());
        assert_eq!(ran.events(), DEFAULT_ORDER, "{option} ''");
        assert_eq!(
            fs::read_to_string(machine.path("events")).unwrap(),
            format!("ApplicationStart of {folder}\n")
        );
        assert_eq!(noted(&machine), ["ApplicationStart"], "{option} ''");
    }
    let ran = machine.deploy(&["-l", &folder, "-e", ","]).await;
    assert_eq!(ran.events(), DEFAULT_ORDER, "{}", ran.everything());
    for option in ["-l", "-t", "-g"] {
        let ran = machine.deploy(&["-l", &folder, option, ""]).await;
        assert!(
            !ran.succeeded && ran.stdout.is_empty(),
            "{option} '': {}",
            ran.everything()
        );
    }
}

#[tokio::test]
async fn the_beginning_of_an_option_stands_for_it_and_one_that_fits_several_is_told_with_all() {
    let machine = Machine::new();
    let folder = revision(&machine, &["ApplicationStart"]);
    for (beginning, value) in [
        ("--bundle", folder.as_str()),
        ("--ty", "directory"),
        ("--file", "OVERWRITE"),
        ("--deployment-group-n", "x"),
        ("--deployment-group-", "x"),
        ("--deployment-group", "default-local-deployment-group"),
        ("--application", "x"),
        ("--e", "ApplicationStart"),
        ("--appspec", "appspec.yml"),
        ("--git", "x"),
    ] {
        for arguments in [
            vec![beginning.to_owned(), value.to_owned()],
            vec![format!("{beginning}={value}")],
        ] {
            let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            if beginning != "--bundle" {
                arguments.extend(["-l", &folder]);
            }
            let ran = machine.deploy(&arguments).await;
            assert!(ran.succeeded, "{arguments:?}: {}", ran.everything());
        }
    }
    let configuration = machine.path("conf.yml");
    let output = Programs::built()
        .local
        .output([
            "--agent",
            configuration.to_str().unwrap(),
            "-l",
            &folder,
            "--dry",
            "--j",
        ])
        .await;
    assert!(ran(output).stdout.contains(r#""can_start":true"#));

    for (beginning, fitting) in [
        (
            "--deployment",
            "--deployment-group or --deployment-group-name",
        ),
        (
            "--a=x",
            "--application-name or --agent-configuration-file or --appspec-filename",
        ),
    ] {
        let ran = machine.deploy(&["-l", &folder, beginning, "x"]).await;
        let words = format!("could be {fitting};");
        assert!(
            !ran.succeeded && ran.stderr.contains(&words),
            "{beginning}: {}",
            ran.everything()
        );
    }
    let ran = machine.deploy(&["validate", "--f", "json"]).await;
    assert!(!ran.succeeded, "{}", ran.everything());
}

#[tokio::test]
async fn the_application_is_named_after_the_location_as_it_was_typed() {
    let machine = Machine::new();
    revision(&machine, &["ApplicationStart"]);
    for typed in ["b", "./b", "b/"] {
        let mut command = Programs::built().local.command(["-l", typed, "-c"]);
        command
            .arg(machine.path("conf.yml"))
            .current_dir(machine.folder.path());
        let ran = ran(command.output().await.unwrap());
        assert!(ran.succeeded, "{typed}: {}", ran.everything());
        assert_eq!(
            fs::read_to_string(machine.path("events")).unwrap(),
            format!("ApplicationStart of {typed}\n")
        );
        fs::remove_file(machine.path("events")).unwrap();
    }
}

#[tokio::test]
async fn a_custom_event_may_come_before_install() {
    let machine = Machine::new();
    let folder = revision(&machine, &["PreCheck", "ApplicationStart"]);
    for (named, performed) in [
        (
            "DownloadBundle,PreCheck,Install",
            vec!["DownloadBundle", "PreCheck", "Install"],
        ),
        (
            "PreCheck,Install,ApplicationStart",
            vec!["DownloadBundle", "PreCheck", "Install", "ApplicationStart"],
        ),
        ("PreCheck", vec!["DownloadBundle", "Install", "PreCheck"]),
    ] {
        let ran = machine.deploy(&["-l", &folder, "-e", named]).await;
        assert!(ran.succeeded, "{named}: {}", ran.everything());
        assert_eq!(ran.events(), performed);
    }
    let ran = machine
        .deploy(&["-l", &folder, "-e", "PreCheck,DownloadBundle"])
        .await;
    assert!(
        ran.stderr
            .contains("PreCheck cannot come before DownloadBundle"),
        "{}",
        ran.everything()
    );
}

#[tokio::test]
async fn a_misspelt_event_is_refused_before_anything_runs_with_the_nearest_name() {
    let machine = Machine::new();
    let folder = revision(&machine, &["WarmUp", "ApplicationStop", "ApplicationStart"]);
    let zip = machine.path("b.zip");
    fs::write(&zip, bundle::zip(&machine.path("b"))).unwrap();
    assert!(
        machine
            .deploy(&["-l", &folder, "-e", "WarmUp"])
            .await
            .succeeded
    );
    noted(&machine);
    let before = fs::read_dir(machine.path("root/default-local-deployment-group"))
        .unwrap()
        .count();
    for (named, nearest) in [
        ("ApplicationStop,AplicationStart", "ApplicationStart"),
        ("ApplicationStop,applicationStart", "ApplicationStart"),
        ("ApplicationStop,Application Start", "ApplicationStart"),
        ("ApplicationStop,DownloadBundel,Install", "DownloadBundle"),
        ("ApplicationStop,WarmUpp", "WarmUp"),
    ] {
        for (kind, location) in [
            ("directory", folder.as_str()),
            ("zip", zip.to_str().unwrap()),
        ] {
            let ran = machine
                .deploy(&["-t", kind, "-l", location, "-e", named])
                .await;
            assert!(
                !ran.succeeded && ran.stdout.is_empty(),
                "{named}: {}",
                ran.everything()
            );
            assert!(
                ran.stderr.contains(&format!("did you mean {nearest}?")),
                "{named}: {}",
                ran.stderr
            );
        }
    }
    assert_eq!(
        fs::read_dir(machine.path("root/default-local-deployment-group"))
            .unwrap()
            .count(),
        before
    );
    assert_eq!(noted(&machine), [""; 0]);
}

#[tokio::test]
async fn the_log_of_the_scripts_is_named_after_a_success_too() {
    let machine = Machine::new();
    let folder = revision(&machine, &["ApplicationStart"]);
    let ran = machine.deploy(&["-l", &folder]).await;
    let lines: Vec<&str> = ran.stdout.lines().rev().take(2).collect();
    assert_eq!(lines[0], "AppSpec file valid. Local deployment successful");
    let log = lines[1]
        .strip_prefix("See the deployment log at ")
        .unwrap()
        .strip_suffix(" for more details")
        .unwrap();
    assert!(
        fs::read_to_string(log)
            .unwrap()
            .contains("Script - note.sh")
    );
}

#[tokio::test]
async fn a_warning_is_told_once() {
    let machine = Machine::new();
    let folder = revision(
        &machine,
        &["BlockTraffic", "AfterInstall", "ApplicationStart"],
    );
    let configured = fs::read_to_string(machine.path("conf.yml")).unwrap();
    fs::write(
        machine.path("conf.yml"),
        format!("{configured}verbose: false\n:max_revisions: 2\nmax_revisions: 3\n"),
    )
    .unwrap();
    let ran = machine.deploy(&["-l", &folder]).await;
    assert!(ran.succeeded, "{}", ran.everything());
    for warning in [
        "hooks.BlockTraffic",
        "line 4: max_revisions: stands on line 3 already",
    ] {
        let count = ran.everything().matches(warning).count();
        assert_eq!(count, 1, "{warning}: {}", ran.everything());
    }
}

#[tokio::test]
async fn the_agent_has_it_as_a_subcommand_too() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let arguments = [
        "deploy-local",
        "--bundle-location",
        revision.to_str().unwrap(),
        "--config-file",
    ];
    let mut command = Programs::built().agent.command(arguments);
    let ran = ran(command
        .arg(machine.path("conf.yml"))
        .output()
        .await
        .unwrap());
    assert!(ran.succeeded, "{}", ran.everything());
    assert_eq!(
        fs::read_to_string(machine.path("app/index.html")).unwrap(),
        "one"
    );
}
