//! The commands of this host, on disk: those in progress, the outcomes that the service has not
//! accepted yet, and the last of the others (spec: Durability). However the agent ends, the next
//! one finds its obligations here.
//!
//! A command has one file in `deployment-commands/`, which moves from folder to folder:
//!
//! * `in-progress/` from its delivery on, before any work for it begins;
//! * `outbox/` when it has ended, before the outcome is reported;
//! * `told/` when the service has accepted the outcome, or rejected it for good. A redelivered
//!   command is answered from there, and does not run again.
//!
//! The notes of [`official`] agents are kept besides.
//!
//! Each change syncs one small file, and is made on the thread of the runtime: Installs may occupy
//! every thread for file work for minutes, and an outcome must not wait for them.

mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod official;
mod record;

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use codedeploy_api::command::{Envelope, HostCommand, PutHostCommandCompleteInput};
use codedeploy_api::lifecycle::LifecycleEvent;
use time::OffsetDateTime;

use crate::deployment_root::{Store, StoreError};
use crate::path_component::PathComponent;
use crate::spec::DeploymentSpec;
use codedeploy_api::chain::Chain;
pub use files::LedgerError;
use files::{files, modified, remove, save, set_aside, usable};
pub use official::ForeignCommand;
use record::Record as _;
pub(crate) use record::file_name;
pub use record::{Begun, DeploymentNames, Ended, InProgress, Logged, Noted};

/// The number of outcomes that are remembered after the service accepted them; the oldest are
/// dropped first. Each takes a block.
const REMEMBERED: usize = 1000;

/// The records of all commands.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
    in_progress: PathBuf,
    outbox: PathBuf,
    told: PathBuf,
    ongoing: PathBuf,
}

/// A recorded command in progress, until [`Ledger::end`] or [`Ledger::forget`].
#[derive(Debug)]
#[must_use]
pub struct Entry {
    record: InProgress,
    /// The name in the record, read once.
    event: LifecycleEvent,
}

/// An outcome to be reported to the service, until [`Ledger::close`].
#[derive(Debug)]
#[must_use]
pub struct Outgoing {
    pub ended: Ended,
    /// Whether it is on the disk.
    safe: bool,
}

/// The outcomes that earlier runs of an agent still have to report.
#[derive(Debug, Default)]
pub struct Left {
    /// Oldest first.
    pub outcomes: Vec<Outgoing>,
    /// Oldest first.
    pub interrupted: Vec<Entry>,
    /// Commands of an official agent, or of an unusable record.
    pub foreign: Vec<ForeignCommand>,
    /// Commands of this agent that another one has reported meanwhile.
    pub reported: Vec<Entry>,
}

impl Ledger {
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let ledger = Self::at(store);
        let commands = store.commands();
        for folder in [
            &commands,
            &ledger.in_progress,
            &ledger.outbox,
            &ledger.told,
            &ledger.ongoing,
        ] {
            if fs::metadata(folder).is_ok_and(|metadata| !metadata.is_dir()) {
                set_aside(folder, "it is not a folder");
            }
            if *folder == ledger.ongoing {
                store.make_records_folder(folder)?;
            } else {
                store.make_folder(folder, 0o700)?;
            }
        }
        Ok(ledger)
    }

    fn at(store: &Store) -> Self {
        let folder = |name| store.commands().join(name);
        Self {
            store: store.clone(),
            in_progress: folder("in-progress"),
            outbox: folder("outbox"),
            told: folder("told"),
            ongoing: store.ongoing(),
        }
    }

    /// The waiting outcomes, oldest first, for a reader that changes nothing.
    pub fn peek(store: &Store) -> Vec<Ended> {
        let records = files(&Self::at(store).outbox).into_iter();
        let mut waiting: Vec<Ended> = records
            .filter_map(|path| record::read(&path).ok())
            .collect();
        waiting.sort_by_key(|ended| ended.ended_at);
        waiting
    }

    /// Records the delivery of `command`, which requests `event`.
    pub fn receive(
        &self,
        command: HostCommand,
        event: LifecycleEvent,
    ) -> Result<Entry, LedgerError> {
        let entry = Entry {
            record: InProgress::new(command),
            event,
        };
        self.save(&entry)?;
        Ok(entry)
    }

    /// Records that this agent resumes a command of an earlier one.
    pub fn resume(&self, entry: &mut Entry) -> Result<(), LedgerError> {
        entry.record.starts = entry.record.starts.saturating_add(1);
        self.save(entry)
    }

    /// Leaves a command to the next agent in an orderly way, so that this start does not count as a
    /// crash.
    pub fn leave(&self, mut entry: Entry) {
        entry.record.starts = entry.record.starts.saturating_sub(1);
        if let Err(error) = self.save(&entry) {
            tracing::warn!(error = %Chain(&error), "the next start will count this stop as a crash");
        }
    }

    /// Records that the command is about to run, with its specification.
    pub fn begin(
        &self,
        entry: &mut Entry,
        spec: &DeploymentSpec,
        specification: Envelope,
    ) -> Result<(), LedgerError> {
        let before = entry.record.begun.take();
        let log_began = before
            .as_ref()
            .and_then(|before| before.log_began)
            .unwrap_or_else(|| {
                self.script_log_size(&spec.deployment_group_id, &spec.deployment_id)
            });
        let began_at = before.map_or_else(OffsetDateTime::now_utc, |before| before.began_at);
        let completed_before = (entry.event == LifecycleEvent::Install)
            .then(|| {
                self.store
                    .completed_install(&spec.deployment_group_id, &spec.deployment_id)
            })
            .flatten();
        // The note comes first: if the record says that a note was written and the note is gone,
        // another agent has removed it.
        official::write(
            &self.ongoing,
            &spec.deployment_id,
            entry.host_command_identifier(),
        )?;
        let noted = Some(Noted {
            folder: self.folder_of_notes(),
            at: OffsetDateTime::now_utc(),
        });
        entry.record.begun = Some(Begun {
            began_at,
            about: DeploymentNames::of(spec),
            completed_before,
            noted,
            log_began: Some(log_began),
            specification,
        });
        self.save(entry)
    }

    /// Drops a command whose outcome the service does not want.
    pub fn forget(&self, entry: Entry) {
        self.remove_in_progress(entry.host_command_identifier(), entry.deployment());
    }

    /// Records the outcome of a command, before it is reported. If that fails, the outcome can
    /// still be reported, and the command stays recorded as in progress until then.
    pub fn end(&self, entry: Entry, completion: PutHostCommandCompleteInput) -> Outgoing {
        let name = &entry.record.command.command_name;
        let begun = entry.record.begun;
        let logged = begun.as_ref().and_then(|begun| self.logged(begun));
        let (deployment, noted) = begun
            .map(|begun| (begun.about.deployment_id, begun.noted))
            .unzip();
        let mut ended = Ended::new(name, deployment, completion);
        (ended.noted, ended.logged) = (noted.flatten(), logged);
        self.keep(ended)
    }

    /// Returns the output that scripts have written since the command began.
    fn logged(&self, begun: &Begun) -> Option<Logged> {
        let about = &begun.about;
        let (group, deployment) = (&about.deployment_group_id, &about.deployment_id);
        let (begin, end) = (begun.log_began?, self.script_log_size(group, deployment));
        (begin < end).then(|| Logged {
            deployment_group_id: group.clone(),
            deployment_id: deployment.clone(),
            begin,
            end,
        })
    }

    fn script_log_size(&self, group: &PathComponent, deployment: &PathComponent) -> u64 {
        let log = self.store.deployment(group, deployment).scripts_log();
        fs::symlink_metadata(log).map_or(0, |metadata| metadata.len())
    }

    /// The same for a command that was never in progress, because of its `name` or because nothing
    /// could be recorded.
    pub fn end_unbegun(&self, name: &str, completion: PutHostCommandCompleteInput) -> Outgoing {
        self.keep(Ended::new(name, None, completion))
    }

    /// The same for a command that is known only from the note of an official agent.
    pub fn end_foreign(
        &self,
        foreign: &ForeignCommand,
        completion: PutHostCommandCompleteInput,
    ) -> Outgoing {
        self.keep(Ended::new(
            "",
            PathComponent::new(&foreign.deployment_id),
            completion,
        ))
    }

    fn keep(&self, ended: Ended) -> Outgoing {
        let name = file_name(ended.host_command_identifier());
        let safe = match save(&self.outbox.join(&name), &ended) {
            Ok(()) => {
                remove(&self.in_progress.join(name));
                true
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot record the outcome of a command; it is lost if the agent ends before the service accepts it");
                false
            }
        };
        Outgoing { ended, safe }
    }

    /// Records that the service accepted the outcome, or rejected it for good; from now on it is
    /// only remembered.
    pub fn close(&self, outgoing: Outgoing) {
        let Outgoing { ended, safe } = outgoing;
        let id = ended.host_command_identifier();
        let name = file_name(id);
        let told = self.told.join(&name);
        let kept = if safe {
            // If a power cut undoes it, the outcome is reported twice.
            fs::rename(self.outbox.join(&name), &told).map_err(|source| (told, source))
        } else {
            save(&told, &ended).map_err(|error| (error.path, error.source))
        };
        if let Err((path, error)) = kept {
            tracing::warn!(path = %path.display(), %error, "cannot record that a command is over; a restart of the agent forgets it");
            remove(&self.outbox.join(&name));
        }
        self.remove_in_progress(id, ended.deployment_id.as_ref().map(|id| id.as_str()));
        self.prune();
    }

    /// Returns the outcome of this command if it was reported to the service before.
    pub fn told(&self, host_command_identifier: &str) -> Option<PutHostCommandCompleteInput> {
        let path = self.told.join(file_name(host_command_identifier));
        if !path.exists() {
            return None;
        }
        let record: Option<Ended> = usable(&path);
        Some(record?.completion)
    }

    /// Whether the outcome of this command waits to be reported, or was reported.
    pub fn has_ended(&self, host_command_identifier: &str) -> bool {
        let name = file_name(host_command_identifier);
        self.outbox.join(&name).exists() || self.told.join(&name).exists()
    }

    /// Reads the records of earlier runs. A file that is not a record is set aside with a warning.
    pub fn left(&self) -> Left {
        self.prune();
        let mut left = Left::default();
        let outcomes = files(&self.outbox).into_iter();
        left.outcomes = outcomes
            .filter_map(|path| usable(&path))
            .map(|ended| Outgoing { ended, safe: true })
            .collect();
        left.outcomes
            .sort_by_key(|outgoing| outgoing.ended.ended_at);
        for path in files(&self.in_progress) {
            let name = path.file_name().unwrap_or_default();
            if self.outbox.join(name).exists() || self.told.join(name).exists() {
                // The agent ended between two changes.
                remove(&path);
                continue;
            }
            match usable::<InProgress>(&path).map(Entry::read) {
                Some(Ok(entry)) => left.interrupted.push(entry),
                Some(Err(foreign)) => left.foreign.push(foreign),
                None => {}
            }
        }
        left.interrupted
            .sort_by_key(|entry| entry.record.received_at);
        self.set_apart_reported(&mut left);
        let notes = official::all(&self.ongoing).into_iter();
        left.foreign
            .extend(notes.filter(|note| self.is_foreign(note, &left.interrupted)));
        left
    }

    /// Moves the command that another agent has reported from `left` to its `reported`. An official
    /// agent that finds notes at its start reports the command of the newest note and clears the
    /// folder.
    fn set_apart_reported(&self, left: &mut Left) {
        let of_outcomes = left
            .outcomes
            .iter()
            .map(|outgoing| &outgoing.ended)
            .filter_map(|ended| {
                Some((
                    ended.noted.as_ref()?,
                    ended.deployment_id.as_ref()?,
                    ended.host_command_identifier(),
                ))
            });
        let of_entries = left.interrupted.iter().filter_map(|entry| {
            let begun = entry.record.begun.as_ref()?;
            Some((
                begun.noted.as_ref()?,
                &begun.about.deployment_id,
                entry.host_command_identifier(),
            ))
        });
        let folder = self.folder_of_notes();
        let gone = of_outcomes
            .chain(of_entries)
            .filter(|(noted, deployment, id)| {
                noted.folder == folder && official::is_gone(&self.ongoing, deployment, id)
            });
        let Some(newest) = gone
            .max_by_key(|(noted, ..)| noted.at)
            .map(|(.., id)| id.to_owned())
        else {
            return;
        };
        let is_newest =
            |outgoing: &mut Outgoing| outgoing.ended.host_command_identifier() == newest;
        for outgoing in left.outcomes.extract_if(.., is_newest) {
            tracing::warn!(
                deployment_id = outgoing
                    .ended
                    .deployment_id
                    .as_ref()
                    .map(tracing::field::display),
                lifecycle_event = outgoing.ended.lifecycle_event,
                "the outcome is dropped: another agent took over and reported the command"
            );
            self.close(outgoing);
        }
        let is_newest = |entry: &mut Entry| entry.host_command_identifier() == newest;
        left.reported = left.interrupted.extract_if(.., is_newest).collect();
    }

    /// Whether the command is known only from the note of an official agent. A note that nobody
    /// needs is removed.
    fn is_foreign(&self, foreign: &ForeignCommand, interrupted: &[Entry]) -> bool {
        let name = file_name(&foreign.host_command_identifier);
        let is_unbegun = |entry: &Entry| {
            entry.record.begun.is_none()
                && entry.host_command_identifier() == foreign.host_command_identifier
        };
        if self.told.join(&name).exists() || interrupted.iter().any(is_unbegun) {
            official::remove(
                &self.ongoing,
                &foreign.deployment_id,
                &foreign.host_command_identifier,
            );
            return false;
        }
        !self.outbox.join(&name).exists() && !self.in_progress.join(&name).exists()
    }

    fn folder_of_notes(&self) -> String {
        self.ongoing
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn save(&self, entry: &Entry) -> Result<(), LedgerError> {
        save(
            &self
                .in_progress
                .join(file_name(entry.host_command_identifier())),
            &entry.record,
        )
    }

    fn remove_in_progress(&self, host_command_identifier: &str, deployment: Option<&str>) {
        remove(&self.in_progress.join(file_name(host_command_identifier)));
        if let Some(deployment) = deployment {
            official::remove(&self.ongoing, deployment, host_command_identifier);
        }
    }

    /// Drops outcomes that nobody will ask for any more.
    fn prune(&self) {
        let mut told: Vec<(SystemTime, PathBuf)> = files(&self.told)
            .into_iter()
            .map(|path| (modified(&path).unwrap_or(SystemTime::UNIX_EPOCH), path))
            .collect();
        told.sort();
        let surplus = told.len().saturating_sub(REMEMBERED);
        told.iter().take(surplus).for_each(|(_, path)| remove(path));
    }
}

impl Entry {
    /// Makes the entry of a record. Earlier versions also recorded commands whose name is not an
    /// event; of these, only the identifier is used.
    pub fn read(record: InProgress) -> Result<Self, ForeignCommand> {
        match record.command.command_name.parse() {
            Ok(event) => Ok(Self { record, event }),
            Err(_) => Err(ForeignCommand {
                deployment_id: String::new(),
                host_command_identifier: record.command.host_command_identifier,
            }),
        }
    }

    pub fn record(&self) -> &InProgress {
        &self.record
    }

    pub fn command(&self) -> &HostCommand {
        &self.record.command
    }

    pub fn event(&self) -> &LifecycleEvent {
        &self.event
    }

    /// The deployment, once the command has begun.
    pub fn about(&self) -> Option<&DeploymentNames> {
        self.record.begun.as_ref().map(|begun| &begun.about)
    }

    fn host_command_identifier(&self) -> &str {
        self.record.host_command_identifier()
    }

    fn deployment(&self) -> Option<&str> {
        self.record
            .begun
            .as_ref()
            .map(|begun| begun.about.deployment_id.as_str())
    }
}

impl Outgoing {
    /// Whether the next agent would report it.
    pub fn is_safe(&self) -> bool {
        self.safe
    }
}

#[cfg(test)]
mod tests;
