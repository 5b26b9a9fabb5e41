//! Where commands come from: the CodeDeployCommand service, called through the SDK's own HTTP, signing and retries
//! (spec: Command service protocol).

use std::time::Duration;

use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::auth::{SigV4OperationSigningConfig, SigningOptions};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::orchestrator::operation::Operation as SmithyOperation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
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
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::{Region as SdkRegion, SigningRegion};
use codedeploy_api::command::{self, ErrorBody, HostCommand, Operation};

use crate::aws::Access;

/// Time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The service's client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CommandService {
    host_identifier: String,
    target_prefix: &'static str,
    once: Transport,
    with_retries: Transport,
}

type Transport = SmithyOperation<Request, Vec<u8>, ServiceError>;

/// One request: the operation it names and its JSON.
#[derive(Debug)]
struct Request {
    target: String,
    body: String,
}

/// An answer that says what is wrong.
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
    #[error("{operation}: {source}")]
    Service { operation: &'static str, source: ServiceError },
    /// Nothing usable came back: no connection, no credentials, time-out.
    #[error("{operation} did not reach the service: {reason}")]
    Transport { operation: &'static str, reason: String },
    #[error("{operation}: the answer cannot be read: {source}")]
    Answer { operation: &'static str, source: serde_json::Error },
    #[error("{operation}: the command is for {found:?}, not for this host ({own})")]
    Foreign { operation: &'static str, found: String, own: String },
}

impl CallError {
    /// Whether the service asks to be called less often.
    pub fn is_throttling(&self) -> bool {
        matches!(self, Self::Service { source, .. } if source.status == 429 || source.kind.contains("Throttl"))
    }

    /// Whether the same call can succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Service { source, .. } => {
                source.status >= 500 || self.is_throttling() || source.kind == "RequestTimeout"
            }
            Self::Transport { .. } => true,
            Self::Answer { .. } | Self::Foreign { .. } => false,
        }
    }
}

impl CommandService {
    pub fn new(access: &Access, host_identifier: String) -> Self {
        let target_prefix =
            if access.endpoints.secure { command::TARGET_PREFIX_SECURE } else { command::TARGET_PREFIX };
        Self {
            host_identifier,
            target_prefix,
            once: transport(access, &RetryConfig::disabled()),
            with_retries: transport(access, &RetryConfig::standard()),
        }
    }

    /// Waits for the next command of this host; `None` when the service has nothing to do. Never retried in here:
    /// the caller backs off.
    pub async fn poll(&self) -> Result<Option<HostCommand>, CallError> {
        let input = command::PollHostCommandInput { host_identifier: self.host_identifier.clone() };
        let Some(command) = self.send(&self.once, &input).await?.host_command else {
            return Ok(None);
        };
        if !self.host_identifier.contains(&command.host_identifier) {
            return Err(CallError::Foreign {
                operation: command::PollHostCommandInput::NAME,
                found: command.host_identifier,
                own: self.host_identifier.clone(),
            });
        }
        Ok(Some(command))
    }

    /// Any operation, with the SDK's standard retries.
    pub async fn call<O: Operation>(&self, input: &O) -> Result<O::Output, CallError> {
        self.send(&self.with_retries, input).await
    }

    async fn send<O: Operation>(&self, transport: &Transport, input: &O) -> Result<O::Output, CallError> {
        let operation = O::NAME;
        let body = serde_json::to_string(input).map_err(|source| CallError::Answer { operation, source })?;
        let request = Request { target: format!("{}.{operation}", self.target_prefix), body };
        let answer = transport.invoke(request).await.map_err(|error| match error {
            SdkError::ServiceError(context) => CallError::Service { operation, source: context.into_err() },
            other => CallError::Transport { operation, reason: DisplayErrorContext(other).to_string() },
        })?;
        let answer = if answer.is_empty() { b"{}".to_vec() } else { answer };
        serde_json::from_slice(&answer).map_err(|source| CallError::Answer { operation, source })
    }
}

fn transport(access: &Access, retries: &RetryConfig) -> Transport {
    let endpoint = access.command_endpoint();
    let builder = SmithyOperation::builder()
        .service_name("CodeDeployCommand")
        .operation_name("Command")
        .behavior_version(BehaviorVersion::latest())
        .http_client(access.http.clone())
        .endpoint_url(&endpoint)
        .standard_retry(retries)
        .retry_classifier(TransientErrorClassifier::<ServiceError>::new())
        .retry_classifier(HttpStatusCodeClassifier::default())
        .sleep_impl(TokioSleep::new())
        .time_source(SystemTimeSource::new())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(access.read_timeout)
                .build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .runtime_plugin(signing(access));
    builder.serializer(serialize).deserializer(deserialize).build()
}

/// SigV4 with the one source of credentials.
fn signing(access: &Access) -> StaticRuntimePlugin {
    let name = if access.endpoints.secure { command::SIGNING_NAME_SECURE } else { command::SIGNING_NAME };
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
    components.set_identity_resolver(SCHEME_ID, SharedIdentityResolver::new(access.credentials.clone()));
    StaticRuntimePlugin::new().with_config(layer.freeze()).with_runtime_components(components)
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

fn deserialize(response: &HttpResponse) -> Result<Vec<u8>, OrchestratorError<ServiceError>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        return Ok(body.to_vec());
    }
    let parsed: Option<ErrorBody> = serde_json::from_slice(body).ok();
    let header = response.headers().get("x-amzn-errortype").map(str::to_owned);
    let kind = parsed.as_ref().map(|error| error.kind.clone()).filter(|kind| !kind.is_empty()).or(header);
    let kind = kind.unwrap_or_else(|| "an error without a name".into());
    let message = parsed.map_or_else(|| excerpt(body), |error| error.message);
    let kind = kind.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
    Err(OrchestratorError::operation(ServiceError { status: response.status().as_u16(), kind, message }))
}

/// The beginning of a body that is no error document, as one line.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
