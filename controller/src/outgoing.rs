//! The service's own requests: HTTP and HTTPS, with the system's trusted roots and those of
//! `ca_bundle`.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::response::Parts;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use futures_util::StreamExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt as _;

/// The timeout of a request, including its response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest response, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// A limit above the size of any file of roots, in bytes.
const MAX_BUNDLE: u64 = 16 * 1024 * 1024;

/// Sends requests; the system's roots are read for the first of them.
#[derive(Debug)]
pub struct Outgoing {
    /// Trusted in addition to the system's roots.
    more: Vec<CertificateDer<'static>>,
    client: OnceLock<Result<Https, rustls::Error>>,
}

type Https = Client<HttpsConnector<HttpConnector>, Body>;

/// A response with any status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The reason why a file of roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("cannot read the file of ca_bundle, {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the file of ca_bundle, {}, is not valid: expected certificates in PEM, each from -----BEGIN CERTIFICATE----- on", path.display())]
    Form { path: PathBuf, source: pem::Error },
    #[error("the file of ca_bundle, {}, has no certificate in it: expected PEM, beginning with -----BEGIN CERTIFICATE-----", path.display())]
    Empty { path: PathBuf },
    #[error("the certificate number {number} in the file of ca_bundle, {}, cannot be trusted as an authority", path.display())]
    Certificate {
        path: PathBuf,
        number: usize,
        source: rustls::Error,
    },
}

/// The reason why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    #[error("TLS cannot be used")]
    Tls(#[source] rustls::Error),
    #[error("{url} cannot be requested: expected an address such as https://host:port/path")]
    Url {
        url: String,
        source: axum::http::Error,
    },
    #[error(
        "the certificate of {url} is not trusted: if it is the right one, put its authority into the file of ca_bundle"
    )]
    Untrusted { url: String, source: legacy::Error },
    #[error("{url} does not answer")]
    Send { url: String, source: legacy::Error },
    #[error("the answer of {url} cannot be read; at most {most} bytes are")]
    Receive {
        url: String,
        most: usize,
        source: axum::Error,
    },
    #[error("the answer of {url} cannot be stored")]
    Save { url: String, source: io::Error },
    #[error("{url} did not answer within {} s", timeout.as_secs())]
    Late { url: String, timeout: Duration },
}

impl Outgoing {
    /// Reads and checks the file of additional roots, if there is one.
    pub fn open(ca_bundle: Option<&Path>) -> Result<Self, BundleError> {
        let more = ca_bundle.map(read).transpose()?.unwrap_or_default();
        Ok(Outgoing {
            more,
            client: OnceLock::new(),
        })
    }

    /// Trusts certificates in addition to the system's roots, in PEM.
    pub fn trusting(pem: &str) -> Result<Self, pem::Error> {
        let more = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
        Ok(Outgoing {
            more,
            client: OnceLock::new(),
        })
    }

    pub async fn get(&self, url: &str) -> Result<Answer, OutgoingError> {
        self.get_at_most(MAX_ANSWER, url).await
    }

    /// [`get`](Self::get) with a limit of the response, in bytes.
    pub async fn get_at_most(&self, most: usize, url: &str) -> Result<Answer, OutgoingError> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(url)
            .body(Body::empty());
        self.exchange(TIMEOUT, most, url, request).await
    }

    pub async fn post(
        &self,
        url: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Answer, OutgoingError> {
        self.post_with(url, content_type, &[], body).await
    }

    /// [`post`](Self::post) with additional headers.
    pub async fn post_with(
        &self,
        url: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, OutgoingError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::CONTENT_TYPE, content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(url, request.body(Body::from(body))).await
    }

    async fn send(
        &self,
        url: &str,
        request: Result<Request<Body>, axum::http::Error>,
    ) -> Result<Answer, OutgoingError> {
        self.send_within(TIMEOUT, url, request).await
    }

    /// Sends any request, and waits for its whole response for `timeout`.
    pub async fn send_within(
        &self,
        timeout: Duration,
        url: &str,
        request: Result<Request<Body>, axum::http::Error>,
    ) -> Result<Answer, OutgoingError> {
        self.exchange(timeout, MAX_ANSWER, url, request).await
    }

    /// [`send_within`](Self::send_within) with a limit of the response, in bytes.
    pub async fn send_at_most(
        &self,
        (timeout, most): (Duration, usize),
        url: &str,
        request: Result<Request<Body>, axum::http::Error>,
    ) -> Result<Answer, OutgoingError> {
        self.exchange(timeout, most, url, request).await
    }

    /// Sends any request, and writes the body of a response with status 200 into a file; that of
    /// another one is returned.
    pub async fn save(
        &self,
        (timeout, most): (Duration, u64),
        url: &str,
        request: Result<Request<Body>, axum::http::Error>,
        file: &mut tokio::fs::File,
    ) -> Result<Answer, OutgoingError> {
        let saving = async {
            let response = self.respond(url, request).await?;
            let (head, body) = response.into_parts();
            if head.status != StatusCode::OK {
                return answer(url, MAX_ANSWER, head, body).await;
            }
            let unsaved = |source| OutgoingError::Save {
                url: place(url),
                source,
            };
            let mut left = most;
            let mut stream = body.into_data_stream();
            while let Some(bytes) = stream.next().await {
                let bytes = bytes.map_err(|source| unsaved(io::Error::other(source)))?;
                left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                    unsaved(io::Error::other(format!("it has more than {most} bytes")))
                })?;
                file.write_all(&bytes).await.map_err(unsaved)?;
            }
            file.flush().await.map_err(unsaved)?;
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: Bytes::new(),
            })
        };
        in_time(timeout, url, saving).await
    }

    async fn exchange(
        &self,
        timeout: Duration,
        most: usize,
        url: &str,
        request: Result<Request<Body>, axum::http::Error>,
    ) -> Result<Answer, OutgoingError> {
        let exchange = async {
            let (head, body) = self.respond(url, request).await?.into_parts();
            answer(url, most, head, body).await
        };
        in_time(timeout, url, exchange).await
    }

    /// Sends a request; returns the response with a body that is still to be read.
    async fn respond(
        &self,
        url: &str,
        request: Result<Request<Body>, axum::http::Error>,
    ) -> Result<Response<Body>, OutgoingError> {
        let url = || place(url);
        let request = request.map_err(|source| OutgoingError::Url { url: url(), source })?;
        let client = self.client.get_or_init(|| connect(&self.more));
        let client = client
            .as_ref()
            .map_err(|error| OutgoingError::Tls(error.clone()))?;
        let response = client.request(request).await;
        let response = response.map_err(|source| match is_untrusted(&source) {
            true => OutgoingError::Untrusted { url: url(), source },
            false => OutgoingError::Send { url: url(), source },
        })?;
        Ok(response.map(Body::new))
    }
}

/// Reads the body of a response.
async fn answer(url: &str, most: usize, head: Parts, body: Body) -> Result<Answer, OutgoingError> {
    let body = to_bytes(body, most).await;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.map_err(|source| OutgoingError::Receive {
            url: place(url),
            most,
            source,
        })?,
    })
}

/// Ends an exchange that takes too long.
async fn in_time<T>(
    timeout: Duration,
    url: &str,
    exchange: impl Future<Output = Result<T, OutgoingError>>,
) -> Result<T, OutgoingError> {
    let exchange = tokio::time::timeout(timeout, exchange).await;
    exchange.unwrap_or_else(|_| {
        Err(OutgoingError::Late {
            url: place(url),
            timeout,
        })
    })
}

fn connect(more: &[CertificateDer<'static>]) -> Result<Https, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    // Some systems include certificates that are not for TLS.
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        tracing::warn!(
            errors = ?system.errors,
            "the system has no root certificates that can be read: only those of ca_bundle are trusted"
        );
    }
    roots.add_parsable_certificates(more.iter().cloned());
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The part of an address that may be shown: scheme, host and port. The rest, and a part before
/// `@`, may contain secrets.
pub fn place(url: &str) -> String {
    let shown = || {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?.as_str();
        let host = authority.rsplit('@').next().unwrap_or(authority);
        Some(format!("{}://{host}", uri.scheme_str()?))
    };
    shown().unwrap_or_else(|| "an invalid address".into())
}

/// Returns the certificates in a file, all of which must be usable.
fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let unreadable = |source| BundleError::Read {
        path: path.to_owned(),
        source,
    };
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() || found.len() > MAX_BUNDLE {
        return Err(unreadable(io::Error::other(
            "it is not a regular file of at most 16 MiB",
        )));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|source| BundleError::Form {
            path: path.to_owned(),
            source,
        })?;
    if certificates.is_empty() {
        return Err(BundleError::Empty {
            path: path.to_owned(),
        });
    }
    for (place, certificate) in certificates.iter().enumerate() {
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|source| BundleError::Certificate {
                path: path.to_owned(),
                number: place + 1,
                source,
            })?;
    }
    Ok(certificates)
}

/// Whether the server's certificate was rejected.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return true;
    }
    // The inner error of an input/output error is not its source, but its source's.
    let inside = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    let cause = inside
        .map(|inside| inside as &(dyn Error + 'static))
        .or_else(|| error.source());
    cause.is_some_and(is_untrusted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_access_is_not_shown() {
        for (url, shown) in [
            (
                "http://prometheus:9090/api/v1/query?token=SECRET",
                "http://prometheus:9090",
            ),
            (
                "https://user:SECRET@hooks.example.com/SECRET#SECRET",
                "https://hooks.example.com",
            ),
            ("https://[::1]:7080", "https://[::1]:7080"),
            ("SECRET", "an invalid address"),
            ("http://a b/SECRET", "an invalid address"),
        ] {
            assert_eq!(place(url), shown);
        }
    }
}
