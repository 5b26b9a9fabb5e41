//! Settings and their origins: every mistake is reported, and leaves no files.

use std::path::Path;

use crate::support::{Controller, QUICK, command, pem};

struct Said {
    ok: bool,
    out: String,
    err: String,
}

fn run(args: &[&str], environment: &[(&str, &Path)]) -> Said {
    let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    let output = program
        .args(args)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        ok: output.status.success(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
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
            let said = run(
                &[args, &["--data-dir", typo.to_str().unwrap()]].concat(),
                &[],
            );
            let named = said.err.contains(typo.to_str().unwrap())
                && said.err.contains("start the service first");
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
    assert!(
        said.ok && said.out.contains("deployment_signer_pin"),
        "{}",
        said.err
    );
}

#[test]
fn a_database_keeps_its_region_and_account() {
    let mut controller = Controller::start("region: us-west-2");
    controller.terminate();
    // Until they are used in a signature, they can be changed: a package starts the service before
    // anyone edits its settings.
    let settings = "region: eu-west-1\naccount_id: '210987654321'";
    std::fs::write(controller.folder.path().join("controller.yml"), settings).unwrap();
    controller.start_again();
    controller.terminate();
    let data = controller.data();
    // Also without the service's own record of its settings.
    std::fs::remove_file(data.join("service.json")).unwrap();
    let added = controller.admin(&[
        "host",
        "add",
        "box1",
        "--endpoint",
        "https://deploy.example.com",
    ]);
    let files = String::from_utf8(added.stdout).unwrap();
    assert!(
        files.contains("region: eu-west-1\n") && files.contains("iam::210987654321:user"),
        "{files}"
    );
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    for other in [
        &["--region", "us-east-1", "--account-id", "210987654321"][..],
        &["--region", "eu-west-1"],
    ] {
        let said = run(&[&serve, other].concat(), &[]);
        let advised = said.err.contains("eu-west-1 and account 210987654321")
            && said.err.contains("Set region");
        assert!(!said.ok && advised, "{}", said.err);
    }
    controller.start_again();
}

#[test]
fn urls_that_hosts_cannot_use_are_told() {
    let controller = Controller::start(QUICK);
    let add = |controller: &Controller, args: &[&str]| {
        let output = controller.admin(&[&["host", "add"], args].concat());
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (ok, said) = add(&controller, &["box1"]);
    assert!(ok && said.contains("only from this machine"), "{said}");
    let (ok, said) = add(&controller, &["box2", "--endpoint", "http://10.0.0.5:7080"]);
    assert!(ok && said.contains("can read along"), "{said}");
    let (ok, said) = add(
        &controller,
        &["box3", "--endpoint", "https://deploy.example.com"],
    );
    assert!(ok && said.is_empty(), "{said}");
    let secure = Controller::start("tls: {self_signed: true, names: [10.0.0.5]}");
    let (ok, said) = add(&secure, &["box1", "--endpoint", "http://10.0.0.5:7080"]);
    assert!(!ok && said.contains("answers TLS alone"), "{said}");
    let (ok, said) = add(&secure, &["box1", "--endpoint", "https://10.0.0.5:7080"]);
    assert!(ok && said.is_empty(), "{said}");
}

#[test]
fn settings_are_shown_with_their_origin_and_without_their_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("controller.yml");
    let text = "timers: {run: 60}\nevents:\n  token: 0123456789abcdef0123\n  webhooks:\n  - url: https://hooks.example.com/services/T0/secret\n    authorization: Bearer secret\nalarms:\n  errors: {prometheus: {url: 'http://prometheus:9090'}}\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let said = run(&["config", "--config-file", path], &[]);
    assert!(said.ok, "{}", said.err);
    let row = |key: &str| {
        let row = said
            .out
            .lines()
            .find(|line| line.split_whitespace().next() == Some(key));
        row.unwrap_or_else(|| panic!("no {key} in {}", said.out))
            .split_whitespace()
            .collect::<Vec<_>>()[1..]
            .join(" ")
    };
    assert_eq!(row("timers.run"), format!("60.0 {path}"));
    assert_eq!(row("timers.poll"), "45.0 default");
    assert_eq!(row("listen"), "127.0.0.1:7080 default");
    assert_eq!(row("endpoint"), "- not set");
    assert_eq!(row("events.token"), format!("(hidden) {path}"));
    assert_eq!(
        row("events.webhooks.0.url"),
        format!("https://hooks.example.com/(hidden) {path}")
    );
    assert_eq!(
        row("events.webhooks.0.authorization"),
        format!("(hidden) {path}")
    );
    assert_eq!(
        row("alarms.errors.prometheus.url"),
        format!("http://prometheus:9090 {path}")
    );
    let json = run(&["config", "--config-file", path, "--json"], &[]).out;
    let list: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert!(
        list.iter()
            .any(|line| line["key"] == "timers.run" && line["value"] == 60.0)
    );
    for shown in [&said.out, &json] {
        assert!(
            !shown.contains("secret") && !shown.contains("0123456789"),
            "{shown}"
        );
    }
}

#[test]
fn wrong_settings_are_all_told_and_are_no_reason_to_start_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("controller.yml");
    std::fs::write(
        &file,
        "listen: localhost:7080\ntimer: {}\ntimers:\n  run: soon\n",
    )
    .unwrap();
    let data = folder.path().join("data");
    for first in ["config", "serve"] {
        let args = [
            first,
            "--config-file",
            file.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
        ];
        let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
        let output = program.args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        let said = String::from_utf8(output.stderr).unwrap();
        for expected in [
            "3 mistakes",
            "127.0.0.1:7080",
            "line 2: timer is not a setting: did you mean timers?",
            "line 4: timers.run: found string \"soon\", expected a number",
        ] {
            assert!(said.contains(expected), "{expected} is missing from {said}");
        }
    }
    assert!(!data.exists());
}

#[test]
fn every_mistake_of_every_setting_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("controller.yml");
    let told = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let said = run(&["config", "--config-file", file.to_str().unwrap()], &[]);
        assert!(!said.ok && said.out.is_empty(), "{}", said.out);
        said.err
    };
    let flow = told(
        "timers: {poll: 90, pickup: 3}\ns3: {bucket: [revisions], keep_version: 3}\nlisten_on: 127.0.0.1:1\n",
    );
    for expected in [
        "5 mistakes",
        "line 1: timers.pickup is not a setting: did you mean pick_up?",
        "timers.poll is 90s",
        "line 2: s3.bucket is not a setting: did you mean buckets?",
        "line 2: s3.keep_version is not a setting: did you mean keep_versions?",
        "line 3: listen_on is not a setting",
    ] {
        assert!(flow.contains(expected), "{expected} is missing from {flow}");
    }
    let block = told(
        "tls:\n  certificate: c.pem\n  key: k.pem\n  self_signd: true\ntimers:\n  run: 0\n  lease: -1\n  poll: soon\n\
         quotas:\n  applications: many\n  targets: 3\ns3:\n  buckets: [A, B_]\n  keep_versions: 0\n  keep_days: 0\n\
         alarms:\n  one: {promethus: {url: 'http://x'}}\n  two: {webhook: {uri: 'http://x', token: a}}\n\
         load_balancers:\n  lb: {webhook: {}}\n\
         events:\n  token: short\n  topics: {ops: {url: x}}\n  webhooks:\n  - url: x\n  - {authorization: b}\n\
         region: X\naccount_id: '1'\nca_bundle: r.pem\n",
    );
    for expected in [
        "tls.certificate is c.pem: expected an absolute path",
        "tls.key is k.pem",
        "line 4: tls.self_signd is not a setting: did you mean self_signed?",
        "timers.run is 0",
        "timers.lease is -1",
        "line 8: timers.poll: found string",
        "line 10: quotas.applications: found string",
        "line 11: quotas.targets is not a setting",
        "s3.buckets has \"A\"",
        "s3.buckets has \"B_\"",
        "s3.keep_versions is 0",
        "s3.keep_days is 0",
        "line 17: alarms.one",
        "line 18: alarms.two.uri is not a setting: did you mean url?",
        "line 18: alarms.two.token is not a setting",
        "line 20: load_balancers.lb",
        "events.token has fewer than",
        "events.topics has \"ops\"",
        "events.webhooks[0].url is no URL",
        "events.webhooks[1]: missing field `url`",
        "region \"X\"",
        "account id \"1\"",
        "ca_bundle is r.pem",
    ] {
        assert!(
            block.contains(expected),
            "{expected} is missing from {block}"
        );
    }
}

/// A certificate for localhost that expired on 1 February 2020, with its key.
fn expired(folder: &Path) -> String {
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let (certificate, secret) = (folder.join("old.pem"), folder.join("old.key"));
    let made = parameters.self_signed(&key).unwrap();
    std::fs::write(&certificate, pem("CERTIFICATE", made.der())).unwrap();
    std::fs::write(&secret, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
    format!(
        "tls: {{certificate: {}, key: {}}}\n",
        certificate.display(),
        secret.display()
    )
}

#[test]
fn files_of_the_settings_are_looked_at_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("controller.yml");
    let config = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(&["config", "--config-file", file.to_str().unwrap()], &[])
    };
    let tls = expired(folder.path());
    let said = config(&tls);
    assert!(
        said.ok && said.err.contains("warning: the certificate"),
        "{}",
        said.err
    );
    assert!(
        said.err
            .contains("old.pem expired on 2020-02-01: clients reject it"),
        "{}",
        said.err
    );
    let said = config(
        "tls: {certificate: /nowhere/c.pem, key: /nowhere/k.pem}\nca_bundle: /nowhere/roots.pem\n",
    );
    assert!(!said.ok && said.err.contains("2 mistakes"), "{}", said.err);
    assert!(
        said.err.contains("/nowhere/c.pem") && said.err.contains("/nowhere/roots.pem"),
        "{}",
        said.err
    );
}
