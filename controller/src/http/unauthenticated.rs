//! The connections without a signed request so far. If there are too many, new ones wait, and the
//! oldest is closed after its grace period: clients without a key cannot keep out those with one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The time that a connection has to send a signed request while others wait. A fleet that returns
/// all at once needs less.
const GRACE: Duration = Duration::from_secs(5);

/// The connections on which no request was verified yet, by their age.
#[derive(Debug, Clone)]
pub(super) struct UnauthenticatedConnections {
    most: usize,
    waiting: Arc<Mutex<Waiting>>,
    room: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, (Instant, CancellationToken)>,
    /// Whether the overload was logged since it began.
    crowded: bool,
}

/// A connection's slot among the unauthenticated ones, until it is
/// [`authenticated`](Self::authenticated) or gone.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u64,
    others: UnauthenticatedConnections,
    evicted: CancellationToken,
}

impl UnauthenticatedConnections {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            waiting: Arc::default(),
            room: Arc::default(),
        }
    }

    /// Waits for a slot.
    pub(super) async fn admit(&self) -> Slot {
        loop {
            let room = self.room.notified();
            match self.try_admit(GRACE) {
                Ok(slot) => return slot,
                Err(until) => tokio::select! {
                    () = room => {}
                    () = tokio::time::sleep_until(until) => {}
                },
            }
        }
    }

    /// Takes a slot, or returns when the oldest connection has had its time.
    fn try_admit(&self, grace: Duration) -> Result<Slot, Instant> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        if waiting.by_age.len() >= self.most
            && let Some(oldest) = waiting.by_age.first_entry()
        {
            let until = oldest.get().0 + grace;
            if until > now {
                return Err(until);
            }
            oldest.remove().1.cancel();
            if !std::mem::replace(&mut waiting.crowded, true) {
                tracing::warn!(
                    most = self.most,
                    "too many connections have sent no signed request; the oldest of them are closed"
                );
            }
        }
        let (number, evicted) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.by_age.insert(number, (now, evicted.clone()));
        drop(waiting);
        Ok(Slot {
            number,
            others: self.clone(),
            evicted,
        })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Frees the slot: a request was verified on this connection.
    pub(crate) fn authenticated(&self) {
        let mut waiting = self.others.waiting();
        if waiting.by_age.remove(&self.number).is_some() {
            waiting.crowded &= waiting.by_age.len() > self.others.most / 2;
            self.others.room.notify_one();
        }
    }

    /// Waits until this connection has to give way to others.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.authenticated();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ones_wait_for_room_or_for_the_oldest_to_have_had_its_time() {
        let unauthenticated = UnauthenticatedConnections::new(2);
        let admit = || unauthenticated.try_admit(Duration::ZERO).unwrap();
        let (first, second) = (admit(), admit());
        assert!(unauthenticated.try_admit(GRACE).is_err());
        let third = admit();
        assert!(first.evicted.is_cancelled() && !second.evicted.is_cancelled());
        second.authenticated();
        let fourth = unauthenticated.try_admit(GRACE).unwrap();
        drop(third);
        assert!(unauthenticated.try_admit(GRACE).is_ok());
        assert!(!second.evicted.is_cancelled() && !fourth.evicted.is_cancelled());
    }
}
