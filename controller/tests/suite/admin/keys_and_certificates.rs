//! Access: keys and hosts that the administrator makes and revokes, and the service's certificate.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::Arc;

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::error::ProvideErrorMetadata as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{Agent, Controller, QUICK, command, eventually, text};

fn stderr(output: &Output) -> String {
    assert!(!output.status.success(), "it was not refused");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The error's code; `None` if the call is accepted.
async fn refusal(client: &Client) -> Option<String> {
    let refused = client.list_applications().send().await.err()?;
    Some(
        refused
            .into_service_error()
            .code()
            .unwrap_or_default()
            .to_owned(),
    )
}

#[tokio::test]
async fn a_temporary_key_needs_its_token_and_ends() {
    let controller = Controller::start(QUICK);
    let create = |lifetime: &str| {
        let args = [
            "credentials",
            "create",
            "--role",
            "read-only",
            "--expires-in",
            lifetime,
            "--json",
        ];
        controller.admin_json(&args)
    };
    let key = create("1h");
    assert!(text(&key, "access_key_id").starts_with("ASIA"), "{key}");
    assert_eq!(refusal(&controller.client_with(&key)).await, None);
    let with_token = |token: Value| {
        let mut changed = key.clone();
        changed["session_token"] = token;
        controller.client_with(&changed)
    };
    let unrecognized = Some("UnrecognizedClientException".to_owned());
    assert_eq!(refusal(&with_token(Value::Null)).await, unrecognized);
    assert_eq!(refusal(&with_token(json!("guessed"))).await, unrecognized);

    let mut permanent =
        controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    assert_eq!(permanent["session_token"], Value::Null);
    permanent["session_token"] = json!("of somebody else");
    assert_eq!(
        refusal(&controller.client_with(&permanent)).await,
        unrecognized
    );

    let brief = controller.client_with(&create("1s"));
    let expired = eventually("the end of the key", async || refusal(&brief).await).await;
    assert_eq!(expired, "ExpiredTokenException");
    let listed =
        String::from_utf8(controller.admin(&["credentials", "list", "--all"]).stdout).unwrap();
    assert_eq!(
        listed
            .lines()
            .filter(|line| line.contains("expired"))
            .count(),
        1,
        "{listed}"
    );
    assert!(!listed.contains(&text(&key, "session_token")));
}

#[tokio::test]
async fn a_host_is_added_with_its_files_and_removed_with_its_keys() {
    let controller = Controller::start("timers: {poll: 0.05}");
    let folder = controller.folder.path().join("box1");
    let output = folder.to_str().unwrap();
    let added = controller.admin(&[
        "host", "add", "box1", "--tag", "env=prod", "--output", output,
    ]);
    assert!(
        added.status.success(),
        "{}",
        String::from_utf8_lossy(&added.stderr)
    );
    let shown = String::from_utf8(added.stdout).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            folder.join("codedeploy.onpremises.yml"),
            folder.join("codedeployagent.yml")
        ]
    );
    for path in &names {
        assert!(shown.contains(path.to_str().unwrap()), "{shown}");
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
    }
    // AWS's Ruby agent, too, starts with only these files.
    let file = std::fs::read_to_string(&names[1]).unwrap();
    for line in [
        ":log_dir: \"/var/log/aws/codedeploy-agent\"",
        ":pid_dir: \"/opt/codedeploy-agent/state/.pid\"",
        ":root_dir: \"/opt/codedeploy-agent/deployment-root\"",
    ] {
        assert!(
            file.lines().any(|found| found == line),
            "{line} is missing in\n{file}"
        );
    }
    let file = std::fs::read_to_string(&names[0]).unwrap();
    let value = |key: &str| {
        file.lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .to_owned()
    };
    let secret = value("aws_secret_access_key: ");
    assert!(!shown.contains(&secret));
    let agent = Agent {
        address: controller.address,
        identifier: value("iam_user_arn: "),
        access_key_id: value("aws_access_key_id: "),
        secret,
    };
    let poll = || {
        agent.call(
            "PollHostCommand",
            json!({"HostIdentifier": agent.identifier}),
        )
    };
    assert_eq!(poll().await, (200, json!({})));

    // If the files cannot be written, the host is not registered.
    let refused = stderr(&controller.admin(&["host", "add", "box2", "--output", output]));
    assert!(
        refused.contains("codedeployagent.yml exists already"),
        "{refused}"
    );
    let other = controller.folder.path().join("box2");
    let other = other.to_str().unwrap();
    let added = controller.admin(&[
        "host",
        "add",
        "box2",
        "--output",
        other,
        "--conf-dir",
        "/srv/conf",
    ]);
    assert!(
        added.status.success(),
        "{}",
        String::from_utf8_lossy(&added.stderr)
    );
    let file = std::fs::read_to_string(format!("{other}/codedeployagent.yml")).unwrap();
    assert!(
        file.contains(":on_premises_config_file: \"/srv/conf/codedeploy.onpremises.yml\"\n"),
        "{file}"
    );

    assert!(
        controller
            .admin(&["host", "remove", "box1"])
            .status
            .success()
    );
    let (status, answer) = poll().await;
    assert_eq!(
        (status, &answer["__type"]),
        (400, &json!("UnrecognizedClientException"))
    );
    assert!(
        stderr(&controller.admin(&["host", "remove", "box1"])).contains("no on-premises instance")
    );
}

/// The response to `GET /` for a client that trusts only `authority`, and the presented
/// certificate.
async fn get(
    controller: &Controller,
    authority: &str,
    name: &str,
) -> Result<(String, Vec<u8>), String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(controller.address)
        .await
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .await
        .map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    Ok((String::from_utf8(answer).unwrap(), certificate))
}

#[tokio::test]
async fn the_self_made_certificate_is_for_its_names_and_renewed_on_hangup() {
    let settings = "tls: {self_signed: true, names: [deploy.example.com]}\ntimers: {poll: 0.05}";
    let mut controller = Controller::start(settings);
    let authority = String::from_utf8(controller.admin(&["certificate"]).stdout).unwrap();
    let (answer, first) = get(&controller, &authority, "deploy.example.com")
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(get(&controller, &authority, "127.0.0.1").await.is_ok());
    assert!(
        get(&controller, &authority, "other.example.com")
            .await
            .unwrap_err()
            .contains("not valid for name")
    );
    // Over plain http, the only response is an error.
    let mut plain = tokio::net::TcpStream::connect(controller.address)
        .await
        .unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 400"),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    controller.signal("HUP");
    eventually("another certificate", async || {
        let (_, shown) = get(&controller, &authority, "localhost").await.unwrap();
        (shown != first).then_some(())
    })
    .await;
    controller.crash_and_restart();
    assert_eq!(
        String::from_utf8(controller.admin(&["certificate"]).stdout).unwrap(),
        authority
    );
    assert!(get(&controller, &authority, "localhost").await.is_ok());

    // Hosts get the authority, and a URL whose name is in the certificate.
    let host = controller.admin_json(&["host", "add", "box1", "--json"]);
    assert_eq!(text(&host, "codedeploy-controller.pem"), authority);
    let file = text(&host, "codedeployagent.yml");
    assert!(
        file.contains(&format!(
            ":deploy_control_endpoint: \"https://{}\"\n",
            controller.address
        )),
        "{file}"
    );
    let bundle = ":ssl_ca_bundle: \"/etc/codedeploy-agent/conf/codedeploy-controller.pem\"\n";
    assert!(file.contains(bundle), "{file}");
    let refused =
        stderr(&controller.admin(&["host", "add", "box2", "--endpoint", "https://other"]));
    assert!(
        refused.contains("deploy.example.com") && refused.contains("tls.names"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_given_certificate_is_replaced_when_its_files_change() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let make = || {
        let mut openssl = command("openssl");
        openssl.args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -subj /CN=x"
                .split(' '),
        );
        openssl.args([
            "-addext",
            "subjectAltName=DNS:deploy.example.com",
            "-addext",
            "basicConstraints=CA:FALSE",
        ]);
        openssl
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate);
        let made = openssl.output().unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        std::fs::read_to_string(&certificate).unwrap()
    };
    let first = make();
    let settings = format!(
        "tls: {{certificate: {}, key: {}}}",
        certificate.display(),
        key.display()
    );
    let controller = Controller::start(&settings);
    assert!(get(&controller, &first, "deploy.example.com").await.is_ok());
    assert!(stderr(&controller.admin(&["certificate"])).contains("there is no authority"));
    let second = make();
    controller.signal("HUP");
    eventually("the new certificate", async || {
        get(&controller, &second, "deploy.example.com").await.ok()
    })
    .await;
    // A file that is no certificate leaves the previous one in use.
    std::fs::write(&certificate, "nothing").unwrap();
    controller.signal("HUP");
    assert!(
        get(&controller, &second, "deploy.example.com")
            .await
            .is_ok()
    );
    let file = text(
        &controller.admin_json(&["host", "add", "box1", "--json"]),
        "codedeployagent.yml",
    );
    assert!(
        file.contains("https://") && !file.contains("ssl_ca_bundle"),
        "{file}"
    );
}
