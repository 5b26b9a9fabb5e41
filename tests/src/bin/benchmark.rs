//! `cargo run --release --bin benchmark`: the cost of the agent and of an idle controller, compared
//! with their targets and with bare tools.
//!
//! Everything in the comparison is measured in this run, on this machine, in temporary folders. The
//! programs are roles of this executable, unless `CODEDEPLOY_BIN_DIR` names a folder with those of a
//! release.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "it starts programs and ends where it cannot"
)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use aws_sdk_codedeploy::types::BundleType;
use codedeploy_tests::bucket::Bucket;
use codedeploy_tests::figures::{self, Aim, Figures, median};
use codedeploy_tests::host::Host;
use codedeploy_tests::programs::{Programs, Running, programs_folder};
use codedeploy_tests::service::{Service, revision};
use codedeploy_tests::{bundle, roles};

const ABOUT: &str = "\
Measures the cost of the agent and of an idle controller, and a deployment of 1 GiB beside bare tools.";

/// AWS's Ruby agent 1.8.1, measured on a similar machine.
const RUBY_MEMORY: f64 = 60.0;
const RUBY_EMPTY: f64 = 600.0;

const HOST: &str = "bench";
const APPLICATION: &str = "bench";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = roles::play(&arguments) {
        return code;
    }
    let json = match figures::only_json("benchmark", ABOUT, &arguments) {
        Ok(json) => json,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(run(json));
    ExitCode::SUCCESS
}

async fn run(json: bool) {
    let folder = tempfile::Builder::new()
        .prefix("codedeploy-benchmark-")
        .tempdir()
        .expect("a temporary folder");
    let first_poll = first_poll(&folder.path().join("first")).await;

    let programs = programs();
    let service = Service::start(&programs, &folder.path().join("controller")).await;
    let host = Host::register(
        &programs,
        &service,
        HOST,
        "a=b",
        &folder.path().join("host"),
    )
    .await;
    let keys = [service.operator.clone(), host.keys.clone()];
    let bucket = Bucket::embedded(&folder.path().join("s3"), "revisions", &keys)
        .await
        .expect("an S3 server");
    host.configure(&bucket, "");
    service.create_group(APPLICATION, "all", ("a", "b")).await;
    let agent = host.start_agent();
    let bench = Bench {
        folder: folder.path(),
        service,
        bucket,
        agent,
    };

    bench
        .deploy(
            "warm.zip",
            BundleType::Zip,
            bundle::zip(&bench.revision("warm", "/dev/null", 1)),
        )
        .await;
    let (memory, wakeups) = bench.idle().await;
    let controller = pss(bench.service.pid());
    let empty = bench.empty_deployments().await;
    let (large, bare) = bench.large().await;
    let peak = status_of(bench.pid(), "VmHWM");

    let mut figures = Figures::new(json);
    figures.section("Agent");
    let ruby = |value| ("AWS's Ruby agent", value);
    figures.add("idle memory (PSS)", memory, "MiB", Aim::AtMost(8.0));
    figures.compare(
        "idle memory (PSS)",
        memory,
        ruby(RUBY_MEMORY),
        "MiB",
        Aim::None,
    );
    figures.add(
        "wake-ups a minute while idle",
        wakeups,
        "",
        Aim::AtMost(4.0),
    );
    figures.add("start to first poll", first_poll, "ms", Aim::AtMost(10.0));
    let name = "deployment of seven empty commands";
    figures.add(name, empty, "ms", Aim::AtMost(250.0));
    figures.compare(name, empty, ruby(RUBY_EMPTY), "ms", Aim::None);
    figures.add("peak memory, 1 GiB bundle", peak, "MiB", Aim::AtMost(20.0));
    if std::env::var_os("CODEDEPLOY_BIN_DIR").is_some() {
        let program = fs::metadata(programs_folder().join("codedeploy-agent"));
        let size = program.map_or(0, |program| program.len()) as f64 / 1e6;
        figures.add("size of the program", size, "MB", Aim::AtMost(8.0));
    }
    let name = "deployment of a tar of 1 GiB from S3";
    figures.compare(
        name,
        large,
        ("curl, tar, cp -a", bare),
        "s",
        Aim::AtMost(1.3),
    );
    figures.section("Controller");
    figures.add("idle memory (PSS)", controller, "MiB", Aim::AtMost(20.0));
    figures.finish();
    let Bench {
        service,
        bucket,
        agent,
        ..
    } = bench;
    agent.stop().await;
    service.stop().await;
    bucket.stop().await;
}

/// The programs that are measured.
fn programs() -> Programs {
    if std::env::var_os("CODEDEPLOY_BIN_DIR").is_some() {
        Programs::built()
    } else {
        roles::programs()
    }
}

/// Milliseconds from the start of the process to the first bytes sent to its service; the best of
/// five.
async fn first_poll(folder: &Path) -> f64 {
    fs::create_dir_all(folder).expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = folder.display();
    let address = listener.local_addr().expect("it is bound");
    let identity = "region: us-east-1\niam_user_arn: arn:aws:iam::123456789012:user/x\naws_access_key_id: a\naws_secret_access_key: b\n";
    fs::write(folder.join("identity.yml"), identity).expect("the file can be written");
    let text = format!(
        "deploy_control_endpoint: http://{address}\non_premises_config_file: {place}/identity.yml\n\
         root_dir: {place}/root\nlog_dir: {place}/log\npid_dir: {place}/run\n"
    );
    let configuration = folder.join("conf.yml");
    fs::write(&configuration, text).expect("the file can be written");
    let mut best = f64::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let arguments = |command: &mut tokio::process::Command| {
            command.args(["run", "--config-file"]).arg(&configuration);
        };
        let mut agent = programs().agent.start(arguments, &folder.join("out"));
        let (stream, _) = listener.accept().expect("the agent connects");
        stream.peek(&mut [0]).expect("the agent sends");
        best = best.min(began.elapsed().as_secs_f64() * 1000.0);
        agent.kill().await;
    }
    best
}

struct Bench<'a> {
    folder: &'a Path,
    service: Service,
    bucket: Bucket,
    agent: Running,
}

impl Bench<'_> {
    fn pid(&self) -> u32 {
        self.agent.pid().expect("the agent runs")
    }

    /// Builds a revision with `files` files of `megabytes` each, made from `content`, without
    /// scripts.
    fn revision(&self, name: &str, content: &str, files: usize) -> std::path::PathBuf {
        let source = self.folder.join(name);
        let target = self.folder.join("installed").join(name);
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: data\n    destination: {}\n",
            target.display()
        );
        bundle::write(&source, &[("appspec.yml", &appspec)]);
        fs::create_dir_all(source.join("data")).expect("a folder");
        for number in 0..files {
            let path = source.join(format!("data/{number}"));
            let made = Command::new("head")
                .args(["-c", "67108864", content])
                .output()
                .expect("head exists");
            fs::write(path, made.stdout).expect("the disk has room");
        }
        source
    }

    async fn deploy(&self, key: &str, kind: BundleType, bytes: Vec<u8>) -> f64 {
        let object = self.bucket.put(key, bytes).await;
        let began = Instant::now();
        let id = self
            .service
            .deploy(APPLICATION, "all", revision(&self.bucket, &object, kind))
            .await;
        let info = self.service.follow(&id, HOST, |_| ()).await;
        assert_eq!(
            info.status
                .map(|status| status.as_str().to_owned())
                .as_deref(),
            Some("Succeeded"),
            "{key}"
        );
        began.elapsed().as_secs_f64()
    }

    /// MiB of proportional memory, and wake-ups per minute, of an agent in a long poll.
    async fn idle(&self) -> (f64, f64) {
        let window = Duration::from_secs(15);
        let before = waits(self.pid());
        tokio::time::sleep(window).await;
        let after = waits(self.pid());
        let woken: f64 = after
            .iter()
            .map(|(thread, count)| count - before.get(thread).unwrap_or(&0.0))
            .sum();
        (pss(self.pid()), woken * 60.0 / window.as_secs_f64())
    }

    /// Milliseconds of a deployment without scripts, measured by a client of the service; the
    /// median of nine.
    async fn empty_deployments(&self) -> f64 {
        let bytes = bundle::zip(&self.revision("empty", "/dev/null", 0));
        let mut times = Vec::new();
        for _ in 0..9 {
            times.push(
                self.deploy("empty.zip", BundleType::Zip, bytes.clone())
                    .await,
            );
        }
        times.sort_by(f64::total_cmp);
        times[4] * 1000.0
    }

    /// Seconds of a deployment of 1 GiB from S3, and of bare tools that fetch, unpack and copy the
    /// same files; the medians of three.
    async fn large(&self) -> (f64, f64) {
        let bytes = bundle::tar(&self.revision("large", "/dev/urandom", 16));
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let deployed = self.deploy("large.tar", BundleType::Tar, bytes.clone());
            ours.push(deployed.await);
            bare.push(self.bare(&self.bucket.presigned("large.tar").await));
        }
        (median(ours), median(bare))
    }

    fn bare(&self, address: &str) -> f64 {
        let folder = self.folder.join("bare");
        fs::create_dir_all(folder.join("unpacked")).expect("a folder");
        let script = r#"curl -sf "$ADDRESS" -o archive && tar -xf archive -C unpacked &&
            cp -a unpacked copy && sync -f copy"#;
        let began = Instant::now();
        let ran = Command::new("sh")
            .args(["-c", script])
            .current_dir(&folder)
            .env("ADDRESS", address)
            .status();
        let seconds = began.elapsed().as_secs_f64();
        assert!(ran.expect("sh exists").success(), "curl, tar or cp failed");
        fs::remove_dir_all(folder).expect("it was made");
        seconds
    }
}

/// The number of voluntary waits of each thread of the process.
fn waits(pid: u32) -> HashMap<OsString, f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs");
    let count = |task: std::io::Result<fs::DirEntry>| {
        let task = task.ok()?;
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some((task.file_name(), line.trim().parse().ok()?))
    };
    tasks.filter_map(count).collect()
}

/// MiB of proportional memory.
fn pss(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    kilobytes(line.unwrap_or_default()) / 1024.0
}

/// A value in MiB from the process's status.
fn status_of(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    kilobytes(line.unwrap_or_default()) / 1024.0
}

fn kilobytes(text: &str) -> f64 {
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}
