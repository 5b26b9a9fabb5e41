//! The database: one thread holds the only writing connection, and every piece of work is one
//! transaction on it. Reads have [connections of their own](readers).
//!
//! A transaction is on disk before its caller continues (WAL, `synchronous=FULL`). Waiting pieces
//! of work are committed together, each in its own savepoint: a thousand hosts that report at once
//! cost a few disk writes instead of a thousand. `store::sqlite` has the schema; the modules of the
//! domain own their rows.

pub mod backup;
mod readers;
mod sqlite;
mod tx;
mod value;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::metrics::StoreMetrics;
use backup::BackupError;
use readers::Readers;
pub(crate) use tx::named;
pub use tx::{ColumnIndex, EngineError, Named, Params, Row, SqlError, Tx};
pub use value::{FromValue, Json, ToValue, Unreadable, Value};
use writer::{Job, Queue, Waiting};

/// A handle to the database; clones share it. The thread ends with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Waiting>,
    /// Absent if the one connection also reads: in memory, and for the administrative commands.
    readers: Option<Readers>,
    metrics: Option<StoreMetrics>,
    /// The database, if its pages were not checked when it was opened.
    unchecked: Option<Arc<Path>>,
}

/// Whose turn it is if pieces of work wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Normal,
    /// It can wait for the others, but not for ever: each takes its turn now and then.
    Low,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the database {}", path.display())]
    Open {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("the file system of the database {} is full: make room, and try again", .0.display())]
    Full(PathBuf),
    #[error("cannot make the database {} private", path.display())]
    Private {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot bring the database {} to schema version {}", path.display(), sqlite::VERSION)]
    Migrate {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error(
        "the database {} has schema version {found}; this program knows up to {}: start the version that wrote it",
        path.display(), sqlite::VERSION
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("the database {} has schema version {found}; this program writes version {}", path.display(), sqlite::VERSION)]
    Older { path: PathBuf, found: i64 },
    #[error(
        "cannot keep a copy of the database before its upgrade to schema version {}",
        sqlite::VERSION
    )]
    Copy(#[source] Box<BackupError>),
    #[error(
        "the database {} is damaged ({found}): stop the service and restore a backup (codedeploy-controller restore FILE)", path.display()
    )]
    Damaged { path: PathBuf, found: String },
    #[error("cannot start the database's thread")]
    Thread(#[source] std::io::Error),
    #[error("the database refused a transaction")]
    Transaction(#[from] SqlError),
    #[error("the database could not write a transaction")]
    Commit(#[source] Arc<rusqlite::Error>),
    #[error("a transaction panicked and was undone")]
    Gone,
}

impl Store {
    /// Opens the database, and makes or migrates it if necessary; a copy from before a migration is
    /// kept beside it.
    ///
    /// The caller holds the data directory's lock.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Self::of(sqlite::open(path)?)
    }

    /// Opens the database if it has the schema of this program; an [older](StoreError::Older) one
    /// is left alone.
    pub fn open_current(path: &Path) -> Result<Store, StoreError> {
        Self::of(sqlite::open_current(path)?)
    }

    /// [`open`](Self::open) after a check of every page of the database: a damaged one is rejected.
    /// For a service, which reads and writes concurrently.
    ///
    /// A large database is checked by [`check`](Self::check), unless it must be migrated.
    pub fn open_checked(path: &Path, metrics: Option<StoreMetrics>) -> Result<Store, StoreError> {
        let connection = sqlite::connect(path)?;
        let is_later = sqlite::is_large(path) && sqlite::is_current(&connection, path)?;
        if !is_later {
            sqlite::check(&connection, path)?;
        }
        let store = Self::measured(sqlite::migrated(connection, path)?, metrics)?;
        Ok(Store {
            readers: Some(Readers::open(path)?),
            unchecked: is_later.then(|| path.into()),
            ..store
        })
    }

    /// Checks every page of the database, unless that was done when it was opened. Others read and
    /// write meanwhile.
    pub async fn check(&self) -> Result<(), StoreError> {
        let Some(path) = self.unchecked.clone() else {
            return Ok(());
        };
        let (answer, result) = oneshot::channel();
        // A stop of the service does not wait for this thread.
        let thread = thread::Builder::new().name("check".into());
        thread
            .spawn(move || {
                // The service comes first.
                let _ = rustix::process::nice(19);
                let connection = sqlite::connect_to_read(&path);
                let checked = connection.and_then(|connection| sqlite::check(&connection, &path));
                let _ = answer.send(checked);
            })
            .map_err(StoreError::Thread)?;
        result.await.map_err(|_| StoreError::Gone)?
    }

    /// A database that is gone with the last handle, for simulations.
    pub fn in_memory() -> Result<Store, StoreError> {
        Self::of(sqlite::in_memory()?)
    }

    fn of(connection: Connection) -> Result<Store, StoreError> {
        Self::measured(connection, None)
    }

    fn measured(
        mut connection: Connection,
        metrics: Option<StoreMetrics>,
    ) -> Result<Store, StoreError> {
        sqlite::keep_savepoints_in_memory(&connection).map_err(SqlError::from)?;
        let measured = metrics.clone();
        let (jobs, queue) = mpsc::channel();
        let mut queue = Queue::of(queue);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                while let Some(first) = queue.wait() {
                    writer::carry_out(&mut connection, first, &mut queue, metrics.as_ref());
                }
            })
            .map_err(StoreError::Thread)?;
        Ok(Store {
            jobs,
            readers: None,
            metrics: measured,
            unchecked: None,
        })
    }

    /// Runs `work` as one transaction, which is committed if it returns `Ok` and undone if it
    /// returns `Err`.
    pub async fn transact<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.transact_at(Priority::Normal, work).await
    }

    /// The same with a priority.
    pub async fn transact_at<T, E, W>(&self, priority: Priority, work: W) -> Result<T, E>
    where
        W: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        // The work is done even if the caller is gone.
        let job = writer::job(work, move |done| drop(answer.send(done)));
        self.send(priority, job)?;
        result.await.map_err(|_| StoreError::Gone)?
    }

    fn send(&self, priority: Priority, job: Job) -> Result<(), StoreError> {
        if let Some(metrics) = &self.metrics {
            metrics.queue.inc();
        }
        let waiting = Waiting { priority, job };
        self.jobs.send(waiting).map_err(|_| StoreError::Gone)
    }

    /// Runs `work`, which only reads, on the last committed state.
    pub async fn read<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let Some(readers) = &self.readers else {
            return self.transact(work).await;
        };
        let (answer, result) = oneshot::channel();
        let span = tracing::Span::current();
        readers.send(Box::new(move |transaction| {
            let done = span.in_scope(|| transaction.map_err(E::from).and_then(work));
            drop(answer.send(done));
        }))?;
        result.await.map_err(|_| StoreError::Gone)?
    }

    /// The blocking variant of [`transact`](Self::transact), for the command line.
    pub fn transact_blocking<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, result) = mpsc::channel();
        let job = writer::job(work, move |done| drop(answer.send(done)));
        self.send(Priority::Normal, job)?;
        result.recv().map_err(|_| StoreError::Gone)?
    }
}

/// Returns SQLite's query plan of a statement, independent of its values.
#[cfg(test)]
pub(crate) fn way_of(sql: &'static str) -> String {
    let store = Store::in_memory().unwrap();
    let steps = store
        .transact_blocking(move |tx| -> Result<Vec<String>, StoreError> { Ok(tx.explain(sql)?) });
    steps.unwrap().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transaction_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).unwrap();
        let insert =
            "INSERT INTO applications (id, name, created, tags) VALUES ('1', 'shop', 0, '[]')";
        let refused: Result<(), StoreError> = store.transact_blocking(move |tx| {
            tx.execute(insert, ())?;
            Err(StoreError::Gone)
        });
        assert!(refused.is_err());
        let count: i64 = store
            .transact_blocking(|tx| {
                Ok::<_, StoreError>(tx.query_one(
                    "SELECT count(*) FROM applications",
                    (),
                    |row| row.get(0),
                )?)
            })
            .unwrap();
        assert_eq!(count, 0);
    }

    #[test]
    fn a_panic_costs_one_transaction_and_not_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).unwrap();
        let broken: Result<(), StoreError> = store.transact_blocking(|_| panic!("on purpose"));
        assert!(matches!(broken, Err(StoreError::Gone)));
        assert!(store.transact_blocking(|_| Ok::<_, StoreError>(())).is_ok());
    }

    #[test]
    fn a_damaged_database_is_refused_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        drop(Store::open_checked(&path, None).unwrap());
        let copy = folder.path().join("copy");
        backup::copy(&path, &copy).unwrap();
        let whole = std::fs::read(&copy).unwrap();
        let path = folder.path().join("other");
        let refused = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let error = Store::open_checked(&path, None).map(|_| ()).unwrap_err();
            let text = crate::error::chain(&error);
            assert!(
                text.contains("damaged") && text.contains("restore"),
                "{text}"
            );
        };
        let mut broken = whole.clone();
        let page = broken.len() / 2;
        broken[page..page + 4096].fill(0xa5);
        refused(&broken);
        refused(&vec![0xff; 100_000]);
        refused(&whole[..whole.len() / 2]);
        // An empty file is a database without any writes.
        std::fs::write(&path, b"").unwrap();
        assert!(Store::open_checked(&path, None).is_ok());
    }

    #[test]
    fn a_database_of_a_newer_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        drop(Store::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert!(matches!(
            Store::open(&path),
            Err(StoreError::Newer { found: 99, .. })
        ));
    }

    #[test]
    fn the_first_schema_is_migrated_and_keeps_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(include_str!("store/sqlite/v1.sql"))
            .unwrap();
        let insert =
            "INSERT INTO applications (id, name, created, tags) VALUES ('1', 'shop', 0, '[]')";
        connection.execute(insert, []).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        drop(connection);
        let store = Store::open(&path).unwrap();
        let found: (i64, String, i64) = store
            .transact_blocking(|tx| {
                let sql = "SELECT user_version, name, (SELECT count(*) FROM deployment_configs)
                           FROM applications, pragma_user_version";
                Ok::<_, StoreError>(
                    tx.query_one(sql, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?,
                )
            })
            .unwrap();
        assert_eq!(found, (sqlite::VERSION, "shop".to_owned(), 0));
    }

    #[test]
    fn a_migration_keeps_every_row_and_the_order_in_which_rows_were_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let schema = include_str!("../tests/suite/storage/schemas/v12.sql");
        Connection::open(&path)
            .unwrap()
            .execute_batch(schema)
            .unwrap();
        let store = Store::open(&path).unwrap();
        let column = |sql: &'static str| -> Vec<String> {
            store
                .transact_blocking(move |tx| {
                    Ok::<_, StoreError>(tx.query_all(sql, (), |row| row.get(0))?)
                })
                .unwrap()
        };
        let revision =
            r#"{"revisionType":"S3","s3Location":{"bucket":"b","key":"k.zip","bundleType":"zip"}}"#;
        for (sql, expected) in [
            (
                "SELECT id FROM deployments ORDER BY sequence",
                &["d-TEREFL8Z0", "d-S4PPINKI8"][..],
            ),
            ("SELECT revision FROM deployments", &[revision, revision]),
            (
                "SELECT substr(arn, -2) FROM instances WHERE name = 'box0' ORDER BY sequence",
                &["Aa", "Zz"],
            ),
            (
                "SELECT location FROM revisions WHERE sequence = 1",
                &[revision],
            ),
            ("SELECT target_id || status FROM targets", &["box1Pending"]),
            ("SELECT deployment_id FROM commands", &["d-S4PPINKI8"]),
            (
                "SELECT name FROM deployment_groups WHERE config_name = 'CodeDeployDefault.AllAtOnce'",
                &["web"],
            ),
            (
                "SELECT coalesce(target_id, '') || status FROM state_changes ORDER BY sequence",
                &["Created", "box1Failed"],
            ),
            ("SELECT group_name FROM pending_deployments", &["gone"]),
            (
                "SELECT sequencer FROM bucket_notifications",
                &["0055AED6DCD90281E5"],
            ),
        ] {
            assert_eq!(column(sql), expected, "{sql}");
        }
        // A deleted row takes its dependent rows with it, as before.
        store
            .transact_blocking(|tx| {
                Ok::<_, StoreError>(tx.execute("DELETE FROM applications", ())?)
            })
            .unwrap();
        for table in [
            "SELECT id FROM deployments",
            "SELECT target_id FROM targets",
            "SELECT id FROM commands",
        ] {
            assert!(column(table).is_empty(), "{table}");
        }
    }
}
