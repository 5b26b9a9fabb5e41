//! A certificate in files: read, checked, and watched for its end.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use der::Decode as _;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_cert::ext::pkix::SubjectAltName;

use super::error::TlsError;
use crate::config::Tls;

/// The time before the end of a configured certificate from which warnings begin.
const WARN_BEFORE: time::Duration = time::Duration::days(14);

/// Distinguishes contents of two files.
pub(super) type Stamp = [Option<(u64, u64, i64, i64)>; 2];

pub(super) fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let of = |file: Metadata| (file.ino(), file.len(), file.mtime(), file.mtime_nsec());
    [certificate, key].map(|path| std::fs::metadata(path).ok().map(of))
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

/// Reads a certificate with its issuers, and its key.
pub(super) fn read(certificate: &Path, key: &Path) -> Result<(CertifiedKey, Ending), TlsError> {
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
pub(super) struct Ending {
    pub(super) not_after: OffsetDateTime,
    warn_at: OffsetDateTime,
}

impl Ending {
    pub(super) fn of(leaf: &CertificateDer<'_>) -> Self {
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

    /// Logs that the certificate ends soon, or has ended.
    pub(super) fn warn(&mut self, certificate: &Path, now: OffsetDateTime) {
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
}
