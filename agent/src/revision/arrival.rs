//! The arrival of a bundle: several streams fill its file, and a reader follows them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The parts of a file that have arrived.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Everything before this position is in the file.
    ready: u64,
    /// What arrived behind it, by position, with the position of its end. Streams work side by
    /// side, so these are few.
    ahead: BTreeMap<u64, u64>,
    /// All bytes, counted as often as they came.
    received: u64,
    ended: Option<Ended>,
}

#[derive(Debug, Clone, Copy)]
enum Ended {
    Whole,
    GivenUp,
}

impl Arrival {
    /// Notes that `length` bytes from `position` are in the file.
    pub(super) fn wrote(&self, position: u64, length: u64) {
        let mut state = self.state();
        state.received = state.received.saturating_add(length);
        state.add(position, position.saturating_add(length));
        self.changed.notify_all();
    }

    /// The number of bytes that came.
    pub(super) fn received(&self) -> u64 {
        self.state().received
    }

    /// Notes that the file is complete.
    pub(super) fn complete(&self) {
        self.end(Ended::Whole);
    }

    /// Notes that the file will not become complete.
    pub(super) fn give_up(&self) {
        self.end(Ended::GivenUp);
    }

    fn end(&self, ended: Ended) {
        self.state().ended.get_or_insert(ended);
        self.changed.notify_all();
    }

    /// Blocks until the byte at `position` is in the file, or the file is complete; returns the
    /// position up to which it can be read.
    ///
    /// # Errors
    ///
    /// Fails once the file will not become complete.
    pub(super) fn wait(&self, position: u64) -> io::Result<u64> {
        let waiting = |state: &mut State| state.ended.is_none() && state.ready <= position;
        let state = self.changed.wait_while(self.state(), waiting);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        match state.ended {
            None => Ok(state.ready),
            Some(Ended::Whole) => Ok(u64::MAX),
            Some(Ended::GivenUp) => Err(io::Error::other("the download ended early")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, from: u64, to: u64) {
        let known = self.ahead.entry(from).or_insert(to);
        *known = to.max(*known);
        while let Some(first) = self.ahead.first_entry()
            && *first.key() <= self.ready
        {
            self.ready = self.ready.max(first.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_what_has_arrived_without_a_gap() {
        let arrival = Arrival::default();
        arrival.wrote(0, 10);
        assert_eq!(arrival.wait(0).unwrap(), 10);
        arrival.wrote(20, 10);
        arrival.wrote(30, 5);
        assert_eq!(arrival.wait(9).unwrap(), 10);
        arrival.wrote(10, 10);
        assert_eq!(arrival.wait(10).unwrap(), 35);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| arrival.wait(35));
            arrival.wrote(35, 1);
            assert_eq!(reader.join().unwrap().unwrap(), 36);
        });
        arrival.complete();
        arrival.give_up();
        assert_eq!(arrival.wait(1000).unwrap(), u64::MAX);
    }

    #[test]
    fn a_reader_does_not_wait_for_what_will_not_come() {
        let arrival = Arrival::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| arrival.wait(0));
            arrival.give_up();
            assert!(reader.join().unwrap().is_err());
        });
    }
}
