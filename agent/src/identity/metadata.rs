//! The EC2 instance metadata service, version 2: first a session token, then requests (AWS: "Use
//! the Instance Metadata Service").

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_runtime_api::client::http::{HttpConnector as _, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use serde::Deserialize;

use super::IdentityError;
use crate::config::Environment;
use codedeploy_api::chain::Chain;

const DEFAULT_ENDPOINT: &str = "http://169.254.169.254";
const ENDPOINT_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
/// The lifetime of a session token, in seconds.
const TOKEN_TTL: &str = "21600";
/// The timeout of one request: the service is on the same machine.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The largest response.
const LONGEST_ANSWER: usize = 64 << 10;

/// A client of the service. Cheap to clone; clones share the session token.
#[derive(Clone)]
pub struct Metadata {
    endpoint: String,
    connector: SharedHttpConnector,
    token: Arc<tokio::sync::Mutex<Option<String>>>,
}

/// The service's description of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub region: String,
    pub account_id: String,
    pub instance_id: String,
    pub partition: String,
    /// The DNS suffix of the partition's services.
    pub domain: String,
}

/// Temporary keys of the instance's role.
pub struct RoleKeys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: String,
    pub expires: SystemTime,
}

impl fmt::Debug for RoleKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleKeys")
            .field("access_key_id", &self.access_key_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error("{url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url} did not answer within {} s", TIMEOUT.as_secs())]
    Silent { url: String },
    #[error("{url} answered HTTP {status}{}", advice(*status))]
    Status { url: String, status: u16 },
    #[error("the answer of {url} is unusable: {what}")]
    Answer { url: String, what: String },
    #[error(
        "the instance has no role, so it has no credentials; attach an instance profile whose role may use CodeDeploy's agent and read the revisions"
    )]
    NoRole,
    #[error(
        "the role's credentials are unavailable: {url} returned {code:?}; check the role of the instance profile"
    )]
    Role { url: String, code: String },
}

fn advice(status: u16) -> &'static str {
    match status {
        403 => {
            "; instance metadata is switched off: set HttpEndpoint to enabled in the instance's metadata options"
        }
        _ => "",
    }
}

impl MetadataError {
    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 401 | 429),
            // At boot the service can be up before its responses are complete.
            Self::Answer { .. } => true,
            Self::NoRole | Self::Role { .. } => false,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    region: String,
    account_id: String,
    instance_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleDocument {
    code: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
}

impl Metadata {
    /// Returns the service at its usual address, or at the one in the environment.
    pub fn new(environment: &Environment) -> Result<Self, IdentityError> {
        let endpoint = environment
            .text(ENDPOINT_VARIABLE)
            .unwrap_or(DEFAULT_ENDPOINT)
            .trim_end_matches('/');
        let host = endpoint.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '@') {
            return Err(IdentityError::MetadataEndpoint {
                found: endpoint.chars().take(80).collect(),
            });
        }
        // The metadata service defines the host's identity, so no proxy may answer for it.
        let connector = Connector::builder()
            .proxy_config(ProxyConfig::disabled())
            .build_http();
        Ok(Self {
            endpoint: endpoint.to_owned(),
            connector: SharedHttpConnector::new(connector),
            token: Arc::default(),
        })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the identity of this instance.
    pub async fn instance(&self) -> Result<Instance, MetadataError> {
        let path = "/latest/dynamic/instance-identity/document";
        let document: Document = self.json(path).await?;
        Ok(Instance {
            region: document.region,
            account_id: document.account_id,
            instance_id: document.instance_id,
            partition: self.word("/latest/meta-data/services/partition").await?,
            domain: self.word("/latest/meta-data/services/domain").await?,
        })
    }

    /// Returns the current keys of the instance profile's role.
    pub async fn role_keys(&self) -> Result<RoleKeys, MetadataError> {
        let folder = "/latest/meta-data/iam/security-credentials/";
        let role = match self.word(folder).await {
            Err(MetadataError::Status { status: 404, .. }) => return Err(MetadataError::NoRole),
            role => role?,
        };
        let path = format!("{folder}{role}");
        let url = format!("{}{path}", self.endpoint);
        let document: RoleDocument = self.json(&path).await?;
        if let Some(code) = document.code.filter(|code| code != "Success") {
            return Err(MetadataError::Role {
                url,
                code: code.chars().take(80).collect(),
            });
        }
        let missing = |what: &str| MetadataError::Answer {
            url: url.clone(),
            what: format!("it has no {what}"),
        };
        let expiration = document.expiration.ok_or_else(|| missing("Expiration"))?;
        let form = &time::format_description::well_known::Rfc3339;
        let expires = time::OffsetDateTime::parse(&expiration, form)
            .map_err(|_| missing("usable Expiration"))?;
        Ok(RoleKeys {
            access_key_id: document
                .access_key_id
                .ok_or_else(|| missing("AccessKeyId"))?,
            secret_access_key: document
                .secret_access_key
                .ok_or_else(|| missing("SecretAccessKey"))?,
            session_token: document.token.ok_or_else(|| missing("Token"))?,
            expires: expires.into(),
        })
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, MetadataError> {
        let text = self.get(path).await?;
        serde_json::from_str(&text).map_err(|error| {
            // Report only the place of the mistake, because the text may contain keys.
            let what = format!(
                "expected a JSON document, wrong at line {} column {}",
                error.line(),
                error.column()
            );
            MetadataError::Answer {
                url: format!("{}{path}", self.endpoint),
                what,
            }
        })
    }

    /// Returns a response that is one short name, the first of several lines.
    async fn word(&self, path: &str) -> Result<String, MetadataError> {
        let text = self.get(path).await?;
        let word = text.lines().next().unwrap_or_default().trim();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "+=,.@-_".contains(c);
        if word.is_empty() || word.len() > 128 || !word.chars().all(is_name) {
            let what = "expected one name".to_owned();
            return Err(MetadataError::Answer {
                url: format!("{}{path}", self.endpoint),
                what,
            });
        }
        Ok(word.to_owned())
    }

    /// Makes several attempts, with growing pauses.
    async fn get(&self, path: &str) -> Result<String, MetadataError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.ask(path).await {
                Err(error) if error.is_temporary() => {
                    tracing::debug!(%error, "instance metadata: asking again")
                }
                answered => return answered,
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause *= 2;
        }
        self.ask(path).await
    }

    /// Makes one attempt; replaces a rejected token.
    async fn ask(&self, path: &str) -> Result<String, MetadataError> {
        let token = self.token(None).await?;
        match self
            .send("GET", path, ("x-aws-ec2-metadata-token", token.clone()))
            .await
        {
            Err(MetadataError::Status { status: 401, .. }) => {
                let token = self.token(Some(&token)).await?;
                self.send("GET", path, ("x-aws-ec2-metadata-token", token))
                    .await
            }
            answered => answered,
        }
    }

    /// Returns the session token; a new one if there is none or if it is the `refused` one.
    async fn token(&self, refused: Option<&str>) -> Result<String, MetadataError> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_deref().filter(|token| refused != Some(token)) {
            return Ok(token.to_owned());
        }
        let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL.to_owned());
        let fresh = self.send("PUT", "/latest/api/token", ttl).await?;
        *token = Some(fresh.clone());
        Ok(fresh)
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        header: (&'static str, String),
    ) -> Result<String, MetadataError> {
        let url = format!("{}{path}", self.endpoint);
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(method, &url, header)).await;
        answer.unwrap_or(Err(MetadataError::Silent { url }))
    }

    async fn exchange(
        &self,
        method: &str,
        url: &str,
        (name, value): (&'static str, String),
    ) -> Result<String, MetadataError> {
        let unreachable = |reason: String| MetadataError::Unreachable {
            url: url.to_owned(),
            reason,
        };
        let unusable = |what: &str| MetadataError::Answer {
            url: url.to_owned(),
            what: what.to_owned(),
        };
        let mut request = HttpRequest::new(SdkBody::empty());
        request
            .set_method(method)
            .map_err(|error| unreachable(error.to_string()))?;
        request
            .set_uri(url)
            .map_err(|error| unreachable(error.to_string()))?;
        request
            .headers_mut()
            .try_insert(name, value)
            .map_err(|_| unusable("the session token is no header value"))?;
        let answer = self.connector.call(request).await;
        let answer = answer.map_err(|error| unreachable(Chain(&error).to_string()))?;
        if !answer.status().is_success() {
            return Err(MetadataError::Status {
                url: url.to_owned(),
                status: answer.status().as_u16(),
            });
        }
        let mut body = ByteStream::new(answer.into_body());
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| unreachable(error.to_string()))?);
            if bytes.len() > LONGEST_ANSWER {
                return Err(unusable("it is too long"));
            }
        }
        String::from_utf8(bytes).map_err(|_| unusable("it is not text"))
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
