//! Where deployments lie on this host, and which of a group came last (spec: Files and folders on the host).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use codedeploy_hooks::fs::replace_file;
use codedeploy_hooks::install::Records;

use crate::spec::PathComponent;

/// The folder `deployment-root`. Every method names paths the official agents know.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    ongoing: String,
}

/// The folder of one deployment of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentFolder {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct StoreError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| StoreError { action, path: path.to_owned(), source }
}

/// Which deployment of a group a pointer file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer {
    /// The deployment whose Install last succeeded.
    LastSuccessful,
    /// The deployment that was last downloaded.
    MostRecent,
}

impl Pointer {
    fn suffix(self) -> &'static str {
        match self {
            Self::LastSuccessful => "last_successful_install",
            Self::MostRecent => "most_recent_install",
        }
    }
}

impl Store {
    pub fn new(root: &Path, ongoing: &str) -> Self {
        Self { root: root.to_owned(), ongoing: ongoing.to_owned() }
    }

    pub fn deployment(&self, group: &PathComponent, id: &PathComponent) -> DeploymentFolder {
        DeploymentFolder { path: self.root.join(group.as_str()).join(id.as_str()) }
    }

    /// Commands in progress, one file per deployment.
    pub fn ongoing(&self) -> PathBuf {
        self.root.join(&self.ongoing)
    }

    /// Where all script output of all deployments goes.
    pub fn deployments_log(&self) -> PathBuf {
        self.root.join("deployment-logs/codedeploy-agent-deployments.log")
    }

    /// What the group's last Install did; the folder for it exists from then on.
    pub fn records(&self, group: &PathComponent) -> Result<Records, StoreError> {
        let folder = self.instructions();
        create_folders(&folder, 0o700)?;
        Ok(Self::records_in(&folder, group))
    }

    /// What the group's last Install did, if there was one of any group; makes nothing.
    pub fn recorded(&self, group: &PathComponent) -> Option<Records> {
        let folder = self.instructions();
        folder.is_dir().then(|| Self::records_in(&folder, group))
    }

    fn records_in(folder: &Path, group: &PathComponent) -> Records {
        Records {
            instructions: folder.join(format!("{group}-install.json")),
            cleanup: folder.join(format!("{group}-cleanup")),
        }
    }

    /// The deployment that a pointer of the group names, if it names one below the root.
    pub fn pointed(&self, group: &PathComponent, pointer: Pointer) -> Option<DeploymentFolder> {
        let text = fs::read_to_string(self.pointer_file(group, pointer)).ok()?;
        let path = PathBuf::from(text.trim_end_matches('\n'));
        path.is_absolute().then_some(DeploymentFolder { path })
    }

    pub fn point(
        &self,
        group: &PathComponent,
        pointer: Pointer,
        to: &DeploymentFolder,
    ) -> Result<(), StoreError> {
        let path = self.pointer_file(group, pointer);
        create_folders(&self.instructions(), 0o700)?;
        let text = to.path.as_os_str().as_encoded_bytes();
        replace_file(&path, text, 0o600).map_err(failed("write", &path))
    }

    /// Makes the deployment's folder, empty but for logs of its earlier events.
    pub fn create(&self, folder: &DeploymentFolder) -> Result<(), StoreError> {
        create_folders(&folder.path, 0o755)?;
        remove(&folder.archive())?;
        remove(&folder.bundle())
    }

    /// Deletes the group's oldest deployments so that `keep` remain, counting the one that is about to be made.
    /// The last successful one is never deleted, nor is `this`.
    pub fn prune(
        &self,
        group: &PathComponent,
        this: &DeploymentFolder,
        keep: usize,
    ) -> Result<(), StoreError> {
        let folder = self.root.join(group.as_str());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("read", &folder)(error)),
        };
        let kept = self.pointed(group, Pointer::LastSuccessful);
        let mut old: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.path() != this.path)
            .map(|entry| {
                let time = entry.metadata().and_then(|metadata| metadata.modified());
                (time.unwrap_or(SystemTime::UNIX_EPOCH), entry.path())
            })
            .collect();
        old.sort();
        let mut surplus = (old.len() + 1).saturating_sub(keep);
        for (_, path) in old {
            if surplus == 0 {
                break;
            }
            if kept.as_ref().is_some_and(|kept| kept.path == path) {
                continue;
            }
            remove(&path)?;
            tracing::info!(path = %path.display(), "old deployment removed");
            surplus -= 1;
        }
        Ok(())
    }

    fn instructions(&self) -> PathBuf {
        self.root.join("deployment-instructions")
    }

    fn pointer_file(&self, group: &PathComponent, pointer: Pointer) -> PathBuf {
        self.instructions().join(format!("{group}_{}", pointer.suffix()))
    }
}

impl DeploymentFolder {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bundle as it was downloaded, whatever its type.
    pub fn bundle(&self) -> PathBuf {
        self.path.join("bundle.tar")
    }

    /// The unpacked revision.
    pub fn archive(&self) -> PathBuf {
        self.path.join("deployment-archive")
    }

    pub fn scripts_log(&self) -> PathBuf {
        self.path.join("logs/scripts.log")
    }

    /// Notes the ETag of a bundle that was downloaded.
    pub fn note_source(&self, etag: &str) -> io::Result<()> {
        replace_file(&self.path.join(".bundle-etag"), etag.as_bytes(), 0o600)?;
        replace_file(&self.path.join(".bundle-source"), b"downloaded", 0o600)
    }
}

/// Makes `path` and its missing parents.
pub fn create_folders(path: &Path, mode: u32) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("create", path))
}

/// Removes whatever is at `path`; links are removed, not followed.
fn remove(path: &Path) -> Result<(), StoreError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.is_dir() {
        return fs::remove_file(path).map_err(failed("remove", path));
    }
    let removed = fs::remove_dir_all(path).or_else(|_| {
        // Folders of a revision may be read-only, which stops everybody but root.
        make_writable(path);
        fs::remove_dir_all(path)
    });
    removed.map_err(failed("remove", path))
}

fn make_writable(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PathComponent {
        PathComponent::new(text).unwrap()
    }

    #[test]
    fn the_oldest_deployments_go_but_never_the_last_successful_one() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        let group = id("group");
        for (age, name) in ["d-1", "d-2", "d-3", "d-4"].iter().enumerate() {
            let folder = store.deployment(&group, &id(name));
            store.create(&folder).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 + age as u64);
            fs::File::open(folder.path()).unwrap().set_modified(time).unwrap();
        }
        store.point(&group, Pointer::LastSuccessful, &store.deployment(&group, &id("d-1"))).unwrap();
        store.prune(&group, &store.deployment(&group, &id("d-5")), 3).unwrap();
        let left = |name| store.deployment(&group, &id(name)).path().exists();
        assert!(left("d-1") && left("d-4"));
        assert!(!left("d-2") && !left("d-3"));
    }

    #[test]
    fn a_pointer_is_the_absolute_path_without_a_newline() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        let (group, folder) = (id("g"), store.deployment(&id("g"), &id("d-1")));
        assert_eq!(store.pointed(&group, Pointer::MostRecent), None);
        store.point(&group, Pointer::MostRecent, &folder).unwrap();
        let text =
            fs::read_to_string(root.path().join("deployment-instructions/g_most_recent_install")).unwrap();
        assert_eq!(text, folder.path().to_str().unwrap());
        assert_eq!(store.pointed(&group, Pointer::MostRecent), Some(folder));
    }
}
