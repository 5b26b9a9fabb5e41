//! Services of the protocol AWS JSON 1.1, called through the SDK's own HTTP and signing: one
//! operation in, one document out. Time-outs, limits and retries are the same for all of them.

use std::error::Error;
use std::time::Duration;

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::orchestrator::operation::{
    Operation as SmithyOperation, OperationBuilder,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::timeout::TimeoutConfig;
use codedeploy_api::chain::Chain;
use codedeploy_api::command::{self, ErrorBody, Operation};
use serde::de::Error as _;

use super::Access;
use super::credentials::{self, Credentials};
use super::signing::{Paths, Scope, signing};
use crate::backoff::jittered;

/// Stands for the name of an error without one; the service's own errors have a name.
const NAMELESS: &str = "an error without a name";

/// The time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The attempts of [`ServiceClient::call`]; the pauses between them are at most 1, 2 and 4
/// seconds.
const ATTEMPTS: u32 = 4;

/// A service, and the headers of every request to it.
#[derive(Debug)]
pub(crate) struct Service<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) target_prefix: &'static str,
    pub(crate) signing_name: &'static str,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

/// A service's client. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ServiceClient {
    target_prefix: &'static str,
    credentials: Credentials,
    transport: Transport,
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

impl Service<'_> {
    /// Builds the client; `watched` adds interceptors.
    pub(crate) fn client(
        self,
        access: &Access,
        watched: impl FnOnce(OperationBuilder) -> OperationBuilder,
    ) -> ServiceClient {
        let scope = Scope {
            service: self.signing_name,
            region: access.region.as_str().to_owned(),
            paths: Paths::Encoded,
        };
        let builder = SmithyOperation::builder()
            .service_name(self.signing_name)
            .operation_name("Call")
            .behavior_version(BehaviorVersion::latest())
            .http_client(access.http.clone())
            .endpoint_url(self.endpoint)
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
            .runtime_plugin(signing(&access.credentials, &scope));
        let headers = self.headers;
        let transport = watched(builder)
            .serializer(move |request| serialize(request, &headers))
            .deserializer(deserialize)
            .build();
        ServiceClient {
            target_prefix: self.target_prefix,
            credentials: access.credentials.clone(),
            transport,
        }
    }
}

impl ServiceClient {
    /// Calls until there is a response, a permanent error, or no attempt left.
    pub(crate) async fn call<O: Operation>(&self, input: &O) -> Result<O::Output, CallError> {
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

    /// Calls once, and once more if the credentials are rejected and their source has new ones.
    pub(crate) async fn attempt<O: Operation>(&self, input: &O) -> Result<O::Output, CallError> {
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

fn serialize(
    request: Request,
    more: &[(&'static str, &'static str)],
) -> Result<HttpRequest, BoxError> {
    let mut http = HttpRequest::new(SdkBody::from(request.body));
    http.set_method("POST")?;
    http.set_uri("/")?;
    let headers = http.headers_mut();
    headers.insert("content-type", command::CONTENT_TYPE);
    headers.insert("x-amz-target", request.target);
    for (name, value) in more {
        headers.insert(*name, *value);
    }
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
