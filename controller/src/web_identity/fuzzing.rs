//! A door to the private parsers for the fuzz target, which is not part of the program.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use codedeploy_api::codedeploy::Timestamp;

use super::key_set::KeySet;
use super::token::Token;

/// Reads a token and the keys of its issuer: the header, the claims and the key set are the lines of
/// `input`.
pub fn identity_token(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (header, claims, keys) = (line(), line(), line());
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{}.{}.{}", part(header), part(claims), part(&[0; 64]));
    drop(Token::read(&String::from_utf8_lossy(input)));
    let keys = KeySet::read(keys);
    let Ok(token) = Token::read(&text) else {
        return;
    };
    let _ = token.check_times(Timestamp::from_millis(0));
    drop((token.issuer(), token.audience(&["a".to_owned()])));
    if let Ok(keys) = keys {
        let verified = token.verify_signature(&keys);
        assert!(verified.is_err(), "nobody signed anything");
    }
}
