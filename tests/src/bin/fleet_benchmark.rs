//! `cargo run --release --bin fleet_benchmark [HOSTS [DEPLOYED]]`: the cost of a fleet for its
//! controller.
//!
//! Runs a real controller process, and HOSTS (10,000) simulated hosts that long-poll it from this
//! process. They are idle at first. Then a deployment to a hundred hosts shows how soon a command
//! reaches its host; a deployment to DEPLOYED (all) follows.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "it starts programs and ends where it cannot"
)]

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_sdk_codedeploy::types::{BundleType, RevisionLocation, RevisionLocationType, S3Location};
use codedeploy_api::codedeploy::{Tag, Timestamp};
use codedeploy_controller::config::Partition;
use codedeploy_controller::credentials::{self, NewKey, Role};
use codedeploy_controller::identity::Identity;
use codedeploy_controller::keys;
use codedeploy_controller::registry::instances;
use codedeploy_controller::request::{Field as _, NewInstanceName};
use codedeploy_controller::service::{open_store, prepare};
use codedeploy_controller::vault::Vault;
use codedeploy_tests::bucket::Keys;
use codedeploy_tests::roles;
use codedeploy_tests::service::{SETTINGS, Service};
use codedeploy_tests::swarm::{Deeds, Host};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The number of hosts for measuring dispatch.
const FEW: usize = 100;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = roles::play(&arguments) {
        return code;
    }
    let number = |index: usize| arguments.get(index)?.to_str()?.parse::<usize>().ok();
    let hosts = number(1).unwrap_or(10_000);
    let deployed = number(2).unwrap_or(hosts).min(hosts);
    if cfg!(debug_assertions) {
        println!(
            "This is a debug build; the figures mean little. Use cargo run --release --bin fleet_benchmark.\n"
        );
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the limit can be raised to its maximum");
    assert!(
        most > hosts as u64 + 100,
        "{hosts} connections need more than {most} open files: raise ulimit -Hn"
    );
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(run(hosts, deployed));
    ExitCode::SUCCESS
}

async fn run(hosts: usize, deployed: usize) {
    let folder = tempfile::Builder::new()
        .prefix("codedeploy-fleet-")
        .tempdir()
        .expect("a temporary folder");
    let data = folder.path().join("controller");
    let fleet = register(&data, hosts, deployed);
    let settings = format!("quotas: {{targets_per_deployment: {hosts}}}\n");
    fs::write(data.join(SETTINGS), settings).expect("the settings can be written");
    let service = Service::start(&roles::programs(), &data).await;
    let address: SocketAddr = service
        .endpoint
        .trim_start_matches("http://")
        .parse()
        .expect("the controller has an address");
    for (application, tag) in [("few", "few"), ("all", "deployed")] {
        service
            .create_group(application, "hosts", (tag, "yes"))
            .await;
    }

    let alone = memory(service.pid());
    let deeds = Arc::new(Deeds::default());
    for host in fleet {
        tokio::spawn(host.live(address, Arc::clone(&deeds)));
    }
    until("all hosts poll", || {
        deeds.polling.load(Ordering::Relaxed) == hosts
    })
    .await;
    // A counted poll may not have arrived yet.
    settle(&service).await;
    let idle = memory(service.pid());
    println!(
        "{:<44} {:>10.1} MiB",
        "controller without hosts",
        alone / 1024.0
    );
    println!(
        "{:<44} {:>10.1} MiB",
        format!("controller with {hosts} idle hosts"),
        idle / 1024.0
    );
    println!(
        "{:<44} {:>10.1} KiB   aim 20",
        "memory per idle host",
        (idle - alone) / hosts as f64
    );

    deeds.reset();
    let took = deploy(&service, &deeds, "few", FEW.min(hosts)).await;
    report("few hosts of the fleet", FEW.min(hosts), took, &deeds);
    deeds.reset();
    let took = deploy(&service, &deeds, "all", deployed).await;
    report("all at once", deployed, took, &deeds);
    println!(
        "{:<44} {:>10.1} MiB",
        "controller at its peak",
        status(service.pid(), "VmHWM") / 1024.0
    );
}

fn report(what: &str, hosts: usize, took: Duration, deeds: &Deeds) {
    let commands = deeds.commands.load(Ordering::Relaxed);
    println!("\n{hosts} hosts, {what}");
    println!(
        "{:<44} {:>10.2} s",
        "CreateDeployment to the end",
        took.as_secs_f64()
    );
    println!(
        "{:<44} {:>10.0}",
        "commands a second",
        commands as f64 / took.as_secs_f64()
    );
    println!(
        "{:<44} {:>10.1} ms",
        "dispatch of a command, median",
        deeds.quantile(0.5)
    );
    println!(
        "{:<44} {:>10.1} ms    aim 50, when few",
        "dispatch of a command, 99th percentile",
        deeds.quantile(0.99)
    );
    println!(
        "{:<44} {:>10}",
        "connections made anew",
        deeds.reconnects.load(Ordering::Relaxed)
    );
}

/// Registers the hosts with their keys, as `codedeploy-controller host add` does, all in one
/// transaction.
fn register(data: &Path, hosts: usize, deployed: usize) -> Vec<Host> {
    prepare(data).expect("the data directory can be made");
    let store = open_store(data).expect("the database can be made");
    let vault = Vault::open(&keys::Keys::of(data, &store)).expect("the vault can be opened");
    let register = move |tx: &codedeploy_controller::store::Tx<'_>| {
        let partition = Partition::new(None, None).expect("the defaults are valid");
        (0..hosts)
            .map(|number| {
                let name = format!("host{number:05}");
                let identifier = format!("arn:aws:iam::{}:user/{name}", partition.account_id);
                let tag = |key: &str| Tag {
                    key: Some(key.into()),
                    value: Some("yes".into()),
                };
                let mut tags = vec![];
                tags.extend((number < FEW).then(|| tag("few")));
                tags.extend((number < deployed).then(|| tag("deployed")));
                let identity = Identity::User(identifier.clone());
                let name = NewInstanceName::read(Some(name))?;
                instances::enroll(tx, &partition, Timestamp::now(), &name, &identity, &tags)?;
                let key = credentials::create(
                    tx,
                    &vault,
                    NewKey {
                        role: Role::Host,
                        arn: identifier.clone(),
                        lifetime: None,
                        scopes: Vec::new(),
                        subject: None,
                    },
                )?;
                let keys = Keys {
                    access_key_id: key.access_key_id,
                    secret_access_key: key.secret_access_key,
                };
                Ok(Host { identifier, keys })
            })
            .collect::<Result<Vec<_>, codedeploy_controller::error::ApiError>>()
    };
    store
        .transact_blocking(register)
        .expect("the hosts can be registered")
}

async fn deploy(service: &Service, deeds: &Deeds, application: &str, hosts: usize) -> Duration {
    let location = S3Location::builder()
        .bucket("none")
        .key("app.zip")
        .bundle_type(BundleType::Zip)
        .build();
    let revision = RevisionLocation::builder()
        .revision_type(RevisionLocationType::S3)
        .s3_location(location)
        .build();
    let began = Instant::now();
    let id = service.deploy(application, "hosts", revision).await;
    until("all hosts are done", || {
        deeds.done.load(Ordering::Relaxed) >= hosts
    })
    .await;
    loop {
        let info = service.deployment(&id).await;
        match info.status.as_ref().map(|status| status.as_str()) {
            Some("Succeeded") => return began.elapsed(),
            Some("Failed" | "Stopped") => panic!("{info:#?}"),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(
            began.elapsed() < Duration::from_secs(600),
            "{what}: not within ten minutes"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the controller's memory stops growing.
async fn settle(service: &Service) {
    let mut before = 0.0;
    loop {
        let now = memory(service.pid());
        if (now - before).abs() < 64.0 {
            return;
        }
        before = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The resident memory in KiB.
fn memory(pid: u32) -> f64 {
    status(pid, "VmRSS")
}

fn status(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
