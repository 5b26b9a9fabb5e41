//! Orders a decision into steps: first everything new is built under temporary names, then names
//! change. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Request;
use super::access::{Access, Context};
use super::decision::{Decision, Planned};
use super::layout::WantedKind;
use super::paths::{PathId, Paths};
use super::records::{self, Instruction, Records, State};
use super::snapshot::{Host, Revision, Unreadable};
use super::stayed::Stay;
use super::step::{Keep, Known, Step, Swap, Takes};
use super::verified::Verified;
use crate::fs::{Known as KnownFolders, temporary_name};

/// The most files of one record.
const TOGETHER: usize = 256;

/// Stands for no unit.
const STAYS: u32 = u32::MAX;

/// The steps of an Install: first the objects that are built and then take their places, then pure
/// changes.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Makes the temporary names of this Install unique.
    token: String,
    pub(super) units: Units,
    /// Folders and files of the last Install that have no successor.
    removals: Vec<PathId>,
    contexts: Vec<Step>,
    /// The records of this Install; they come last.
    pub(super) records: Vec<Record>,
    /// The mode and the owner of a new folder.
    folder_mode: u32,
    user: (u32, u32),
}

/// The planned objects that do not stay in place, grouped into units: a new folder and everything
/// in it is one unit.
#[derive(Debug)]
pub(super) struct Units {
    /// Numbers of planned objects, unit by unit; a folder stands before its contents.
    members: Vec<u32>,
    /// The start of each unit among the members.
    starts: Vec<u32>,
}

/// A record of the Install, which replaces that of the last one.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    pub(super) spare: PathBuf,
    keep: Keep,
    text: Text,
    /// The access of the record that it replaces.
    access: Access,
}

#[derive(Debug)]
enum Text {
    Instructions,
    Cleanup,
    Bytes(Vec<u8>),
}

pub(super) fn schedule(
    decision: &Decision,
    paths: &Paths,
    host: &Host,
    records: &Records,
    request: &Request<'_>,
    token: String,
) -> Result<Schedule, Unreadable> {
    let units = Units::of(&decision.planned, decision, paths);
    let is_top = |path: PathId| {
        paths
            .parent(path)
            .is_none_or(|parent| !decision.goes.contains(parent))
    };
    let removals = decision.removed.iter().copied();
    let removals = removals.filter(|path| is_top(*path) && !decision.places.contains(*path));
    let removals: Vec<PathId> = removals.collect();
    let mut used = units.len() + removals.len();
    let mut record = |path: &Path, text, old| {
        used += 1;
        let readers = host.previous.readers.get(path);
        let access = readers.map(Access::of_record).unwrap_or_default();
        Record::new(path, text, (old, access), &token, used)
    };
    let pointer = Text::Bytes(request.deployment.as_os_str().as_bytes().to_vec());
    let mut all = vec![
        record(
            &records.instructions,
            Text::Instructions,
            host.previous.instructions,
        ),
        record(&records.cleanup, Text::Cleanup, host.previous.cleanup),
        record(&records.pointer, pointer, State::Sound),
    ];
    if let Some(note) = request.note {
        let path = records::resolve(&note.path)?;
        all.push(record(&path, Text::Bytes(note.text.clone()), State::Sound));
    }
    Ok(Schedule {
        units,
        removals,
        contexts: contexts(decision, paths, host),
        records: all,
        token,
        folder_mode: host.folder_mode,
        user: host.user,
    })
}

/// Removes the SELinux rules of the last Install, and adds those of this one.
fn contexts(decision: &Decision, paths: &Paths, host: &Host) -> Vec<Step> {
    let mut rules: BTreeMap<PathBuf, (Option<Context>, Option<Context>)> = BTreeMap::new();
    for (path, context) in host
        .previous
        .rules
        .iter()
        .filter(|(path, _)| host.has_selinux_tools && !decision.carried_rules.contains(path))
    {
        rules.entry(path.clone()).or_default().0 = context.clone();
    }
    for (path, context) in decision.granted.contexts() {
        rules.entry(paths.path(path)).or_default().1 = Some(context.clone());
    }
    let step = |(path, (before, after))| Step::Context {
        path,
        before,
        after,
    };
    rules.into_iter().map(step).collect()
}

impl Units {
    pub(super) fn of(planned: &[Planned], decision: &Decision, paths: &Paths) -> Self {
        let mut unit_of: Vec<u32> = Vec::with_capacity(planned.len());
        let mut sizes: Vec<u32> = Vec::new();
        for object in planned {
            if object.stays {
                unit_of.push(STAYS);
                continue;
            }
            let around = paths
                .parent(object.path)
                .and_then(|parent| decision.places.get(parent))
                .filter(|folder| !planned[**folder as usize].stays);
            let unit = match around {
                Some(folder) => unit_of[*folder as usize],
                None => {
                    sizes.push(0);
                    u32::try_from(sizes.len() - 1).unwrap_or(u32::MAX)
                }
            };
            unit_of.push(unit);
            sizes[unit as usize] += 1;
        }
        let mut starts = Vec::with_capacity(sizes.len());
        let mut sum = 0;
        for size in &sizes {
            starts.push(sum);
            sum += size;
        }
        let mut free = starts.clone();
        let mut members = vec![0; sum as usize];
        let units = (0_u32..).zip(unit_of).filter(|(_, unit)| *unit != STAYS);
        for (number, unit) in units {
            let place = &mut free[unit as usize];
            members[*place as usize] = number;
            *place += 1;
        }
        Self { members, starts }
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The numbers of a unit's planned objects, its top first.
    pub(super) fn members(&self, unit: usize) -> &[u32] {
        let end = self
            .starts
            .get(unit + 1)
            .map_or(self.members.len(), |next| *next as usize);
        &self.members[self.starts[unit] as usize..end]
    }
}

impl Schedule {
    /// The planned object that is the unit, or that contains the rest of it.
    pub(super) fn top<'a>(&self, unit: usize, decision: &'a Decision) -> &'a Planned {
        &decision.planned[self.units.members(unit)[0] as usize]
    }

    /// The temporary name of a unit.
    pub(super) fn staged(&self, unit: usize, decision: &Decision, paths: &Paths) -> PathBuf {
        self.beside(self.top(unit, decision).path, unit + 1, paths)
    }

    /// Returns the existing folders in which names or files change.
    pub(super) fn folders(&self, decision: &Decision, paths: &Paths, host: &Host) -> KnownFolders {
        let tops = (0..self.units.len()).map(|unit| self.top(unit, decision).path);
        let changed = tops.chain(self.removals.iter().copied());
        let changed = changed.chain(decision.adjusted.iter().map(|(path, _)| *path));
        let stays = decision.planned.iter().filter(|planned| planned.stays);
        let changed = changed.chain(stays.map(|planned| planned.path));
        let folders: BTreeSet<PathId> = changed.filter_map(|path| paths.parent(path)).collect();
        folders
            .into_iter()
            .filter_map(|folder| Some((paths.path(folder), host.folder(folder)?)))
            .collect()
    }

    fn beside(&self, path: PathId, number: usize, paths: &Paths) -> PathBuf {
        let folder = paths.parent(path).unwrap_or(PathId::ROOT);
        paths.path(folder).join(temporary_name(&self.token, number))
    }

    /// Every temporary name under which something is built.
    pub(super) fn all_staged(
        &self,
        decision: &Decision,
        paths: &Paths,
    ) -> impl Iterator<Item = PathBuf> {
        let units = (0..self.units.len()).map(|unit| self.staged(unit, decision, paths));
        units.chain(self.records.iter().map(|record| record.spare.clone()))
    }

    /// The visible steps, in order; the records of this Install come last.
    pub(super) fn steps<'a>(
        &'a self,
        decision: &'a Decision,
        revision: &'a Revision,
        paths: &'a Paths,
    ) -> impl Iterator<Item = Cow<'a, Step>> {
        let stays = decision.planned.iter().filter(|planned| planned.stays);
        let folders = stays.filter(|planned| planned.kind == WantedKind::Folder);
        let folders = folders.map(move |planned| Step::StayFolder {
            path: paths.path(planned.path),
            access: decision
                .access(planned)
                .exactly(self.folder_mode, self.user),
        });
        let files = groups(decision, revision, paths).map(Step::Stay);
        let units = (0..self.units.len()).map(move |unit| {
            let top = self.top(unit, decision);
            let takes = if decision.replaces(top) {
                takes(top.path, decision)
            } else {
                Takes::Nothing
            };
            let keep = Keep::ForUndo;
            let (path, spare) = (paths.path(top.path), self.staged(unit, decision, paths));
            Step::Swap(Swap {
                path,
                spare,
                brings: true,
                takes,
                keep,
            })
        });
        let removals = self.removals.iter().enumerate().map(move |(index, path)| {
            let spare = self.beside(*path, self.units.len() + index + 1, paths);
            let (takes, keep) = (takes(*path, decision), Keep::ForUndo);
            Step::Swap(Swap {
                path: paths.path(*path),
                spare,
                brings: false,
                takes,
                keep,
            })
        });
        let adjusted = decision.adjusted.iter().map(move |(path, access)| {
            let access = access.clone();
            Step::Adjust {
                path: paths.path(*path),
                access,
            }
        });
        let records = self.records.iter().map(Record::step);
        let own = folders.chain(files).chain(units);
        let own = own.chain(removals).chain(adjusted).map(Cow::Owned);
        own.chain(self.contexts.iter().map(Cow::Borrowed))
            .chain(records.map(Cow::Owned))
    }
}

/// The files of an Install that stay, in groups.
fn groups<'a>(
    decision: &'a Decision,
    revision: &'a Revision,
    paths: &'a Paths,
) -> impl Iterator<Item = Stay> + 'a {
    let planned = |number: &u32| &decision.planned[*number as usize];
    let together = move |(one, _): &(u32, Verified), (other, _): &(u32, Verified)| {
        let (one, other) = (planned(one), planned(other));
        paths.parent(one.path) == paths.parent(other.path)
            && revision.parent(one.source) == revision.parent(other.source)
            && one.access == other.access
    };
    let runs = decision
        .stays
        .chunk_by(together)
        .flat_map(|group| group.chunks(TOGETHER));
    runs.filter_map(move |group| {
        let first = planned(&group.first()?.0);
        let files = group.iter().map(|(number, verified)| {
            let name = paths.name(planned(number).path);
            (PathBuf::from(name), *verified)
        });
        Some(Stay {
            folder: paths.path(paths.parent(first.path)?),
            source: revision.absolute(revision.parent(first.source)?),
            access: decision.access(first).exactly(0, (0, 0)),
            files: files.collect(),
        })
    })
}

/// The object at a path that is to be taken away, as the plan knows it.
fn takes(path: PathId, decision: &Decision) -> Takes {
    match decision.goes.get(path) {
        Some(true) => Takes::Folder(path),
        Some(false) | None => Takes::File,
    }
}

/// Returns `name` in a folder that is taken away, if the plan takes it away as well.
pub(super) fn known(
    decision: &Decision,
    paths: &Paths,
    folder: PathId,
    name: &OsStr,
) -> Option<Known> {
    let path = paths.find_child(folder, name)?;
    Some(if *decision.goes.get(path)? {
        Known::Folder(path)
    } else {
        Known::File
    })
}

impl Record {
    fn new(
        path: &Path,
        text: Text,
        (old, access): (State, Access),
        token: &str,
        number: usize,
    ) -> Self {
        let (name, keep) = match old {
            State::Missing | State::Sound => (temporary_name(token, number), Keep::ForUndo),
            State::Corrupt => {
                let mut name = path.file_name().unwrap_or_default().to_os_string();
                name.push(format!(".corrupt-{token}"));
                (name, Keep::ForGood)
            }
        };
        Self {
            path: path.to_path_buf(),
            spare: path.with_file_name(name),
            keep,
            text,
            access,
        }
    }

    fn step(&self) -> Step {
        let Self {
            path, spare, keep, ..
        } = self;
        let (path, spare, keep) = (path.clone(), spare.clone(), *keep);
        Step::Swap(Swap {
            path,
            spare,
            brings: true,
            takes: Takes::File,
            keep,
        })
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Writes the contents of the record.
    pub(super) fn write(
        &self,
        writer: &mut impl Write,
        decision: &Decision,
        revision: &Revision,
        paths: &Paths,
    ) -> io::Result<()> {
        match &self.text {
            Text::Instructions => {
                let all = || instructions(decision, revision, paths);
                records::write_instructions(writer, &decision.links, all)
            }
            Text::Cleanup => {
                let carried = decision.carried.iter().rev().cloned();
                let planned = decision.planned.iter();
                let created = carried.chain(planned.map(|planned| paths.path(planned.written)));
                let rules = decision
                    .granted
                    .contexts()
                    .map(|(path, _)| paths.path(path));
                let rules = decision.carried_rules.iter().cloned().chain(rules);
                records::write_cleanup(writer, created, rules)
            }
            Text::Bytes(text) => writer.write_all(text),
        }
    }
}

fn instructions<'a>(
    decision: &'a Decision,
    revision: &'a Revision,
    paths: &'a Paths,
) -> impl Iterator<Item = Instruction> + 'a {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let objects = decision
        .planned
        .iter()
        .map(move |planned| match planned.kind {
            WantedKind::Folder => Instruction::Mkdir {
                directory: text(paths.path(planned.written)),
            },
            WantedKind::File | WantedKind::Link => Instruction::Copy {
                source: text(revision.absolute(planned.source)),
                destination: text(paths.path(planned.written)),
            },
        });
    objects.chain(decision.granted.instructions(paths))
}
