//! The operator's keys: from the environment, or from a profile of the shared credentials file.

use std::io;
use std::path::PathBuf;

use crate::bounded_read;
use crate::config::Environment;
use crate::identity::CredentialSource;

#[derive(Debug, thiserror::Error)]
pub(super) enum OperatorError {
    #[error(
        "no credentials for this command: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with --profile \
         (`aws configure export-credentials --format env` turns other logins into variables)"
    )]
    None,
    #[error("cannot read the credentials file {} for the profile {profile}", path.display())]
    File {
        path: PathBuf,
        profile: String,
        source: io::Error,
    },
    #[error("{} has no profile {profile} with aws_access_key_id and aws_secret_access_key", path.display())]
    Profile { path: PathBuf, profile: String },
}

/// A named profile comes first, then keys in the environment, then the profile `AWS_PROFILE` or
/// `default`.
pub(super) fn keys(
    profile: Option<&str>,
    environment: &Environment,
) -> Result<CredentialSource, OperatorError> {
    if profile.is_none()
        && let Some(keys) = CredentialSource::of_person(environment)
    {
        return Ok(keys);
    }
    let named = profile.or_else(|| environment.text("AWS_PROFILE"));
    let profile = named.unwrap_or("default").to_owned();
    let home = || Some(PathBuf::from(environment.text("HOME")?).join(".aws/credentials"));
    let path = environment
        .text("AWS_SHARED_CREDENTIALS_FILE")
        .map(PathBuf::from)
        .or_else(home);
    let path = path.ok_or(OperatorError::None)?;
    let text = match bounded_read::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) if named.is_none() => return Err(OperatorError::None),
        Err(source) => {
            return Err(OperatorError::File {
                path,
                profile,
                source,
            });
        }
    };
    let value = |key| value(&text, &profile, key).map(str::to_owned);
    let (Some(access_key_id), Some(secret_access_key)) =
        (value("aws_access_key_id"), value("aws_secret_access_key"))
    else {
        return Err(OperatorError::Profile { path, profile });
    };
    let session_token = value("aws_session_token");
    Ok(CredentialSource::Keys {
        access_key_id,
        secret_access_key,
        session_token,
        origin: "the credentials file",
    })
}

/// The value of `key` in the section of `profile`.
fn value<'a>(text: &'a str, profile: &str, key: &str) -> Option<&'a str> {
    let section = |line: &'a str| line.strip_prefix('[')?.strip_suffix(']').map(str::trim);
    let lines = text.lines().map(str::trim);
    let inside = lines
        .skip_while(|line| section(line) != Some(profile))
        .skip(1);
    let mut pairs = inside
        .take_while(|line| section(line).is_none())
        .filter_map(|line| line.split_once('='));
    pairs
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_profile_wins_over_the_environment_and_the_environment_over_the_default_profile() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[default]\naws_access_key_id = D\naws_secret_access_key=s\n[ops]\naws_access_key_id = O\naws_secret_access_key = s\n[half]\naws_access_key_id = H\n";
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let shared = ("AWS_SHARED_CREDENTIALS_FILE", path);
        let own = [
            ("AWS_ACCESS_KEY_ID", "E"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            shared,
        ];
        let found = |profile: Option<&str>, variables: &[(&str, &str)]| {
            let environment = Environment::new(variables.iter().map(|(k, v)| (k.into(), v.into())));
            match keys(profile, &environment) {
                Ok(CredentialSource::Keys { access_key_id, .. }) => access_key_id,
                Ok(other) => panic!("{other}"),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(found(None, &own), "E");
        assert_eq!(found(Some("ops"), &own), "O");
        assert_eq!(found(None, &[shared]), "D");
        assert_eq!(found(None, &[shared, ("AWS_PROFILE", "ops")]), "O");
        assert!(found(Some("half"), &own).contains("no profile half"));
        assert!(found(None, &[]).contains("no credentials for this command"));
        let missing = [
            ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials"),
            ("AWS_PROFILE", "ops"),
        ];
        assert!(found(None, &missing).contains("/nowhere/credentials"));
    }
}
