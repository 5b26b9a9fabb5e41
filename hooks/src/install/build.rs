//! Builds the new objects under temporary names, on several threads. Nothing that is in use
//! changes.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::access::{Access, times};
use super::decision::Planned;
use super::layout::WantedKind;
use super::schedule::Record;
use super::transaction::Work as _;
use super::{InstallPlan, StepError, parallel};
use crate::fs::{Handles, WORTH_WRITING_BACK, begin_writeback};

/// One object of a unit.
#[derive(Debug, Clone, Copy)]
struct Piece {
    unit: u32,
    number: u32,
}

struct Builder<'a> {
    plan: &'a InstallPlan,
    /// The temporary names of units that have more than one object.
    staged: HashMap<u32, PathBuf>,
}

/// Builds everything; returns the folders that got new names, and those of files that stay: what
/// somebody else wrote to them may not be on the disk yet.
pub(super) fn build(plan: &InstallPlan) -> Result<BTreeSet<PathBuf>, StepError> {
    let InstallPlan {
        decision,
        schedule,
        paths,
        ..
    } = plan;
    let mut builder = Builder {
        plan,
        staged: HashMap::new(),
    };
    let mut touched = BTreeSet::new();
    let (mut files, mut granted) = (Vec::new(), Vec::new());
    let mut handles = plan.handles();
    for (unit, index) in (0_u32..).zip(0..schedule.units.len()) {
        let members = schedule.units.members(index);
        let staged = schedule.staged(index, decision, paths);
        touched.extend(staged.parent().map(Path::to_path_buf));
        if members.len() > 1 {
            builder.staged.insert(unit, staged);
        }
        for number in members.iter().copied() {
            let piece = Piece { unit, number };
            if builder.planned(piece).kind != WantedKind::Folder {
                files.push(piece);
                continue;
            }
            builder.build(piece, &mut handles)?;
            if *decision.access(builder.planned(piece)) != Access::default() {
                granted.push(piece);
            }
        }
    }
    parallel::each(
        &files,
        || plan.handles(),
        |piece, handles| builder.build(*piece, handles),
    )?;
    // Last and from the inside out: a mode may forbid work that is still to be done below.
    for piece in granted.into_iter().rev() {
        let path = builder.path(piece);
        let access = decision.access(builder.planned(piece));
        let granted = handles
            .parent(&path)
            .and_then(|(parent, name)| access.apply(parent.folder(name)?));
        granted.map_err(StepError::at("set access of", &path))?;
    }
    let staying = decision.stays.iter();
    let staying: BTreeSet<_> = staying
        .filter_map(|(number, _)| paths.parent(decision.planned[*number as usize].path))
        .collect();
    touched.extend(staying.into_iter().map(|folder| paths.path(folder)));
    for record in &schedule.records {
        builder
            .record(record, &mut handles)
            .map_err(StepError::at("write", &record.spare))?;
        touched.extend(record.spare.parent().map(Path::to_path_buf));
    }
    Ok(touched)
}

impl Builder<'_> {
    fn planned(&self, piece: Piece) -> &Planned {
        &self.plan.decision.planned[piece.number as usize]
    }

    /// The temporary path of an object.
    fn path(&self, piece: Piece) -> PathBuf {
        let InstallPlan {
            decision,
            schedule,
            paths,
            ..
        } = self.plan;
        match self.staged.get(&piece.unit) {
            Some(staged) => {
                let top = schedule.top(piece.unit as usize, decision);
                paths.path_from(self.planned(piece).path, top.path, staged)
            }
            None => schedule.staged(piece.unit as usize, decision, paths),
        }
    }

    fn build(&self, piece: Piece, handles: &mut Handles) -> Result<(), StepError> {
        let path = self.path(piece);
        let planned = self.planned(piece);
        let action = match planned.kind {
            WantedKind::Folder => "create the folder",
            WantedKind::File => "copy to",
            WantedKind::Link => "create the link",
        };
        self.act(planned, &path, handles)
            .map_err(StepError::at(action, &path))
    }

    fn act(&self, planned: &Planned, path: &Path, handles: &mut Handles) -> io::Result<()> {
        let InstallPlan {
            decision, revision, ..
        } = self.plan;
        let (folder, name) = handles.parent(path)?;
        let access = decision.access(planned);
        match planned.kind {
            WantedKind::Folder => folder.create_folder(name),
            WantedKind::File => {
                let source = revision.absolute(planned.source);
                let (from, source) = handles.parent(&source)?;
                let mut from = from.file(source)?;
                let stat = rustix::fs::fstat(&from)?;
                let mut file = folder.create_file(name)?;
                // This uses copy_file_range, and so a reflink where the file system has them.
                let length = io::copy(&mut from, &mut file)?;
                if length >= WORTH_WRITING_BACK {
                    begin_writeback(&file);
                }
                access.apply(&file)?;
                Ok(rustix::fs::futimens(&file, &times(&stat))?)
            }
            WantedKind::Link => {
                let source = revision.absolute(planned.source);
                let (from, source) = handles.parent(&source)?;
                let stat = from.stat(source)?.ok_or(Errno::NOENT)?;
                folder.create_link(name, revision.target(planned.source))?;
                access.apply_to_link(&folder, name)?;
                Ok(rustix::fs::utimensat(
                    &folder,
                    name,
                    &times(&stat),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?)
            }
        }
    }

    fn record(&self, record: &Record, handles: &mut Handles) -> io::Result<()> {
        let InstallPlan {
            decision,
            revision,
            paths,
            ..
        } = self.plan;
        let (folder, name) = handles.parent(&record.spare)?;
        let file = folder.create_file(name)?;
        let mut writer = BufWriter::with_capacity(64 * 1024, &file);
        record.write(&mut writer, decision, revision, paths)?;
        writer.flush()?;
        record.access().apply(&file)
    }
}
