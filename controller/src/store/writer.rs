//! The writing thread: pieces of work that wait are committed together.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::{Priority, StoreError, Tx};
use crate::metrics::StoreMetrics;

/// A piece of work. It returns a function that answers its caller, once it is known whether the
/// work is on disk.
pub(super) type Job = Box<dyn FnOnce(Result<&Tx<'_>, StoreError>) -> Answer + Send>;
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

/// A piece of work that waits for its turn.
pub(super) struct Waiting {
    pub(super) priority: Priority,
    pub(super) job: Job,
}

/// The number of pieces of work that are committed together, and the time that the first waits for
/// the others. They share the flush to the disk, and the pages that they write.
const TOGETHER: usize = 1024;
const GATHERING: Duration = Duration::from_millis(20);

/// One in so many turns is for work of low priority.
const TURNS: usize = 4;

/// The waiting work in the order in which it is carried out.
pub(super) struct Queue {
    arriving: mpsc::Receiver<Waiting>,
    normal: VecDeque<Job>,
    low: VecDeque<Job>,
    turn: usize,
}

impl Queue {
    pub(super) fn of(arriving: mpsc::Receiver<Waiting>) -> Self {
        Queue {
            arriving,
            normal: VecDeque::new(),
            low: VecDeque::new(),
            turn: 0,
        }
    }

    /// Waits for the next piece of work; `None` if no more can come.
    pub(super) fn wait(&mut self) -> Option<Job> {
        if let Some(next) = self.next() {
            return Some(next);
        }
        let first = self.arriving.recv().ok()?;
        self.put(first);
        self.next()
    }

    fn put(&mut self, waiting: Waiting) {
        match waiting.priority {
            Priority::Normal => self.normal.push_back(waiting.job),
            Priority::Low => self.low.push_back(waiting.job),
        }
    }

    fn next(&mut self) -> Option<Job> {
        while let Ok(waiting) = self.arriving.try_recv() {
            self.put(waiting);
        }
        self.turn = (self.turn + 1) % TURNS;
        let (first, second) = match self.turn {
            0 => (&mut self.low, &mut self.normal),
            _ => (&mut self.normal, &mut self.low),
        };
        first.pop_front().or_else(|| second.pop_front())
    }
}

/// Runs the first piece of work, and those that arrive meanwhile, in one transaction.
pub(super) fn carry_out(
    connection: &mut Connection,
    first: Job,
    queue: &mut Queue,
    metrics: Option<&StoreMetrics>,
) {
    let taken = || {
        if let Some(metrics) = metrics {
            metrics.queue.dec();
        }
    };
    taken();
    // Immediate: the administrative commands write to the same file, and a late lock could be
    // refused.
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => return first(Err(StoreError::Transaction(error.into())))(Ok(())),
    };
    let tx = Tx::new(&transaction);
    let began = Instant::now();
    let mut answers = Vec::new();
    let mut jobs = 0_u32;
    let mut next = Some(first);
    while let Some(job) = next {
        jobs += 1;
        // A panic undoes the savepoint; only that caller gets no answer.
        match catch_unwind(AssertUnwindSafe(|| job(Ok(&tx)))) {
            Ok(answer) => answers.push(answer),
            Err(_) => drop(transaction.execute_batch(UNDO)),
        }
        let more = answers.len() < TOGETHER && began.elapsed() < GATHERING;
        next = if more { queue.next() } else { None };
        next.iter().for_each(|_| taken());
    }
    let began = Instant::now();
    let committed = transaction.commit().map_err(Arc::new);
    if let Some(metrics) = metrics {
        metrics.batch_jobs.observe(jobs.into());
        metrics
            .commit_seconds
            .observe(began.elapsed().as_secs_f64());
    }
    for answer in answers {
        let committed = committed.as_ref().copied();
        answer(committed.map_err(|error| StoreError::Commit(Arc::clone(error))));
    }
}

const UNDO: &str = "ROLLBACK TO work; RELEASE work";

pub(super) fn job<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    work: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    answer: impl FnOnce(Result<T, E>) + Send + 'static,
) -> Job {
    // Log lines of the work on the database's thread belong to its request.
    let span = tracing::Span::current();
    Box::new(move |tx| {
        let carry_out = |tx| in_savepoint(tx, work);
        let done = span.in_scope(|| tx.map_err(E::from).and_then(carry_out));
        Box::new(move |committed| span.in_scope(|| answer(committed.map_err(E::from).and(done))))
    })
}

fn in_savepoint<T, E: From<StoreError>>(
    tx: &Tx<'_>,
    work: impl FnOnce(&Tx<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let control = |sql: &str| tx.execute(sql, ()).map_err(StoreError::Transaction);
    control("SAVEPOINT work")?;
    let done = work(tx);
    if done.is_err() {
        control("ROLLBACK TO work")?;
    }
    control("RELEASE work")?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_low_priority_waits_for_the_other_and_gets_a_turn() {
        let (sender, receiver) = mpsc::channel();
        let (done, order) = mpsc::channel();
        let mut queue = Queue::of(receiver);
        let priorities = [Priority::Low; 2].into_iter().chain([Priority::Normal; 5]);
        for (number, priority) in priorities.enumerate() {
            let done = done.clone();
            let job: Job = Box::new(move |_| {
                done.send(number).unwrap();
                Box::new(|_| {})
            });
            sender.send(Waiting { priority, job }).unwrap();
        }
        drop((sender, done));
        while let Some(job) = queue.wait() {
            drop(job(Err(StoreError::Gone)));
        }
        let order: Vec<_> = order.iter().collect();
        assert_eq!(order, [2, 3, 4, 0, 5, 6, 1]);
    }
}
