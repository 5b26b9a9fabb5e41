//! The specification that a host reads, checked by an independent program.

use serde_json::Value;

use super::{Controller, command};

/// The content, if `openssl` verifies its signature against the certificate and the pin that the
/// service shows.
pub(crate) fn verified(controller: &Controller, payload: &str, shown: &str) -> Value {
    let folder = controller.folder.path();
    std::fs::write(folder.join("spec.pem"), payload).unwrap();
    let (certificate, pin) = shown.split_once("deployment_signer_pin: ").unwrap();
    std::fs::write(folder.join("cert.pem"), certificate).unwrap();
    let openssl = |script: &str| {
        let output = command("sh")
            .args(["-euc", script])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    let hash = openssl(
        "openssl x509 -in cert.pem -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r",
    );
    assert_eq!(
        String::from_utf8(hash).unwrap().split(' ').next(),
        Some(pin.trim())
    );
    let content = openssl(
        "openssl smime -verify -inform PEM -in spec.pem -CAfile cert.pem -purpose any -binary",
    );
    serde_json::from_slice(&content).unwrap()
}
