//! Who this host is to the service: its identifier, its region and where its credentials come from
//! (spec: Identity, credentials, endpoint).

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::Environment;
use crate::config::reader::{ReadError, Reader};

/// A host as the service knows it.
#[derive(Debug, Clone)]
pub struct Identity {
    pub host_identifier: String,
    pub region: Region,
    pub credentials: CredentialSource,
}

/// A region's name, safe to be part of a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region(String);

/// The one place that credentials come from; they sign commands and fetch revisions alike.
#[derive(Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// Keys that were named outright; `origin` says where.
    Keys {
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
        origin: &'static str,
    },
    /// Temporary keys of a role session in a shared credentials file, default profile, refreshed by somebody else.
    File(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read the on-premises configuration file {}; register this host and put the file there", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the on-premises configuration file {} is not usable:\n{}", path.display(), bullets(problems))]
    Invalid { path: PathBuf, problems: Vec<ReadError> },
    #[error("{found:?} is not the name of a region; expected 1 to 20 of a-z, 0-9 and '-'")]
    Region { found: String },
}

fn bullets(problems: &[ReadError]) -> String {
    problems.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n")
}

impl Identity {
    /// Reads the on-premises file; `AWS_REGION` and `AWS_HOST_IDENTIFIER` override what it says.
    pub fn on_premises(path: &Path, environment: &Environment) -> Result<Self, IdentityError> {
        let text = std::fs::read(path).map_err(|source| IdentityError::Read { path: path.into(), source })?;
        let (arn, region, credentials) = parse(&text, environment)
            .map_err(|problems| IdentityError::Invalid { path: path.into(), problems })?;
        let host_identifier = environment.text("AWS_HOST_IDENTIFIER").map_or(arn, str::to_owned);
        Ok(Self { host_identifier, region: Region::new(&region)?, credentials })
    }
}

impl CredentialSource {
    /// The keys in a person's environment, for commands that a person runs; the daemon never looks there.
    pub fn of_person(environment: &Environment) -> Option<Self> {
        Some(Self::Keys {
            access_key_id: environment.text("AWS_ACCESS_KEY_ID")?.to_owned(),
            secret_access_key: environment.text("AWS_SECRET_ACCESS_KEY")?.to_owned(),
            session_token: environment.text("AWS_SESSION_TOKEN").map(str::to_owned),
            origin: "the environment",
        })
    }
}

fn parse(
    text: &[u8],
    environment: &Environment,
) -> Result<(String, String, CredentialSource), Vec<ReadError>> {
    let mut file = Reader::new(text).map_err(|error| vec![error])?;
    let user = file.text("iam_user_arn");
    let session = file.text("iam_session_arn");
    let access_key_id = file.text("aws_access_key_id");
    let secret_access_key = file.text("aws_secret_access_key");
    let credentials_file = file.path("aws_credentials_file");
    let region = environment.text("AWS_REGION").map(str::to_owned).or(file.text("region"));
    if region.is_none() {
        file.missing("region", "is missing; name the region, such as eu-central-1");
    }
    let mut need = |value: Option<String>, key, with| {
        if value.is_none() {
            file.missing(key, &format!("is missing; it belongs to {with}"));
        }
        value.unwrap_or_default()
    };
    let (arn, credentials) = match (user, session) {
        (Some(arn), None) => {
            let access_key_id = need(access_key_id, "aws_access_key_id", "iam_user_arn");
            let secret_access_key = need(secret_access_key, "aws_secret_access_key", "iam_user_arn");
            let origin = "the on-premises file";
            (arn, CredentialSource::Keys { access_key_id, secret_access_key, session_token: None, origin })
        }
        (None, Some(arn)) => {
            if credentials_file.is_none() {
                file.missing("aws_credentials_file", "is missing; it belongs to iam_session_arn");
            }
            (arn, CredentialSource::File(credentials_file.unwrap_or_default()))
        }
        (both, _) => {
            match both {
                Some(_) => file.conflict("iam_user_arn", "iam_session_arn"),
                None => file.missing(
                    "iam_user_arn",
                    "is missing, and so is iam_session_arn; one of the two says who this host is",
                ),
            }
            (String::new(), CredentialSource::File(PathBuf::new()))
        }
    };
    file.finish().map(|_| (arn, region.unwrap_or_default(), credentials))
}

impl Region {
    pub fn new(name: &str) -> Result<Self, IdentityError> {
        let allowed = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || c == '-';
        if name.is_empty() || name.len() > 20 || !name.chars().all(allowed) {
            return Err(IdentityError::Region { found: name.chars().take(80).collect() });
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The DNS suffix of the region's endpoints.
    pub fn domain(&self) -> &'static str {
        if self.0.starts_with("cn-") {
            "amazonaws.com.cn"
        } else if self.0.starts_with("eusc-") {
            "amazonaws.eu"
        } else {
            "amazonaws.com"
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys { access_key_id, origin, .. } => write!(f, "access key {access_key_id} of {origin}"),
            Self::File(path) => write!(f, "credentials file {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str, environment: &[(&str, &str)]) -> Result<Identity, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = Environment::new(environment.iter().map(|(k, v)| (k.into(), v.into())));
        Identity::on_premises(file.path(), &environment).map_err(|error| error.to_string())
    }

    const USER: &str = ":region: eu-central-1\niam_user_arn: arn:aws:iam::123456789012:user/box1\n\
        aws_access_key_id: AKID\naws_secret_access_key: hush\n";

    #[test]
    fn the_user_form_names_the_host_by_its_arn() {
        let identity = identity(USER, &[]).unwrap();
        assert_eq!(identity.host_identifier, "arn:aws:iam::123456789012:user/box1");
        assert_eq!(identity.region.as_str(), "eu-central-1");
        assert!(!format!("{identity:?}").contains("hush"), "secrets are never shown");
    }

    #[test]
    fn the_environment_overrides_region_and_identifier() {
        let identity =
            identity(USER, &[("AWS_REGION", "us-east-1"), ("AWS_HOST_IDENTIFIER", "box")]).unwrap();
        assert_eq!((identity.region.as_str(), identity.host_identifier.as_str()), ("us-east-1", "box"));
    }

    #[test]
    fn the_session_form_names_a_credentials_file() {
        let text = "region: cn-north-1\niam_session_arn: arn:aws:sts::123456789012:assumed-role/r/s\naws_credentials_file: /etc/creds\n";
        let identity = identity(text, &[]).unwrap();
        assert_eq!(identity.credentials, CredentialSource::File("/etc/creds".into()));
        assert_eq!(identity.region.domain(), "amazonaws.com.cn");
    }

    #[test]
    fn what_is_missing_or_contradicts_is_named() {
        let both = format!("{USER}iam_session_arn: arn:aws:sts::1:assumed-role/r/s\n");
        let cases = [
            (both.as_str(), "iam_user_arn: stands beside iam_session_arn"),
            ("region: r\n", "iam_user_arn: is missing"),
            ("iam_user_arn: a\naws_access_key_id: k\nregion: r\n", "aws_secret_access_key: is missing"),
            ("iam_session_arn: a\nregion: r\n", "aws_credentials_file: is missing"),
            (&USER.replace("eu-central-1", "Evil/host"), "is not the name of a region"),
        ];
        for (text, expected) in cases {
            let message = identity(text, &[]).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
