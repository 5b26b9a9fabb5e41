//! Owns the requests that the service itself makes: HTTP and HTTPS, with the roots that the system trusts.

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long a request may take, its answer included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    #[error("the system has no root certificates that can be read")]
    Roots(#[source] std::io::Error),
    #[error("{url} cannot be requested: expected an address such as https://host:port/path")]
    Url { url: String, source: axum::http::Error },
    #[error("{url} does not answer")]
    Send { url: String, source: hyper_util::client::legacy::Error },
    #[error("the answer of {url} cannot be read; at most {MAX_ANSWER} bytes are")]
    Receive { url: String, source: axum::Error },
    #[error("{url} did not answer within {} s", PATIENCE.as_secs())]
    Late { url: String },
}

/// Whether a request could be sent to it.
pub(crate) fn is_url(text: &str) -> bool {
    let uri = text.parse::<Uri>().ok();
    uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

pub async fn get(url: &str) -> Result<Answer, OutgoingError> {
    send(url, Request::builder().method(Method::GET).uri(url).body(Body::empty())).await
}

pub async fn post(url: &str, content_type: &str, body: Vec<u8>) -> Result<Answer, OutgoingError> {
    post_with(url, content_type, &[], body).await
}

/// [`post`] with further headers.
pub async fn post_with(
    url: &str,
    content_type: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer, OutgoingError> {
    let mut request =
        Request::builder().method(Method::POST).uri(url).header(header::CONTENT_TYPE, content_type);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(url, request.body(Body::from(body))).await
}

type Https = Client<HttpsConnector<HttpConnector>, Body>;

fn client() -> Result<&'static Https, OutgoingError> {
    static CLIENT: LazyLock<Result<Https, std::io::Error>> = LazyLock::new(|| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let connector = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?;
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Client::builder(TokioExecutor::new()).build(connector))
    });
    // The error of a first attempt is every attempt's.
    CLIENT
        .as_ref()
        .map_err(|error| OutgoingError::Roots(std::io::Error::new(error.kind(), error.to_string())))
}

/// An address as it may be shown: scheme, host and port. The rest, and what is before an `@`, may hold what gives access.
pub fn place(url: &str) -> String {
    let shown = || {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?.as_str();
        let host = authority.rsplit('@').next().unwrap_or(authority);
        Some(format!("{}://{host}", uri.scheme_str()?))
    };
    shown().unwrap_or_else(|| "what is no address".into())
}

async fn send(url: &str, request: Result<Request<Body>, axum::http::Error>) -> Result<Answer, OutgoingError> {
    let url = || place(url);
    let request = request.map_err(|source| OutgoingError::Url { url: url(), source })?;
    let client = client()?;
    let exchange = async {
        let response = client.request(request).await;
        let response = response.map_err(|source| OutgoingError::Send { url: url(), source })?;
        let status = response.status().as_u16();
        let body = to_bytes(Body::new(response.into_body()), MAX_ANSWER).await;
        Ok(Answer { status, body: body.map_err(|source| OutgoingError::Receive { url: url(), source })? })
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(OutgoingError::Late { url: url() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_access_is_not_shown() {
        for (url, shown) in [
            ("http://prometheus:9090/api/v1/query?token=SECRET", "http://prometheus:9090"),
            ("https://user:SECRET@hooks.example.com/SECRET#SECRET", "https://hooks.example.com"),
            ("https://[::1]:7080", "https://[::1]:7080"),
            ("SECRET", "what is no address"),
            ("http://a b/SECRET", "what is no address"),
        ] {
            assert_eq!(place(url), shown);
        }
    }
}
