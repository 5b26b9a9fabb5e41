//! New files that a command makes outside the data directory: private, and removed if the command
//! fails.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum NewFileError {
    #[error("{} exists already: name a new file or folder", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// A new file with mode 0600. It is removed unless it is [kept](Self::keep).
#[derive(Debug)]
pub struct NewFile {
    open: Arc<OpenFile>,
    kept: bool,
}

/// An open file. Its holder can write to it, even on a thread that could not open it.
#[derive(Debug)]
pub struct OpenFile {
    path: PathBuf,
    file: File,
}

impl NewFile {
    /// Makes it, empty. An existing object, such as a link, is left alone.
    pub fn create(path: PathBuf) -> Result<Self, NewFileError> {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(file) => Ok(NewFile {
                open: Arc::new(OpenFile { path, file }),
                kept: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(NewFileError::Exists(path))
            }
            Err(source) => Err(NewFileError::Write { path, source }),
        }
    }

    pub fn to_write(&self) -> Arc<OpenFile> {
        Arc::clone(&self.open)
    }

    /// Keeps the file; its name survives a power cut.
    pub fn keep(mut self) -> Result<PathBuf, NewFileError> {
        self.kept = true;
        let path = self.open.path.clone();
        match sync_folder_of(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(NewFileError::Write { path, source }),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // The caller reports the original error.
            let _ = std::fs::remove_file(&self.open.path);
        }
    }
}

impl OpenFile {
    /// Writes everything from `content`; it is on disk when this returns.
    pub fn write(&self, mut content: impl io::Read) -> Result<(), NewFileError> {
        io::copy(&mut content, &mut &self.file)
            .and_then(|_| self.file.sync_all())
            .map_err(|source| NewFileError::Write {
                path: self.path.clone(),
                source,
            })
    }
}

/// Makes the names in a file's folder survive a power cut.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
}
