//! Makes one visible change, and takes it back. Taking back can be repeated, and does nothing if
//! nothing was done. It never touches an object that somebody else put in the way.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::access::{self, Access};
use super::identity::Identity;
use super::paths::PathId;
use super::step::{Change, Known, Step, Swap, Swapped, Takes};
use super::transaction::Work;
use crate::fs::{Folder, Handles, is_nowhere, split};

impl Step {
    /// Returns the change that this step is on the host as it is now; `None` if there is nothing to
    /// do.
    pub(super) fn look_up(&self, handles: &mut Handles) -> io::Result<Option<Change>> {
        match self {
            Self::Swap(swap) => Ok(swap.look_up(handles)?.map(Change::Swap)),
            Self::Adjust { path, access } => {
                let (folder, name) = handles.parent(path)?;
                let file = folder.file(name)?;
                let before = Access::read(&file)?;
                let (path, file, after) = (path.clone(), Identity::of_open(&file)?, access.clone());
                Ok(Some(Change::Adjust {
                    path,
                    file,
                    before,
                    after,
                }))
            }
            Self::Stay(stay) => Ok(Some(Change::Stay(stay.look_up(handles)?))),
            Self::StayFolder { path, access } => {
                let (path, access) = (path.clone(), access.clone());
                Ok(Some(Change::StayFolder { path, access }))
            }
            Self::Context {
                path,
                before,
                after,
            } => {
                let (before, after) = (before.clone(), after.clone());
                Ok(Some(Change::Context {
                    path: path.clone(),
                    before,
                    after,
                }))
            }
        }
    }

    /// The objects that the change may take away.
    pub(super) fn takes(&self) -> &Takes {
        match self {
            Self::Swap(Swap { takes, .. }) => takes,
            Self::Adjust { .. }
            | Self::Stay(_)
            | Self::StayFolder { .. }
            | Self::Context { .. } => &Takes::Nothing,
        }
    }

    /// The action, for an error message.
    pub(super) fn action(&self) -> &'static str {
        match self {
            Self::Swap(Swap { brings: false, .. }) => "remove",
            Self::Swap(Swap {
                takes: Takes::Nothing,
                ..
            }) => "create",
            Self::Swap(_) => "replace",
            Self::Adjust { .. } => "change owner, mode or ACL of",
            Self::Stay(_) | Self::StayFolder { .. } => "leave in place what is in",
            Self::Context { .. } => "change the SELinux context of",
        }
    }
}

impl Swap {
    fn look_up(&self, handles: &mut Handles) -> io::Result<Option<Swapped>> {
        let (folder, name) = handles.parent(&self.path)?;
        let there = folder.stat(name)?;
        let is_folder = there
            .as_ref()
            .map(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        match (&self.takes, is_folder) {
            (_, None)
            | (Takes::Anything, _)
            | (Takes::File, Some(false))
            | (Takes::Folder(_), Some(true)) => {}
            (Takes::Nothing, Some(_)) => return Err(Errno::EXIST.into()),
            (Takes::File, Some(true)) | (Takes::Folder(_), Some(false)) => {
                return Err(changed_meanwhile());
            }
        }
        let brings = if self.brings {
            let (folder, spare) = handles.parent(&self.spare)?;
            Some(Identity::look_into(&folder, spare)?.ok_or(Errno::NOENT)?)
        } else {
            None
        };
        let swapped = Swapped {
            path: self.path.clone(),
            spare: self.spare.clone(),
            takes: there.is_some(),
            brings,
            keep: self.keep,
        };
        Ok((swapped.takes || swapped.brings.is_some()).then_some(swapped))
    }
}

impl Change {
    /// Makes the change; `takes` is the object that may be taken away by it.
    pub(super) fn make(
        &self,
        takes: &Takes,
        work: &impl Work,
        handles: &mut Handles,
    ) -> io::Result<()> {
        match self {
            Self::Swap(swap) => {
                swap.make(handles)?;
                // Checked when the object can no longer be reached by its name.
                if swap.takes && !swap.took_only(takes, work, handles)? {
                    return Err(changed_meanwhile());
                }
                Ok(())
            }
            Self::Adjust {
                path, file, after, ..
            } => {
                let ours = adjust(path, file, after, handles)?;
                if ours {
                    Ok(())
                } else {
                    Err(changed_meanwhile())
                }
            }
            Self::Stay(stayed) => stayed.make(handles),
            Self::StayFolder { .. } => Ok(()),
            Self::Context {
                path,
                before,
                after,
            } => match after {
                Some(context) => access::add_context(path, context),
                None => {
                    // If the rule is gone already, that is the wanted result.
                    let _ = access::remove_context(path).inspect_err(|error| {
                        tracing::warn!(path = %path.display(), rule = ?before, %error, "an SELinux rule of the last Install stays");
                    });
                    Ok(())
                }
            },
        }
    }

    /// Takes the change back; returns a text about changes that somebody else made in the meantime,
    /// which stay.
    pub(super) fn take_back(&self, handles: &mut Handles) -> io::Result<Option<String>> {
        match self {
            Self::Swap(swap) => swap.take_back(handles),
            Self::Adjust {
                path, file, before, ..
            } => {
                let ours = adjust(path, file, before, handles)?;
                Ok((!ours).then(|| {
                    let path = path.display();
                    format!("{path} was replaced or removed meanwhile; it does not get its owner, mode and ACL of before back")
                }))
            }
            Self::Stay(stayed) => stayed.take_back(handles),
            Self::StayFolder { .. } => Ok(None),
            Self::Context {
                path,
                before: Some(context),
                ..
            } => access::add_context(path, context).map(|()| None),
            Self::Context {
                path, before: None, ..
            } => {
                // It may never have been made.
                let _ = access::remove_context(path);
                Ok(None)
            }
        }
    }

    /// The manual step when it cannot be taken back.
    pub(super) fn by_hand(&self) -> String {
        let path = self.path().display();
        match self {
            Self::Swap(Swapped {
                spare, takes: true, ..
            }) => {
                format!(
                    "put {} back as {path}, which is the file or folder of before",
                    spare.display()
                )
            }
            Self::Swap(_) => format!("remove {path}"),
            Self::Adjust { .. } => format!("give {path} its owner, mode and ACL back"),
            Self::Stay(_) => format!("give the files in {path} their times back"),
            Self::StayFolder { .. } => format!("leave {path} as it is"),
            Self::Context {
                before: Some(context),
                ..
            } => {
                format!("give {path} its SELinux rule of type {} back", context.kind)
            }
            Self::Context { before: None, .. } => format!("remove the SELinux rule of {path}"),
        }
    }
}

impl Swapped {
    fn make(&self, handles: &mut Handles) -> io::Result<()> {
        let (folder, name) = handles.parent(&self.path)?;
        let (other, spare) = handles.parent(&self.spare)?;
        match (self.takes, &self.brings) {
            (true, Some(_)) => exchange(&folder, name, &other, spare),
            (true, None) => folder.rename_new(name, &other, spare),
            (false, Some(_)) => other.rename_new(spare, &folder, name),
            (false, None) => Ok(()),
        }
    }

    /// Whether the object that was taken away is the expected one.
    fn took_only(
        &self,
        takes: &Takes,
        work: &impl Work,
        handles: &mut Handles,
    ) -> io::Result<bool> {
        let (folder, spare) = handles.parent(&self.spare)?;
        match takes {
            Takes::Folder(taken) => only_known(folder.folder(spare)?, *taken, work),
            Takes::File => Ok(folder
                .stat(spare)?
                .is_none_or(|stat| !FileType::from_raw_mode(stat.st_mode).is_dir())),
            Takes::Nothing | Takes::Anything => Ok(true),
        }
    }

    fn take_back(&self, handles: &mut Handles) -> io::Result<Option<String>> {
        let (folder, name) = handles.parent(&self.path)?;
        let (other, spare) = handles.parent(&self.spare)?;
        settle(&folder, name, &other, spare)?;
        let (there, waiting) = (
            Identity::look(&folder, name)?,
            Identity::look(&other, spare)?,
        );
        let is_new = |new: &Identity, found: &Option<Identity>| {
            found.as_ref().is_some_and(|found| new.is(found))
        };
        match (self.takes, &self.brings) {
            (_, Some(new)) if is_new(new, &waiting) => {}
            (true, Some(new)) if is_new(new, &there) && waiting.is_some() => {
                exchange(&folder, name, &other, spare)?;
            }
            (false, Some(new)) if is_new(new, &there) => folder.rename_new(name, &other, spare)?,
            // Somebody removed it.
            (false, Some(_)) if there.is_none() => {}
            (false, Some(_)) => {
                let path = self.path.display();
                return Ok(Some(format!(
                    "{path} was put there by somebody else meanwhile; it stays"
                )));
            }
            (true, _) if there.is_none() && waiting.is_some() => {
                other.rename_new(spare, &folder, name)?
            }
            // It was taken back before, and the new object is removed.
            (true, Some(new)) if waiting.is_none() && there.is_some() && !is_new(new, &there) => {}
            (true, Some(_)) => return Err(changed_meanwhile()),
            (true, None) if waiting.is_some() => return Err(Errno::EXIST.into()),
            (true | false, None) => {}
        }
        Ok(None)
    }

    /// Removes the object that was built for it, if it still waits there; the displaced object may
    /// stand there instead. Returns a text about an object that is kept because somebody wrote to
    /// it.
    pub(super) fn discard(&self, handles: &mut Handles) -> io::Result<Option<String>> {
        let Some(new) = &self.brings else {
            return Ok(None);
        };
        let (folder, spare) = handles.parent(&self.spare)?;
        let doomed = doomed(spare);
        // An earlier attempt was interrupted.
        folder.remove_tree(&doomed)?;
        match Identity::look_into(&folder, spare)? {
            Some(waiting) if new.is_untouched(&waiting) => {
                // A partly removed object is no longer what was built.
                folder.rename_new(spare, &folder, &doomed)?;
                folder.remove_tree(&doomed).map(|()| None)
            }
            waiting => self.set_aside(
                &folder,
                spare,
                waiting.is_some_and(|waiting| new.is(&waiting)),
            ),
        }
    }

    /// Moves an object that was built, and then changed by somebody else, where nobody else may
    /// read it: under its temporary name, its readers no longer expect it. Returns its new place,
    /// also when the move was made before.
    fn set_aside(&self, folder: &Folder, spare: &OsStr, waits: bool) -> io::Result<Option<String>> {
        let (_, name) = split(&self.path)?;
        let aside = aside(spare);
        let made = folder.stat(&aside)?.is_some();
        if waits {
            if !made {
                folder.create_private_folder(&aside)?;
            }
            folder.rename_new(spare, &folder.folder(&aside)?, name)?;
        }
        Ok((waits || made).then(|| {
            format!(
                "{} was changed by somebody else after the Install had put it there; the changed one is kept as {}",
                self.path.display(),
                self.spare.with_file_name(&aside).join(name).display()
            )
        }))
    }

    /// Whether the change was made and not taken back, as far as can be seen.
    pub(super) fn is_made(&self, handles: &mut Handles) -> io::Result<bool> {
        let (other, spare) = handles.parent(&self.spare)?;
        let waiting = Identity::look(&other, spare)?;
        Ok(match &self.brings {
            Some(new) => !waiting.is_some_and(|waiting| new.is(&waiting)),
            None => waiting.is_some(),
        })
    }
}

/// Exchanges two names that both exist.
fn exchange(folder: &Folder, name: &OsStr, other: &Folder, spare: &OsStr) -> io::Result<()> {
    match folder.exchange(name, other, spare) {
        // Some file systems cannot: use three steps, which `settle` completes or takes back.
        Err(Errno::INVAL | Errno::NOSYS) => exchange_in_steps(folder, name, other, spare),
        result => Ok(result?),
    }
}

fn exchange_in_steps(
    folder: &Folder,
    name: &OsStr,
    other: &Folder,
    spare: &OsStr,
) -> io::Result<()> {
    let between = between(spare);
    match folder.hard_link(name, other, &between) {
        Ok(()) => {}
        // Some file systems cannot do this, and none can for folders: for a moment the name does
        // not exist.
        Err(Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {
            folder.rename_new(name, other, &between)?;
        }
        Err(error) => return Err(error.into()),
    }
    other.rename(spare, folder, name)?;
    other.rename_new(&between, other, spare)
}

/// Finishes an interrupted exchange in steps, either as if it had not begun or as if it were done.
fn settle(folder: &Folder, name: &OsStr, other: &Folder, spare: &OsStr) -> io::Result<()> {
    let between = between(spare);
    let Some(old) = other.stat(&between)? else {
        return Ok(());
    };
    if other.stat(spare)?.is_none() {
        return other.rename_new(&between, other, spare);
    }
    match folder.stat(name)? {
        None => other.rename_new(&between, folder, name),
        Some(there) if there.st_ino == old.st_ino => other.unlink(&between),
        Some(_) => Err(Errno::EXIST.into()),
    }
}

/// A third name, for exchanges in steps.
fn between(spare: &OsStr) -> OsString {
    [spare, "-between".as_ref()].into_iter().collect()
}

/// The name of the folder that keeps an object of somebody else.
fn aside(spare: &OsStr) -> OsString {
    [spare, "-kept".as_ref()].into_iter().collect()
}

/// The name under which an object is removed.
fn doomed(spare: &OsStr) -> OsString {
    [spare, "-doomed".as_ref()].into_iter().collect()
}

/// Changes the access of an open file; returns false if it is gone, or if another file has its
/// name.
fn adjust(
    path: &Path,
    file: &Identity,
    access: &Access,
    handles: &mut Handles,
) -> io::Result<bool> {
    let (folder, name) = handles.parent(path)?;
    let there = match folder.file(name) {
        Ok(there) => there,
        Err(error) if is_nowhere(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let ours = file.is(&Identity::of_open(&there)?);
    if ours {
        access.apply(&there)?;
    }
    Ok(ours)
}

/// Whether the folder, which was at `path`, has no new content since the plan was made.
fn only_known(folder: Folder, path: PathId, work: &impl Work) -> io::Result<bool> {
    // The depth is that of an Install at most; unknown content ends the search.
    let mut open = vec![(folder, path, None::<std::vec::IntoIter<OsString>>)];
    while let Some((folder, path, names)) = open.last_mut() {
        let names = match names {
            Some(names) => names,
            None => names.insert(folder.names()?.into_iter()),
        };
        let Some(name) = names.next() else {
            open.pop();
            continue;
        };
        match work.known(*path, &name) {
            Some(Known::Folder(path)) => {
                let inner = folder.folder(&name)?;
                open.push((inner, path, None));
            }
            Some(Known::File) => {}
            None => return Ok(false),
        }
    }
    Ok(true)
}

fn changed_meanwhile() -> io::Error {
    io::Error::other("it changed since it was looked at; stop what writes there, and deploy again")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Interrupted = fn(&Path);

    #[test]
    fn an_exchange_in_steps_can_be_taken_back_from_everywhere() {
        // The state after each step: a second name, then the new object in place, then the old one
        // put aside.
        let link: Interrupted =
            |root| std::fs::hard_link(root.join("a"), root.join(".s-between")).unwrap();
        let away: Interrupted =
            |root| std::fs::rename(root.join("a"), root.join(".s-between")).unwrap();
        let place: Interrupted = |root| std::fs::rename(root.join(".s"), root.join("a")).unwrap();
        let aside: Interrupted =
            |root| std::fs::rename(root.join(".s-between"), root.join(".s")).unwrap();
        let all: Interrupted = |root| {
            let folder = Folder::open(root).unwrap();
            exchange_in_steps(&folder, "a".as_ref(), &folder, ".s".as_ref()).unwrap();
        };
        let reached: [&[Interrupted]; 7] = [
            &[],
            &[link],
            &[away],
            &[link, place],
            &[away, place],
            &[link, place, aside],
            &[all],
        ];
        for steps in reached {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            std::fs::write(at("a"), "old").unwrap();
            std::fs::write(at(".s"), "new").unwrap();
            let folder = Folder::open(&std::fs::canonicalize(root.path()).unwrap()).unwrap();
            let brings = Identity::look_into(&folder, ".s".as_ref()).unwrap();
            steps.iter().for_each(|step| step(root.path()));
            let swap = Swapped {
                path: at("a"),
                spare: at(".s"),
                takes: true,
                brings,
                keep: Default::default(),
            };
            for _ in 0..2 {
                assert_eq!(swap.take_back(&mut Handles::default()).unwrap(), None);
                assert_eq!(
                    std::fs::read_to_string(at("a")).unwrap(),
                    "old",
                    "{} steps",
                    steps.len()
                );
                assert_eq!(
                    std::fs::read_to_string(at(".s")).unwrap(),
                    "new",
                    "{} steps",
                    steps.len()
                );
                assert!(!at(".s-between").exists());
            }
        }
    }
}
