//! Verifies AWS Signature Version 4 on a request (AWS General Reference, "Signature Version 4
//! signing process").
//!
//! The signature must be in the `Authorization` header and cover the host, the date, the operation
//! and the body.

use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use axum::http::{HeaderMap, Method, Uri};
use codedeploy_api::codedeploy::Timestamp;
use time::PrimitiveDateTime;
use time::macros::format_description;

use crate::error::{ApiError, ErrorName};
use crate::signature::{self, ALGORITHM, SigningKey};

/// The largest difference between the clocks of client and service.
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// Headers that a signature must cover.
const MUST_SIGN: [&str; 2] = ["host", "x-amz-date"];

/// Headers that a signature must cover if they are sent: the operation, if it is not in the path,
/// and the token of temporary credentials.
const MUST_SIGN_IF_SENT: [&str; 2] = ["x-amz-target", TOKEN];

/// The number of headers that a signature may name; a client names about ten.
const MAX_SIGNED: usize = 100;

const TOKEN: &str = "x-amz-security-token";

/// The claims of a request: its signer, and the scope of its signature.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) access_key_id: String,
    /// The original `x-amz-date`, `20261123T101112Z`.
    stamp: String,
    time: Timestamp,
    scope: Scope,
    signed_headers: Vec<String>,
    signature: Vec<u8>,
    /// `x-amz-security-token`, which temporary keys require.
    pub(super) token: Option<String>,
}

#[derive(Debug, Clone)]
struct Scope {
    date: String,
    region: String,
    service: String,
}

/// The signed form of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// The access key that a request claims, verified or not.
pub(super) fn claimed_key(headers: &HeaderMap) -> Option<&str> {
    let (_, credential) =
        super::header_text(headers, "authorization")?.split_once("Credential=")?;
    credential.split(['/', ',', ' ']).next()
}

/// The service that a request's signature claims.
pub(super) fn claimed_service(headers: &HeaderMap) -> Option<&str> {
    let (_, credential) =
        super::header_text(headers, "authorization")?.split_once("Credential=")?;
    credential.split([',', ' ']).next()?.split('/').nth(3)
}

impl Claim {
    pub(super) fn region(&self) -> &str {
        &self.scope.region
    }

    /// Reads the claim from a request's headers.
    pub(super) fn read(headers: &HeaderMap) -> Result<Claim, ApiError> {
        let incomplete = |what: &str| ErrorName::IncompleteSignature.because(what);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = header("authorization").ok_or_else(|| {
            ErrorName::MissingAuthenticationToken.because(
                "The request is not signed: it has no Authorization header. Signatures in the query (presigned \
                 requests) are not accepted.",
            )
        })?;
        let fields = authorization.strip_prefix(ALGORITHM).ok_or_else(|| {
            incomplete("The Authorization header does not begin with AWS4-HMAC-SHA256.")
        })?;
        let field = |name: &str| {
            let mut fields = fields
                .split(',')
                .filter_map(|field| field.trim().split_once('='));
            fields.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let credential =
            field("Credential").ok_or_else(|| incomplete("Authorization has no Credential."))?;
        let parts: Vec<&str> = credential.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = parts.as_slice() else {
            return Err(incomplete(
                "Credential is not <key>/<date>/<region>/<service>/aws4_request.",
            ));
        };
        let signed = field("SignedHeaders")
            .ok_or_else(|| incomplete("Authorization has no SignedHeaders."))?;
        let signed: Vec<String> = signed
            .split(';')
            .take(MAX_SIGNED + 1)
            .map(str::to_owned)
            .collect();
        // A repeated name would copy its value that often, for a request that may be unsigned.
        if signed.len() > MAX_SIGNED || !signed.is_sorted_by(|one, next| one < next) {
            return Err(incomplete(
                "SignedHeaders are not header names in their order, each once.",
            ));
        }
        let signature = field("Signature").and_then(|text| hex::decode(text).ok());
        let stamp = header("x-amz-date")
            .ok_or_else(|| incomplete("The request has no X-Amz-Date header."))?;
        let claim = Claim {
            access_key_id: (*access_key_id).to_owned(),
            time: parse(stamp)
                .ok_or_else(|| incomplete("X-Amz-Date is not a time such as 20261123T101112Z."))?,
            stamp: stamp.to_owned(),
            scope: Scope {
                date: (*date).to_owned(),
                region: (*region).to_owned(),
                service: (*service).to_owned(),
            },
            signed_headers: signed,
            signature: signature
                .ok_or_else(|| incomplete("Authorization has no hexadecimal Signature."))?,
            token: header(TOKEN).map(str::to_owned),
        };
        let sent = MUST_SIGN_IF_SENT
            .into_iter()
            .filter(|name| headers.contains_key(*name));
        claim.covers(MUST_SIGN.into_iter().chain(sent))?;
        Ok(claim)
    }

    /// Whether the signature covers these headers, whose names are in lower case.
    pub(super) fn covers<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), ApiError> {
        let missing = names
            .into_iter()
            .find(|name| !self.signed_headers.iter().any(|signed| signed == name));
        missing.map_or(Ok(()), |name| {
            let what = format!("The header {name} is not among the SignedHeaders.");
            Err(ErrorName::IncompleteSignature.because(what))
        })
    }

    /// Checks that the request is signed for one of `services` in `region`, and at about `now`.
    pub(super) fn is_for(
        &self,
        region: &str,
        services: &[&str],
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let invalid = |what: String| Err(ErrorName::InvalidSignature.because(what));
        if self.time.since(now).max(now.since(self.time)) > MAX_SKEW {
            return invalid(format!(
                "Signature expired: the request is of {}, which is more than 15 minutes from this service's time. Check \
                 the clocks of both hosts.",
                self.stamp
            ));
        }
        if self.stamp.get(..8) != Some(self.scope.date.as_str()) {
            return invalid("The date in Credential is not that of X-Amz-Date.".into());
        }
        if self.scope.region != region {
            return invalid(format!(
                "Credential should be scoped to the region {region}, not {}: set the client's region to {region}.",
                self.scope.region.chars().take(40).collect::<String>()
            ));
        }
        if !services.contains(&self.scope.service.as_str()) {
            return invalid(format!(
                "Credential should be scoped to the service {}, not {}.",
                services.join(" or "),
                self.scope.service.chars().take(40).collect::<String>()
            ));
        }
        Ok(())
    }

    /// The scope of its signature.
    pub(super) fn scope(&self) -> signature::Scope<'_> {
        signature::Scope {
            date: &self.scope.date,
            region: &self.scope.region,
            service: &self.scope.service,
        }
    }

    /// Whether the request was signed with `key`, which is that of [its scope](Self::scope).
    pub(super) fn verify(&self, request: Request<'_>, key: &SigningKey) -> Result<(), ApiError> {
        let invalid = |what: &str| Err(ErrorName::InvalidSignature.because(what));
        let body_hash = hex::encode(digest::digest(&digest::SHA256, request.body));
        let claimed_hash = request.headers.get("x-amz-content-sha256");
        if claimed_hash.is_some_and(|claimed| claimed.as_bytes() != body_hash.as_bytes()) {
            return invalid("x-amz-content-sha256 is not the SHA-256 of the body.");
        }
        let head = signature::Head {
            method: request.method.as_str(),
            path: &signature::encoded_again(request.uri.path()),
            query: request.uri.query().unwrap_or_default(),
            headers: request.headers,
        };
        let canonical = signature::canonical(head, &self.signed_headers, &body_hash);
        let expected = key.sign(&self.stamp, self.scope(), &canonical);
        match constant_time::verify_slices_are_equal(expected.as_ref(), &self.signature) {
            Ok(()) => Ok(()),
            Err(_) => invalid(
                "The request signature we calculated does not match the signature you provided. Check your secret access \
                 key and signing method, and that no proxy changes the Host header.",
            ),
        }
    }
}

fn parse(stamp: &str) -> Option<Timestamp> {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let seconds = PrimitiveDateTime::parse(stamp, form)
        .ok()?
        .assume_utc()
        .unix_timestamp();
    Some(Timestamp::from_millis(seconds.checked_mul(1000)?))
}
