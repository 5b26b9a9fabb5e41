//! The identity of an agent and its connection to the service: EC2 instances with rotating keys,
//! private authorities, proxies.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codedeploy_tests::bundle;
use codedeploy_tests::cloud::{Cloud, KeyRing};
use codedeploy_tests::metadata::{Fault, HOST_IDENTIFIER, MetadataServer};
use codedeploy_tests::programs::{Programs, Running};
use codedeploy_tests::proxy::Proxy;
use codedeploy_tests::wait;

const EVENTS: [&str; 6] = [
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
];

const STEADY: KeyRing = KeyRing {
    rotation: Duration::from_secs(86_400),
    overlap: Duration::from_secs(3600),
};
const RESTLESS: KeyRing = KeyRing {
    rotation: Duration::from_secs(1),
    overlap: Duration::from_secs(2),
};

/// An EC2 instance: a folder, and the address of its metadata.
struct Instance {
    folder: tempfile::TempDir,
    metadata: String,
}

impl Instance {
    fn new(metadata: &MetadataServer) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            metadata: metadata.endpoint.clone(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configuration(&self, lines: &str) -> PathBuf {
        let file = self.path("codedeployagent.yml");
        let mut text = format!(
            "root_dir: {folder}/root\nlog_dir: {folder}/log\npid_dir: {folder}/run\nwait_between_runs: 0.1\n\
             wait_after_error: 0\n{lines}",
            folder = self.folder.path().display()
        );
        if !lines.contains("on_premises_config_file") {
            text += &format!(
                "on_premises_config_file: {}\n",
                self.path("none.yml").display()
            );
        }
        fs::write(&file, text).unwrap();
        file
    }

    fn start(&self, lines: &str, variables: &[(&str, &str)]) -> Running {
        let configuration = self.configuration(lines);
        let arguments = |command: &mut tokio::process::Command| {
            command
                .args(["run", "--config-file"])
                .arg(configuration)
                .env_clear();
            command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &self.metadata);
            // A stray variable must change neither the agent's identity nor its connection.
            command
                .env("AWS_ACCESS_KEY_ID", "AKIASTRAY")
                .env("AWS_SECRET_ACCESS_KEY", "stray");
            command
                .env("HTTP_PROXY", "http://127.0.0.1:9")
                .env("HTTPS_PROXY", "http://127.0.0.1:9");
            command
                .env("PATH", "/usr/bin:/bin")
                .envs(variables.iter().copied());
        };
        Programs::built()
            .agent
            .start(arguments, &self.path("agent.out"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log/codedeploy-agent.log")).unwrap_or_default()
    }

    /// A revision whose script waits until `go` exists.
    fn bundle(&self, go: &Path) -> Vec<u8> {
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\nhooks:\n  BeforeInstall:\n    - location: wait.sh\n",
            self.path("app").display()
        );
        let script = format!(
            "#!/bin/sh\nuntil test -e {}; do sleep 0.05; done\necho printed-by-script\n",
            go.display()
        );
        bundle::write(
            &self.path("revision"),
            &[
                ("appspec.yml", &appspec),
                ("wait.sh", &script),
                ("page", "one\n"),
            ],
        );
        bundle::zip(&self.path("revision"))
    }
}

fn endpoints(scheme: &str, host: &str) -> String {
    format!("deploy_control_endpoint: {scheme}://{host}\ns3_endpoint_override: {scheme}://{host}\n")
}

fn succeeded() -> Vec<String> {
    EVENTS.map(|event| format!("{event} Succeeded")).to_vec()
}

async fn completes(cloud: &Cloud, instance: &Instance) {
    wait::until("every command is completed", async || {
        let completed = cloud.completed();
        if completed.len() == EVENTS.len() {
            Ok(())
        } else {
            Err((completed, cloud.refusals(), instance.log()))
        }
    })
    .await;
    assert_eq!(cloud.completed(), succeeded());
}

#[tokio::test]
async fn keys_of_an_instance_rotate_under_a_deployment_without_a_refused_request() {
    let metadata = MetadataServer::start(RESTLESS).await;
    let instance = Instance::new(&metadata);
    let cloud = Cloud::start(&instance.path("cloud"), RESTLESS, None).await;
    let go = instance.path("go");
    cloud.deploy(HOST_IDENTIFIER, instance.bundle(&go), &EVENTS);
    let agent = instance.start(&endpoints("http", &cloud.address.to_string()), &[]);
    wait::until("four generations of keys are used", async || {
        let seen = cloud.keys_seen();
        if seen >= 4 {
            Ok(())
        } else {
            Err((seen, cloud.refusals(), instance.log()))
        }
    })
    .await;
    metadata.forget_tokens();
    let before = cloud.keys_seen();
    wait::until("keys are fetched with a new session token", async || {
        if cloud.keys_seen() > before {
            Ok(())
        } else {
            Err(instance.log())
        }
    })
    .await;
    fs::write(&go, "").unwrap();
    completes(&cloud, &instance).await;
    assert_eq!(cloud.refusals(), Vec::<String>::new());
    assert_eq!(
        metadata.tokens(),
        2,
        "a session token is used until it is refused"
    );
    assert_eq!(
        fs::read_to_string(instance.path("app/page")).unwrap(),
        "one\n"
    );
    let log = instance.log();
    assert!(
        log.contains("instance profile") && log.contains(HOST_IDENTIFIER),
        "{log}"
    );
    for secret in ["secret-", "session-", "AKIASTRAY"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(agent.stop().await.success());
}

#[tokio::test]
async fn metadata_that_is_late_or_stumbles_is_waited_for() {
    let metadata = MetadataServer::start(STEADY).await;
    let instance = Instance::new(&metadata);
    let cloud = Cloud::start(&instance.path("cloud"), STEADY, None).await;
    metadata.fail(Fault::Status(500), 5);
    let agent = instance.start(&endpoints("http", &cloud.address.to_string()), &[]);
    wait::until("the agent polls", async || {
        if cloud.polls() > 0 {
            Ok(())
        } else {
            Err(instance.log())
        }
    })
    .await;
    assert!(
        instance.log().contains("waiting for EC2 instance metadata"),
        "{}",
        instance.log()
    );
    assert!(agent.stop().await.success());

    metadata.fail(Fault::Silence, 1);
    let polls = cloud.polls();
    let agent = instance.start(&endpoints("http", &cloud.address.to_string()), &[]);
    wait::until("the agent polls", async || {
        if cloud.polls() > polls {
            Ok(())
        } else {
            Err(instance.log())
        }
    })
    .await;
    assert!(agent.stop().await.success());
}

#[tokio::test]
async fn a_machine_that_nobody_knows_is_told_what_to_do() {
    let metadata = MetadataServer::start(STEADY).await;
    let instance = Instance::new(&metadata);
    metadata.fail(Fault::Status(403), usize::MAX);
    let mut agent = instance.start("", &[]);
    let status = wait::until("the agent gives up", async || agent.ended().ok_or(())).await;
    assert_eq!(status.code(), Some(1));
    let said = agent.output();
    for part in ["none.yml", "register this host", "HTTP 403", "HttpEndpoint"] {
        assert!(said.contains(part), "{part} not in {said}");
    }
}

#[tokio::test]
async fn an_instance_without_a_role_says_so_and_works_when_it_has_keys() {
    let metadata = MetadataServer::start(STEADY).await;
    metadata.detach_role();
    let instance = Instance::new(&metadata);
    let cloud = Cloud::start(&instance.path("cloud"), STEADY, None).await;
    let agent = instance.start(&endpoints("http", &cloud.address.to_string()), &[]);
    wait::until("the log says what is missing", async || {
        let log = instance.log();
        if log.contains("attach an instance profile") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert!(agent.stop().await.success());

    let keys = STEADY.current();
    let variables = [
        ("AWS_ACCESS_KEY_ID", keys.access_key_id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key),
        ("AWS_SESSION_TOKEN", &keys.session_token),
    ];
    let lines = format!(
        "{}codedeploy_test_profile: beta\n",
        endpoints("http", &cloud.address.to_string())
    );
    let agent = instance.start(&lines, &variables);
    wait::until("the agent polls", async || {
        if cloud.polls() > 0 {
            Ok(())
        } else {
            Err(instance.log())
        }
    })
    .await;
    assert!(agent.stop().await.success());
}

#[tokio::test]
async fn a_file_of_temporary_keys_is_followed_through_its_replacement() {
    let metadata = MetadataServer::start(RESTLESS).await;
    let instance = Instance::new(&metadata);
    let cloud = Cloud::start(&instance.path("cloud"), RESTLESS, None).await;
    let file = instance.path("credentials");
    let write = || {
        let keys = RESTLESS.current();
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
            keys.access_key_id, keys.secret_access_key, keys.session_token
        );
        fs::write(instance.path("new"), text).unwrap();
        fs::rename(instance.path("new"), &file).unwrap();
    };
    let identity = format!(
        "iam_session_arn: arn:aws:sts::123456789012:assumed-role/r/box\nregion: us-east-1\naws_credentials_file: {}\n",
        file.display()
    );
    fs::write(instance.path("onpremises.yml"), identity).unwrap();
    write();
    let lines = format!(
        "{}:on_premises_config_file: {}\n",
        endpoints("http", &cloud.address.to_string()),
        instance.path("onpremises.yml").display()
    );
    let agent = instance.start(&lines, &[]);
    wait::until("four generations of keys are used", async || {
        write();
        let seen = cloud.keys_seen();
        if seen >= 4 {
            Ok(())
        } else {
            Err((seen, cloud.refusals(), instance.log()))
        }
    })
    .await;
    assert_eq!(cloud.refusals(), Vec::<String>::new());
    assert_eq!(
        metadata.requests(),
        Vec::<String>::new(),
        "an on-premises host asks no metadata service"
    );

    wait::until(
        "old keys are refused while nobody replaces them",
        async || {
            if cloud.refusals().is_empty() {
                Err(cloud.keys_seen())
            } else {
                Ok(())
            }
        },
    )
    .await;
    write();
    let polls = cloud.polls();
    wait::until("the agent goes on with new ones", async || {
        write();
        if cloud.polls() > polls {
            Ok(())
        } else {
            Err(instance.log())
        }
    })
    .await;
    assert!(agent.stop().await.success());
}

/// The certificate of a new authority, and a server's configuration with a certificate by it.
fn authority(name: &str) -> (String, Arc<rustls::ServerConfig>) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (authority, Arc::new(server))
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_key_or_variable_for_commands_and_bundles_alike() {
    let metadata = MetadataServer::start(STEADY).await;
    let instance = Instance::new(&metadata);
    let (certificate, tls) = authority("localhost");
    let cloud = Cloud::start(&instance.path("cloud"), STEADY, Some(tls)).await;
    let lines = endpoints("https", &format!("localhost:{}", cloud.address.port()));

    let agent = instance.start(&lines, &[]);
    wait::until("a stranger's certificate is refused", async || {
        let log = instance.log();
        if log.contains("UnknownIssuer") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert_eq!(cloud.polls(), 0);
    assert!(agent.stop().await.success());

    let pem = instance.path("authorities/ca.pem");
    bundle::write(
        &instance.path("authorities"),
        &[("ca.pem", &certificate), ("README", "no certificate")],
    );
    let folder = instance.path("authorities");
    let (file, folder) = (pem.to_str().unwrap(), folder.to_str().unwrap());
    let key = format!("{lines}ssl_ca_bundle: {file}\n");
    let ways: [(&str, &[(&str, &str)]); 5] = [
        (&key, &[]),
        (&lines, &[("AWS_SSL_CA_DIRECTORY", folder)]),
        (&lines, &[("AWS_SSL_CA_BUNDLE", file)]),
        (&lines, &[("AWS_CA_BUNDLE", file)]),
        (&lines, &[("SSL_CERT_FILE", file)]),
    ];
    for (lines, variables) in ways {
        let polls = cloud.polls();
        let agent = instance.start(lines, variables);
        wait::until("the agent polls", async || {
            if cloud.polls() > polls {
                Ok(())
            } else {
                Err(instance.log())
            }
        })
        .await;
        assert!(agent.stop().await.success());
    }

    let go = instance.path("go");
    fs::write(&go, "").unwrap();
    cloud.deploy(HOST_IDENTIFIER, instance.bundle(&go), &EVENTS);
    let agent = instance.start(&key, &[]);
    completes(&cloud, &instance).await;
    assert_eq!(cloud.downloads(), 1);
    assert!(agent.stop().await.success());
}

#[tokio::test]
async fn a_proxy_with_a_password_is_used_for_everything_but_metadata() {
    let metadata = MetadataServer::start(STEADY).await;
    for scheme in ["http", "https"] {
        let instance = Instance::new(&metadata);
        let (certificate, tls) = authority("cloud.invalid");
        let cloud = Cloud::start(
            &instance.path("cloud"),
            STEADY,
            (scheme == "https").then_some(tls),
        )
        .await;
        let proxy = Proxy::start("me", "p@ss", cloud.address).await;
        fs::write(instance.path("ca.pem"), certificate).unwrap();
        let go = instance.path("go");
        fs::write(&go, "").unwrap();
        cloud.deploy(HOST_IDENTIFIER, instance.bundle(&go), &EVENTS);
        let lines = format!(
            "{}verbose: true\nlog_aws_wire: true\nproxy_uri: http://me:p%40ss@{}\nssl_ca_bundle: {}\n",
            endpoints(scheme, "cloud.invalid"),
            proxy.address,
            instance.path("ca.pem").display()
        );
        let agent = instance.start(&lines, &[]);
        completes(&cloud, &instance).await;
        assert_eq!(cloud.downloads(), 1);
        let form = if scheme == "https" {
            "CONNECT cloud.invalid:443 "
        } else {
            " http://cloud.invalid/"
        };
        assert!(
            proxy.lines().iter().all(|line| line.contains(form)),
            "{:?}",
            proxy.lines()
        );
        assert!(agent.stop().await.success());
        let log = instance.log();
        assert!(
            !log.contains("p%40ss") && !log.contains("p@ss") && !log.contains("bWU6cEBzcw"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn the_wire_is_logged_without_secrets_bundles_and_the_output_of_scripts() {
    let metadata = MetadataServer::start(STEADY).await;
    let instance = Instance::new(&metadata);
    let cloud = Cloud::start(&instance.path("cloud"), STEADY, None).await;
    let go = instance.path("go");
    fs::write(&go, "").unwrap();
    cloud.deploy(HOST_IDENTIFIER, instance.bundle(&go), &EVENTS);
    let lines = format!(
        "{}log_aws_wire: true\nverbose: true\n",
        endpoints("http", &cloud.address.to_string())
    );
    let agent = instance.start(&lines, &[]);
    completes(&cloud, &instance).await;
    assert!(agent.stop().await.success());
    let log = instance.log();
    for part in [
        "PutHostCommandComplete",
        "/revisions/app.zip",
        "authorization: (hidden)",
        "command-Install",
    ] {
        assert!(log.contains(part), "{part} not in {log}");
    }
    let keys = STEADY.current();
    let secrets = [
        &keys.secret_access_key,
        &keys.session_token,
        "Signature=",
        "github-token-of-nobody",
        "printed-by-script",
    ];
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn files_that_are_none_end_the_start_with_their_name() {
    let metadata = MetadataServer::start(STEADY).await;
    let instance = Instance::new(&metadata);
    let good = instance.path("good.yml");
    fs::write(
        &good,
        "region: us-east-1\niam_user_arn: arn:aws:iam::123456789012:user/box1\naws_access_key_id: AKID\n\
         aws_secret_access_key: secret\n",
    )
    .unwrap();
    type Make = fn(&Path);
    let places: [(&str, Make); 7] = [
        ("fifo", |path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()
        }),
        ("folder", |path| fs::create_dir(path).unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("cut", |path| {
            fs::write(path, "iam_user_arn: arn:aws:iam::123456789012:us").unwrap()
        }),
        ("noise", |path| {
            fs::write(path, vec![b'{'; 10 << 20]).unwrap()
        }),
        ("binary", |path| fs::write(path, [0xff, 0xfe, 0]).unwrap()),
        ("dangling", |path| {
            std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap()
        }),
    ];
    for (name, make) in places {
        let path = instance.path(name);
        make(&path);
        for key in [
            "on_premises_config_file",
            "deployment_signer_ca",
            "ssl_ca_bundle",
        ] {
            let mut lines = format!("{key}: {}\n", path.display());
            if key != "on_premises_config_file" {
                lines += &format!("on_premises_config_file: {}\n", good.display());
            }
            let mut agent = instance.start(&lines, &[]);
            let what = format!("{key}: {name}: the agent gives up");
            let status = wait::until(&what, async || agent.ended().ok_or(name)).await;
            assert_eq!(status.code(), Some(1), "{key}: {name}");
            assert!(
                agent.output().contains(path.to_str().unwrap()),
                "{key}: {}",
                agent.output()
            );
        }
        if ["empty", "cut"].contains(&name) {
            // In the agent's configuration, these are no mistakes, or are reported elsewhere.
            continue;
        }
        let shown = Programs::built()
            .agent
            .output(["config", "--config-file", path.to_str().unwrap()])
            .await;
        assert_eq!(shown.status.code(), Some(1), "{name}");
        assert!(String::from_utf8_lossy(&shown.stderr).contains(path.to_str().unwrap()));
    }
    assert_eq!(
        metadata.requests(),
        Vec::<String>::new(),
        "a file that is there but broken is no reason to ask EC2"
    );
}
