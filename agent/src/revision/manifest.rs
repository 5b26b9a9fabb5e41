//! A manifest of an archive's contents when it was unpacked, so that a later deployment can tell
//! whether it is unchanged.
//!
//! The file begins with a header that names the version ([`HEADERS`]). One record per path follows,
//! each terminated by NUL: `file MODE UID:GID SIZE DIGEST PATH`, `folder MODE UID:GID - - PATH` or
//! `link - UID:GID SIZE DIGEST PATH`, where a link's digest is that of its target.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::vec;

use codedeploy_hooks::appspec::MAX_FOLDERS;
use codedeploy_hooks::custody::{Access, Deployed};
use codedeploy_hooks::install::Tell;
use rustix::fs::{AtFlags, CWD, FileType, Mode};

use super::copy::names;
use super::copy::{FOLDER, READ};
use super::custody;
use super::digest::{Algorithm, Digests};
use crate::bounded_read;

/// Identify the file and its version, which decides about the digests. The last one is written.
const HEADERS: [(&[u8], Algorithm); 2] = [
    (b"codedeploy-agent archive manifest 1\0", Algorithm::Sha256),
    (b"codedeploy-agent archive manifest 2\0", Algorithm::Blake3),
];
const HEADER: &[u8] = HEADERS[1].0;
const ALGORITHM: Algorithm = HEADERS[1].1;
/// The longest record, in bytes: a path and the fields before it.
const MAX_RECORD: u64 = 8192;
const BUFFER: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot examine {}", path.display())]
    Examine { path: PathBuf, source: io::Error },
    #[error("cannot write the manifest {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the manifest {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a manifest of this version", path.display())]
    NotAManifest { path: PathBuf },
    #[error("{} is not as it was unpacked", path.display())]
    Changed { path: PathBuf },
    #[error("{} was not there when the archive was unpacked", path.display())]
    Added { path: PathBuf },
    #[error("{} is more than {MAX_FOLDERS} folders deep, which no revision may be", path.display())]
    TooDeep { path: PathBuf },
    #[error("cannot give {} to root until it is installed", path.display())]
    Hold { path: PathBuf, source: io::Error },
    #[error("cannot copy the manifest {}", path.display())]
    Copy { path: PathBuf, source: io::Error },
    #[error("{} is gone", path.display())]
    Gone { path: PathBuf },
}

/// One path of an archive.
#[derive(Debug, PartialEq, Eq)]
struct Recorded {
    kind: Kind,
    /// A link has no mode.
    mode: Option<u32>,
    uid: u32,
    gid: u32,
    /// Size and digest, in the form of the record.
    content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Link,
}

impl Kind {
    const ALL: [Self; 3] = [Self::File, Self::Folder, Self::Link];

    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Link => "link",
        }
    }
}

impl Recorded {
    /// The owner and mode of a file or folder.
    fn access(&self) -> Option<Access> {
        self.mode.map(|mode| Access {
            uid: self.uid,
            gid: self.gid,
            mode,
        })
    }

    /// Whether the path is as recorded, with the bundle's access or with that of root's custody.
    /// Added execute permission does not count: scripts are made executable before they run.
    fn agrees(&self, found: &Self) -> bool {
        let same_access = |expected: Access, found: Access| {
            let executable = Access {
                mode: expected.mode | 0o111,
                ..expected
            };
            found == expected || (self.kind == Kind::File && found == executable)
        };
        let access = match (self.access(), found.access()) {
            (Some(expected), Some(found)) => {
                same_access(expected, found) || same_access(expected.held(), found)
            }
            _ => (self.uid, self.gid) == (found.uid, found.gid),
        };
        access && (self.kind, &self.content) == (found.kind, &found.content)
    }
}

/// Writes the manifest of `archive`. Blocks, and reads every file whose digest is not `known`.
pub fn write(archive: &Path, manifest: &Path, known: &Digests) -> Result<(), ManifestError> {
    let failed = |source| ManifestError::Write {
        path: manifest.to_owned(),
        source,
    };
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(manifest);
    let mut file = BufWriter::new(file.map_err(failed)?);
    file.write_all(HEADER).map_err(failed)?;
    examine(archive, ALGORITHM, known, &mut |path, entry| {
        let mode = entry
            .mode
            .map_or_else(|| "-".into(), |mode| format!("{mode:04o}"));
        let Recorded {
            kind,
            uid,
            gid,
            content,
            ..
        } = entry;
        write!(file, "{} {mode} {uid}:{gid} {content} ", kind.name())
            .and_then(|()| file.write_all(path.as_os_str().as_bytes()))
            .and_then(|()| file.write_all(b"\0"))
            .map_err(failed)
    })?;
    file.into_inner()
        .map_err(|error| failed(error.into_error()))?
        .sync_all()
        .map_err(failed)
}

/// Copies an archive's manifest for a copy of the archive.
pub fn copy(from: &Path, to: &Path) -> Result<(), ManifestError> {
    let failed = |source| ManifestError::Copy {
        path: from.to_owned(),
        source,
    };
    let mut manifest = bounded_read::open(from).map_err(failed)?;
    let copy = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to);
    let mut copy = copy.map_err(failed)?;
    io::copy(&mut manifest, &mut copy)
        .and_then(|_| copy.sync_all())
        .map_err(failed)
}

/// Checks that `archive` matches the manifest. Blocks, and reads every file.
pub fn verify(archive: &Path, manifest: &Path) -> Result<(), ManifestError> {
    let mut expected = BTreeMap::new();
    let algorithm = read(manifest, &mut |path, entry| {
        expected.insert(path, entry);
    })?;
    examine(
        archive,
        algorithm,
        &Digests::default(),
        &mut |path, entry| {
            let before = expected.remove(&path).ok_or_else(|| ManifestError::Added {
                path: archive.join(&path),
            })?;
            if !before.agrees(&entry) {
                return Err(ManifestError::Changed {
                    path: archive.join(path),
                });
            }
            Ok(())
        },
    )?;
    match expected.into_keys().next() {
        Some(path) => Err(ManifestError::Gone {
            path: archive.join(path),
        }),
        None => Ok(()),
    }
}

/// Gives `archive`, which nobody else can reach yet, to root: no owner in the bundle can change its
/// contents. Does nothing for other users than root. Blocks.
pub fn hold(archive: &Path, manifest: &Path) -> Result<(), ManifestError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let failed = |path: PathBuf| move |source| ManifestError::Hold { path, source };
    let root = rustix::fs::openat(CWD, archive, FOLDER, Mode::empty())
        .map_err(|errno| failed(archive.to_owned())(errno.into()))?;
    let mut result = Ok(());
    read(manifest, &mut |path, entry| {
        if let Some(given) = entry.access().filter(|_| result.is_ok()) {
            result = custody::hold(&root, &path, given).map_err(failed(archive.join(&path)));
        }
    })?;
    result
}

/// Reports the access that the bundle gave to every file and folder.
pub fn given(manifest: &Path, tell: Tell<'_>) -> Result<(), ManifestError> {
    read(manifest, &mut |path, entry| {
        if let Some(access) = entry.access() {
            tell(&path, access);
        }
    })
    .map(drop)
}

/// Returns the digests that the files at `paths` below the archive had when it was unpacked. `None`
/// if there is no manifest, because another agent unpacked the archive.
pub fn deployed(
    manifest: &Path,
    paths: &BTreeSet<PathBuf>,
) -> Result<Option<Deployed>, ManifestError> {
    let mut digests = BTreeMap::new();
    let told = read(manifest, &mut |path, entry| {
        if entry.kind == Kind::File && paths.contains(&path) {
            let digest = entry.content.rsplit(' ').next().unwrap_or_default();
            digests.insert(path, digest.to_owned());
        }
    });
    match told {
        Err(ManifestError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        told => Ok(Some(Deployed {
            digests,
            digest: told?.of_file(),
        })),
    }
}

/// Reports every record of the manifest, in order; returns the algorithm of its digests.
fn read(
    manifest: &Path,
    tell: &mut dyn FnMut(PathBuf, Recorded),
) -> Result<Algorithm, ManifestError> {
    let failed = |source| ManifestError::Read {
        path: manifest.to_owned(),
        source,
    };
    let other = || ManifestError::NotAManifest {
        path: manifest.to_owned(),
    };
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(manifest);
    let file = file.map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(other());
    }
    let mut file = BufReader::new(file);
    let mut record = Vec::new();
    let mut next = |record: &mut Vec<u8>| {
        record.clear();
        (&mut file)
            .take(MAX_RECORD)
            .read_until(0, record)
            .map_err(failed)
    };
    next(&mut record)?;
    let version = HEADERS.iter().find(|(header, _)| record == *header);
    let (_, algorithm) = version.ok_or_else(other)?;
    while next(&mut record)? > 0 {
        let (path, entry) = parse(&record).ok_or_else(other)?;
        tell(path, entry);
    }
    Ok(*algorithm)
}

fn parse(record: &[u8]) -> Option<(PathBuf, Recorded)> {
    let mut fields = record.strip_suffix(b"\0")?.splitn(6, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (kind, mode, owner, size, digest) = (text()?, text()?, text()?, text()?, text()?);
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
    let mode = if mode == "-" {
        None
    } else {
        Some(u32::from_str_radix(mode, 8).ok()?)
    };
    let (uid, gid) = owner.split_once(':')?;
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    let path = PathBuf::from(OsStr::from_bytes(fields.next()?));
    Some((
        path,
        Recorded {
            kind,
            mode,
            uid,
            gid,
            content: format!("{size} {digest}"),
        },
    ))
}

type Visit<'a> = dyn FnMut(PathBuf, Recorded) -> Result<(), ManifestError> + 'a;

/// Visits every path below `archive`; an object other than a file, folder or link has been changed.
fn examine(
    archive: &Path,
    algorithm: Algorithm,
    known: &Digests,
    visit: &mut Visit<'_>,
) -> Result<(), ManifestError> {
    let root = rustix::fs::openat(CWD, archive, FOLDER, Mode::empty()).map_err(|errno| {
        ManifestError::Examine {
            path: archive.to_owned(),
            source: errno.into(),
        }
    })?;
    let failed = |path: &Path| {
        let path = archive.join(path);
        move |source| ManifestError::Examine { path, source }
    };
    let level = |folder: OwnedFd, path: PathBuf| {
        let names = names(&folder).map_err(failed(&path))?.into_iter();
        Ok::<_, ManifestError>(Level {
            folder,
            path,
            names,
        })
    };
    let mut buffer = vec![0; BUFFER];
    let mut open = vec![level(root, PathBuf::new())?];
    while let Some(current) = open.last_mut() {
        let Some(name) = current.names.next() else {
            open.pop();
            continue;
        };
        let (folder, path) = (&current.folder, current.path.join(&name));
        let stat = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(io::Error::from).map_err(failed(&path))?;
        let entry = |kind, content| {
            let mode = (kind != Kind::Link).then_some(stat.st_mode & 0o7777);
            Recorded {
                kind,
                mode,
                uid: stat.st_uid,
                gid: stat.st_gid,
                content,
            }
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                visit(path.clone(), entry(Kind::Folder, "- -".to_owned()))?;
                let child = rustix::fs::openat(folder, &name, FOLDER, Mode::empty());
                let child = child.map_err(io::Error::from).map_err(failed(&path))?;
                if open.len() > MAX_FOLDERS {
                    return Err(ManifestError::TooDeep {
                        path: archive.join(path),
                    });
                }
                open.push(level(child, path)?);
            }
            FileType::RegularFile => {
                let mut read = || {
                    let file = rustix::fs::openat(folder, &name, READ, Mode::empty())?;
                    algorithm.digest(File::from(file), &mut buffer)
                };
                let digest = match known.get(stat.st_ino) {
                    Some(known) => known.to_hex(),
                    None => read().map_err(failed(&path))?,
                };
                visit(
                    path,
                    entry(Kind::File, format!("{} {digest}", stat.st_size)),
                )?;
            }
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(folder, &name, Vec::new()).map_err(io::Error::from);
                let target = target.map_err(failed(&path))?.into_bytes();
                let digest = algorithm.digest(&*target, &mut buffer);
                let digest = digest.map_err(failed(&path))?;
                visit(
                    path,
                    entry(Kind::Link, format!("{} {digest}", target.len())),
                )?;
            }
            _ => {
                return Err(ManifestError::Changed {
                    path: archive.join(path),
                });
            }
        }
    }
    Ok(())
}

/// An open folder on the way down, and its remaining names.
struct Level {
    folder: OwnedFd,
    /// The path below the archive.
    path: PathBuf,
    names: vec::IntoIter<OsString>,
}
