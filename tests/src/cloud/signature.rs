//! Verifies signature version 4 (AWS: "Signature Version 4 signing process").

use aws_lc_rs::{digest, hmac};
use axum::http::{HeaderMap, Method, Uri};

/// A request as it arrived.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Credential`, `SignedHeaders` or `Signature` of the Authorization header.
    fn field(&self, name: &str) -> Option<&str> {
        let fields = self
            .header("authorization")?
            .strip_prefix("AWS4-HMAC-SHA256")?;
        fields
            .split(',')
            .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
    }
}

pub(super) fn access_key_id(request: &Request<'_>) -> Option<String> {
    Some(request.field("Credential")?.split('/').next()?.to_owned())
}

pub(super) fn is_good(request: &Request<'_>, secret: &str) -> bool {
    let body = hex::encode(digest::digest(&digest::SHA256, request.body));
    let claimed = request.header("x-amz-content-sha256");
    expected(request, secret, &body)
        .is_some_and(|signature| request.field("Signature") == Some(&signature))
        && claimed.is_none_or(|claimed| claimed == body)
}

fn expected(request: &Request<'_>, secret: &str, body: &str) -> Option<String> {
    let host = request
        .uri
        .authority()
        .map(|authority| authority.as_str().to_owned());
    let names = request.field("SignedHeaders")?;
    let mut canonical = String::new();
    for name in names.split(';') {
        // A request line in absolute form names the host.
        let value = request.header(name).map(str::to_owned).or(host.clone())?;
        canonical += &format!("{name}:{}\n", value.trim());
    }
    let mut query: Vec<&str> = request.uri.query().unwrap_or_default().split('&').collect();
    query.sort_unstable();
    let (method, path) = (request.method, request.uri.path());
    let canonical = format!(
        "{method}\n{path}\n{}\n{canonical}\n{names}\n{body}",
        query.join("&")
    );
    let scope: Vec<&str> = request.field("Credential")?.split('/').skip(1).collect();
    let hash = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{}\n{hash}",
        request.header("x-amz-date")?,
        scope.join("/")
    );
    let sign = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
    };
    let key = scope
        .iter()
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| {
            sign(&key, part).as_ref().into()
        });
    Some(hex::encode(sign(&key, &text)))
}
