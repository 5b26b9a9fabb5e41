//! The agent's credentials: one source, which is read again before they expire, when their file
//! changes, and when the service rejects them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};

use crate::bounded_read;
use crate::identity::metadata::MetadataError;
use crate::identity::on_premises::{self, Login};
use crate::identity::{CredentialSource, IdentityError};
use codedeploy_api::chain::Chain;

/// The time after which the source of keys is read again.
const REREAD_AFTER: Duration = Duration::from_secs(30 * 60);
/// The same after a failed read, if there are older keys.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The shortest time between two reads of keys that are about to expire.
const SHORTEST: Duration = Duration::from_millis(250);

/// The errors with which services reject keys.
const REFUSALS: [&str; 10] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClient",
    "UnrecognizedClientException",
];

/// Whether an error's name means that the service rejects the keys.
pub fn is_refusal(kind: &str) -> bool {
    REFUSALS.contains(&kind)
}

/// The keys of one source, shared by all signers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
}

/// Identifies the keys that were current at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

#[derive(Debug)]
struct Shared {
    source: CredentialSource,
    generation: AtomicU64,
    current: tokio::sync::Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    keys: Keys,
    read_again: Instant,
    stamp: Option<Stamp>,
}

/// The part of a file's metadata that changes when it is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The reason why there are no keys.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error(transparent)]
    OnPremises(#[from] IdentityError),
    #[error("{} no longer names aws_access_key_id and aws_secret_access_key; restart the agent to use its other form", path.display())]
    OtherForm { path: PathBuf },
    #[error("cannot read the credentials file {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "the credentials file {} has no usable profile [default]: it must have aws_access_key_id and aws_secret_access_key, and is to be replaced as a whole",
        path.display()
    )]
    Incomplete { path: PathBuf },
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl Credentials {
    pub fn new(source: CredentialSource) -> Self {
        let shared = Shared {
            source,
            generation: AtomicU64::new(0),
            current: tokio::sync::Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns the current keys' generation; take it before a call that may be rejected.
    pub fn generation(&self) -> Generation {
        Generation(self.shared.generation.load(Ordering::Acquire))
    }

    /// Reads the source again after a service rejected the keys of `used`. Returns whether there
    /// are new keys, so that the call is worth repeating.
    pub async fn refused(&self, used: Generation) -> bool {
        let mut current = self.shared.current.lock().await;
        if self.generation() == used {
            // The error is logged there, and the older keys stay.
            let _ = self.shared.read(&mut current).await;
        }
        self.generation() != used
    }
}

impl ProvideCredentials for Credentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let mut current = self.shared.current.lock().await;
            if let Some(current) = current
                .as_ref()
                .filter(|current| self.shared.is_fresh(current))
            {
                return Ok(current.keys.clone());
            }
            self.shared.read(&mut current).await
        })
    }
}

impl Shared {
    fn is_fresh(&self, current: &Current) -> bool {
        Instant::now() < current.read_again && self.stamp() == current.stamp
    }

    fn stamp(&self) -> Option<Stamp> {
        let (CredentialSource::OnPremisesFile(path) | CredentialSource::File(path)) = &self.source
        else {
            return None;
        };
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// Reads the source. If that fails, the older keys stay, if there are any.
    async fn read(&self, current: &mut Option<Current>) -> Result<Keys, CredentialsError> {
        let stamp = self.stamp();
        match (self.fetch().await, current.as_mut()) {
            (Ok((keys, expires)), older) => {
                if older.is_none_or(|older| older.keys != keys) {
                    self.generation.fetch_add(1, Ordering::AcqRel);
                    tracing::info!(
                        access_key_id = keys.access_key_id(),
                        source = %self.source,
                        "credentials are in use from now on"
                    );
                }
                *current = Some(Current {
                    keys: keys.clone(),
                    read_again: read_again(expires),
                    stamp,
                });
                Ok(keys)
            }
            (Err(error), Some(older)) => {
                tracing::warn!(error = %Chain(&error), "credentials cannot be read again; the older ones stay in use");
                older.read_again = Instant::now() + RETRY_AFTER;
                older.stamp = stamp;
                Ok(older.keys.clone())
            }
            (Err(error), None) => Err(CredentialsError::provider_error(Chain(&error).to_string())),
        }
    }

    async fn fetch(&self) -> Result<(Keys, Option<SystemTime>), KeysError> {
        let keys = |id: &str, secret: &str, token: Option<String>| {
            // Without an expiry: the service decides whether the keys are still valid.
            Keys::new(id, secret, token, None, "codedeploy-agent")
        };
        match &self.source {
            CredentialSource::Keys {
                access_key_id,
                secret_access_key,
                session_token,
                ..
            } => Ok((
                keys(access_key_id, secret_access_key, session_token.clone()),
                None,
            )),
            // The region does not matter for these keys.
            CredentialSource::OnPremisesFile(path) => {
                match on_premises::read(path, Some(""))?.login {
                    Login::User {
                        access_key_id,
                        secret_access_key,
                    } => Ok((keys(&access_key_id, &secret_access_key, None), None)),
                    Login::Session(_) => Err(KeysError::OtherForm { path: path.clone() }),
                }
            }
            CredentialSource::File(path) => {
                let (id, secret, token) = read_profile(path)?;
                Ok((keys(&id, &secret, token), None))
            }
            CredentialSource::InstanceProfile(metadata) => {
                let role = metadata.role_keys().await?;
                let token = Some(role.session_token);
                Ok((
                    keys(&role.access_key_id, &role.secret_access_key, token),
                    Some(role.expires),
                ))
            }
        }
    }
}

/// Half-way to their expiry, so that new keys are in use long before.
fn read_again(expires: Option<SystemTime>) -> Instant {
    let left = expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    let after = left.map_or(REREAD_AFTER, |left| {
        (left / 2).clamp(SHORTEST, REREAD_AFTER)
    });
    Instant::now() + after
}

fn read_profile(path: &Path) -> Result<(String, String, Option<String>), KeysError> {
    let bytes = bounded_read::read(path).map_err(|source| KeysError::Read {
        path: path.into(),
        source,
    })?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| KeysError::Incomplete { path: path.into() })?;
    let value = |key| default_profile(text, key).map(str::to_owned);
    match (value("aws_access_key_id"), value("aws_secret_access_key")) {
        (Some(id), Some(secret)) => Ok((id, secret, value("aws_session_token"))),
        _ => Err(KeysError::Incomplete { path: path.into() }),
    }
}

/// Returns the value of `key` in the section `[default]`.
fn default_profile<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            inside = ["default", "profile default"].contains(&name.0.trim());
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name.trim().eq_ignore_ascii_case(key)
        {
            return Some(value.trim()).filter(|value| !value.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn current(credentials: &Credentials) -> Result<String, String> {
        let keys = credentials.provide_credentials().await;
        keys.map(|keys| keys.access_key_id().to_owned())
            .map_err(|error| format!("{}", Chain(&error)))
    }

    fn profile(id: &str) -> String {
        format!(
            "[other]\naws_access_key_id = no\n[default]\naws_access_key_id = {id}\naws_secret_access_key=s\n"
        )
    }

    #[tokio::test]
    async fn a_replaced_credentials_file_is_used_at_once_and_a_broken_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let credentials = Credentials::new(CredentialSource::File(path.clone()));
        assert!(
            current(&credentials)
                .await
                .unwrap_err()
                .contains("cannot read the credentials file")
        );
        std::fs::write(&path, profile("FIRST")).unwrap();
        assert_eq!(current(&credentials).await.unwrap(), "FIRST");

        for broken in [
            &b"[default]\naws_access_key_id = SEC"[..],
            b"",
            b"\xff\xfe",
            &[b'['; 10 << 20],
        ] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(current(&credentials).await.unwrap(), "FIRST");
        }
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(current(&credentials).await.unwrap(), "FIRST");

        let new = folder.path().join("new");
        std::fs::write(&new, profile("SECOND")).unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(current(&credentials).await.unwrap(), "SECOND");
    }

    #[tokio::test]
    async fn a_refusal_is_worth_a_second_call_only_when_there_are_other_keys() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), profile("FIRST")).unwrap();
        let credentials = Credentials::new(CredentialSource::File(file.path().into()));
        current(&credentials).await.unwrap();
        let used = credentials.generation();
        assert!(!credentials.refused(used).await);
        std::fs::write(file.path(), profile("SECOND")).unwrap();
        assert!(credentials.refused(used).await);
        assert!(
            credentials.refused(used).await,
            "another call with the old keys is repeated too"
        );
        assert!(!credentials.refused(credentials.generation()).await);
    }

    #[tokio::test]
    async fn keys_in_the_on_premises_file_are_replaced_without_a_restart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = |id: &str| {
            format!(
                "region: r\niam_user_arn: a\naws_access_key_id: {id}\naws_secret_access_key: s\n"
            )
        };
        std::fs::write(file.path(), text("FIRST")).unwrap();
        let credentials = Credentials::new(CredentialSource::OnPremisesFile(file.path().into()));
        assert_eq!(current(&credentials).await.unwrap(), "FIRST");
        std::fs::write(file.path(), "region: r\niam_user_arn: a\naws_acc").unwrap();
        assert_eq!(current(&credentials).await.unwrap(), "FIRST");
        std::fs::write(file.path(), text("SECOND")).unwrap();
        assert_eq!(current(&credentials).await.unwrap(), "SECOND");
    }
}
