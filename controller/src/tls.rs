//! The service's certificate: read from files, or made here and signed by the data directory's own
//! authority. It is replaced while the service runs; open connections keep theirs.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use der::Decode as _;
use futures_util::{Stream, StreamExt as _};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;
use x509_cert::ext::pkix::SubjectAltName;

use crate::config::Tls;
use crate::error::chain;
use crate::keys::{Key, KeyError, Keys};

/// The interval of checks of files for a change, and of a self-made certificate for its age.
const INTERVAL: Duration = Duration::from_secs(10);

/// The lifetime of a self-made certificate, which is renewed in its last third.
const LIFETIME: time::Duration = time::Duration::days(90);

/// The tolerance for hosts' clocks that are behind.
const SLACK: time::Duration = time::Duration::days(1);

/// The time before the end of a configured certificate from which warnings begin.
const WARN_BEFORE: time::Duration = time::Duration::days(14);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate file {} cannot be used: expected a PEM file with the certificate first and its issuers after it", path.display())]
    Certificate { path: PathBuf, source: pem::Error },
    #[error("the certificate file {} has no certificate in it: expected PEM, beginning with -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} cannot be read by this user: let it (chgrp, chmod g+r; on Debian the group ssl-cert), or give the service a readable copy", .0.display())]
    NotReadable(PathBuf, #[source] io::Error),
    #[error("the key file {} cannot be used: expected an unencrypted private key in PEM", path.display())]
    Key { path: PathBuf, source: pem::Error },
    #[error("the key in {} does not belong to the first certificate in {}", key.display(), certificate.display())]
    Mismatch {
        key: PathBuf,
        certificate: PathBuf,
        source: rustls::Error,
    },
    #[error(transparent)]
    Keep(#[from] KeyError),
    #[error(
        "the authority's files in the data directory are not usable: restore them from your copy of the keys; if they are lost, run `codedeploy-controller replace-key authority` to retire the key"
    )]
    Authority(#[source] rcgen::Error),
    #[error("cannot make a certificate for {}", names.join(", "))]
    Issue {
        names: Vec<String>,
        source: rcgen::Error,
    },
    #[error("the certificate that was made cannot be used")]
    Own(#[source] rustls::Error),
}

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

    fn issue(&self, names: &[String], now: OffsetDateTime) -> Result<CertifiedKey, TlsError> {
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

/// The current certificate, shared with handshakes.
#[derive(Debug)]
pub(crate) struct Certificates {
    source: Source,
    current: Arc<Current>,
}

#[derive(Debug)]
enum Source {
    Files {
        certificate: PathBuf,
        key: PathBuf,
        seen: Stamp,
        ending: Ending,
    },
    Own {
        authority: Authority,
        names: Vec<String>,
        renew_at: OffsetDateTime,
    },
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// Distinguishes contents of two files.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let of = |file: Metadata| (file.ino(), file.len(), file.mtime(), file.mtime_nsec());
    [certificate, key].map(|path| std::fs::metadata(path).ok().map(of))
}

impl Certificates {
    /// Returns the configured certificate; `None` if there is none.
    pub(crate) fn open(tls: &Tls, keys: &Keys) -> Result<Option<Self>, TlsError> {
        let now = OffsetDateTime::now_utc();
        let (source, current) = match tls {
            Tls::Off => return Ok(None),
            Tls::Given { certificate, key } => {
                let seen = stamp(certificate, key);
                let (current, mut ending) = read(certificate, key)?;
                ending.warn(certificate, now);
                (
                    Source::Files {
                        certificate: certificate.clone(),
                        key: key.clone(),
                        seen,
                        ending,
                    },
                    current,
                )
            }
            Tls::SelfSigned { names } => {
                let authority = Authority::open(keys)?;
                let current = authority.issue(names, now)?;
                (
                    Source::Own {
                        authority,
                        names: names.clone(),
                        renew_at: renewal(now),
                    },
                    current,
                )
            }
        };
        let current = Arc::new(Current(RwLock::new(Arc::new(current))));
        Ok(Some(Certificates { source, current }))
    }

    /// Accepts TLS 1.2 and 1.3 connections with the current certificate.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let versions = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Own)?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&self.current) as _;
        let mut config = versions.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Replaces the certificate when its files have changed or its time has come; at once when
    /// `asked` to. Never ends.
    pub(crate) async fn keep_fresh(mut self, asked: impl Stream<Item = ()>) {
        let mut asked = std::pin::pin!(asked.chain(futures_util::stream::pending()));
        loop {
            let insist = tokio::select! {
                _ = asked.next() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            match self.renew(insist, OffsetDateTime::now_utc()) {
                Ok(false) => {}
                Ok(true) => tracing::info!("the certificate was replaced"),
                Err(error) => tracing::error!(
                    error = chain(&error),
                    "the certificate was not replaced; the old one stays in use"
                ),
            }
        }
    }

    /// Returns whether the certificate was replaced. Unusable files are not read again until they
    /// change.
    fn renew(&mut self, insist: bool, now: OffsetDateTime) -> Result<bool, TlsError> {
        let fresh = match &mut self.source {
            Source::Files {
                certificate,
                key,
                seen,
                ending,
            } => {
                ending.warn(certificate, now);
                let found = stamp(certificate, key);
                if found == *seen && !insist {
                    return Ok(false);
                }
                *seen = found;
                let (fresh, of_fresh) = read(certificate, key)?;
                *ending = of_fresh;
                ending.warn(certificate, now);
                fresh
            }
            Source::Own {
                authority,
                names,
                renew_at,
            } => {
                if now < *renew_at && !insist {
                    return Ok(false);
                }
                let fresh = authority.issue(names, now)?;
                *renew_at = renewal(now);
                fresh
            }
        };
        *self
            .current
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(true)
    }
}

fn renewal(now: OffsetDateTime) -> OffsetDateTime {
    now + LIFETIME * 2 / 3
}

/// Distinguishes a file that this user may not read from one with wrong content.
fn refused(
    path: &Path,
    source: pem::Error,
    otherwise: impl FnOnce(PathBuf, pem::Error) -> TlsError,
) -> TlsError {
    match source {
        pem::Error::Io(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            TlsError::NotReadable(path.to_owned(), source)
        }
        source => otherwise(path.to_owned(), source),
    }
}

fn read(certificate: &Path, key: &Path) -> Result<(CertifiedKey, Ending), TlsError> {
    let unusable = |source| {
        refused(certificate, source, |path, source| TlsError::Certificate {
            path,
            source,
        })
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .map_err(unusable)?
        .collect::<Result<_, _>>()
        .map_err(unusable)?;
    let Some(leaf) = chain.first() else {
        return Err(TlsError::NoCertificate {
            path: certificate.to_owned(),
        });
    };
    if has_no_names(leaf) {
        tracing::warn!(certificate = %certificate.display(), "{NO_NAMES}");
    }
    let ending = Ending::of(leaf);
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| refused(key, source, |path, source| TlsError::Key { path, source }))?;
    let certified = CertifiedKey::from_der(chain, secret, &default_provider());
    certified
        .map(|certified| (certified, ending))
        .map_err(|source| TlsError::Mismatch {
            key: key.to_owned(),
            certificate: certificate.to_owned(),
            source,
        })
}

/// Checks whether the configured files can be used; returns warnings for their owner.
pub(crate) fn check(tls: &Tls) -> Result<Vec<String>, TlsError> {
    let Tls::Given { certificate, key } = tls else {
        return Ok(Vec::new());
    };
    let (current, mut ending) = read(certificate, key)?;
    let path = certificate.display();
    let no_names = current
        .cert
        .first()
        .is_some_and(has_no_names)
        .then(|| format!("{path}: {NO_NAMES}"));
    let day = ending.not_after.date();
    let end = ending
        .due(OffsetDateTime::now_utc())
        .map(|left| match left.is_zero() {
            true => format!("the certificate {path} expired on {day}: clients reject it; renew it"),
            false => format!(
                "the certificate {path} ends on {day}, in {} days: renew it",
                left.whole_days()
            ),
        });
    Ok(no_names.into_iter().chain(end).collect())
}

const NO_NAMES: &str = "the certificate has no subject alternative name: clients reject it; make one with the names that they use";

fn has_no_names(leaf: &CertificateDer<'_>) -> bool {
    let parsed = x509_cert::Certificate::from_der(leaf);
    parsed
        .is_ok_and(|parsed| !matches!(parsed.tbs_certificate.get::<SubjectAltName>(), Ok(Some(_))))
}

/// The end of a configured certificate, and the time of the next warning.
#[derive(Debug)]
struct Ending {
    not_after: OffsetDateTime,
    warn_at: OffsetDateTime,
}

impl Ending {
    fn of(leaf: &CertificateDer<'_>) -> Self {
        let parsed = x509_cert::Certificate::from_der(leaf).ok();
        let end = parsed.map(|parsed| parsed.tbs_certificate.validity.not_after.to_system_time());
        // An unreadable certificate is handled by its check.
        let not_after = end.map_or(
            OffsetDateTime::new_utc(time::Date::MAX, time::Time::MIDNIGHT),
            Into::into,
        );
        Ending {
            not_after,
            warn_at: not_after - WARN_BEFORE,
        }
    }

    /// Returns the remaining validity of the certificate, zero if it has expired: once a day near
    /// its end.
    fn due(&mut self, now: OffsetDateTime) -> Option<time::Duration> {
        if now < self.warn_at {
            return None;
        }
        self.warn_at = now + time::Duration::DAY;
        Some((self.not_after - now).max(time::Duration::ZERO))
    }

    fn warn(&mut self, certificate: &Path, now: OffsetDateTime) {
        let certificate = certificate.display();
        match self.due(now) {
            None => {}
            Some(left) if left.is_zero() => {
                tracing::error!(%certificate, "the certificate has expired: clients reject it; renew it");
            }
            Some(left) => {
                tracing::warn!(%certificate, days = left.whole_days(), "the certificate expires soon; renew it");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(folder: &Path) -> Keys {
        Keys::of(folder, &crate::store::Store::in_memory().unwrap())
    }

    fn shown(certificates: &Certificates) -> Vec<u8> {
        certificates.current.0.read().unwrap().cert[0].to_vec()
    }

    fn write(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (certificate, key) = (folder.join("c.pem"), folder.join("k.pem"));
        std::fs::write(&certificate, pem_of("CERTIFICATE", made.cert.der())).unwrap();
        std::fs::write(
            &key,
            pem_of("PRIVATE KEY", &made.signing_key.serialize_der()),
        )
        .unwrap();
        (certificate, key)
    }

    fn pem_of(label: &'static str, der: &[u8]) -> String {
        der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap()
    }

    #[test]
    fn a_file_that_may_not_be_read_is_not_said_to_be_wrong() {
        let told = |kind: io::ErrorKind| {
            let error = refused(
                Path::new("/ssl/deploy.key"),
                pem::Error::Io(kind.into()),
                |path, source| TlsError::Key { path, source },
            );
            error.to_string()
        };
        let text = told(io::ErrorKind::PermissionDenied);
        assert!(
            text.starts_with("/ssl/deploy.key cannot be read by this user"),
            "{text}"
        );
        assert!(told(io::ErrorKind::NotFound).contains("expected an unencrypted private key"));
    }

    #[test]
    fn changed_files_are_taken_up_and_broken_ones_leave_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = write(folder.path(), "one.example");
        let tls = Tls::Given {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let mut certificates = Certificates::open(&tls, &keys(folder.path()))
            .unwrap()
            .unwrap();
        let now = OffsetDateTime::now_utc();
        let first = shown(&certificates);
        assert!(!certificates.renew(false, now).unwrap());
        write(folder.path(), "two.example");
        assert!(certificates.renew(false, now).unwrap());
        let second = shown(&certificates);
        assert_ne!(first, second);
        std::fs::write(&key, "no key").unwrap();
        assert!(matches!(
            certificates.renew(false, now),
            Err(TlsError::Key { .. })
        ));
        assert!(!certificates.renew(false, now).unwrap());
        assert_eq!(shown(&certificates), second);
    }

    #[test]
    fn the_end_of_a_certificate_is_warned_about_daily_and_in_time() {
        let mut parameters = rcgen::CertificateParams::new(["one.example".to_owned()]).unwrap();
        let end = OffsetDateTime::from_unix_timestamp(2_000_000_000).unwrap();
        parameters.not_after = end;
        let made = parameters
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap();
        let mut ending = Ending::of(made.der());
        let mut due = |days: i64, hours: i64| {
            let left = ending.due(end - time::Duration::days(days) - time::Duration::hours(hours));
            left.map(time::Duration::whole_hours)
        };
        assert_eq!(due(90, 0), None);
        assert_eq!(due(14, 1), None);
        assert_eq!(due(14, 0), Some(14 * 24));
        assert_eq!(due(13, 1), None);
        assert_eq!(due(12, 12), Some(12 * 24 + 12));
        assert_eq!(due(-1, 0), Some(0));
        assert_eq!(due(-1, -23), None);
        assert_eq!(due(-2, 0), Some(0));
    }

    #[test]
    fn a_certificate_made_here_is_renewed_in_time_by_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::SelfSigned {
            names: vec!["box.example".into(), "::1".into()],
        };
        let mut certificates = Certificates::open(&tls, &keys(folder.path()))
            .unwrap()
            .unwrap();
        let authority = Authority::certificate_pem(folder.path()).unwrap();
        let first = shown(&certificates);
        let now = OffsetDateTime::now_utc();
        assert!(
            !certificates
                .renew(false, now + time::Duration::days(59))
                .unwrap()
        );
        assert!(
            certificates
                .renew(false, now + time::Duration::days(61))
                .unwrap()
        );
        assert_ne!(shown(&certificates), first);
        drop(Certificates::open(&tls, &keys(folder.path())).unwrap());
        assert_eq!(
            Authority::certificate_pem(folder.path()).unwrap(),
            authority
        );
    }

    #[test]
    fn files_that_cannot_be_served_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = write(folder.path(), "one.example");
        let other = folder.path().join("other");
        std::fs::create_dir(&other).unwrap();
        let (_, other_key) = write(&other, "two.example");
        let missing = folder.path().join("missing");
        let noise = folder.path().join("noise");
        std::fs::write(&noise, vec![0xff; 100_000]).unwrap();
        for (certificate, key, expected) in [
            (&missing, &key, "missing"),
            (&noise, &key, "noise has no certificate"),
            (&other, &key, "other cannot be used"),
            (&certificate, &noise, "noise cannot be used"),
            (&certificate, &missing, "missing cannot be used"),
            (&certificate, &other_key, "does not belong"),
        ] {
            let tls = Tls::Given {
                certificate: certificate.clone(),
                key: key.clone(),
            };
            let error = Certificates::open(&tls, &keys(folder.path()))
                .map(|_| ())
                .unwrap_err();
            assert!(error.to_string().contains(expected), "{}", chain(&error));
        }
    }
}
