//! A host that goes back: by itself after a failure, and when somebody says so.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests start programs, and fail where they cannot"
)]

use std::fs;
use std::path::PathBuf;

use codedeploy_tests::programs::Programs;
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::{bundle, tree, wait};

/// A machine with one application, whose revisions say which files they have and whether they are healthy.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(configuration: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
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

    /// What the revisions' start scripts have noted since this was last asked.
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
            &[("appspec.yml", &appspec), ("start.sh", &start), ("validate.sh", &validate)],
        );
        bundle::write(&revision.join("site"), files);
        self.local(&["--bundle-location", revision.to_str().unwrap(), "--type", "directory"]).await
    }

    async fn local(&self, arguments: &[&str]) -> (bool, String) {
        let configuration = self.path("conf.yml");
        let all = [arguments, &["-c", configuration.to_str().unwrap()]].concat();
        let output = Programs::built().local.output(all).await;
        (output.status.success(), texts(&output))
    }

    async fn agent(&self, arguments: &[&str]) -> (bool, String) {
        let configuration = self.path("conf.yml");
        let all = [arguments, &["--config-file", configuration.to_str().unwrap()]].concat();
        let output = Programs::built().agent.output(all).await;
        (output.status.success(), texts(&output))
    }
}

fn texts(output: &std::process::Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

const GROUP: &str = "default-local-deployment-group";
const FIRST: [(&str, &str); 3] = [("index.html", "one"), ("only/first.txt", "1"), ("run.sh", "#!/bin/sh\n")];
const SECOND: [(&str, &str); 3] =
    [("index.html", "two"), ("new/deep/second.txt", "2"), ("theirs.conf", "ours")];

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
    assert!(said.contains("failed at ValidateService in validate.sh"), "{said}");
    assert!(said.contains("[stdout]v2 is looked at"), "{said}");
    let line = said.lines().find(|line| line.contains("this host was rolled back")).expect(&said);
    assert!(line.ends_with("its ApplicationStart succeeded, its ValidateService succeeded"), "{line}");

    let (succeeded, said) = machine.deploy("v3", &SECOND, true).await;
    assert!(succeeded, "{said}");
    assert!(machine.app().contains("new/deep/second.txt") && !machine.app().contains("first.txt"));
}

#[tokio::test]
async fn without_a_deployment_before_nothing_is_left() {
    let machine = Machine::new("rollback_on_failure: true");
    let (succeeded, said) = machine.deploy("v1", &FIRST, false).await;
    assert!(!succeeded, "{said}");
    assert!(said.contains("no deployment was installed before"), "{said}");
    assert_eq!(machine.app(), "");
    assert_eq!(machine.started(), "v1 ApplicationStart\nv1 ValidateService\n");
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
    // What somebody wrote since is not lost.
    fs::write(machine.path("app/index.html"), "changed by hand").unwrap();

    let (succeeded, said) = machine.agent(&["rollback", "--deployment-group", "LocalFleet"]).await;
    assert!(succeeded, "{said}");
    assert_eq!(machine.app(), before, "{said}");
    assert_eq!(machine.started(), "v1 ApplicationStart\nv1 ValidateService\n");
    let note =
        said.lines().find(|line| line.contains("index.html was changed since the Install")).expect(&said);
    let kept = note.rsplit_once("kept as ").unwrap().1;
    assert_eq!(fs::read_to_string(kept).unwrap(), "changed by hand");

    let (succeeded, said) = machine.agent(&["rollback", "--deployment-group", GROUP]).await;
    assert!(!succeeded && said.contains("nothing is kept to go back to"), "{said}");
    assert_eq!(machine.app(), before);

    let (succeeded, said) = machine.agent(&["rollback", "--deployment-group", "web"]).await;
    assert!(!succeeded && said.contains(&format!("installed are: LocalFleet ({GROUP})")), "{said}");
}

#[tokio::test]
async fn a_revision_that_does_not_start_again_is_said_to_be() {
    let machine = Machine::new("rollback_on_failure: true");
    machine.deploy("v1", &FIRST, true).await;
    let before = machine.app();
    // The earlier revision needs something that is not there any more.
    let needed = machine.path("needed");
    fs::write(&needed, "").unwrap();
    let archives = fs::read_dir(machine.path("root").join(GROUP)).unwrap();
    for folder in archives {
        let script = folder.unwrap().path().join("deployment-archive/start.sh");
        fs::write(&script, format!("#!/bin/sh\ncat {}.gone\n", needed.display())).unwrap();
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
    let pointer = machine.path(&format!("root/deployment-instructions/{GROUP}_last_successful_install"));
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
        let (succeeded, said) = machine.agent(&["rollback", "--deployment-group", GROUP]).await;
        assert!(!succeeded && said.contains("deployment.json"), "{said}");
        assert_eq!(machine.app(), after);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let (succeeded, said) = machine.agent(&["rollback", "--deployment-group", GROUP]).await;
    assert!(!succeeded && said.contains("deployment.json"), "{said}");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, sound).unwrap();
    let (succeeded, said) = machine.agent(&["rollback", "--deployment-group", GROUP]).await;
    assert!(succeeded, "{said}");
}

/// A host on which the first revision runs, and the second is installed. Its ValidateService is this script.
async fn second_installed(validate: &str) -> (Lone, String) {
    let host = Lone::start("rollback_on_failure: true\n").await;
    let scripts = [("d-1", "#!/bin/sh\necho first >> NOTES\n".to_owned()), ("d-2", validate.to_owned())];
    for (id, script) in scripts {
        let notes = host.path("notes").display().to_string();
        let script = script.replace("NOTES", &notes);
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\nhooks:\n  ValidateService:\n    - \
             location: validate.sh\n",
            host.path("app").display()
        );
        host.deployment("web", id, &[("appspec.yml", &appspec), ("page", id), ("validate.sh", &script)]);
        for event in ["DownloadBundle", "Install"] {
            assert_eq!(host.perform(id, event).await.error_code, 0);
        }
    }
    let page = host.path("app/page").display().to_string();
    (host, page)
}

#[tokio::test]
async fn the_service_is_told_of_the_failure_and_in_one_line_more_of_the_rollback() {
    let (host, page) = second_installed("#!/bin/sh\necho it is broken\nexit 9\n").await;
    let completion = host.perform("d-2", "ValidateService").await;
    assert_eq!(
        (completion.error_code, completion.script_name.as_str()),
        (4, "validate.sh"),
        "{completion:?}"
    );
    assert!(completion.message.contains("exit code 9"), "{completion:?}");
    let mut lines = completion.log.lines().rev();
    assert!(lines.next().unwrap().starts_with("this host was rolled back: "), "{completion:?}");
    assert_eq!(lines.next(), Some("[stdout]it is broken"));
    assert_eq!(fs::read_to_string(page).unwrap(), "d-1");
    assert_eq!(fs::read_to_string(host.path("notes")).unwrap(), "first\n");
}

#[tokio::test]
async fn an_agent_that_is_killed_in_a_script_rolls_back_when_it_starts_again() {
    let (mut host, page) = second_installed("#!/bin/sh\necho second >> NOTES\nexec sleep 60\n").await;
    let command = host.command("d-2", "ValidateService");
    wait::until("the script runs", async || {
        fs::read_to_string(host.path("notes")).map_err(|error| error.to_string())
    })
    .await;
    host.kill_and_restart().await;
    let completion = host.stub.completed(&command, 1).await;
    assert_eq!(completion.error_code, 7, "{completion:?}");
    assert!(completion.log.starts_with("this host was rolled back: "), "{completion:?}");
    assert_eq!(fs::read_to_string(page).unwrap(), "d-1");
    assert_eq!(fs::read_to_string(host.path("notes")).unwrap(), "second\nfirst\n");
}

/// A revision with one file, whose scripts note what they do.
fn noting(host: &Lone, version: &str, start: &str, validate: &str) -> Vec<(&'static str, String)> {
    let folder = host.path("srv");
    let note = format!("echo \"{version} $LIFECYCLE_EVENT\" >> {}", host.path("notes").display());
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: VERSION\n    destination: {}\nhooks:\n  ApplicationStart:\n    \
         - location: start.sh\n  ValidateService:\n    - location: validate.sh\n",
        folder.display()
    );
    vec![
        ("appspec.yml", appspec),
        ("VERSION", version.to_owned()),
        ("start.sh", format!("#!/bin/sh\n{note}\n{start}\n")),
        ("validate.sh", format!("#!/bin/sh\n{note}\n{validate}\n")),
    ]
}

async fn deployed(host: &Lone, id: &str, files: &[(&'static str, String)], events: &[&str]) {
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    host.deployment("web", id, &files);
    for event in events {
        let completion = host.perform(id, event).await;
        assert_eq!(completion.status, "Succeeded", "{event} of {id}: {completion:?}");
    }
}

fn text(host: &Lone, name: &str) -> String {
    fs::read_to_string(host.path(name)).unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn a_rollback_that_is_interrupted_is_finished_and_told_with_the_failure() {
    let mut host = Lone::start("rollback_on_failure: true\n").await;
    let at = |name: &str| host.path(name).display().to_string();
    let (hold, pid, running) = (at("hold"), at("pid"), at("running"));
    let start =
        format!("if rm {hold} 2>/dev/null; then echo $$ > {pid}; exec sleep 1000; fi\necho v1 > {running}");
    let all = ["DownloadBundle", "Install", "ApplicationStart", "ValidateService"];
    deployed(&host, "d-1", &noting(&host, "v1", &start, "true"), &all).await;
    let unhealthy = format!("rm {running}; touch {hold}; exit 3");
    deployed(&host, "d-2", &noting(&host, "v2", "true", &unhealthy), &all[..3]).await;
    let _ = fs::remove_file(host.path("notes"));
    let id = host.command("d-2", "ValidateService");
    let script =
        wait::until("v1 starts again", async || text(&host, "pid").parse::<u32>().map_err(|_| host.log()))
            .await;
    host.agent.kill().await;
    let killed = std::process::Command::new("kill").args(["-9", &script.to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!((text(&host, "srv/VERSION").as_str(), text(&host, "running").as_str()), ("v1", ""));
    host.restart();

    let told = host.stub.taken(&id).await;
    assert_eq!(
        (told.status.as_str(), told.error_code, told.script_name.as_str()),
        ("Failed", 4, "validate.sh")
    );
    assert!(told.message.contains("failed with exit code 3"), "{told:?}");
    let line = told.log.lines().last().unwrap_or_default();
    assert_eq!(
        line,
        "this host was rolled back: the files of d-1 are installed again, its ApplicationStart succeeded, its ValidateService succeeded"
    );
    assert_eq!((text(&host, "srv/VERSION").as_str(), text(&host, "running").as_str()), ("v1", "v1"));
    assert_eq!(
        text(&host, "notes"),
        "v2 ValidateService\nv1 ApplicationStart\nv1 ApplicationStart\nv1 ValidateService"
    );
    host.kill_and_restart().await;
    deployed(&host, "d-3", &noting(&host, "v3", "true", "true"), &all).await;
    assert_eq!(host.stub.accepted(&id).len(), 1, "told once");
    let left = fs::read_dir(host.path("root/deployment-instructions")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("rollback")), "{left:?}");
}

#[tokio::test]
async fn a_rollback_by_hand_is_in_the_log_and_the_status_and_is_no_matter_of_awss_service() {
    let host = Lone::start("").await;
    let all = ["DownloadBundle", "Install", "ApplicationStart", "ValidateService"];
    deployed(&host, "d-1", &noting(&host, "v1", "true", "true"), &all).await;
    deployed(&host, "d-2", &noting(&host, "v2", "true", "true"), &all).await;
    let output = host.ask(&["rollback", "--deployment-group", "web"]).await;
    assert!(output.status.success(), "{}", texts(&output));
    assert_eq!(text(&host, "srv/VERSION"), "v1");
    let line = host.log().lines().find(|line| line.contains("taken back by hand")).map(str::to_owned);
    let line = line.unwrap_or_else(|| panic!("no line of it in\n{}", host.log()));
    assert!(line.contains("d-2") && line.contains("the files of d-1 are installed again"), "{line}");
    let status: serde_json::Value =
        serde_json::from_slice(&host.ask(&["status", "--json"]).await.stdout).unwrap();
    let newest = &status["agent"]["deployments"][0];
    assert_eq!(newest["deployment_id"], "d-2", "{status}");
    assert!(newest["rolled_back"].as_str().unwrap_or_default().contains("d-1"), "{status}");
    wait::until("nothing waits to be told", async || {
        let waiting = fs::read_dir(host.path("root/deployment-commands/rollbacks")).unwrap().count();
        if waiting == 0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    assert_eq!(host.stub.requests("PostHostRollback").len(), 0);
}
