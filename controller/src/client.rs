//! A client of a running controller: calls its API and its S3 endpoint with an access key, from any
//! machine.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use codedeploy_api::codedeploy::{self, Timestamp};
use codedeploy_api::command::CONTENT_TYPE;
use codedeploy_api::controller;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio_util::io::ReaderStream;

use crate::outgoing::{Answer, Outgoing, OutgoingError};
use crate::s3_document;
use crate::signature::{self, ALGORITHM, SigningKey};

/// The timeout of a call.
const CALL: Duration = Duration::from_secs(30);
/// The largest response of a call, in bytes: a script log can be one.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// The largest object that is fetched, in bytes.
const MAX_OBJECT: u64 = 16 * 1024 * 1024 * 1024;
/// The timeout of an upload or a download.
const UPLOAD: Duration = Duration::from_secs(3600);

/// An access key of the caller.
#[derive(Clone)]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Temporary keys have one.
    pub session_token: Option<String>,
}

/// The secret is not shown.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.access_key_id).finish()
    }
}

/// The reason why a call returned nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is not the URL of a controller: expected http:// or https:// with a host")]
    Endpoint(String),
    #[error(transparent)]
    Outgoing(#[from] OutgoingError),
    #[error("{name}: {message}")]
    Refused { name: String, message: String },
    #[error(
        "{endpoint} answered {status}, not as a controller does: check the endpoint and what is between"
    )]
    Foreign { endpoint: String, status: u16 },
    #[error(
        "{endpoint} does not know {operation}: it is not a controller of this version, but an older one or AWS itself"
    )]
    Unknown { endpoint: String, operation: String },
    #[error("the input cannot be written as JSON")]
    Input(#[source] serde_json::Error),
    #[error("the controller's answer to {operation} cannot be read")]
    Output {
        operation: String,
        source: serde_json::Error,
    },
    #[error("a header of the request cannot be sent: {0}")]
    Header(#[from] axum::http::header::InvalidHeaderValue),
    #[error("cannot read {path}")]
    Read {
        path: String,
        source: std::io::Error,
    },
}

/// A controller and a key for it.
#[derive(Debug)]
pub struct Client {
    /// Without a slash at the end.
    endpoint: String,
    region: String,
    keys: Keys,
    outgoing: Outgoing,
}

/// An object in the controller's bucket.
#[derive(Debug, Clone)]
pub struct Uploaded {
    pub version: Option<String>,
    pub etag: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "__type")]
    name: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
}

impl Client {
    pub fn new(
        endpoint: &str,
        region: String,
        keys: Keys,
        outgoing: Outgoing,
    ) -> Result<Self, ClientError> {
        let wrong = || ClientError::Endpoint(endpoint.to_owned());
        let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            return Err(wrong());
        }
        Ok(Client {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            region,
            keys,
            outgoing,
        })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Calls an operation of the public API.
    pub async fn codedeploy<I: Serialize, O: DeserializeOwned>(
        &self,
        operation: &str,
        input: &I,
    ) -> Result<O, ClientError> {
        self.call(codedeploy::TARGET_PREFIX, operation, input).await
    }

    /// Calls an operation of the controller's own API.
    pub async fn controller<I: Serialize, O: DeserializeOwned>(
        &self,
        operation: &str,
        input: &I,
    ) -> Result<O, ClientError> {
        self.call(controller::TARGET_PREFIX, operation, input).await
    }

    async fn call<I: Serialize, O: DeserializeOwned>(
        &self,
        prefix: &str,
        operation: &str,
        input: &I,
    ) -> Result<O, ClientError> {
        let body = serde_json::to_vec(input).map_err(ClientError::Input)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        let target = format!("{prefix}.{operation}");
        headers.insert("x-amz-target", HeaderValue::try_from(target)?);
        let hash = hex::encode(digest::digest(&digest::SHA256, &body));
        let url = format!("{}/", self.endpoint);
        let signed = Signed {
            service: codedeploy::SIGNING_NAME,
            method: Method::POST,
            hash,
        };
        let request = self.signed(signed, &url, headers, body.into())?;
        let limits = (CALL, MAX_ANSWER);
        let answer = self.outgoing.send_at_most(limits, &url, request).await?;
        if answer.status != 200 {
            return Err(self.refusal(operation, &answer));
        }
        let body = if answer.body.is_empty() {
            &b"{}"[..]
        } else {
            &answer.body
        };
        serde_json::from_slice(body).map_err(|source| ClientError::Output {
            operation: operation.to_owned(),
            source,
        })
    }

    fn refusal(&self, operation: &str, answer: &Answer) -> ClientError {
        let refusal = serde_json::from_slice::<Refusal>(&answer.body).ok();
        let Some(name) = refusal.as_ref().and_then(|refusal| refusal.name.clone()) else {
            return ClientError::Foreign {
                endpoint: self.endpoint.clone(),
                status: answer.status,
            };
        };
        let name = name.rsplit('#').next().unwrap_or_default().to_owned();
        if name == "UnknownOperationException" {
            return ClientError::Unknown {
                endpoint: self.endpoint.clone(),
                operation: operation.to_owned(),
            };
        }
        ClientError::Refused {
            name,
            message: refusal
                .and_then(|refusal| refusal.message)
                .unwrap_or_default(),
        }
    }

    /// Returns an object in a bucket of the controller, or a version of it, if it exists.
    pub async fn head_object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<Option<Uploaded>, ClientError> {
        let signed = Signed {
            service: "s3",
            method: Method::HEAD,
            hash: hex::encode(digest::digest(&digest::SHA256, b"")),
        };
        let mut url = self.object_url(bucket, key);
        if let Some(version) = version {
            let version = signature::encoded_again(version).replace('/', "%2F");
            url += &format!("?versionId={version}");
        }
        let request = self.signed(signed, &url, HeaderMap::new(), Body::empty())?;
        let answer = self.outgoing.send_within(CALL, &url, request).await?;
        match answer.status {
            200 => Ok(Some(uploaded(&answer))),
            404 => Ok(None),
            // The answer to HEAD has no body with a reason.
            401 | 403 => Err(ClientError::Refused {
                name: "AccessDenied".into(),
                message: format!(
                    "the access key {} may not read s3://{bucket}/{key}",
                    self.keys.access_key_id
                ),
            }),
            _ => Err(self.s3_refusal(&answer)),
        }
    }

    /// Writes an object, or a version of it, into a file.
    pub async fn get_object(
        &self,
        bucket: &str,
        (key, version): (&str, Option<&str>),
        file: File,
    ) -> Result<(), ClientError> {
        let signed = Signed {
            service: "s3",
            method: Method::GET,
            hash: hex::encode(digest::digest(&digest::SHA256, b"")),
        };
        let version = version.map(|version| {
            // Unlike in a path, a slash is not reserved for anything.
            let version = signature::encoded_again(version).replace('/', "%2F");
            format!("?versionId={version}")
        });
        let url = self.object_url(bucket, key) + &version.unwrap_or_default();
        let request = self.signed(signed, &url, HeaderMap::new(), Body::empty())?;
        let mut file = tokio::fs::File::from_std(file);
        let limits = (UPLOAD, MAX_OBJECT);
        let answer = self.outgoing.save(limits, &url, request, &mut file).await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(self.s3_refusal(&answer))
        }
    }

    /// Uploads a file; `hash` is its SHA-256 in hexadecimal digits.
    pub async fn put_object(
        &self,
        bucket: &str,
        key: &str,
        file: &Path,
        hash: String,
    ) -> Result<Uploaded, ClientError> {
        let unreadable = |source| ClientError::Read {
            path: file.display().to_string(),
            source,
        };
        let opened = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let size = opened.metadata().await.map_err(unreadable)?.len();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
        let signed = Signed {
            service: "s3",
            method: Method::PUT,
            hash,
        };
        let url = self.object_url(bucket, key);
        let body = Body::from_stream(ReaderStream::with_capacity(opened, 64 * 1024));
        let request = self.signed(signed, &url, headers, body)?;
        let answer = self.outgoing.send_within(UPLOAD, &url, request).await?;
        if answer.status == 200 {
            Ok(uploaded(&answer))
        } else {
            Err(self.s3_refusal(&answer))
        }
    }

    fn object_url(&self, bucket: &str, key: &str) -> String {
        let (bucket, key) = (
            signature::encoded_again(bucket),
            signature::encoded_again(key),
        );
        format!("{}/{bucket}/{key}", self.endpoint)
    }

    fn s3_refusal(&self, answer: &Answer) -> ClientError {
        let text = answer.text();
        let member = |name: &str| s3_document::member(&text, name);
        match member("Code") {
            Some(name) => ClientError::Refused {
                name,
                message: member("Message").unwrap_or_default(),
            },
            None => ClientError::Foreign {
                endpoint: self.endpoint.clone(),
                status: answer.status,
            },
        }
    }

    /// Returns a signed request.
    fn signed(
        &self,
        signed: Signed,
        url: &str,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<Result<Request<Body>, axum::http::Error>, ClientError> {
        let uri: Uri = url
            .parse()
            .map_err(|_| ClientError::Endpoint(url.to_owned()))?;
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let host = host.rsplit('@').next().unwrap_or(host);
        headers.insert(header::HOST, HeaderValue::from_str(host)?);
        let stamp = stamp(Timestamp::now());
        headers.insert("x-amz-date", HeaderValue::from_str(&stamp)?);
        headers.insert("x-amz-content-sha256", HeaderValue::from_str(&signed.hash)?);
        if let Some(token) = &self.keys.session_token {
            let mut token = HeaderValue::from_str(token)?;
            token.set_sensitive(true);
            headers.insert("x-amz-security-token", token);
        }
        let mut names: Vec<String> = headers
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect();
        // A proxy may send a body in another way.
        names.retain(|name| name != "content-length");
        names.sort_unstable();
        let path = if signed.service == "s3" {
            uri.path().to_owned()
        } else {
            signature::encoded_again(uri.path())
        };
        let head = signature::Head {
            method: signed.method.as_str(),
            path: &path,
            query: uri.query().unwrap_or_default(),
            headers: &headers,
        };
        let canonical = signature::canonical(head, &names, &signed.hash);
        let date = stamp.get(..8).unwrap_or_default();
        let scope = signature::Scope {
            date,
            region: &self.region,
            service: signed.service,
        };
        let tag =
            SigningKey::derive(&self.keys.secret_access_key, scope).sign(&stamp, scope, &canonical);
        let authorization = format!(
            "{ALGORITHM} Credential={}/{date}/{}/{}/aws4_request, SignedHeaders={}, Signature={}",
            self.keys.access_key_id,
            self.region,
            signed.service,
            names.join(";"),
            hex::encode(tag)
        );
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_str(&authorization)?,
        );
        let mut request = Request::builder().method(signed.method).uri(uri);
        if let Some(own) = request.headers_mut() {
            *own = headers;
        }
        Ok(request.body(body))
    }
}

/// The parts of a request that its signature depends on, besides URL and headers.
struct Signed {
    service: &'static str,
    method: Method,
    hash: String,
}

fn uploaded(answer: &Answer) -> Uploaded {
    let text = |name: &str| {
        let value = answer.headers.get(name)?.to_str().ok()?;
        Some(value.trim_matches('"').to_owned())
    };
    Uploaded {
        version: text("x-amz-version-id"),
        etag: text("etag"),
    }
}

/// `20261123T101112Z`.
fn stamp(now: Timestamp) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(now.millis());
    time.format(format).unwrap_or_default()
}
