//! AWS Signature Version 4 (AWS General Reference, "Signature Version 4 signing process"), for the
//! service, which verifies signatures, and for the commands, which make them.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use axum::http::HeaderMap;

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

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scope {
            date,
            region,
            service,
        } = self;
        write!(f, "{date}/{region}/{service}/aws4_request")
    }
}

impl Scope<'_> {
    /// Whether `text` is the scope in the form of a request.
    pub fn is(&self, text: &str) -> bool {
        let mut parts = text.split('/');
        let own = [self.date, self.region, self.service, "aws4_request"];
        own.into_iter().all(|part| parts.next() == Some(part)) && parts.next().is_none()
    }
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
    let mut canonical = String::with_capacity(1024);
    canonical.extend([head.method, "\n", head.path, "\n"]);
    push_all(&mut canonical, "&", query);
    canonical.push('\n');
    for name in signed {
        let name = name.as_ref();
        canonical.extend([name, ":"]);
        for (number, value) in head.headers.get_all(name).iter().enumerate() {
            canonical.push_str(if number > 0 { "," } else { "" });
            // Without leading and trailing spaces, and with single ones inside.
            let text = String::from_utf8_lossy(value.as_bytes());
            let parts = text.split(' ').filter(|part| !part.is_empty());
            push_all(&mut canonical, " ", parts);
        }
        canonical.push('\n');
    }
    canonical.push('\n');
    push_all(&mut canonical, ";", signed.iter().map(AsRef::as_ref));
    canonical.extend(["\n", body_hash]);
    canonical
}

fn push_all<'a>(text: &mut String, separator: &str, parts: impl IntoIterator<Item = &'a str>) {
    for (number, part) in parts.into_iter().enumerate() {
        text.push_str(if number > 0 { separator } else { "" });
        text.push_str(part);
    }
}

/// The key that a secret signs with on one day, in one region and for one service.
#[derive(Clone)]
pub struct SigningKey([u8; digest::SHA256_OUTPUT_LEN]);

/// The key is not shown.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    pub fn derive(secret: &str, scope: Scope<'_>) -> Self {
        let Scope {
            date,
            region,
            service,
        } = scope;
        let mac = |key: &[u8], part: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), part.as_bytes())
        };
        let first = mac(format!("AWS4{secret}").as_bytes(), date);
        let last = [region, service, "aws4_request"]
            .iter()
            .fold(first, |key, part| mac(key.as_ref(), part));
        let mut key = [0; digest::SHA256_OUTPUT_LEN];
        key.copy_from_slice(last.as_ref());
        SigningKey(key)
    }

    /// Signs a canonical request; `stamp` is its `x-amz-date`.
    pub fn sign(&self, stamp: &str, scope: Scope<'_>, canonical: &str) -> hmac::Tag {
        let hash = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let message = format!("{ALGORITHM}\n{stamp}\n{scope}\n{hash}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::sign(&key, message.as_bytes())
    }
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
