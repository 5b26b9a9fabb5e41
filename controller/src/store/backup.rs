//! Copies of the database: made while the service runs, and put back while it does not.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, sqlite};
use crate::vault::give_to_owner_of_folder;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{} exists already: name a new file", .0.display())]
    Exists(PathBuf),
    #[error("there is no database {}: is this the data directory of a service?", .0.display())]
    NoDatabase(PathBuf),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot copy the database to {}", path.display())]
    Copy { path: PathBuf, source: rusqlite::Error },
    #[error("cannot read the backup {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the backup {} is not a database of this service", path.display())]
    NotABackup { path: PathBuf, source: rusqlite::Error },
    #[error("the backup {} has schema version {found}, not one of 1 to {}: is it of a newer version, or of another program?", path.display(), sqlite::VERSION)]
    Version { path: PathBuf, found: i64 },
    #[error(transparent)]
    Damaged(#[from] StoreError),
}

/// Copies the database as it is at one moment into a new file, its owner's alone. The service goes on meanwhile.
pub fn backup(database: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::Write { path: to.to_owned(), source };
    if !database.is_file() {
        return Err(BackupError::NoDatabase(database.to_owned()));
    }
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BackupError::Exists(to.to_owned()));
        }
        file => file.map_err(failed)?,
    };
    let copied = copy(database, to);
    if copied.is_err() {
        // What it has so far is not a backup; the error tells of the cause.
        let _ = std::fs::remove_file(to);
    }
    copied.map_err(|source| BackupError::Copy { path: to.to_owned(), source })?;
    file.sync_all().and_then(|()| sync_folder_of(to)).map_err(failed)
}

fn copy(database: &Path, to: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(sqlite::PATIENCE)?;
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(())
}

/// Puts a backup in the place of the database, which is kept beside it; gives the path of what was there.
///
/// Nobody may have the database open: the caller holds the data directory's lock.
pub fn restore(database: &Path, from: &Path) -> Result<Option<PathBuf>, BackupError> {
    check(from)?;
    let staged = beside(database, "restored");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Write { path, source }
    };
    let mut content =
        File::open(from).map_err(|source| BackupError::Read { path: from.to_owned(), source })?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&staged).map_err(failed(&staged))?;
    io::copy(&mut content, &mut file)
        .and_then(|_| give_to_owner_of_folder(&file, &staged))
        .and_then(|()| file.sync_all())
        .map_err(failed(&staged))?;
    let before = database.exists().then(|| beside(database, "before-restore"));
    if let Some(before) = &before {
        // What is in the journal belongs to what is kept; a damaged database is kept as it is.
        let _ = Connection::open(database)
            .and_then(|connection| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        std::fs::rename(database, before).map_err(failed(before))?;
    }
    for journal in ["-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{journal}", database.display()));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed(&path))?,
        }
    }
    std::fs::rename(&staged, database).and_then(|()| sync_folder_of(database)).map_err(failed(database))?;
    Ok(before)
}

/// Whether a file is a whole database that this program can go on with.
fn check(path: &Path) -> Result<(), BackupError> {
    let unreadable = |source| BackupError::Read { path: path.to_owned(), source };
    let foreign = |source| BackupError::NotABackup { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(foreign)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(foreign)?;
    if !(1..=sqlite::VERSION).contains(&found) {
        return Err(BackupError::Version { path: path.to_owned(), found });
    }
    Ok(sqlite::check(&connection, path)?)
}

fn beside(database: &Path, what: &str) -> PathBuf {
    database.with_extension(what)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
}
