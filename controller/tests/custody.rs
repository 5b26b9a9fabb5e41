//! What is kept when things go wrong around the data directory: root's files, keys, databases, revocations.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use support::{Controller, QUICK, command};

/// A user that no machine has.
const USER: u32 = 54_321;

/// Whether the test can give files to another user; says so when it cannot.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not tested: only root works in the data directory of another user");
    }
    root
}

/// Runs a command on a data directory; its output, whatever it is, comes last.
fn admin(data: &Path, args: &[&str]) -> (bool, String) {
    let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    let output = program.args(args).arg("--data-dir").arg(data).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn done(data: &Path, args: &[&str]) -> String {
    let (ok, text) = admin(data, args);
    assert!(ok, "{args:?}: {text}");
    text
}

fn refused(data: &Path, args: &[&str]) -> String {
    let (ok, text) = admin(data, args);
    assert!(!ok, "{args:?}: {text}");
    text
}

/// Gives a folder, which only its owner may open, to the other user, who can get to it.
fn give_away(data: &Path) {
    let parent = data.parent().unwrap();
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(data, Some(USER), Some(USER)).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn as_root_what_is_in_the_data_directory_is_its_owners_and_what_is_elsewhere_is_roots() {
    if !is_root() {
        return;
    }
    let mut controller = Controller::start_on(QUICK, give_away);
    let data = controller.data();
    let status = std::fs::read_to_string(format!("/proc/{}/status", controller.id())).unwrap();
    assert!(status.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n")), "{status}");
    let private = controller.folder.path().join("private");
    std::fs::create_dir(&private).unwrap();
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = |name: &str| private.join(name).to_str().unwrap().to_owned();
    done(&data, &["credentials", "create", "--role", "operator"]);
    done(&data, &["host", "add", "box1", "--output", &path("box1")]);
    done(&data, &["backup", &path("backup")]);
    let again = refused(&data, &["host", "add", "box1", "--output", &path("again")]);
    assert!(again.contains("already registered"), "{again}");
    assert_eq!(files(&private.join("again")), Vec::<PathBuf>::new());
    controller.terminate();
    done(&data, &["restore", &path("backup")]);
    done(&data, &["credentials", "list"]);
    for file in files(&data) {
        assert_eq!(std::fs::symlink_metadata(&file).unwrap().uid(), USER, "{}", file.display());
    }
    for file in files(&private.join("box1")).into_iter().chain([private.join("backup")]) {
        let file = std::fs::metadata(&file).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o7777), (0, 0o600));
        assert!(file.len() > 0);
    }
}

#[test]
fn as_root_links_in_the_data_directory_lead_nowhere() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let whole = folder.path().join("whole");
    std::fs::create_dir(&whole).unwrap();
    done(&whole, &["credentials", "create", "--role", "operator"]);
    done(&whole, &["backup", backup.to_str().unwrap()]);
    let names = [
        "codedeploy.sqlite3",
        "codedeploy.sqlite3-wal",
        "service.lock",
        "codedeploy.restoring",
        "codedeploy.restored",
        "master.key",
        "signer-key.der",
        "tls-authority.der",
    ];
    for name in names {
        let data = folder.path().join(format!("data-{name}"));
        std::fs::create_dir(&data).unwrap();
        let victim = folder.path().join(format!("victim-{name}"));
        std::fs::write(&victim, b"of root alone").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&victim, data.join(name)).unwrap();
        give_away(&data);
        for args in [
            &["restore", backup.to_str().unwrap()][..],
            &["credentials", "create", "--role", "operator"],
            &["credentials", "list"],
            &["signer"],
            &["certificate"],
            &["host", "add", "box1", "--endpoint", "http://10.0.0.5"],
            &["restore", data.join(name).to_str().unwrap()],
        ] {
            let (_, text) = admin(&data, args);
            assert!(!text.contains("of root alone") && !text.contains("b2Ygcm9vdCBhbG9uZQ"), "{name}: {text}");
        }
        let found = std::fs::metadata(&victim).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o600), "{name}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"of root alone", "{name}");
    }
}

#[test]
fn as_root_a_data_directory_that_everyone_may_write_to_is_refused() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let text = refused(folder.path(), &["credentials", "list"]);
    assert!(text.contains("everyone may write to it"), "{text}");
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}
