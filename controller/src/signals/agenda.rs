//! Which deployments to decide about, and when.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;

use crate::deployment::effects::Effects;

/// The deployments to decide about: those that something happened to, and each of the others at its time.
#[derive(Debug, Default)]
pub struct Agenda {
    now: BTreeSet<String>,
    /// When to look at a deployment to which nothing happens.
    timers: HashMap<String, Timestamp>,
    by_time: BTreeSet<(Timestamp, String)>,
}

impl Agenda {
    /// Notes what a decision wants to be looked at. Says whether something is earlier now than anything was.
    pub fn hear(&mut self, outcome: &Effects) -> bool {
        let mut earlier = outcome.again_at.is_some_and(|at| self.look_at(&outcome.deployment_id, at));
        for id in &outcome.recheck {
            earlier |= self.look_now(id);
        }
        earlier
    }

    /// Looks at a deployment next. Says whether that is news.
    pub fn look_now(&mut self, id: &str) -> bool {
        self.now.insert(id.to_owned())
    }

    /// Looks at a deployment at `at`, unless it is looked at earlier. Says whether this is the first of all timers now.
    pub fn look_at(&mut self, id: &str, at: Timestamp) -> bool {
        match self.timers.get(id) {
            Some(earlier) if *earlier <= at => return false,
            Some(later) => {
                self.by_time.remove(&(*later, id.to_owned()));
            }
            None => {}
        }
        self.timers.insert(id.to_owned(), at);
        self.by_time.insert((at, id.to_owned()));
        self.by_time.first().is_some_and(|(first, _)| *first == at)
    }

    /// Takes the deployments whose time has come.
    pub fn due(&mut self, now: Timestamp) -> BTreeSet<String> {
        let mut due = std::mem::take(&mut self.now);
        while let Some((at, id)) = self.by_time.pop_first() {
            if at > now {
                self.by_time.insert((at, id));
                break;
            }
            self.timers.remove(&id);
            due.insert(id);
        }
        // The decision says when to look again.
        for id in &due {
            if let Some(at) = self.timers.remove(id) {
                self.by_time.remove(&(at, id.clone()));
            }
        }
        due
    }

    /// How long nothing is due; without a deployment to look at, for ever.
    pub fn idle(&self, now: Timestamp) -> Option<Duration> {
        let first = self.by_time.first().map(|(at, _)| at.since(now));
        if self.now.is_empty() { first } else { Some(Duration::ZERO) }
    }
}
