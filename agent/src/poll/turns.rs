//! A lock per key, granted in the order of requests.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// The holder of each key's lock, and the waiters.
#[derive(Debug)]
pub(super) struct Turns<K>(Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>);

/// Dropping it passes the lock on.
pub(super) type Turn = OwnedMutexGuard<()>;

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// Waits for the lock of `key`.
    pub(super) async fn take(&self, key: &K) -> Turn {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A holder or waiter keeps its count above one; other entries are unused.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key.clone()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_key_has_one_turn_at_a_time_and_others_do_not_wait() {
        let turns = Turns::default();
        let first = turns.take(&"web").await;
        let mut second = Box::pin(turns.take(&"web"));
        assert!((&mut second).now_or_never().is_none());
        assert!(turns.take(&"api").now_or_never().is_some());
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test]
    async fn keys_that_nobody_uses_are_forgotten() {
        let turns = Turns::default();
        for key in 0..1000 {
            drop(turns.take(&key).await);
        }
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
