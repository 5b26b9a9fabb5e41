//! The deployments to decide about, and their times.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;

use crate::deployment::effects::Effects;

/// The deployments to decide about: changed ones at once, each of the others at its time.
#[derive(Debug, Default)]
pub struct Agenda {
    now: BTreeSet<String>,
    /// The time of the next decision about an unchanged deployment.
    timers: HashMap<String, Timestamp>,
    by_time: BTreeSet<(Timestamp, String)>,
}

impl Agenda {
    /// Takes over the requests of a decision. Returns whether the earliest time has moved forward.
    pub fn hear(&mut self, effects: &Effects) -> bool {
        let mut earlier = effects
            .again_at
            .is_some_and(|at| self.look_at(&effects.deployment_id, at));
        for id in &effects.recheck {
            earlier |= self.look_now(id);
        }
        earlier
    }

    /// Schedules a deployment next. Returns whether it was not scheduled already.
    pub fn look_now(&mut self, id: &str) -> bool {
        self.now.insert(id.to_owned())
    }

    /// Schedules a deployment at `at`, unless it is scheduled earlier. Returns whether this is now
    /// the first of all timers.
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

    /// Takes the deployments that are due.
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
        // The decision sets the next time.
        for id in &due {
            if let Some(at) = self.timers.remove(id) {
                self.by_time.remove(&(at, id.clone()));
            }
        }
        due
    }

    /// The time until a deployment is due; `None` if there is none.
    pub fn idle(&self, now: Timestamp) -> Option<Duration> {
        let first = self.by_time.first().map(|(at, _)| at.since(now));
        if self.now.is_empty() {
            first
        } else {
            Some(Duration::ZERO)
        }
    }
}
