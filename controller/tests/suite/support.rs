//! The real program as a process, a client of the public API, and a scripted agent.

pub(crate) mod browser;
pub(crate) mod fleet;
pub(crate) mod issuer;
pub(crate) mod provider;
pub(crate) mod revision;
pub(crate) mod shop;
pub(crate) mod signed;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::config::retry::RetryConfig;
use aws_sdk_codedeploy::config::{BehaviorVersion, Region};
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use base64::Engine as _;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Timeouts short enough for tests, and long enough for a slow machine.
pub(crate) const QUICK: &str =
    "timers: {poll: 5, lease: 60, pick_up: 300, run: 4200, deployment: 28800}";

const ANY_PORT: &str = "127.0.0.1:0";

/// A file in a controller's folder with its whole log.
const LOG: &str = "log";

#[allow(
    clippy::disallowed_methods,
    reason = "tests run the program and its oracles as processes"
)]
pub(crate) fn command(program: &str) -> Command {
    Command::new(program)
}

/// DER as PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{encoded}\n-----END {label}-----\n")
}

/// A controller process with its own data directory.
pub(crate) struct Controller {
    pub(crate) folder: tempfile::TempDir,
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Controller {
    pub(crate) fn start(config: &str) -> Controller {
        Self::start_on(config, |_| ())
    }

    /// Starts it on a prepared data directory.
    pub(crate) fn start_on(config: &str, prepare: impl FnOnce(&std::path::Path)) -> Controller {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        prepare(&data);
        std::fs::write(folder.path().join("controller.yml"), config).unwrap();
        let (child, address) = spawn(&folder);
        Controller {
            folder,
            child,
            address,
        }
    }

    /// Starts it with a limited number of open files.
    pub(crate) fn start_with_files(files: u32, config: &str) -> Controller {
        let mut controller = Self::start(config);
        controller.child.kill().unwrap();
        controller.child.wait().unwrap();
        let mut limited = command("prlimit");
        limited
            .arg(format!("--nofile={files}:{files}"))
            .arg(env!("CARGO_BIN_EXE_codedeploy-controller"));
        (controller.child, controller.address) = spawn_by(limited, &controller.folder, ANY_PORT);
        controller
    }

    /// Kills the process and starts it again on its state on disk.
    pub(crate) fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start_again();
    }

    /// Kills the process, and starts it again after `meanwhile` has changed its data directory.
    pub(crate) fn crash_while(&mut self, meanwhile: impl FnOnce(&std::path::Path)) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        meanwhile(&self.data());
        self.start_again();
    }

    /// Starts the process again after it has ended.
    pub(crate) fn start_again(&mut self) {
        (self.child, self.address) = spawn(&self.folder);
    }

    /// Kills the process and starts it again at the same address.
    pub(crate) fn crash_and_return(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
        let address = self.address.to_string();
        (self.child, self.address) = spawn_by(program, &self.folder, &address);
    }

    /// The folder of its database and keys.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had so far, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The lines that it has logged with this message.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        assert!(
            command("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Asks the process to end, and returns the time that it took.
    pub(crate) fn terminate(&mut self) -> Duration {
        let asked = SystemTime::now();
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success());
        asked.elapsed().unwrap()
    }

    pub(crate) fn admin(&self, args: &[&str]) -> Output {
        let mut command = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
        command
            .args(args)
            .arg("--data-dir")
            .arg(self.folder.path().join("data"));
        command.output().unwrap()
    }

    pub(crate) fn admin_json(&self, args: &[&str]) -> Value {
        let output = self.admin(args);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A client of the public API with a new access key.
    pub(crate) fn client(&self, role: &str) -> Client {
        let key = self.admin_json(&["credentials", "create", "--role", role, "--json"]);
        self.client_with(&key)
    }

    /// A client with an access key in the format of `credentials create --json`.
    pub(crate) fn client_with(&self, key: &Value) -> Client {
        Client::from_conf(self.client_config(key).build())
    }

    /// The settings of such a client.
    pub(crate) fn client_config(&self, key: &Value) -> aws_sdk_codedeploy::config::Builder {
        let token = key["session_token"].as_str().map(str::to_owned);
        let (id, secret) = (text(key, "access_key_id"), text(key, "secret_access_key"));
        aws_sdk_codedeploy::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://{}", self.address))
            .credentials_provider(Credentials::new(id, secret, token, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
    }

    /// An operator's keys, for a caller that signs by itself.
    pub(crate) fn operator(&self) -> Agent {
        self.caller(&self.admin_json(&["credentials", "create", "--role", "operator", "--json"]))
    }

    /// A key in the output of its creation, for a caller that signs by itself.
    pub(crate) fn caller(&self, key: &Value) -> Agent {
        Agent {
            address: self.address,
            identifier: text(key, "arn"),
            access_key_id: text(key, "access_key_id"),
            secret: text(key, "secret_access_key"),
        }
    }

    /// Registers a host and returns its agent.
    pub(crate) fn host(&self, name: &str, tags: &[&str]) -> Agent {
        let mut args = vec!["host", "add", name, "--json"];
        for tag in tags {
            args.extend(["--tag", tag]);
        }
        let host = self.admin_json(&args);
        Agent {
            address: self.address,
            identifier: text(&host, "host_identifier"),
            access_key_id: text(&host, "access_key_id"),
            secret: text(&host, "secret_access_key"),
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &tempfile::TempDir) -> (Child, SocketAddr) {
    let program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    spawn_by(program, folder, ANY_PORT)
}

fn spawn_by(mut command: Command, folder: &tempfile::TempDir, listen: &str) -> (Child, SocketAddr) {
    let mut child = command
        .args(["serve", "--listen", listen, "--config-file"])
        .arg(folder.path().join("controller.yml"))
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (ready, address) = mpsc::channel();
    let mut log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(folder.path().join(LOG))
        .unwrap();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            eprintln!("{line}");
            writeln!(log, "{line}").unwrap();
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "ready" {
                let _ = ready.send(text(&line, "address").parse().unwrap());
            }
        }
    });
    let address = address
        .recv_timeout(Duration::from_secs(60))
        .expect("the controller did not get ready");
    (child, address)
}

pub(crate) fn text(value: &Value, member: &str) -> String {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("no text {member} in {value}"))
        .to_owned()
}

/// The parts of a signature that differ from a good agent's.
pub(crate) struct Forgery {
    pub(crate) service: &'static str,
    pub(crate) target: String,
    pub(crate) region: &'static str,
    pub(crate) time: SystemTime,
    /// Sent in place of the signed body.
    pub(crate) body_sent: Option<String>,
}

impl Forgery {
    pub(crate) fn none(operation: &str) -> Forgery {
        Forgery {
            service: "codedeploy-commands",
            target: format!("CodeDeployCommandService_v20141006.{operation}"),
            region: "us-east-1",
            time: SystemTime::now(),
            body_sent: None,
        }
    }
}

/// An agent that does what a test asks for.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    pub(crate) identifier: String,
    pub(crate) access_key_id: String,
    pub(crate) secret: String,
}

/// A command as an agent keeps it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) execution: String,
}

impl Agent {
    pub(crate) async fn send(&self, forgery: Forgery, input: Value) -> (u16, Value) {
        self.attempt(forgery, input)
            .await
            .expect("the controller answers")
    }

    /// Sends to a controller that may crash meanwhile.
    pub(crate) async fn attempt(&self, forgery: Forgery, input: Value) -> Option<(u16, Value)> {
        self.attempt_bytes(forgery, input.to_string().into_bytes())
            .await
    }

    /// Sends any body.
    pub(crate) async fn attempt_bytes(
        &self,
        forgery: Forgery,
        body: Vec<u8>,
    ) -> Option<(u16, Value)> {
        let headers = [
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", forgery.target.clone()),
            ("x-amz-codedeploy-agent-version", "TEST_1.0".to_owned()),
        ];
        let (status, answer) = self.raw(forgery, "POST /", &headers, body).await?;
        Some((
            status,
            serde_json::from_slice(&answer).unwrap_or(Value::Null),
        ))
    }

    /// Sends a request that is signed with its headers and body; returns the status and the body of
    /// the response.
    pub(crate) async fn raw(
        &self,
        forgery: Forgery,
        request: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Option<(u16, Vec<u8>)> {
        let (method, path) = request.split_once(' ').unwrap();
        let url = format!("http://{}{path}", self.address);
        let identity =
            Credentials::new(&self.access_key_id, &self.secret, None, None, "test").into();
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(forgery.region)
            .name(forgery.service)
            .time(forgery.time)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let host = ("host", self.address.to_string());
        let headers: Vec<_> = std::iter::once(&host).chain(headers).collect();
        let signed = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let signable =
            SignableRequest::new(method, &url, signed, SignableBody::Bytes(&body)).unwrap();
        let (instructions, _) = sign(signable, &parameters).unwrap().into_parts();
        let mut request = Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        let request = request
            .body(Body::from(
                forgery.body_sent.map_or(body, String::into_bytes),
            ))
            .unwrap();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.ok()?;
        let status = response.status().as_u16();
        let bytes = to_bytes(Body::new(response.into_body()), usize::MAX)
            .await
            .ok()?;
        Some((status, bytes.into()))
    }

    pub(crate) async fn call(&self, operation: &str, input: Value) -> (u16, Value) {
        self.send(Forgery::none(operation), input).await
    }

    async fn ok(&self, operation: &str, input: Value) -> Value {
        let (status, output) = self.call(operation, input).await;
        assert_eq!(status, 200, "{operation}: {output}");
        output
    }

    /// The head of a request to the S3 endpoint, as [`head`](Self::head) returns it.
    pub(crate) fn s3_head(&self, request: &str) -> String {
        self.head("s3", request, "")
    }

    /// The head of a signed request without a body hash, without the empty line at its end; with a
    /// target if the service has targets.
    pub(crate) fn head(&self, service: &str, request: &str, target: &str) -> String {
        let (method, path) = request.split_once(' ').unwrap();
        let url = format!("http://{}{path}", self.address);
        let identity =
            Credentials::new(&self.access_key_id, &self.secret, None, None, "test").into();
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name(service)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let host = self.address.to_string();
        let headers = [("host", host.as_str()), ("x-amz-target", target)];
        let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
        let signable =
            SignableRequest::new(method, &url, headers.clone(), SignableBody::UnsignedPayload)
                .unwrap();
        let (instructions, _) = sign(signable, &parameters).unwrap().into_parts();
        let given: String = headers
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let added: String = instructions
            .headers()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!("{method} {path} HTTP/1.1\r\n{given}{added}")
    }

    pub(crate) async fn poll(&self) -> Option<Held> {
        let output = self
            .ok(
                "PollHostCommand",
                json!({"HostIdentifier": self.identifier}),
            )
            .await;
        let command = output.get("HostCommand")?;
        assert_eq!(text(command, "HostIdentifier"), self.identifier);
        assert!(command["Nonce"].is_i64());
        Some(Held {
            id: text(command, "HostCommandIdentifier"),
            name: text(command, "CommandName"),
            execution: text(command, "DeploymentExecutionId"),
        })
    }

    pub(crate) async fn specification(&self, command: &Held) -> Value {
        let input =
            json!({"DeploymentExecutionId": command.execution, "HostIdentifier": self.identifier});
        self.ok("GetDeploymentSpecification", input).await
    }

    pub(crate) async fn acknowledge(&self, command: &Held) -> String {
        let diagnostics = json!({"Format": "JSON", "Payload": r#"{"IsCommandNoop":false}"#});
        let input = json!({"HostCommandIdentifier": command.id, "Diagnostics": diagnostics});
        text(
            &self.ok("PutHostCommandAcknowledgement", input).await,
            "CommandStatus",
        )
    }

    pub(crate) async fn complete(&self, command: &Held, status: &str, payload: &str) {
        let diagnostics = json!({"Format": "JSON", "Payload": payload});
        let input = json!({"HostCommandIdentifier": command.id, "CommandStatus": status, "Diagnostics": diagnostics});
        self.ok("PutHostCommandComplete", input).await;
    }

    pub(crate) async fn succeed(&self, command: &Held) {
        let payload = r#"{"error_code":0,"script_name":"","message":"Succeeded: ","log":""}"#;
        self.complete(command, "Succeeded", payload).await;
    }

    pub(crate) async fn fail(&self, command: &Held) {
        let payload = r#"{"error_code":4,"script_name":"scripts/after.sh","message":"failed with exit code 1","log":"LifecycleEvent - X\n"}"#;
        self.complete(command, "Failed", payload).await;
    }

    /// Takes commands and completes them until `last` is done; returns their names.
    pub(crate) async fn run_to(&self, last: &str) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let command = self.poll().await.expect("no command came");
            self.specification(&command).await;
            assert_eq!(self.acknowledge(&command).await, "InProgress");
            self.succeed(&command).await;
            names.push(command.name.clone());
            if command.name == last {
                return names;
            }
        }
    }
}

/// Waits for a condition on the service.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(value) = condition().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("in vain waited for {what}");
}
