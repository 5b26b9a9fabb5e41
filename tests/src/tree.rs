//! A folder as text, for comparing whole trees at once.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One line per path below `folder`, sorted: kind, mode, owner, name, and content or target.
pub fn listing(folder: &Path) -> String {
    let mut lines = Vec::new();
    collect(folder, folder, &mut lines);
    lines.sort();
    lines.join("\n")
}

fn collect(root: &Path, folder: &Path, lines: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).expect("it was listed");
        let name = path
            .strip_prefix(root)
            .expect("below the root")
            .display()
            .to_string();
        let mode = metadata.permissions().mode() & 0o7777;
        let owner = format!("{}:{}", metadata.uid(), metadata.gid());
        if metadata.is_symlink() {
            lines.push(format!(
                "{name} -> {}",
                fs::read_link(&path).expect("a link").display()
            ));
        } else if metadata.is_dir() {
            lines.push(format!("{name}/ {mode:04o} {owner}"));
            collect(root, &path, lines);
        } else {
            let content =
                String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            lines.push(format!("{name} {mode:04o} {owner} {content:?}"));
        }
    }
}

/// Everything below some folders that an Install could change: a text per path, which includes all
/// but the times of folders. Temporary names beside their destinations are left out; see
/// [`temporary_names`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, String>);

impl Snapshot {
    /// Takes a snapshot of all `folders`.
    pub fn of(folders: &[PathBuf]) -> Self {
        let mut paths = BTreeMap::new();
        let mut linked: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
        for folder in folders {
            let mut below = paths_below(folder);
            below.sort();
            for path in std::iter::once(folder.clone()).chain(below) {
                if path.components().any(|part| is_temporary(part.as_os_str())) {
                    continue;
                }
                let Ok(metadata) = fs::symlink_metadata(&path) else {
                    continue;
                };
                let mut text = described(&path, &metadata);
                if metadata.nlink() > 1 && !metadata.is_dir() {
                    let first = linked
                        .entry((metadata.dev(), metadata.ino()))
                        .or_insert_with(|| path.clone());
                    if *first != path {
                        text += &format!(" is {}", first.display());
                    }
                }
                paths.insert(path, text);
            }
        }
        Self(paths)
    }

    /// The same without `paths` and everything below them.
    #[must_use]
    pub fn without(mut self, paths: &[PathBuf]) -> Self {
        self.0
            .retain(|path, _| !paths.iter().any(|out| path.starts_with(out)));
        self
    }

    /// The entries of `self` that `other` lacks, and the reverse, one per line.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let lacking = |sign: char, one: &Self, two: &Self| {
            let lines = one
                .0
                .iter()
                .filter(|(path, text)| two.0.get(*path) != Some(text));
            lines
                .map(|(path, text)| format!("{sign} {} {text}", path.display()))
                .collect::<Vec<_>>()
        };
        [lacking('+', self, other), lacking('-', other, self)].concat()
    }
}

/// The temporary names below `folders`, under which objects wait, or are kept.
pub fn temporary_names(folders: &[PathBuf]) -> Vec<PathBuf> {
    let temporary = |path: &PathBuf| path.file_name().is_some_and(is_temporary);
    folders
        .iter()
        .flat_map(|folder| paths_below(folder))
        .filter(temporary)
        .collect()
}

fn is_temporary(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(".codedeploy-")
}

/// Every path below a folder; links are not followed.
fn paths_below(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        paths.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            paths.extend(paths_below(&entry.path()));
        }
    }
    paths
}

fn described(path: &Path, metadata: &fs::Metadata) -> String {
    let access = format!(
        "{:04o} {}:{}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid()
    );
    let kind = metadata.file_type();
    let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
    let what = if kind.is_symlink() {
        format!(
            "link to {:?}, {time}",
            fs::read_link(path).unwrap_or_default()
        )
    } else if kind.is_dir() {
        "folder".to_owned()
    } else if kind.is_file() {
        format!(
            "file {}, {time}",
            content(&fs::read(path).unwrap_or_default())
        )
    } else {
        format!("{kind:?}")
    };
    format!("{access} {what}{}", attributes(path))
}

/// A short text that identifies a content.
fn content(bytes: &[u8]) -> String {
    if bytes.len() <= 64 {
        return format!("{:?}", String::from_utf8_lossy(bytes));
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    format!("of {} bytes, sha256 {}", bytes.len(), hex::encode(digest))
}

/// The extended attributes of a path, including ACLs.
fn attributes(path: &Path) -> String {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let mut text = String::new();
    // XFS lists ACLs a second time in a form of its own.
    let shown = |name: &&[u8]| !name.is_empty() && !name.starts_with(b"trusted.SGI_");
    for name in names[..length].split(|byte| *byte == 0).filter(shown) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap_or(0);
        text += &format!(
            " {}={}",
            String::from_utf8_lossy(name),
            hex::encode(&value[..length])
        );
    }
    text
}
