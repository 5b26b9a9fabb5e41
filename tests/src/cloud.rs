//! A stand-in for AWS on loopback, with features that our own controller lacks: temporary keys that
//! rotate, and TLS with a certificate of a private authority. It gives commands to one host, serves
//! bundles, and verifies every signature.

mod signature;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use codedeploy_api::command::*;
use codedeploy_controller::keys::Keys;
use codedeploy_controller::signing::Signer;
use codedeploy_controller::store::Store;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Temporary keys, as they are issued.
#[derive(Debug, Clone)]
pub struct IssuedKeys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: String,
    pub expires: SystemTime,
}

/// Temporary keys: new ones every `rotation`, each accepted for `overlap` longer.
#[derive(Debug, Clone)]
pub struct KeyRing {
    pub rotation: Duration,
    pub overlap: Duration,
}

/// The running stand-in.
#[derive(Debug)]
pub struct Cloud {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    keys: KeyRing,
    signer: Signer,
    state: Mutex<CloudState>,
}

#[derive(Debug, Default)]
struct CloudState {
    commands: VecDeque<HostCommand>,
    /// Whether a command was given and not yet completed: the next one must wait.
    busy: bool,
    specification: Value,
    bundle: Vec<u8>,
    completed: Vec<PutHostCommandCompleteInput>,
    polls: usize,
    downloads: usize,
    keys_seen: BTreeSet<String>,
    refusals: Vec<String>,
}

impl IssuedKeys {
    /// The time at which they expire, in the form of metadata services.
    pub fn expiration(&self) -> String {
        let seconds = self
            .expires
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_millis();
        let time = aws_smithy_types::DateTime::from_millis(
            i64::try_from(seconds).expect("a time of ours"),
        );
        time.fmt(aws_smithy_types::date_time::Format::DateTime)
            .expect("it can be written")
    }
}

impl KeyRing {
    /// The present keys.
    pub fn current(&self) -> IssuedKeys {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        self.numbered(
            u64::try_from(now.as_millis() / self.rotation.as_millis()).expect("a small number"),
        )
    }

    fn numbered(&self, number: u64) -> IssuedKeys {
        let end = u64::try_from(self.rotation.as_millis()).expect("short") * (number + 1);
        IssuedKeys {
            access_key_id: format!("ASIA{number}"),
            secret_access_key: format!("secret-{number}"),
            session_token: format!("session-{number}"),
            expires: UNIX_EPOCH + Duration::from_millis(end) + self.overlap,
        }
    }

    /// The keys of this id, expired or not.
    fn find(&self, access_key_id: &str) -> Option<IssuedKeys> {
        Some(self.numbered(access_key_id.strip_prefix("ASIA")?.parse().ok()?))
    }
}

impl Cloud {
    /// Starts it; signatures are verified with `keys`. With `tls` it accepts only TLS.
    pub async fn start(
        folder: &Path,
        keys: KeyRing,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let store = Store::in_memory().expect("a database can be made");
        let signer = Signer::open(&Keys::of(folder, &store)).expect("a signer can be made");
        let shared = Arc::new(Shared {
            keys,
            signer,
            state: Mutex::default(),
        });
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let acceptor = tls.map(TlsAcceptor::from);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, acceptor) =
                    (TowerToHyperService::new(router.clone()), acceptor.clone());
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    // A client that disconnects, or trusts another authority, affects only its own
                    // connection.
                    if let Some(acceptor) = acceptor {
                        if let Ok(socket) = acceptor.accept(socket).await {
                            let _ = server.serve_connection(TokioIo::new(socket), service).await;
                        }
                    } else {
                        let _ = server.serve_connection(TokioIo::new(socket), service).await;
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// Gives the host the commands for `events` of one deployment of `bundle`, a zip.
    pub fn deploy(&self, host: &str, bundle: Vec<u8>, events: &[&str]) {
        let mut state = self.state();
        state.bundle = bundle;
        state.specification = json!({
            "DeploymentId": "d-ROTATION1", "DeploymentGroupId": "group-1", "DeploymentGroupName": "web",
            "ApplicationName": "shop",
            "GitHubAccessToken": "github-token-of-nobody",
            "Revision": {"RevisionType": "S3",
                "S3Revision": {"Bucket": "revisions", "Key": "app.zip", "BundleType": "zip"}},
        });
        state.commands = events
            .iter()
            .map(|event| HostCommand {
                host_command_identifier: format!("command-{event}"),
                host_identifier: host.into(),
                deployment_execution_id: "execution/d-ROTATION1".into(),
                command_name: (*event).into(),
                nonce: 0,
            })
            .collect();
    }

    /// Serves only this bundle.
    pub fn serve_bundle(&self, bundle: Vec<u8>) {
        self.state().bundle = bundle;
    }

    /// `<event> <status>` of every completed command, in order.
    pub fn completed(&self) -> Vec<String> {
        let state = self.state();
        let text = |input: &PutHostCommandCompleteInput| {
            let event = input
                .host_command_identifier
                .trim_start_matches("command-")
                .to_owned();
            format!("{event} {:?}", input.command_status)
        };
        state.completed.iter().map(text).collect()
    }

    pub fn polls(&self) -> usize {
        self.state().polls
    }

    pub fn downloads(&self) -> usize {
        self.state().downloads
    }

    /// The number of access keys with which valid signatures were made.
    pub fn keys_seen(&self) -> usize {
        self.state().keys_seen.len()
    }

    /// The reasons for rejected requests.
    pub fn refusals(&self) -> Vec<String> {
        self.state().refusals.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, CloudState> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, CloudState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the credentials of a request; the error is a name and a text.
    fn check(&self, request: &signature::Request<'_>) -> Result<String, (&'static str, String)> {
        let unknown = |what: &str| ("UnrecognizedClientException", what.to_owned());
        let id = signature::access_key_id(request).ok_or(unknown("it is not signed"))?;
        let keys = self.keys.find(&id).ok_or(unknown("nobody has this key"))?;
        let token = request
            .headers
            .get("x-amz-security-token")
            .and_then(|token| token.to_str().ok());
        if token != Some(&keys.session_token) {
            return Err(unknown("the session token is not that of the key"));
        }
        if keys.expires < SystemTime::now() {
            return Err(("ExpiredTokenException", format!("{id} has expired")));
        }
        if !signature::is_good(request, &keys.secret_access_key) {
            return Err((
                "InvalidSignatureException",
                format!("the signature of {id} is wrong"),
            ));
        }
        Ok(id)
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let checked = shared.check(&signature::Request {
        method: &method,
        uri: &uri,
        headers: &headers,
        body: &body,
    });
    let mut state = shared.state();
    match checked {
        Ok(id) => drop(state.keys_seen.insert(id)),
        Err((kind, message)) => {
            state
                .refusals
                .push(format!("{method} {}: {kind}: {message}", uri.path()));
            let error = json!({"__type": kind, "message": message}).to_string();
            return (
                StatusCode::BAD_REQUEST,
                [("content-type", CONTENT_TYPE)],
                error,
            )
                .into_response();
        }
    }
    if method == Method::GET {
        state.downloads += 1;
        return ([("etag", "\"e1\"")], state.bundle.clone()).into_response();
    }
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .unwrap_or_default();
    let answer = match target.rsplit('.').next().unwrap_or_default() {
        PollHostCommandInput::NAME => {
            state.polls += 1;
            let host_command = if state.busy {
                None
            } else {
                state.commands.pop_front()
            };
            state.busy |= host_command.is_some();
            json!(PollHostCommandOutput { host_command })
        }
        GetDeploymentSpecificationInput::NAME => {
            let payload = shared
                .signer
                .sign(state.specification.to_string().as_bytes())
                .expect("it can be signed");
            let envelope = Envelope {
                format: Envelope::PKCS7_JSON.into(),
                payload,
            };
            json!({"DeploymentSystem": DEPLOYMENT_SYSTEM, "DeploymentSpecification": {"GenericEnvelope": envelope}})
        }
        PutHostCommandAcknowledgementInput::NAME => json!({"CommandStatus": "InProgress"}),
        PutHostCommandCompleteInput::NAME => {
            state.busy = false;
            state
                .completed
                .push(serde_json::from_slice(&body).expect("the agent writes what it should"));
            json!({})
        }
        other => panic!("no agent calls {other:?}"),
    };
    ([("content-type", CONTENT_TYPE)], answer.to_string()).into_response()
}
