//! Suggestions for a path of an AppSpec that the revision does not contain.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::fields::{closest, quoted};
use super::{ArchivePath, NamePattern};
use crate::fs::{Links, open_beneath};

/// The number of names in one folder that are examined.
const MAX_NAMES: usize = 10_000;

/// Returns a hint about a `source`, here `path`, that the unpacked revision in `root` lacks: empty
/// without an idea, else with "; " in front.
pub fn missing_source(root: &Path, path: &Path) -> String {
    if path.to_string_lossy().contains(['*', '?']) {
        let rule = "; a source has no wildcards: name one file, or the folder that holds it";
        let found = matching(root, path)
            .map(|found| format!(" (such as {})", quoted(&found.to_string_lossy())));
        return format!("{rule}{}", found.unwrap_or_default());
    }
    near(root, path)
}

/// Returns the same hint for a script's `location`.
pub fn missing_script(root: &Path, location: &ArchivePath) -> String {
    let written = location.written();
    let words: Vec<&str> = written.split_whitespace().collect();
    let is_there =
        |text: &str| ArchivePath::new(text).is_ok_and(|path| kind(root, path.as_path()).is_some());
    if let [first, arguments @ ..] = words.as_slice()
        && !arguments.is_empty()
    {
        if is_there(first) {
            let hint = "a location has no arguments: name the script alone, or a script that calls it with them";
            return format!("; {hint} (the revision has {})", quoted(first));
        }
        if let Some(script) = arguments.iter().find(|word| is_there(word)) {
            let hint = "a location is a script and not a command with arguments";
            return format!("; {hint} (the revision has {})", quoted(script));
        }
    }
    if written.starts_with('/') {
        let mut shorter = location.as_path().iter();
        let mut there = None;
        while there.is_none() && shorter.next().is_some() {
            let path = shorter.as_path();
            there = (!path.as_os_str().is_empty() && kind(root, path).is_some())
                .then(|| path.to_string_lossy());
        }
        let found = there
            .map(|path| format!(" (which has {})", quoted(&path)))
            .unwrap_or_default();
        return format!(
            "; {} is looked up in the revision{found}, and not on the host",
            quoted(written)
        );
    }
    near(root, location.as_path())
}

/// Returns the first path whose every name matches the name at the same place in `pattern`.
fn matching(root: &Path, pattern: &Path) -> Option<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for name in pattern.iter() {
        let name = NamePattern::new(name.to_string_lossy());
        let mut next = Vec::new();
        for folder in &found {
            let mut names = names(root, folder);
            names.sort();
            next.extend(
                names
                    .into_iter()
                    .filter(|found| name.matches(found))
                    .map(|found| folder.join(found)),
            );
            next.truncate(MAX_NAMES / 100);
        }
        found = next;
    }
    found.into_iter().next()
}

/// Returns the path of the revision that `missing` most likely misspells: the part that exists,
/// plus one corrected name.
fn near(root: &Path, missing: &Path) -> String {
    let mut folder = PathBuf::new();
    for name in missing {
        let path = folder.join(name);
        if kind(root, &path).is_some() {
            folder = path;
            continue;
        }
        let names = names(root, &folder);
        let names: Vec<_> = names.iter().filter_map(|name| name.to_str()).collect();
        let meant = name
            .to_str()
            .and_then(|name| closest(name, names.into_iter()));
        return meant.map_or(String::new(), |meant| {
            let meant = folder.join(meant);
            format!("; did you mean {}?", quoted(&meant.to_string_lossy()))
        });
    }
    String::new()
}

/// Whether the unpacked revision in `root` has `path`.
pub fn exists(root: &Path, path: &ArchivePath) -> bool {
    kind(root, path.as_path()).is_some()
}

/// The kind of the object at `path`; `None` if there is none, or if only a link out of the revision
/// leads to it.
pub(super) fn kind(root: &Path, path: &Path) -> Option<FileType> {
    let file = open(root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = rustix::fs::statat(&file, "", AtFlags::EMPTY_PATH).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// Returns the names in the folder at `path`, at most [`MAX_NAMES`].
pub(super) fn names(root: &Path, path: &Path) -> Vec<OsString> {
    let folder = open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
        .and_then(|folder| Dir::new(folder).ok());
    let entries = folder.into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| {
        std::os::unix::ffi::OsStringExt::from_vec(entry.file_name().to_bytes().to_vec())
    });
    names
        .filter(|name: &OsString| name != "." && name != "..")
        .take(MAX_NAMES)
        .collect()
}

fn open(root: &Path, path: &Path, flags: OFlags) -> Option<OwnedFd> {
    let named = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, named, Mode::empty()).ok()?;
    open_beneath(root, path, flags, Links::Followed).ok()
}
