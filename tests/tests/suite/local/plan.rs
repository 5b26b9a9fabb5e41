//! `codedeploy-local plan`: the effect of a deployment, without changing anything.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use codedeploy_tests::programs::Programs;
use codedeploy_tests::{bundle, tree};
use serde_json::Value;

/// A machine whose state, temporary files and deployed files are in one folder.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::set_permissions(machine.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(machine.path("tmp")).unwrap();
        fs::write(
            machine.path("conf.yml"),
            format!("root_dir: {}\n", machine.text("root")),
        )
        .unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A revision with this AppSpec, in which `APP` stands for the destination folder, and these
    /// files.
    fn revision(&self, appspec: &str, files: &[(&str, &str)]) -> String {
        let folder = self.path("revision");
        let _ = fs::remove_dir_all(&folder);
        bundle::write(&folder, files);
        let appspec = format!(
            "version: 0.0\nos: linux\n{}",
            appspec.replace("APP", &self.text("app"))
        );
        bundle::write(&folder, &[("appspec.yml", &appspec)]);
        self.text("revision")
    }

    async fn run(&self, first: &[&str], location: &str) -> Output {
        let configuration = self.text("conf.yml");
        let rest = ["-c", &configuration, "-l", location];
        let mut command = Programs::built().local.command(first.iter().chain(&rest));
        command
            .env("TMPDIR", self.path("tmp"))
            .output()
            .await
            .unwrap()
    }

    /// Plans, checks that nothing was changed, and returns the exit code and the output.
    async fn plan(&self, first: &[&str], location: &str) -> (i32, String) {
        let before = tree::listing(self.folder.path());
        let output = self.run(first, location).await;
        assert_eq!(
            tree::listing(self.folder.path()),
            before,
            "planning touched something"
        );
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text)
            .unwrap()
            .replace(&self.folder.path().display().to_string(), "");
        (output.status.code().unwrap(), text)
    }

    async fn document(&self, location: &str) -> Value {
        let (_, text) = self.plan(&["plan", "--json"], location).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

const SITE: &str = "files:\n  - source: site\n    destination: APP\n";

#[tokio::test]
async fn a_first_deployment_creates_everything_and_its_plan_says_so() {
    let machine = Machine::new();
    let appspec = SITE.to_owned()
        + "permissions:\n  - object: APP\n    pattern: \"*.html\"\n    mode: 640\n    owner: 0\n    type: [file]\n\
           hooks:\n  ValidateService:\n    - location: check.sh\n      timeout: 7\n";
    let files = [
        ("site/index.html", "one"),
        ("site/deep/page", "two"),
        ("check.sh", "#!/bin/sh\ntrue\n"),
    ];
    let revision = machine.revision(&appspec, &files);
    let (code, text) = machine.plan(&["plan"], &revision).await;
    insta::assert_snapshot!("first_deployment", text);
    assert_eq!(code, 0);
    assert_eq!(
        machine.plan(&["--dry-run"], &revision).await,
        (code, text),
        "--dry-run is another spelling"
    );
    let document = machine.document(&revision).await;
    insta::assert_snapshot!(
        "first_deployment_json",
        serde_json::to_string_pretty(&document).unwrap()
    );
}

#[tokio::test]
async fn what_the_plan_says_is_what_the_deployment_does() {
    let machine = Machine::new();
    let stop = "hooks:\n  ApplicationStop:\n    - location: stop.sh\n";
    let appspec = SITE.to_owned() + stop;
    let first = [
        ("site/stays", "one"),
        ("site/goes", "one"),
        ("stop.sh", "#!/bin/sh\n"),
    ];
    let revision = machine.revision(&appspec, &first);
    assert!(machine.run(&[], &revision).await.status.success());
    let second = [
        ("site/stays", "two"),
        ("site/comes", "two"),
        ("other.sh", "#!/bin/sh\n"),
    ];
    let revision = machine.revision(SITE, &second);
    let plan = machine.document(&revision).await;
    let app = machine.text("app");
    let files = serde_json::json!({
        "created": [format!("{app}/comes")],
        "replaced": [app, format!("{app}/stays")],
        "removed": [format!("{app}/goes")],
        "kept": [],
        "unchanged": [],
    });
    let mut found = plan["files"].clone();
    for list in found.as_object_mut().unwrap().values_mut() {
        for path in list.as_array_mut().unwrap() {
            *path = Value::from(format!(
                "{}{}",
                machine.folder.path().display(),
                path.as_str().unwrap()
            ));
        }
    }
    assert_eq!(found, files);
    let event = &plan["events"][2];
    assert_eq!(event["origin"], "last_successful", "{event}");
    assert_eq!(event["scripts"][0]["location"], "stop.sh");
    assert!(
        event["archive"]
            .as_str()
            .unwrap()
            .ends_with("-local/deployment-archive"),
        "{event}"
    );

    assert!(machine.run(&[], &revision).await.status.success());
    let mut names: Vec<_> = fs::read_dir(machine.path("app"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["comes", "stays"]);
}

#[tokio::test]
async fn files_that_are_on_the_host_already_are_shown_as_the_same() {
    let machine = Machine::new();
    let files = |changes| {
        [
            ("site/a", "one"),
            ("site/b", "one"),
            ("site/c", "one"),
            ("site/changes", changes),
        ]
    };
    let revision = machine.revision(SITE, &files("one"));
    assert!(machine.run(&[], &revision).await.status.success());
    let revision = machine.revision(SITE, &files("two"));
    let (code, text) = machine.plan(&["plan"], &revision).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches("\n  same     ").count(), 4, "{text}");
    let end = "0 created, 1 replaced, 0 removed, 0 kept, 4 unchanged; 0 conflicts\n";
    assert!(text.ends_with(end), "{text}");
    let plan = machine.document(&revision).await;
    assert_eq!(plan["files"]["unchanged"].as_array().unwrap().len(), 4);
    assert!(machine.run(&[], &revision).await.status.success());
    let changed = fs::read_to_string(machine.path("app/changes")).unwrap();
    assert_eq!(changed, "two");
}

#[tokio::test]
async fn every_conflict_and_every_change_is_told_together() {
    let machine = Machine::new();
    bundle::write(
        &machine.path("app"),
        &[("index.html", "the operator's"), ("page", "too")],
    );
    let files = [
        ("site/index.html", "one"),
        ("site/page", "two"),
        ("site/new", "three"),
    ];
    let revision = machine.revision(SITE, &files);
    let (code, text) = machine.plan(&["plan"], &revision).await;
    assert_eq!(code, 1, "{text}");
    insta::assert_snapshot!("conflicts", text);
    let (code, text) = machine.plan(&["plan", "-b", "RETAIN"], &revision).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.ends_with("1 created, 0 replaced, 0 removed, 2 kept, 0 unchanged; 0 conflicts\n"),
        "{text}"
    );
    let (code, text) = machine.plan(&["plan", "-b", "OVERWRITE"], &revision).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.ends_with("1 created, 2 replaced, 0 removed, 0 kept, 0 unchanged; 0 conflicts\n"),
        "{text}"
    );
}

#[tokio::test]
async fn scripts_that_cannot_run_are_problems() {
    let machine = Machine::new();
    let appspec = "hooks:\n  BeforeInstall:\n    - location: missing.sh\n    - location: dos.sh\n    - location: plain\n    \
                   - location: exotic.sh\n";
    let files = [
        ("dos.sh", "#!/bin/sh\r\ntrue\r\n"),
        ("plain", "echo\n"),
        ("exotic.sh", "#!/nowhere/perl\n"),
    ];
    let revision = machine.revision(appspec, &files);
    let (code, text) = machine.plan(&["plan"], &revision).await;
    assert_eq!(code, 1, "{text}");
    insta::assert_snapshot!("script_problems", text);
}

#[tokio::test]
async fn an_account_that_a_script_may_create_is_a_warning_and_otherwise_a_conflict() {
    let machine = Machine::new();
    let permissions = "permissions:\n  - object: APP\n    owner: nobody-of-this-name\n";
    let files = [("site/page", "one"), ("users.sh", "#!/bin/sh\n")];
    let revision = machine.revision(&format!("{SITE}{permissions}"), &files);
    let (code, text) = machine.plan(&["plan"], &revision).await;
    assert!(
        code == 1 && text.contains("; 1 conflict\n"),
        "{code}: {text}"
    );
    let hooks = "hooks:\n  BeforeInstall:\n    - location: users.sh\n";
    let revision = machine.revision(&format!("{SITE}{permissions}{hooks}"), &files);
    let (code, text) = machine.plan(&["plan"], &revision).await;
    assert!(
        code == 0 && text.contains("an earlier script of this deployment may do so"),
        "{code}: {text}"
    );
}

#[tokio::test]
async fn every_kind_of_bundle_has_the_same_plan() {
    let machine = Machine::new();
    let revision = machine.revision(SITE, &[("site/index.html", "one")]);
    let (_, expected) = machine.plan(&["plan"], &revision).await;
    for (kind, bytes) in [
        ("zip", bundle::zip(Path::new(&revision))),
        ("tar", bundle::tar(Path::new(&revision))),
        ("tgz", bundle::tgz(Path::new(&revision))),
    ] {
        fs::write(machine.path("bundle"), bytes).unwrap();
        let (code, text) = machine
            .plan(&["plan", "-t", kind], &machine.text("bundle"))
            .await;
        assert_eq!((code, text), (0, expected.clone()), "{kind}");
    }
}

#[tokio::test]
async fn a_bundle_that_cannot_be_deployed_has_no_plan_but_a_reason() {
    let machine = Machine::new();
    let appspec = machine.path("revision/appspec.yml");
    let broken: [(&str, &[u8], &str); 4] = [
        ("empty", b"", "the file is empty"),
        ("not text", b"\xff\xfe\x00", "UTF-16"),
        ("noise", &[b'x'; 2 << 20], "must not have more than"),
        (
            "wrong",
            b"version: 0.0\nos: windows\n",
            "expected \"linux\"",
        ),
    ];
    for (name, bytes, expected) in broken {
        let revision = machine.revision(SITE, &[("site/index.html", "one")]);
        fs::write(&appspec, bytes).unwrap();
        let (code, text) = machine.plan(&["plan"], &revision).await;
        assert!(
            code == 1 && text.contains(expected),
            "{name}: {code}: {text}"
        );
        assert!(
            !text.contains("codedeploy-plan-"),
            "names a folder that is gone: {text}"
        );
        let (_, text) = machine.plan(&["plan", "--json"], &revision).await;
        let document: Value = serde_json::from_str(&text).unwrap();
        assert!(
            document["can_start"] == false && document["error"].is_string(),
            "{document}"
        );
    }
    let revision = machine.revision(SITE, &[("site/index.html", "one")]);
    fs::remove_file(&appspec).unwrap();
    nix::unistd::mkfifo(&appspec, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = machine.run(&["plan"], &revision).await;
    assert_eq!(
        output.status.code(),
        Some(1),
        "a FIFO is refused, not waited for"
    );
    fs::remove_file(&appspec).unwrap();
    fs::write(machine.path("bundle"), [b'x'; 4096]).unwrap();
    let (code, text) = machine
        .plan(&["plan", "-t", "zip"], &machine.text("bundle"))
        .await;
    assert!(
        code == 1 && text.contains("cannot be unpacked"),
        "{code}: {text}"
    );
}

#[tokio::test]
async fn planning_an_example_touches_neither_state_nor_destination() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../appspec-examples");
    let mut planned = 0;
    for entry in fs::read_dir(examples).unwrap().map(Result::unwrap) {
        if !entry.path().join("appspec.yml").exists() {
            continue;
        }
        let machine = Machine::new();
        let revision = machine.revision(SITE, &[("site/index.html", "one")]);
        assert!(
            machine.run(&[], &revision).await.status.success(),
            "there is state to be touched"
        );
        let plan = machine.document(entry.path().to_str().unwrap()).await;
        // The last deployment's files are removed, and the example's are created.
        assert!(
            plan["files"]["removed"]
                .as_array()
                .is_some_and(|removed| removed.len() == 2),
            "{plan}"
        );
        let created = plan["files"]["created"].as_array().unwrap();
        assert!(!created.is_empty(), "{plan}");
        for path in created {
            assert!(
                !Path::new(path.as_str().unwrap()).exists(),
                "{path} was made"
            );
        }
        planned += 1;
    }
    assert!(planned >= 5, "{planned} examples");
}
