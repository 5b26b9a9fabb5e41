//! What an operator relies on day by day: that a mistake is named, and that nothing is made by one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

use support::{Controller, QUICK, command};

struct Said {
    ok: bool,
    out: String,
    err: String,
}

fn run(args: &[&str], environment: &[(&str, &Path)]) -> Said {
    let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    let output = program.args(args).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn a_mistyped_data_directory_is_refused_and_nothing_is_made_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let typo = folder.path().join("typo");
    for exists in [false, true] {
        if exists {
            std::fs::create_dir(&typo).unwrap();
        }
        for args in [
            &["signer"][..],
            &["certificate"],
            &["credentials", "create", "--role", "operator"],
            &["credentials", "list"],
            &["credentials", "revoke", "AKIA0"],
            &["host", "add", "box1", "--endpoint", "http://10.0.0.5"],
            &["host", "remove", "box1"],
            &["github-token", "list"],
        ] {
            let said = run(&[args, &["--data-dir", typo.to_str().unwrap()]].concat(), &[]);
            let named =
                said.err.contains(typo.to_str().unwrap()) && said.err.contains("start the service first");
            assert!(!said.ok && named, "{args:?}: {}", said.err);
        }
        assert_eq!(typo.exists(), exists);
    }
    assert_eq!(std::fs::read_dir(&typo).unwrap().count(), 0);
}

#[test]
fn the_environment_names_the_data_directory() {
    let controller = Controller::start(QUICK);
    let data = controller.data();
    let said = run(&["signer"], &[("CODEDEPLOY_CONTROLLER_DATA_DIR", &data)]);
    assert!(said.ok && said.out.contains("deployment_signer_pin"), "{}", said.err);
}

#[test]
fn a_database_keeps_its_region_and_account() {
    let mut controller = Controller::start("region: eu-west-1\naccount_id: '210987654321'");
    controller.terminate();
    let data = controller.data();
    // Also without what its service said of itself.
    std::fs::remove_file(data.join("service.json")).unwrap();
    let added = controller.admin(&["host", "add", "box1", "--endpoint", "https://deploy.example.com"]);
    let files = String::from_utf8(added.stdout).unwrap();
    assert!(files.contains("region: eu-west-1\n") && files.contains("iam::210987654321:user"), "{files}");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    for other in [&["--region", "us-east-1", "--account-id", "210987654321"][..], &["--region", "eu-west-1"]]
    {
        let said = run(&[&serve, other].concat(), &[]);
        let advised =
            said.err.contains("eu-west-1 and account 210987654321") && said.err.contains("Set region");
        assert!(!said.ok && advised, "{}", said.err);
    }
    controller.start_again();
}

#[test]
fn urls_that_hosts_cannot_use_are_told() {
    let controller = Controller::start(QUICK);
    let add = |controller: &Controller, args: &[&str]| {
        let output = controller.admin(&[&["host", "add"], args].concat());
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (ok, said) = add(&controller, &["box1"]);
    assert!(ok && said.contains("only from this machine"), "{said}");
    let (ok, said) = add(&controller, &["box2", "--endpoint", "http://10.0.0.5:7080"]);
    assert!(ok && said.contains("can read along"), "{said}");
    let (ok, said) = add(&controller, &["box3", "--endpoint", "https://deploy.example.com"]);
    assert!(ok && said.is_empty(), "{said}");
    let secure = Controller::start("tls: {self_signed: true, names: [10.0.0.5]}");
    let (ok, said) = add(&secure, &["box1", "--endpoint", "http://10.0.0.5:7080"]);
    assert!(!ok && said.contains("answers TLS alone"), "{said}");
    let (ok, said) = add(&secure, &["box1", "--endpoint", "https://10.0.0.5:7080"]);
    assert!(ok && said.is_empty(), "{said}");
}
