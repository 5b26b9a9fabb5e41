//! The public keys of an issuer: a JSON Web Key Set (RFC 7517).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// The most keys that an issuer may publish; it publishes about five.
const MAX_KEYS: usize = 100;

/// The algorithm of a signature. `none` and those with a shared secret are not among them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Algorithm {
    name: &'static str,
    method: Method,
}

#[derive(Debug, Clone, Copy)]
enum Method {
    Rsa(&'static RsaParameters),
    Ecdsa(Curve),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

const ALGORITHMS: [Algorithm; 8] = {
    const fn rsa(name: &'static str, parameters: &'static RsaParameters) -> Algorithm {
        Algorithm {
            name,
            method: Method::Rsa(parameters),
        }
    }
    const fn ecdsa(name: &'static str, curve: Curve) -> Algorithm {
        Algorithm {
            name,
            method: Method::Ecdsa(curve),
        }
    }
    [
        rsa("RS256", &RSA_PKCS1_2048_8192_SHA256),
        rsa("RS384", &RSA_PKCS1_2048_8192_SHA384),
        rsa("RS512", &RSA_PKCS1_2048_8192_SHA512),
        rsa("PS256", &RSA_PSS_2048_8192_SHA256),
        rsa("PS384", &RSA_PSS_2048_8192_SHA384),
        rsa("PS512", &RSA_PSS_2048_8192_SHA512),
        ecdsa("ES256", Curve::P256),
        ecdsa("ES384", Curve::P384),
    ]
};

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        ALGORITHMS
            .into_iter()
            .find(|algorithm| algorithm.name == name)
    }
}

impl Curve {
    fn named(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Curve::P256),
            "P-384" => Some(Curve::P384),
            _ => None,
        }
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        }
    }

    /// The length of a coordinate, in bytes.
    fn length(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }
}

/// The keys of an issuer with which tokens can be verified, at least one.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// The only algorithm that it may be used for, if it names one.
    algorithm: Option<String>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ecdsa { curve: Curve, point: Vec<u8> },
}

#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    #[error("it is not a JSON Web Key Set, an object with the member keys")]
    Form(#[source] serde_json::Error),
    #[error("it has {0} keys: expected at most {MAX_KEYS}")]
    TooMany(usize),
    #[error("it has no key for signatures of a kind that is supported (RSA, P-256, P-384)")]
    Empty,
}

#[derive(Debug, Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct FileKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Keys of other kinds and for other purposes are left out.
    pub(super) fn read(document: &[u8]) -> Result<Self, KeySetError> {
        let Document { keys } = serde_json::from_slice(document).map_err(KeySetError::Form)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(keys.len()));
        }
        let keys: Vec<Key> = keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(KeySet(keys))
    }

    /// The keys that may have made a signature. A token without a key id fits only an issuer with
    /// a single key.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let usable = self.0.iter().filter(move |key| key.fits(algorithm));
        let is_single = self.0.len() == 1;
        usable.filter(move |key| match id {
            Some(id) => key.id.as_deref() == Some(id),
            None => is_single,
        })
    }
}

impl Key {
    fn read(key: Value) -> Option<Self> {
        let key: FileKey = serde_json::from_value(key).ok()?;
        let signs = key.purpose.is_none_or(|purpose| purpose == "sig")
            && key
                .key_ops
                .is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        let public = match key.kty.as_str() {
            "RSA" => Public::Rsa {
                modulus: number(&key.n?)?,
                exponent: number(&key.e?)?,
            },
            "EC" => {
                let curve = Curve::named(&key.crv?)?;
                let (x, y) = (decode(&key.x?)?, decode(&key.y?)?);
                let whole = |part: &[u8]| part.len() == curve.length();
                // An uncompressed point.
                (whole(&x) && whole(&y)).then(|| Public::Ecdsa {
                    curve,
                    point: [&[4], x.as_slice(), &y].concat(),
                })?
            }
            _ => return None,
        };
        signs.then_some(Key {
            id: key.kid,
            algorithm: key.alg,
            public,
        })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match (&self.public, algorithm.method) {
            (Public::Rsa { .. }, Method::Rsa(_)) => true,
            (Public::Ecdsa { curve, .. }, Method::Ecdsa(wanted)) => *curve == wanted,
            (Public::Rsa { .. } | Public::Ecdsa { .. }, _) => false,
        };
        kind && self
            .algorithm
            .as_deref()
            .is_none_or(|name| name == algorithm.name)
    }

    /// Whether this key made a signature.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.public, algorithm.method) {
            (Public::Rsa { modulus, exponent }, Method::Rsa(parameters)) => {
                let key = RsaPublicKeyComponents {
                    n: modulus.as_slice(),
                    e: exponent.as_slice(),
                };
                key.verify(parameters, message, signature).is_ok()
            }
            (Public::Ecdsa { curve, point }, Method::Ecdsa(wanted)) if *curve == wanted => {
                let key = UnparsedPublicKey::new(curve.verification(), point);
                key.verify(message, signature).is_ok()
            }
            (Public::Rsa { .. } | Public::Ecdsa { .. }, _) => false,
        }
    }
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Reads a number; some issuers write zeros before it.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = decode(text)?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    bytes.get(first..).map(<[u8]>::to_vec)
}
