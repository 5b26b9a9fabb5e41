//! Read-only connections. They see the last committed state, and wait for no writer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use rusqlite::Connection;

use super::{StoreError, Tx, sqlite};

/// The number of connections, so that one long list blocks nobody.
const NUMBER: usize = 2;

/// A piece of work, which answers its caller.
type Job = Box<dyn FnOnce(Result<&Tx<'_>, StoreError>) + Send>;

/// Threads with a connection each, which end with this.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    jobs: mpsc::Sender<Job>,
}

impl Readers {
    /// Opens connections to a database with the schema of this program.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..NUMBER {
            let mut connection = sqlite::connect_to_read(path)?;
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name("reader".into());
            thread
                .spawn(move || while carry_out_next(&mut connection, &queue) {})
                .map_err(StoreError::Thread)?;
        }
        Ok(Readers { jobs })
    }

    pub(super) fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.send(job).map_err(|_| StoreError::Gone)
    }
}

/// Returns whether there may be more to do.
fn carry_out_next(connection: &mut Connection, queue: &Mutex<mpsc::Receiver<Job>>) -> bool {
    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let Ok(job) = next else { return false };
    // A panic only costs its own caller the answer.
    let _ = catch_unwind(AssertUnwindSafe(|| match connection.transaction() {
        Ok(transaction) => job(Ok(&Tx::for_reading(&transaction))),
        Err(error) => job(Err(StoreError::Transaction(error.into()))),
    }));
    true
}
