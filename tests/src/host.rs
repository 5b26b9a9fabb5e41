//! A registered on-premises host: a folder with its configuration and state, and an agent that runs
//! there.

use std::path::{Path, PathBuf};

use crate::bucket::{Bucket, Keys};
use crate::programs::{Programs, Running};
use crate::service::Service;

/// One host of a service.
#[derive(Debug)]
pub struct Host {
    pub name: String,
    /// The folder of all the host's files.
    pub folder: PathBuf,
    pub keys: Keys,
    /// The lines for the agent's configuration that the service printed.
    lines: String,
    configuration: PathBuf,
    programs: Programs,
}

impl Host {
    /// Registers a host with `tag`; its agent does not run yet.
    pub async fn register(
        programs: &Programs,
        service: &Service,
        name: &str,
        tag: &str,
        folder: &Path,
    ) -> Self {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let registered = service
            .administer(&["host", "add", name, "--tag", tag, "--json"])
            .await;
        let text = |file: &str| {
            registered[file]
                .as_str()
                .expect("the file's text")
                .to_owned()
        };
        let host = Self {
            name: name.into(),
            folder: folder.into(),
            keys: crate::service::keys(&registered),
            lines: text("codedeployagent.yml"),
            configuration: folder.join("codedeployagent.yml"),
            programs: programs.clone(),
        };
        std::fs::write(
            folder.join("codedeploy.onpremises.yml"),
            text("codedeploy.onpremises.yml"),
        )
        .expect("the file can be written");
        host
    }

    /// Writes the agent's configuration: the bucket, folders of the test, `more` lines, and the
    /// lines that the service printed.
    pub fn configure(&self, bucket: &Bucket, more: &str) {
        let own = format!(
            "s3_endpoint_override: {}\non_premises_config_file: {folder}/codedeploy.onpremises.yml\n\
             root_dir: {folder}/deployment-root\nlog_dir: {folder}/log\npid_dir: {folder}/run\n{more}",
            bucket.endpoint,
            folder = self.folder.display(),
        );
        let key = |line: &str| {
            line.trim_start_matches(':')
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let said: Vec<_> = own.lines().map(key).collect();
        let printed = self.lines.lines().filter(|line| !said.contains(&key(line)));
        let text: String = printed
            .chain(own.lines())
            .flat_map(|line| [line, "\n"])
            .collect();
        std::fs::write(&self.configuration, text).expect("the file can be written");
    }

    /// Starts the agent.
    pub fn start_agent(&self) -> Running {
        let arguments = |command: &mut tokio::process::Command| {
            command
                .args(["run", "--config-file"])
                .arg(&self.configuration);
        };
        self.programs
            .agent
            .start(arguments, &self.folder.join("agent.out"))
    }

    /// The agent's own log.
    pub fn agent_log(&self) -> PathBuf {
        self.folder.join("log/codedeploy-agent.log")
    }
}
