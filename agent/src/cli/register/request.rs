//! A registration request, checked by the rules of the service before anything is sent.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::bounded_read;
use crate::cli::register::RegisterArguments;
use crate::config::Environment;

const MAX_NAME: usize = 100;
const MAX_TAGS: usize = 10;
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;
/// A secret access key has 40 characters; a much larger file holds something else.
const MAX_SECRET: u64 = 1024;

/// The source of the secret if no file is named.
const SECRET_VARIABLE: &str = "CODEDEPLOY_HOST_SECRET_ACCESS_KEY";

/// A valid registration request.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) name: String,
    pub(super) identification: Identification,
    pub(super) tags: Vec<Tag>,
}

/// The identity of the host.
pub(super) enum Identification {
    User {
        arn: String,
        access_key_id: String,
        secret_access_key: String,
    },
    Session {
        arn: String,
        credentials_file: PathBuf,
    },
}

/// A tag of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(
        "--instance-name: {found:?} is not possible; expected 1 to {MAX_NAME} of A-Z, a-z, 0-9 and + = , . @ _ -"
    )]
    Name { found: String },
    #[error(
        "--instance-name: {found:?} begins with i-, as names of EC2 instances do; choose another name"
    )]
    Ec2Name { found: String },
    #[error(
        "--iam-user-arn: {found:?} is not the ARN of an IAM user; expected arn:aws:iam::123456789012:user/NAME"
    )]
    UserArn { found: String },
    #[error(
        "--iam-session-arn: {found:?} is not the ARN of a role session; expected arn:aws:sts::123456789012:assumed-role/ROLE/SESSION"
    )]
    SessionArn { found: String },
    #[error("--credentials-file: {} is not an absolute path", path.display())]
    RelativeFile { path: PathBuf },
    #[error("--tag: {count} tags; an instance can have {MAX_TAGS}")]
    TooManyTags { count: usize },
    #[error("--tag: the key {key} is given twice")]
    TagTwice { key: String },
    #[error(
        "no secret access key: name a file with --secret-access-key-file (- is the standard input), or set {SECRET_VARIABLE}"
    )]
    NoSecret,
    #[error("--secret-access-key-file: cannot read {}", path.display())]
    SecretFile { path: PathBuf, source: io::Error },
    #[error("--secret-access-key-file: {} does not hold a secret access key; expected one line and nothing else", path.display())]
    Secret { path: PathBuf },
}

impl Registration {
    pub(super) fn check(
        arguments: &RegisterArguments,
        environment: &Environment,
    ) -> Result<Self, RequestError> {
        let name = instance_name(&arguments.service.instance_name)?;
        let tags = tags(&arguments.tags)?;
        let identification = match (&arguments.iam_user_arn, &arguments.iam_session_arn) {
            (Some(arn), _) => {
                if !is_user_arn(arn) {
                    return Err(RequestError::UserArn { found: arn.clone() });
                }
                let secret_access_key =
                    secret(arguments.secret_access_key_file.as_deref(), environment)?;
                let access_key_id = arguments.access_key_id.clone().unwrap_or_default();
                Identification::User {
                    arn: arn.clone(),
                    access_key_id,
                    secret_access_key,
                }
            }
            (None, session) => {
                let arn = session.clone().unwrap_or_default();
                if !is_session_arn(&arn) {
                    return Err(RequestError::SessionArn { found: arn });
                }
                let credentials_file = arguments.credentials_file.clone().unwrap_or_default();
                if !credentials_file.is_absolute() {
                    return Err(RequestError::RelativeFile {
                        path: credentials_file,
                    });
                }
                Identification::Session {
                    arn,
                    credentials_file,
                }
            }
        };
        Ok(Self {
            name,
            identification,
            tags,
        })
    }
}

impl Identification {
    pub(super) fn arn(&self) -> &str {
        match self {
            Self::User { arn, .. } | Self::Session { arn, .. } => arn,
        }
    }
}

impl std::fmt::Debug for Identification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.arn())
    }
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(format!("{text:?} is not a tag; expected KEY=VALUE"));
        };
        if key.is_empty()
            || key.chars().count() > MAX_TAG_KEY
            || value.chars().count() > MAX_TAG_VALUE
        {
            return Err(format!(
                "a tag's key has 1 to {MAX_TAG_KEY} characters, and its value at most {MAX_TAG_VALUE}"
            ));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

pub(super) fn instance_name(name: &str) -> Result<String, RequestError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        return Err(RequestError::Name {
            found: name.to_owned(),
        });
    }
    if name.starts_with("i-") {
        return Err(RequestError::Ec2Name {
            found: name.to_owned(),
        });
    }
    Ok(name.to_owned())
}

fn tags(tags: &[Tag]) -> Result<Vec<Tag>, RequestError> {
    if tags.len() > MAX_TAGS {
        return Err(RequestError::TooManyTags { count: tags.len() });
    }
    for (index, tag) in tags.iter().enumerate() {
        if tags[..index].iter().any(|earlier| earlier.key == tag.key) {
            return Err(RequestError::TagTwice {
                key: tag.key.clone(),
            });
        }
    }
    Ok(tags.to_vec())
}

fn is_user_arn(arn: &str) -> bool {
    resource(arn, "iam")
        .and_then(|resource| resource.strip_prefix("user/"))
        .is_some_and(is_path)
}

fn is_session_arn(arn: &str) -> bool {
    let session = resource(arn, "sts").and_then(|resource| resource.strip_prefix("assumed-role/"));
    session
        .is_some_and(|session| session.matches('/').count() == 1 && session.split('/').all(is_path))
}

/// The part after the account in an ARN of `service`.
fn resource<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    let partition = parts
        .next()
        .filter(|text| *text == "arn")
        .and_then(|_| parts.next())?;
    let (found, region, account, resource) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (partition.starts_with("aws") && found == service && region.is_empty() && is_account)
        .then_some(resource)
}

fn is_path(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+=,.@_/-".contains(c))
}

fn secret(file: Option<&Path>, environment: &Environment) -> Result<String, RequestError> {
    let Some(path) = file else {
        return environment
            .text(SECRET_VARIABLE)
            .map(str::to_owned)
            .ok_or(RequestError::NoSecret);
    };
    let text = read_secret(path).map_err(|source| RequestError::SecretFile {
        path: path.to_owned(),
        source,
    })?;
    let text = String::from_utf8_lossy(&text);
    let secret = text.trim();
    let is_one = !secret.is_empty()
        && secret.len() < MAX_SECRET as usize
        && secret.chars().all(|c| c.is_ascii_graphic());
    if is_one {
        Ok(secret.to_owned())
    } else {
        Err(RequestError::Secret {
            path: path.to_owned(),
        })
    }
}

fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return bounded_read::read_up_to(path, MAX_SECRET);
    }
    let mut text = Vec::new();
    io::stdin().lock().take(MAX_SECRET).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_those_of_users_and_sessions() {
        assert!(is_user_arn(
            "arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1"
        ));
        assert!(is_user_arn("arn:aws-cn:iam::123456789012:user/box1"));
        assert!(is_session_arn(
            "arn:aws:sts::123456789012:assumed-role/role/session"
        ));
        for wrong in [
            "",
            "box1",
            "arn:aws:iam::12:user/box1",
            "arn:aws:iam::123456789012:role/box1",
            "arn:aws:iam::123456789012:user/",
            "arn:aws:iam:eu:123456789012:user/box1",
            "arn:aws:iam::123456789012:user/a b",
        ] {
            assert!(!is_user_arn(wrong), "{wrong}");
        }
        assert!(!is_session_arn(
            "arn:aws:sts::123456789012:assumed-role/role"
        ));
        assert!(!is_session_arn(
            "arn:aws:sts::123456789012:assumed-role/role/"
        ));
    }

    #[test]
    fn names_are_those_that_the_service_takes() {
        assert!(instance_name("box-1.example@x").is_ok());
        for wrong in ["", "a b", "a/b", "ä", "i-1234", &"x".repeat(101)] {
            assert!(instance_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tags_have_a_key_and_stand_once() {
        let tag = |text: &str| text.parse::<Tag>();
        assert_eq!(
            tag("a=b=c").unwrap(),
            Tag {
                key: "a".into(),
                value: "b=c".into()
            }
        );
        assert_eq!(tag("a=").unwrap().value, "");
        assert!(tag("a").is_err() && tag("=b").is_err());
        let twice = [tag("a=1").unwrap(), tag("a=2").unwrap()];
        assert!(matches!(tags(&twice), Err(RequestError::TagTwice { .. })));
        let many: Vec<_> = (0..11).map(|n| tag(&format!("k{n}=v")).unwrap()).collect();
        assert!(matches!(
            tags(&many),
            Err(RequestError::TooManyTags { count: 11 })
        ));
    }
}
