//! Owns the service's symmetric key: secrets are sealed with it before they enter the database.
//!
//! SigV4 is symmetric, so the service must know the secret of every access key. A copy of the database alone gives
//! none of them away; the key is in a file of its own beside it.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use crate::error::{ApiError, ErrorName};
use crate::output::sync_folder_of;

/// Name of the key's file in the data directory.
const FILE: &str = "master.key";
const KEY_LEN: usize = 32;

/// The key, ready for use.
#[derive(Debug)]
pub struct Vault {
    key: LessSafeKey,
    page_key: [u8; KEY_LEN],
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("cannot read the key file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the key file {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the key file {} has {found} bytes instead of {KEY_LEN}: restore it from a backup of the data directory", path.display())]
    Length { path: PathBuf, found: usize },
    #[error(
        "the secret of {0} cannot be opened with this data directory's key file {FILE}: put back the one that it was sealed with"
    )]
    Sealed(String),
    #[error("the operating system gave no random bytes")]
    Random,
}

impl From<VaultError> for ApiError {
    fn from(cause: VaultError) -> Self {
        tracing::error!(error = %crate::error::chain(&cause), "a secret could not be used");
        ErrorName::InternalFailure.because("the service could not use its keys; its log has the cause")
    }
}

impl Vault {
    /// Opens the key of a data directory, making it at the first start.
    pub fn open(data_dir: &Path) -> Result<Vault, VaultError> {
        let path = data_dir.join(FILE);
        let bytes = read_or_create(&path, || Ok(random::<KEY_LEN>()?.to_vec()))?;
        let length = |_| VaultError::Length { path: path.clone(), found: bytes.len() };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(length)?;
        let derive = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let mut page_key = [0; KEY_LEN];
        page_key.copy_from_slice(hmac::sign(&derive, b"page tokens").as_ref());
        Ok(Vault { key: LessSafeKey::new(key), page_key })
    }

    /// A key for pagination tokens.
    pub fn page_key(&self) -> &[u8] {
        &self.page_key
    }

    /// Seals a secret for what it belongs to, such as an access key.
    pub fn seal(&self, owner: &str, secret: &str) -> Result<Vec<u8>, VaultError> {
        let nonce = random::<NONCE_LEN>()?;
        let mut sealed = secret.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut sealed)
            .map_err(|_| VaultError::Sealed(owner.to_owned()))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`seal`](Self::seal) made for the same owner.
    pub fn unseal(&self, owner: &str, sealed: &[u8]) -> Result<String, VaultError> {
        let wrong = || VaultError::Sealed(owner.to_owned());
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut text = sealed.to_vec();
        let length = self.key.open_in_place(nonce, Aad::from(owner), &mut text).map_err(|_| wrong())?.len();
        text.truncate(length);
        String::from_utf8(text).map_err(|_| wrong())
    }
}

/// Random bytes of the operating system's generator.
pub fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| VaultError::Random)?;
    Ok(bytes)
}

/// The content of a private file; when there is none, it is made, complete or not at all, with mode 0600.
///
/// Two processes may do this at once; both get the content of the first.
pub(crate) fn read_or_create(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, VaultError>,
) -> Result<Vec<u8>, VaultError> {
    let read = || std::fs::read(path);
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, &make()?)?,
        found => return found.map_err(|source| reading(path, source)),
    }
    read().map_err(|source| reading(path, source))
}

fn reading(path: &Path, source: io::Error) -> VaultError {
    VaultError::Read { path: path.to_owned(), source }
}

fn create(path: &Path, content: &[u8]) -> Result<(), VaultError> {
    let failed = |source| VaultError::Write { path: path.to_owned(), source };
    let staged = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    // A link, unlike a rename, fails when another process was first.
    let linked = std::fs::hard_link(&staged, path);
    std::fs::remove_file(&staged).map_err(failed)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked.map_err(failed)?,
    }
    sync_folder_of(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_opens_for_its_access_key_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(folder.path()).unwrap();
        let sealed = vault.seal("AKID1", "s3cret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"s3cret"));
        let again = Vault::open(folder.path()).unwrap();
        assert_eq!(again.unseal("AKID1", &sealed).unwrap(), "s3cret");
        assert!(again.unseal("AKID2", &sealed).is_err());
        assert!(again.unseal("AKID1", &sealed[..5]).is_err());
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_key_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), b"short").unwrap();
        assert!(matches!(Vault::open(folder.path()), Err(VaultError::Length { found: 5, .. })));
    }
}
