//! A host in a temporary folder, and the commands of a service.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use codedeploy_agent::config::{Environment, Settings};
use codedeploy_agent::deployment::Host as Agent;
use codedeploy_agent::spec::DeploymentSpec;
use codedeploy_agent::spec::envelope::trusted;
use codedeploy_hooks::script::{Outcome, Report};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The deployment group of all deployments.
pub(crate) const GROUP: &str = "0f7c9a44-1b52-4b7e-9d3e-5a6b7c8d9e0f";

pub(crate) struct Host {
    pub(crate) folder: TempDir,
    pub(crate) settings: Settings,
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = std::iter::once(("PATH".into(), "/usr/bin:/bin".into()));
        let settings = Settings {
            root_dir: folder.path().join("root"),
            log_dir: folder.path().join("log"),
            ..Settings::defaults(&Environment::new(path))
        };
        Self { folder, settings }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn deployment(&self, id: &str) -> PathBuf {
        self.path("root").join(GROUP).join(id)
    }

    pub(crate) fn archive(&self, id: &str) -> PathBuf {
        self.deployment(id).join("deployment-archive")
    }

    pub(crate) fn instructions(&self, name: &str) -> PathBuf {
        self.path("root/deployment-instructions")
            .join(format!("{GROUP}{name}"))
    }

    /// Writes a revision: an AppSpec that installs `site` into `app`, with these hooks, and these
    /// files.
    pub(crate) fn revision(&self, hooks: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.path("revision");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("site")).unwrap();
        let app = self.path("app");
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: site\n    destination: {}\n{hooks}",
            app.display()
        );
        for (name, text) in [("appspec.yml", appspec.as_str())].iter().chain(files) {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), text).unwrap();
        }
        folder
    }

    /// Performs one command of the deployment `id`; `more` members go into its specification.
    pub(crate) async fn perform(
        &self,
        event: &str,
        id: &str,
        location: &Path,
        more: &Value,
    ) -> Report {
        self.perform_after(event, id, location, more, || {}).await
    }

    /// The same, with a callback between the plan and its performance.
    pub(crate) async fn perform_after(
        &self,
        event: &str,
        id: &str,
        location: &Path,
        more: &Value,
        between: impl FnOnce(),
    ) -> Report {
        let (kind, bundle_type) = match location.is_dir() {
            true => ("Local Directory", "directory"),
            false => ("Local File", "tar"),
        };
        let mut document = json!({
            "DeploymentId": id, "DeploymentGroupId": GROUP, "DeploymentGroupName": "web",
            "ApplicationName": "shop",
            "Revision": {"RevisionType": kind, "LocalRevision": {
                "Location": location, "BundleType": bundle_type}},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            document[key] = value.clone();
        }
        let spec = DeploymentSpec::parse(&trusted(document.to_string().into_bytes())).unwrap();
        let path = std::iter::once(("PATH".into(), "/usr/bin:/bin".into()));
        let agent = Agent::new(self.settings.clone(), Environment::new(path), None)
            .with_keeper(env!("CARGO_BIN_EXE_codedeploy-agent"));
        let event = event.parse().unwrap();
        let plan = agent.plan(&event, &spec).await;
        between();
        agent.perform(plan, None, CancellationToken::new()).await
    }

    /// Performs commands that must succeed; returns the last one's note.
    pub(crate) async fn succeed(
        &self,
        events: &[&str],
        id: &str,
        location: &Path,
        more: &Value,
    ) -> String {
        let mut last = String::new();
        for event in events {
            let report = self.perform(event, id, location, more).await;
            match report.outcome {
                Outcome::Succeeded { note } => last = note.unwrap_or_default(),
                other => panic!("{event}: {other}\n{}", report.log_tail),
            }
        }
        last
    }
}

/// Mode, owner, group, time, number of names, and content or target.
pub(crate) type State = (u32, u32, u32, i64, u64, Vec<u8>);

/// Every path below `folder`.
pub(crate) fn picture(folder: &Path) -> BTreeMap<PathBuf, State> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
                    .into_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let names = if metadata.is_dir() {
                0
            } else {
                metadata.nlink()
            };
            let state = (
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                names,
                content,
            );
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), state);
        }
    }
    found
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(crate) fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}
