//! A signed token: a JSON Web Token (RFC 7519) in the compact form (RFC 7515).

use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::key_set::{Algorithm, KeySet, decode};

/// The longest token, in bytes; AWS has the same limit.
pub(super) const MAX_TOKEN: usize = 20_000;

/// The largest difference between the clocks of issuer and service.
const LEEWAY: Duration = Duration::from_secs(60);

/// A token that was read. Nothing in it is true before its signature is verified.
#[derive(Debug)]
pub struct Token {
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Map<String, Value>,
    /// The part that is signed.
    signed: Vec<u8>,
    signature: Vec<u8>,
}

/// The reason why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("The token has {0} bytes: at most {MAX_TOKEN} are accepted.")]
    TooLong(usize),
    #[error("The token is not a signed JSON Web Token: {0}.")]
    Form(&'static str),
    #[error(
        "The token is signed with the algorithm {0:?}: expected RS256, RS384, RS512, PS256, PS384, PS512, ES256 or ES384."
    )]
    Algorithm(String),
    #[error(
        "No identity provider of this controller has the issuer {0:?}: add it to identity_providers."
    )]
    Issuer(String),
    #[error("The issuer has no key {0:?} of the kind that the token is signed with.")]
    UnknownKey(String),
    #[error("The token's signature is not one of its issuer.")]
    Signature,
    #[error("The token is for {0:?}: ask the issuer for one with the controller's audience.")]
    Audience(String),
    #[error("The token has no usable claim {0}.")]
    Claim(&'static str),
    #[error("The token is not valid yet: check the clocks of the issuer and of the controller.")]
    Early,
    #[error("The token has expired: ask the issuer for a new one.")]
    Expired,
    /// The cause.
    #[error("The keys of the token's issuer cannot be read: {0}")]
    Keys(String),
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl Token {
    /// Reads a token, and verifies nothing.
    pub fn read(text: &str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong(text.len()));
        }
        let parts: Vec<&str> = text.split('.').take(4).collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err(TokenError::Form("it does not have three parts"));
        };
        let signed = text
            .rsplit_once('.')
            .map(|(signed, _)| signed.as_bytes().to_vec());
        let part = |text: &str| decode(text).ok_or(TokenError::Form("a part is not base64url"));
        let header: Header = serde_json::from_slice(&part(header)?)
            .map_err(|_| TokenError::Form("its header is not JSON with an algorithm"))?;
        // A critical extension that is unknown makes a token invalid, and none is known.
        if header.crit.is_some() {
            return Err(TokenError::Form("it needs an extension"));
        }
        if header.typ.is_some_and(|kind| !is_id_token(&kind)) {
            return Err(TokenError::Form("its type is another one than JWT"));
        }
        let claims = serde_json::from_slice(&part(payload)?)
            .map_err(|_| TokenError::Form("its claims are not a JSON object"))?;
        Ok(Token {
            algorithm: Algorithm::named(&header.alg)
                .ok_or_else(|| TokenError::Algorithm(shorten(&header.alg)))?,
            key_id: header.kid,
            claims,
            signed: signed.unwrap_or_default(),
            signature: part(signature)?,
        })
    }

    pub(super) fn verify_signature(&self, keys: &KeySet) -> Result<(), TokenError> {
        let id = self.key_id.as_deref();
        let mut candidates = keys.candidates(id, self.algorithm).peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::UnknownKey(shorten(id.unwrap_or_default())));
        }
        let verifies =
            candidates.any(|key| key.verifies(self.algorithm, &self.signed, &self.signature));
        verifies.then_some(()).ok_or(TokenError::Signature)
    }

    pub(super) fn check_times(&self, now: Timestamp) -> Result<(), TokenError> {
        let expires = self.time("exp")?.ok_or(TokenError::Claim("exp"))?;
        let issued = self.time("iat")?.ok_or(TokenError::Claim("iat"))?;
        let begins = self.time("nbf")?.unwrap_or(issued);
        let now = seconds(now);
        if now >= expires + LEEWAY.as_secs_f64() {
            return Err(TokenError::Expired);
        }
        if now < issued.max(begins) - LEEWAY.as_secs_f64() {
            return Err(TokenError::Early);
        }
        Ok(())
    }

    /// Seconds since the epoch.
    fn time(&self, claim: &'static str) -> Result<Option<f64>, TokenError> {
        let Some(value) = self.claims.get(claim) else {
            return Ok(None);
        };
        let seconds = value.as_f64().filter(|seconds| seconds.is_finite());
        seconds.map(Some).ok_or(TokenError::Claim(claim))
    }

    fn text(&self, claim: &'static str) -> Result<&str, TokenError> {
        let text = self.claims.get(claim).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
            .ok_or(TokenError::Claim(claim))
    }

    pub(super) fn issuer(&self) -> Result<&str, TokenError> {
        self.text("iss")
    }

    pub(super) fn subject(&self) -> Result<&str, TokenError> {
        self.text("sub")
    }

    /// The first of its audiences that is accepted.
    pub(super) fn audience(&self, accepted: &[String]) -> Result<&str, TokenError> {
        let audiences: Vec<&str> = match self.claims.get("aud") {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is_accepted = |audience: &&&str| accepted.iter().any(|one| one == **audience);
        let found = audiences.iter().find(is_accepted).copied();
        let first = audiences.first().ok_or(TokenError::Claim("aud"))?;
        found.ok_or_else(|| TokenError::Audience(shorten(first)))
    }

    pub(super) fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// Whether a type is the one of tokens like these; access tokens and others have their own.
fn is_id_token(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("JWT") || kind.eq_ignore_ascii_case("application/jwt")
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a time in milliseconds has fewer digits than the number"
)]
fn seconds(time: Timestamp) -> f64 {
    time.millis() as f64 / 1000.0
}

/// A text for a message: never long.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}
