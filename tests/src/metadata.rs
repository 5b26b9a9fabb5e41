//! An EC2 instance metadata service on loopback: it requires session tokens, and can misbehave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::cloud::KeyRing;

/// The instance that it describes.
pub const HOST_IDENTIFIER: &str = "arn:aws:ec2:us-east-1:123456789012:instance/i-0abc";
const ROLE: &str = "fleet-role";

/// The service's reaction to the next requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Responds normally.
    None,
    /// Responds to every request with this status.
    Status(u16),
    /// Accepts the request, and never responds.
    Silence,
}

/// The running service.
#[derive(Debug)]
pub struct MetadataServer {
    pub endpoint: String,
    shared: Arc<Mutex<Shared>>,
    keys: KeyRing,
}

#[derive(Debug)]
struct Shared {
    fault: Fault,
    /// The number of requests that still meet the fault.
    faulty: usize,
    /// The only valid token.
    token: String,
    tokens: usize,
    requests: Vec<String>,
    has_role: bool,
}

impl MetadataServer {
    /// Starts it; the role's keys are those of `keys` at the time of the request.
    pub async fn start(keys: KeyRing) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            fault: Fault::None,
            faulty: 0,
            token: String::new(),
            tokens: 0,
            requests: Vec::new(),
            has_role: true,
        }));
        let router = Router::new()
            .fallback(answer)
            .with_state((Arc::clone(&shared), keys.clone()));
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = listener.await.expect("loopback has a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            endpoint,
            shared,
            keys,
        }
    }

    /// Misbehaves for the next `requests`.
    pub fn fail(&self, fault: Fault, requests: usize) {
        let mut shared = lock(&self.shared);
        (shared.fault, shared.faulty) = (fault, requests);
    }

    /// Invalidates all session tokens given so far.
    pub fn forget_tokens(&self) {
        lock(&self.shared).token = "none".into();
    }

    /// Behaves as if no instance profile were attached.
    pub fn detach_role(&self) {
        lock(&self.shared).has_role = false;
    }

    /// The number of session tokens given so far.
    pub fn tokens(&self) -> usize {
        lock(&self.shared).tokens
    }

    /// Method and path of every request so far.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared).requests.clone()
    }

    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }
}

async fn answer(
    State((shared, keys)): State<(Arc<Mutex<Shared>>, KeyRing)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let fault = {
        let mut shared = lock(&shared);
        shared.requests.push(format!("{method} {}", uri.path()));
        if shared.faulty == 0 {
            Fault::None
        } else {
            shared.faulty -= 1;
            shared.fault
        }
    };
    match fault {
        Fault::None => respond(&mut lock(&shared), &keys, &method, uri.path(), &headers),
        Fault::Status(status) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
        Fault::Silence => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
    }
}

fn respond(
    shared: &mut Shared,
    keys: &KeyRing,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if (method, path) == (&Method::PUT, "/latest/api/token") {
        if header("x-aws-ec2-metadata-token-ttl-seconds") != Some("21600") {
            return StatusCode::BAD_REQUEST.into_response();
        }
        shared.tokens += 1;
        shared.token = format!("token-{}", shared.tokens);
        return shared.token.clone().into_response();
    }
    if method != Method::GET || header("x-aws-ec2-metadata-token") != Some(&shared.token) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let role_path = format!("/latest/meta-data/iam/security-credentials/{ROLE}");
    match path {
        "/latest/dynamic/instance-identity/document" => {
            let document = json!({"accountId": "123456789012", "architecture": "x86_64", "instanceId": "i-0abc",
                "region": "us-east-1", "version": "2017-09-30"});
            document.to_string().into_response()
        }
        "/latest/meta-data/services/partition" => "aws".into_response(),
        "/latest/meta-data/services/domain" => "amazonaws.com".into_response(),
        "/latest/meta-data/iam/security-credentials/" if shared.has_role => ROLE.into_response(),
        path if path == role_path && shared.has_role => {
            let keys = keys.current();
            let document = json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": keys.access_key_id,
                "SecretAccessKey": keys.secret_access_key, "Token": keys.session_token, "Expiration": keys.expiration()});
            document.to_string().into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
