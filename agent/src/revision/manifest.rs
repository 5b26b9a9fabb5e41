//! What an archive held when it was unpacked, so that a later deployment can tell whether it still does.
//!
//! The file begins with [`HEADER`]; then comes one record per path, each ended by NUL:
//! `file MODE UID:GID SIZE SHA256 PATH`, `folder MODE UID:GID - - PATH` or `link - UID:GID SIZE SHA256 PATH`, a link's
//! digest being that of its target.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::copy::names;

/// Says what the file is, and in which version.
const HEADER: &[u8] = b"codedeploy-agent archive manifest 1\0";
/// Longest record, in bytes: a path and what stands before it.
const MAX_RECORD: u64 = 8192;
const BUFFER: usize = 64 * 1024;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

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
    #[error("{} is gone", path.display())]
    Gone { path: PathBuf },
}

/// One path of an archive: its permission bits, and everything else as the record says it.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: Option<u32>,
    rest: String,
}

/// Writes the manifest of `archive`. Blocks, and reads every file.
pub fn write(archive: &Path, manifest: &Path) -> Result<(), ManifestError> {
    let failed = |source| ManifestError::Write { path: manifest.to_owned(), source };
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(manifest);
    let mut file = BufWriter::new(file.map_err(failed)?);
    file.write_all(HEADER).map_err(failed)?;
    examine(archive, &mut |path, entry| {
        let mode = entry.mode.map_or_else(|| "-".into(), |mode| format!("{mode:04o}"));
        let (kind, rest) = entry.rest.split_once(' ').unwrap_or_default();
        write!(file, "{kind} {mode} {rest} ")
            .and_then(|()| file.write_all(path.as_os_str().as_bytes()))
            .and_then(|()| file.write_all(b"\0"))
            .map_err(failed)
    })?;
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)
}

/// Checks that `archive` is what the manifest says. That a file became executable since does not count: scripts are made
/// so before they run. Blocks, and reads every file.
pub fn verify(archive: &Path, manifest: &Path) -> Result<(), ManifestError> {
    let mut expected = read(manifest)?;
    examine(archive, &mut |path, entry| {
        let before =
            expected.remove(&path).ok_or_else(|| ManifestError::Added { path: archive.join(&path) })?;
        let executable = before.mode.filter(|_| before.rest.starts_with("file")).map(|mode| mode | 0o111);
        let same_mode = entry.mode == before.mode || entry.mode == executable;
        match same_mode && entry.rest == before.rest {
            true => Ok(()),
            false => Err(ManifestError::Changed { path: archive.join(path) }),
        }
    })?;
    match expected.into_keys().next() {
        Some(path) => Err(ManifestError::Gone { path: archive.join(path) }),
        None => Ok(()),
    }
}

fn read(manifest: &Path) -> Result<BTreeMap<PathBuf, Entry>, ManifestError> {
    let failed = |source| ManifestError::Read { path: manifest.to_owned(), source };
    let other = || ManifestError::NotAManifest { path: manifest.to_owned() };
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(manifest);
    let file = file.map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(other());
    }
    let mut file = BufReader::new(file);
    let mut record = Vec::new();
    let mut entries = BTreeMap::new();
    let mut next = |record: &mut Vec<u8>| {
        record.clear();
        (&mut file).take(MAX_RECORD).read_until(0, record).map_err(failed)
    };
    next(&mut record)?;
    if record != HEADER {
        return Err(other());
    }
    while next(&mut record)? > 0 {
        let (path, entry) = parse(&record).ok_or_else(other)?;
        entries.insert(path, entry);
    }
    Ok(entries)
}

fn parse(record: &[u8]) -> Option<(PathBuf, Entry)> {
    let mut fields = record.strip_suffix(b"\0")?.splitn(6, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (kind, mode, owner, size, digest) = (text()?, text()?, text()?, text()?, text()?);
    let mode = if mode == "-" { None } else { Some(u32::from_str_radix(mode, 8).ok()?) };
    let path = PathBuf::from(OsStr::from_bytes(fields.next()?));
    Some((path, Entry { mode, rest: format!("{kind} {owner} {size} {digest}") }))
}

type Visit<'a> = dyn FnMut(PathBuf, Entry) -> Result<(), ManifestError> + 'a;

/// Visits every path below `archive`; what is neither file, folder nor link has been changed.
fn examine(archive: &Path, visit: &mut Visit<'_>) -> Result<(), ManifestError> {
    let root = rustix::fs::openat(CWD, archive, FOLDER, Mode::empty())
        .map_err(|errno| ManifestError::Examine { path: archive.to_owned(), source: errno.into() })?;
    let mut buffer = vec![0; BUFFER];
    below(archive, &root, Path::new(""), &mut buffer, visit)
}

fn below(
    archive: &Path,
    folder: &OwnedFd,
    relative: &Path,
    buffer: &mut [u8],
    visit: &mut Visit<'_>,
) -> Result<(), ManifestError> {
    let failed = |path: &Path| {
        let path = archive.join(path);
        move |source| ManifestError::Examine { path, source }
    };
    for name in names(folder).map_err(failed(relative))? {
        let path = relative.join(&name);
        let stat = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(io::Error::from).map_err(failed(&path))?;
        let (owner, mode) = (format!("{}:{}", stat.st_uid, stat.st_gid), stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                visit(path.clone(), Entry { mode: Some(mode), rest: format!("folder {owner} - -") })?;
                let child = rustix::fs::openat(folder, &name, FOLDER, Mode::empty());
                below(
                    archive,
                    &child.map_err(io::Error::from).map_err(failed(&path))?,
                    &path,
                    buffer,
                    visit,
                )?;
            }
            FileType::RegularFile => {
                let file = rustix::fs::openat(folder, &name, READ, Mode::empty()).map_err(io::Error::from);
                let digest = file.and_then(|file| digest(File::from(file), buffer)).map_err(failed(&path))?;
                let rest = format!("file {owner} {} {digest}", stat.st_size);
                visit(path, Entry { mode: Some(mode), rest })?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, &name, Vec::new()).map_err(io::Error::from);
                let target = target.map_err(failed(&path))?.into_bytes();
                let digest = digest(&*target, buffer).map_err(failed(&path))?;
                visit(path, Entry { mode: None, rest: format!("link {owner} {} {digest}", target.len()) })?;
            }
            _ => return Err(ManifestError::Changed { path: archive.join(path) }),
        }
    }
    Ok(())
}

/// SHA-256 in hexadecimal digits.
fn digest(mut source: impl Read, buffer: &mut [u8]) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    loop {
        match source.read(buffer)? {
            0 => break,
            read => context.update(&buffer[..read]),
        }
    }
    let mut text = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
