//! An HTTPS GET with the agent's HTTP client: its trust store, its proxy, and a body that is read
//! as it comes.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::HttpStatusCodeClassifier;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::interceptors::context::{Error, Output};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_runtime_api::client::ser_de::DeserializeResponse;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::timeout::TimeoutConfig;

use codedeploy_api::chain::Chain;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An address: the server, and the path on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Scheme, host and port.
    pub(super) origin: String,
    /// Begins with a slash.
    pub(super) path: String,
}

impl Address {
    /// `None` for a text that is not an absolute http or https address.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "https" && scheme != "http" {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() || authority.contains('@') {
            return None;
        }
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(Self {
            origin: format!("{scheme}://{}", authority.to_ascii_lowercase()),
            path: format!("{slash}{path}"),
        })
    }

    /// Whether nobody else can read the traffic: it is encrypted, or stays on this host.
    pub(super) fn is_private(&self) -> bool {
        let Some((scheme, authority)) = self.origin.split_once("://") else {
            return false;
        };
        let loopback = |host: &str| {
            host.parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
        };
        let host = match authority
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        {
            Some((host, _)) => host,
            None => authority.split(':').next().unwrap_or_default(),
        };
        scheme == "https" || host == "localhost" || loopback(host)
    }

    /// The target of a redirect from here. `None` if it is unusable, or gives up encryption.
    pub(super) fn redirected(&self, location: &str) -> Option<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(Self {
                path: location.into(),
                ..self.clone()
            });
        }
        let next = Self::parse(location)?;
        let downgrade = self.origin.starts_with("https:") && next.origin.starts_with("http:");
        (!downgrade).then_some(next)
    }
}

/// A server's response; its body is still unread.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Headers,
    pub(super) body: ByteStream,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Whether it is a page for people, as proxies and portals send in place of a server's
    /// response.
    pub(super) fn is_page(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    }
}

/// No response arrived.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// There is no request, for example without credentials.
    #[error("{0}")]
    NotSent(String),
    #[error("{0}")]
    Unreached(String),
    /// The request may have arrived.
    #[error("{0}")]
    Lost(String),
}

impl NoAnswer {
    fn of(error: &SdkError<Self, HttpResponse>) -> Self {
        let words = Chain(error).to_string();
        match error {
            SdkError::ConstructionFailure(_) => Self::NotSent(words),
            SdkError::DispatchFailure(_) => Self::Unreached(words),
            _ => Self::Lost(words),
        }
    }
}

/// Sends one request, signed if there is a `signature`. Redirects are returned like any other
/// response.
pub(super) async fn get(
    http: &SharedHttpClient,
    address: &Address,
    headers: Vec<(&'static str, String)>,
    read_timeout: Duration,
    signature: Option<StaticRuntimePlugin>,
) -> Result<Answer, NoAnswer> {
    let path = address.path.clone();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(read_timeout)
        .build();
    let operation = Operation::builder()
        .service_name("Web")
        .operation_name("Get")
        .behavior_version(BehaviorVersion::latest())
        .http_client(http.clone())
        .endpoint_url(&address.origin)
        .no_retry()
        // A server that fails is asked again over another connection.
        .retry_classifier(HttpStatusCodeClassifier::default())
        .with_connection_poisoning()
        .sleep_impl(TokioSleep::new())
        .time_source(SystemTimeSource::new())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    let operation = match signature {
        Some(signature) => operation.runtime_plugin(signature),
        None => operation.no_auth(),
    };
    let operation = operation
        .serializer(move |()| {
            let mut request = HttpRequest::new(SdkBody::empty());
            request.set_method("GET")?;
            request.set_uri(path.clone())?;
            for (name, value) in &headers {
                request.headers_mut().try_insert(*name, value.clone())?;
            }
            Ok(request)
        })
        .deserializer_impl::<Taken, NoAnswer>(Streaming)
        .build();
    let taken = operation
        .invoke(())
        .await
        .map_err(|error| NoAnswer::of(&error))?;
    let answer = taken.0.into_inner().ok().flatten();
    answer.ok_or_else(|| NoAnswer::Lost("the answer was lost".into()))
}

/// The response on its way out of the client, which may share it between threads.
#[derive(Debug)]
struct Taken(Mutex<Option<Answer>>);

/// Returns the body without reading it.
#[derive(Debug)]
struct Streaming;

impl DeserializeResponse for Streaming {
    fn deserialize_streaming_with_config(
        &self,
        response: &mut HttpResponse,
        _config: &ConfigBag,
    ) -> Option<Result<Output, OrchestratorError<Error>>> {
        let answer = Answer {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body: ByteStream::new(std::mem::replace(response.body_mut(), SdkBody::taken())),
        };
        Some(Ok(Output::erase(Taken(Mutex::new(Some(answer))))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encryption_and_loopback_are_private() {
        let private = |text| Address::parse(text).unwrap().is_private();
        for text in [
            "https://x",
            "http://127.0.0.1:80/x",
            "http://[::1]:8",
            "http://localhost:1",
        ] {
            assert!(private(text), "{text}");
        }
        for text in [
            "http://x",
            "http://127.0.0.1.evil.example",
            "http://10.0.0.1:443",
        ] {
            assert!(!private(text), "{text}");
        }
    }

    #[test]
    fn redirects_are_followed_within_and_beyond_a_host_but_never_out_of_encryption() {
        let address = Address::parse("https://API.github.com/repos/a/b").unwrap();
        assert_eq!(
            (&*address.origin, &*address.path),
            ("https://api.github.com", "/repos/a/b")
        );
        let to = |location| {
            address
                .redirected(location)
                .map(|next| next.origin + &next.path)
        };
        assert_eq!(
            to("/repositories/7/tarball").as_deref(),
            Some("https://api.github.com/repositories/7/tarball")
        );
        assert_eq!(
            to("https://codeload.github.com/x?token=1#f").as_deref(),
            Some("https://codeload.github.com/x?token=1")
        );
        for refused in [
            "http://api.github.com/x",
            "//evil/x",
            "ftp://x/y",
            "https://user@evil/x",
            "x",
        ] {
            assert_eq!(to(refused), None, "{refused}");
        }
    }
}
