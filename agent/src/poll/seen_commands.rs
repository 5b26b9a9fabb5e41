//! The commands that this process has seen: those in progress, and the outcomes of the last ended
//! ones, so that a redelivered command never runs again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codedeploy_api::command::PutHostCommandCompleteInput as Completion;

/// The number of outcomes that are remembered here; older ones are looked up in the ledger. Each
/// takes a few kilobytes.
const REMEMBERED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct SeenCommands(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    in_progress: HashSet<String>,
    /// Oldest first.
    ended: VecDeque<(String, Arc<Completion>)>,
}

/// The kind of a delivery.
#[derive(Debug)]
pub(super) enum Delivery {
    /// New; in progress from now on.
    New,
    /// Redelivered, and still in progress.
    InProgress,
    /// Redelivered after its end; in progress again until its outcome is reported once more.
    Ended(Arc<Completion>),
}

impl SeenCommands {
    /// Records a delivery.
    pub(super) fn delivered(&self, id: &str) -> Delivery {
        let mut lists = self.lock();
        if !lists.in_progress.insert(id.to_owned()) {
            return Delivery::InProgress;
        }
        match lists.ended.iter().find(|(ended, _)| ended == id) {
            Some((_, completion)) => Delivery::Ended(Arc::clone(completion)),
            None => Delivery::New,
        }
    }

    /// Records the end of a command in progress; without an outcome, it never began.
    pub(super) fn ended(&self, id: &str, completion: Option<Arc<Completion>>) {
        let mut lists = self.lock();
        lists.in_progress.remove(id);
        if let Some(completion) = completion {
            lists.ended.retain(|(ended, _)| ended != id);
            lists.ended.push_back((id.to_owned(), completion));
            if lists.ended.len() > REMEMBERED {
                lists.ended.pop_front();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codedeploy_api::command::CommandStatus;

    fn completion() -> Option<Arc<Completion>> {
        let (host_command_identifier, command_status) = ("a".into(), CommandStatus::Succeeded);
        Some(Arc::new(Completion {
            host_command_identifier,
            command_status,
            diagnostics: None,
            scripts: None,
        }))
    }

    #[test]
    fn a_command_is_new_once_and_its_end_is_remembered() {
        let seen = SeenCommands::default();
        assert!(matches!(seen.delivered("a"), Delivery::New));
        assert!(matches!(seen.delivered("a"), Delivery::InProgress));
        seen.ended("a", completion());
        assert!(matches!(seen.delivered("a"), Delivery::Ended(_)));
        assert!(matches!(seen.delivered("a"), Delivery::InProgress));
        seen.ended("a", None);
        assert!(
            matches!(seen.delivered("a"), Delivery::Ended(_)),
            "what was reported once stays known"
        );
    }

    #[test]
    fn a_command_that_was_not_begun_may_come_again() {
        let seen = SeenCommands::default();
        seen.delivered("a");
        seen.ended("a", None);
        assert!(matches!(seen.delivered("a"), Delivery::New));
    }

    #[test]
    fn memory_is_bounded() {
        let seen = SeenCommands::default();
        for number in 0..10_000 {
            seen.delivered(&number.to_string());
            seen.ended(&number.to_string(), completion());
        }
        let lists = seen.lock();
        assert_eq!(
            (lists.in_progress.len(), lists.ended.len()),
            (0, REMEMBERED)
        );
        assert_eq!(lists.ended.back().unwrap().0, "9999");
    }
}
