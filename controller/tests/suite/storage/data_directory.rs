//! Protection of the data directory: root's files, keys, databases, revocations.

use std::os::unix::fs::{
    FileExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown, symlink,
};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use crate::support::{Controller, QUICK, command, pem, text};

/// A user that no machine has.
const USER: u32 = 54_321;

/// Runs a command on a data directory; returns whether it succeeded, and its output.
fn admin(data: &Path, args: &[&str]) -> (bool, String) {
    let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    let output = program
        .args(args)
        .arg("--data-dir")
        .arg(data)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
    )
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

/// Gives a folder to the other user; only its owner may open it.
fn give_away(data: &Path) {
    let parent = data.parent().unwrap();
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(data, Some(USER), Some(USER)).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
#[ignore = "needs root"]
fn as_root_what_is_in_the_data_directory_is_its_owners_and_what_is_elsewhere_is_roots() {
    let mut controller = Controller::start_on(QUICK, give_away);
    let data = controller.data();
    let status = std::fs::read_to_string(format!("/proc/{}/status", controller.id())).unwrap();
    assert!(
        status.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n")),
        "{status}"
    );
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
        assert_eq!(
            std::fs::symlink_metadata(&file).unwrap().uid(),
            USER,
            "{}",
            file.display()
        );
    }
    for file in files(&private.join("box1"))
        .into_iter()
        .chain([private.join("backup")])
    {
        let file = std::fs::metadata(&file).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o7777), (0, 0o600));
        assert!(file.len() > 0);
    }
}

#[test]
#[ignore = "needs root"]
fn as_root_links_in_the_data_directory_lead_nowhere() {
    let mut controller = Controller::start("tls: {self_signed: true}");
    let folder = controller.folder.path().to_owned();
    let backup = folder.join("backup");
    done(&controller.data(), &["backup", backup.to_str().unwrap()]);
    controller.terminate();
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
        let data = folder.join(format!("data-{name}"));
        assert!(
            command("cp")
                .arg("-a")
                .args([&controller.data(), &data])
                .status()
                .unwrap()
                .success()
        );
        let _ = std::fs::remove_file(data.join(name));
        let victim = folder.join(format!("victim-{name}"));
        std::fs::write(&victim, b"of root alone").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&victim, data.join(name)).unwrap();
        for file in files(&data) {
            lchown(&file, Some(USER), Some(USER)).unwrap();
        }
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
            assert!(
                !text.contains("of root alone") && !text.contains("b2Ygcm9vdCBhbG9uZQ"),
                "{name}: {text}"
            );
        }
        let found = std::fs::metadata(&victim).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o600), "{name}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"of root alone", "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn as_root_settings_are_looked_at_as_the_service_will_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    give_away(&data);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    let file = folder.path().join("controller.yml");
    let text = format!(
        "tls: {{certificate: {}, key: {}}}",
        certificate.display(),
        key.display()
    );
    std::fs::write(&file, text).unwrap();
    let config = ["config", "--config-file", file.to_str().unwrap()];
    let readable = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    readable(&key, 0o600);
    let said = refused(&data, &config);
    assert!(said.contains("k.pem cannot be read by this user"), "{said}");
    readable(&key, 0o644);
    done(&data, &config);
    // Root could pass the file to a service that it starts itself; the unit's service reads it as
    // its own user.
    readable(&file, 0o600);
    let said = done(&data, &config);
    assert!(
        said.contains("warning: ") && said.contains("cannot be read by the owner of"),
        "{said}"
    );
}

#[test]
#[ignore = "needs root"]
fn as_root_the_packaged_file_is_read_where_none_is_named() {
    let config = |prepare: &str| {
        let mut shell = command("unshare");
        shell.args(["-m", "--propagation", "private", "sh", "-ec"]);
        shell.arg(format!(
            "mount -t tmpfs tmpfs /etc; {prepare}; exec \"$0\" config"
        ));
        let output = shell
            .arg(env!("CARGO_BIN_EXE_codedeploy-controller"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let file = "/etc/codedeploy-controller/controller.yml";
    let said = config(&format!(
        "mkdir /etc/codedeploy-controller; echo 'listen: 127.0.0.1:7999' >{file}"
    ));
    let line = said
        .lines()
        .find(|line| line.starts_with("listen "))
        .unwrap();
    assert!(
        line.contains("127.0.0.1:7999") && line.ends_with(file),
        "{said}"
    );
    let said = config("true");
    assert!(
        said.contains(&format!("no file was read: {file} does not exist")),
        "{said}"
    );
}

#[test]
#[ignore = "needs root"]
fn as_root_who_may_not_look_is_told_to_be_root() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Other users may not be able to reach it where it is built.
    let program = folder.path().join("controller");
    std::fs::copy(env!("CARGO_BIN_EXE_codedeploy-controller"), &program).unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    for args in [
        &["host", "list"][..],
        &["signer"],
        &["credentials", "create", "--role", "operator"],
    ] {
        let mut stranger = command(program.to_str().unwrap());
        stranger
            .args(args)
            .arg("--data-dir")
            .arg(&data)
            .uid(USER)
            .gid(USER);
        let output = stranger.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && said.contains("Permission denied"),
            "{args:?}: {said}"
        );
        assert!(
            said.trim_end().ends_with(": run it as root (sudo)"),
            "{args:?}: {said}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn as_root_files_of_another_user_than_the_directorys_are_the_advice() {
    let mut controller = Controller::start(QUICK);
    let data = controller.data();
    let backup = empty_backup(&controller);
    done(&data, &["backup", &backup]);
    controller.terminate();
    give_away(&data);
    let text = refused(&data, &["restore", &backup]);
    assert!(
        text.contains("Permission denied")
            && text.contains(&format!("chown -R {USER} "))
            && !text.contains("run it as root"),
        "{text}"
    );
    for file in files(&data) {
        chown(file, Some(USER), None).unwrap();
    }
    done(&data, &["restore", &backup]);
}

#[test]
#[ignore = "needs root"]
fn as_root_a_data_directory_that_everyone_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let text = refused(folder.path(), &["credentials", "list"]);
    assert!(text.contains("everyone may write to it"), "{text}");
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

/// The message of a service that does not start.
fn not_served(data: &Path) -> String {
    refused(data, &["serve", "--listen", "127.0.0.1:0"])
}

#[test]
fn a_service_ends_when_it_finds_its_large_database_damaged() {
    let mut controller = Controller::start(QUICK);
    controller.terminate();
    let database = controller.data().join("codedeploy.sqlite3");
    // 40 MiB of rows that nothing reads.
    let rows = "INSERT INTO audit (time, who, operation, names)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
        SELECT 1, hex(zeroblob(1000)), 'none', '{}' FROM n";
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch(rows).unwrap();
    drop(connection);
    let file = std::fs::File::options()
        .write(true)
        .open(&database)
        .unwrap();
    let middle = file.metadata().unwrap().len() / 2 / 4096 * 4096;
    file.write_all_at(&[0xa5; 4096], middle).unwrap();
    let text = not_served(&controller.data());
    assert!(
        text.contains("is damaged") && text.contains("restore"),
        "{text}"
    );
}

#[test]
fn a_key_that_is_lost_or_another_is_not_made_anew() {
    let mut controller = Controller::start("tls: {self_signed: true}");
    let data = controller.data();
    done(&data, &["host", "add", "box1"]);
    let pin = done(&data, &["signer"]);
    let serves_tls = |data: &Path| {
        let config = data.parent().unwrap().join("controller.yml");
        refused(
            data,
            &[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--config-file",
                config.to_str().unwrap(),
            ],
        )
    };
    controller.terminate();
    for (name, key) in [
        ("master.key", "master"),
        ("signer-key.der", "signer"),
        ("tls-authority-key.der", "authority"),
    ] {
        let (file, safe) = (data.join(name), data.join("safe"));
        std::fs::rename(&file, &safe).unwrap();
        let text = serves_tls(&data);
        assert!(text.contains(name) && text.contains("is missing"), "{text}");
        assert!(text.contains(&format!("replace-key {key}")), "{text}");
        assert!(!file.exists());
        std::fs::write(&file, [7; 32]).unwrap();
        let text = serves_tls(&data);
        assert!(
            text.contains(name) && text.contains("is not the one"),
            "{text}"
        );
        std::fs::rename(&safe, &file).unwrap();
    }
    std::fs::remove_file(data.join("master.key")).unwrap();
    let text = refused(&data, &["credentials", "create", "--role", "operator"]);
    assert!(text.contains("master.key is missing"), "{text}");

    // A lost key is replaced, and the consequences are reported.
    let text = done(&data, &["replace-key", "master"]);
    assert!(text.contains("1 access keys are revoked"), "{text}");
    let text = done(&data, &["replace-key", "signer"]);
    assert!(
        text.contains("signer-key.der.replaced-") && text.contains("deployment_signer_pin"),
        "{text}"
    );
    done(&data, &["replace-key", "authority"]);
    controller.start_again();
    assert_ne!(done(&data, &["signer"]), pin);
    assert!(!done(&data, &["credentials", "list"]).contains("active"));
    done(&data, &["host", "remove", "box1"]);
    done(&data, &["host", "add", "box1"]);
    let text = refused(&data, &["replace-key", "signer"]);
    assert!(text.contains("stop it first"), "{text}");
}

/// A stopped service with two keys and two hosts, half of them revoked; the backup from before
/// that, and the id of the revoked key.
fn revoked_after_a_backup() -> (Controller, String, String) {
    let mut controller = Controller::start(QUICK);
    done(&controller.data(), &["backup", &empty_backup(&controller)]);
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let id = text(&key, "access_key_id");
    let data = controller.data();
    done(&data, &["credentials", "create", "--role", "read-only"]);
    done(&data, &["host", "add", "box1"]);
    done(&data, &["host", "add", "box2"]);
    let backup = controller
        .folder
        .path()
        .join("backup")
        .to_str()
        .unwrap()
        .to_owned();
    done(&data, &["backup", &backup]);
    done(&data, &["credentials", "revoke", &id]);
    done(&data, &["host", "remove", "box1"]);
    controller.terminate();
    (controller, backup, id)
}

/// The path of its backup from before all of that.
fn empty_backup(controller: &Controller) -> String {
    controller
        .folder
        .path()
        .join("empty")
        .to_str()
        .unwrap()
        .to_owned()
}

fn states(data: &Path) -> Vec<String> {
    let list = done(data, &["credentials", "list", "--all"]);
    list.lines()
        .skip(1)
        .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn what_was_revoked_after_a_backup_stays_so_when_it_is_put_back() {
    let (controller, backup, id) = revoked_after_a_backup();
    let data = controller.data();
    let text = done(&data, &["restore", &backup]);
    assert!(
        text.contains("although the backup is older: 2 access keys, 1 hosts"),
        "{text}"
    );
    assert_eq!(states(&data), ["revoked", "active", "revoked", "active"]);
    assert!(refused(&data, &["host", "remove", "box1"]).contains("no on-premises instance"));
    assert!(refused(&data, &["credentials", "revoke", &id]).contains("no active access key"));

    // Also through a backup without any of them.
    done(&data, &["restore", &empty_backup(&controller)]);
    assert_eq!(states(&data), ["revoked", "revoked"]);
    done(&data, &["restore", &backup]);
    assert_eq!(states(&data), ["revoked", "active", "revoked", "active"]);
}

#[test]
fn without_a_database_to_ask_a_restore_shows_the_keys_that_are_good_now() {
    let (controller, backup, id) = revoked_after_a_backup();
    let data = controller.data();
    std::fs::write(data.join("codedeploy.sqlite3"), vec![0xa5; 100_000]).unwrap();
    let _ = std::fs::remove_file(data.join("codedeploy.sqlite3-wal"));
    let text = done(&data, &["restore", &backup]);
    assert!(
        text.contains(&id) && text.contains("revoke those that should not be"),
        "{text}"
    );
    assert_eq!(states(&data), ["active"; 4]);
    assert_eq!(
        std::fs::read(data.join("codedeploy.before-restore")).unwrap(),
        vec![0xa5; 100_000]
    );
}

#[test]
fn a_second_restore_keeps_what_the_first_one_kept() {
    let (controller, backup, _) = revoked_after_a_backup();
    let data = controller.data();
    let database = || std::fs::read(data.join("codedeploy.sqlite3")).unwrap();
    // A write-ahead log that was not checkpointed, as after a kill.
    let connection = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
    connection
        .execute("DELETE FROM instances WHERE name = 'box1'", [])
        .unwrap();
    let raw = controller.folder.path().join("raw");
    std::fs::copy(data.join("codedeploy.sqlite3"), &raw).unwrap();
    std::fs::copy(
        data.join("codedeploy.sqlite3-wal"),
        controller.folder.path().join("raw-wal"),
    )
    .unwrap();
    drop(connection);
    std::fs::rename(&raw, data.join("codedeploy.sqlite3")).unwrap();
    std::fs::rename(
        controller.folder.path().join("raw-wal"),
        data.join("codedeploy.sqlite3-wal"),
    )
    .unwrap();
    let text = done(&data, &["restore", &backup]);
    assert!(text.contains("codedeploy.before-restore\n"), "{text}");
    let first = std::fs::read(data.join("codedeploy.before-restore")).unwrap();
    let restored = database();
    let text = done(&data, &["restore", &backup]);
    assert!(text.contains("codedeploy.before-restore-2"), "{text}");
    assert_eq!(
        std::fs::read(data.join("codedeploy.before-restore")).unwrap(),
        first
    );
    assert_eq!(
        std::fs::read(data.join("codedeploy.before-restore-2")).unwrap(),
        restored
    );
    let kept = rusqlite::Connection::open(data.join("codedeploy.before-restore")).unwrap();
    let count: i64 = kept
        .query_row(
            "SELECT count(*) FROM instances WHERE name = 'box1'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(count, 0, "what the journal had is lost");
}

#[test]
fn an_unfinished_restore_is_not_taken_for_a_first_start() {
    let (controller, backup, _) = revoked_after_a_backup();
    let data = controller.data();
    let database = data.join("codedeploy.sqlite3");
    for left in ["codedeploy.restored", "codedeploy.before-restore"] {
        std::fs::rename(&database, data.join(left)).unwrap();
        let text = not_served(&data);
        assert!(
            text.contains(left) && text.contains("restore FILE"),
            "{text}"
        );
        assert!(refused(&data, &["credentials", "list"]).contains(left));
        assert!(!database.exists());
        done(&data, &["restore", &backup]);
        assert_eq!(states(&data).len(), 4);
    }
}

#[test]
fn a_database_is_not_changed_under_an_older_service() {
    let controller = Controller::start(QUICK);
    let data = controller.data();
    let database = rusqlite::Connection::open(data.join("codedeploy.sqlite3")).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    let text = refused(&data, &["credentials", "list"]);
    assert!(
        text.contains("older version") && text.contains("restart it"),
        "{text}"
    );
    let version: i64 = database
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 1);
}

#[test]
fn secrets_that_everyone_may_read_are_warned_about() {
    let token = "events: {token: 0123456789abcdef0123456789abcdef}";
    let says = |settings: &str, mode: u32| {
        let folder = tempfile::tempdir().unwrap();
        let (config, data) = (
            folder.path().join("controller.yml"),
            folder.path().join("data"),
        );
        std::fs::write(&config, settings).unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(mode)).unwrap();
        // It ends as soon as it has warned, or not: a file blocks its data directory.
        std::fs::write(&data, "").unwrap();
        refused(
            &data,
            &[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--config-file",
                config.to_str().unwrap(),
            ],
        )
        .contains("every user of this machine can read the secrets")
    };
    assert!(says(token, 0o644));
    assert!(!says(token, 0o640));
    assert!(!says("region: eu-west-1", 0o644));
}
