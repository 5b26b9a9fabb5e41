//! The CodeDeployCommand service, called through the SDK's own HTTP and signing (spec: Command
//! service protocol). This module sets time-outs, limits and retries for all calls alike.

mod connection_probe;
mod peer;
mod persistence;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::auth::{SigV4OperationSigningConfig, SigningOptions};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::operation::Operation as SmithyOperation;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::identity::SharedIdentityResolver;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::{Region as SdkRegion, SigningRegion};
use codedeploy_api::command::{self, ErrorBody, HostCommand, Operation};
use serde::de::Error as _;

use crate::aws::Access;
use crate::aws::credentials::{self, Credentials};
use crate::backoff::jittered;
use codedeploy_api::chain::Chain;
use connection_probe::ConnectionProbe;
use peer::Peer;
pub use persistence::Persistence;

/// Stands for the name of an error without one; the service's own errors have a name.
const NAMELESS: &str = "an error without a name";

/// The time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The service's client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CommandService {
    host_identifier: String,
    target_prefix: &'static str,
    credentials: Credentials,
    transport: Transport,
    probe: ConnectionProbe,
    peer: Peer,
    endpoint: String,
}

type Transport = SmithyOperation<Request, Answer, ServiceError>;

/// One request: its operation and its JSON.
#[derive(Debug)]
struct Request {
    target: String,
    body: String,
}

/// A successful response.
#[derive(Debug)]
struct Answer {
    body: Vec<u8>,
    /// Whether its headers show that it comes from the service.
    of_service: bool,
    /// Whether it has a request id.
    numbered: bool,
}

/// An error response.
#[derive(Debug, thiserror::Error)]
#[error("the service answered {kind} (HTTP {status}): {message}")]
pub struct ServiceError {
    pub status: u16,
    /// The error's name, without a namespace.
    pub kind: String,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{operation}: {answer}")]
    Service {
        operation: &'static str,
        answer: ServiceError,
    },
    /// No usable response: no connection, no credentials, a time-out, or a response that breaks off
    /// or never ends.
    #[error("{operation} did not reach the service: {reason}")]
    Transport {
        operation: &'static str,
        reason: String,
    },
    /// The response does not come from the service, but for example from a proxy.
    #[error("{operation}: the answer is not the service's: {reason}")]
    Answer {
        operation: &'static str,
        reason: serde_json::Error,
    },
}

/// Errors about the caller, not about the request; somebody can fix the cause while the agent runs.
const CREDENTIALS: [&str; 14] = [
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

impl ServiceError {
    fn is_throttling(&self) -> bool {
        const NAMES: [&str; 4] = [
            "Throttl",
            "TooManyRequests",
            "RequestLimitExceeded",
            "SlowDown",
        ];
        self.status == 429 || NAMES.iter().any(|name| self.kind.contains(name))
    }

    fn is_about_credentials(&self) -> bool {
        CREDENTIALS.contains(&self.kind.as_str())
    }
}

impl CallError {
    /// Whether the service asks for fewer calls.
    pub fn is_throttling(&self) -> bool {
        matches!(self, Self::Service { answer, .. } if answer.is_throttling())
    }

    /// Whether the service itself rejects the request, so that the same call can never succeed.
    pub fn is_refusal(&self) -> bool {
        let Self::Service { answer, .. } = self else {
            return false;
        };
        (400..500).contains(&answer.status)
            && answer.status != 408
            && !matches!(
                answer.kind.as_str(),
                NAMELESS | "RequestTimeout" | "RequestTimeoutException"
            )
            && !answer.is_throttling()
            && !answer.is_about_credentials()
    }

    /// Whether the service rejects the credentials; new ones may come.
    fn is_refusal_of_credentials(&self) -> bool {
        matches!(self, Self::Service { answer, .. } if credentials::is_refusal(&answer.kind))
    }

    /// Whether the service may have acted on the call despite the error.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Service { answer, .. } => answer.status >= 500,
            Self::Transport { .. } | Self::Answer { .. } => true,
        }
    }

    /// Whether the same call can succeed soon without intervention.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Service { answer, .. } => !self.is_refusal() && !answer.is_about_credentials(),
            Self::Transport { .. } | Self::Answer { .. } => true,
        }
    }
}

/// The attempts of [`CommandService::call`]; the pauses between them are at most 1, 2 and 4
/// seconds.
const ATTEMPTS: u32 = 4;

/// The longest pause between attempts of [`CommandService::call_persistently`].
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl CommandService {
    pub fn new(access: &Access, host_identifier: String) -> Self {
        let target_prefix = if access.endpoints.secure {
            command::TARGET_PREFIX_SECURE
        } else {
            command::TARGET_PREFIX
        };
        let credentials = access.credentials.clone();
        let (probe, peer) = (ConnectionProbe::default(), Peer::new(&access.signer));
        let transport = transport(access, probe.clone(), peer.clone());
        let endpoint = access.command_endpoint();
        Self {
            host_identifier,
            target_prefix,
            credentials,
            transport,
            probe,
            peer,
            endpoint,
        }
    }

    /// Whether the newest call is connected to the service, even if there is no response yet.
    pub fn is_connected(&self) -> bool {
        self.probe.is_connected()
    }

    /// The digests of the service's signing keys, from its latest response, if it is this project's
    /// controller.
    pub fn signers(&self) -> Option<Arc<str>> {
        self.peer.signers()
    }

    /// The service's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The host's identifier at the service.
    pub fn host_identifier(&self) -> &str {
        &self.host_identifier
    }

    /// Waits for the next command of this host; `None` if there is none. Makes one attempt: the
    /// caller backs off. Dropping the future ends the wait.
    pub async fn poll(&self) -> Result<Option<HostCommand>, CallError> {
        let input = command::PollHostCommandInput {
            host_identifier: self.host_identifier.clone(),
        };
        Ok(self.attempt(&input).await?.host_command)
    }

    /// Calls until there is a response, a permanent error, or no attempt left.
    pub async fn call<O: Operation>(&self, input: &O) -> Result<O::Output, CallError> {
        let mut attempt = 1;
        loop {
            match self.attempt(input).await {
                Err(error) if error.is_temporary() && attempt < ATTEMPTS => {
                    let pause = jittered(Duration::from_secs(1 << (attempt - 1)));
                    tracing::info!(%error, attempt, retry_in_ms = pause.as_millis(), "call failed");
                    tokio::time::sleep(pause).await;
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    /// Calls until the service responds or rejects the call for good; `None` if the time is over.
    pub async fn call_persistently<O: Operation>(
        &self,
        input: &O,
        persistence: Persistence<'_>,
    ) -> Option<Result<O::Output, CallError>> {
        let end = persistence.end();
        let mut longest = Duration::from_secs(1);
        loop {
            let answer = tokio::select! {
                biased;
                () = end.cancelled() => return None,
                answer = self.attempt(input) => answer,
            };
            let error = match answer {
                Err(error) if persistence.goes_on_after(&error) => error,
                ended => return Some(ended),
            };
            if persistence.is_over() {
                return None;
            }
            let pause = jittered(longest);
            tracing::info!(%error, retry_in_ms = pause.as_millis(), "call failed");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = end.cancelled() => {}
            }
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }

    /// Calls once, and once more if the credentials are rejected and their source has new ones.
    pub async fn attempt<O: Operation>(&self, input: &O) -> Result<O::Output, CallError> {
        let operation = O::NAME;
        let body = serde_json::to_string(input)
            .map_err(|reason| CallError::Answer { operation, reason })?;
        let used = self.credentials.generation();
        let mut answer = self.exchange(operation, body.clone()).await;
        if answer
            .as_ref()
            .is_err_and(CallError::is_refusal_of_credentials)
            && self.credentials.refused(used).await
        {
            answer = self.exchange(operation, body).await;
        }
        let Answer {
            body,
            of_service,
            numbered,
        } = answer?;
        let foreign = |reason| CallError::Answer { operation, reason };
        let body = if !body.is_empty() && of_service {
            body
        } else if body.is_empty() && O::MAY_BE_EMPTY && numbered {
            b"{}".to_vec()
        } else if body.is_empty() {
            return Err(foreign(serde_json::Error::custom("it is empty")));
        } else {
            return Err(foreign(serde_json::Error::custom(format!(
                "it begins with {:?}",
                excerpt(&body)
            ))));
        };
        serde_json::from_slice(&body).map_err(foreign)
    }

    async fn exchange(&self, operation: &'static str, body: String) -> Result<Answer, CallError> {
        let request = Request {
            target: format!("{}.{operation}", self.target_prefix),
            body,
        };
        self.transport
            .invoke(request)
            .await
            .map_err(|error| match error {
                SdkError::ServiceError(context) => CallError::Service {
                    operation,
                    answer: context.into_err(),
                },
                other => CallError::Transport {
                    operation,
                    reason: in_words(&other),
                },
            })
    }
}

fn transport(access: &Access, probe: ConnectionProbe, peer: Peer) -> Transport {
    SmithyOperation::builder()
        .service_name("CodeDeployCommand")
        .operation_name("Command")
        .behavior_version(BehaviorVersion::latest())
        .http_client(access.http.clone())
        .endpoint_url(&access.command_endpoint())
        .no_retry()
        .sleep_impl(TokioSleep::new())
        .time_source(SystemTimeSource::new())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(access.read_timeout)
                // A body that stalls counts as a read without progress.
                .operation_attempt_timeout(CONNECT_TIMEOUT + access.read_timeout)
                .build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .with_connection_poisoning()
        .interceptor(probe)
        .interceptor(peer)
        .runtime_plugin(signing(access))
        .serializer(serialize)
        .deserializer(deserialize)
        .build()
}

/// SigV4 with the single source of credentials.
fn signing(access: &Access) -> StaticRuntimePlugin {
    let name = if access.endpoints.secure {
        command::SIGNING_NAME_SECURE
    } else {
        command::SIGNING_NAME
    };
    let region = SdkRegion::new(access.region.as_str().to_owned());
    let mut options = SigningOptions::default();
    options.double_uri_encode = true;
    options.normalize_uri_path = true;
    options.content_sha256_header = true;
    let mut layer = Layer::new("CodeDeployCommand");
    layer.store_put(SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(region)),
        region_set: None,
        name: Some(SigningName::from_static(name)),
        signing_options: options,
    });
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    let mut components = RuntimeComponentsBuilder::new("CodeDeployCommand");
    components.push_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()));
    components.set_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(
        StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]),
    )));
    let provider = SharedCredentialsProvider::new(access.credentials.clone());
    components.set_identity_resolver(SCHEME_ID, SharedIdentityResolver::new(provider));
    // The credentials manage their expiry themselves.
    components.set_identity_cache(Some(IdentityCache::no_cache()));
    StaticRuntimePlugin::new()
        .with_config(layer.freeze())
        .with_runtime_components(components)
}

fn serialize(request: Request) -> Result<HttpRequest, aws_smithy_runtime_api::box_error::BoxError> {
    let mut http = HttpRequest::new(SdkBody::from(request.body));
    http.set_method("POST")?;
    http.set_uri("/")?;
    let headers = http.headers_mut();
    headers.insert("content-type", command::CONTENT_TYPE);
    headers.insert("x-amz-target", request.target);
    headers.insert(command::AGENT_VERSION_HEADER, crate::version::reported());
    Ok(http)
}

fn deserialize(response: &HttpResponse) -> Result<Answer, OrchestratorError<ServiceError>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        let header = |name| response.headers().get(name);
        let numbered = header(command::REQUEST_ID_HEADER).is_some();
        let typed =
            header("content-type").is_some_and(|kind| kind.starts_with("application/x-amz-json-"));
        return Ok(Answer {
            body: body.to_vec(),
            of_service: numbered || typed,
            numbered,
        });
    }
    let document: Option<ErrorBody> = serde_json::from_slice(body).ok();
    let header = response
        .headers()
        .get("x-amzn-errortype")
        .unwrap_or_default();
    let named = document.as_ref().map_or("", |error| &error.kind);
    let kind = bare_name(if named.is_empty() { header } else { named });
    let kind = if kind.is_empty() {
        NAMELESS.to_owned()
    } else {
        kind.to_owned()
    };
    let message = document.map_or_else(|| excerpt(body), |error| error.message);
    Err(OrchestratorError::operation(ServiceError {
        status: response.status().as_u16(),
        kind,
        message,
    }))
}

/// Returns the name of an error without its namespace and without the address that some services
/// append.
fn bare_name(kind: &str) -> &str {
    let name = kind.rsplit('#').next().unwrap_or_default();
    name.split(':').next().unwrap_or_default()
}

/// The libraries' names of the stages of a call; the causes that follow are clearer.
const STAGES: [&str; 6] = [
    "dispatch failure",
    "io error",
    "other",
    "response error",
    "client error (Connect)",
    "client error (SendRequest)",
];

/// An error and its causes, from the first informative one on.
fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut telling = error;
    while STAGES.contains(&telling.to_string().as_str())
        && let Some(source) = telling.source()
    {
        telling = source;
    }
    Chain(telling).to_string()
}

/// The beginning of a body that is no error document, as one line.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Stage(&'static str, #[source] Option<Box<Stage>>);

    #[test]
    fn an_error_begins_where_it_says_something_about_the_world() {
        let error = |stages: &[&'static str]| {
            stages
                .iter()
                .rev()
                .fold(None, |source, words| Some(Box::new(Stage(words, source))))
                .unwrap()
        };
        let refused = error(&[
            "dispatch failure",
            "io error",
            "tcp connect error",
            "Connection refused",
        ]);
        assert_eq!(in_words(&*refused), "tcp connect error: Connection refused");
        assert_eq!(in_words(&*error(&["dispatch failure", "other"])), "other");
        let silent = error(&[
            "request has timed out",
            "HTTP read timeout occurred after 80s",
        ]);
        assert_eq!(
            in_words(&*silent),
            "request has timed out: HTTP read timeout occurred after 80s"
        );
    }
}
