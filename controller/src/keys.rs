//! The key files of a data directory. Each is made once, at its first use, and recorded in the
//! database. A lost or different key is an error: a replacement would decrypt no secret and be
//! trusted by no host.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use codedeploy_api::codedeploy::Timestamp;

use crate::new_file::sync_folder_of;
use crate::store::{SqlError, Store, StoreError, Tx};

/// A key of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Key {
    /// Decrypts the secrets in the database.
    Master,
    /// Signs deployment specifications.
    Signer,
    /// Signs them once the present key is replaced; until then, hosts learn to accept it.
    #[value(skip)]
    NextSigner,
    /// Signs the self-made certificate.
    Authority,
}

impl Key {
    /// Its file in the data directory.
    pub fn file(self) -> &'static str {
        match self {
            Key::Master => "master.key",
            Key::Signer => "signer-key.der",
            Key::NextSigner => "signer-next-key.der",
            Key::Authority => "tls-authority-key.der",
        }
    }

    /// The file of its certificate.
    pub fn certificate(self) -> Option<&'static str> {
        match self {
            Key::Master => None,
            Key::Signer => Some("signer-certificate.der"),
            Key::NextSigner => Some("signer-next-certificate.der"),
            Key::Authority => Some("tls-authority.der"),
        }
    }

    /// Its name on the command line.
    fn name(self) -> &'static str {
        match self {
            Key::Master => "master",
            Key::Signer => "signer",
            Key::NextSigner => "signer --next",
            Key::Authority => "authority",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "the key file {} is missing, and the database was used with it: put it back from the place where the keys are kept; if it is lost for good, `codedeploy-controller replace-key {}` makes room for a new one", path.display(), key.name()
    )]
    Lost { key: Key, path: PathBuf },
    #[error(
        "the key file {} is not the one that the database was used with: put that one back from the place where the keys are kept; if it is lost for good, `codedeploy-controller replace-key {}` makes room for a new one", path.display(), key.name()
    )]
    Exchanged { key: Key, path: PathBuf },
    #[error("cannot read the key file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the key file {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the operating system gave no random bytes")]
    Random,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database refused a statement")]
    Database(#[from] SqlError),
}

/// The key files of a data directory, and the database that they are used with.
#[derive(Debug, Clone)]
pub struct Keys {
    data_dir: PathBuf,
    store: Store,
}

impl Keys {
    pub fn of(data_dir: &Path, store: &Store) -> Self {
        Keys {
            data_dir: data_dir.to_owned(),
            store: store.clone(),
        }
    }

    /// Returns the content of a key's file. If the database was never used with one, the existing
    /// file is used, or one is made.
    pub(crate) fn open(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Vec<u8>, KeyError>,
    ) -> Result<Vec<u8>, KeyError> {
        let path = self.data_dir.join(key.file());
        let known = self
            .store
            .transact_blocking(move |tx| fingerprint(tx, key))?;
        let content = match read(&path)? {
            Some(content) => content,
            None if known != Known::Unused => return Err(KeyError::Lost { key, path }),
            None => create(&path, make)?,
        };
        let found = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &content), b"fingerprint");
        let found = found.as_ref().to_vec();
        if let Known::Fingerprint(known) = known {
            return if known == found {
                Ok(content)
            } else {
                Err(KeyError::Exchanged { key, path })
            };
        }
        self.store.transact_blocking(move |tx| {
            let sql = "INSERT INTO keys (file, fingerprint) VALUES (?1, ?2)
                       ON CONFLICT (file) DO UPDATE SET fingerprint = ?2 WHERE keys.fingerprint IS NULL";
            tx.execute(sql, (key.file(), found)).map_err(KeyError::Database)
        })?;
        Ok(content)
    }

    /// Whether the key exists.
    pub fn has(&self, key: Key) -> bool {
        self.data_dir.join(key.file()).exists()
    }

    /// Retires a key: renames its files, returns their new names, and removes its record from the
    /// database.
    pub fn replace(&self, key: Key) -> Result<Vec<PathBuf>, KeyError> {
        let mut kept = Vec::new();
        for name in [Some(key.file()), key.certificate()].into_iter().flatten() {
            kept.extend(self.set_aside(name)?);
        }
        self.forget(key)?;
        Ok(kept)
    }

    /// Replaces the signer's key by the announced one; renames the old files and returns their new
    /// names. Can be repeated after an interruption: the announcement moves last.
    pub fn promote_next_signer(&self) -> Result<Vec<PathBuf>, KeyError> {
        let mut kept = Vec::new();
        self.forget(Key::Signer)?;
        let certificates = Key::NextSigner.certificate().zip(Key::Signer.certificate());
        for (next, present) in certificates
            .into_iter()
            .chain([(Key::NextSigner.file(), Key::Signer.file())])
        {
            let (from, to) = (self.data_dir.join(next), self.data_dir.join(present));
            if !from.exists() {
                continue;
            }
            kept.extend(self.set_aside(present)?);
            std::fs::rename(&from, &to).map_err(|source| KeyError::Write {
                path: to.clone(),
                source,
            })?;
            sync_folder_of(&to).map_err(|source| KeyError::Write { path: to, source })?;
        }
        self.forget(Key::NextSigner)?;
        Ok(kept)
    }

    fn set_aside(&self, name: &str) -> Result<Option<PathBuf>, KeyError> {
        let path = self.data_dir.join(name);
        let aside = self
            .data_dir
            .join(format!("{name}.replaced-{}", Timestamp::now().millis()));
        match std::fs::rename(&path, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyError::Write {
                path: aside,
                source,
            }),
        }
    }

    fn forget(&self, key: Key) -> Result<(), KeyError> {
        self.store.transact_blocking(move |tx| {
            tx.execute("DELETE FROM keys WHERE file = ?1", [key.file()])
                .map_err(KeyError::Database)
        })?;
        Ok(())
    }

    /// Returns the certificate of a key; the first time, stores the one that `make` returns.
    pub(crate) fn certificate(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Vec<u8>, KeyError>,
    ) -> Result<Vec<u8>, KeyError> {
        let Some(name) = key.certificate() else {
            return make();
        };
        let path = self.data_dir.join(name);
        read(&path)?.map_or_else(|| create(&path, make), Ok)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Known {
    Unused,
    /// Used before fingerprints were recorded.
    Used,
    Fingerprint(Vec<u8>),
}

fn fingerprint(tx: &Tx<'_>, key: Key) -> Result<Known, KeyError> {
    let sql = "SELECT fingerprint FROM keys WHERE file = ?1";
    let row = tx.query_opt(sql, [key.file()], |row| row.get::<Option<Vec<u8>>>(0))?;
    Ok(match row {
        None => Known::Unused,
        Some(None) => Known::Used,
        Some(Some(fingerprint)) => Known::Fingerprint(fingerprint),
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, KeyError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Makes a private file, complete or not at all. If two processes do this at once, both get the
/// content of the first.
fn create(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, KeyError>,
) -> Result<Vec<u8>, KeyError> {
    let failed = |source| KeyError::Write {
        path: path.to_owned(),
        source,
    };
    let staged = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .map_err(failed)?;
    file.write_all(&make()?)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    // A link, unlike a rename, fails if another process was first.
    let linked = std::fs::hard_link(&staged, path);
    std::fs::remove_file(&staged).map_err(failed)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked.map_err(failed)?,
    }
    sync_folder_of(path).map_err(failed)?;
    std::fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })
}
