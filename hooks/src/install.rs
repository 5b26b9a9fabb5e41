//! Install: puts a revision's files on the host as one transaction (spec: AppSpec file and Install,
//! Durability).
//!
//! [`Turn::wait`] keeps every other process from installing; [`recover`] finishes what a crash
//! interrupted. [`plan`] examines the revision and the host, decides everything, and reports all
//! conflicts at once, before anything changes. Files that are already as planned stay in place.
//! [`install`] builds the new files under temporary
//! names, makes them durable, records in the journal how every name will change, and only then
//! changes the names; the records for the next clean-up change with them. Displaced files are kept,
//! so that the Install can be taken back. An error on the way restores everything.

mod access;
mod build;
mod change;
mod conflict;
mod decision;
mod grant;
mod granted;
mod identity;
mod journal;
mod kept;
mod layout;
mod limits;
mod parallel;
mod paths;

mod plan;
mod preview;
mod records;
mod recover;
mod removal;
mod reserved;
mod restore;
mod room;
mod same;
mod schedule;
mod snapshot;
mod stayed;
mod step;
mod touched;
mod transaction;
mod undo;
mod unfinished;
mod verified;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use codedeploy_api::specification::FileExistsBehavior;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use self::conflict::Conflict;
use self::conflict::Conflicts;
use self::decision::{Decision, Facts};
use self::journal::Begun;
pub use self::journal::{Action, JournalError, Phase};
use self::paths::{PathId, Paths};
pub use self::preview::{Permissions, Preview, preview};
pub use self::records::Records;
pub use self::recover::{RecoverError, Recovery, Turn, TurnError, recover};
use self::reserved::Reserved;
pub use self::restore::{RestoreError, Restored, can_restore, restore};
use self::room::Room;
use self::same::Same;
use self::schedule::Schedule;
use self::snapshot::{Host, Revision};
use self::step::Known;
use self::step::Step;
use self::transaction::Work;
pub use self::undo::{ForgetError, completed, forget};
pub use self::unfinished::{Kind, Progress, Unfinished, unfinished};
use crate::appspec::AppSpec;
use crate::custody::Access;
use crate::fs::{Handles, Known as KnownFolders};
use codedeploy_support::plain::harmless;

/// The request for an Install.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The deployment's folder; it keeps the files that the Install displaces.
    pub deployment: &'a Path,
    /// The unpacked revision.
    pub archive: &'a Path,
    pub appspec: &'a AppSpec,
    /// The deployment's option; the AppSpec's own overrides it.
    pub behavior: FileExistsBehavior,
    /// The records of the deployment group; their folder must exist.
    pub records: &'a Records,
    /// The access that the bundle gives each path, if root holds the archive in place of the
    /// bundle's owners.
    pub given: Option<Given<'a>>,
    /// Whether a context of an unconfined SELinux user or type is rejected.
    pub reject_unconfined: bool,
    /// Folders that belong to the agent; nothing is installed there.
    pub reserved: &'a [PathBuf],
    /// The slot that the Install fills; `None` if it is in place.
    pub slot: Option<&'a Slot>,
    /// A further record of the deployment group, which changes with the others.
    pub note: Option<&'a Note>,
    /// Ends the planning early. An Install that has begun to change files runs to its end.
    pub stop: Stop<'a>,
}

/// The slot that an Install fills, and the one that goes on serving. Paths have no links in their
/// parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The slot's folder. It belongs to deployments: existing files in it are replaced.
    pub folder: PathBuf,
    /// The link that users of the files know, as the AppSpec writes it.
    pub link: PathBuf,
    /// Absent if nothing serves yet.
    pub serving: Option<Serving>,
}

/// The files that serve: an Install beside them keeps them, and their records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    pub folder: PathBuf,
    /// The path of the folder after the switch.
    pub later: PathBuf,
}

/// A record that an Install replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub path: PathBuf,
    pub text: Vec<u8>,
}

/// Reports, for every path below an archive, the access that the bundle gave it.
#[derive(Clone, Copy)]
pub struct Given<'a>(pub &'a dyn Fn(Tell<'_>) -> io::Result<()>);

/// Receives each path and its access.
pub type Tell<'a> = &'a mut dyn FnMut(&Path, Access);

impl fmt::Debug for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

/// Cancelled when nobody waits for the result any more.
pub type Stop<'a> = &'a CancellationToken;

/// An Install that can succeed, as far as can be checked in advance.
#[derive(Debug)]
pub struct InstallPlan {
    paths: Paths,
    revision: Revision,
    journal: PathBuf,
    begun: Begun,
    decision: Decision,
    schedule: Schedule,
    /// The existing folders in which names change.
    folders: Arc<KnownFolders>,
    only_without_superseded: bool,
}

/// The effect of an Install on one path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathChange {
    Created(PathBuf),
    /// Something else stood there: a file of the last Install, or one that OVERWRITE replaces.
    Replaced(PathBuf),
    /// A file of the last Install that is not part of this one.
    Removed(PathBuf),
    /// Existed before, and stays because of RETAIN.
    Kept(PathBuf),
    /// Is already as this Install would make it, and stays in place.
    Unchanged(PathBuf),
}

/// The result of an Install, in numbers of files, links and folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub created: usize,
    pub replaced: usize,
    pub removed: usize,
    pub kept: usize,
    pub unchanged: usize,
    /// Facts that an operator may want to know although the Install succeeded.
    pub warnings: Vec<String>,
}

/// The numbers of a [`Summary`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    created: usize,
    replaced: usize,
    removed: usize,
    kept: usize,
    #[serde(default)]
    unchanged: usize,
}

impl Counts {
    fn summary(self, warnings: Vec<String>) -> Summary {
        let Counts {
            created,
            replaced,
            removed,
            kept,
            unchanged,
        } = self;
        Summary {
            created,
            replaced,
            removed,
            kept,
            unchanged,
            warnings,
        }
    }
}

/// The reason why there was no Install.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot read {} to plan the Install; nothing was changed", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("planning the Install was stopped; nothing was changed")]
    Stopped,
    #[error("Install would not succeed, so nothing was changed:{}", listed(.0))]
    Conflicts(Vec<Conflict>),
    #[error("the files could not be changed; everything was put back")]
    Failed { source: StepError },
    #[error(
        "the files could not be changed, and not everything could be put back; it is tried again when the agent starts, and before the \
         next Install. Left to do:{}",
        listed(.left)
    )]
    NotUndone {
        source: StepError,
        left: Vec<String>,
    },
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct StepError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Examines the revision and the host and decides everything, without changing anything. Reports
/// every conflict, not only the first.
pub fn plan(request: &Request<'_>) -> Result<InstallPlan, InstallError> {
    let Considered {
        revision,
        host,
        records,
        decision,
        superseded,
        paths,
        conflicts,
        room,
    } = consider(request)?;
    if !conflicts.is_empty() {
        return Err(InstallError::Conflicts(conflicts));
    }
    let deployment =
        std::fs::canonicalize(request.deployment).map_err(|source| InstallError::Unreadable {
            path: request.deployment.to_path_buf(),
            source,
        })?;
    let token = crate::fs::token();
    let schedule = schedule::schedule(&decision, &paths, &host, &records, request, token.clone())
        .map_err(|(path, source)| InstallError::Unreadable { path, source })?;
    let mut begun = Begun::new(Action::Install, deployment, records.pointer.clone(), token);
    begun.superseded = superseded;
    begun.counts = decision.counts();
    let folders = Arc::new(schedule.folders(&decision, &paths, &host));
    let only_without_superseded = room.only_without_superseded;
    Ok(InstallPlan {
        paths,
        revision,
        journal: records.journal,
        begun,
        decision,
        schedule,
        folders,
        only_without_superseded,
    })
}

/// Everything that was examined, and the decision.
struct Considered {
    paths: Paths,
    revision: Revision,
    host: Host,
    records: Records,
    decision: Decision,
    superseded: Vec<PathBuf>,
    conflicts: Vec<Conflict>,
    room: Room,
}

fn consider(request: &Request<'_>) -> Result<Considered, InstallError> {
    let unreadable = |(path, source)| {
        let stopped = request.stop.is_cancelled();
        if stopped {
            InstallError::Stopped
        } else {
            InstallError::Unreadable { path, source }
        }
    };
    let records = request.records.resolve().map_err(unreadable)?;
    let mut revision = Revision::read(request.archive, request.stop).map_err(unreadable)?;
    if let Some(Given(tell)) = request.given {
        let told = tell(&mut |path, access| revision.give(path, access));
        told.map_err(|source| unreadable((request.archive.to_owned(), source)))?;
    }
    let (mut paths, mut conflicts) = (Paths::absolute(), Conflicts::default());
    let wanted = layout::layout(
        &revision,
        request.appspec,
        &mut paths,
        &mut conflicts,
        request.stop,
    );
    let wanted = wanted.map_err(|layout::Stopped| InstallError::Stopped)?;
    let host = Host::read(
        wanted.iter().map(|wanted| wanted.path),
        request,
        &records,
        &mut paths,
    );
    let host = host.map_err(unreadable)?;
    let facts = Facts {
        appspec: request.appspec,
        behavior: request
            .appspec
            .file_exists_behavior
            .unwrap_or(request.behavior),
        reject_unconfined: request.reject_unconfined,
        slot: request.slot,
        revision: &revision,
        host: &host,
        reserved: &Reserved::new(&revision.root, request.reserved, &mut paths),
        stop: request.stop,
    };
    let mut decision = plan::decide(facts, wanted, &mut paths, &mut conflicts);
    if !conflicts.is_full() {
        let same = Same::look(&decision, &revision, &host, &paths, request.stop);
        plan::stay(&mut decision, same, &revision, &paths);
    }
    conflicts.name_groups(&records);
    let superseded = undo::superseded(&records.pointer, request.deployment);
    let room = room::look(
        &decision,
        &revision,
        &records,
        &superseded,
        &paths,
        &mut conflicts,
    );
    if request.stop.is_cancelled() {
        return Err(InstallError::Stopped);
    }
    let conflicts = conflicts.into_listed();
    Ok(Considered {
        paths,
        revision,
        host,
        records,
        decision,
        superseded,
        conflicts,
        room,
    })
}

/// Carries out `plan`, which was made in this `turn`. After an error everything is as before,
/// unless the error states otherwise.
pub fn install(plan: InstallPlan, _turn: &Turn) -> Result<Summary, InstallError> {
    let begun = &plan.begun;
    if plan.only_without_superseded {
        tracing::warn!(
            "there is no room to keep the files that the last Install displaced; it can no longer be taken back"
        );
        undo::give_up(begun)
            .iter()
            .for_each(|left| tracing::warn!("{left}"));
    }
    let left = transaction::run(&plan.journal, begun, &plan)?;
    let mut warnings = plan.decision.warnings;
    warnings.extend(left);
    Ok(begun.counts.summary(warnings))
}

impl InstallPlan {
    /// The changes of the Install: first those that it brings, in the order of creation, then those
    /// that it removes and keeps.
    pub fn changes(&self) -> impl Iterator<Item = PathChange> {
        self.decision.changes(&self.paths)
    }

    /// Warnings that are no reason to reject the Install.
    pub fn warnings(&self) -> &[String] {
        &self.decision.warnings
    }
}

impl Decision {
    fn counts(&self) -> Counts {
        let unchanged = self.planned.iter().filter(|planned| planned.stays).count();
        let replaces = |planned: &&decision::Planned| self.replaces(planned);
        let replaced = self.planned.iter().filter(replaces).count();
        let removed = self
            .removed
            .iter()
            .filter(|path| !self.places.contains(**path))
            .count();
        Counts {
            created: self.planned.len() - unchanged - replaced,
            replaced,
            removed,
            kept: self.kept.len(),
            unchanged,
        }
    }
}

impl Work for InstallPlan {
    fn build(&self) -> Result<BTreeSet<PathBuf>, StepError> {
        build::build(self)
    }

    fn handles(&self) -> Handles {
        Handles::to(Arc::clone(&self.folders))
    }

    fn staged(&self) -> impl Iterator<Item = PathBuf> {
        self.schedule.all_staged(&self.decision, &self.paths)
    }

    fn steps(&self) -> impl Iterator<Item = Cow<'_, Step>> {
        self.schedule
            .steps(&self.decision, &self.revision, &self.paths)
    }

    fn known(&self, folder: PathId, name: &OsStr) -> Option<Known> {
        schedule::known(&self.decision, &self.paths, folder, name)
    }
}

impl StepError {
    fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

fn listed(lines: &[impl ToString]) -> String {
    // One line each, whatever characters a name contains.
    lines
        .iter()
        .map(|line| format!("\n  {}", harmless(&line.to_string())))
        .collect()
}
