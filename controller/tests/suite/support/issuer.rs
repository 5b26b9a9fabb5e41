//! An issuer of identity tokens with real keys, whose key set is served on loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::UintRef;
use der::{Decode as _, Reader as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) const ISSUER: &str = "https://ci.example.com";

/// A key that signs tokens.
pub(crate) enum SigningKey {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl SigningKey {
    pub(crate) fn rsa() -> Self {
        SigningKey::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn ecdsa() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        SigningKey::Ecdsa(Box::new(key))
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            SigningKey::Rsa(_) => "RS256",
            SigningKey::Ecdsa(_) => "ES256",
        }
    }

    /// The public key in a key set.
    pub(crate) fn public(&self, id: &str) -> Value {
        match self {
            SigningKey::Rsa(key) => {
                let public = key.public_key().as_ref();
                let (modulus, exponent) = der::SliceReader::new(public)
                    .and_then(|mut public| {
                        public.sequence(|part| Ok((UintRef::decode(part)?, UintRef::decode(part)?)))
                    })
                    .unwrap();
                json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": encode(modulus.as_bytes()), "e": encode(exponent.as_bytes())})
            }
            SigningKey::Ecdsa(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "kid": id, "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            SigningKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            SigningKey::Ecdsa(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    /// A token with a header of the test's choice.
    pub(crate) fn token_with(&self, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    pub(crate) fn token(&self, id: &str, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": self.algorithm(), "kid": id});
        self.token_with(&header, &claims.to_string())
    }
}

/// Seconds since the epoch, in `after` seconds.
pub(crate) fn in_seconds(after: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + after
}

/// The claims of a job on the branch main of a repository.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "sts.amazonaws.com", "sub": "repo:acme/shop:ref:refs/heads/main",
        "iat": in_seconds(-5), "nbf": in_seconds(-5), "exp": in_seconds(300), "repository_id": 17,
    })
}

type Answer = Arc<dyn Fn() -> Response + Send + Sync>;

/// The server of the issuer's key set.
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<Mutex<usize>>,
}

impl Issuer {
    /// Serves the public keys.
    pub(crate) async fn start(keys: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Arc::new(|| ().into_response())));
        let requests = Arc::new(Mutex::new(0));
        let issuer = Issuer {
            address,
            answer: Arc::clone(&answer),
            requests: Arc::clone(&requests),
        };
        issuer.publish(keys);
        let router = Router::new().fallback(move || async move {
            *requests.lock().unwrap() += 1;
            let answer = Arc::clone(&answer.lock().unwrap());
            answer()
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    pub(crate) fn publish(&self, keys: &Value) {
        let document = json!({ "keys": keys }).to_string();
        self.answer_with(move || (StatusCode::OK, document.clone()).into_response());
    }

    pub(crate) fn answer_with(&self, answer: impl Fn() -> Response + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    /// The number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        *self.requests.lock().unwrap()
    }
}
