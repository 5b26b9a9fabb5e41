//! The two files that join one Install with the next, in the formats of the official agents:
//! `<group>-install.json`, what was done, and `<group>-cleanup`, what the next Install removes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::access::Context;
use crate::fs::Readers;

/// Where a deployment group's records are; all of them in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// `<group>-install.json`.
    pub instructions: PathBuf,
    /// `<group>-cleanup`.
    pub cleanup: PathBuf,
    /// `<group>_last_successful_install`: the folder of the deployment whose Install last succeeded.
    pub pointer: PathBuf,
    /// `<group>-journal.json`: the Install in progress.
    pub journal: PathBuf,
}

/// Version of what this agent adds to `<group>-install.json`. Official agents ignore it.
const VERSION: u32 = 1;

/// Before the path of an SELinux rule in the cleanup file.
const RULE: &[u8] = b"semanage\0";

/// Characters of a senseless line that are repeated to the operator.
const SHOWN: usize = 60;

/// Longest name and path in bytes (limits.h).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// What the last Install left, as far as it can be read.
#[derive(Debug, Clone, Default)]
pub(super) struct Previous {
    /// In the order created.
    pub(super) created: Vec<PathBuf>,
    /// SELinux rules, and what they said if that is known.
    pub(super) rules: Vec<(PathBuf, Option<Context>)>,
    /// Whether no parent of a path above was a symbolic link when it was written: true of what this agent wrote.
    pub(super) resolved: bool,
    pub(super) instructions: State,
    pub(super) cleanup: State,
    pub(super) warnings: Vec<String>,
    /// Who may read each record.
    pub(super) readers: BTreeMap<PathBuf, Readers>,
}

/// In what state a record is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Missing,
    Sound,
    /// Kept for whoever wants to know, when the next one is written.
    Corrupt,
}

/// The text of `<group>-install.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InstructionFile {
    #[serde(default)]
    version: Option<u32>,
    instructions: Vec<Instruction>,
}

/// One command, as the official agents write it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Instruction {
    Copy { source: String, destination: String },
    Mkdir { directory: String },
    Chmod { mode: String, file: String },
    Chown { owner: Option<String>, group: Option<String>, file: String },
    Setfacl { acl: Vec<String>, file: String },
    Semanage { context: Context, file: String },
}

impl Records {
    /// The same files, without links in their parents.
    pub(super) fn resolve(&self) -> Result<Self, (PathBuf, io::Error)> {
        let resolve = |path: &Path| {
            let real = crate::fs::split(path)
                .and_then(|(parent, name)| Ok(std::fs::canonicalize(parent)?.join(name)));
            real.map_err(|error| (path.to_path_buf(), error))
        };
        Ok(Self {
            instructions: resolve(&self.instructions)?,
            cleanup: resolve(&self.cleanup)?,
            pointer: resolve(&self.pointer)?,
            journal: resolve(&self.journal)?,
        })
    }

    /// Reads both files leniently: a missing file is an empty one, and what makes no sense is a warning.
    pub(super) fn read(&self) -> Result<Previous, (PathBuf, io::Error)> {
        let cleanup = read(&self.cleanup)?;
        let instructions = read(&self.instructions)?;
        let records = [&self.instructions, &self.cleanup, &self.pointer];
        let readers = records.into_iter().map(|path| (path.clone(), Readers::of(path))).collect();
        let mut previous = Previous { readers, ..Previous::default() };
        let mut contexts = BTreeMap::new();
        if let Some(bytes) = instructions {
            match serde_json::from_slice::<InstructionFile>(&bytes) {
                Ok(file) => {
                    previous.instructions = State::Sound;
                    previous.resolved = file.version.is_some();
                    contexts.extend(file.instructions.into_iter().filter_map(
                        |instruction| match instruction {
                            Instruction::Semanage { context, file } => Some((PathBuf::from(file), context)),
                            _ => None,
                        },
                    ));
                }
                Err(error) => previous.corrupt_instructions(&self.instructions, &error),
            }
        }
        if let Some(bytes) = cleanup {
            previous.read_cleanup(&self.cleanup, &bytes, &contexts);
        }
        Ok(previous)
    }

    /// The file or link of the revision that each path was copied from; none when that cannot be read.
    pub(super) fn sources(&self) -> BTreeMap<PathBuf, PathBuf> {
        let text = std::fs::read(&self.instructions).unwrap_or_default();
        let instructions = serde_json::from_slice::<InstructionFile>(&text).map(|file| file.instructions);
        let copies = instructions.into_iter().flatten().filter_map(|instruction| match instruction {
            Instruction::Copy { source, destination } => Some((destination.into(), source.into())),
            _ => None,
        });
        copies.collect()
    }
}

impl Previous {
    fn corrupt_instructions(&mut self, path: &Path, error: &serde_json::Error) {
        self.instructions = State::Corrupt;
        self.warnings.push(format!(
            "{} is not a record of an Install ({error}); it is kept beside its successor, and clean-up goes by the \
             cleanup file alone",
            path.display()
        ));
    }

    fn read_cleanup(&mut self, path: &Path, bytes: &[u8], contexts: &BTreeMap<PathBuf, Context>) {
        self.cleanup = State::Sound;
        // A last line without its end was being written when the agent died.
        let finished = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut senseless = Vec::new();
        for (index, line) in bytes[..finished].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let line = &line[..line.len() - 1];
            let (text, rule) = line.strip_prefix(RULE).map_or((line, false), |path| (path, true));
            let listed = Path::new(OsStr::from_bytes(text));
            if !plain(listed) || text.contains(&0) {
                senseless.push((index + 1, line));
            } else if rule {
                self.rules.push((listed.into(), contexts.get(listed).cloned()));
            } else {
                self.created.push(listed.into());
            }
        }
        if let [(number, line), ..] = senseless[..] {
            self.cleanup = State::Corrupt;
            let shown: String = String::from_utf8_lossy(line).chars().take(SHOWN).collect();
            self.warnings.push(format!(
                "{}: {} of its lines are no absolute paths, the first of them line {number} ({shown:?}); they are \
                 skipped, and the file is kept beside its successor",
                path.display(),
                senseless.len(),
            ));
        }
    }
}

/// Whether `path` is absolute, nothing in it goes up, and a host can have it.
fn plain(path: &Path) -> bool {
    let possible = |part: Component<'_>| part != Component::ParentDir && part.as_os_str().len() <= NAME_MAX;
    path.is_absolute()
        && path.as_os_str().len() < PATH_MAX
        && path.components().all(possible)
        && path.file_name().is_some()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, (PathBuf, io::Error)> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((path.to_path_buf(), error)),
    }
}

/// The text of `<group>-install.json`.
pub(super) fn instruction_text(instructions: Vec<Instruction>) -> Vec<u8> {
    let file = InstructionFile { version: Some(VERSION), instructions };
    // Strings, numbers and lists: there is nothing in it that cannot be written.
    serde_json::to_vec(&file).unwrap_or_default()
}

/// The text of `<group>-cleanup`.
pub(super) fn cleanup_text<'a>(
    created: impl Iterator<Item = &'a Path>,
    rules: impl Iterator<Item = &'a Path>,
) -> Vec<u8> {
    let mut text = Vec::new();
    for path in created {
        text.extend(path.as_os_str().as_bytes());
        text.push(b'\n');
    }
    for path in rules {
        text.extend(RULE);
        text.extend(path.as_os_str().as_bytes());
        text.push(b'\n');
    }
    text
}
