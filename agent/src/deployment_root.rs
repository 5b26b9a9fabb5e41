//! The places of deployments on this host, and the last deployment of each group (spec: Files and
//! folders on the host).

mod files;
mod folder;
mod state;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use codedeploy_hooks::fs::{replace_record, sweep};
use codedeploy_hooks::install::{self, Records};

use crate::path_component::PathComponent;
use codedeploy_api::chain::Chain;
pub use files::create_folders;
use files::folders;
pub(crate) use files::remove;
pub use folder::DeploymentFolder;
use state::{MAX_POINTER, deployment_path, read_state, set_aside, set_aside_unless_file};

/// The folder `deployment-root`. Every method returns a path that the official agents know.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    ongoing: String,
    /// Whether only the agent's user may read new records.
    restricted: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct StoreError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| StoreError {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Deployment groups with slots.
#[derive(Debug, Clone, Default)]
pub struct SlotGroups {
    pub recorded: Vec<PathComponent>,
    pub switching: Vec<PathComponent>,
}

/// The deployment of a group that a pointer file names.
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
        Self {
            root: root.to_owned(),
            ongoing: ongoing.to_owned(),
            restricted: false,
        }
    }

    /// The same store with new records for the agent's user alone, or for everybody as with AWS's
    /// agents.
    pub fn restricted(self, restricted: bool) -> Self {
        Self { restricted, ..self }
    }

    /// Makes a folder of the store, and the store if it is missing. Everybody can pass through the
    /// store, because scripts run as other users, but cannot list it.
    pub fn make_folder(&self, path: &Path, mode: u32) -> Result<(), StoreError> {
        create_folders(&self.root, 0o711)?;
        create_folders(path, mode)
    }

    /// Makes a folder for records that others read, too. New records in it are as open as the
    /// folder.
    pub fn make_records_folder(&self, path: &Path) -> Result<(), StoreError> {
        self.make_folder(path, if self.restricted { 0o700 } else { 0o755 })
    }

    /// Whether the folder of a deployment group with this id would collide with one of the agent's
    /// own.
    pub fn is_own_name(&self, group: &PathComponent) -> bool {
        let group = group.as_str();
        // On file systems that ignore case, another spelling is the same folder.
        let own = OWN_NAMES
            .iter()
            .chain([&self.ongoing.as_str()])
            .any(|own| own.eq_ignore_ascii_case(group));
        own || group.starts_with(TEMPORARY)
    }

    pub fn deployment(&self, group: &PathComponent, id: &PathComponent) -> DeploymentFolder {
        DeploymentFolder::at(self.root.join(group.as_str()).join(id.as_str()))
    }

    /// Commands in progress, one file per deployment.
    pub fn ongoing(&self) -> PathBuf {
        self.root.join(&self.ongoing)
    }

    /// The agent's own records of commands and their outcomes.
    pub fn commands(&self) -> PathBuf {
        self.root.join(COMMANDS)
    }

    /// The log of all deployments' script output.
    pub fn deployments_log(&self) -> PathBuf {
        self.root
            .join(LOGS)
            .join("codedeploy-agent-deployments.log")
    }

    /// The script logs of all kept deployments, with the deployments' ids.
    pub fn scripts_logs(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for group in folders(&self.root)? {
            for deployment in folders(&group)? {
                let name = deployment
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let log = DeploymentFolder::at(deployment).scripts_log();
                if name.starts_with("d-") && log.parent().is_some_and(Path::is_dir) {
                    found.push((name, log));
                }
            }
        }
        Ok(found)
    }

    /// The records of the group's last Install; makes their folder. An unusable record is set
    /// aside.
    pub fn records(&self, group: &PathComponent) -> Result<Records, StoreError> {
        let folder = self.instructions();
        self.make_records_folder(&folder)?;
        let records = Self::records_in(&folder, group);
        set_aside_unless_file(&records.instructions)?;
        set_aside_unless_file(&records.cleanup)?;
        set_aside_unless_file(&records.pointer)?;
        Ok(records)
    }

    /// The records of the group's last Install, if any group has had one; makes nothing.
    pub fn recorded(&self, group: &PathComponent) -> Option<Records> {
        let folder = self.instructions();
        folder.is_dir().then(|| Self::records_in(&folder, group))
    }

    fn records_in(folder: &Path, group: &PathComponent) -> Records {
        Records {
            instructions: folder.join(format!("{group}-install.json")),
            cleanup: folder.join(format!("{group}-cleanup")),
            pointer: folder.join(format!("{group}_{}", Pointer::LastSuccessful.suffix())),
            journal: folder.join(format!("{group}{JOURNAL}")),
        }
    }

    /// The groups with an interrupted Install, and their journals.
    pub fn journals(&self) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let folder = self.instructions();
        let journal = |name: String| {
            // The process may have died while it began the journal.
            let group = name
                .strip_suffix(".new")
                .unwrap_or(&name)
                .strip_suffix(JOURNAL)?;
            Some((group.to_owned(), folder.join(format!("{group}{JOURNAL}"))))
        };
        let mut journals: Vec<_> = self
            .instruction_names()?
            .into_iter()
            .filter_map(journal)
            .collect();
        journals.dedup();
        Ok(journals)
    }

    /// The record of the group's slots; an Install changes it.
    pub fn slots_record(&self, group: &PathComponent) -> PathBuf {
        self.instructions().join(format!("{group}{SLOTS}"))
    }

    /// The journal of the switch from one slot of the group to the other.
    pub fn switch_journal(&self, group: &PathComponent) -> PathBuf {
        self.instructions().join(format!("{group}{SWITCH}"))
    }

    /// The groups whose slots have a record, and those with an unfinished switch.
    pub fn slot_groups(&self) -> Result<SlotGroups, StoreError> {
        let names = self.instruction_names()?;
        let groups = |suffix| {
            let groups = names
                .iter()
                .filter_map(move |name| name.strip_suffix(suffix));
            groups.filter_map(PathComponent::new).collect()
        };
        Ok(SlotGroups {
            recorded: groups(SLOTS),
            switching: groups(SWITCH),
        })
    }

    /// The journal of the group's rollback.
    pub fn rollback_journal(&self, group: &PathComponent) -> PathBuf {
        self.instructions().join(format!("{group}{ROLLBACK}"))
    }

    /// The journals of unfinished rollbacks.
    pub fn rollback_journals(&self) -> Result<Vec<PathBuf>, StoreError> {
        let names = self
            .instruction_names()?
            .into_iter()
            .filter(|name| name.ends_with(ROLLBACK));
        Ok(names.map(|name| self.instructions().join(name)).collect())
    }

    /// The files that connect the deployments of groups, sorted.
    fn instruction_names(&self) -> Result<Vec<String>, StoreError> {
        let folder = self.instructions();
        let entries = match fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &folder)(error)),
        };
        let mut names: Vec<String> = entries
            .into_iter()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// The installed deployments, each the last of its group.
    pub fn installed(&self) -> Result<Vec<(PathComponent, DeploymentFolder)>, StoreError> {
        let suffix = format!("_{}", Pointer::LastSuccessful.suffix());
        let groups = self.instruction_names()?.into_iter();
        let groups = groups.filter_map(|name| PathComponent::new(name.strip_suffix(&suffix)?));
        let pointed = |group| Some((self.pointed(&group, Pointer::LastSuccessful)?, group));
        Ok(groups
            .filter_map(pointed)
            .map(|(folder, group)| (group, folder))
            .collect())
    }

    /// Returns the deployment that a pointer of the group names. An unusable pointer is set aside,
    /// with a warning.
    pub fn pointed(&self, group: &PathComponent, pointer: Pointer) -> Option<DeploymentFolder> {
        let path = self.pointer_file(group, pointer);
        let problem = match read_state(&path, MAX_POINTER) {
            Ok(None) => return None,
            Ok(Some(bytes)) => match deployment_path(&bytes) {
                Some(path) => return Some(DeploymentFolder::at(path)),
                None => "it does not hold the absolute path of a deployment's folder".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        if let Err(error) = set_aside(&path, &problem) {
            tracing::warn!(error = %Chain(&error), "a file that is no use stays where it is");
        }
        None
    }

    /// Identifies the last completed Install of the deployment, if it is the last of its group; see
    /// [`install::completed`].
    pub fn completed_install(&self, group: &PathComponent, id: &PathComponent) -> Option<String> {
        let folder = self.deployment(group, id);
        let last = self.pointed(group, Pointer::LastSuccessful) == Some(folder.clone());
        // An unreadable record tells nothing about this Install.
        let completed = last.then(|| install::completed(folder.path()).unwrap_or_default());
        completed.flatten()
    }

    /// Removes unfinished files of dead processes, in all places where this agent writes them.
    pub fn sweep(&self) {
        let below = |folder: &PathBuf| folders(folder).unwrap_or_default();
        let outer = below(&self.root);
        let inner: Vec<PathBuf> = outer.iter().flat_map(below).collect();
        for folder in [vec![self.root.clone()], outer, inner].concat() {
            if let Err(error) = sweep(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove the unfinished files of an earlier run");
            }
        }
    }

    pub fn point(
        &self,
        group: &PathComponent,
        pointer: Pointer,
        to: &DeploymentFolder,
    ) -> Result<(), StoreError> {
        let path = self.pointer_file(group, pointer);
        self.make_records_folder(&self.instructions())?;
        set_aside_unless_file(&path)?;
        let text = to.path().as_os_str().as_encoded_bytes();
        replace_record(&path, text).map_err(failed("write", &path))
    }

    /// Makes the deployment's folder, empty except for logs of its earlier events.
    pub fn create(&self, folder: &DeploymentFolder) -> Result<(), StoreError> {
        self.make_folder(folder.path(), 0o755)?;
        let leftovers = [
            folder.archive(),
            folder.bundle(),
            folder.manifest(),
            folder.etag(),
            folder.origin(),
        ];
        leftovers.iter().try_for_each(|path| remove(path))?;
        self.clear_incoming(folder)
    }

    /// Removes the remains of an unfinished attempt.
    pub fn clear_incoming(&self, folder: &DeploymentFolder) -> Result<(), StoreError> {
        remove(&folder.incoming_archive())?;
        remove(&folder.incoming_bundle())
    }

    /// Publishes the unpacked revision as the deployment's archive, so that it survives a power
    /// cut; until then, there is none.
    pub fn publish(&self, folder: &DeploymentFolder) -> Result<(), StoreError> {
        let (incoming, archive) = (folder.incoming_archive(), folder.archive());
        let open = |path: &Path| fs::File::open(path).map_err(failed("open", path));
        let sync = |file: &fs::File| rustix::fs::syncfs(file).map_err(io::Error::from);
        let traversable = fs::Permissions::from_mode(ARCHIVE);
        fs::set_permissions(&incoming, traversable).map_err(failed("open up", &incoming))?;
        sync(&open(folder.path())?).map_err(failed("write to the disk", &incoming))?;
        fs::rename(&incoming, &archive).map_err(failed("rename to its place", &incoming))?;
        open(folder.path())?
            .sync_all()
            .map_err(failed("write to the disk", folder.path()))
    }

    /// Deletes the group's oldest deployments so that `keep` remain, including the one that is
    /// about to be made. Never deletes the last successful one, `this` or those `needed`.
    pub fn prune(
        &self,
        group: &PathComponent,
        this: &DeploymentFolder,
        needed: &[DeploymentFolder],
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
            .filter(|entry| {
                entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.path() != this.path()
            })
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
            if kept
                .as_ref()
                .into_iter()
                .chain(needed)
                .any(|kept| kept.path() == path)
            {
                continue;
            }
            if let Err(error) = install::forget(&path) {
                tracing::warn!(path = %path.display(), "{}", Chain(&error));
            }
            remove(&path)?;
            tracing::info!(path = %path.display(), "old deployment removed");
            surplus -= 1;
        }
        Ok(())
    }

    /// The folder of pointers, records and journals that connect the deployments of a group.
    pub fn instructions(&self) -> PathBuf {
        self.root.join(INSTRUCTIONS)
    }

    fn pointer_file(&self, group: &PathComponent, pointer: Pointer) -> PathBuf {
        self.instructions()
            .join(format!("{group}_{}", pointer.suffix()))
    }
}

const INSTRUCTIONS: &str = "deployment-instructions";
const LOGS: &str = "deployment-logs";
const COMMANDS: &str = "deployment-commands";

/// The names of the agent's own folders, and those of official agents, beside the folders of
/// deployment groups.
const OWN_NAMES: [&str; 5] = [INSTRUCTIONS, LOGS, COMMANDS, "ongoing-deployment", HISTORY];

/// In the root folder: the history of the last deployments.
pub const HISTORY: &str = "deployment-history.json";

/// The prefix of the agent's temporary names.
const TEMPORARY: &str = ".codedeploy-";

/// The suffix of a group's journal.
const JOURNAL: &str = "-journal.json";

/// The mode of an incomplete revision's folder: nobody else can change unverified files.
pub const INCOMING: u32 = 0o700;

/// The mode of a revision's folder, which the users of hooks must enter.
const ARCHIVE: u32 = 0o755;

/// The suffix of the journal of a group's rollback.
const ROLLBACK: &str = "-rollback.jsonl";

/// The suffix of the record of a group's slots.
const SLOTS: &str = "-slots.json";

/// The suffix of the journal of a group's switch.
const SWITCH: &str = "-switch.jsonl";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployment_groups_have_no_names_of_the_agent() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "in-progress");
        let own = [store.instructions(), store.commands(), store.ongoing()];
        let own = own
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap());
        for name in own.chain([
            "deployment-logs",
            "Deployment-Logs",
            "ongoing-deployment",
            HISTORY,
            ".codedeploy-1",
        ]) {
            assert!(store.is_own_name(&id(name)), "{name}");
        }
        for name in ["shop", "deployment", "6b0e7c5e-8a53-4b76-9a0c-0e3f1f7f2a11"] {
            assert!(!store.is_own_name(&id(name)), "{name}");
        }
    }

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
            fs::File::open(folder.path())
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        store
            .point(
                &group,
                Pointer::LastSuccessful,
                &store.deployment(&group, &id("d-1")),
            )
            .unwrap();
        store
            .prune(&group, &store.deployment(&group, &id("d-5")), &[], 3)
            .unwrap();
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
        let text = fs::read_to_string(
            root.path()
                .join("deployment-instructions/g_most_recent_install"),
        )
        .unwrap();
        assert_eq!(text, folder.path().to_str().unwrap());
        assert_eq!(store.pointed(&group, Pointer::MostRecent), Some(folder));
    }
}
