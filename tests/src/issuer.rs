//! An issuer of identity tokens, as a CI system has one: openssl makes its key and signs.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::programs::Program;

/// The claim `iss` of its tokens.
pub const ISSUER: &str = "https://ci.example.com";

/// The audience of its tokens.
pub const AUDIENCE: &str = "https://deploy.example.com:7080";

/// The subject of its tokens.
pub const SUBJECT: &str = "repo:acme/shop:ref:refs/heads/main";

const KEY: &str = "key.pem";
const KEY_ID: &str = "2026-12";

/// The keys of the issuer, in a temporary folder.
#[derive(Debug)]
pub struct Issuer {
    folder: tempfile::TempDir,
}

impl Issuer {
    /// Makes a key, and publishes it in a file.
    pub async fn new() -> Self {
        let issuer = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let key = issuer.path(KEY);
        openssl(&["genrsa", "-out", &key, "2048"]).await;
        let modulus = openssl(&["rsa", "-in", &key, "-noout", "-modulus"]).await;
        let modulus = String::from_utf8(modulus).expect("a number in hexadecimal digits");
        let modulus = modulus.trim().trim_start_matches("Modulus=");
        let modulus = hex::decode(modulus).expect("a number in hexadecimal digits");
        let key = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB",
        });
        write(
            Path::new(&issuer.path("jwks.json")),
            &json!({ "keys": [key] }).to_string(),
        );
        issuer
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The settings of a controller in which tokens with [`SUBJECT`] assume the role `deploy-shop`.
    pub fn settings(&self) -> String {
        format!(
            "identity_providers:\n  ci:\n    issuer: {ISSUER}\n    audience: {AUDIENCE}\n    jwks_file: {}\n    roles:\n      \
             deploy-shop:\n        role: operator\n        applications: [shop]\n        claims: {{sub: '{SUBJECT}'}}\n",
            self.path("jwks.json")
        )
    }

    /// The key set, as a document.
    pub fn keys(&self) -> String {
        std::fs::read_to_string(self.path("jwks.json")).expect("it was written")
    }

    /// Writes a token for a job of some minutes into a file.
    pub async fn token(&self, subject: &str) -> PathBuf {
        let now = seconds();
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 300,
        });
        let name = format!("token-{}", hex::encode(subject));
        let token = PathBuf::from(self.path(&name));
        write(&token, &self.sign(&claims).await);
        token
    }

    /// Signs claims.
    pub async fn sign(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": KEY_ID});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let (text, key) = (self.path("signed"), self.path(KEY));
        write(Path::new(&text), &signed);
        let signature = openssl(&["dgst", "-sha256", "-sign", &key, &text]).await;
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Seconds since the epoch.
pub fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the file can be written");
}

async fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Program::at("/usr/bin/openssl").output(arguments).await;
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    output.stdout
}
