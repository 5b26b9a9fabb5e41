//! Install: puts a revision's files on the host as one transaction (spec: AppSpec file and Install, Durability).
//!
//! The way of an Install, on this page: [`Turn::wait`] keeps every other process from installing; [`recover`] ends what
//! a crash left. [`plan`] looks at the revision and the host, decides everything, and refuses with every reason at once
//! while nothing has changed. [`install`] builds what is new under temporary names, makes it durable, writes down how
//! every name will change, and only then changes them; the records that the next Install cleans up by change with them.
//! What is displaced is kept, so that the Install can be taken back. An error on the way puts everything back.

mod access;
mod build;
mod change;
mod conflict;
mod grant;
mod identity;
mod journal;
mod kept;
mod layout;
mod parallel;
mod plan;
mod preview;
mod records;
mod recover;
mod restore;
mod room;
mod schedule;
mod snapshot;
mod step;
mod transaction;
mod undo;
mod unfinished;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use codedeploy_api::specification::FileExistsBehavior;
use serde::{Deserialize, Serialize};

pub use self::conflict::Conflict;
use self::journal::Begun;
pub use self::journal::{Action, JournalError, Phase};
use self::plan::{Decision, Facts};
pub use self::preview::{Permissions, Preview, preview};
pub use self::records::Records;
pub use self::recover::{RecoverError, Recovery, Turn, TurnError, recover};
pub use self::restore::{RestoreError, Restored, can_restore, restore};
use self::room::Room;
use self::schedule::Schedule;
use self::snapshot::{Host, Revision};
use self::transaction::Work;
pub use self::undo::{ForgetError, completed, forget};
pub use self::unfinished::{Kind, Progress, Unfinished, unfinished};
use crate::appspec::AppSpec;
use crate::custody::Access;
use crate::plain::harmless;

/// What to install.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The deployment's folder; it keeps what the Install displaces.
    pub deployment: &'a Path,
    /// The unpacked revision.
    pub archive: &'a Path,
    pub appspec: &'a AppSpec,
    /// The deployment's option; the AppSpec's own wins.
    pub behavior: FileExistsBehavior,
    /// The deployment group's; their folder must exist.
    pub records: &'a Records,
    /// What the bundle gave each path, where root holds the archive instead of the owners that the bundle names.
    pub given: Option<Given<'a>>,
    /// Whether a context of an unconfined SELinux user or type is refused.
    pub reject_unconfined: bool,
}

/// Tells of every path below an archive what the bundle gave it.
#[derive(Clone, Copy)]
pub struct Given<'a>(pub &'a dyn Fn(Tell<'_>) -> io::Result<()>);

/// What is told.
pub type Tell<'a> = &'a mut dyn FnMut(&Path, Access);

impl fmt::Debug for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

/// An Install that can succeed, as far as can be seen before it is done.
#[derive(Debug)]
pub struct InstallPlan {
    revision: PathBuf,
    journal: PathBuf,
    begun: Begun,
    decision: Decision,
    schedule: Schedule,
    only_without_superseded: bool,
}

/// What an Install does to one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change<'a> {
    Created(&'a Path),
    /// Something else stood there: a file of the last Install, or one that OVERWRITE replaces.
    Replaced(&'a Path),
    /// Left by the last Install, and not part of this one.
    Removed(&'a Path),
    /// Was there already, and stays by RETAIN.
    Kept(&'a Path),
}

/// What an Install did, in numbers of files, links and folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub created: usize,
    pub replaced: usize,
    pub removed: usize,
    pub kept: usize,
    /// What an operator may want to know although the Install succeeded.
    pub warnings: Vec<String>,
}

/// The numbers of a [`Summary`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    created: usize,
    replaced: usize,
    removed: usize,
    kept: usize,
}

/// Why there was no Install.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot read {} to plan the Install; nothing was changed", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("Install would not succeed, so nothing was changed:{}", listed(.0))]
    Conflicts(Vec<Conflict>),
    #[error("the files could not be changed; everything was put back")]
    Failed { source: StepError },
    #[error(
        "the files could not be changed, and not everything could be put back; it is tried again when the agent starts, and before the \
         next Install. Left to do:{}",
        listed(.left)
    )]
    NotUndone { source: StepError, left: Vec<String> },
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct StepError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Looks at the revision and the host and decides everything; nothing is changed. Every conflict is found, not only
/// the first.
pub fn plan(request: &Request<'_>) -> Result<InstallPlan, InstallError> {
    let Considered { revision, host, records, decision, superseded, room } = consider(request)?;
    let Room { conflicts, only_without_superseded } = room;
    if !conflicts.is_empty() {
        return Err(InstallError::Conflicts(conflicts));
    }
    let deployment = std::fs::canonicalize(request.deployment)
        .map_err(|source| InstallError::Unreadable { path: request.deployment.to_path_buf(), source })?;
    let token = crate::fs::token();
    let schedule =
        schedule::schedule(&decision, &revision, &host, &records, request.deployment, token.clone());
    let mut begun = Begun::new(Action::Install, deployment, records.pointer.clone(), token);
    begun.staged = schedule.build.iter().map(|build| build.staged.clone()).collect();
    begun.superseded = superseded;
    begun.counts = decision.counts();
    let (revision, journal) = (revision.root, records.journal);
    Ok(InstallPlan { revision, journal, begun, decision, schedule, only_without_superseded })
}

/// Everything that was looked at, and what came of it.
struct Considered {
    revision: Revision,
    host: Host,
    records: Records,
    decision: Decision,
    superseded: Vec<PathBuf>,
    /// With every conflict, not only those of room.
    room: Room,
}

fn consider(request: &Request<'_>) -> Result<Considered, InstallError> {
    let unreadable = |(path, source)| InstallError::Unreadable { path, source };
    let records = request.records.resolve().map_err(unreadable)?;
    let mut revision = Revision::read(request.archive).map_err(unreadable)?;
    if let Some(Given(tell)) = request.given {
        let told = tell(&mut |path, access| revision.give(path, access));
        told.map_err(|source| unreadable((request.archive.to_owned(), source)))?;
    }
    let (wanted, mut conflicts) = layout::layout(&revision, request.appspec);
    let paths = wanted.iter().map(|wanted| wanted.path.as_path());
    let host = Host::read(paths, request.appspec, &records).map_err(unreadable)?;
    let behavior = request.appspec.file_exists_behavior.unwrap_or(request.behavior);
    let reject_unconfined = request.reject_unconfined;
    let facts =
        Facts { appspec: request.appspec, behavior, reject_unconfined, revision: &revision, host: &host };
    let (decision, found) = plan::decide(facts, wanted);
    conflicts.extend(found);
    let superseded = undo::superseded(&records.pointer, request.deployment);
    let mut room = room::look(&decision, &revision, &records, &superseded);
    room.conflicts.splice(..0, conflicts);
    Ok(Considered { revision, host, records, decision, superseded, room })
}

/// Carries `plan` out, which was made in this `turn`. After an error everything is as before, unless the error says
/// otherwise.
pub fn install(plan: InstallPlan, _turn: &Turn) -> Result<Summary, InstallError> {
    let InstallPlan { revision, journal, begun, decision, schedule, only_without_superseded } = plan;
    if only_without_superseded {
        tracing::warn!(
            "there is no room to keep what the last Install displaced; it can no longer be taken back"
        );
        undo::give_up(&begun).iter().for_each(|left| tracing::warn!("{left}"));
    }
    let work = Work { revision: &revision, builds: &schedule.build, steps: &schedule.change };
    let left = transaction::run(&journal, &begun, work)?;
    let mut warnings = decision.warnings;
    warnings.extend(left);
    let Counts { created, replaced, removed, kept } = begun.counts;
    Ok(Summary { created, replaced, removed, kept, warnings })
}

impl InstallPlan {
    /// What the Install will do: what it brings in the order of creation, then what it removes and keeps.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.decision.changes()
    }

    /// What is odd, but no reason to refuse.
    pub fn warnings(&self) -> &[String] {
        &self.decision.warnings
    }
}

impl Decision {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for change in self.changes() {
            *match change {
                Change::Created(_) => &mut counts.created,
                Change::Replaced(_) => &mut counts.replaced,
                Change::Removed(_) => &mut counts.removed,
                Change::Kept(_) => &mut counts.kept,
            } += 1;
        }
        counts
    }
}

impl StepError {
    fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { action, path: path.to_path_buf(), source }
    }
}

fn listed(lines: &[impl ToString]) -> String {
    // One line each, whatever a name holds.
    lines.iter().map(|line| format!("\n  {}", harmless(&line.to_string()))).collect()
}
