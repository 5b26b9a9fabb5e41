//! An OpenID provider at which people log in with a click. Its site is another one than that of
//! everything else here, as a provider's is: browsers tell 127.0.0.2 from 127.0.0.1.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::issuer::{Issuer, seconds};

const CLIENT: &str = "codedeploy";

type Fields = BTreeMap<String, String>;

/// The provider; it serves until the process ends.
#[derive(Debug)]
pub struct Provider {
    url: String,
    issuer: Issuer,
    /// The nonces of logins, by their codes.
    nonces: Mutex<HashMap<String, String>>,
}

impl Provider {
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.2:0").await.expect("a socket");
        let address = listener.local_addr().expect("its address");
        let provider = Arc::new(Self {
            url: format!("http://{address}"),
            issuer: Issuer::new().await,
            nonces: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(describe))
            .route("/keys", get(keys))
            .route("/authorize", get(ask))
            .route("/approve", get(approve))
            .route("/token", post(exchange))
            .with_state(Arc::clone(&provider));
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    /// The settings of a controller with a console at which Alice is an operator.
    pub fn settings(&self) -> String {
        let url = &self.url;
        format!(
            "console:\n  login: {{provider: acme, client_id: {CLIENT}, roles: [staff]}}\nidentity_providers:\n  acme:\n    \
             issuer: {url}\n    jwks_url: {url}/keys\n    roles:\n      staff: {{role: operator, claims: {{email: \
             '*@acme.example'}}}}\n"
        )
    }
}

async fn describe(State(provider): State<Arc<Provider>>) -> String {
    let url = &provider.url;
    json!({"issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token")})
        .to_string()
}

async fn keys(State(provider): State<Arc<Provider>>) -> String {
    provider.issuer.keys()
}

fn fields(text: &str) -> Fields {
    form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

/// The page on which a person logs in.
async fn ask(uri: Uri) -> Html<String> {
    let asked = fields(uri.query().unwrap_or_default());
    let field = |name: &str| asked.get(name).map_or("", String::as_str);
    let hidden = ["redirect_uri", "state", "nonce"].map(|name| {
        let value = field(name);
        format!("<input type=hidden name={name} value=\"{value}\">")
    });
    Html(format!(
        "<!doctype html><title>Acme</title><form action=/approve>{}<button>I am Alice</button></form>",
        hidden.concat()
    ))
}

async fn approve(State(provider): State<Arc<Provider>>, uri: Uri) -> Response {
    let asked = fields(uri.query().unwrap_or_default());
    let field = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let mut nonces = provider
        .nonces
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let code = format!("code-{}", nonces.len());
    nonces.insert(code.clone(), field("nonce"));
    let location = format!(
        "{}?code={code}&state={}",
        field("redirect_uri"),
        field("state")
    );
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

async fn exchange(State(provider): State<Arc<Provider>>, body: String) -> Response {
    let given = fields(&body);
    let nonce = provider
        .nonces
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(given.get("code").map_or("", String::as_str));
    let Some(nonce) = nonce else {
        let refusal: Value = json!({"error": "invalid_grant"});
        return (StatusCode::BAD_REQUEST, refusal.to_string()).into_response();
    };
    let now = seconds();
    let claims = json!({
        "iss": provider.url, "aud": CLIENT, "sub": "alice", "email": "alice@acme.example", "nonce": nonce, "iat": now,
        "exp": now + 300,
    });
    let token = provider.issuer.sign(&claims).await;
    json!({"id_token": token, "token_type": "Bearer"})
        .to_string()
        .into_response()
}
