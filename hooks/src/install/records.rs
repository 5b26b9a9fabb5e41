//! The two files that connect one Install with the next, in the formats of the official agents:
//! `<group>-install.json` records what was done, `<group>-cleanup` lists what the next Install
//! removes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::access::Context;
use super::paths::{PathId, Paths};
use super::step;
use crate::appspec::MAX_PATH_BYTES;
use crate::fs::Readers;

/// The paths of a deployment group's records, all in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// `<group>-install.json`.
    pub instructions: PathBuf,
    /// `<group>-cleanup`.
    pub cleanup: PathBuf,
    /// `<group>_last_successful_install`: the folder of the deployment whose Install last
    /// succeeded.
    pub pointer: PathBuf,
    /// `<group>-journal.json`: the Install in progress.
    pub journal: PathBuf,
}

/// The version of this agent's additions to `<group>-install.json`, which official agents ignore.
/// Version 1 had paths without links in their parents, where the official agents write them as the
/// AppSpec does.
const VERSION: u32 = 2;

/// The prefix of an SELinux rule's path in the cleanup file.
const RULE: &[u8] = b"semanage\0";

/// The number of characters of a malformed line that a message quotes.
const SHOWN: usize = 60;

/// The objects of the last Install, as far as its records can be read.
#[derive(Debug, Clone, Default)]
pub(super) struct Previous {
    /// In the order of creation, as records write them.
    pub(super) created: Vec<PathId>,
    /// SELinux rules, with their contents if known.
    pub(super) rules: Vec<(PathBuf, Option<Context>)>,
    /// Those folders above that were symbolic links, and their targets; `None` if unknown.
    pub(super) links: Option<BTreeMap<PathBuf, PathBuf>>,
    pub(super) instructions: State,
    pub(super) cleanup: State,
    pub(super) warnings: Vec<String>,
    /// The readers of each record.
    pub(super) readers: BTreeMap<PathBuf, Readers>,
}

/// The state of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Missing,
    Sound,
    /// It is kept for inspection when the next one is written.
    Corrupt,
}

/// The part of `<group>-install.json` that the next Install needs.
#[derive(Debug, Deserialize)]
struct InstructionFile {
    #[serde(default)]
    version: Option<u32>,
    #[serde(default)]
    links: Vec<Link>,
    #[serde(rename = "instructions", deserialize_with = "contexts")]
    contexts: BTreeMap<PathBuf, Context>,
}

/// A folder that is a symbolic link in the AppSpec's paths, and its target at that time.
#[derive(Debug, Serialize, Deserialize)]
struct Link {
    #[serde(with = "step::path")]
    written: PathBuf,
    #[serde(with = "step::path")]
    real: PathBuf,
}

/// One command, in the form of the official agents.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Instruction {
    Copy {
        source: String,
        destination: String,
    },
    Mkdir {
        directory: String,
    },
    Chmod {
        mode: String,
        file: String,
    },
    Chown {
        owner: Option<String>,
        group: Option<String>,
        file: String,
    },
    Setfacl {
        acl: Vec<String>,
        file: String,
    },
    Semanage {
        context: Context,
        file: String,
    },
}

impl Records {
    /// The same files, without links in their parents.
    pub(super) fn resolve(&self) -> Result<Self, (PathBuf, io::Error)> {
        Ok(Self {
            instructions: resolve(&self.instructions)?,
            cleanup: resolve(&self.cleanup)?,
            pointer: resolve(&self.pointer)?,
            journal: resolve(&self.journal)?,
        })
    }

    /// Reads both files leniently: a missing file counts as empty, and a malformed line is a
    /// warning.
    pub(super) fn read(&self, paths: &mut Paths) -> Result<Previous, (PathBuf, io::Error)> {
        let records = [&self.instructions, &self.cleanup, &self.pointer];
        let readers = records
            .into_iter()
            .map(|path| (path.clone(), Readers::of(path)))
            .collect();
        let mut previous = Previous {
            readers,
            ..Previous::default()
        };
        let mut contexts = BTreeMap::new();
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| (path, error)
        };
        if let Some(reader) = open(&self.instructions).map_err(failed(&self.instructions))? {
            match serde_json::from_reader::<_, InstructionFile>(reader) {
                Ok(file) => {
                    previous.instructions = State::Sound;
                    let links = || {
                        file.links
                            .into_iter()
                            .map(|link| (link.written, link.real))
                            .collect()
                    };
                    previous.links = file.version.map(|_| links());
                    contexts = file.contexts;
                }
                Err(error) if error.is_io() => {
                    return Err(failed(&self.instructions)(error.into()));
                }
                Err(error) => previous.corrupt_instructions(&self.instructions, &error),
            }
        }
        if let Some(reader) = open(&self.cleanup).map_err(failed(&self.cleanup))? {
            let read = previous.read_cleanup(&self.cleanup, reader, &contexts, paths);
            read.map_err(failed(&self.cleanup))?;
        }
        Ok(previous)
    }

    /// Returns, for each path, the file or link of the revision that it was copied from; empty if
    /// that cannot be read.
    pub(super) fn sources(&self, previous: &Previous) -> BTreeMap<PathBuf, PathBuf> {
        #[derive(Deserialize)]
        struct Instructions {
            instructions: Vec<Instruction>,
        }
        let text = std::fs::read(&self.instructions).unwrap_or_default();
        let instructions =
            serde_json::from_slice::<Instructions>(&text).map(|file| file.instructions);
        let copies =
            instructions
                .into_iter()
                .flatten()
                .filter_map(|instruction| match instruction {
                    Instruction::Copy {
                        source,
                        destination,
                    } => Some((previous.real(Path::new(&destination)), source.into())),
                    _ => None,
                });
        copies.collect()
    }
}

impl Previous {
    /// Returns everything that was created, without links in its parents.
    pub(super) fn created(&self, paths: &Paths) -> BTreeSet<PathBuf> {
        self.created
            .iter()
            .map(|path| self.real(&paths.path(*path)))
            .collect()
    }

    /// The place of a recorded path at the time when it was recorded.
    fn real(&self, written: &Path) -> PathBuf {
        let links = self.links.iter().filter(|links| !links.is_empty());
        let link = links.flat_map(|links| {
            written
                .ancestors()
                .skip(1)
                .find_map(|around| Some((around, links.get(around)?)))
        });
        let mut real =
            link.filter_map(|(around, real)| Some(real.join(written.strip_prefix(around).ok()?)));
        real.next().unwrap_or_else(|| written.to_path_buf())
    }

    fn corrupt_instructions(&mut self, path: &Path, error: &serde_json::Error) {
        self.instructions = State::Corrupt;
        self.warnings.push(format!(
            "{} is not a record of an Install ({error}); it is kept beside its successor, and clean-up goes by the \
             cleanup file alone",
            path.display()
        ));
    }

    fn read_cleanup(
        &mut self,
        path: &Path,
        mut reader: impl BufRead,
        contexts: &BTreeMap<PathBuf, Context>,
        paths: &mut Paths,
    ) -> io::Result<()> {
        self.cleanup = State::Sound;
        let mut senseless = 0_usize;
        let mut first = None;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            // A last line without an end was being written when the agent died.
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            let (text, rule) = line
                .strip_prefix(RULE)
                .map_or((line, false), |path| (path, true));
            let listed = Path::new(OsStr::from_bytes(text));
            if !plain(listed) || text.contains(&0) {
                senseless += 1;
                let shown = || {
                    String::from_utf8_lossy(line)
                        .chars()
                        .take(SHOWN)
                        .collect::<String>()
                };
                first.get_or_insert_with(|| (number, shown()));
            } else if rule {
                self.rules
                    .push((listed.into(), contexts.get(listed).cloned()));
            } else {
                self.created.push(paths.add(listed));
            }
        }
        if let Some((number, shown)) = first {
            self.cleanup = State::Corrupt;
            self.warnings.push(format!(
                "{}: {senseless} of its lines are no absolute paths, the first of them line {number} ({shown:?}); they are \
                 skipped, and the file is kept beside its successor",
                path.display(),
            ));
        }
        Ok(())
    }
}

/// Returns the same file, without links in its parents.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, (PathBuf, io::Error)> {
    let real = crate::fs::split(path)
        .and_then(|(parent, name)| Ok(std::fs::canonicalize(parent)?.join(name)));
    real.map_err(|error| (path.to_path_buf(), error))
}

/// Whether `path` is absolute, free of `..`, and possible on a host.
fn plain(path: &Path) -> bool {
    const NAME_MAX: usize = 255;
    let possible =
        |part: Component<'_>| part != Component::ParentDir && part.as_os_str().len() <= NAME_MAX;
    path.is_absolute()
        && path.as_os_str().len() <= MAX_PATH_BYTES
        && path.components().all(possible)
        && path.file_name().is_some()
}

fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::with_capacity(64 * 1024, file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the SELinux rules among the instructions.
fn contexts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<PathBuf, Context>, D::Error> {
    struct Instructions;

    impl<'de> Visitor<'de> for Instructions {
        type Value = BTreeMap<PathBuf, Context>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of instructions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut contexts = BTreeMap::new();
            while let Some(instruction) = all.next_element::<Instruction>()? {
                if let Instruction::Semanage { context, file } = instruction {
                    contexts.insert(PathBuf::from(file), context);
                }
            }
            Ok(contexts)
        }
    }
    deserializer.deserialize_seq(Instructions)
}

/// Writes `<group>-install.json`.
pub(super) fn write_instructions<I: Iterator<Item = Instruction>>(
    writer: &mut impl Write,
    links: &BTreeMap<PathBuf, PathBuf>,
    instructions: impl Fn() -> I,
) -> io::Result<()> {
    struct Each<F>(F);

    impl<I: Iterator<Item = Instruction>, F: Fn() -> I> Serialize for Each<F> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((self.0)())
        }
    }

    #[derive(Serialize)]
    struct Written<E> {
        version: u32,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        links: Vec<Link>,
        instructions: E,
    }
    let link = |(written, real): (&PathBuf, &PathBuf)| Link {
        written: written.clone(),
        real: real.clone(),
    };
    let links = links.iter().map(link).collect();
    let written = Written {
        version: VERSION,
        links,
        instructions: Each(instructions),
    };
    Ok(serde_json::to_writer(writer, &written)?)
}

/// Writes `<group>-cleanup`.
pub(super) fn write_cleanup(
    writer: &mut impl Write,
    created: impl Iterator<Item = PathBuf>,
    rules: impl Iterator<Item = PathBuf>,
) -> io::Result<()> {
    for path in created {
        writer.write_all(path.as_os_str().as_bytes())?;
        writer.write_all(b"\n")?;
    }
    for path in rules {
        writer.write_all(RULE)?;
        writer.write_all(path.as_os_str().as_bytes())?;
        writer.write_all(b"\n")?;
    }
    Ok(())
}

/// Returns the deployment groups, other than that of `own`, whose Installs created the paths of
/// `wanted`. A group's name is the file name of its records without the ending.
pub(super) fn installed_by(own: &Records, wanted: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let entries = own
        .cleanup
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok());
    for entry in entries.into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(group) = name.strip_suffix("-cleanup") else {
            continue;
        };
        let folder = entry.path();
        let Some(folder) = folder.parent().filter(|_| entry.path() != own.cleanup) else {
            continue;
        };
        let records = Records {
            instructions: folder.join(format!("{group}-install.json")),
            cleanup: entry.path(),
            ..own.clone()
        };
        let mut paths = Paths::absolute();
        // Other content of another group's records does not matter.
        let Ok(previous) = records.read(&mut paths) else {
            continue;
        };
        let created = previous.created.iter().map(|path| paths.path(*path));
        for path in created
            .flat_map(|path| [previous.real(&path), path])
            .filter(|path| wanted.contains(path))
        {
            found.entry(path).or_insert_with(|| group.to_owned());
        }
    }
    found
}
