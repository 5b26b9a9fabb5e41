//! Orders a decision into steps: first everything new is built under temporary names, then names change. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::access::{Access, Wish};
use super::layout::WantedKind;
use super::plan::{Decision, Planned};
use super::records::{self, Instruction, Records, State};
use super::snapshot::{Host, NodeKind, Revision};
use super::step::{Content, Item, Step, What};
use crate::fs::temporary_name;

/// The steps of an Install, in the order of their phases.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Nothing that anybody uses changes.
    pub(super) build: Vec<Step>,
    pub(super) change: Vec<Step>,
    /// The records of this Install take the place of the last one's.
    pub(super) record: Vec<Step>,
}

pub(super) fn schedule(
    decision: &Decision,
    revision: &Revision,
    host: &Host,
    records: &Records,
    token: &str,
) -> Schedule {
    let mut names = Names { token, used: 0 };
    let mut schedule = Schedule { build: Vec::new(), change: Vec::new(), record: Vec::new() };
    let brought = schedule.objects(decision, host, &mut names);
    for path in tops(&decision.removed).filter(|path| !brought.contains(path.as_path())) {
        schedule.change.push(remove(path, &decision.removed, host, &mut names));
    }
    for (path, context) in host.previous.rules.iter().filter(|_| host.has_selinux_tools) {
        schedule.change.push(Step::RemoveContext { path: path.clone(), context: context.clone() });
    }
    for (path, access) in &decision.adjusted {
        schedule.change.push(Step::Adjust { path: path.clone(), access: access.clone() });
    }
    for (path, context) in &decision.contexts {
        schedule.change.push(Step::AddContext { path: path.clone(), context: context.clone() });
    }
    let text = records::instruction_text(instructions(decision, revision));
    schedule.record(&records.instructions, text, host.previous.instructions, &mut names);
    let created = decision.planned.iter().map(|planned| planned.path.as_path());
    let rules = decision.contexts.iter().map(|(path, _)| path.as_path());
    let text = records::cleanup_text(created, rules);
    schedule.record(&records.cleanup, text, host.previous.cleanup, &mut names);
    schedule
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
            self.build.push(Step::Build { staged: staged.clone(), items });
            let path = top.path.clone();
            let stood_there = decision.removed.contains(&path) || top.overwrites;
            let folder_involved = top.kind == WantedKind::Folder
                || matches!(host.nodes.get(&path).map(|node| &node.kind), Some(NodeKind::Folder { .. }));
            if stood_there && !folder_involved {
                let aside = names.beside(&path);
                self.change.push(Step::Replace { path, staged, aside, keep: false });
                continue;
            }
            if stood_there {
                self.change.push(remove(&path, &decision.removed, host, names));
            }
            self.change.push(Step::Place { path, staged });
        }
        brought
    }

    fn record(&mut self, path: &Path, text: Vec<u8>, old: State, names: &mut Names<'_>) {
        let path = path.to_path_buf();
        let staged = names.beside(&path);
        let access = Access { mode: Some(Wish::asked(0o600)), ..Default::default() };
        let item = Item { below: PathBuf::new(), what: What::Text(text), access };
        self.build.push(Step::Build { staged: staged.clone(), items: vec![item] });
        self.record.push(match old {
            State::Missing => Step::Place { path, staged },
            State::Sound => {
                let aside = names.beside(&path);
                Step::Replace { path, staged, aside, keep: false }
            }
            State::Corrupt => {
                let mut name = path.file_name().unwrap_or_default().to_os_string();
                name.push(format!(".corrupt-{}", names.token));
                let aside = path.with_file_name(name);
                Step::Replace { path, staged, aside, keep: true }
            }
        });
    }
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

fn remove(path: &Path, removed: &BTreeSet<PathBuf>, host: &Host, names: &mut Names<'_>) -> Step {
    let inside = removed.range(path.to_path_buf()..).skip(1).take_while(|other| other.starts_with(path));
    let mut contents: Vec<Content> = inside
        .map(|inner| Content {
            below: inner.strip_prefix(path).unwrap_or(inner).to_path_buf(),
            folder: is_folder(host, inner),
        })
        .collect();
    contents.reverse();
    Step::Remove {
        path: path.to_path_buf(),
        aside: names.beside(path),
        contents,
        folder: is_folder(host, path),
    }
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
