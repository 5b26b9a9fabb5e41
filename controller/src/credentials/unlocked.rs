//! Access keys that are ready to verify signatures with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codedeploy_api::codedeploy::Timestamp;

use super::{Principal, StoredKey};
use crate::error::ApiError;
use crate::recent::Recent;
use crate::signature::{Scope, SigningKey};
use crate::vault::{Vault, VaultError};

/// An access key with its signing key for one day, region and service.
#[derive(Debug)]
pub struct UnlockedKey {
    key: StoredKey,
    /// The scope of the signing key, as a request has it.
    scope: String,
    pub signing: SigningKey,
}

impl UnlockedKey {
    /// Decrypts the secret of a key, and derives the signing key from it.
    pub fn of(mut key: StoredKey, vault: &Vault, scope: Scope<'_>) -> Result<Self, VaultError> {
        let signing = SigningKey::derive(&key.secret(vault)?, scope);
        key.secret = Vec::new();
        Ok(UnlockedKey {
            key,
            scope: scope.to_string(),
            signing,
        })
    }

    pub fn principal(&self) -> &Arc<Principal> {
        &self.key.principal
    }

    /// [`StoredKey::admit`].
    pub fn admit(&self, token: Option<&str>, now: Timestamp) -> Result<Arc<Principal>, ApiError> {
        self.key.admit(token, now)
    }
}

/// The keys of hosts that called recently: their next request waits neither for the database nor
/// for a decryption.
///
/// A key may have been revoked meanwhile. Every operation of a host checks that in its transaction,
/// so that no other request may be verified with these.
#[derive(Debug)]
pub struct HostKeys(Mutex<Recent<String, Arc<UnlockedKey>>>);

impl HostKeys {
    /// The size of a generation; each key takes about 500 bytes.
    const MOST: usize = 16_384;

    fn recent(&self) -> MutexGuard<'_, Recent<String, Arc<UnlockedKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the key with an id if it was unlocked for this scope.
    pub fn get(&self, access_key_id: &str, scope: Scope<'_>) -> Option<Arc<UnlockedKey>> {
        let recent = self.recent();
        let found = recent.get(access_key_id)?;
        scope.is(&found.scope).then(|| Arc::clone(found))
    }

    pub fn keep(&self, key: Arc<UnlockedKey>) {
        let id = key.principal().access_key_id.clone();
        self.recent().keep(id, key);
    }
}

impl Default for HostKeys {
    fn default() -> Self {
        HostKeys(Mutex::new(Recent::new(Self::MOST)))
    }
}
