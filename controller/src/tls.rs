//! The service's certificate: read from files, or made here and signed by the data directory's own
//! authority. It is replaced while the service runs; open connections keep theirs.

mod authority;
mod error;
mod files;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;
use crate::error::chain;
use crate::keys::Keys;
pub use authority::Authority;
use authority::renewal;
pub use error::TlsError;
pub(crate) use files::check;
use files::{Ending, Stamp, read, stamp};

/// The interval of checks of files for a change, and of a self-made certificate for its age.
const INTERVAL: Duration = Duration::from_secs(10);

/// The service's certificate at the time of a question.
#[derive(Debug, Clone)]
pub struct Present(Arc<Current>);

impl Present {
    /// The time at which the certificate expires.
    pub(crate) fn not_after(&self) -> Option<OffsetDateTime> {
        let current = self.0.0.read().unwrap_or_else(PoisonError::into_inner);
        current.cert.first().map(|leaf| Ending::of(leaf).not_after)
    }
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

    pub(crate) fn present(&self) -> Present {
        Present(Arc::clone(&self.current))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

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
