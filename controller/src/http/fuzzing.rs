//! Doors to private parsers for the fuzz targets, which are not part of the program.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use codedeploy_api::codedeploy::{
    CreateDeploymentGroupInput, CreateDeploymentInput, ListDeploymentsInput, Timestamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{Protocol, RequestBody};
use super::sigv4::{self, Claim, Request};
use crate::signature::SigningKey;

/// Reads the body of a request in CBOR. What was read must be written, and be read again.
pub fn cbor(body: &[u8]) {
    body_of::<CreateDeploymentInput>(body);
    body_of::<CreateDeploymentGroupInput>(body);
    body_of::<ListDeploymentsInput>(body);
}

fn body_of<I: DeserializeOwned + Serialize>(body: &[u8]) {
    let headers = HeaderMap::from_iter([(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/cbor"),
    )]);
    let encoded =
        |body: &[u8]| RequestBody::new(Protocol::RpcV2Cbor, &headers, Bytes::copy_from_slice(body));
    let Ok(read) = encoded(body).and_then(|encoded| encoded.read::<I>()) else {
        return;
    };
    let again = encoded(&[]).and_then(|encoded| encoded.answer(&read));
    let again = again.and_then(|written| encoded(&written)?.read::<I>());
    assert!(again.is_ok(), "an input that was read and written is one");
}

/// Reads the headers of a signed request, one in each line of `headers`, and verifies its
/// signature.
pub fn sigv4(headers: &[u8]) {
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((
            name,
            HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?,
        ))
    };
    let headers: HeaderMap = headers
        .split(|byte| *byte == b'\n')
        .filter_map(header)
        .collect();
    let _ = (
        sigv4::claimed_key(&headers),
        sigv4::claimed_service(&headers),
    );
    let Ok(claim) = Claim::read(&headers) else {
        return;
    };
    let uri = Uri::from_static("/?b=2&a=1");
    let request = Request {
        method: &Method::POST,
        uri: &uri,
        headers: &headers,
        body: b"{}",
    };
    let now = Timestamp::from_millis(
        i64::try_from(Duration::from_secs(1_764_555_072).as_millis()).unwrap_or(0),
    );
    let _ = claim.is_for("us-east-1", &["codedeploy"], now);
    let key = SigningKey::derive("secret", claim.scope());
    assert!(
        claim.verify(request, &key).is_err() || claim.region() == "us-east-1",
        "nobody signed anything"
    );
}
