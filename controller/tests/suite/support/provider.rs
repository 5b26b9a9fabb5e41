//! An OpenID provider at which people log in, on loopback: it publishes its addresses and keys, makes
//! codes, and exchanges each once for a token.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::issuer::{SigningKey, in_seconds};

pub(crate) const CLIENT: &str = "codedeploy";
pub(crate) const SECRET: &str = "s3cret:with/marks";

type Fields = BTreeMap<String, String>;
type Answer = Arc<dyn Fn() -> Response + Send + Sync>;
type Change = Arc<dyn Fn(&mut Value) + Send + Sync>;

struct State {
    key: SigningKey,
    /// The claims of the person who logs in.
    person: Value,
    /// Changes the claims of each token.
    change: Change,
    /// The requests for a code, by the code.
    codes: HashMap<String, Fields>,
    made: usize,
    /// Answers in place of the right ones, by the path.
    instead: HashMap<&'static str, Answer>,
    paths: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

fn fields(text: &str) -> Fields {
    form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

fn bad(error: &str) -> Response {
    let document = json!({"error": error, "error_description": "no <b>luck</b>"});
    (StatusCode::BAD_REQUEST, document.to_string()).into_response()
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Provider {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(State {
                key: SigningKey::ecdsa(),
                person: json!({"sub": "u-17", "email": "alice@acme.example", "groups": ["staff", "deployers"]}),
                change: Arc::new(|_| ()),
                codes: HashMap::new(),
                made: 0,
                instead: HashMap::new(),
                paths: Vec::new(),
            })),
        };
        let this = provider.clone();
        let router = Router::new().fallback(move |request: Request| {
            let this = this.clone();
            async move { this.answer(request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The settings of a console at which its people log in, with further lines.
    pub(crate) fn settings(&self, folder: &std::path::Path, more: &str) -> String {
        let secret = folder.join("client-secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let issuer = self.issuer();
        format!(
            "timers: {{poll: 5}}\nconsole:\n  login: {{provider: acme, client_id: {CLIENT}, client_secret_file: {}, \
             scopes: [email, groups], roles: [deployers, shop, watchers]}}\nidentity_providers:\n  acme:\n    issuer: \
             {issuer}\n    jwks_url: {issuer}/keys\n    roles:\n      deployers: {{role: operator, claims: {{groups: \
             deployers}}}}\n      shop: {{role: operator, applications: [shop], claims: {{groups: shop}}}}\n      \
             watchers: {{role: read-only, claims: {{email: '*@acme.example'}}}}\n{more}",
            secret.display()
        )
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// The claims of the person who logs in from now on.
    pub(crate) fn is_visited_by(&self, person: Value) {
        self.with(|state| state.person = person);
    }

    /// Changes the claims of all tokens from now on.
    pub(crate) fn change(&self, change: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.with(|state| state.change = Arc::new(change));
    }

    /// Signs with another key of the same name.
    pub(crate) fn sign_with_another_key(&self) {
        self.with(|state| state.key = SigningKey::ecdsa());
    }

    /// Answers requests of a path in another way.
    pub(crate) fn answer_with(
        &self,
        path: &'static str,
        answer: impl Fn() -> Response + Send + Sync + 'static,
    ) {
        self.with(|state| state.instead.insert(path, Arc::new(answer)));
    }

    /// Answers rightly again.
    pub(crate) fn recover(&self) {
        self.with(|state| {
            state.instead.clear();
            state.change = Arc::new(|_| ());
        });
    }

    /// The paths of all requests so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.with(|state| state.paths.clone())
    }

    /// Visits an address of the provider as a browser does, and returns the one that it leads to.
    pub(crate) async fn visit(&self, url: &str) -> String {
        assert!(
            url.starts_with(&format!("{}/authorize?", self.issuer())),
            "{url}"
        );
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        let request = Request::get(url).body(Body::empty()).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!(response.status(), 302);
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let instead = self.with(|state| {
            state.paths.push(path.clone());
            state.instead.get(path.as_str()).cloned()
        });
        if let Some(answer) = instead {
            return answer();
        }
        let issuer = self.issuer();
        match path.as_str() {
            "/.well-known/openid-configuration" => json!({
                "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
            })
            .to_string()
            .into_response(),
            "/keys" => {
                let public = self.with(|state| state.key.public("k1"));
                json!({"keys": [public]}).to_string().into_response()
            }
            "/authorize" => self.authorize(fields(head.uri.query().unwrap())),
            "/token" => {
                let authorization = head.headers.get(header::AUTHORIZATION);
                let expected = format!(
                    "Basic {}",
                    STANDARD.encode("codedeploy:s3cret%3Awith%2Fmarks")
                );
                if authorization.is_none_or(|given| given != expected.as_str()) {
                    return bad("invalid_client");
                }
                self.exchange(&fields(&body))
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn authorize(&self, asked: Fields) -> Response {
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], CLIENT);
        assert_eq!(asked["scope"], "openid email groups");
        assert_eq!(asked["code_challenge_method"], "S256");
        let (back, state) = (asked["redirect_uri"].clone(), asked["state"].clone());
        let code = self.with(|known| {
            known.made += 1;
            let code = format!("code-{}", known.made);
            known.codes.insert(code.clone(), asked);
            code
        });
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("code", &code), ("state", &state), ("iss", &self.issuer())])
            .finish();
        let location = format!("{back}?{query}");
        (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
    }

    fn exchange(&self, given: &Fields) -> Response {
        let asked = self.with(|state| state.codes.remove(&given["code"]));
        let Some(asked) = asked else {
            return bad("invalid_grant");
        };
        let challenge = digest(&SHA256, given["code_verifier"].as_bytes());
        if given["grant_type"] != "authorization_code"
            || given["redirect_uri"] != asked["redirect_uri"]
            || URL_SAFE_NO_PAD.encode(challenge) != asked["code_challenge"]
        {
            return bad("invalid_grant");
        }
        let token = self.with(|state| {
            let mut claims = state.person.clone();
            claims["iss"] = json!(format!("http://{}", self.address));
            claims["aud"] = json!(CLIENT);
            claims["nonce"] = json!(asked["nonce"]);
            claims["iat"] = json!(in_seconds(0));
            claims["exp"] = json!(in_seconds(300));
            (state.change)(&mut claims);
            state.key.token("k1", &claims)
        });
        let answer = json!({"access_token": "x", "token_type": "Bearer", "id_token": token});
        answer.to_string().into_response()
    }
}
