//! Turns an envelope into a specification whose signature is verified (spec: Deployment
//! specification).

use std::path::PathBuf;

use base64::Engine;
use codedeploy_api::command::Envelope;

use super::pkcs7::{self, Authorities, Pkcs7Error, Signer};
use crate::bounded_read;
use crate::config::{KeyDigest, SignerTrust};

/// The largest envelope that is opened, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// A specification from a trusted signer. Only [`verify`] and [`trusted`] make it.
#[derive(Debug)]
pub struct VerifiedSpec {
    pub(super) json: Vec<u8>,
    /// The signers; empty if this process wrote it for itself.
    signers: Vec<Signer>,
}

impl VerifiedSpec {
    /// The keys that signed it.
    pub fn keys(&self) -> impl Iterator<Item = KeyDigest> {
        self.signers
            .iter()
            .map(|signer| KeyDigest(signer.key_sha256))
    }

    /// Logs the signers: called once the deployment is known, so that the line belongs to it.
    pub fn log_signers(&self) {
        for Signer {
            subject,
            key_sha256,
        } in &self.signers
        {
            tracing::info!(signer = %subject, key_sha256 = %KeyDigest(*key_sha256), "deployment specification verified");
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the specification's format is {found:?}; expected PKCS7/JSON, a signed specification")]
    Format { found: String },
    #[error("the specification has {found} bytes; expected at most {MAX_BYTES}")]
    TooLarge { found: usize },
    #[error("the specification is neither PEM with the label PKCS7 nor base64")]
    Encoding,
    #[error("the specification {problem}")]
    Signature { problem: Pkcs7Error },
    #[error("cannot read deployment_signer_ca {}", path.display())]
    Authority {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("deployment_signer_ca {} is unusable: it {problem}", path.display())]
    NoAuthority { path: PathBuf, problem: Pkcs7Error },
    #[error(
        "the specification is signed by {subject} with the key {found}, which deployment_signer_pin does not have; if the \
         service's key was changed on purpose, add its digest there"
    )]
    Pin { subject: String, found: KeyDigest },
}

/// Verifies the signature of `envelope` and its signer.
pub fn verify(envelope: &Envelope, trust: &SignerTrust) -> Result<VerifiedSpec, EnvelopeError> {
    if envelope.format != Envelope::PKCS7_JSON {
        return Err(EnvelopeError::Format {
            found: envelope.format.chars().take(64).collect(),
        });
    }
    let der = decode(&envelope.payload)?;
    let authorities = authorities(trust)?;
    let opened = pkcs7::open(&der, authorities.as_ref())
        .map_err(|problem| EnvelopeError::Signature { problem })?;
    for signer in &opened.signers {
        let found = KeyDigest(signer.key_sha256);
        if let SignerTrust::Pins(pins) = trust
            && !pins.contains(&found)
        {
            return Err(EnvelopeError::Pin {
                subject: signer.subject.clone(),
                found,
            });
        }
    }
    Ok(VerifiedSpec {
        json: opened.content,
        signers: opened.signers,
    })
}

/// Checks that specifications can be verified with these settings: the authorities exist.
pub fn check_trust(trust: &SignerTrust) -> Result<(), EnvelopeError> {
    authorities(trust).map(drop)
}

/// Read each time, so that a replaced file needs no restart.
fn authorities(trust: &SignerTrust) -> Result<Option<Authorities>, EnvelopeError> {
    let SignerTrust::Authority(path) = trust else {
        return Ok(None);
    };
    let pem = bounded_read::read(path).map_err(|source| EnvelopeError::Authority {
        path: path.clone(),
        source,
    })?;
    let found = Authorities::read(&pem);
    found
        .map(Some)
        .map_err(|problem| EnvelopeError::NoAuthority {
            path: path.clone(),
            problem,
        })
}

/// Wraps a specification that this process wrote for itself, as the local command does.
pub fn trusted(json: Vec<u8>) -> VerifiedSpec {
    VerifiedSpec {
        json,
        signers: Vec::new(),
    }
}

fn decode(payload: &str) -> Result<Vec<u8>, EnvelopeError> {
    if payload.len() > MAX_BYTES {
        return Err(EnvelopeError::TooLarge {
            found: payload.len(),
        });
    }
    let body = match payload.trim().strip_prefix("-----BEGIN PKCS7-----") {
        Some(rest) => rest.split("-----END PKCS7-----").next().unwrap_or_default(),
        None => payload,
    };
    let compact: Vec<u8> = body
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| EnvelopeError::Encoding)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the openssl program is the oracle of these tests"
)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// A signer made by the `openssl` program, and its signature.
    struct Signature {
        folder: tempfile::TempDir,
    }

    impl Signature {
        fn new(key: &[&str]) -> Self {
            let signature = Self {
                folder: tempfile::tempdir().unwrap(),
            };
            let base = [
                "req",
                "-x509",
                "-nodes",
                "-subj",
                "/CN=deployments",
                "-days",
                "2",
                "-keyout",
                "key.pem",
                "-out",
                "cert.pem",
            ];
            signature.openssl(&[&base[..], &["-newkey"], key].concat());
            signature
        }

        fn openssl(&self, arguments: &[&str]) -> String {
            let output = Command::new("openssl")
                .args(arguments)
                .current_dir(self.folder.path())
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        }

        fn sign(&self, content: &str, options: &[&str]) -> Envelope {
            std::fs::write(self.folder.path().join("spec.json"), content).unwrap();
            let base = [
                "smime",
                "-sign",
                "-nodetach",
                "-binary",
                "-in",
                "spec.json",
                "-signer",
                "cert.pem",
                "-inkey",
                "key.pem",
                "-outform",
                "PEM",
            ];
            let payload = self.openssl(&[&base[..], options].concat());
            Envelope {
                format: Envelope::PKCS7_JSON.into(),
                payload,
            }
        }

        fn pin(&self) -> String {
            let pem = self.openssl(&["x509", "-in", "cert.pem", "-noout", "-pubkey"]);
            std::fs::write(self.folder.path().join("pub.pem"), pem).unwrap();
            self.openssl(&[
                "pkey", "-pubin", "-in", "pub.pem", "-outform", "DER", "-out", "pub.der",
            ]);
            let line = self.openssl(&["dgst", "-sha256", "-r", "pub.der"]);
            line.split(' ').next().unwrap().to_owned()
        }

        fn certificate(&self) -> &Path {
            self.folder.path()
        }
    }

    fn opened(envelope: &Envelope, trust: &SignerTrust) -> Result<String, String> {
        verify(envelope, trust)
            .map(|spec| String::from_utf8(spec.json).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_of_signature_that_services_send_opens() {
        let rsa = Signature::new(&["rsa:2048"]);
        let elliptic = Signature::new(&["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        let text = format!("{{\"padding\":\"{}\"}}", "x".repeat(10_000));
        for options in [
            &[][..],
            &["-noattr"],
            &["-stream", "-indef"],
            &["-md", "sha512"],
        ] {
            assert_eq!(
                opened(&rsa.sign(&text, options), &SignerTrust::Anyone).unwrap(),
                text,
                "{options:?}"
            );
        }
        assert_eq!(
            opened(&elliptic.sign(&text, &[]), &SignerTrust::Anyone).unwrap(),
            text
        );
        let mut bare = rsa.sign(&text, &[]);
        bare.payload = bare
            .payload
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        assert_eq!(opened(&bare, &SignerTrust::Anyone).unwrap(), text);
    }

    #[test]
    fn what_was_changed_or_not_signed_is_refused() {
        let signature = Signature::new(&["rsa:2048"]);
        let envelope = signature.sign("{\"a\":1}", &["-noattr"]);
        let der = decode(&envelope.payload).unwrap();
        let at = der
            .windows(7)
            .position(|part| part == b"{\"a\":1}")
            .unwrap();
        let mut changed = der.clone();
        changed[at + 5] = b'2';
        let payload = base64::engine::general_purpose::STANDARD.encode(changed);
        let envelope_changed = Envelope {
            payload,
            ..envelope.clone()
        };
        assert!(
            opened(&envelope_changed, &SignerTrust::Anyone)
                .unwrap_err()
                .contains("the specification has a signature that does not verify (")
        );

        let plain = Envelope {
            format: Envelope::TEXT_JSON.into(),
            payload: "{}".into(),
        };
        assert!(
            opened(&plain, &SignerTrust::Anyone)
                .unwrap_err()
                .contains("expected PKCS7/JSON")
        );
        let detached = signature.openssl(&[
            "smime",
            "-sign",
            "-binary",
            "-in",
            "spec.json",
            "-signer",
            "cert.pem",
            "-inkey",
            "key.pem",
            "-outform",
            "PEM",
        ]);
        let detached = Envelope {
            payload: detached,
            ..envelope.clone()
        };
        assert!(
            opened(&detached, &SignerTrust::Anyone)
                .unwrap_err()
                .contains("detached")
        );
        let bare = signature.sign("{}", &["-nocerts"]);
        assert!(
            opened(&bare, &SignerTrust::Anyone)
                .unwrap_err()
                .contains("no signature with its certificate")
        );
        for payload in ["", "!", "AAAA", &"A".repeat(MAX_BYTES + 1)] {
            assert!(
                opened(
                    &Envelope {
                        payload: payload.into(),
                        ..envelope.clone()
                    },
                    &SignerTrust::Anyone
                )
                .is_err()
            );
        }
        for cut in (0..der.len()).step_by(7) {
            let payload = base64::engine::general_purpose::STANDARD.encode(&der[..cut]);
            assert!(
                opened(
                    &Envelope {
                        payload,
                        ..envelope.clone()
                    },
                    &SignerTrust::Anyone
                )
                .is_err()
            );
        }
    }

    #[test]
    fn weak_signatures_are_refused() {
        let weak = Signature::new(&["rsa:1024"]);
        assert!(
            opened(&weak.sign("{}", &[]), &SignerTrust::Anyone)
                .unwrap_err()
                .contains("RSA key of 1024 bits")
        );
        let rsa = Signature::new(&["rsa:2048"]);
        assert!(
            opened(&rsa.sign("{}", &["-md", "sha1"]), &SignerTrust::Anyone)
                .unwrap_err()
                .contains("weaker than SHA-256")
        );
    }

    #[test]
    fn a_pin_or_an_authority_decides_who_may_sign() {
        let ours = Signature::new(&["rsa:2048"]);
        let theirs = Signature::new(&["rsa:2048"]);
        let mut pin = [0; 32];
        for (index, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&ours.pin()[2 * index..2 * index + 2], 16).unwrap();
        }
        let other = KeyDigest([7; 32]);
        let two = SignerTrust::Pins(vec![other, KeyDigest(pin)]);
        assert_eq!(opened(&ours.sign("{}", &[]), &two).unwrap(), "{}");
        assert!(opened(&ours.sign("{}", &[]), &SignerTrust::Pins(vec![other])).is_err());
        let pin = SignerTrust::Pins(vec![KeyDigest(pin)]);
        assert_eq!(opened(&ours.sign("{}", &[]), &pin).unwrap(), "{}");
        assert!(
            opened(&theirs.sign("{}", &[]), &pin)
                .unwrap_err()
                .contains("deployment_signer_pin")
        );
        let authority = SignerTrust::Authority(ours.certificate().join("cert.pem"));
        assert_eq!(opened(&ours.sign("{}", &[]), &authority).unwrap(), "{}");
        assert!(opened(&theirs.sign("{}", &[]), &authority).is_err());
    }
}
