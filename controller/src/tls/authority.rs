//! The data directory's own authority, and the certificates that it makes.

use std::path::Path;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::error::TlsError;
use crate::keys::{Key, KeyError, Keys};

/// The lifetime of a self-made certificate, which is renewed in its last third.
const LIFETIME: time::Duration = time::Duration::days(90);

/// The tolerance for hosts' clocks that are behind.
const SLACK: time::Duration = time::Duration::days(1);

/// The authority that signs self-made certificates; clients trust it, and so every renewal.
#[derive(Debug)]
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Opens the authority of a data directory; the first time, makes it.
    pub fn open(keys: &Keys) -> Result<Self, TlsError> {
        let key_der = keys.open(Key::Authority, || {
            rcgen::KeyPair::generate()
                .map(|key| key.serialize_der())
                .map_err(|_| KeyError::Random)
        })?;
        let key = rcgen::KeyPair::try_from(key_der).map_err(TlsError::Authority)?;
        let parameters = parameters();
        let made = parameters.self_signed(&key).map_err(TlsError::Authority)?;
        let kept = keys.certificate(Key::Authority, || Ok(made.der().to_vec()))?;
        Ok(Authority {
            issuer: rcgen::Issuer::new(parameters, key),
            certificate: kept.into(),
        })
    }

    /// The certificate of a data directory's authority, if there is one.
    pub fn certificate_pem(data_dir: &Path) -> Option<String> {
        let der = std::fs::read(data_dir.join(Key::Authority.certificate()?)).ok()?;
        der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &der).ok()
    }

    /// Makes a certificate for these names.
    pub(super) fn issue(
        &self,
        names: &[String],
        now: OffsetDateTime,
    ) -> Result<CertifiedKey, TlsError> {
        let failed = |source| TlsError::Issue {
            names: names.to_vec(),
            source,
        };
        let key = rcgen::KeyPair::generate().map_err(failed)?;
        let mut parameters = rcgen::CertificateParams::new(names).map_err(failed)?;
        parameters.not_before = now - SLACK;
        parameters.not_after = now + LIFETIME;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "codedeploy-controller");
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let leaf = parameters.signed_by(&key, &self.issuer).map_err(failed)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        CertifiedKey::from_der(chain, key, &default_provider()).map_err(TlsError::Own)
    }
}

/// Always the same: a leaf certificate refers to its issuer by name and key.
fn parameters() -> rcgen::CertificateParams {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2120, 1, 1);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, "codedeploy-controller authority");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    parameters.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::CrlSign,
    ];
    parameters
}

/// The time from which a certificate that is made `now` is renewed.
pub(super) fn renewal(now: OffsetDateTime) -> OffsetDateTime {
    now + LIFETIME * 2 / 3
}
