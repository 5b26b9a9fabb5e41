//! The reasons why there is no certificate to serve.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;

use crate::keys::KeyError;

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
