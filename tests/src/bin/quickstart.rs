//! `cargo run --release --bin quickstart`: a service, a bucket and a host in one temporary folder,
//! and three deployments.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it starts its own processes")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "when the demonstration cannot be set up, it ends"
)]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use aws_sdk_codedeploy::types::{BundleType, DeploymentStatus, LifecycleEventStatus};
use codedeploy_tests::bucket::Bucket;
use codedeploy_tests::host::Host;
use codedeploy_tests::programs::Running;
use codedeploy_tests::service::{EndedEvent, REGION, SETTINGS, Service, revision};
use codedeploy_tests::{bundle, roles, wait};

const APPLICATION: &str = "hello";
const GROUP: &str = "laptop-fleet";
const HOST: &str = "laptop";

const USAGE: &str = "\
Deploys three versions of a small web application on this machine, with a controller, an S3 server and an agent
that it starts itself inside one temporary folder. Needs python3; needs no root.

Usage: quickstart [--keep]

  --keep   leave everything running at the end, and print commands to play with
";

/// The application's files as they go into a bundle.
const APP: [(&str, &str); 5] = [
    (
        "appspec.yml",
        include_str!("../../quickstart/app/appspec.yml"),
    ),
    ("server.py", include_str!("../../quickstart/app/server.py")),
    (
        "scripts/start.sh",
        include_str!("../../quickstart/app/scripts/start.sh"),
    ),
    (
        "scripts/stop.sh",
        include_str!("../../quickstart/app/scripts/stop.sh"),
    ),
    (
        "scripts/validate.sh",
        include_str!("../../quickstart/app/scripts/validate.sh"),
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = roles::play(&arguments) {
        return code;
    }
    let keep = match arguments
        .get(1)
        .map(|argument| argument.to_string_lossy())
        .as_deref()
    {
        None => false,
        Some("--keep") => true,
        Some("--help" | "-h") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprint!("quickstart: {other} is not an option\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if std::process::Command::new("python3")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!(
            "quickstart: the application that is deployed needs python3; install it and try again"
        );
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(Quickstart::run(keep));
    ExitCode::SUCCESS
}

struct Quickstart {
    folder: PathBuf,
    port: u16,
    service: Service,
    bucket: Bucket,
    host: Host,
    agent: Running,
}

impl Quickstart {
    async fn run(keep: bool) {
        let began = Instant::now();
        let folder = tempfile::Builder::new()
            .prefix("codedeploy-quickstart-")
            .tempdir()
            .expect("a temporary folder");
        let demonstration = Self::set_up(folder.path()).await;
        demonstration.deploy("1", "the first version").await;
        demonstration
            .deploy(
                "2",
                "an update in place: the old version is stopped, the new one started",
            )
            .await;
        demonstration
            .deploy("3", "a version whose ValidateService fails")
            .await;
        demonstration
            .deploy_again("2", "back to the version that worked")
            .await;
        println!(
            "\nFour deployments in {:.1} s.",
            began.elapsed().as_secs_f64()
        );
        if keep {
            demonstration.play(folder.keep()).await;
        } else {
            demonstration.tear_down().await;
            println!(
                "Everything is stopped and removed. Run it with --keep to look around while it is up.\n"
            );
            println!("Where to look next:");
            println!(
                "  README.md               what the agent and the controller do, and how to install them"
            );
            println!(
                "  appspec-examples/       revisions to start from, each with its lifecycle events explained"
            );
            println!(
                "  codedeploy-local --help deploys a folder or bundle on this machine, without any service"
            );
        }
    }

    async fn set_up(folder: &Path) -> Self {
        println!(
            "Everything below {}; nothing outside it.\n",
            folder.display()
        );
        let programs = roles::programs();
        let data = folder.join("controller");
        std::fs::create_dir_all(&data)
            .and_then(|()| std::fs::write(data.join(SETTINGS), "console: {}\n"))
            .expect("the settings can be written");
        let service = Service::start(&programs, &data).await;
        println!("  controller  {}", service.endpoint);
        println!("  console     {}", service.login_link().await);
        println!("              logs in once, within ten minutes");
        let host = Host::register(
            &programs,
            &service,
            HOST,
            "stage=demo",
            &folder.join("host"),
        )
        .await;
        let keys = [service.operator.clone(), host.keys.clone()];
        let bucket = Bucket::embedded(&folder.join("s3"), "revisions", &keys)
            .await
            .expect("an S3 server");
        println!("  bucket      s3://{} at {}", bucket.name, bucket.endpoint);
        host.configure(&bucket, "");
        let agent = host.start_agent();
        println!(
            "  host        {HOST}, tagged stage=demo; its agent logs to {}",
            host.agent_log().display()
        );
        service
            .create_group(APPLICATION, GROUP, ("stage", "demo"))
            .await;
        println!(
            "  group       {GROUP} of application {APPLICATION}: every host tagged stage=demo"
        );
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a free port")
            .port();
        Self {
            folder: folder.to_owned(),
            port,
            service,
            bucket,
            host,
            agent,
        }
    }

    /// Pushes a version to S3 as a zip, and deploys it.
    async fn deploy(&self, version: &str, what: &str) {
        let source = self.folder.join(format!("app-{version}"));
        let app = self.folder.join("host/app").display().to_string();
        let fill = |text: &str| {
            text.replace("@APP@", &app)
                .replace("@PORT@", &self.port.to_string())
        };
        let files: Vec<(&str, String)> =
            APP.iter().map(|(name, text)| (*name, fill(text))).collect();
        let mut files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        files.push(("VERSION", version));
        bundle::write(&source, &files);
        self.bucket
            .put(&format!("hello-{version}.zip"), bundle::zip(&source))
            .await;
        self.deploy_again(version, what).await;
    }

    async fn deploy_again(&self, version: &str, what: &str) {
        let object = self.bucket.object(&format!("hello-{version}.zip")).await;
        let location = revision(&self.bucket, &object, BundleType::Zip);
        let id = self.service.deploy(APPLICATION, GROUP, location).await;
        println!(
            "\nVersion {version}: {what}\n  s3://{}/{} as deployment {id}",
            self.bucket.name, object.key
        );
        let began = Instant::now();
        let info = self.service.follow(&id, HOST, show).await;
        let status = info.status.unwrap_or(DeploymentStatus::Failed);
        println!(
            "  deployment {status} after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        match self.fetch("/").await {
            Ok(page) => println!("  http://127.0.0.1:{}/ answers: {}", self.port, page.trim()),
            Err(error) => println!("  http://127.0.0.1:{}/ does not answer: {error}", self.port),
        }
    }

    /// Requests the page until the server listens; returns its body.
    async fn fetch(&self, path: &str) -> Result<String, String> {
        let address = ("127.0.0.1", self.port);
        wait::until("the page answers", async || {
            let mut stream = TcpStream::connect(address)?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let body = answer
                .split_once("\r\n\r\n")
                .map(|(_, body)| body.to_owned());
            Ok::<_, std::io::Error>(body.ok_or_else(|| answer.clone()))
        })
        .await
    }

    async fn tear_down(self) {
        self.agent.stop().await;
        self.service.stop().await;
        self.bucket.stop().await;
        stop_application(&self.folder);
    }

    /// Stays up until a signal, and shows commands to try.
    async fn play(self, folder: PathBuf) {
        println!("\nStill up, until you press Ctrl-C. In a browser:\n");
        println!("  {}", self.service.login_link().await);
        println!("\nIn another terminal:\n");
        println!(
            "  export AWS_ENDPOINT_URL_CODEDEPLOY={} AWS_ENDPOINT_URL_S3={}",
            self.service.endpoint, self.bucket.endpoint
        );
        println!(
            "  export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}",
            self.service.operator.access_key_id, self.service.operator.secret_access_key
        );
        println!("  export AWS_DEFAULT_REGION={REGION} AWS_PAGER=");
        println!(
            "  aws deploy list-deployments --application-name {APPLICATION} --deployment-group-name {GROUP}"
        );
        println!(
            "  aws deploy create-deployment --application-name {APPLICATION} --deployment-group-name {GROUP} \\"
        );
        println!(
            "    --s3-location bucket={},key=hello-1.zip,bundleType=zip",
            self.bucket.name
        );
        println!("  aws deploy get-deployment-target --deployment-id d-… --target-id {HOST}");
        println!("  curl http://127.0.0.1:{}/", self.port);
        println!(
            "\nLogs: {} and {}",
            self.service.log().display(),
            self.host.agent_log().display()
        );
        tokio::signal::ctrl_c()
            .await
            .expect("signals can be waited for");
        self.tear_down().await;
        std::fs::remove_dir_all(&folder).expect("the temporary folder can be removed");
        println!("\nEverything is stopped and removed.");
    }
}

fn show(event: &EndedEvent) {
    let EndedEvent {
        name,
        status,
        seconds,
        diagnostics,
    } = event;
    if *status == LifecycleEventStatus::Skipped {
        println!("    {name:<17} Skipped");
        return;
    }
    println!("    {name:<17} {:<10} {seconds:>6.2} s", status.as_str());
    if *status == LifecycleEventStatus::Failed
        && let Some(diagnostics) = diagnostics
    {
        println!("      {}", diagnostics.message().unwrap_or_default());
        for line in diagnostics.log_tail().unwrap_or_default().lines() {
            println!("      | {line}");
        }
    }
}

/// Ends the application that the deployments left running; its start script recorded the process
/// id.
fn stop_application(folder: &Path) {
    let pid = std::fs::read_to_string(folder.join("host/app.pid")).unwrap_or_default();
    if !pid.trim().is_empty() {
        let _ = std::process::Command::new("kill").arg(pid.trim()).status();
    }
}
