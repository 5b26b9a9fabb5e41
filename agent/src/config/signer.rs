//! The signers of deployment specifications that the host accepts: `deployment_signer_pin` and
//! `deployment_signer_ca`.

use std::fmt;
use std::path::PathBuf;

use serde_yaml::Value;

use super::reader::Reader;

const PIN: &str = "deployment_signer_pin";
const AUTHORITY: &str = "deployment_signer_ca";

/// The required signer of a deployment specification, in addition to a valid signature.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SignerTrust {
    /// Any signer whose certificate is enclosed, as with the official agents.
    #[default]
    Anyone,
    /// A signer whose certificate chains to one in this PEM file.
    Authority(PathBuf),
    /// The signers whose public key has one of these SHA-256 digests.
    Pins(Vec<KeyDigest>),
}

/// The SHA-256 digest of a public key. Its `Display` is in lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest(pub [u8; 32]);

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The largest number of pinned keys; two are needed while one replaces the other.
const MAX_PINS: usize = 16;

pub(super) fn read(file: &mut Reader) -> SignerTrust {
    let authority = file.path(AUTHORITY);
    let pins = pins(file);
    match (pins, authority) {
        (Some(_), Some(_)) => {
            file.conflict(PIN, AUTHORITY);
            SignerTrust::Anyone
        }
        (Some(pins), None) => SignerTrust::Pins(pins),
        (None, Some(path)) => SignerTrust::Authority(path),
        (None, None) => SignerTrust::Anyone,
    }
}

/// One digest, or a list of them.
fn pins(file: &mut Reader) -> Option<Vec<KeyDigest>> {
    let value = file.take(PIN)?;
    let values = match &value {
        Value::Sequence(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let digests = values
        .iter()
        .map(|value| value.as_str().and_then(sha256_digest))
        .collect::<Option<Vec<_>>>();
    digests
        .filter(|digests| (1..=MAX_PINS).contains(&digests.len()))
        .or_else(|| {
            file.wrong(
                PIN,
                &value,
                "the SHA-256 digest of a public key, 64 hex digits, or a list of up to 16",
            )
        })
}

fn sha256_digest(text: &str) -> Option<KeyDigest> {
    let digits = text
        .strip_prefix("sha256:")
        .unwrap_or(text)
        .replace(':', "");
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest).ok()?;
    Some(KeyDigest(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_or_several_are_pinned() {
        let read_from = |text: &str| {
            let mut file = Reader::new(text.as_bytes()).unwrap();
            let trust = read(&mut file);
            file.finish()
                .map(|_| trust)
                .map_err(|problems| problems[0].to_string())
        };
        let (one, two) = ("a1".repeat(32), "b2".repeat(32));
        let pins = |pins: &[u8]| {
            Ok(SignerTrust::Pins(
                pins.iter().map(|byte| KeyDigest([*byte; 32])).collect(),
            ))
        };
        assert_eq!(read_from(""), Ok(SignerTrust::Anyone));
        assert_eq!(
            read_from(&format!("deployment_signer_pin: {one}\n")),
            pins(&[0xa1])
        );
        assert_eq!(
            read_from(&format!(
                ":deployment_signer_pin: [\"{one}\", 'sha256:{two}']\n"
            )),
            pins(&[0xa1, 0xb2])
        );
        assert_eq!(
            read_from(&format!("deployment_signer_pin:\n  - {one}\n  - {two}\n")),
            pins(&[0xa1, 0xb2])
        );
        for wrong in [
            "[]".to_owned(),
            "[7]".into(),
            format!("[{one}, abc]"),
            format!("{{a: {one}}}"),
            "abc".into(),
        ] {
            let problem = read_from(&format!("deployment_signer_pin: {wrong}\n")).unwrap_err();
            assert!(
                problem.contains("deployment_signer_pin") && problem.contains("a list of up to 16"),
                "{problem}"
            );
        }
        let both = format!("deployment_signer_pin: {one}\ndeployment_signer_ca: /x\n");
        assert!(
            read_from(&both)
                .unwrap_err()
                .contains("only one of the two")
        );
    }
}
