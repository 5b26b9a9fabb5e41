//! The keys that an issuer publishes, in a cache. They are read again once they are old, and when a
//! token names one that is missing, but only so often: anyone can send such tokens.

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::key_set::{KeySet, KeySetError};
use crate::config::identity_providers::KeySource;
use crate::error::chain;
use crate::outgoing::{Outgoing, OutgoingError};

/// The age at which keys are read again.
const FRESH: Duration = Duration::from_secs(3600);

/// The age up to which keys are used while the issuer cannot be reached.
const USABLE: Duration = Duration::from_secs(24 * 3600);

/// The number of readings in [`PERIOD`].
const READINGS: usize = 3;
const PERIOD: Duration = Duration::from_secs(60);

/// The largest key set, in bytes; that of an issuer has a few thousand.
const MAX_SIZE: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct PublishedKeys {
    source: KeySource,
    cache: Mutex<Cache>,
    /// One reading at a time.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Cache {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// The last readings, successful or not.
    readings: VecDeque<Instant>,
    /// The end of the last reading.
    ended: Option<Instant>,
    /// The failure of the last reading, if it failed.
    failure: Option<String>,
}

/// The reason why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot read the key set {}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the key set {place} cannot be used")]
    Content { place: String, source: KeySetError },
    #[error(transparent)]
    Fetch(#[from] OutgoingError),
    #[error(
        "{url} answered with the status {status}: expected 200 and a key set, without a redirection"
    )]
    Status { url: String, status: u16 },
    /// The last reading failed, and the next one is due later.
    #[error("{0}; the controller tries again within a minute")]
    Failed(String),
}

impl PublishedKeys {
    /// Reads the keys of a file at once.
    pub(super) fn open(source: &KeySource) -> Result<Self, KeysError> {
        let keys = match source {
            KeySource::File(path) => Some((Arc::new(read_file(path)?), Instant::now())),
            KeySource::Url(_) => None,
        };
        Ok(PublishedKeys {
            source: source.clone(),
            cache: Mutex::new(Cache {
                keys,
                ..Cache::default()
            }),
            reading: tokio::sync::Mutex::default(),
        })
    }

    /// Returns keys that are fresh, or the last ones while there are no new ones.
    pub(super) async fn current(
        self: &Arc<Self>,
        outgoing: &Arc<Outgoing>,
    ) -> Result<Arc<KeySet>, KeysError> {
        if let Some(keys) = self.younger_than(FRESH) {
            return Ok(keys);
        }
        self.read_again(outgoing, None).await;
        match self.younger_than(USABLE) {
            Some(keys) => Ok(keys),
            None => Err(self.failure()),
        }
    }

    /// Returns other keys than `known`, which lack one, if the issuer has others.
    pub(super) async fn newer(
        self: &Arc<Self>,
        outgoing: &Arc<Outgoing>,
        known: &Arc<KeySet>,
    ) -> Result<Arc<KeySet>, KeysError> {
        self.read_again(outgoing, Some(Arc::clone(known))).await;
        let cache = self.cache();
        match (&cache.failure, &cache.keys) {
            (None, Some((keys, _))) => Ok(Arc::clone(keys)),
            (failure, _) => Err(KeysError::Failed(failure.clone().unwrap_or_default())),
        }
    }

    /// Reads the keys unless another caller just did. A caller that goes away does not end it.
    async fn read_again(self: &Arc<Self>, outgoing: &Arc<Outgoing>, known: Option<Arc<KeySet>>) {
        let (this, outgoing) = (Arc::clone(self), Arc::clone(outgoing));
        let came = Instant::now();
        let reading = tokio::spawn(async move {
            let _turn = this.reading.lock().await;
            if !this.may_read(known.as_ref(), came) {
                return;
            }
            let read = this.read(&outgoing).await;
            this.keep(read);
        });
        // A panic has reported more at its place, and leaves the cache as it was.
        let _ = reading.await;
    }

    /// Whether the keys are still as the caller found them, nobody else has tried since it came, and
    /// the next reading is due. Counts it.
    fn may_read(&self, known: Option<&Arc<KeySet>>, came: Instant) -> bool {
        let now = Instant::now();
        let mut cache = self.cache();
        let replaced = match (known, &cache.keys) {
            (Some(known), Some((keys, _))) => !Arc::ptr_eq(known, keys),
            (None, Some((_, read))) => now.duration_since(*read) < FRESH,
            (_, None) => false,
        };
        cache
            .readings
            .retain(|reading| now.duration_since(*reading) < PERIOD);
        let was_tried = cache.ended.is_some_and(|ended| ended >= came);
        if replaced || was_tried || cache.readings.len() >= READINGS {
            return false;
        }
        cache.readings.push_back(now);
        true
    }

    async fn read(&self, outgoing: &Outgoing) -> Result<KeySet, KeysError> {
        match &self.source {
            KeySource::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || read_file(&path))
                    .await
                    .unwrap_or_else(|error| Err(KeysError::Failed(error.to_string())))
            }
            KeySource::Url(url) => {
                let answer = outgoing.get_at_most(MAX_SIZE, url).await?;
                let place = crate::outgoing::place(url);
                if answer.status != 200 {
                    return Err(KeysError::Status {
                        url: place,
                        status: answer.status,
                    });
                }
                KeySet::read(&answer.body).map_err(|source| KeysError::Content { place, source })
            }
        }
    }

    fn keep(&self, read: Result<KeySet, KeysError>) {
        let mut cache = self.cache();
        cache.ended = Some(Instant::now());
        match read {
            Ok(keys) => {
                cache.keys = Some((Arc::new(keys), Instant::now()));
                cache.failure = None;
            }
            Err(error) => {
                let failure = chain(&error);
                tracing::warn!(
                    error = failure,
                    "the keys of an identity provider could not be read"
                );
                cache.failure = Some(failure);
            }
        }
    }

    fn younger_than(&self, age: Duration) -> Option<Arc<KeySet>> {
        let cache = self.cache();
        let young = |(_, read): &&(Arc<KeySet>, Instant)| read.elapsed() < age;
        cache
            .keys
            .as_ref()
            .filter(young)
            .map(|(keys, _)| Arc::clone(keys))
    }

    fn failure(&self) -> KeysError {
        KeysError::Failed(self.cache().failure.clone().unwrap_or_default())
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_file(path: &Path) -> Result<KeySet, KeysError> {
    let failed = |source| KeysError::File {
        path: path.to_owned(),
        source,
    };
    // Reading something other than a file could block for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_SIZE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > MAX_SIZE {
        let limit = format!("it has more than {MAX_SIZE} bytes");
        return Err(failed(std::io::Error::other(limit)));
    }
    KeySet::read(&bytes).map_err(|source| KeysError::Content {
        place: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn callers_who_wait_for_a_reading_that_fails_do_not_read_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let keys = Arc::new(PublishedKeys::open(&KeySource::Url(url)).unwrap());
        let outgoing = Arc::new(Outgoing::open(None).unwrap());
        let callers: Vec<_> = (0..5)
            .map(|_| {
                let (keys, outgoing) = (Arc::clone(&keys), Arc::clone(&outgoing));
                tokio::spawn(async move { keys.current(&outgoing).await })
            })
            .collect();
        let (connection, _) = listener.accept().await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop((connection, listener));
        for caller in callers {
            assert!(caller.await.unwrap().is_err());
        }
        assert_eq!(keys.cache().readings.len(), 1);
    }
}
