//! The state of a deployment below `root_dir`: for hooks, log shippers, and the next agent.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use codedeploy_tests::bundle;

use super::machine::Machine;

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A bundle with these `hooks`, each a location and the script's lines.
fn revision(machine: &Machine, hooks: &[(&str, &str, &str)]) -> String {
    let mut appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\npermissions:\n  - object: {0}/page\n    \
         mode: 640\nhooks:\n",
        machine.app()
    );
    let folder = machine.path("b");
    bundle::write(&folder, &[("page", "one")]);
    for (event, location, lines) in hooks {
        appspec += &format!("  {event}:\n    - location: {location}\n");
        bundle::write(
            &folder,
            &[(
                location.trim_start_matches('/'),
                &format!("#!/bin/sh\n{lines}\n"),
            )],
        );
    }
    bundle::write(&folder, &[("appspec.yml", &appspec)]);
    folder.to_str().unwrap().to_owned()
}

fn deployments(machine: &Machine) -> Vec<PathBuf> {
    let group = machine.path("root/default-local-deployment-group");
    fs::read_dir(group)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[tokio::test]
async fn records_are_as_open_as_those_of_awss_agents_and_the_rest_is_private() {
    let machine = Machine::new();
    let folder = revision(&machine, &[("AfterInstall", "a.sh", "echo said")]);
    assert!(machine.deploy(&["-l", &folder]).await.succeeded);
    let root = machine.path("root");
    assert_eq!(mode(&root), 0o711);
    let records = root.join("deployment-instructions");
    assert_eq!(mode(&records), 0o755);
    for record in [
        "-install.json",
        "-cleanup",
        "_last_successful_install",
        "_most_recent_install",
    ] {
        assert_eq!(
            mode(records.join(format!("default-local-deployment-group{record}"))),
            0o644,
            "{record}"
        );
    }
    let deployment = &deployments(&machine)[0];
    assert_eq!(mode(deployment), 0o755);
    assert_eq!(mode(deployment.join("deployment.json")), 0o600);
    assert_eq!(mode(deployment.join("logs/scripts.log")), 0o640);
    let instructions =
        fs::read_to_string(records.join("default-local-deployment-group-install.json")).unwrap();
    let chmod = format!(
        r#"{{"type":"chmod","mode":"640","file":"{}/page"}}"#,
        machine.app()
    );
    assert!(instructions.contains(&chmod), "{instructions}");
}

#[tokio::test]
async fn with_restrict_agent_dir_permissions_new_records_are_for_the_agent_alone() {
    let machine = Machine::new();
    let configured = fs::read_to_string(machine.path("conf.yml")).unwrap();
    fs::write(
        machine.path("conf.yml"),
        format!("{configured}restrict_agent_dir_permissions: true\n"),
    )
    .unwrap();
    let folder = revision(&machine, &[]);
    assert!(machine.deploy(&["-l", &folder]).await.succeeded);
    let records = machine.path("root/deployment-instructions");
    assert_eq!(mode(&records), 0o700);
    for record in fs::read_dir(&records).unwrap() {
        assert_eq!(mode(record.unwrap().path()) & 0o077, 0);
    }
    assert_eq!(mode(machine.path("root")), 0o711);
}

#[tokio::test]
async fn records_and_logs_that_are_there_keep_their_modes() {
    let machine = Machine::new();
    let folder = revision(&machine, &[("AfterInstall", "a.sh", "echo said")]);
    assert!(machine.deploy(&["-l", &folder]).await.succeeded);
    let (records, logs) = (
        machine.path("root/deployment-instructions"),
        machine.path("root/deployment-logs"),
    );
    let group = "default-local-deployment-group";
    let there = [
        (records.join(format!("{group}-install.json")), 0o604),
        (records.join(format!("{group}-cleanup")), 0o640),
        (
            records.join(format!("{group}_last_successful_install")),
            0o600,
        ),
        (records.join(format!("{group}_most_recent_install")), 0o664),
        (logs.join("codedeploy-agent-deployments.log"), 0o644),
        (records.clone(), 0o750),
        (logs.clone(), 0o755),
        (machine.path("root"), 0o755),
    ];
    let root = nix::unistd::geteuid().is_root();
    for (path, mode) in &there {
        if root {
            std::os::unix::fs::chown(path, None, Some(4)).unwrap();
        }
        set_mode(path, *mode);
    }
    assert!(machine.deploy(&["-l", &folder]).await.succeeded);
    for (path, expected) in &there {
        assert_eq!(mode(path), *expected, "{}", path.display());
        if root {
            assert_eq!(fs::metadata(path).unwrap().gid(), 4, "{}", path.display());
        }
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_hook_of_another_user_reads_which_deployment_is_installed() {
    let machine = Machine::new();
    let record = machine.path(
        "root/deployment-instructions/default-local-deployment-group_last_successful_install",
    );
    let folder = revision(
        &machine,
        &[(
            "ApplicationStart",
            "a.sh",
            &format!("cat {}", record.display()),
        )],
    );
    let appspec =
        fs::read_to_string(machine.path("b/appspec.yml")).unwrap() + "      runas: nobody\n";
    fs::write(machine.path("b/appspec.yml"), appspec).unwrap();
    for umask in ["0022", "0077"] {
        let _ = fs::remove_dir_all(machine.path("root"));
        let _ = fs::remove_dir_all(machine.path("app"));
        let local = codedeploy_tests::programs::Programs::built()
            .local
            .command::<&str>([]);
        let local = local.as_std().get_program().to_str().unwrap().to_owned();
        let script = format!(
            "umask {umask}; exec {local} -c {} -l {folder}",
            machine.path("conf.yml").display()
        );
        let output = codedeploy_tests::programs::Program::at("/bin/sh")
            .output(["-c", &script])
            .await;
        assert!(
            output.status.success(),
            "umask {umask}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

#[tokio::test]
async fn the_times_of_deployments_tell_their_order_whatever_is_cleaned_up_later() {
    let machine = Machine::new();
    let folder = revision(&machine, &[("AfterInstall", "a.sh", "true")]);
    let mut earlier: Vec<(PathBuf, SystemTime)> = Vec::new();
    for count in 1..=3 {
        let ran = machine.deploy(&["-l", &folder]).await;
        assert!(ran.succeeded, "{}", ran.everything());
        for (path, time) in &earlier {
            assert_eq!(
                fs::metadata(path).unwrap().modified().unwrap(),
                *time,
                "after {count} deployments"
            );
        }
        // Long ago, so that a later change would show.
        for (number, path) in deployments(&machine).into_iter().enumerate() {
            if !earlier.iter().any(|(known, _)| *known == path) {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + number as u64);
                fs::File::open(&path).unwrap().set_modified(time).unwrap();
                earlier.push((path, time));
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_link_that_a_hook_puts_in_a_log_folders_place() {
    let deployment = r#"d=$(dirname "$0"); d=$(dirname "$d")"#;
    for (what, exchange) in [
        ("logs", "rm -rf $d/logs && ln -s VICTIM $d/logs"),
        ("logs, moved", "mv $d/logs $d/moved && ln -s VICTIM $d/logs"),
        (
            "logs, relative",
            "rm -rf $d/logs && ln -s ../../../victim $d/logs",
        ),
        (
            "scripts.log",
            "rm $d/logs/scripts.log && ln -s VICTIM/scripts.log $d/logs/scripts.log",
        ),
        (
            "the deployment's folder",
            "mkdir VICTIM/logs && mv $d $d.moved && cp -a $d.moved VICTIM.copy && rm -rf VICTIM.copy/logs && ln -s VICTIM VICTIM.copy/logs && ln -s VICTIM.copy $d",
        ),
        (
            "deployment-logs",
            "r=$(dirname $(dirname $d)) && rm -rf $r/deployment-logs && ln -s VICTIM $r/deployment-logs",
        ),
    ] {
        let machine = Machine::new();
        let victim = machine.path("victim");
        fs::create_dir(&victim).unwrap();
        let exchange = format!(
            "{deployment}\n{}\necho exchanged",
            exchange.replace("VICTIM", victim.to_str().unwrap())
        );
        let folder = revision(
            &machine,
            &[
                ("BeforeInstall", "a.sh", &exchange),
                ("AfterInstall", "b.sh", "echo later"),
                ("ApplicationStart", "b.sh", "echo later"),
            ],
        );
        let ran = machine.deploy(&["-l", &folder]).await;
        assert!(
            ran.stdout.contains("BeforeInstall        succeeded"),
            "{what}: {}",
            ran.everything()
        );
        let written: Vec<_> = walk(&victim)
            .into_iter()
            .filter(|path| path.is_file())
            .collect();
        assert_eq!(
            written,
            [""; 0].map(PathBuf::from),
            "{what}: {}",
            ran.everything()
        );
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() && !path.is_symlink() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[tokio::test]
async fn a_link_to_the_folder_of_all_logs_that_an_operator_made_is_followed() {
    let machine = Machine::new();
    fs::create_dir(machine.path("root")).unwrap();
    fs::create_dir(machine.path("elsewhere")).unwrap();
    symlink(
        machine.path("elsewhere"),
        machine.path("root/deployment-logs"),
    )
    .unwrap();
    let folder = revision(&machine, &[("AfterInstall", "a.sh", "echo said")]);
    let ran = machine.deploy(&["-l", &folder]).await;
    assert!(ran.succeeded, "{}", ran.everything());
    let log =
        fs::read_to_string(machine.path("elsewhere/codedeploy-agent-deployments.log")).unwrap();
    assert!(log.contains("[stdout]said"), "{log}");
}

#[tokio::test]
async fn script_logs_name_locations_as_they_are_written_and_only_of_scripts_that_begin() {
    let machine = Machine::new();
    let folder = revision(
        &machine,
        &[
            ("BeforeInstall", "/a.sh", "true"),
            ("AfterInstall", "./a.sh", "true"),
            ("ApplicationStart", "s//a.sh", "exit 3"),
        ],
    );
    let ran = machine.deploy(&["-l", &folder]).await;
    assert!(
        ran.stdout.contains(
            "failed at ApplicationStart in s//a.sh: Script at specified location: s//a.sh"
        ),
        "{}",
        ran.stdout
    );
    let log = || {
        let deployment = deployments(&machine).pop().unwrap();
        let text = fs::read_to_string(deployment.join("logs/scripts.log")).unwrap();
        text.lines()
            .map(|line| line[20..].to_owned())
            .collect::<Vec<_>>()
    };
    let expected = [
        "LifecycleEvent - BeforeInstall",
        "Script - /a.sh",
        "LifecycleEvent - AfterInstall",
        "Script - ./a.sh",
        "LifecycleEvent - ApplicationStart",
        "Script - s//a.sh",
    ];
    assert_eq!(log(), expected);

    let _ = fs::remove_dir_all(machine.path("root"));
    let _ = fs::remove_dir_all(machine.path("app"));
    fs::remove_file(machine.path("b/s/a.sh")).unwrap();
    let ran = machine.deploy(&["-l", &folder]).await;
    assert!(ran.stdout.contains("does not exist"), "{}", ran.stdout);
    assert_eq!(log(), expected[..5]);
}
