//! A lock for each key. One holder at a time has it, in the order of the requests.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Lock = tokio::sync::Mutex<()>;

/// The locks that are held or waited for. Clones share them.
#[derive(Debug)]
pub struct KeyedLock<K> {
    by_key: Arc<Mutex<HashMap<K, Arc<Lock>>>>,
}

/// The lock of one key. Dropping it passes the lock to the next in line.
#[derive(Debug)]
pub struct Guard {
    _held: OwnedMutexGuard<()>,
}

impl<K> Default for KeyedLock<K> {
    fn default() -> Self {
        KeyedLock {
            by_key: Arc::default(),
        }
    }
}

impl<K> Clone for KeyedLock<K> {
    fn clone(&self) -> Self {
        KeyedLock {
            by_key: Arc::clone(&self.by_key),
        }
    }
}

impl<K: Eq + Hash> KeyedLock<K> {
    /// Waits for the lock of `key`.
    pub async fn lock(&self, key: K) -> Guard {
        Guard {
            _held: self.of(key).lock_owned().await,
        }
    }

    fn of(&self, key: K) -> Arc<Lock> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if by_key.len() == by_key.capacity() {
            // Every holder and every waiter has one more reference; the other locks are not needed.
            by_key.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(by_key.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_key_has_one_holder_at_a_time_and_others_do_not_wait() {
        let locks = KeyedLock::default();
        let first = locks.lock(("lb", "box1")).await;
        let shared = locks.clone();
        let mut second = std::pin::pin!(shared.lock(("lb", "box1")));
        assert!((&mut second).now_or_never().is_none());
        assert!(locks.lock(("lb", "box2")).now_or_never().is_some());
        assert!(locks.lock(("edge", "box1")).now_or_never().is_some());
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test]
    async fn keys_that_nobody_uses_are_forgotten() {
        let locks = KeyedLock::default();
        let held = locks.lock(1000).await;
        for key in 0..1000 {
            drop(locks.lock(key).await);
        }
        assert!(locks.by_key.lock().unwrap().len() < 10);
        assert!(locks.lock(1000).now_or_never().is_none());
        drop(held);
    }
}
