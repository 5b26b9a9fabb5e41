//! The certificates that the service trusts in its own requests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_codedeploy::types::{Alarm, AlarmConfiguration, DeploymentInfo, DeploymentStatus};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Controller, command, pem, shop};

/// A source of inactive alarms, behind a certificate that no system trusts. Returns the certificate
/// as PEM.
async fn quiet_alarms() -> (SocketAddr, String) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(socket).await?;
                // A request has a head and no body.
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await?);
                }
                let body = r#"{"state": "OK"}"#;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + body).as_bytes()).await?;
                stream.shutdown().await
            });
        }
    });
    (address, pem("CERTIFICATE", &certificate))
}

/// The result of a deployment of a group with an alarm from that source.
async fn deployed(alarms: SocketAddr, bundle: Option<&Path>) -> DeploymentInfo {
    let trust = bundle
        .map(|path| format!("ca_bundle: {}\n", path.display()))
        .unwrap_or_default();
    let config = format!("{trust}alarms: {{hot: {{webhook: {{url: 'https://{alarms}/hot'}}}}}}\n");
    let (_controller, client, agent) = shop::one_host(&config).await;
    let group = client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web");
    let alarm = AlarmConfiguration::builder()
        .enabled(true)
        .alarms(Alarm::builder().name("hot").build());
    group
        .alarm_configuration(alarm.build())
        .send()
        .await
        .unwrap();
    let id = shop::deploy(&client, "app.zip").await;
    tokio::select! {
        info = shop::ended(&client, &id) => info,
        _ = agent.run_to("ValidateService") => shop::ended(&client, &id).await,
    }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_when_the_service_is_told_so() {
    let (address, certificate) = quiet_alarms().await;
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("internal.pem");
    // Other certificates in the file do no harm.
    let other = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    std::fs::write(
        &bundle,
        pem("CERTIFICATE", other.cert.der()) + "# ours\n" + &certificate,
    )
    .unwrap();
    assert_eq!(
        deployed(address, Some(&bundle)).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );

    let stopped = deployed(address, None).await;
    assert_eq!(stopped.status(), Some(&DeploymentStatus::Stopped));
    let message = stopped
        .error_information()
        .unwrap()
        .message()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("is not trusted") && message.contains("ca_bundle"),
        "{message}"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("internal.pem");
    let config = folder.path().join("controller.yml");
    std::fs::write(&config, format!("ca_bundle: {}\n", bundle.display())).unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let good = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let second = pem("CERTIFICATE", good.cert.der()) + broken;
    for (content, expected) in [
        (None, "No such file"),
        (Some(""), "has no certificate in it"),
        (Some("-----BEGIN CERTIFICATE-----\n"), "is not valid"),
        (Some(&second), "certificate number 2"),
    ] {
        if let Some(content) = content {
            std::fs::write(&bundle, content).unwrap();
        }
        let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
        program
            .args(["serve", "--listen", "127.0.0.1:0", "--config-file"])
            .arg(&config);
        let output = program
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains(expected) && text.contains(bundle.to_str().unwrap()),
            "{text}"
        );
    }
    std::fs::write(&bundle, pem("CERTIFICATE", good.cert.der())).unwrap();
    drop(Controller::start(
        &std::fs::read_to_string(&config).unwrap(),
    ));
}
