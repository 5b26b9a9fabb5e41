//! Owns the order of changes: one at a time for an instance at a load balancer.
//!
//! Two deployments can want opposite things of an instance, such as one that is given up and the one that rolls it back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// Turns at load balancers; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    by_place: Arc<Mutex<HashMap<Place, Weak<Turn>>>>,
}

/// A load balancer and an instance.
type Place = (String, String);
type Turn = tokio::sync::Mutex<()>;

impl Turns {
    /// Waits for those who asked earlier; the next one's turn comes when what this gives is dropped.
    pub(super) async fn take(&self, balancer: &str, instance: &str) -> OwnedMutexGuard<()> {
        self.at(balancer, instance).lock_owned().await
    }

    fn at(&self, balancer: &str, instance: &str) -> Arc<Turn> {
        let mut by_place = self.by_place.lock().unwrap_or_else(PoisonError::into_inner);
        if by_place.len() == by_place.capacity() {
            by_place.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = by_place.entry((balancer.to_owned(), instance.to_owned())).or_default();
        turn.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *turn = Arc::downgrade(&new);
            new
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn changes_of_one_instance_at_one_balancer_follow_each_other() {
        let turns = Turns::default();
        let first = turns.take("lb", "box1").await;
        let mut second = std::pin::pin!(turns.take("lb", "box1"));
        assert!((&mut second).now_or_never().is_none());
        assert!(turns.take("lb", "box2").now_or_never().is_some());
        assert!(turns.take("edge", "box1").now_or_never().is_some());
        drop(first);
        second.await;
    }
}
