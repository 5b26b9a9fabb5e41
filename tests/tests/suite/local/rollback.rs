//! A host that rolls back: automatically after a failure, and on request.

use std::fs;
use std::path::PathBuf;

use codedeploy_tests::programs::Programs;
use codedeploy_tests::{bundle, tree};

/// A machine with one application; its revisions differ in their files and in their health.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(configuration: &str) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let root = machine.path("root");
        let text = format!(
            "root_dir: {}\nlog_dir: {folder}/log\npid_dir: {folder}/run\n{configuration}\n",
            root.display(),
            folder = machine.folder.path().display(),
        );
        fs::write(machine.path("conf.yml"), text).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn app(&self) -> String {
        tree::listing(&self.path("app"))
    }

    /// The records of the revisions' start scripts since the last call.
    fn started(&self) -> String {
        let notes = fs::read_to_string(self.path("notes")).unwrap_or_default();
        let _ = fs::remove_file(self.path("notes"));
        notes
    }

    /// Deploys a revision with these files; ValidateService succeeds if `healthy`.
    async fn deploy(&self, version: &str, files: &[(&str, &str)], healthy: bool) -> (bool, String) {
        let revision = self.path("revision");
        let _ = fs::remove_dir_all(&revision);
        let appspec = format!(
            "version: 0.0\nos: linux\nfile_exists_behavior: OVERWRITE\nfiles:\n  - source: site\n    destination: {}\n\
             permissions:\n  - object: {0}\n    mode: 640\n    type: [file]\nhooks:\n  ApplicationStart:\n    - location: start.sh\n  \
             ValidateService:\n    - location: validate.sh\n",
            self.path("app").display(),
        );
        let notes = self.path("notes").display().to_string();
        let start = format!("#!/bin/sh\necho \"{version} $LIFECYCLE_EVENT\" >> {notes}\n");
        let exit = if healthy { 0 } else { 3 };
        let validate = format!("{start}echo {version} is looked at\nexit {exit}\n");
        bundle::write(
            &revision,
            &[
                ("appspec.yml", &appspec),
                ("start.sh", &start),
                ("validate.sh", &validate),
            ],
        );
        bundle::write(&revision.join("site"), files);
        self.local(&[
            "--bundle-location",
            revision.to_str().unwrap(),
            "--type",
            "directory",
        ])
        .await
    }

    async fn local(&self, arguments: &[&str]) -> (bool, String) {
        let configuration = self.path("conf.yml");
        let all = [arguments, &["-c", configuration.to_str().unwrap()]].concat();
        let output = Programs::built().local.output(all).await;
        (output.status.success(), texts(&output))
    }

    async fn agent(&self, arguments: &[&str]) -> (bool, String) {
        let configuration = self.path("conf.yml");
        let all = [
            arguments,
            &["--config-file", configuration.to_str().unwrap()],
        ]
        .concat();
        let output = Programs::built().agent.output(all).await;
        (output.status.success(), texts(&output))
    }
}

fn texts(output: &std::process::Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

const GROUP: &str = "default-local-deployment-group";
const FIRST: [(&str, &str); 3] = [
    ("index.html", "one"),
    ("only/first.txt", "1"),
    ("run.sh", "#!/bin/sh\n"),
];
const SECOND: [(&str, &str); 3] = [
    ("index.html", "two"),
    ("new/deep/second.txt", "2"),
    ("theirs.conf", "ours"),
];

#[tokio::test]
async fn after_a_failure_the_files_and_the_service_of_before_are_back() {
    let machine = Machine::new("rollback_on_failure: true");
    fs::create_dir_all(machine.path("app")).unwrap();
    fs::write(machine.path("app/theirs.conf"), "theirs").unwrap();
    let (succeeded, said) = machine.deploy("v1", &FIRST, true).await;
    assert!(succeeded, "{said}");
    let before = machine.app();
    machine.started();

    let (succeeded, said) = machine.deploy("v2", &SECOND, false).await;
    assert!(!succeeded, "{said}");
    assert_eq!(machine.app(), before);
    assert_eq!(
        machine.started(),
        "v2 ApplicationStart\nv2 ValidateService\nv1 ApplicationStart\nv1 ValidateService\n"
    );
    assert!(
        said.contains("failed at ValidateService in validate.sh"),
        "{said}"
    );
    assert!(said.contains("[stdout]v2 is looked at"), "{said}");
    let line = said
        .lines()
        .find(|line| line.contains("this host was rolled back"))
        .expect(&said);
    assert!(
        line.ends_with("its ApplicationStart succeeded, its ValidateService succeeded"),
        "{line}"
    );

    let (succeeded, said) = machine.deploy("v3", &SECOND, true).await;
    assert!(succeeded, "{said}");
    assert!(machine.app().contains("new/deep/second.txt") && !machine.app().contains("first.txt"));
}

#[tokio::test]
async fn without_a_deployment_before_nothing_is_left() {
    let machine = Machine::new("rollback_on_failure: true");
    let (succeeded, said) = machine.deploy("v1", &FIRST, false).await;
    assert!(!succeeded, "{said}");
    assert!(
        said.contains("no deployment was installed before"),
        "{said}"
    );
    assert_eq!(machine.app(), "");
    assert_eq!(
        machine.started(),
        "v1 ApplicationStart\nv1 ValidateService\n"
    );
}

#[tokio::test]
async fn a_host_stays_as_the_deployment_left_it_unless_it_is_told_otherwise() {
    let machine = Machine::new("");
    machine.deploy("v1", &FIRST, true).await;
    let (succeeded, said) = machine.deploy("v2", &SECOND, false).await;
    assert!(!succeeded && !said.contains("rolled back"), "{said}");
    assert!(machine.app().contains("new/deep/second.txt"));
}

#[tokio::test]
async fn the_last_deployment_is_taken_back_by_hand_once() {
    let machine = Machine::new("");
    machine.deploy("v1", &FIRST, true).await;
    let before = machine.app();
    machine.deploy("v2", &SECOND, true).await;
    machine.started();
    // Changes made since are not lost.
    fs::write(machine.path("app/index.html"), "changed by hand").unwrap();

    let (succeeded, said) = machine
        .agent(&["rollback", "--deployment-group", "LocalFleet"])
        .await;
    assert!(succeeded, "{said}");
    assert_eq!(machine.app(), before, "{said}");
    assert_eq!(
        machine.started(),
        "v1 ApplicationStart\nv1 ValidateService\n"
    );
    let note = said
        .lines()
        .find(|line| line.contains("index.html was changed since the Install"))
        .expect(&said);
    let kept = note.rsplit_once("kept as ").unwrap().1;
    assert_eq!(fs::read_to_string(kept).unwrap(), "changed by hand");

    let (succeeded, said) = machine
        .agent(&["rollback", "--deployment-group", GROUP])
        .await;
    assert!(
        !succeeded && said.contains("no files are kept for a rollback"),
        "{said}"
    );
    assert_eq!(machine.app(), before);

    let (succeeded, said) = machine
        .agent(&["rollback", "--deployment-group", "web"])
        .await;
    assert!(
        !succeeded && said.contains(&format!("installed are: LocalFleet ({GROUP})")),
        "{said}"
    );
}

#[tokio::test]
async fn a_revision_that_does_not_start_again_is_said_to_be() {
    let machine = Machine::new("rollback_on_failure: true");
    machine.deploy("v1", &FIRST, true).await;
    let before = machine.app();
    // The earlier revision needs something that no longer exists.
    let needed = machine.path("needed");
    fs::write(&needed, "").unwrap();
    let archives = fs::read_dir(machine.path("root").join(GROUP)).unwrap();
    for folder in archives {
        let script = folder.unwrap().path().join("deployment-archive/start.sh");
        fs::write(
            &script,
            format!("#!/bin/sh\ncat {}.gone\n", needed.display()),
        )
        .unwrap();
    }
    let (succeeded, said) = machine.deploy("v2", &SECOND, false).await;
    assert!(!succeeded);
    assert!(said.contains("but its ApplicationStart failed"), "{said}");
    assert_eq!(machine.app(), before);
}

#[tokio::test]
async fn what_is_known_of_a_deployment_may_be_damaged() {
    let machine = Machine::new("");
    machine.deploy("v1", &FIRST, true).await;
    machine.deploy("v2", &SECOND, true).await;
    let after = machine.app();
    let pointer = machine.path(&format!(
        "root/deployment-instructions/{GROUP}_last_successful_install"
    ));
    let file = PathBuf::from(fs::read_to_string(pointer).unwrap()).join("deployment.json");
    let sound = fs::read(&file).unwrap();
    for damaged in [
        &b""[..],
        b"{",
        b"[]",
        b"\xff\xfe",
        b"{\"version\": 7}",
        &sound[..sound.len() / 2],
        &[b' '; 10 << 20],
    ] {
        fs::write(&file, damaged).unwrap();
        let (succeeded, said) = machine
            .agent(&["rollback", "--deployment-group", GROUP])
            .await;
        assert!(!succeeded && said.contains("deployment.json"), "{said}");
        assert_eq!(machine.app(), after);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (succeeded, said) = machine
        .agent(&["rollback", "--deployment-group", GROUP])
        .await;
    assert!(!succeeded && said.contains("deployment.json"), "{said}");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, sound).unwrap();
    let (succeeded, said) = machine
        .agent(&["rollback", "--deployment-group", GROUP])
        .await;
    assert!(succeeded, "{said}");
}
