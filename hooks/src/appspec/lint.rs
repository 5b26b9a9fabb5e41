//! Entries of a valid AppSpec that cannot have the effect that they seem to ask for, judged with
//! the unpacked revision at hand.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::fields::quoted;
use super::hints::{kind, names};
use super::{FileMapping, Finding, Parsed, Pattern, Permission, raw};

/// The number of folders of the revision that are examined.
const MAX_FOLDERS: usize = 20_000;

impl Parsed {
    /// Returns warnings about the AppSpec, compared with the unpacked revision in `root`.
    pub fn lint(&self, root: &Path) -> Vec<Finding> {
        let document = raw::read(&self.text).ok();
        let position = |path: &str| {
            document
                .as_ref()
                .map(|document| document.root.at(path).position)
        };
        let finding = |path: String, message| Finding {
            position: position(&path),
            path,
            message,
        };
        let files = self.appspec.files.iter().enumerate();
        let mut findings: Vec<_> = files
            .filter_map(|(index, mapping)| {
                Some(finding(
                    format!("files[{index}].destination"),
                    renamed(root, mapping)?,
                ))
            })
            .collect();
        let folders = folders(root, &self.appspec.files);
        let permissions = self.entries.iter().zip(&self.appspec.permissions);
        findings.extend(permissions.filter_map(|(index, permission)| {
            Some(finding(
                format!("permissions[{index}].mode"),
                closed(permission, &folders)?,
            ))
        }));
        findings
    }
}

/// Warns of a file whose destination ends in its own name, or in a name of the same kind: Install
/// would make a folder of that name.
fn renamed(root: &Path, mapping: &FileMapping) -> Option<String> {
    let (source, destination) = (mapping.source.as_path(), mapping.destination.as_path());
    let (name, last) = (source.file_name()?, destination.file_name()?);
    let same_kind = source.extension().is_some() && source.extension() == destination.extension();
    if (name != last && !same_kind) || kind(root, source) != Some(FileType::RegularFile) {
        return None;
    }
    let folder = destination.parent().unwrap_or(Path::new("/"));
    let hint = if name == last {
        String::new()
    } else {
        "; a file keeps its name, so rename it in the revision".into()
    };
    Some(format!(
        "makes a folder {} and puts the file into it; a destination is a folder: write {}{hint}",
        quoted(&last.to_string_lossy()),
        quoted(&folder.to_string_lossy())
    ))
}

/// Warns of a mode that takes x from folders.
fn closed(permission: &Permission, folders: &[PathBuf]) -> Option<String> {
    let mode = permission.mode.filter(|mode| mode.bits() & 0o111 == 0)?;
    if !permission.applies_to.directories {
        return None;
    }
    let folder = folders.iter().find(|folder| permission.means(folder))?;
    Some(format!(
        "mode {:o} also applies to folders, such as {}, which only root can enter then; add type: [file], and give folders \
         an entry with type: [directory] and mode: 755",
        mode.bits(),
        quoted(&folder.to_string_lossy())
    ))
}

/// The folders that `files` brings to the host, as far as the revision shows them.
fn folders(root: &Path, files: &[FileMapping]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for FileMapping {
        source,
        destination,
    } in files
    {
        folders.push(destination.as_path().to_path_buf());
        let mut open = vec![(
            source.as_path().to_path_buf(),
            destination.as_path().to_path_buf(),
        )];
        while let Some((from, to)) = open.pop() {
            for name in names(root, &from) {
                let below = from.join(&name);
                if kind(root, &below) == Some(FileType::Directory) && folders.len() < MAX_FOLDERS {
                    folders.push(to.join(&name));
                    open.push((below, to.join(&name)));
                }
            }
        }
    }
    folders
}

impl Permission {
    /// Whether the entry applies to `path`, judged by its name alone.
    fn means(&self, path: &Path) -> bool {
        let object = self.object.as_path();
        if path == object || !path.starts_with(object) {
            return false;
        }
        let name = path.file_name().unwrap_or_default();
        let direct = path.parent() == Some(object);
        let pattern = match &self.pattern {
            Pattern::Everything => true,
            Pattern::Name(pattern) => direct && pattern.matches(name),
        };
        pattern && !(direct && self.except.iter().any(|except| except.matches(name)))
    }
}
