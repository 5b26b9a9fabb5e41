//! AWS Signature Version 4 (AWS General Reference, "Signature Version 4 signing process"), for the
//! service, which verifies signatures, and for the commands, which make them.

use aws_lc_rs::{digest, hmac};
use axum::http::{HeaderMap, HeaderValue};

/// The name of the algorithm, with which the Authorization header begins.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The day, the region and the service that a signature is valid for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `20261123`.
    pub date: &'a str,
    pub region: &'a str,
    pub service: &'a str,
}

/// The signed parts of a request besides its body.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub method: &'a str,
    /// As it was sent for S3, [encoded again](encoded_again) for every other service.
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
}

/// Returns the canonical request; `signed` are the names of the signed headers, in their order.
pub fn canonical(head: Head<'_>, signed: &[impl AsRef<str>], body_hash: &str) -> String {
    let mut query: Vec<&str> = head.query.split('&').collect();
    query.sort_unstable();
    let mut canonical = format!("{}\n{}\n{}\n", head.method, head.path, query.join("&"));
    for name in signed {
        let name = name.as_ref();
        let values: Vec<String> = head.headers.get_all(name).iter().map(squeeze).collect();
        canonical.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let names: Vec<&str> = signed.iter().map(AsRef::as_ref).collect();
    canonical.push_str(&format!("\n{}\n{body_hash}", names.join(";")));
    canonical
}

/// Signs a canonical request; `stamp` is its `x-amz-date`.
pub fn sign(secret: &str, stamp: &str, scope: Scope<'_>, canonical: &str) -> hmac::Tag {
    let Scope {
        date,
        region,
        service,
    } = scope;
    let hash = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
    let message = format!("{ALGORITHM}\n{stamp}\n{date}/{region}/{service}/aws4_request\n{hash}");
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    let key = [date, region, service, "aws4_request"]
        .iter()
        .fold(first, |key, part| {
            hmac::Key::new(
                hmac::HMAC_SHA256,
                hmac::sign(&key, part.as_bytes()).as_ref(),
            )
        });
    hmac::sign(&key, message.as_bytes())
}

/// Returns a path, or a part of one, with every byte encoded that is not unreserved.
pub fn encoded_again(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(byte.into())
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// A header's value without leading and trailing spaces, and with single ones inside.
fn squeeze(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.split(' ')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
