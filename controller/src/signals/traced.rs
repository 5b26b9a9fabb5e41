//! The deployments that have ended and wait for their traces to be sent.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::lock;

/// The most deployments that wait.
const MOST: usize = 1000;

/// Their ids, the oldest first.
#[derive(Debug, Default)]
pub struct Traced {
    ids: Mutex<VecDeque<String>>,
    added: Notify,
}

impl Traced {
    /// Adds a deployment; returns false if too many wait already.
    pub(super) fn add(&self, id: &str) -> bool {
        let mut ids = lock(&self.ids);
        let has_room = ids.len() < MOST;
        if has_room {
            ids.push_back(id.to_owned());
            self.added.notify_one();
        }
        has_room
    }

    /// Waits for the next deployment.
    pub async fn next(&self) -> String {
        loop {
            let added = self.added.notified();
            if let Some(id) = lock(&self.ids).pop_front() {
                return id;
            }
            added.await;
        }
    }
}
