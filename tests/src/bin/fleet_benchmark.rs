//! `cargo run --release --bin fleet_benchmark`: the cost of a fleet and of a long history for their
//! controller.
//!
//! Runs a real controller process, and simulated hosts that long-poll it from this process. They are
//! idle at first. Deployments to one and to a hundred hosts show how soon a command reaches its
//! host; a deployment to all hosts follows. Then the hosts go, and the controller gets a history of
//! finished deployments.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "it starts programs and ends where it cannot"
)]

#[path = "fleet_benchmark/history.rs"]
mod history;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use codedeploy_api::codedeploy::{Tag, Timestamp};
use codedeploy_controller::client::{self, Client};
use codedeploy_controller::config::Partition;
use codedeploy_controller::credentials::{self, NewKey, Role};
use codedeploy_controller::identity::Identity;
use codedeploy_controller::keys;
use codedeploy_controller::outgoing::Outgoing;
use codedeploy_controller::registry::instances;
use codedeploy_controller::request::{Field as _, NewInstanceName};
use codedeploy_controller::service::{database, open_store, prepare};
use codedeploy_controller::vault::Vault;
use codedeploy_tests::bucket::Keys;
use codedeploy_tests::figures::{Aim, Figures, median, say};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::roles;
use codedeploy_tests::service::{REGION, SETTINGS, Service};
use codedeploy_tests::swarm::{Deeds, Host};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

/// The number of hosts for measuring dispatch.
const FEW: usize = 100;

/// The number of repetitions of a request, and of starts.
const REQUESTS: usize = 21;
const STARTS: usize = 3;

const HELP: &str = "\
Measures a controller with a fleet of simulated hosts, and with a long history.

Usage: fleet_benchmark [OPTIONS] [HOSTS [DEPLOYED]]

  HOSTS     the number of simulated hosts [10000]
  DEPLOYED  the number of hosts that are deployed to at once [all]

Options:
      --history NUMBER  the number of finished deployments in the database [100000]
      --json            print the figures as JSON, with the machine's description
  -h, --help            print this help

The programs are roles of this executable, unless CODEDEPLOY_BIN_DIR names a folder with those of a
release.";

/// The sizes of a run.
struct Plan {
    hosts: usize,
    deployed: usize,
    history: usize,
    json: bool,
}

impl Plan {
    /// Reads the command line; `None` if it asks for help.
    fn read(arguments: &[OsString]) -> Result<Option<Plan>, String> {
        let (mut json, mut history, mut numbers) = (false, 100_000, Vec::new());
        let number = |word: Option<&OsString>| {
            let text = word.and_then(|word| word.to_str());
            text.and_then(|text| text.parse::<usize>().ok())
                .ok_or_else(|| format!("found {word:?}, expected a number"))
        };
        let mut words = arguments.iter().skip(1);
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("-h" | "--help") => return Ok(None),
                Some("--json") => json = true,
                Some("--history") => history = number(words.next())?,
                _ => numbers.push(number(Some(word))?),
            }
        }
        let hosts = numbers.first().copied().unwrap_or(10_000);
        let deployed = numbers.get(1).copied().unwrap_or(hosts);
        match numbers.len() {
            0..=2 if hosts > 0 => Ok(Some(Plan {
                hosts,
                deployed: deployed.clamp(1, hosts),
                history,
                json,
            })),
            0..=2 => Err("found no hosts, expected at least one".into()),
            more => Err(format!("found {more} numbers, expected HOSTS and DEPLOYED")),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = roles::play(&arguments) {
        return code;
    }
    let plan = match Plan::read(&arguments) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            say(HELP);
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("fleet_benchmark: {wrong}; --help shows the arguments");
            return ExitCode::from(2);
        }
    };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the limit can be raised to its maximum");
    if most <= plan.hosts as u64 + 100 {
        let hosts = plan.hosts;
        eprintln!(
            "fleet_benchmark: {hosts} connections need more than {most} open files: raise ulimit -Hn"
        );
        return ExitCode::FAILURE;
    }
    if cfg!(debug_assertions) && !plan.json {
        say("This is a debug build; the figures mean little. Add --release.\n");
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(run(&plan));
    ExitCode::SUCCESS
}

async fn run(plan: &Plan) {
    let folder = tempfile::Builder::new()
        .prefix("codedeploy-fleet-")
        .tempdir()
        .expect("a temporary folder");
    let data = folder.path().join("controller");
    let fleet = register(&data, plan.hosts, plan.deployed);
    let settings = format!("quotas: {{targets_per_deployment: {}}}\n", plan.hosts);
    fs::write(data.join(SETTINGS), settings).expect("the settings can be written");
    let programs = match std::env::var_os("CODEDEPLOY_BIN_DIR") {
        Some(_) => Programs::built(),
        None => roles::programs(),
    };
    let service = Service::start(&programs, &data).await;
    for name in ["one", "few", "all"] {
        service.create_group(name, "hosts", (name, "yes")).await;
    }
    let mut figures = Figures::new(plan.json);
    let last = with_fleet(plan, &service, fleet, &mut figures).await;
    with_history(plan, service, &last, &mut figures).await;
    figures.finish();
}

/// Measures with the fleet, and returns a finished deployment to one host.
async fn with_fleet(
    plan: &Plan,
    service: &Service,
    fleet: Vec<Host>,
    figures: &mut Figures,
) -> String {
    let hosts = plan.hosts;
    let address: SocketAddr = service
        .endpoint
        .trim_start_matches("http://")
        .parse()
        .expect("the controller has an address");
    let alone = memory(service.pid());
    let deeds = Arc::new(Deeds::default());
    let mut swarm = tokio::task::JoinSet::new();
    for host in fleet {
        swarm.spawn(host.live(address, Arc::clone(&deeds)));
    }
    until("all hosts poll", || {
        deeds.polling.load(Ordering::Relaxed) == hosts
    })
    .await;
    // A counted poll may not have arrived yet.
    settle(service).await;
    let idle = memory(service.pid());
    figures.section(&format!("{hosts} idle hosts"));
    figures.add("controller without hosts", alone / 1024.0, "MiB", Aim::None);
    figures.add(
        "controller with idle hosts",
        idle / 1024.0,
        "MiB",
        Aim::None,
    );
    let each = (idle - alone) / hosts as f64;
    figures.add("memory per idle host", each, "KiB", Aim::AtMost(12.0));

    let client = client(service);
    let (mut last, mut created) = (String::new(), Vec::new());
    for _ in 0..REQUESTS {
        let took;
        (last, took) = create(&client, "one").await;
        created.push(took);
        ended(&client, &last).await;
    }
    figures.add(
        "CreateDeployment, median",
        median(created),
        "ms",
        Aim::AtMost(5.0),
    );

    let few = FEW.min(hosts);
    let spent = deploy(service, &client, &deeds, ("few", few)).await;
    figures.section(&format!("{few} hosts of the fleet deployed to"));
    report(&spent, &deeds, (Aim::None, Aim::AtMost(25.0)), figures);
    let spent = deploy(service, &client, &deeds, ("all", plan.deployed)).await;
    figures.section(&format!("{} hosts deployed to at once", plan.deployed));
    let aims = (Aim::AtLeast(3500.0), Aim::AtMost(600.0));
    report(&spent, &deeds, aims, figures);
    let peak = status(service.pid(), "VmHWM") / 1024.0;
    figures.add("controller at its peak", peak, "MiB", Aim::AtMost(200.0));
    last
}

/// The cost of a deployment, in seconds.
struct Spent {
    time: f64,
    controller: f64,
    /// The processor time of this process, which plays the hosts.
    hosts: f64,
}

fn report(spent: &Spent, deeds: &Deeds, (rate, tail): (Aim, Aim), figures: &mut Figures) {
    let commands = deeds.commands.load(Ordering::Relaxed) as f64;
    figures.add("CreateDeployment to the end", spent.time, "s", Aim::None);
    figures.add("commands a second", commands / spent.time, "", rate);
    let median = deeds.quantile(0.5);
    figures.add("dispatch of a command, median", median, "ms", Aim::None);
    let last = deeds.quantile(0.99);
    figures.add("dispatch of a command, 99th percentile", last, "ms", tail);
    // These depend little on what else the machine does.
    for (who, seconds) in [("controller", spent.controller), ("hosts", spent.hosts)] {
        let name = format!("processor time of the {who}, a command");
        figures.add(&name, seconds * 1e6 / commands, "µs", Aim::None);
    }
    let again = deeds.reconnects.load(Ordering::Relaxed) as f64;
    figures.add("connections made anew", again, "", Aim::None);
}

/// Measures with a history of copies of a finished deployment, and without the fleet.
async fn with_history(plan: &Plan, service: Service, copied: &str, figures: &mut Figures) {
    let (data, mut killed) = (service.data.clone(), service.kill().await);
    history::add(&database(&data), copied, plan.history).expect("the history can be added");
    let mut starts = Vec::new();
    let service = loop {
        let began = Instant::now();
        let service = killed.restart().await;
        starts.push(began.elapsed().as_secs_f64());
        if starts.len() == STARTS {
            break service;
        }
        killed = service.kill().await;
    };
    let hosts = plan.hosts;
    figures.section(&format!(
        "{hosts} hosts, {} finished deployments",
        plan.history
    ));
    let size = fs::metadata(database(&data)).map_or(0, |file| file.len());
    figures.add("database", size as f64 / 1024.0 / 1024.0, "MiB", Aim::None);
    figures.add("start, median", median(starts), "s", Aim::AtMost(0.5));
    let client = client(&service);
    let host = format!("host{:05}", hosts / 2);
    let own = [
        ("GetFleetStatus", json!({})),
        ("ListHosts", json!({})),
        ("ListHosts", json!({"silentFirst": true})),
        (
            "ListHosts",
            json!({"applicationName": "one", "deploymentGroupName": "hosts"}),
        ),
        ("GetHostStatus", json!({"instanceName": "host00000"})),
        ("GetHostStatus", json!({"instanceName": host})),
        ("ListDeploymentStatuses", json!({})),
        ("GetDeploymentStatus", json!({"deploymentId": copied})),
        ("ListAuditEntries", json!({})),
    ];
    for (operation, input) in own {
        let mut took = Vec::new();
        for _ in 0..REQUESTS {
            let began = Instant::now();
            let answer = client.controller::<Value, Value>(operation, &input).await;
            answer.unwrap_or_else(|error| panic!("{operation}: {error}"));
            took.push(millis(began));
        }
        let name = named(operation, &input);
        figures.add(&name, median(took), "ms", Aim::AtMost(10.0));
    }
    let group = json!({"applicationName": "one", "deploymentGroupName": "hosts"});
    let revision = json!({"applicationName": "one", "revision": location()});
    let public = [
        ("ListDeployments", json!({})),
        ("ListDeployments", group.clone()),
        (
            "ListDeployments",
            json!({"includeOnlyStatuses": ["Failed"]}),
        ),
        ("ListDeploymentTargets", json!({"deploymentId": copied})),
        ("GetDeployment", json!({"deploymentId": copied})),
        ("BatchGetDeployments", json!({"deploymentIds": [copied]})),
        ("GetDeploymentGroup", group),
        ("ListApplications", json!({})),
        ("ListDeploymentGroups", json!({"applicationName": "one"})),
        (
            "ListApplicationRevisions",
            json!({"applicationName": "one"}),
        ),
        ("GetApplicationRevision", revision),
        ("ListOnPremisesInstances", json!({})),
        ("GetOnPremisesInstance", json!({"instanceName": host})),
    ];
    for (operation, input) in public {
        let mut took = Vec::new();
        for _ in 0..REQUESTS {
            let began = Instant::now();
            let answer = client.codedeploy::<Value, Value>(operation, &input).await;
            answer.unwrap_or_else(|error| panic!("{operation}: {error}"));
            took.push(millis(began));
        }
        let name = named(operation, &input);
        figures.add(&name, median(took), "ms", Aim::AtMost(10.0));
    }
    let mut took = Vec::new();
    for _ in 0..REQUESTS {
        let (id, millis) = create(&client, "one").await;
        took.push(millis);
        // No host would ever take its command.
        let stop = json!({"deploymentId": id});
        let stopped = client
            .codedeploy::<Value, Value>("StopDeployment", &stop)
            .await;
        stopped.expect("a deployment can be stopped");
        ended(&client, &id).await;
    }
    figures.add(
        "CreateDeployment, median",
        median(took),
        "ms",
        Aim::AtMost(5.0),
    );
    let peak = status(service.pid(), "VmHWM") / 1024.0;
    figures.add("controller at its peak", peak, "MiB", Aim::None);
}

/// The name of a request with what distinguishes it from others of the operation.
fn named(operation: &str, input: &Value) -> String {
    let members = input.as_object().into_iter().flatten();
    let members = members.filter(|(name, _)| !name.ends_with("Id") && !name.ends_with("Ids"));
    let shown: Vec<_> = members
        .filter_map(|(_, value)| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) => Some("silent first".into()),
            Value::Array(list) => list.first()?.as_str().map(str::to_owned),
            _ => None,
        })
        .collect();
    if shown.is_empty() {
        return operation.to_owned();
    }
    format!("{operation}, {}", shown.join("/"))
}

fn client(service: &Service) -> Client {
    let keys = client::Keys {
        access_key_id: service.operator.access_key_id.clone(),
        secret_access_key: service.operator.secret_access_key.clone(),
        session_token: None,
    };
    let outgoing = Outgoing::open(None).expect("the system has certificates");
    Client::new(&service.endpoint, REGION.into(), keys, outgoing).expect("the endpoint is a URL")
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
                tags.extend((number == 0).then(|| tag("one")));
                tags.extend((number < FEW).then(|| tag("few")));
                tags.extend((number < deployed).then(|| tag("all")));
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

fn location() -> Value {
    json!({"revisionType": "S3", "s3Location": {"bucket": "none", "key": "app.zip", "bundleType": "zip"}})
}

/// Creates a deployment, and returns its id and the milliseconds that this took.
async fn create(client: &Client, application: &str) -> (String, f64) {
    let input = json!({"applicationName": application, "deploymentGroupName": "hosts", "revision": location()});
    let began = Instant::now();
    let created = client
        .codedeploy::<Value, Value>("CreateDeployment", &input)
        .await;
    let took = millis(began);
    let created = created.unwrap_or_else(|error| panic!("{error}"));
    let id = created["deploymentId"]
        .as_str()
        .expect("a deployment has an id");
    (id.to_owned(), took)
}

/// Waits until a deployment has ended.
async fn ended(client: &Client, id: &str) {
    let input = json!({"deploymentId": id});
    loop {
        let answer = client
            .codedeploy::<Value, Value>("GetDeployment", &input)
            .await;
        let answer = answer.expect("the deployment exists");
        match answer["deploymentInfo"]["status"].as_str() {
            Some("Succeeded" | "Failed" | "Stopped") => return,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Deploys to the hosts of an application, and returns the cost.
async fn deploy(
    service: &Service,
    client: &Client,
    deeds: &Deeds,
    (application, hosts): (&str, usize),
) -> Spent {
    deeds.reset();
    let (controller, here) = (
        processor_time(service.pid()),
        processor_time(std::process::id()),
    );
    let began = Instant::now();
    let (id, _) = create(client, application).await;
    until("all hosts are done", || {
        deeds.done.load(Ordering::Relaxed) >= hosts
    })
    .await;
    ended(client, &id).await;
    Spent {
        time: began.elapsed().as_secs_f64(),
        controller: processor_time(service.pid()) - controller,
        hosts: processor_time(std::process::id()) - here,
    }
}

/// The seconds for which a process has used a core.
fn processor_time(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the process is in parentheses and may have spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // The kernel counts in hundredths of a second towards every program (proc(5), USER_HZ).
    ticks as f64 / 100.0
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
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
