//! The trusted certificates: the system's store, and the files and folders that an operator names.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use aws_smithy_http_client::tls::TrustStore;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::AccessError;
use crate::bounded_read;

/// The places of the system's store in the distributions; the first existing one is used.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
];
/// More bytes than any store has.
const LIMIT: u64 = 16 << 20;

/// Builds the store from the system's certificates and those of `named`, files or folders. A file
/// without any is an error, except in a folder.
pub(super) fn store(named: &[PathBuf]) -> Result<TrustStore, AccessError> {
    // A named file is often the system's.
    let mut trusted = HashSet::new();
    match SYSTEM.map(Path::new).into_iter().find(|path| path.exists()) {
        Some(path) => match certificates(path) {
            Ok(certificates) => trusted.extend(certificates),
            Err(error) => tracing::warn!(%error, "the system's certificates cannot be read"),
        },
        None => tracing::warn!("this host has no system certificates; install ca-certificates"),
    }
    for path in named {
        trusted.extend(of(path)?);
    }
    let mut store = TrustStore::empty();
    store.add_pem_certificate(pem(&trusted));
    Ok(store)
}

/// Returns the certificates in `path`, or in the files of the folder `path`.
fn of(path: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    if !path.is_dir() {
        return certificates(path);
    }
    let unreadable = |source| AccessError::Trust {
        path: path.into(),
        source,
    };
    let entries = std::fs::read_dir(path).map_err(unreadable)?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.retain(|file| file.is_file());
    files.sort();
    let mut found = Vec::new();
    for file in files {
        match certificates(&file) {
            Ok(certificates) => found.extend(certificates),
            Err(AccessError::Certificate { .. }) => {
                tracing::debug!(file = %file.display(), "no certificate")
            }
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() {
        let what = "no file in it has a certificate".to_owned();
        return Err(AccessError::Certificate {
            path: path.into(),
            what,
        });
    }
    Ok(found)
}

/// Returns the certificates in a file that TLS can use; others are skipped if at least one is
/// usable.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let bytes = bounded_read::read_up_to(path, LIMIT);
    let bytes = bytes.map_err(|source| AccessError::Trust {
        path: path.into(),
        source,
    })?;
    let unusable = |what: String| AccessError::Certificate {
        path: path.into(),
        what,
    };
    let (mut usable, mut problem) = (Vec::new(), "it has no certificate".to_owned());
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        match RootCertStore::empty().add(certificate.clone()) {
            Ok(()) => usable.push(certificate),
            Err(error) => problem = error.to_string(),
        }
    }
    if usable.is_empty() {
        Err(unusable(problem))
    } else {
        Ok(usable)
    }
}

/// Writes certificates into one text of exactly its size, which stays in memory.
fn pem(certificates: &HashSet<CertificateDer<'_>>) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
    const END: &str = "\n-----END CERTIFICATE-----\n";
    let length = |der: &CertificateDer<'_>| BEGIN.len() + der.len().div_ceil(3) * 4 + END.len();
    let mut text = String::with_capacity(certificates.iter().map(length).sum());
    for certificate in certificates {
        text.push_str(BEGIN);
        STANDARD.encode_string(certificate, &mut text);
        text.push_str(END);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, bytes) in [
            ("empty", &b""[..]),
            ("noise", &[0xff; 1000]),
            ("broken", broken.as_bytes()),
        ] {
            std::fs::write(at(name), bytes).unwrap();
            let error = store(&[at(name)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("PEM"), "{error}");
        }
        let error = store(&[folder.path().into()]).unwrap_err().to_string();
        assert!(error.contains("no file in it has a certificate"), "{error}");
        assert!(matches!(
            store(&[at("none")]),
            Err(AccessError::Trust { .. })
        ));
    }
}
