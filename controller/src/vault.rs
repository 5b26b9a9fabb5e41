//! The service's symmetric key: secrets are encrypted with it before they enter the database.
//!
//! SigV4 is symmetric, so the service must know the secret of every access key. A copy of the
//! database alone reveals none of them; the key is in a separate file beside it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use crate::error::{ApiError, ErrorName};
use crate::keys::{Key, KeyError, Keys};

const KEY_LEN: usize = 32;

/// The key, ready for use.
#[derive(Debug)]
pub struct Vault {
    key: LessSafeKey,
    page_key: [u8; KEY_LEN],
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the key file {} has {found} bytes instead of {KEY_LEN}: restore it from a backup of the data directory", Key::Master.file())]
    Length { found: usize },
    #[error(
        "the secret of {0} cannot be opened with this data directory's {key}: put back the one that it was sealed with", key = Key::Master.file()
    )]
    Sealed(String),
    #[error("the operating system gave no random bytes")]
    Random,
}

impl From<VaultError> for ApiError {
    fn from(cause: VaultError) -> Self {
        tracing::error!(error = %crate::error::chain(&cause), "a secret could not be used");
        ErrorName::InternalFailure
            .because("the service could not use its keys; its log has the cause")
    }
}

impl Vault {
    /// Opens the key of a data directory.
    pub fn open(keys: &Keys) -> Result<Vault, VaultError> {
        let make = || {
            random::<KEY_LEN>()
                .map(Vec::from)
                .map_err(|_| KeyError::Random)
        };
        let bytes = keys.open(Key::Master, make)?;
        let length = |_| VaultError::Length { found: bytes.len() };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(length)?;
        let derive = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let mut page_key = [0; KEY_LEN];
        page_key.copy_from_slice(hmac::sign(&derive, b"page tokens").as_ref());
        Ok(Vault {
            key: LessSafeKey::new(key),
            page_key,
        })
    }

    /// Returns the key of pagination tokens.
    pub fn page_key(&self) -> Result<UnboundKey, VaultError> {
        let found = self.page_key.len();
        UnboundKey::new(&AES_256_GCM, &self.page_key).map_err(|_| VaultError::Length { found })
    }

    /// Encrypts a secret for its owner, such as an access key.
    pub fn seal(&self, owner: &str, secret: &str) -> Result<Vec<u8>, VaultError> {
        let nonce = random::<NONCE_LEN>()?;
        let mut sealed = secret.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(owner),
                &mut sealed,
            )
            .map_err(|_| VaultError::Sealed(owner.to_owned()))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts the output of [`seal`](Self::seal) for the same owner.
    pub fn unseal(&self, owner: &str, sealed: &[u8]) -> Result<String, VaultError> {
        let wrong = || VaultError::Sealed(owner.to_owned());
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut text = sealed.to_vec();
        let length = self
            .key
            .open_in_place(nonce, Aad::from(owner), &mut text)
            .map_err(|_| wrong())?
            .len();
        text.truncate(length);
        String::from_utf8(text).map_err(|_| wrong())
    }
}

/// Returns random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| VaultError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_secret_opens_for_its_access_key_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::of(folder.path(), &Store::in_memory().unwrap());
        let vault = Vault::open(&keys).unwrap();
        let sealed = vault.seal("AKID1", "s3cret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"s3cret"));
        let again = Vault::open(&keys).unwrap();
        assert_eq!(again.unseal("AKID1", &sealed).unwrap(), "s3cret");
        assert!(again.unseal("AKID2", &sealed).is_err());
        assert!(again.unseal("AKID1", &sealed[..5]).is_err());
        let mode = std::fs::metadata(folder.path().join("master.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_key_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("master.key"), b"short").unwrap();
        let keys = Keys::of(folder.path(), &Store::in_memory().unwrap());
        assert!(matches!(
            Vault::open(&keys),
            Err(VaultError::Length { found: 5 })
        ));
    }
}
