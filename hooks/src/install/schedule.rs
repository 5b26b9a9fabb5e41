//! Orders a decision into steps: first everything new is built under temporary names, then names change. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::access::{Access, Context};
use super::layout::WantedKind;
use super::plan::{Decision, Planned};
use super::records::{self, Instruction, Records, State};
use super::snapshot::{Host, NodeKind, Revision};
use super::step::{Build, Content, Item, Keep, Step, Swap, Takes, What};
use crate::fs::temporary_name;

/// The steps of an Install, in the order of their phases.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Makes the temporary names of this Install its own.
    pub(super) token: String,
    pub(super) build: Vec<Build>,
    /// What others see; the records of this Install come last.
    pub(super) change: Vec<Step>,
}

pub(super) fn schedule(
    decision: &Decision,
    revision: &Revision,
    host: &Host,
    records: &Records,
    deployment: &Path,
    token: String,
) -> Schedule {
    let mut names = Names { token: &token, used: 0 };
    let mut schedule = Schedule { token: String::new(), build: Vec::new(), change: Vec::new() };
    let brought = schedule.objects(decision, host, &mut names);
    for path in tops(&decision.removed).filter(|path| !brought.contains(path.as_path())) {
        let takes = takes(path, &decision.removed, host);
        schedule.change.push(swap(path, names.beside(path), false, takes));
    }
    for (path, access) in &decision.adjusted {
        schedule.change.push(Step::Adjust { path: path.clone(), access: access.clone() });
    }
    schedule.change.extend(contexts(decision, host));
    let text = records::instruction_text(instructions(decision, revision));
    schedule.record(host, &records.instructions, text, host.previous.instructions, &mut names);
    let created = decision.planned.iter().map(|planned| planned.path.as_path());
    let rules = decision.contexts.iter().map(|(path, _)| path.as_path());
    let text = records::cleanup_text(created, rules);
    schedule.record(host, &records.cleanup, text, host.previous.cleanup, &mut names);
    let text = deployment.as_os_str().as_bytes().to_vec();
    schedule.record(host, &records.pointer, text, State::Sound, &mut names);
    schedule.token = token;
    schedule
}

/// Removes the SELinux rules of the last Install, and adds those of this one.
fn contexts(decision: &Decision, host: &Host) -> Vec<Step> {
    let mut rules: BTreeMap<&Path, (Option<Context>, Option<Context>)> = BTreeMap::new();
    for (path, context) in host.previous.rules.iter().filter(|_| host.has_selinux_tools) {
        rules.entry(path).or_default().0 = context.clone();
    }
    for (path, context) in &decision.contexts {
        rules.entry(path).or_default().1 = Some(context.clone());
    }
    let step = |(path, (before, after)): (&Path, _)| Step::Context { path: path.into(), before, after };
    rules.into_iter().map(step).collect()
}

struct Names<'a> {
    token: &'a str,
    used: usize,
}

impl Names<'_> {
    /// A name of our own beside `path`.
    fn beside(&mut self, path: &Path) -> PathBuf {
        self.used += 1;
        path.with_file_name(temporary_name(self.token, self.used))
    }
}

impl Schedule {
    /// Builds and places what is planned, a new folder together with all that is in it; gives the paths placed.
    fn objects<'a>(
        &mut self,
        decision: &'a Decision,
        host: &Host,
        names: &mut Names<'_>,
    ) -> BTreeSet<&'a Path> {
        let folders = decision.planned.iter().filter(|planned| planned.kind == WantedKind::Folder);
        let folders: BTreeSet<&Path> = folders.map(|planned| planned.path.as_path()).collect();
        let mut ordered: Vec<&Planned> = decision.planned.iter().collect();
        ordered.sort_by(|a, b| a.path.cmp(&b.path));
        let mut brought = BTreeSet::new();
        let mut rest = ordered.as_slice();
        while let Some((top, _)) = rest.split_first() {
            let length = match folders.contains(top.path.as_path()) {
                true => rest.partition_point(|planned| planned.path.starts_with(&top.path)),
                false => 1,
            };
            let (unit, after) = rest.split_at(length);
            rest = after;
            brought.insert(top.path.as_path());
            let staged = names.beside(&top.path);
            let items = unit.iter().map(|planned| item(planned, &top.path)).collect();
            let takes = match decision.removed.contains(&top.path) || top.overwrites {
                true => takes(&top.path, &decision.removed, host),
                false => Takes::Nothing,
            };
            self.build.push(Build { staged: staged.clone(), items });
            self.change.push(swap(&top.path, staged, true, takes));
        }
        brought
    }

    fn record(&mut self, host: &Host, path: &Path, text: Vec<u8>, old: State, names: &mut Names<'_>) {
        let (spare, keep) = match old {
            State::Missing | State::Sound => (names.beside(path), Keep::ForUndo),
            State::Corrupt => {
                let mut name = path.file_name().unwrap_or_default().to_os_string();
                name.push(format!(".corrupt-{}", names.token));
                (path.with_file_name(name), Keep::ForGood)
            }
        };
        let access = host.previous.readers.get(path).map(Access::of_record).unwrap_or_default();
        let item = Item { below: PathBuf::new(), what: What::Text(text), access };
        self.build.push(Build { staged: spare.clone(), items: vec![item] });
        self.change.push(Step::Swap(Swap {
            path: path.to_path_buf(),
            spare,
            brings: true,
            takes: Takes::File,
            keep,
        }));
    }
}

fn swap(path: &Path, spare: PathBuf, brings: bool, takes: Takes) -> Step {
    Step::Swap(Swap { path: path.to_path_buf(), spare, brings, takes, keep: Keep::ForUndo })
}

fn item(planned: &Planned, top: &Path) -> Item {
    let source = planned.source.clone();
    Item {
        below: planned.path.strip_prefix(top).unwrap_or(Path::new("")).to_path_buf(),
        what: match &planned.kind {
            WantedKind::Folder => What::Folder,
            WantedKind::File => What::File { source },
            WantedKind::Link { target } => What::Link { source, target: target.clone() },
        },
        access: planned.access.clone(),
    }
}

/// The removed paths that are not inside another one.
fn tops(removed: &BTreeSet<PathBuf>) -> impl Iterator<Item = &PathBuf> {
    removed.iter().filter(|path| path.parent().is_none_or(|parent| !removed.contains(parent)))
}

/// What is at a path that is to be taken away, as far as the plan knows.
fn takes(path: &Path, removed: &BTreeSet<PathBuf>, host: &Host) -> Takes {
    if !is_folder(host, path) {
        return Takes::File;
    }
    let inside = removed.range(path.to_path_buf()..).skip(1).take_while(|other| other.starts_with(path));
    let content = |inner: &PathBuf| Content {
        below: inner.strip_prefix(path).unwrap_or(inner).to_path_buf(),
        folder: is_folder(host, inner),
    };
    Takes::Folder(inside.map(content).collect())
}

fn is_folder(host: &Host, path: &Path) -> bool {
    matches!(host.nodes.get(path).map(|node| &node.kind), Some(NodeKind::Folder { .. }))
}

fn instructions(decision: &Decision, revision: &Revision) -> Vec<Instruction> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let objects = decision.planned.iter().map(|planned| match planned.kind {
        WantedKind::Folder => Instruction::Mkdir { directory: text(&planned.path) },
        WantedKind::File | WantedKind::Link { .. } => Instruction::Copy {
            source: text(&revision.root.join(&planned.source)),
            destination: text(&planned.path),
        },
    });
    objects.chain(decision.permission_instructions.iter().cloned()).collect()
}
