//! The schema and its migrations. Times are milliseconds since the epoch.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{StoreError, backup};

/// One script per version; a released script is never changed.
const MIGRATIONS: [&str; 20] = [
    include_str!("sqlite/v1.sql"),
    include_str!("sqlite/v2.sql"),
    include_str!("sqlite/v3.sql"),
    include_str!("sqlite/v4.sql"),
    include_str!("sqlite/v5.sql"),
    include_str!("sqlite/v6.sql"),
    include_str!("sqlite/v7.sql"),
    include_str!("sqlite/v8.sql"),
    include_str!("sqlite/v9.sql"),
    include_str!("sqlite/v10.sql"),
    include_str!("sqlite/v11.sql"),
    include_str!("sqlite/v12.sql"),
    include_str!("sqlite/v13.sql"),
    include_str!("sqlite/v14.sql"),
    include_str!("sqlite/v15.sql"),
    include_str!("sqlite/v16.sql"),
    include_str!("sqlite/v17.sql"),
    include_str!("sqlite/v18.sql"),
    include_str!("sqlite/v19.sql"),
    include_str!("sqlite/v20.sql"),
];

/// The schema version of this program, kept in `user_version`.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// The time to wait for another process that writes.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The memory for pages of the database, used on demand: a deployment to ten thousand hosts has 25
/// MiB.
const CACHE_KIB: i64 = 28 * 1024;

/// The same for each read-only connection, and for the check of every page.
const READER_CACHE_KIB: i64 = 2 * 1024;

/// The pages of the write-ahead log, of 4 KiB, after which they are copied into the database. A page
/// that many transactions wrote is copied once.
const CHECKPOINT_PAGES: i64 = 8192;

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    migrated(connect(path)?, path)
}

/// Opens a database with the schema of this program.
pub(super) fn open_current(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path)?;
    match missing(&connection, path)? {
        (_, []) => Ok(connection),
        (found, _) => Err(StoreError::Older {
            path: path.to_owned(),
            found,
        }),
    }
}

/// Opens a database unchanged; a new one is empty.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    make_private(path).map_err(|source| StoreError::Private {
        path: path.to_owned(),
        source,
    })?;
    let open = || {
        let connection = with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        )?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        prepare(connection)
    };
    open().map_err(|source| unopened(path, source))
}

/// Opens a database read-only.
pub(super) fn connect_to_read(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        keep_statements(&connection)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        Ok(connection)
    };
    open().map_err(|source| unopened(path, source))
}

fn with_flags(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn unopened(path: &Path, source: rusqlite::Error) -> StoreError {
    broken(path, source, |path, source| StoreError::Open {
        path,
        source,
    })
}

pub(super) fn in_memory() -> Result<Connection, StoreError> {
    let path = Path::new(":memory:");
    let connection = Connection::open_in_memory().and_then(prepare);
    migrated(
        connection.map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source,
        })?,
        path,
    )
}

fn prepare(connection: Connection) -> rusqlite::Result<Connection> {
    connection.pragma_update(None, "foreign_keys", true)?;
    keep_statements(&connection)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

/// Keeps the pages that a savepoint would restore in memory: each piece of work is one, and they
/// would be written to a temporary file. Not for migrations, which sort whole tables.
pub(super) fn keep_savepoints_in_memory(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Compiles each statement once.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(128);
    // Else a statement whose plan might depend on its parameters is compiled again each time they
    // change.
    let stable = DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
    connection.set_db_config(stable, true).map(drop)
}

/// Makes the file, if it is missing, and removes all permissions but its owner's. SQLite gives its
/// journals the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        file.set_permissions(Permissions::from_mode(mode & 0o700))
    }
}

/// The largest database, in bytes, that is checked before a service starts.
const CHECKED_FIRST: u64 = 32 * 1024 * 1024;

/// Whether a check of every page takes longer than a start of the service should.
pub(super) fn is_large(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.len() > CHECKED_FIRST)
}

/// Whether the database has the schema of this program.
pub(super) fn is_current(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    Ok(missing(connection, path)?.1.is_empty())
}

/// Reads every page, and rejects an inconsistent database.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| {
        broken(path, source, |path, source| StoreError::Open {
            path,
            source,
        })
    };
    // None of the pages is needed again soon.
    connection
        .pragma_update(None, "cache_size", -READER_CACHE_KIB)
        .map_err(failed)?;
    let mut statement = connection
        .prepare("PRAGMA quick_check(5)")
        .map_err(failed)?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
    let found: Vec<String> = rows.collect::<Result<_, _>>().map_err(failed)?;
    connection
        .pragma_update(None, "cache_size", -CACHE_KIB)
        .map_err(failed)?;
    let found = found.join("; ");
    if found == "ok" {
        Ok(())
    } else {
        Err(StoreError::Damaged {
            path: path.to_owned(),
            found,
        })
    }
}

/// All of SQLite's errors about a damaged file become one error.
fn broken(
    path: &Path,
    source: rusqlite::Error,
    otherwise: impl FnOnce(PathBuf, rusqlite::Error) -> StoreError,
) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
    use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    match source.sqlite_error_code() {
        Some(DiskFull) => StoreError::Full(path.to_owned()),
        // The journal's index is a file, too, with its final size from the start.
        Some(_)
            if source
                .sqlite_error()
                .is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE) =>
        {
            StoreError::Full(path.to_owned())
        }
        Some(DatabaseCorrupt | NotADatabase) => StoreError::Damaged {
            path: path.to_owned(),
            found: source.to_string(),
        },
        _ => otherwise(path.to_owned(), source),
    }
}

/// Returns the schema version of a database, and the scripts that it lacks.
fn missing(
    connection: &Connection,
    path: &Path,
) -> Result<(i64, &'static [&'static str]), StoreError> {
    let failed = |source| {
        broken(path, source, |path, source| StoreError::Open {
            path,
            source,
        })
    };
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed)?;
    match usize::try_from(found)
        .ok()
        .and_then(|found| MIGRATIONS.get(found..))
    {
        Some(missing) => Ok((found, missing)),
        None => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
        }),
    }
}

/// Returns the database with the schema of this program. A copy from before is kept beside it.
pub(super) fn migrated(mut connection: Connection, path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| {
        broken(path, source, |path, source| StoreError::Migrate {
            path,
            source,
        })
    };
    if let (1.., [_, ..]) = missing(&connection, path)? {
        backup::keep(path, &format!("before-v{VERSION}"))
            .map_err(|error| StoreError::Copy(Box::new(error)))?;
    }
    // Some tables are created anew in place of tables that others refer to. Enforcement cannot be
    // turned off within a transaction.
    let enforce =
        |connection: &Connection, on: bool| connection.pragma_update(None, "foreign_keys", on);
    enforce(&connection, false).map_err(failed)?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    for script in missing(&transaction, path)?.1 {
        transaction.execute_batch(script).map_err(failed)?;
    }
    transaction
        .pragma_update(None, "user_version", VERSION)
        .map_err(failed)?;
    transaction.commit().map_err(failed)?;
    enforce(&connection, true).map_err(failed)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection
            .query_row("PRAGMA max_page_count = 2", [], |_| Ok(()))
            .unwrap();
        let text = migrated(connection, &path).unwrap_err().to_string();
        assert!(
            text.contains("is full") && text.contains(path.to_str().unwrap()),
            "{text}"
        );
    }
}
