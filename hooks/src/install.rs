//! Install: puts a revision's files on the host as one transaction (spec: AppSpec file and Install, Durability).
//!
//! The way of an Install, on this page: [`plan`] looks at the revision and the host, decides everything, and refuses
//! with every reason at once while nothing has changed. [`install`] builds what is new under temporary names, makes it
//! durable, changes names, writes the records that the next Install cleans up by, and only then removes what was set
//! aside. An error on the way puts everything back.

mod access;
mod apply;
mod conflict;
mod grant;
mod layout;
mod plan;
mod preview;
mod records;
mod schedule;
mod snapshot;
mod step;
mod undo;

use std::io;
use std::path::{Path, PathBuf};

use codedeploy_api::specification::FileExistsBehavior;

pub use self::apply::StepError;
use self::apply::Transaction;
pub use self::conflict::Conflict;
use self::plan::{Decision, Facts};
pub use self::preview::{Permissions, Preview, preview};
pub use self::records::Records;
use self::schedule::Schedule;
use self::snapshot::{Host, Revision};
use crate::appspec::AppSpec;

/// What to install.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The unpacked revision.
    pub archive: &'a Path,
    pub appspec: &'a AppSpec,
    /// The deployment's option; the AppSpec's own wins.
    pub behavior: FileExistsBehavior,
    /// The deployment group's; their folder must exist.
    pub records: &'a Records,
    /// Whether a context of an unconfined SELinux user or type is refused.
    pub reject_unconfined: bool,
}

/// An Install that can succeed, as far as can be seen before it is done.
#[derive(Debug)]
pub struct InstallPlan {
    revision: PathBuf,
    decision: Decision,
    schedule: Schedule,
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

/// Why there was no Install.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot read {} to plan the Install; nothing was changed", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("Install would not succeed, so nothing was changed:{}", listed(.0))]
    Conflicts(Vec<Conflict>),
    #[error("Install failed; everything was put back")]
    Failed { source: StepError },
    #[error("Install failed, and not everything could be put back; left to do by hand:{}", listed(.left))]
    NotUndone { source: StepError, left: Vec<String> },
}

/// Looks at the revision and the host and decides everything; nothing is changed. Every conflict is found, not only
/// the first.
pub fn plan(request: &Request<'_>) -> Result<InstallPlan, InstallError> {
    let Considered { revision, host, records, decision, conflicts } = consider(request)?;
    if !conflicts.is_empty() {
        return Err(InstallError::Conflicts(conflicts));
    }
    let schedule = schedule::schedule(&decision, &revision, &host, &records, &crate::fs::token());
    Ok(InstallPlan { revision: revision.root, decision, schedule })
}

/// Everything that was looked at, and what came of it.
struct Considered {
    revision: Revision,
    host: Host,
    records: Records,
    decision: Decision,
    conflicts: Vec<Conflict>,
}

fn consider(request: &Request<'_>) -> Result<Considered, InstallError> {
    let unreadable = |(path, source)| InstallError::Unreadable { path, source };
    let records = request.records.resolve().map_err(unreadable)?;
    let revision = Revision::read(request.archive).map_err(unreadable)?;
    let (wanted, mut conflicts) = layout::layout(&revision, request.appspec);
    let paths = wanted.iter().map(|wanted| wanted.path.as_path());
    let host = Host::read(paths, request.appspec, &records).map_err(unreadable)?;
    let behavior = request.appspec.file_exists_behavior.unwrap_or(request.behavior);
    let reject_unconfined = request.reject_unconfined;
    let facts =
        Facts { appspec: request.appspec, behavior, reject_unconfined, revision: &revision, host: &host };
    let (decision, found) = plan::decide(facts, wanted);
    conflicts.extend(found);
    Ok(Considered { revision, host, records, decision, conflicts })
}

/// Carries `plan` out. After an error everything is as before, unless the error says otherwise.
pub fn install(plan: InstallPlan) -> Result<Summary, InstallError> {
    let Schedule { build, change, record } = &plan.schedule;
    let mut transaction =
        Transaction::begin(&plan.revision).map_err(|source| InstallError::Failed { source })?;
    let result = transaction
        .run(build)
        .and_then(|()| transaction.sync_file_systems())
        .and_then(|()| transaction.run(change))
        .and_then(|()| transaction.sync_names())
        .and_then(|()| transaction.run(record))
        .and_then(|()| transaction.sync_names());
    match result {
        Ok(()) => Ok(plan.summary(transaction.commit())),
        Err(source) => Err(match transaction.roll_back() {
            left if left.is_empty() => InstallError::Failed { source },
            left => InstallError::NotUndone { source, left },
        }),
    }
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

    fn summary(&self, left: Vec<String>) -> Summary {
        let mut summary = Summary { warnings: self.decision.warnings.clone(), ..Summary::default() };
        summary.warnings.extend(left);
        for change in self.changes() {
            *match change {
                Change::Created(_) => &mut summary.created,
                Change::Replaced(_) => &mut summary.replaced,
                Change::Removed(_) => &mut summary.removed,
                Change::Kept(_) => &mut summary.kept,
            } += 1;
        }
        summary
    }
}

fn listed(lines: &[impl ToString]) -> String {
    lines.iter().map(|line| format!("\n  {}", line.to_string())).collect()
}
