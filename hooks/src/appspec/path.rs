//! The paths that an AppSpec names, inside the revision and on the host, and the limits of their
//! length.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// The longest path that Linux accepts, in bytes: PATH_MAX without the final NUL.
pub const MAX_PATH_BYTES: usize = 4095;

/// The largest number of names in a path.
pub const MAX_FOLDERS: usize = 256;

/// The longest name in a folder, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// A path inside the revision: relative, without `.` and `..`. The empty path is the revision's
/// root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchivePath {
    path: PathBuf,
    written: String,
}

/// An absolute path on the host, without `.` and `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath(PathBuf);

/// A mistake in a path; the text follows "which".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("is not absolute; write the whole path on the host, beginning with '/'")]
    Relative,
    #[error("leads out of the revision with '..'; write a path inside it")]
    Leaves,
    #[error("contains a NUL character")]
    Nul,
    #[error("has {0} bytes; a path must not have more than {MAX_PATH_BYTES}")]
    TooLong(usize),
    #[error("is {0} folders deep; a path must not be deeper than {MAX_FOLDERS}")]
    TooDeep(usize),
    #[error("has a name of {0} bytes; a name must not have more than {MAX_NAME_BYTES}")]
    NameTooLong(usize),
}

/// Checks that a path is possible on Linux: its length, its depth and the length of its names.
pub fn check_length(path: &Path) -> Result<(), PathError> {
    let bytes = path.as_os_str().len();
    if bytes > MAX_PATH_BYTES {
        return Err(PathError::TooLong(bytes));
    }
    let names = || path.iter().filter(|name| *name != "/");
    let (depth, longest) = (
        names().count(),
        names().map(|name| name.len()).max().unwrap_or_default(),
    );
    if depth > MAX_FOLDERS {
        return Err(PathError::TooDeep(depth));
    }
    if longest > MAX_NAME_BYTES {
        return Err(PathError::NameTooLong(longest));
    }
    Ok(())
}

impl ArchivePath {
    /// Reads a path as an AppSpec writes it. Leading slashes mean the revision's root; `..` is the
    /// parent folder, which must lie in the revision.
    pub fn new(text: &str) -> Result<Self, PathError> {
        let path = normalised(text, |path| {
            if path.pop() {
                Ok(())
            } else {
                Err(PathError::Leaves)
            }
        })?;
        check_length(&path)?;
        Ok(Self {
            path,
            written: text.to_owned(),
        })
    }

    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// The path as the AppSpec writes it.
    pub fn written(&self) -> &str {
        &self.written
    }

    pub fn is_root(&self) -> bool {
        self.path.as_os_str().is_empty()
    }
}

impl HostPath {
    /// Reads an absolute path; `..` is the parent folder, and the parent of `/` is `/`.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::Relative);
        }
        let below_root = normalised(text, |path| {
            path.pop();
            Ok(())
        })?;
        let path = Path::new("/").join(below_root);
        check_length(&path)?;
        Ok(Self(path))
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Returns the same path below `to` if it is `from` or below it.
    pub(super) fn moved(&self, from: &Path, to: &Path) -> Self {
        match self.0.strip_prefix(from) {
            Ok(below) if below.as_os_str().is_empty() => Self(to.to_owned()),
            Ok(below) => Self(to.join(below)),
            Err(_) => self.clone(),
        }
    }

    /// Returns the kernel's folder that the path names or is in.
    pub(super) fn kernel_folder(&self) -> Option<&'static str> {
        let mut names = self.0.iter().skip(1);
        kernel_folder(names.next(), names.next())
    }
}

/// Returns the folder whose files the kernel makes, if a path with these first two names is in one.
/// `/dev/shm` has ordinary files.
pub(crate) fn kernel_folder(first: Option<&OsStr>, second: Option<&OsStr>) -> Option<&'static str> {
    match first?.to_str()? {
        "proc" => Some("/proc"),
        "sys" => Some("/sys"),
        "dev" if second.is_none_or(|name| name != "shm") => Some("/dev"),
        _ => None,
    }
}

/// Returns `text` without leading slashes, `.` and `..`; `up` removes the last folder.
fn normalised(
    text: &str,
    up: impl Fn(&mut PathBuf) -> Result<(), PathError>,
) -> Result<PathBuf, PathError> {
    if text.contains('\0') {
        return Err(PathError::Nul);
    }
    let mut path = PathBuf::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => up(&mut path)?,
            name => path.push(name),
        }
    }
    Ok(path)
}

impl fmt::Debug for ArchivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl fmt::Debug for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_leave_the_revision() {
        for (text, path) in [
            ("//a/./b/", "a/b"),
            ("a/../s/x.sh", "s/x.sh"),
            ("web/..", ""),
            ("/", ""),
        ] {
            assert_eq!(
                ArchivePath::new(text).unwrap().as_path(),
                Path::new(path),
                "{text}"
            );
        }
        assert!(ArchivePath::new("/").unwrap().is_root());
        assert_eq!(ArchivePath::new("/a//b").unwrap().written(), "/a//b");
        for text in ["..", "a/../../b", "/../a"] {
            assert_eq!(ArchivePath::new(text), Err(PathError::Leaves), "{text}");
        }
        assert_eq!(ArchivePath::new("a\0b"), Err(PathError::Nul));
    }

    #[test]
    fn paths_on_the_host_are_absolute() {
        for (text, path) in [
            ("/srv//app/", "/srv/app"),
            ("/srv/app/../web", "/srv/web"),
            ("/../..", "/"),
        ] {
            assert_eq!(
                HostPath::new(text).unwrap().as_path(),
                Path::new(path),
                "{text}"
            );
        }
        assert_eq!(HostPath::new("srv/app"), Err(PathError::Relative));
        assert_eq!(HostPath::new(""), Err(PathError::Relative));
    }

    #[test]
    fn paths_that_cannot_exist_are_refused_at_once() {
        let deep = |folders: usize| "/x".repeat(folders);
        assert!(HostPath::new(&deep(256)).is_ok());
        assert_eq!(HostPath::new(&deep(257)), Err(PathError::TooDeep(257)));
        assert_eq!(
            HostPath::new(&deep(20_000)),
            Err(PathError::TooLong(40_000))
        );
        assert_eq!(ArchivePath::new(&deep(257)), Err(PathError::TooDeep(257)));
        let long = |bytes: usize| format!("/{}", "y".repeat(bytes));
        assert!(HostPath::new(&long(255)).is_ok());
        assert_eq!(HostPath::new(&long(256)), Err(PathError::NameTooLong(256)));
        let longest = long(254).repeat(16) + &long(14);
        assert!(HostPath::new(&longest).is_ok());
        assert_eq!(
            HostPath::new(&format!("{longest}z")),
            Err(PathError::TooLong(4096))
        );
    }
}
