//! A host for each test: a configuration in a temporary folder, and the real program.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) folder: TempDir,
}

impl Host {
    /// A registered host with `more` lines in its configuration.
    pub(crate) fn new(more: &str) -> Self {
        let host = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let identity = "region: us-east-1\niam_user_arn: arn:aws:iam::123456789012:user/box1\n\
            aws_access_key_id: AKIDEXAMPLE\naws_secret_access_key: hush-hush\n";
        let file = host.path("codedeploy.onpremises.yml");
        std::fs::write(&file, identity).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, private).unwrap();
        host.configure(more);
        host
    }

    pub(crate) fn configure(&self, more: &str) {
        let text = format!(
            "on_premises_config_file: {0}/codedeploy.onpremises.yml\nroot_dir: {0}/root\nlog_dir: {0}/log\n\
             pid_dir: {0}/run\nwait_between_runs: 1\n{more}",
            self.folder.path().display()
        );
        std::fs::write(self.path("agent.yml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codedeploy-agent"));
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
        command
            .args(words)
            .arg("--config-file")
            .arg(self.path("agent.yml"));
        for name in ["AWS_CA_BUNDLE", "AWS_REGION", "SSL_CERT_FILE"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nothing outlives its test; stopping an agent that does not run is fine.
        let _ = self.command(&["stop", "--force"]).output();
    }
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}
