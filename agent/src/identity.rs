//! The host's identity at the service: its identifier, its region and the source of its credentials
//! (spec: Identity, credentials, endpoint).

pub mod metadata;
pub(crate) mod on_premises;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::metadata::{Instance, Metadata, MetadataError};
use self::on_premises::Login;
use crate::config::reader::{ReadError, bullets};
use crate::config::{Environment, Settings};
use crate::systemd;

/// The time that a start waits for the instance metadata service, which can be late at boot.
pub const METADATA_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two rounds of requests; each round makes several attempts.
const METADATA_PAUSE: Duration = Duration::from_secs(2);

/// A host, as the service identifies it.
#[derive(Debug, Clone)]
pub struct Identity {
    pub host_identifier: String,
    pub region: Region,
    pub credentials: CredentialSource,
}

/// A region's name, checked to be safe in a host name, and the DNS suffix of its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    name: String,
    domain: String,
}

/// The domains of the partitions, by the beginnings of their regions' names (AWS:
/// "partitions.json").
const DOMAINS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
];

/// The only source of credentials; they sign commands and fetch revisions.
#[derive(Clone)]
pub enum CredentialSource {
    /// Explicit keys; `origin` names their source.
    Keys {
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
        origin: &'static str,
    },
    /// The keys of an IAM user in the on-premises file.
    OnPremisesFile(PathBuf),
    /// Temporary keys of a role session in a shared credentials file, default profile, which
    /// another program renews.
    File(PathBuf),
    /// Temporary keys of the role of an EC2 instance's profile.
    InstanceProfile(Metadata),
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read the on-premises configuration file {}; correct it, or register this host again", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the on-premises configuration file {} is not usable:\n{}", path.display(), bullets(problems))]
    Invalid {
        path: PathBuf,
        problems: Vec<ReadError>,
    },
    #[error("{found:?} is not the name of a region; expected 1 to 20 of a-z, 0-9 and '-'")]
    Region { found: String },
    #[error(
        "{found:?} is not the DNS suffix of a partition; expected a name such as amazonaws.com"
    )]
    Domain { found: String },
    #[error(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT is {found:?}; expected http://host or http://host:port"
    )]
    MetadataEndpoint { found: String },
    #[error(
        "this host has no identity. Outside EC2: register this host and put its on-premises file at {}. On an EC2 \
         instance: check that instance metadata is enabled and that {endpoint} can be reached; inside a container, raise the \
         metadata hop limit to 2. There is no such file, and EC2 instance metadata is not to be had",
        on_premises.display()
    )]
    Nobody {
        on_premises: PathBuf,
        endpoint: String,
        source: MetadataError,
    },
}

impl Identity {
    /// Determines the host's identity: from the on-premises file if there is one, else from EC2.
    /// Waits up to `timeout` for EC2's response. `AWS_REGION` and `AWS_HOST_IDENTIFIER` override
    /// region and identifier.
    pub async fn find(
        settings: &Settings,
        environment: &Environment,
        timeout: Duration,
    ) -> Result<Self, IdentityError> {
        let kept = settings
            .keep_environment_credentials
            .then(|| CredentialSource::of_person(environment))
            .flatten();
        let file = &settings.on_premises_config_file;
        if is_there(file) {
            let found = Self::on_premises(file, environment)?;
            return Ok(Self {
                credentials: kept.unwrap_or(found.credentials),
                ..found
            });
        }
        let named = (
            environment.text("AWS_REGION"),
            environment.text("AWS_HOST_IDENTIFIER"),
        );
        if let ((Some(region), Some(host_identifier)), Some(credentials)) = (named, &kept) {
            let (region, credentials) = (Region::new(region)?, credentials.clone());
            return Ok(Self {
                host_identifier: host_identifier.to_owned(),
                region,
                credentials,
            });
        }
        let metadata = Metadata::new(environment)?;
        let instance = wait_for(&metadata, timeout).await.map_err(|source| {
            let endpoint = metadata.endpoint().to_owned();
            IdentityError::Nobody {
                on_premises: file.clone(),
                endpoint,
                source,
            }
        })?;
        let found = Self::of_instance(&instance, metadata, environment)?;
        Ok(Self {
            credentials: kept.unwrap_or(found.credentials),
            ..found
        })
    }

    /// Reads the on-premises file; `AWS_REGION` and `AWS_HOST_IDENTIFIER` override its values.
    pub fn on_premises(path: &Path, environment: &Environment) -> Result<Self, IdentityError> {
        let file = on_premises::read(path, environment.text("AWS_REGION"))?;
        for warning in &file.warnings {
            tracing::warn!("{}: {warning}", path.display());
        }
        let credentials = match file.login {
            Login::User { .. } => CredentialSource::OnPremisesFile(path.to_owned()),
            Login::Session(credentials_file) => CredentialSource::File(credentials_file),
        };
        let host_identifier = environment
            .text("AWS_HOST_IDENTIFIER")
            .map_or(file.arn, str::to_owned);
        Ok(Self {
            host_identifier,
            region: Region::new(&file.region)?,
            credentials,
        })
    }

    fn of_instance(
        instance: &Instance,
        metadata: Metadata,
        environment: &Environment,
    ) -> Result<Self, IdentityError> {
        let Instance {
            region,
            account_id,
            instance_id,
            partition,
            domain,
        } = instance;
        let arn = format!("arn:{partition}:ec2:{region}:{account_id}:instance/{instance_id}");
        Ok(Self {
            host_identifier: environment
                .text("AWS_HOST_IDENTIFIER")
                .map_or(arn, str::to_owned),
            region: Region::in_domain(environment.text("AWS_REGION").unwrap_or(region), domain)?,
            credentials: CredentialSource::InstanceProfile(metadata),
        })
    }
}

/// Whether something exists at `path`; a path that cannot be examined counts, so that reading it
/// reports the error.
pub(crate) fn is_there(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Asks until there is a response, a permanent error, or `timeout` is over.
async fn wait_for(metadata: &Metadata, timeout: Duration) -> Result<Instance, MetadataError> {
    let began = Instant::now();
    let mut told = false;
    loop {
        match metadata.instance().await {
            Err(error) if error.is_temporary() && began.elapsed() + METADATA_PAUSE < timeout => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "waiting for EC2 instance metadata, because there is no on-premises file");
                    systemd::status("waiting for EC2 instance metadata");
                }
            }
            answered => return answered,
        }
        tokio::time::sleep(METADATA_PAUSE).await;
    }
}

impl CredentialSource {
    /// Returns the keys in a person's environment, for commands that a person runs; the daemon uses
    /// them only with a test profile.
    pub fn of_person(environment: &Environment) -> Option<Self> {
        Some(Self::Keys {
            access_key_id: environment.text("AWS_ACCESS_KEY_ID")?.to_owned(),
            secret_access_key: environment.text("AWS_SECRET_ACCESS_KEY")?.to_owned(),
            session_token: environment.text("AWS_SESSION_TOKEN").map(str::to_owned),
            origin: "the environment",
        })
    }
}

impl Region {
    /// Returns a region in the domain that its name implies.
    pub fn new(name: &str) -> Result<Self, IdentityError> {
        Self::in_domain(name, "amazonaws.com")
    }

    /// Returns a region whose services are in `domain`, unless its name implies another.
    pub fn in_domain(name: &str, domain: &str) -> Result<Self, IdentityError> {
        let allowed = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || c == '-';
        if name.is_empty() || name.len() > 20 || !name.chars().all(allowed) {
            return Err(IdentityError::Region {
                found: name.chars().take(80).collect(),
            });
        }
        let is_label = |label: &str| {
            !label.is_empty() && label.chars().all(allowed) && !label.starts_with('-')
        };
        if domain.len() > 100 || !domain.split('.').all(is_label) {
            return Err(IdentityError::Domain {
                found: domain.chars().take(80).collect(),
            });
        }
        let domain = DOMAINS
            .into_iter()
            .find_map(|(prefix, own)| name.starts_with(prefix).then_some(own))
            .unwrap_or(domain);
        Ok(Self {
            name: name.to_owned(),
            domain: domain.to_owned(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The DNS suffix of the region's endpoints.
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
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
            Self::Keys {
                access_key_id,
                origin,
                ..
            } => write!(f, "access key {access_key_id} of {origin}"),
            Self::OnPremisesFile(path) => write!(f, "the keys in {}", path.display()),
            Self::File(path) => write!(f, "credentials file {}", path.display()),
            Self::InstanceProfile(metadata) => {
                write!(f, "instance profile, from {}", metadata.endpoint())
            }
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
        assert_eq!(
            identity.host_identifier,
            "arn:aws:iam::123456789012:user/box1"
        );
        assert_eq!(identity.region.as_str(), "eu-central-1");
        assert!(
            !format!("{identity:?}").contains("hush"),
            "secrets are never shown"
        );
    }

    #[test]
    fn the_environment_overrides_region_and_identifier() {
        let identity = identity(
            USER,
            &[("AWS_REGION", "us-east-1"), ("AWS_HOST_IDENTIFIER", "box")],
        )
        .unwrap();
        assert_eq!(
            (identity.region.as_str(), identity.host_identifier.as_str()),
            ("us-east-1", "box")
        );
    }

    #[test]
    fn the_session_form_names_a_credentials_file() {
        let text = "region: cn-north-1\niam_session_arn: arn:aws:sts::123456789012:assumed-role/r/s\naws_credentials_file: /etc/creds\n";
        let identity = identity(text, &[]).unwrap();
        assert_eq!(
            identity.credentials.to_string(),
            "credentials file /etc/creds"
        );
        assert_eq!(identity.region.domain(), "amazonaws.com.cn");
    }

    #[test]
    fn the_domain_is_the_region_s_own_or_what_metadata_says() {
        let domain = |name, metadata| {
            Region::in_domain(name, metadata).map(|region| region.domain().to_owned())
        };
        for metadata in ["amazonaws.com", "sc2s.sgov.gov"] {
            assert_eq!(domain("us-isob-east-1", metadata).unwrap(), "sc2s.sgov.gov");
        }
        assert_eq!(
            domain("us-new-east-1", "aws.example").unwrap(),
            "aws.example"
        );
        assert_eq!(
            domain("cn-north-1", "amazonaws.com").unwrap(),
            "amazonaws.com.cn"
        );
        assert_eq!(
            domain("eusc-de-east-1", "amazonaws.com").unwrap(),
            "amazonaws.eu"
        );
        for evil in ["", "evil/", "a..b", "evil.com:80", "-a.com"] {
            assert!(domain("us-east-1", evil).is_err(), "{evil}");
        }
    }

    #[test]
    fn what_is_missing_or_contradicts_is_named() {
        let both = format!("{USER}iam_session_arn: arn:aws:sts::1:assumed-role/r/s\n");
        let cases = [
            (
                both.as_str(),
                "iam_user_arn: found together with iam_session_arn",
            ),
            ("region: r\n", "iam_user_arn: is missing"),
            (
                "iam_user_arn: a\naws_access_key_id: k\nregion: r\n",
                "aws_secret_access_key: is missing",
            ),
            (
                "iam_session_arn: a\nregion: r\n",
                "aws_credentials_file: is missing",
            ),
            (
                &USER.replace("eu-central-1", "Evil/host"),
                "is not the name of a region",
            ),
        ];
        for (text, expected) in cases {
            let message = identity(text, &[]).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
