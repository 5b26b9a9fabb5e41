//! The signing key: deployment specifications leave the service as PKCS#7 SignedData with their
//! content and the signer's certificate inside (RFC 5652), in PEM.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{digest, rand};
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec};
use der::pem::LineEnding;
use der::{Decode, Encode, Tag};
use x509_cert::Certificate;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::keys::{Key, KeyError, Keys};
use crate::recent::Recent;

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const ID_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const ID_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Signs deployment specifications.
#[derive(Debug)]
pub struct Signer {
    key: RsaKeyPair,
    certificate: Certificate,
    certificate_der: Vec<u8>,
    /// Recent signatures, by the digest of the document: a host asks for the same document at each
    /// event.
    recent: Mutex<Recent<[u8; 32], Box<[u8]>>>,
}

/// The number of signatures in each of two generations; both together take about 10 MiB.
const MOST_RECENT: usize = 16_384;

#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error(transparent)]
    Keep(#[from] KeyError),
    #[error("cannot make the signing certificate")]
    Make(#[from] rcgen::Error),
    #[error(
        "the signing key in the data directory is not a usable RSA key: restore it from a backup"
    )]
    Key,
    #[error("the signing certificate in the data directory does not belong to the signing key")]
    Mismatch,
    #[error("a signed document could not be encoded")]
    Encode(#[from] der::Error),
    #[error("a document could not be signed")]
    Sign,
}

impl Signer {
    /// Opens the key of a data directory; the first start makes an RSA key and a self-signed
    /// certificate.
    pub fn open(keys: &Keys) -> Result<Signer, SigningError> {
        Self::of(keys, Key::Signer)
    }

    /// Returns the next signing key, if one was announced.
    pub fn announced(keys: &Keys) -> Result<Option<Signer>, SigningError> {
        keys.has(Key::NextSigner)
            .then(|| Self::announce(keys))
            .transpose()
    }

    /// Returns the next signing key; the first call makes it.
    pub fn announce(keys: &Keys) -> Result<Signer, SigningError> {
        Self::of(keys, Key::NextSigner)
    }

    fn of(keys: &Keys, which: Key) -> Result<Signer, SigningError> {
        let key_der = keys.open(which, || {
            let made =
                rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
            made.map(|key| key.serialize_der())
                .map_err(|_| KeyError::Random)
        })?;
        let made = self_signed(&key_der)?;
        let certificate_der = keys.certificate(which, || Ok(made))?;
        let key = RsaKeyPair::from_pkcs8(&key_der).map_err(|_| SigningError::Key)?;
        let certificate = Certificate::from_der(&certificate_der)?;
        let certified = &certificate
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key;
        if certified.as_bytes() != Some(key.public_key().as_ref()) {
            return Err(SigningError::Mismatch);
        }
        Ok(Signer {
            key,
            certificate,
            certificate_der,
            recent: Mutex::new(Recent::new(MOST_RECENT)),
        })
    }

    /// The certificate inside every signed document.
    pub fn certificate_pem(&self) -> Result<String, SigningError> {
        pem("CERTIFICATE", &self.certificate_der)
    }

    /// The SHA-256 of the public key (DER of SubjectPublicKeyInfo) in lower-case hexadecimal, which
    /// agents pin.
    pub fn pin(&self) -> Result<String, SigningError> {
        let key = self
            .certificate
            .tbs_certificate
            .subject_public_key_info
            .to_der()?;
        Ok(hex::encode(digest::digest(&digest::SHA256, &key)))
    }

    /// Signs the document; returns PEM with the label `PKCS7`.
    pub fn sign(&self, document: &[u8]) -> Result<String, SigningError> {
        let signature = self.signature(document)?;
        let kept = signature.clone().into_boxed_slice();
        self.recent().keep(digest_of(document), kept);
        self.envelope(document, signature)
    }

    /// The same for a document that was signed recently, which takes little time.
    pub fn signed_before(&self, document: &[u8]) -> Option<Result<String, SigningError>> {
        let signature = self.recent().get(&digest_of(document))?.to_vec();
        Some(self.envelope(document, signature))
    }

    fn recent(&self) -> MutexGuard<'_, Recent<[u8; 32], Box<[u8]>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signature(&self, document: &[u8]) -> Result<Vec<u8>, SigningError> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &rand::SystemRandom::new(),
                document,
                &mut signature,
            )
            .map_err(|_| SigningError::Sign)?;
        Ok(signature)
    }

    fn envelope(&self, document: &[u8], signature: Vec<u8>) -> Result<String, SigningError> {
        let sha256 = algorithm(ID_SHA256, None);
        let tbs = &self.certificate.tbs_certificate;
        // Without signed attributes: the signature covers the content itself.
        let signer = SignerInfo {
            version: CmsVersion::V1,
            sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: tbs.issuer.clone(),
                serial_number: tbs.serial_number.clone(),
            }),
            digest_alg: sha256.clone(),
            signed_attrs: None,
            signature_algorithm: algorithm(ID_RSA, Some(Any::null())),
            signature: OctetString::new(signature)?,
            unsigned_attrs: None,
        };
        let content = OctetString::new(document)?;
        let certificates = vec![CertificateChoices::Certificate(self.certificate.clone())];
        let signed = SignedData {
            version: CmsVersion::V1,
            digest_algorithms: SetOfVec::try_from(vec![sha256])?,
            encap_content_info: EncapsulatedContentInfo {
                econtent_type: ID_DATA,
                econtent: Some(Any::new(Tag::OctetString, content.as_bytes())?),
            },
            certificates: Some(CertificateSet(SetOfVec::try_from(certificates)?)),
            crls: None,
            signer_infos: SignerInfos(SetOfVec::try_from(vec![signer])?),
        };
        let envelope = ContentInfo {
            content_type: ID_SIGNED_DATA,
            content: Any::encode_from(&signed)?,
        };
        pem("PKCS7", &envelope.to_der()?)
    }
}

fn digest_of(document: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, document).as_ref());
    digest
}

fn algorithm(oid: ObjectIdentifier, parameters: Option<Any>) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters }
}

fn pem(label: &'static str, der: &[u8]) -> Result<String, SigningError> {
    der::pem::encode_string(label, LineEnding::LF, der)
        .map_err(|error| SigningError::Encode(error.into()))
}

/// Agents check neither chain nor dates, or pin the key: the certificate does not expire.
fn self_signed(key_der: &[u8]) -> Result<Vec<u8>, SigningError> {
    let key = rcgen::KeyPair::try_from(key_der)?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(9999, 12, 31);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(
        rcgen::DnType::CommonName,
        "codedeploy-controller deployment signer",
    );
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    Ok(parameters.self_signed(&key)?.der().to_vec())
}
