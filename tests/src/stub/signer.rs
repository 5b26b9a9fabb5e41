//! Signs specifications with the `openssl` program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A key, and a certificate of it.
#[derive(Debug)]
pub(super) struct Signer {
    folder: PathBuf,
    signed: AtomicUsize,
}

impl Signer {
    pub(super) fn create(folder: &Path) -> Self {
        let signer = Self {
            folder: folder.to_owned(),
            signed: AtomicUsize::new(0),
        };
        signer.openssl(&[
            "req",
            "-x509",
            "-nodes",
            "-subj",
            "/CN=deployments",
            "-days",
            "2",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ]);
        signer
    }

    /// Wraps the text into a PKCS#7 document, in PEM.
    pub(super) fn sign(&self, text: &str) -> String {
        let name = format!("{}.json", self.signed.fetch_add(1, Ordering::Relaxed));
        std::fs::write(self.folder.join(&name), text).expect("the folder can be written");
        self.openssl(&[
            "smime",
            "-sign",
            "-binary",
            "-nodetach",
            "-md",
            "sha256",
            "-outform",
            "PEM",
            "-in",
            &name,
            "-signer",
            "cert.pem",
            "-inkey",
            "key.pem",
        ])
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        assert!(
            output.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("PEM is text")
    }
}
