//! Tokens of the configuration, which callers without an access key present.

use aws_lc_rs::{constant_time, digest};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::events::Secret;

/// Whether a request has the token: as a bearer token, or as the password of any user, which is
/// what an SNS topic can send.
pub(super) fn is_let_in(headers: &HeaderMap, token: &Secret) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let given = match given.split_once(' ') {
        Some(("Bearer", given)) => given.to_owned(),
        Some(("Basic", pair)) => {
            let pair = STANDARD
                .decode(pair)
                .ok()
                .and_then(|pair| String::from_utf8(pair).ok())
                .unwrap_or_default();
            pair.split_once(':')
                .map(|(_, password)| password.to_owned())
                .unwrap_or_default()
        }
        _ => return false,
    };
    let [expected, given] =
        [&token.0, &given].map(|text| digest::digest(&digest::SHA256, text.as_bytes()));
    constant_time::verify_slices_are_equal(expected.as_ref(), given.as_ref()).is_ok()
}
