//! Owns the connections on which no request was signed yet. When there are too many, new ones wait, and the oldest gives way
//! once it has had its time: nobody without a key can keep those out who have one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a connection has to send a signed request while others wait. A fleet that comes back all at once needs less.
const COURTESY: Duration = Duration::from_secs(5);

/// The connections of strangers, by their age.
#[derive(Debug, Clone)]
pub(super) struct Strangers {
    most: usize,
    waiting: Arc<Mutex<Waiting>>,
    room: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    doors: BTreeMap<u64, (Instant, CancellationToken)>,
    /// Whether it was said that there are too many, since there were few.
    crowded: bool,
}

/// A connection's place among the strangers, until it is [`known`](Self::known) or gone.
#[derive(Debug)]
pub(super) struct Stranger {
    number: u64,
    others: Strangers,
    shown_out: CancellationToken,
}

impl Strangers {
    pub(super) fn new(most: usize) -> Self {
        Self { most, waiting: Arc::default(), room: Arc::default() }
    }

    /// Lets one in, as soon as there is room.
    pub(super) async fn admit(&self) -> Stranger {
        loop {
            let room = self.room.notified();
            match self.try_admit(COURTESY) {
                Ok(stranger) => return stranger,
                Err(until) => tokio::select! {
                    () = room => {}
                    () = tokio::time::sleep_until(until) => {}
                },
            }
        }
    }

    /// Lets one in, or says when the oldest has had its time.
    fn try_admit(&self, courtesy: Duration) -> Result<Stranger, Instant> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        if waiting.doors.len() >= self.most
            && let Some(oldest) = waiting.doors.first_entry()
        {
            let until = oldest.get().0 + courtesy;
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
        let (number, shown_out) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.doors.insert(number, (now, shown_out.clone()));
        drop(waiting);
        Ok(Stranger { number, others: self.clone(), shown_out })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Nobody's request was verified on this connection before; now one was.
    pub(super) fn known(&self) {
        let mut waiting = self.others.waiting();
        if waiting.doors.remove(&self.number).is_some() {
            waiting.crowded &= waiting.doors.len() > self.others.most / 2;
            self.others.room.notify_one();
        }
    }

    /// Ready when this connection has to give way to others.
    pub(super) async fn shown_out(&self) {
        self.shown_out.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ones_wait_for_room_or_for_the_oldest_to_have_had_its_time() {
        let strangers = Strangers::new(2);
        let admit = || strangers.try_admit(Duration::ZERO).unwrap();
        let (first, second) = (admit(), admit());
        assert!(strangers.try_admit(COURTESY).is_err());
        let third = admit();
        assert!(first.shown_out.is_cancelled() && !second.shown_out.is_cancelled());
        second.known();
        let fourth = strangers.try_admit(COURTESY).unwrap();
        drop(third);
        assert!(strangers.try_admit(COURTESY).is_ok());
        assert!(!second.shown_out.is_cancelled() && !fourth.shown_out.is_cancelled());
    }
}
