//! Two revisions of one application that differ in every way that matters to an Install, and the
//! host for them. After a crash, an error or a power cut, the host must have either the old
//! revision or the new one.

mod revisions;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::programs::Programs;
use crate::sweep;
use crate::tree::{self, Snapshot};

/// The deployment group of `codedeploy-local`.
pub const LOCAL_GROUP: &str = "default-local-deployment-group";

/// The events for which the new revision has a script.
pub const HOOKS: [&str; 3] = ["BeforeInstall", "AfterInstall", "ApplicationStart"];

/// A host; everything that a deployment changes is below `live`.
#[derive(Debug, Clone)]
pub struct Pair {
    place: PathBuf,
    group: String,
}

/// A host of its own, ready for the new revision.
#[derive(Debug)]
pub struct Bed {
    pub pair: Pair,
    pub reference: Reference,
    /// Its folder.
    pub folder: tempfile::TempDir,
}

/// A revision that can be deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    Old,
    New,
    /// Almost nothing: it removes everything that came before it.
    Little,
    /// It fails before Install: only the program's start has an effect.
    Failing,
}

/// The results of undisturbed deployments.
#[derive(Debug, Clone)]
pub struct Reference {
    pub old: State,
    pub new: State,
    after_old: Snapshot,
    after_new: Snapshot,
}

/// The results of an Install: files, and the records for the next clean-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    files: Snapshot,
    cleanup: String,
    /// The content of `app/changed.txt` in the revision that is recorded as the last installed one.
    last: String,
}

/// The revision that a host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Old,
    New,
    /// Neither; the text describes the differences to the nearer one.
    Mixed(String),
}

impl Bed {
    /// Prepares one bed for each concurrent deployment.
    pub async fn several(count: usize) -> Vec<Self> {
        let bed = async || {
            let folder = sweep::folder();
            let pair = Pair::create(folder.path(), LOCAL_GROUP);
            let reference = pair.prepare().await;
            Self {
                pair,
                reference,
                folder,
            }
        };
        futures_util::future::join_all((0..count).map(|_| bed())).await
    }
}

impl Pair {
    /// Writes revisions, configuration and an operator's own files below `place`; `place/live` may
    /// exist already.
    pub fn create(place: &Path, group: &str) -> Self {
        let pair = Self {
            place: place.to_owned(),
            group: group.into(),
        };
        fs::create_dir_all(place).expect("the folder can be made");
        fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("the mode can be set");
        let configuration = format!("root_dir: {}\n", pair.root().display());
        fs::write(place.join("conf.yml"), configuration).expect("the file can be written");
        pair.write_old();
        pair.write_new();
        pair.write_others();
        pair
    }

    /// `root_dir` of the agent's configuration.
    pub fn root(&self) -> PathBuf {
        self.live().join("root")
    }

    /// The file in which every script of the new revision records its event.
    pub fn ran(&self) -> PathBuf {
        self.place.join("ran")
    }

    /// Everything that a deployment may change.
    pub fn live(&self) -> PathBuf {
        self.place.join("live")
    }

    /// A path beside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// The bundle of a revision for `codedeploy-local`: a tar, which keeps times; the failing one
    /// is a folder.
    pub fn bundle(&self, revision: Revision) -> PathBuf {
        self.place.join(match revision {
            Revision::Old => "old.tar",
            Revision::New => "new.tar",
            Revision::Little => "little.tar",
            Revision::Failing => "failing",
        })
    }

    /// The folders that files are installed in.
    pub fn destinations(&self) -> Vec<PathBuf> {
        ["srv", "etc"].map(|name| self.live().join(name)).into()
    }

    /// The arguments of `codedeploy-local` for deploying a revision.
    pub fn arguments(&self, revision: Revision) -> Vec<OsString> {
        let [bundle, configuration] = [self.bundle(revision), self.place.join("conf.yml")];
        let kind = if revision == Revision::Failing {
            "directory"
        } else {
            "tar"
        };
        let words: [OsString; 6] = [
            "-l".into(),
            bundle.into(),
            "-t".into(),
            kind.into(),
            "-c".into(),
            configuration.into(),
        ];
        words.into()
    }

    /// Deploys with `codedeploy-local`; returns whether it succeeded, and its output.
    pub async fn deploy(&self, revision: Revision) -> (bool, String) {
        let output = Programs::built()
            .local
            .output(self.arguments(revision))
            .await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout) + &text(&output.stderr),
        )
    }

    /// The same for a deployment that must succeed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn deployed(&self, revision: Revision) {
        let (succeeded, output) = self.deploy(revision).await;
        assert!(succeeded, "{revision:?} cannot be deployed:\n{output}");
    }

    /// Prepares the host for the new revision, saves a copy of that state, and records the results
    /// of undisturbed deployments.
    pub async fn prepare(&self) -> Reference {
        self.prepare_with(async |revision| self.deployed(revision).await)
            .await
    }

    /// The same with another way to deploy.
    pub async fn prepare_with(&self, mut deploy: impl AsyncFnMut(Revision)) -> Reference {
        self.write_operators();
        deploy(Revision::Old).await;
        self.change_as_operator();
        copy(&self.live(), &self.place.join("saved")).await;
        let old = self.state();
        deploy(Revision::Little).await;
        let after_old = self.state().files;
        self.reset().await;
        deploy(Revision::New).await;
        let new = self.state();
        assert_ne!(old, new);
        deploy(Revision::New).await;
        assert_eq!(
            new.differences(&self.state()),
            "",
            "the new revision over itself"
        );
        deploy(Revision::Little).await;
        let after_new = self.state().files;
        self.reset().await;
        Reference {
            old,
            new,
            after_old,
            after_new,
        }
    }

    /// Restores the saved state.
    pub async fn reset(&self) {
        let live = self.live();
        fs::create_dir_all(&live).expect("the folder can be made");
        for entry in fs::read_dir(&live).expect("a folder").flatten() {
            if entry.file_name() != "lost+found" {
                fs::remove_dir_all(entry.path()).expect("it can be removed");
            }
        }
        for name in ["root", "srv", "etc"] {
            copy(&self.place.join("saved").join(name), &live.join(name)).await;
        }
    }

    /// The present state.
    pub fn state(&self) -> State {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let record = |name: &str| {
            read(
                &self
                    .root()
                    .join(format!("deployment-instructions/{}{name}", self.group)),
            )
        };
        let last = PathBuf::from(record("_last_successful_install"))
            .join("deployment-archive/app/changed.txt");
        State {
            files: Snapshot::of(&self.destinations()),
            cleanup: record("-cleanup"),
            last: read(&last),
        }
    }

    /// The revision that is present.
    pub fn found(&self, reference: &Reference) -> Found {
        reference.which(&self.state())
    }

    /// Starts a program as after a crash, so that it recovers; returns the revision that is then
    /// present.
    pub async fn recover(&self, reference: &Reference) -> Found {
        let (succeeded, output) = self.deploy(Revision::Failing).await;
        if succeeded || !output.contains("on-purpose") {
            return Found::Mixed(format!(
                "the program that should recover does not run:\n{output}"
            ));
        }
        self.found(reference)
    }

    /// Checks that the next deployments have the same results as without the disturbance; the error
    /// describes the differences.
    pub async fn goes_on(&self, reference: &Reference, found: &Found) -> Result<(), String> {
        let (succeeded, output) = self.deploy(Revision::New).await;
        if !succeeded {
            return Err(format!(
                "the new revision cannot be deployed again:\n{output}"
            ));
        }
        let differences = self.state().differences(&reference.new);
        if !differences.is_empty() {
            return Err(format!(
                "the new revision leaves something else over {found:?}:\n{differences}"
            ));
        }
        self.leaves_nothing_behind()
    }

    /// Checks the record that the next Install cleans up by; the error describes the differences.
    pub async fn cleans_up(&self, reference: &Reference, found: &Found) -> Result<(), String> {
        let (succeeded, output) = self.deploy(Revision::Little).await;
        if !succeeded {
            return Err(format!("another revision cannot be deployed:\n{output}"));
        }
        let expected = if *found == Found::Old {
            &reference.after_old
        } else {
            &reference.after_new
        };
        let differences = self.state().files.differences(expected).join("\n");
        if !differences.is_empty() {
            return Err(format!(
                "another revision leaves something else after {found:?}:\n{differences}"
            ));
        }
        self.leaves_nothing_behind()
    }

    /// Checks that no orphaned temporary name is left; displaced objects of the last Install have
    /// an owner.
    pub fn leaves_nothing_behind(&self) -> Result<(), String> {
        let mut left = tree::temporary_names(&[self.destinations(), vec![self.root()]].concat());
        let undo = self.undo_records();
        left.retain(|path| {
            !undo.contains(&*path.file_name().unwrap_or_default().to_string_lossy())
        });
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("temporary names stay: {left:?}"))
        }
    }

    /// The undo records, as text.
    fn undo_records(&self) -> String {
        let folders = |folder: &Path| {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
        };
        let deployments =
            folders(&self.root()).flat_map(|group| folders(&group).collect::<Vec<_>>());
        deployments
            .filter_map(|deployment| fs::read_to_string(deployment.join("undo.json")).ok())
            .collect()
    }
}

impl Reference {
    /// The same without `paths` and everything below them.
    #[must_use]
    pub fn without(self, paths: &[PathBuf]) -> Self {
        let [after_old, after_new] =
            [self.after_old, self.after_new].map(|files| files.without(paths));
        Self {
            old: self.old.without(paths),
            new: self.new.without(paths),
            after_old,
            after_new,
        }
    }

    /// The revision that a state has.
    pub fn which(&self, state: &State) -> Found {
        let old = state.differences(&self.old);
        let new = state.differences(&self.new);
        if old.is_empty() {
            Found::Old
        } else if new.is_empty() {
            Found::New
        } else if old.len() < new.len() {
            Found::Mixed(format!("unlike the old one:\n{old}"))
        } else {
            Found::Mixed(format!("unlike the new one:\n{new}"))
        }
    }
}

impl State {
    /// The same without `paths` and everything below them; the records are then unknown.
    #[must_use]
    pub fn without(self, paths: &[PathBuf]) -> Self {
        Self {
            files: self.files.without(paths),
            cleanup: String::new(),
            last: String::new(),
        }
    }

    /// One line for each difference; empty if there is none.
    pub fn differences(&self, other: &Self) -> String {
        let mut lines = self.files.differences(&other.files);
        if self.cleanup != other.cleanup {
            lines.push(format!(
                "the record of what was created is\n{}\nnot\n{}",
                self.cleanup, other.cleanup
            ));
        }
        if self.last != other.last {
            lines.push(format!(
                "the {} revision is recorded as the last one, not the {}",
                self.last, other.last
            ));
        }
        lines.join("\n")
    }
}

async fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    let status = command
        .args(["-a", "-T"])
        .args([from, to])
        .kill_on_drop(true)
        .status()
        .await;
    assert!(
        status.expect("cp is there").success(),
        "cannot copy {}",
        from.display()
    );
}
