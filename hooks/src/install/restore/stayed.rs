//! The way back for objects that the Install left in place. They are as before, unless somebody
//! changed or removed them since: then they are made again from the revision, which has the same.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FileType;

use super::{Restorer, Warning};
use crate::fs::{Handles, Status, is_nowhere};
use crate::install::access::Access;
use crate::install::paths::PathId;
use crate::install::same::checksum;
use crate::install::stayed::{Stay, Stayed, StayedFile, modified_at};
use crate::install::step::{Keep, Known, Step, Swap, Takes};
use crate::install::transaction::Work;
use crate::install::verified::Verified;
use crate::install::{StepError, parallel};

/// The work of a restoration.
#[derive(Debug, Default)]
pub(super) struct Restoration {
    pub(super) steps: Vec<Step>,
    /// Folders that are gone. They may stay if the restoration fails.
    folders: Vec<(PathBuf, Access)>,
    copies: Vec<Copy>,
}

/// A file that is made again under a temporary name.
#[derive(Debug)]
struct Copy {
    source: PathBuf,
    spare: PathBuf,
    access: Access,
    /// The time of modification; that of the source if absent.
    modified: Option<i64>,
}

/// A file that the Install left in place, as it is now.
enum Found {
    /// Its content is the same.
    Same(Box<(Access, Status)>),
    Changed,
    Gone,
}

impl Restorer<'_> {
    pub(super) fn stayed_folder(&mut self, path: &Path, access: &Access) -> io::Result<()> {
        match self.stat(path)? {
            None => self.restoration.folders.push((path.to_path_buf(), access.clone())),
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                let (parent, name) = self.handles.parent(path)?;
                if Access::read(parent.folder(name)?)? != *access {
                    self.adjust(path, access.clone());
                }
            }
            Some(_) => self.warn(format!(
                "{} was a folder before the Install and after it, and is something else now; it stays",
                path.display()
            )),
        }
        Ok(())
    }

    pub(super) fn stayed(&mut self, stayed: &Stayed) -> io::Result<()> {
        let numbers: Vec<usize> = (0..stayed.files.len()).collect();
        let found = Mutex::new(Vec::new());
        let look = |number: &usize, handles: &mut Handles| {
            let StayedFile(name, sum, _) = &stayed.files[*number];
            let state = Found::look(&stayed.folder.join(name), *sum, handles)?;
            found
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((*number, state));
            Ok::<_, io::Error>(())
        };
        parallel::each(&numbers, Handles::default, look)?;
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_unstable_by_key(|(number, _)| *number);
        let mut retimed = Vec::new();
        for (number, state) in found {
            let file = &stayed.files[number];
            let StayedFile(name, sum, _) = file;
            match state {
                Found::Same(now) => {
                    let (access, status) = *now;
                    if access != stayed.access {
                        self.adjust(&stayed.folder.join(name), stayed.access.clone());
                    }
                    let before = self.modified_before(stayed, file)?;
                    if let Some(before) = before.filter(|before| *before != status.modified) {
                        let verified = Verified::of(&status, *sum, Some(before));
                        retimed.push((name.clone(), verified));
                    }
                }
                Found::Changed => self.make_again(stayed, file, true)?,
                Found::Gone => self.make_again(stayed, file, false)?,
            }
        }
        if !retimed.is_empty() {
            self.restoration.steps.push(Step::Stay(Stay {
                folder: stayed.folder.clone(),
                source: stayed.source.clone(),
                access: stayed.access.clone(),
                files: retimed,
            }));
        }
        Ok(())
    }

    /// The time of modification that a file had before the Install, as far as is known.
    fn modified_before(&mut self, stayed: &Stayed, file: &StayedFile) -> io::Result<Option<i64>> {
        let StayedFile(name, _, retimed) = file;
        if let Some(retimed) = retimed {
            return Ok(Some(retimed.before));
        }
        let source = stayed.source.join(name);
        match self.handles.parent(&source) {
            Ok((folder, name)) => Ok(Status::at(&folder, name).ok().map(|status| status.modified)),
            Err(error) if is_nowhere(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a file again, if the revision still has what it contained.
    fn make_again(&mut self, stayed: &Stayed, file: &StayedFile, is_there: bool) -> io::Result<()> {
        let StayedFile(name, sum, retimed) = file;
        let (path, source) = (stayed.folder.join(name), stayed.source.join(name));
        if !matches!(
            Found::look(&source, *sum, &mut self.handles)?,
            Found::Same(_)
        ) {
            let state = if is_there {
                "changed since the Install, and stays"
            } else {
                "gone"
            };
            self.warn(format!(
                "{} is {state}: {}, which had the same content, was changed, too",
                path.display(),
                source.display()
            ));
            return Ok(());
        }
        let spare = self.beside(&path);
        let counted = if is_there {
            &mut self.counts.replaced
        } else {
            &mut self.counts.created
        };
        *counted += 1;
        if is_there {
            self.warnings.push(Warning::Changed {
                path: path.clone(),
                spare: spare.clone(),
                below: PathBuf::new(),
            });
        }
        self.restoration.copies.push(Copy {
            source,
            spare: spare.clone(),
            access: stayed.access.clone(),
            modified: retimed.as_ref().map(|retimed| retimed.before),
        });
        self.restoration.steps.push(Step::Swap(Swap {
            path,
            spare,
            brings: true,
            takes: if is_there {
                Takes::Anything
            } else {
                Takes::Nothing
            },
            keep: Keep::ForUndo,
        }));
        Ok(())
    }
}

impl Found {
    fn look(path: &Path, sum: u32, handles: &mut Handles) -> io::Result<Self> {
        let opened = handles
            .parent(path)
            .and_then(|(folder, name)| folder.file(name));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Gone),
            // A link, or a file in the way of the path.
            Err(error) if is_nowhere(&error) => return Ok(Self::Changed),
            Err(error) => return Err(error),
        };
        let status = Status::of(&file)?;
        if !status.kind.is_file() || checksum(&file)? != sum {
            return Ok(Self::Changed);
        }
        Ok(Self::Same(Box::new((Access::read(&file)?, status))))
    }
}

impl Work for Restoration {
    fn build(&self) -> Result<BTreeSet<PathBuf>, StepError> {
        let mut handles = Handles::default();
        // The outermost first.
        let folders: std::collections::BTreeMap<_, _> = self
            .folders
            .iter()
            .map(|(path, access)| (path, access))
            .collect();
        for (path, access) in folders {
            let made = handles.parent(path).and_then(|(parent, name)| {
                if parent.stat(name)?.is_none() {
                    parent.create_folder(name)?;
                }
                access.apply(parent.folder(name)?)
            });
            made.map_err(StepError::at("create the folder", path))?;
        }
        for copy in &self.copies {
            copy.make(&mut handles)
                .map_err(StepError::at("copy to", &copy.spare))?;
        }
        let built = self.copies.iter().map(|copy| &copy.spare);
        let named = built.chain(self.folders.iter().map(|(path, _)| path));
        Ok(named
            .filter_map(|path| path.parent().map(Path::to_path_buf))
            .collect())
    }

    fn handles(&self) -> Handles {
        Handles::default()
    }

    fn staged(&self) -> impl Iterator<Item = PathBuf> {
        self.copies.iter().map(|copy| copy.spare.clone())
    }

    fn steps(&self) -> impl Iterator<Item = Cow<'_, Step>> {
        self.steps.iter().map(Cow::Borrowed)
    }

    fn known(&self, _: PathId, _: &OsStr) -> Option<Known> {
        None
    }
}

impl Copy {
    fn make(&self, handles: &mut Handles) -> io::Result<()> {
        let (from, source) = handles.parent(&self.source)?;
        let mut source: File = from.file(source)?;
        let (folder, name) = handles.parent(&self.spare)?;
        let mut file = folder.create_file(name)?;
        io::copy(&mut source, &mut file)?;
        self.access.apply(&file)?;
        let modified = match self.modified {
            Some(modified) => modified,
            None => Status::of(&source)?.modified,
        };
        Ok(rustix::fs::futimens(&file, &modified_at(modified))?)
    }
}
