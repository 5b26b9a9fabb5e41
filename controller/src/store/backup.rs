//! Copies of the database: made while the service runs, and restored while it does not.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, sqlite};
use crate::new_file::{NewFileError, OpenFile, sync_folder_of};

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no database {}: is this the data directory of a service?", .0.display())]
    NoDatabase(PathBuf),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot copy the database to {}", path.display())]
    Copy {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error(transparent)]
    Output(#[from] NewFileError),
    #[error("cannot read the backup {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the backup {} is not a database of this service", path.display())]
    NotABackup {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("the backup {} has schema version {found}, not one of 1 to {}: is it of a newer version, or of another program?", path.display(), sqlite::VERSION)]
    Version { path: PathBuf, found: i64 },
    #[error(transparent)]
    Damaged(#[from] StoreError),
}

/// Copies a snapshot of the database. The service continues meanwhile.
///
/// The copy is made beside the database first: only the folder's owner may open that, and only
/// somebody else the target file.
pub fn backup(database: &Path, to: &OpenFile) -> Result<(), BackupError> {
    if !database.is_file() {
        return Err(BackupError::NoDatabase(database.to_owned()));
    }
    let staged = beside(database, &format!("backup-{}", std::process::id()));
    let copied = copy(database, &staged).and_then(|()| {
        File::open(&staged).map_err(|source| BackupError::Read {
            path: staged.clone(),
            source,
        })
    });
    // It stays readable while it is open.
    let removed = std::fs::remove_file(&staged);
    let content = copied?;
    removed.map_err(|source| BackupError::Write {
        path: staged,
        source,
    })?;
    Ok(to.write(content)?)
}

/// Copies a database into a file, and replaces an existing one.
pub(super) fn copy(database: &Path, to: &Path) -> Result<(), BackupError> {
    drop(private(to)?);
    let copying = || {
        let connection = open(database)?;
        connection.busy_timeout(sqlite::BUSY_TIMEOUT)?;
        connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])
    };
    copying().map_err(|source| BackupError::Copy {
        path: to.to_owned(),
        source,
    })?;
    let synced = File::open(to)
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_folder_of(to));
    synced.map_err(|source| BackupError::Write {
        path: to.to_owned(),
        source,
    })
}

/// Keeps a copy of the database beside it, and replaces an earlier one of the same name.
pub(super) fn keep(database: &Path, name: &str) -> Result<(), BackupError> {
    let (staged, kept) = (
        beside(database, &format!("{name}.new")),
        beside(database, name),
    );
    copy(database, &staged)?;
    std::fs::rename(&staged, &kept)
        .and_then(|()| sync_folder_of(&kept))
        .map_err(|source| BackupError::Write { path: kept, source })
}

/// An open backup; its opener may read it.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    content: File,
}

/// The result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// The path of the replaced database.
    pub kept: Option<PathBuf>,
    pub revocations: Revocations,
}

/// The revocations of keys and removals of hosts since the backup.
#[derive(Debug)]
pub enum Revocations {
    /// They stay in effect; with their numbers.
    Kept { keys: usize, hosts: usize },
    /// The replaced database was missing or unreadable. The valid keys, one per line.
    Unknown { good: Vec<String> },
}

impl Backup {
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let unreadable = |source| BackupError::Read {
            path: path.to_owned(),
            source,
        };
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(io::Error::other("it is not a regular file")));
        }
        Ok(Backup {
            path: path.to_owned(),
            content: File::open(path).map_err(unreadable)?,
        })
    }

    /// Replaces the database by the backup, and keeps the old one beside it.
    ///
    /// Nobody may have the database open: the caller holds the data directory's lock. After an
    /// interruption, both of them exist, and [`unfinished`] reports it.
    pub fn restore(self, database: &Path) -> Result<Restored, BackupError> {
        let incomplete = beside(database, "restoring");
        let staged = self.stage(&incomplete);
        if staged.is_err() {
            let _ = std::fs::remove_file(&incomplete);
        }
        let connection = staged?;
        let foreign = |source| BackupError::NotABackup {
            path: self.path.clone(),
            source,
        };
        end_sessions(&connection).map_err(foreign)?;
        let carried = carry_over(&connection, database);
        let revocations = match carried {
            Ok(kept) => kept,
            Err(_) => Revocations::Unknown {
                good: good_keys(&connection).map_err(foreign)?,
            },
        };
        drop(connection);
        let staged = beside(database, STAGED);
        let failed = |source| BackupError::Write {
            path: database.to_owned(),
            source,
        };
        File::open(&incomplete)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&incomplete, &staged))
            .and_then(|()| sync_folder_of(database))
            .map_err(failed)?;
        let kept = set_aside(database).map_err(failed)?;
        std::fs::rename(&staged, database)
            .and_then(|()| sync_folder_of(database))
            .map_err(failed)?;
        Ok(Restored { kept, revocations })
    }

    /// Copies it into a file, checks that it is a complete database that this program can use, and
    /// opens it.
    fn stage(&self, to: &Path) -> Result<Connection, BackupError> {
        let mut file = private(to)?;
        io::copy(&mut &self.content, &mut file).map_err(|source| BackupError::Write {
            path: to.to_owned(),
            source,
        })?;
        let foreign = |source| BackupError::NotABackup {
            path: self.path.clone(),
            source,
        };
        let connection = open(to).map_err(foreign)?;
        let found: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(foreign)?;
        if !(1..=sqlite::VERSION).contains(&found) {
            return Err(BackupError::Version {
                path: self.path.clone(),
                found,
            });
        }
        sqlite::check(&connection, &self.path)?;
        // One file, without a journal beside it.
        connection
            .pragma_update(None, "journal_mode", "DELETE")
            .map_err(foreign)?;
        Ok(connection)
    }
}

/// The complete backup that will replace the database.
const STAGED: &str = "restored";
const KEPT: &str = "before-restore";

/// Returns a file of an interrupted restore, beside which the service must not start: the staged
/// one, or the database itself if it was not replaced yet.
pub fn unfinished(database: &Path) -> Option<PathBuf> {
    let staged = beside(database, STAGED);
    let kept = beside(database, KEPT);
    if staged.exists() {
        return Some(staged);
    }
    (!database.exists() && kept.exists()).then_some(kept)
}

/// Renames the database and its journal, so that the database's name is free at once.
fn set_aside(database: &Path) -> io::Result<Option<PathBuf>> {
    // The journal belongs to the kept database. A damaged database is kept with its journal.
    let _ = open(database)
        .and_then(|connection| connection.pragma_update(None, "journal_mode", "DELETE"));
    let [journal, index] = ["-wal", "-shm"].map(|suffix| with_suffix(database, suffix));
    if !database.exists() && !journal.exists() {
        return Ok(None);
    }
    let names = (2..).map(|number| beside(database, &format!("{KEPT}-{number}")));
    for kept in std::iter::once(beside(database, KEPT)).chain(names) {
        let journal_kept = with_suffix(&kept, "-wal");
        if journal_kept.exists() {
            continue;
        }
        match std::fs::hard_link(database, &kept) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // Without a database, there is only a journal.
            _ => {}
        }
        sync_folder_of(database)?;
        for (from, to) in [(&journal, Some(&journal_kept)), (&index, None)] {
            let gone = match to {
                Some(to) => std::fs::rename(from, to),
                None => std::fs::remove_file(from),
            };
            match gone {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                gone => gone?,
            }
        }
        return Ok(Some(kept));
    }
    Ok(None)
}

/// Ends the sessions of the web console, and withdraws its login links: users may have logged out
/// since the backup, and used the links.
fn end_sessions(restored: &Connection) -> rusqlite::Result<()> {
    let has_console: bool = restored.query_row(
        "SELECT count(*) > 0 FROM sqlite_master WHERE name = 'console_sessions'",
        [],
        |row| row.get(0),
    )?;
    // A backup of an earlier version has none.
    if !has_console {
        return Ok(());
    }
    restored.execute_batch(
        "DELETE FROM credentials WHERE access_key_id IN
             (SELECT access_key_id FROM console_sessions WHERE own_key = 1);
         DELETE FROM console_sessions;
         DELETE FROM console_links;",
    )
}

/// Applies the replaced database's revocations and removals to the restored one, even for unknown
/// keys: an older backup may be restored later.
fn carry_over(restored: &Connection, database: &Path) -> rusqlite::Result<Revocations> {
    restored.execute("ATTACH ?1 AS replaced", [database.to_string_lossy()])?;
    let carried = restored.unchecked_transaction().and_then(|transaction| {
        let keys = transaction.execute(
            "UPDATE main.credentials SET revoked = r.revoked FROM replaced.credentials r
             WHERE r.access_key_id = credentials.access_key_id
               AND credentials.revoked IS NULL AND r.revoked IS NOT NULL",
            [],
        )?;
        let hosts = transaction.execute(
            "UPDATE main.instances SET deregistered = r.deregistered FROM replaced.instances r
             WHERE r.arn = instances.arn AND instances.deregistered IS NULL AND r.deregistered IS NOT NULL",
            [],
        )?;
        transaction.execute_batch(
            "INSERT OR IGNORE INTO main.credentials (access_key_id, secret, role, arn, created, revoked)
                 SELECT access_key_id, secret, role, arn, created, revoked FROM replaced.credentials
                 WHERE revoked IS NOT NULL;
             INSERT OR IGNORE INTO main.instances (arn, name, principal, registered, deregistered, tags)
                 SELECT arn, name, principal, registered, deregistered, tags FROM replaced.instances
                 WHERE deregistered IS NOT NULL;",
        )?;
        transaction.commit()?;
        Ok(Revocations::Kept { keys, hosts })
    });
    restored.execute("DETACH replaced", [])?;
    carried
}

fn good_keys(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT access_key_id, role, arn FROM credentials WHERE revoked IS NULL ORDER BY created")?
        .query_map([], |row| {
            let [id, role, arn]: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok(format!("{id}  {role:9}  {arn}"))
        })?
        .collect()
}

/// Opens an existing database.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Makes an empty, private file.
fn private(path: &Path) -> Result<File, BackupError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| BackupError::Write {
            path: path.to_owned(),
            source,
        })
}

fn beside(database: &Path, what: &str) -> PathBuf {
    database.with_extension(what)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
