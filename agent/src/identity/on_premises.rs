//! The on-premises file: the identity of a host outside EC2, in one of two forms.

use std::path::{Path, PathBuf};

use super::IdentityError;
use crate::bounded_read;
use crate::config::reader::{ReadError, Reader, Warning};

/// The contents of the file, complete in one of its forms.
pub(crate) struct OnPremises {
    pub(crate) arn: String,
    pub(crate) region: String,
    pub(crate) login: Login,
    pub(crate) warnings: Vec<Warning>,
}

/// The credentials of a host in each form.
pub(crate) enum Login {
    /// `iam_user_arn`: these keys.
    User {
        access_key_id: String,
        secret_access_key: String,
    },
    /// `iam_session_arn`: the keys in this shared credentials file.
    Session(PathBuf),
}

/// Reads the file; `region` overrides the file's region.
pub(crate) fn read(path: &Path, region: Option<&str>) -> Result<OnPremises, IdentityError> {
    let text = bounded_read::read(path).map_err(|source| IdentityError::Read {
        path: path.into(),
        source,
    })?;
    parse(&text, region).map_err(|problems| IdentityError::Invalid {
        path: path.into(),
        problems,
    })
}

fn parse(text: &[u8], region: Option<&str>) -> Result<OnPremises, Vec<ReadError>> {
    let mut file = Reader::new(text).map_err(|error| vec![error])?;
    let user = file.text("iam_user_arn");
    let session = file.text("iam_session_arn");
    let access_key_id = file.text("aws_access_key_id");
    let secret_access_key = file.text("aws_secret_access_key");
    let credentials_file = file.path("aws_credentials_file");
    let named = file.text("region");
    let region = region.map(str::to_owned).or(named);
    if region.is_none() {
        file.missing(
            "region",
            "is missing; name the region, such as eu-central-1",
        );
    }
    let found = match (user, session) {
        (Some(arn), None) => {
            let mut need = |value: Option<String>, key| {
                if value.is_none() {
                    file.missing(key, "is missing; it belongs to iam_user_arn");
                }
                value.unwrap_or_default()
            };
            let access_key_id = need(access_key_id, "aws_access_key_id");
            let secret_access_key = need(secret_access_key, "aws_secret_access_key");
            Some((
                arn,
                Login::User {
                    access_key_id,
                    secret_access_key,
                },
            ))
        }
        (None, Some(arn)) => {
            if credentials_file.is_none() {
                file.missing(
                    "aws_credentials_file",
                    "is missing; it belongs to iam_session_arn",
                );
            }
            Some((arn, Login::Session(credentials_file.unwrap_or_default())))
        }
        (Some(_), Some(_)) => {
            file.conflict("iam_user_arn", "iam_session_arn");
            None
        }
        (None, None) => {
            let why =
                "is missing, and so is iam_session_arn; one of the two must identify this host";
            file.missing("iam_user_arn", why);
            None
        }
    };
    let warnings = file.finish()?;
    let (arn, login) = found.ok_or_else(Vec::new)?;
    Ok(OnPremises {
        arn,
        region: region.unwrap_or_default(),
        login,
        warnings,
    })
}
