//! The on-premises file, which tells the agent the identity of this host. It holds a secret, so it
//! has mode 0600 from its first byte on.

use std::io;
use std::path::{Path, PathBuf};

use codedeploy_hooks::fs::{replace_file, sweep};
use serde::Serialize;
use serde_yaml::Value;

use crate::bounded_read;
use crate::cli::register::request::Identification;
use crate::deployment_root::{StoreError, create_folders};
use crate::identity::Region;

const MODE: u32 = 0o600;

/// The wanted contents of the file.
pub(super) struct HostFile<'a> {
    pub(super) path: &'a Path,
    pub(super) region: &'a Region,
    pub(super) identification: &'a Identification,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot read {}; remove it, or name another file with --on-premises-file", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Folder(#[from] StoreError),
    #[error("{} exists, and is for {found}; --force replaces it", path.display())]
    Taken { path: PathBuf, found: String },
}

/// The keys are in the order in which the AWS CLI writes them.
#[derive(Serialize)]
struct Document<'a> {
    region: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iam_user_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_access_key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_secret_access_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iam_session_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_credentials_file: Option<&'a Path>,
}

impl HostFile<'_> {
    /// Returns whether the file already has the wanted contents; fails if another one exists and
    /// must not be replaced.
    pub(super) fn check(&self, force: bool) -> Result<bool, FileError> {
        let path = self.path.to_owned();
        match read(self.path) {
            Ok(None) => Ok(false),
            Ok(Some(text)) if text == self.text().as_bytes() => Ok(true),
            Ok(Some(_)) | Err(_) if force => Ok(false),
            Ok(Some(text)) => {
                let found = match arn(&text) {
                    Some(arn) if arn == self.identification.arn() => {
                        format!("{arn} with other keys or region")
                    }
                    Some(arn) => arn,
                    None => "nobody that can be read".into(),
                };
                Err(FileError::Taken { path, found })
            }
            Err(source) => Err(FileError::Read { path, source }),
        }
    }

    /// Writes the file atomically.
    pub(super) fn write(&self) -> Result<(), FileError> {
        if let Some(folder) = self
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            create_folders(folder, 0o755)?;
        }
        let failed = |source| FileError::Write {
            path: self.path.to_owned(),
            source,
        };
        let path = std::path::absolute(self.path).map_err(failed)?;
        path.parent().map_or(Ok(()), sweep).map_err(failed)?;
        replace_file(&path, self.text().as_bytes(), MODE).map_err(failed)
    }

    fn text(&self) -> String {
        let mut document = Document {
            region: self.region.as_str(),
            iam_user_arn: None,
            aws_access_key_id: None,
            aws_secret_access_key: None,
            iam_session_arn: None,
            aws_credentials_file: None,
        };
        match self.identification {
            Identification::User {
                arn,
                access_key_id,
                secret_access_key,
            } => {
                document.iam_user_arn = Some(arn);
                document.aws_access_key_id = Some(access_key_id);
                document.aws_secret_access_key = Some(secret_access_key);
            }
            Identification::Session {
                arn,
                credentials_file,
            } => {
                document.iam_session_arn = Some(arn);
                document.aws_credentials_file = Some(credentials_file);
            }
        }
        // The document consists of texts alone, so it can always be serialised.
        format!(
            "---\n{}",
            serde_yaml::to_string(&document).unwrap_or_default()
        )
    }
}

/// Returns the user or session of the file at `path`; `None` if there is no file.
pub(super) fn arn_in(path: &Path) -> Result<Option<String>, FileError> {
    let text = read(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.map(|text| arn(&text).unwrap_or_else(|| "nobody that can be read".into())))
}

pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    std::fs::remove_file(path).map_err(|source| FileError::Remove {
        path: path.to_owned(),
        source,
    })
}

/// Finds the user or session in the text of an on-premises file, whose keys may begin with a colon.
fn arn(text: &[u8]) -> Option<String> {
    let Value::Mapping(mapping) = serde_yaml::from_slice(text).ok()? else {
        return None;
    };
    [
        "iam_user_arn",
        ":iam_user_arn",
        "iam_session_arn",
        ":iam_session_arn",
    ]
    .iter()
    .find_map(|key| mapping.get(*key)?.as_str().map(str::to_owned))
}

/// `None` when there is no such file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match bounded_read::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
