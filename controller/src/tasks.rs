//! Tasks, at most one per key.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// Tasks by their keys; they are aborted when this is dropped.
#[derive(Debug)]
pub struct Tasks<K> {
    tasks: JoinSet<()>,
    under_way: HashMap<K, AbortHandle>,
    keys: HashMap<Id, K>,
}

impl<K> Default for Tasks<K> {
    fn default() -> Self {
        Tasks {
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            keys: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Tasks<K> {
    /// Starts a task, unless one with that key is running.
    pub fn start(&mut self, key: K, task: impl Future<Output = ()> + Send + 'static) {
        if self.under_way.contains_key(&key) {
            return;
        }
        let handle = self.tasks.spawn(task);
        self.keys.insert(handle.id(), key.clone());
        self.under_way.insert(key, handle);
    }

    pub fn is_under_way(&self, key: &K) -> bool {
        self.under_way.contains_key(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.under_way.keys()
    }

    /// Aborts a task.
    pub fn abort(&mut self, key: &K) {
        if let Some(handle) = self.under_way.get(key) {
            handle.abort();
        }
    }

    /// Waits for the next task that ends in any way, and returns its key; waits for ever if there
    /// is none.
    pub async fn ended(&mut self) -> K {
        loop {
            let id = match self.tasks.join_next_with_id().await {
                Some(Ok((id, ()))) => id,
                Some(Err(error)) => reported(&error),
                None => std::future::pending().await,
            };
            if let Some(key) = self.keys.remove(&id) {
                self.under_way.remove(&key);
                return key;
            }
        }
    }
}

/// A panic has reported more at its place.
fn reported(error: &JoinError) -> Id {
    if error.is_panic() {
        tracing::error!(%error, "a task of the service panicked");
    }
    error.id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_free_again_however_its_task_ended() {
        let mut tasks = Tasks::default();
        tasks.start("panics", async { panic!("on purpose") });
        assert_eq!(tasks.ended().await, "panics");
        tasks.start("panics", std::future::pending());
        tasks.start("panics", async { panic!("one at most runs") });
        assert!(tasks.is_under_way(&"panics"));
        tasks.abort(&"panics");
        assert_eq!(tasks.ended().await, "panics");
        assert!(!tasks.is_under_way(&"panics"));
        tasks.start("panics", async {});
        assert_eq!(tasks.ended().await, "panics");
    }
}
