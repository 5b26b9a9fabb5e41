//! Merges all logs of a host into one, in order of time.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::cli::logs::parse::{Kind, Parser, SCRIPT_LOG, deployments_entry};
use crate::cli::logs::series::{Files, Problem, Series};
use crate::config::Settings;
use crate::deployment_root::Store;
use crate::telemetry::LogName;
use crate::telemetry::record::Record;

/// The records that are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) agent: bool,
    pub(super) scripts: bool,
    pub(super) deployment: Option<String>,
    pub(super) since: Option<SystemTime>,
}

/// The logs that are read.
#[derive(Debug)]
pub(super) struct Merge {
    wanted: Wanted,
    store: Store,
    sources: Vec<Source>,
    /// The deployments whose output is in one of the sources.
    known: BTreeSet<String>,
    /// Whether there is a log for the output of future deployments.
    one_for_all: bool,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Source {
    series: Series,
    parser: Parser,
    next: Option<Record>,
}

impl Merge {
    pub(super) fn new(settings: &Settings, wanted: Wanted) -> Self {
        let store = Store::new(&settings.root_dir, &settings.ongoing_deployment_tracking);
        let mut merge = Self {
            wanted,
            store,
            sources: Vec::new(),
            known: BTreeSet::new(),
            one_for_all: settings.enable_deployments_log,
            problems: Vec::new(),
        };
        if merge.wanted.agent {
            let name = LogName::new(&settings.log_dir, &settings.program_name);
            merge.add(Files::Agent(name), Kind::Agent);
        }
        if merge.wanted.scripts {
            let log = Files::Numbered(merge.store.deployments_log());
            merge.known = deployments(&log);
            merge.add(log, Kind::Deployments);
            merge.add_scripts_logs();
        }
        merge
    }

    /// Returns the oldest record that was not returned yet. Without `unfinished`, a last line
    /// counts only once it is terminated.
    pub(super) fn next(&mut self, unfinished: bool) -> Option<Record> {
        loop {
            self.sources
                .iter_mut()
                .for_each(|source| source.fill(unfinished));
            let oldest = self
                .sources
                .iter_mut()
                .filter(|source| source.next.is_some())
                .min_by_key(|source| {
                    source
                        .next
                        .as_ref()
                        .map(|record| (record.time, rank(record)))
                })?;
            match oldest.next.take() {
                Some(record) if self.wanted.is(&record) => return Some(record),
                _ => {}
            }
        }
    }

    /// Adds deployments that have begun in the meantime and have only a log of their own.
    pub(super) fn look_again(&mut self) {
        if self.wanted.scripts && !self.one_for_all {
            self.add_scripts_logs();
        }
    }

    /// Returns the files that could not be read so far.
    pub(super) fn problems(&mut self) -> Vec<Problem> {
        let mut problems = std::mem::take(&mut self.problems);
        problems.extend(
            self.sources
                .iter_mut()
                .flat_map(|source| source.series.problems()),
        );
        problems
    }

    fn add(&mut self, files: Files, kind: Kind) {
        let series = Series::new(files, self.wanted.since);
        self.sources.push(Source {
            series,
            parser: Parser::new(kind),
            next: None,
        });
    }

    /// Adds the script logs of deployments that no other source covers.
    fn add_scripts_logs(&mut self) {
        for (deployment_id, path) in self.store.scripts_logs().unwrap_or_default() {
            let asked_for = self
                .wanted
                .deployment
                .as_ref()
                .is_none_or(|wanted| *wanted == deployment_id);
            if asked_for && self.known.insert(deployment_id.clone()) {
                self.add(Files::Single(path), Kind::Scripts { deployment_id });
            }
        }
    }
}

/// The rank of a record among those of the same time: a record with a duration comes last, after
/// everything that happened in it.
fn rank(record: &Record) -> u8 {
    match record.fields.get("duration_ms") {
        _ if record.target == SCRIPT_LOG => 1,
        None => 0,
        Some(_) => 2,
    }
}

impl Wanted {
    fn is(&self, record: &Record) -> bool {
        let in_time = self.since.is_none_or(|since| record.time >= since);
        let of_deployment = |wanted: &String| match record.fields.text("deployment_id") {
            Some(id) => id == wanted,
            None => record.message.contains(wanted.as_str()),
        };
        in_time && self.deployment.as_ref().is_none_or(of_deployment)
    }
}

impl Source {
    fn fill(&mut self, unfinished: bool) {
        if self.next.is_none() {
            let line = self.series.next();
            let line = if unfinished {
                line.or_else(|| self.series.rest())
            } else {
                line
            };
            self.next = line.map(|line| self.parser.line(&line));
        }
    }
}

/// The deployments whose output is in the log of all deployments.
fn deployments(log: &Files) -> BTreeSet<String> {
    let mut series = Series::new(log.clone(), None);
    let mut found = BTreeSet::new();
    while let Some(line) = series.next() {
        let line = String::from_utf8_lossy(&line);
        if let Some((_, deployment_id, _)) = deployments_entry(&line)
            && !found.contains(deployment_id)
        {
            found.insert(deployment_id.to_owned());
        }
    }
    found
}
