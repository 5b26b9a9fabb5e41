//! One host whose only service is a [`Stub`]: its folder, its agent, and revisions that are folders
//! of this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Completion, Stub};
use crate::bundle;
use crate::old_kernel::Kernel;
use crate::programs::{Program, Programs, Running};
use crate::strike::Strike;
use crate::sweep;

/// The host's identifier at the service.
pub const IDENTIFIER: &str = "arn:aws:iam::123456789012:user/box1";

/// A host, and its service.
#[derive(Debug)]
pub struct Lone {
    pub stub: Stub,
    pub agent: Running,
    folder: tempfile::TempDir,
}

impl Lone {
    /// Starts an agent that polls without a pause, with `more` lines in its configuration.
    pub async fn start(more: &str) -> Self {
        Self::prepared(more, Duration::from_millis(200), |_, _| {}).await
    }

    /// The same with empty polls held open for `hold`; `prepare` is called first with the folder of
    /// the host's state and the service.
    pub async fn prepared(more: &str, hold: Duration, prepare: impl FnOnce(&Path, &Stub)) -> Self {
        let folder = sweep::folder();
        let stub = Stub::start(folder.path(), hold).await;
        let identity = format!(
            "region: us-east-1\niam_user_arn: {IDENTIFIER}\naws_access_key_id: AKID\naws_secret_access_key: secret\n"
        );
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("onpremises.yml"), identity).expect("the file can be written");
        let configuration = format!(
            "deploy_control_endpoint: {}\non_premises_config_file: {folder}/onpremises.yml\nroot_dir: {folder}/root\n\
             log_dir: {folder}/log\npid_dir: {folder}/run\n{more}",
            stub.endpoint,
            folder = folder.path().display(),
        );
        let pauses = ["wait_between_runs", "wait_after_error"]
            .into_iter()
            .filter(|key| !more.contains(key));
        let pauses: String = pauses.map(|key| format!("{key}: 0\n")).collect();
        std::fs::write(at("agent.yml"), configuration + &pauses).expect("the file can be written");
        std::fs::create_dir(at("root")).expect("the folder can be made");
        prepare(&at("root"), &stub);
        let agent = agent(folder.path());
        Self {
            stub,
            agent,
            folder,
        }
    }

    /// A path below the host's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Kills the agent at once, and starts another.
    pub async fn kill_and_restart(&mut self) {
        self.agent.kill().await;
        self.restart();
    }

    /// Starts an agent after the last one has ended.
    pub fn restart(&mut self) {
        self.agent = agent(self.folder.path());
    }

    /// Starts an agent under a strike whose report goes to `report`, after the last one has ended.
    pub fn start_under(&mut self, strike: &Strike, report: &Path) {
        let program = strike.program(&Programs::built().agent, report);
        self.agent = run(&program, self.folder.path());
    }

    /// Starts an agent on an older kernel, after the last one has ended.
    pub fn restart_on(&mut self, kernel: Kernel) {
        let program = kernel.program(&Programs::built().agent);
        self.agent = run(&program, self.folder.path());
    }

    /// Runs `codedeploy-agent` with these words; returns its output.
    pub async fn ask(&self, words: &[&str]) -> std::process::Output {
        let configuration = self.path("agent.yml").display().to_string();
        let words = words
            .iter()
            .copied()
            .chain(["--config-file", &configuration]);
        Programs::built().agent.output(words).await
    }
    /// The datagram socket that a test may bind to receive the messages for systemd.
    pub const NOTIFY: &str = "notify";

    /// The agent's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log/codedeploy-agent.log")).unwrap_or_default()
    }

    /// The agent's records of commands in `in-progress`, `outbox` or `told`.
    pub fn records(&self, folder: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("root/deployment-commands").join(folder));
        entries
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }

    /// The path of one command's record in that folder.
    pub fn record(&self, folder: &str, command: &str) -> PathBuf {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, command.as_bytes());
        let name = hex::encode(&digest.as_ref()[..16]);
        self.path("root/deployment-commands")
            .join(folder)
            .join(format!("{name}.json"))
    }

    /// Defines a deployment: a revision of these files, which its commands refer to by `id`.
    pub fn deployment(&self, group: &str, id: &str, files: &[(&str, &str)]) {
        let revision = self.path(&format!("revision-{id}"));
        bundle::write(&revision, files);
        self.stub.specify(id, &specification(group, id, &revision));
    }

    /// Delivers the command `name` of a deployment; its identifier is `<deployment>/<name>`.
    pub fn command(&self, deployment: &str, name: &str) -> String {
        let id = format!("{deployment}/{name}");
        self.stub.deliver(command(&id, deployment, name));
        id
    }

    /// Delivers a command and waits for the end of it.
    pub async fn perform(&self, deployment: &str, name: &str) -> Completion {
        let id = self.command(deployment, name);
        self.stub.completed(&id, 1).await
    }
}

fn agent(folder: &Path) -> Running {
    run(&Programs::built().agent, folder)
}

fn run(agent: &Program, folder: &Path) -> Running {
    let arguments = |command: &mut tokio::process::Command| {
        command
            .args(["run", "--config-file"])
            .arg(folder.join("agent.yml"));
        command.env("NOTIFY_SOCKET", folder.join(Lone::NOTIFY));
    };
    agent.start(arguments, &folder.join("agent.out"))
}

/// A command as the service delivers it.
pub fn command(id: &str, deployment: &str, name: &str) -> Value {
    json!({
        "HostCommandIdentifier": id, "HostIdentifier": IDENTIFIER, "DeploymentExecutionId": deployment,
        "CommandName": name, "Nonce": 1
    })
}

/// A specification whose revision is a folder.
pub fn specification(group: &str, id: &str, revision: &Path) -> Value {
    json!({
        "DeploymentId": id, "DeploymentGroupId": group, "DeploymentGroupName": group, "ApplicationName": "shop",
        "Revision": {"RevisionType": "Local Directory",
            "LocalRevision": {"Location": revision, "BundleType": "directory"}}
    })
}
