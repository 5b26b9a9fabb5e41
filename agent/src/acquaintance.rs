//! The agent's knowledge of its service, kept across restarts: the signers that send a binding, so
//! that nobody can replay their older specifications without one; and whether the service is this
//! project's controller.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use codedeploy_hooks::fs::replace_file;
use serde::{Deserialize, Serialize};

use crate::bounded_read;
use crate::config::KeyDigest;
use crate::deployment_root::Store;

/// The only version of the file so far.
const VERSION: u32 = 1;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The number of signers that are remembered; the oldest is dropped first.
const MAX_SIGNERS: usize = 16;

/// The memory of the running agent.
#[derive(Debug)]
pub struct Acquaintance {
    path: PathBuf,
    learned: Mutex<Learned>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Learned {
    version: u32,
    /// The digests of the keys whose specifications name their host and command, oldest first.
    binding_signers: Vec<String>,
    /// The endpoint at which this project's controller last responded.
    controller: Option<String>,
}

impl Acquaintance {
    pub fn open(store: &Store) -> Self {
        let path = file(store);
        let learned = load(&path).unwrap_or_else(|reason| {
            tracing::warn!(path = %path.display(), reason, "the stored facts about the service are unusable; starting without them");
            Learned::default()
        });
        Self {
            path,
            learned: Mutex::new(Learned {
                version: VERSION,
                ..learned
            }),
        }
    }

    /// Whether the controller was last found at `endpoint`, for a process that changes nothing.
    pub fn is_controller(store: &Store, endpoint: &str) -> bool {
        load(&file(store)).is_ok_and(|learned| learned.controller.as_deref() == Some(endpoint))
    }

    /// Whether one of the keys is known to sign specifications with a binding.
    pub fn binds(&self, keys: &[KeyDigest]) -> bool {
        let learned = self.lock();
        keys.iter()
            .any(|key| learned.binding_signers.contains(&key.to_string()))
    }

    /// Records the signers of a specification with a binding.
    pub fn bound(&self, keys: &[KeyDigest]) {
        self.learn(|learned| {
            for key in keys.iter().map(KeyDigest::to_string) {
                if !learned.binding_signers.contains(&key) {
                    learned.binding_signers.push(key);
                }
            }
            let surplus = learned.binding_signers.len().saturating_sub(MAX_SIGNERS);
            learned.binding_signers.drain(..surplus);
        });
    }

    /// Records whether the controller responds at `endpoint`.
    pub fn answered(&self, endpoint: &str, is_controller: bool) {
        self.learn(|learned| learned.controller = is_controller.then(|| endpoint.to_owned()));
    }

    fn learn(&self, change: impl FnOnce(&mut Learned)) {
        let mut learned = self.lock();
        let before = learned.clone();
        change(&mut learned);
        if *learned == before {
            return;
        }
        let text = serde_json::to_vec_pretty(&*learned).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| replace_file(&self.path, &text, 0o600)) {
            tracing::warn!(path = %self.path.display(), %error, "the facts about the service cannot be stored; the next start begins without them");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file(store: &Store) -> PathBuf {
    store.commands().join("service.json")
}

fn load(path: &Path) -> Result<Learned, String> {
    let bytes = match bounded_read::read_up_to(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Learned::default()),
        Err(error) => return Err(error.to_string()),
    };
    let learned: Learned = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match learned.version {
        VERSION => Ok(learned),
        other => Err(format!(
            "it has version {other}; this agent reads version {VERSION}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_survives_a_restart_and_damage_costs_only_that() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), "ongoing-deployment");
        std::fs::create_dir_all(store.commands()).unwrap();
        let (ours, other) = (KeyDigest([1; 32]), KeyDigest([2; 32]));
        let acquaintance = Acquaintance::open(&store);
        acquaintance.bound(&[ours]);
        acquaintance.answered("http://a", true);
        let again = Acquaintance::open(&store);
        assert!(again.binds(&[other, ours]) && !again.binds(&[other]) && !again.binds(&[]));
        assert!(
            Acquaintance::is_controller(&store, "http://a")
                && !Acquaintance::is_controller(&store, "http://b")
        );
        again.answered("http://a", false);
        assert!(!Acquaintance::is_controller(&store, "http://a"));
        for number in 3..40 {
            again.bound(&[KeyDigest([number; 32])]);
        }
        assert_eq!(
            Acquaintance::open(&store).lock().binding_signers.len(),
            MAX_SIGNERS
        );
        std::fs::write(file(&store), "{").unwrap();
        assert!(!Acquaintance::open(&store).binds(&[ours]));
    }
}
