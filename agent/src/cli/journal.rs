//! `codedeploy-agent journal`: lists Installs that a crash interrupted and what recovery will do,
//! as text and as JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use codedeploy_hooks::install::{self, Action, Phase, Turn, Unfinished};
use codedeploy_support::plain::harmless;
use serde_json::{Value, json};

use crate::config::{ConfigError, Environment, Settings};
use crate::deployment_root::{Store, StoreError};
use crate::output;
use crate::output::fail;
use crate::path_component::PathComponent;
use crate::slots;
use crate::slots::journal::{Step, Switch};
use codedeploy_api::chain::Chain;

/// The number of changes that the text lists; JSON has all.
const LISTED: usize = 20;

#[derive(Debug, thiserror::Error)]
enum JournalCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write to the standard output")]
    Output(#[from] io::Error),
}

/// One deployment group with a journal.
struct Row {
    group: String,
    journal: PathBuf,
    found: Result<Unfinished, String>,
}

/// Runs `codedeploy-agent journal`.
pub fn main(config_file: Option<&Path>, as_json: bool) -> ExitCode {
    match show(config_file, as_json) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("codedeploy-agent", &error),
    }
}

/// Returns whether nothing is unfinished.
fn show(config_file: Option<&Path>, as_json: bool) -> Result<bool, JournalCommandError> {
    let (settings, _) = Settings::load(config_file, &Environment::of_process())?;
    let store = Store::new(&settings.root_dir, &settings.ongoing_deployment_tracking);
    let running = Turn::is_taken(&store.instructions());
    let mut entries = Vec::new();
    for (group, journal) in store.journals()? {
        let found = match install::unfinished(&journal) {
            Ok(None) => continue,
            Ok(Some(unfinished)) => Ok(unfinished),
            Err(error) => Err(Chain(&error).to_string()),
        };
        entries.push(Row {
            group,
            journal,
            found,
        });
    }
    let switches = switches(&store)?;
    let mut out = output::out();
    if as_json {
        let unfinished: Vec<Value> = entries.iter().map(Row::document).collect();
        let document = json!({
            "install_in_progress": running,
            "unfinished": unfinished,
            "switches": switches.iter().map(Interrupted::document).collect::<Vec<_>>(),
        });
        writeln!(out, "{}", output::json(&document))?;
    } else {
        words(&mut out, &entries, running)?;
        switches
            .iter()
            .try_for_each(|switch| switch.words(&mut out))?;
    }
    Ok(entries.is_empty() && switches.is_empty() || running)
}

/// A switch between slots that has begun and not ended.
struct Interrupted {
    group: PathComponent,
    journal: PathBuf,
    found: Result<(Switch, Option<Step>), String>,
}

fn switches(store: &Store) -> Result<Vec<Interrupted>, StoreError> {
    let groups = store.slot_groups()?.switching.into_iter();
    let look = |group: PathComponent| {
        let journal = store.switch_journal(&group);
        let found = match slots::journal::read(&journal) {
            Ok(read) => read.map(|(switch, done, _)| Ok((switch, done)))?,
            Err(error) => Err(error.to_string()),
        };
        Some(Interrupted {
            group,
            journal,
            found,
        })
    };
    Ok(groups.filter_map(look).collect())
}

impl Interrupted {
    fn document(&self) -> Value {
        let (group, journal) = (self.group.as_str(), self.journal.display().to_string());
        match &self.found {
            Ok((switch, done)) => json!({
                "deployment_group": group,
                "journal": journal,
                "deployment": switch.deployment,
                "from": switch.from,
                "to": switch.to,
                "done": done,
            }),
            Err(error) => json!({ "deployment_group": group, "journal": journal, "error": error }),
        }
    }

    fn words(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "Deployment group {} ({})",
            self.group,
            self.journal.display()
        )?;
        let (switch, done) = match &self.found {
            Ok(found) => found,
            Err(error) => return writeln!(out, "  {error}"),
        };
        let done = match done {
            None => "before traffic moved to it",
            Some(Step::Moved) => "after traffic moved to it",
            Some(Step::Linked) => "after the link led to it",
            Some(Step::Drained) => "after the old slot had drained",
            Some(Step::Stopping) => "while the old revision stopped",
            Some(Step::Finished) => "after its last step",
        };
        writeln!(
            out,
            "  The switch to the slot {} ended {done}.\n  The agent will finish it when it starts.",
            switch.to
        )
    }
}

fn words(out: &mut impl Write, entries: &[Row], running: bool) -> io::Result<()> {
    if running {
        writeln!(
            out,
            "An Install is in progress on this host now; what follows changes while it goes on."
        )?;
    } else if entries.is_empty() {
        writeln!(
            out,
            "No Install was interrupted; there is nothing left to do."
        )?;
    }
    entries.iter().try_for_each(|entry| entry.words(out))
}

impl Row {
    fn document(&self) -> Value {
        let (group, journal) = (&self.group, self.journal.display().to_string());
        match &self.found {
            Ok(found) => json!({
                "deployment_group": group,
                "journal": journal,
                "deployment": found.deployment,
                "action": found.action,
                "interrupted_while": found.phase,
                "recovery": recovery(found.phase),
                "changes": found.changes,
                "temporary": found.temporary,
            }),
            Err(error) => json!({ "deployment_group": group, "journal": journal, "error": error }),
        }
    }

    fn words(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "Deployment group {} ({})",
            self.group,
            self.journal.display()
        )?;
        let found = match &self.found {
            Ok(found) => found,
            Err(error) => return writeln!(out, "  {error}"),
        };
        let deployment = found
            .deployment
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let made: Vec<_> = found
            .changes
            .iter()
            .filter(|change| change.made != Some(false))
            .collect();
        let action = match found.action {
            Action::Install => "The Install of",
            Action::Restore => "Taking back the Install of",
        };
        match found.phase {
            Phase::Building => writeln!(
                out,
                "  {action} {deployment} ended while new files were being built; no file that anybody uses was changed.\n  \
                 The agent will remove what was built when it starts:"
            )?,
            Phase::Changing => writeln!(
                out,
                "  {action} {deployment} ended after {} of {} changes.\n  \
                 The agent will take them back when it starts, so that everything is as it was before:",
                made.len(),
                found.changes.len()
            )?,
            Phase::Finishing => writeln!(
                out,
                "  {action} {deployment} ended when all {} changes were made; only clearing up was left.\n  \
                 The agent will do that when it starts; everything stays as planned.",
                found.changes.len()
            )?,
        }
        match found.phase {
            Phase::Building => listed(
                out,
                found
                    .temporary
                    .iter()
                    .map(|path| format!("remove {}", path.display())),
            ),
            Phase::Changing => listed(
                out,
                made.into_iter().rev().map(|change| {
                    let perhaps = if change.made.is_none() {
                        "perhaps "
                    } else {
                        ""
                    };
                    format!(
                        "{}, which was {perhaps}{}",
                        change.path.display(),
                        change.kind.done()
                    )
                }),
            ),
            Phase::Finishing => Ok(()),
        }
    }
}

fn recovery(phase: Phase) -> &'static str {
    match phase {
        Phase::Building | Phase::Changing => "roll back",
        Phase::Finishing => "roll forward",
    }
}

fn listed(out: &mut impl Write, lines: impl ExactSizeIterator<Item = String>) -> io::Result<()> {
    let more = lines.len().saturating_sub(LISTED);
    for line in lines.take(LISTED) {
        writeln!(out, "    {}", harmless(&line))?;
    }
    if more > 0 {
        writeln!(out, "    and {more} more, which --json lists")?;
    }
    Ok(())
}
