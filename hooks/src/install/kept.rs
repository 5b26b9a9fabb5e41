//! The folders that keep displaced objects on file systems other than that of the deployment's
//! folder: one on each, as near to its root as possible, and private to the agent's user.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::hash::Hasher as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use fnv::FnvHasher;
use rustix::fs::{Access, AtFlags, FileType};

use super::journal::{self, Begun};
use crate::fs::{Folder, Status, TEMPORARY, split};

/// The folders of one transaction.
#[derive(Debug)]
pub(super) struct KeptFolders {
    name: OsString,
    own: Option<Mount>,
    pub(super) all: Vec<PathBuf>,
    /// For each folder that was looked up, the one that keeps its displaced objects.
    found: BTreeMap<PathBuf, Option<PathBuf>>,
}

/// A mount: names can be moved within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mount {
    device: u64,
    /// From Linux 5.8 on. Without it, only a failed move shows the difference.
    id: Option<u64>,
}

impl KeptFolders {
    /// Returns the folders that `begun` names, and those of its undo record if finishing was
    /// interrupted.
    pub(super) fn of(begun: &Begun) -> Self {
        let mut all = begun.kept.clone();
        let before = journal::read_begun(&journal::undo_record(&begun.deployment))
            .ok()
            .flatten();
        all.extend(
            before
                .filter(|before| before.token == begun.token)
                .into_iter()
                .flat_map(|before| before.kept),
        );
        all.sort();
        all.dedup();
        let name = name(&tag(&begun.pointer), &begun.token);
        Self {
            name,
            own: Mount::of(&begun.deployment).ok(),
            all,
            found: BTreeMap::new(),
        }
    }

    /// Returns the folder that keeps objects of `folder`, and makes it if it is missing; `None` if
    /// that is the deployment's own.
    pub(super) fn for_folder(&mut self, folder: &Path) -> io::Result<Option<PathBuf>> {
        if let Some(found) = self.found.get(folder) {
            return Ok(found.clone());
        }
        let mount = Mount::of(folder)?;
        let found = if Some(mount) == self.own {
            None
        } else {
            let known = self
                .all
                .iter()
                .find(|kept| Mount::of(kept).is_ok_and(|other| other == mount));
            Some(match known {
                Some(known) => known.clone(),
                None => self.add(outermost(folder, &self.name)?),
            })
        };
        self.found.insert(folder.to_path_buf(), found.clone());
        Ok(found)
    }

    /// Makes one in `folder` itself, for objects that cannot be moved elsewhere on the same file
    /// system: it has two mounts, or two quotas.
    pub(super) fn make_in(&mut self, folder: &Path) -> io::Result<PathBuf> {
        make(folder, &self.name)?;
        let made = self.add(folder.join(&self.name));
        self.found.insert(folder.to_path_buf(), Some(made.clone()));
        Ok(made)
    }

    fn add(&mut self, made: PathBuf) -> PathBuf {
        if !self.all.contains(&made) {
            self.all.push(made.clone());
        }
        made
    }

    /// Whether displaced objects of `folder` are kept in one of them.
    pub(super) fn keeps(&self, folder: &Path) -> bool {
        self.found.get(folder).is_some_and(Option::is_some)
    }

    /// Removes the folders of this kind that belong to the same deployment group and that no record
    /// names: another agent may have removed their deployments. Searches near `changed`. Returns
    /// descriptions of what could not be removed.
    pub(super) fn remove_forgotten(
        &self,
        begun: &Begun,
        changed: &BTreeSet<PathBuf>,
    ) -> Vec<String> {
        let tag = tag(&begun.pointer);
        let mut left = Vec::new();
        for place in self.candidates(changed) {
            // If it cannot be examined now, a later Install examines it.
            let Ok(folder) = Folder::open(&place) else {
                continue;
            };
            for name in folder.names().unwrap_or_default() {
                let path = place.join(&name);
                let Some(token) = token_of(&name, &tag) else {
                    continue;
                };
                if self.all.contains(&path)
                    || is_known(begun, token)
                    || !is_own_folder(&folder, &name)
                {
                    continue;
                }
                tracing::info!(path = %path.display(), "removed kept files that no deployment needs any more");
                if let Err(error) = folder.remove_tree(&name) {
                    left.push(not_removed(&path, &error));
                }
            }
        }
        left
    }
}

impl KeptFolders {
    /// All folders in which one of this kind would have been made for objects of `changed`.
    fn candidates(&self, changed: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let made = self
            .all
            .iter()
            .filter_map(|kept| kept.parent().map(Path::to_path_buf));
        let mut candidates: BTreeSet<PathBuf> = made.collect();
        // Mounts whose root takes everything that is made on them.
        let mut rooted: Vec<Mount> = Vec::new();
        for folder in changed {
            let Ok(mount) = Mount::of(folder) else {
                continue;
            };
            if rooted.contains(&mount) {
                continue;
            }
            let above = above(folder);
            let writable = above.iter().position(|place| is_writable(place));
            if writable == Some(0) {
                rooted.push(mount);
            }
            let tried = writable.map_or(above.len(), |first| first + 1);
            candidates.extend(above.into_iter().take(tried));
        }
        candidates
    }
}

/// A word that identifies one deployment group of one agent.
fn tag(pointer: &Path) -> String {
    let mut hasher = FnvHasher::default();
    hasher.write(pointer.as_os_str().as_bytes());
    format!("{:016x}", hasher.finish())
}

fn name(tag: &str, token: &str) -> OsString {
    format!("{TEMPORARY}{tag}-{token}").into()
}

/// Returns the token of the transaction that made a folder of this name, if it has this `tag`.
fn token_of<'a>(found: &'a OsStr, tag: &str) -> Option<&'a str> {
    let (_, token) = found.to_str()?.rsplit_once('-')?;
    (token.len() == 16 && *found == *name(tag, token)).then_some(token)
}

/// Makes the folder in `folder`, then moves it up as far as it can be moved. There, objects of
/// `folder` can still be moved into it.
fn outermost(folder: &Path, name: &OsStr) -> io::Result<PathBuf> {
    let mut places = above(folder);
    for place in &places {
        if Folder::open(place).is_ok_and(|place| is_own_folder(&place, name)) {
            return Ok(place.join(name));
        }
    }
    places.pop();
    let here = make(folder, name)?;
    for place in places {
        let moved = Folder::open(&place).and_then(|above| here.rename_new(name, &above, name));
        if moved.is_ok() {
            return Ok(place.join(name));
        }
    }
    Ok(folder.join(name))
}

/// Returns `folder`, which now contains the new folder.
fn make(folder: &Path, name: &OsStr) -> io::Result<Folder> {
    let here = Folder::open(folder)?;
    if !is_own_folder(&here, name) {
        here.create_private_folder(name)?;
        here.folder(name)?.make_private()?;
    }
    Ok(here)
}

/// `folder` and its parents on the same mount, the outermost first.
fn above(folder: &Path) -> Vec<PathBuf> {
    let mount = Mount::of(folder).ok();
    let same = |place: &&Path| mount.is_some() && Mount::of(place).ok() == mount;
    let mut places: Vec<PathBuf> = folder
        .ancestors()
        .take_while(same)
        .map(Path::to_path_buf)
        .collect();
    places.reverse();
    places
}

impl Mount {
    fn of(folder: &Path) -> io::Result<Self> {
        let status = Status::of(Folder::open(folder)?)?;
        Ok(Self {
            device: status.device,
            id: status.mount,
        })
    }
}

fn is_writable(folder: &Path) -> bool {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(rustix::fs::CWD, folder, wanted, AtFlags::EACCESS).is_ok()
}

/// Whether `name` is a private folder of this user.
fn is_own_folder(folder: &Folder, name: &OsStr) -> bool {
    let stat = folder.stat(name).ok().flatten();
    stat.is_some_and(|stat| {
        FileType::from_raw_mode(stat.st_mode).is_dir()
            && stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_mode & 0o077 == 0
    })
}

/// Whether a record of the group has the token of a transaction: an undo record, or a journal, even
/// one that cannot be read.
fn is_known(begun: &Begun, token: &str) -> bool {
    let names = |folder: &Path| {
        let folder = Folder::open(folder).and_then(|folder| folder.names());
        folder.unwrap_or_default()
    };
    let group = begun.deployment.parent().unwrap_or(&begun.deployment);
    let mut records: Vec<PathBuf> = names(group)
        .iter()
        .map(|deployment| journal::undo_record(&group.join(deployment)))
        .collect();
    if let Ok((folder, _)) = split(&begun.pointer) {
        let journals = names(folder);
        let journals = journals
            .iter()
            .filter(|name| name.as_bytes().windows(8).any(|part| part == b"-journal"));
        records.extend(journals.map(|name| folder.join(name)));
    }
    records.iter().any(|record| {
        let text = std::fs::read(record).unwrap_or_default();
        text.windows(token.len())
            .any(|part| part == token.as_bytes())
    })
}

pub(super) fn not_removed(path: &Path, error: &io::Error) -> String {
    format!(
        "{} is no longer used but could not be removed: {error}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let (one, two) = (tag(Path::new("/a/g_last")), tag(Path::new("/a/h_last")));
        let name = name(&one, "0123456789abcdef");
        assert_eq!(name, *format!(".codedeploy-{one}-0123456789abcdef"));
        assert_eq!(token_of(&name, &one), Some("0123456789abcdef"));
        assert_eq!(token_of(&name, &two), None);
        assert_eq!(token_of(&crate::fs::temporary_name(&one, 1), &one), None);
    }
}
