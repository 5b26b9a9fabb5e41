//! Owns the connections on which no request was signed yet: when there are too many, the oldest gives way, so that
//! nobody without a key can keep those out who have one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The connections of strangers, by their age.
#[derive(Debug, Clone)]
pub(super) struct Strangers {
    most: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    doors: BTreeMap<u64, CancellationToken>,
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
        Self { most, waiting: Arc::default() }
    }

    /// Lets one in, and shows the oldest out if that is one too many.
    pub(super) fn admit(&self) -> Stranger {
        let shown_out = CancellationToken::new();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.doors.insert(number, shown_out.clone());
        if waiting.doors.len() > self.most {
            if !waiting.crowded {
                waiting.crowded = true;
                tracing::warn!(
                    most = self.most,
                    "too many connections have sent no signed request; the oldest of them are closed"
                );
            }
            if let Some((_, oldest)) = waiting.doors.pop_first() {
                oldest.cancel();
            }
        }
        drop(waiting);
        Stranger { number, others: self.clone(), shown_out }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Nobody's request was verified on this connection before; now one was.
    pub(super) fn known(&self) {
        let mut waiting = self.others.waiting();
        waiting.doors.remove(&self.number);
        waiting.crowded &= waiting.doors.len() > self.others.most / 2;
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

    #[tokio::test]
    async fn the_oldest_stranger_gives_way_and_who_is_known_does_not() {
        let strangers = Strangers::new(2);
        let [first, second, third] = [(); 3].map(|()| strangers.admit());
        first.shown_out().await;
        assert!(!second.shown_out.is_cancelled() && !third.shown_out.is_cancelled());
        second.known();
        drop(third);
        let rest = [(); 3].map(|()| strangers.admit());
        rest[0].shown_out().await;
        assert!(!second.shown_out.is_cancelled() && !rest[1].shown_out.is_cancelled());
    }
}
