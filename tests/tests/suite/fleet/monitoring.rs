//! Metrics of a controller and its agents, and what is shipped to watch them: alerts and
//! dashboards.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use codedeploy_tests::balancer::{free_port, get};
use codedeploy_tests::bucket::tools;
use codedeploy_tests::fleet::Fleet;
use codedeploy_tests::programs::{Program, Running};
use codedeploy_tests::wait;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::pages::{read, repository};

const ALERTS: &str = "packaging/monitoring/alerts.yml";
const DASHBOARDS: &str = "packaging/monitoring/dashboards";

/// Metrics without a series in the test: nothing of the kind happens there.
const ABSENT: [&str; 6] = [
    "codedeploy_controller_refused_requests_total",
    "certificate_expiry_timestamp_seconds",
    "alarm_active",
    "alarm_read_errors",
    "codedeploy_agent_outbox_oldest_timestamp_seconds",
    "rollbacks_total",
];

/// A program of Debian's package `prometheus`, which `tests/tools.sh` unpacks.
fn prometheus(program: &str) -> Program {
    let path = tools().join("prometheus/usr/bin").join(program);
    assert!(
        path.exists(),
        "{} is missing; tests/run unpacks it",
        path.display()
    );
    Program::at(path)
}

async fn promtool(arguments: &[&str]) -> Output {
    prometheus("promtool").output(arguments).await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The names of all metrics, with those of the series of histograms.
fn known() -> BTreeSet<String> {
    let all = codedeploy_controller::metrics::descriptions()
        .into_iter()
        .chain(codedeploy_agent::metrics::descriptions());
    all.flat_map(|metric| match metric.kind {
        "histogram" => ["_bucket", "_sum", "_count"]
            .map(|suffix| metric.name.clone() + suffix)
            .to_vec(),
        _ => vec![metric.name],
    })
    .collect()
}

/// The names of this project's metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| {
            word.starts_with("codedeploy_controller_") || word.starts_with("codedeploy_agent_")
        })
        .map(str::to_owned)
        .collect()
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let folder = repository().join(DASHBOARDS);
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path, serde_json::from_str(&text).unwrap())
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn every_alert_fires_in_time_and_has_a_runbook() {
    let alerts = repository().join(ALERTS);
    let tests = repository().join("tests/monitoring/alerts_test.yml");
    for (what, file) in [("check", &alerts), ("test", &tests)] {
        let output = promtool(&[what, "rules", file.to_str().unwrap()]).await;
        assert!(output.status.success(), "{}", said(&output));
    }
    let text = read(Path::new(ALERTS));
    let runbooks = read(Path::new("docs/runbooks.md"));
    let headings: BTreeSet<String> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let sections: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
        .map(|url| url.rsplit_once("runbooks.md#").unwrap().1)
        .collect();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert_eq!(names.len(), sections.len(), "an alert has no runbook_url");
    let used: BTreeSet<String> = sections
        .iter()
        .map(|section| (*section).to_owned())
        .collect();
    assert_eq!(
        used, headings,
        "each alert has a section, and each section an alert"
    );
    let tested = read(Path::new("tests/monitoring/alerts_test.yml"));
    let untested: Vec<_> = names
        .iter()
        .filter(|name| !tested.contains(**name))
        .collect();
    assert!(untested.is_empty(), "no unit test fires {untested:?}");
    let strange: Vec<_> = named(&text).difference(&known()).cloned().collect();
    assert!(strange.is_empty(), "nobody makes {strange:?}");
}

#[test]
fn dashboards_are_made_of_metrics_that_exist() {
    let mut uids = BTreeSet::new();
    for (path, dashboard) in dashboards() {
        let place = path.display();
        let text = |member: &str| dashboard[member].as_str().unwrap_or_default().to_owned();
        assert!(
            !text("title").is_empty() && uids.insert(text("uid")),
            "{place}"
        );
        assert!(dashboard["schemaVersion"].is_i64(), "{place}");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(
                ids.insert(panel["id"].as_i64().unwrap()),
                "{place}: {panel}"
            );
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{place}: {panel}"
            );
            assert!(panel["gridPos"]["w"].is_i64(), "{place}: {panel}");
        }
        for expression in expressions(&dashboard) {
            let strange: Vec<_> = named(&expression).difference(&known()).cloned().collect();
            assert!(strange.is_empty(), "{place}: nobody makes {strange:?}");
        }
    }
    assert_eq!(uids.len(), 3, "{uids:?}");
}

/// Starts a Prometheus that scrapes both programs every second; returns its address.
fn scrape(fleet: &Fleet, agent: SocketAddr) -> (Running, String) {
    let facts = std::fs::read(fleet.service.data.join("service.json")).unwrap();
    let facts: Value = serde_json::from_slice(&facts).unwrap();
    let controller = facts["metrics"].as_str().unwrap();
    let job = |name: &str, target: &str| {
        format!("- job_name: {name}\n  static_configs: [{{targets: ['{target}']}}]\n")
    };
    let config = format!(
        "global: {{scrape_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n{}{}",
        repository().join(ALERTS).display(),
        job("codedeploy-controller", controller),
        job("codedeploy-agent", &agent.to_string())
    );
    let file = fleet.path("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let arguments = |command: &mut tokio::process::Command| {
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                fleet.path("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"));
    };
    let running = prometheus("prometheus").start(arguments, &fleet.path("prometheus.log"));
    (running, format!("http://{address}"))
}

fn files(script: &str, live: &Path) -> [(String, String); 3] {
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\nhooks:\n  ApplicationStart:\n    - \
         location: start.sh\n",
        live.display()
    );
    [
        ("appspec.yml".into(), appspec),
        ("page".into(), "hello\n".into()),
        ("start.sh".into(), format!("#!/bin/sh\n{script}\n")),
    ]
}

async fn deploy(fleet: &Fleet, script: &str) -> String {
    let files = files(script, &fleet.path("live"));
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    fleet.deploy(&files).await.status().to_owned()
}

#[tokio::test]
async fn a_real_prometheus_answers_every_expression_of_the_dashboards() {
    let agent: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let more = format!("metrics_listen: {agent}\n");
    let fleet = Fleet::start_with(1, &more, |_| {
        "metrics: {listen: '127.0.0.1:0'}\ns3: {}\nevents: {webhooks: [{url: 'http://127.0.0.1:1/'}]}\n".into()
    })
    .await;
    let (mut server, url) = scrape(&fleet, agent);
    assert_eq!(deploy(&fleet, "exit 1").await, "Failed");
    assert_eq!(deploy(&fleet, "exit 0").await, "Succeeded");
    for (path, dashboard) in dashboards() {
        for expression in expressions(&dashboard) {
            let concrete = expression
                .replace("$instance", ".*")
                .replace("$__rate_interval", "1m");
            let what = format!("{}: {concrete}", path.display());
            let may_be_empty = ABSENT.iter().any(|metric| expression.contains(metric));
            wait::until(&what, async || {
                let output = promtool(&["query", "instant", &url, &concrete]).await;
                let answered = may_be_empty || !output.stdout.trim_ascii().is_empty();
                if output.status.success() && answered {
                    Ok(())
                } else {
                    Err(said(&output))
                }
            })
            .await;
        }
    }
    server.kill().await;
    fleet.stop().await;
}

/// The value of a sample in the agent's text.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = format!("codedeploy_agent_{sample} ");
    let value = text.lines().find_map(|found| found.strip_prefix(&line))?;
    Some(value.parse().unwrap())
}

#[tokio::test]
async fn an_agent_counts_its_work_on_an_address_and_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("codedeploy.prom");
    let agent: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let more = format!(
        "metrics_listen: {agent}\nmetrics_textfile: {}\n",
        file.display()
    );
    let fleet = Fleet::start(1, &more).await;
    assert_eq!(deploy(&fleet, "exit 1").await, "Failed");
    assert_eq!(deploy(&fleet, "exit 0").await, "Succeeded");
    let text = get(agent, "/metrics").await.unwrap();
    for (sample, expected) in [
        (
            "commands_total{event=\"ApplicationStart\",outcome=\"failed\"}",
            1.0,
        ),
        (
            "commands_total{event=\"ApplicationStart\",outcome=\"succeeded\"}",
            1.0,
        ),
        (
            "commands_total{event=\"Install\",outcome=\"succeeded\"}",
            2.0,
        ),
        ("event_duration_seconds_count{event=\"Install\"}", 2.0),
        (
            "scripts_total{event=\"ApplicationStart\",outcome=\"failed\"}",
            1.0,
        ),
        (
            "scripts_total{event=\"ApplicationStart\",outcome=\"succeeded\"}",
            1.0,
        ),
        ("install_files_total{action=\"created\"}", 2.0),
        ("outbox_commands", 0.0),
        ("leaked_processes_total", 0.0),
    ] {
        assert_eq!(value(&text, sample), Some(expected), "{sample} in {text}");
    }
    for positive in [
        "polls_total{outcome=\"answered\"}",
        "downloaded_bytes_total{source=\"s3\"}",
        "last_successful_poll_timestamp_seconds",
        "archive_bytes",
    ] {
        assert!(value(&text, positive) > Some(0.0), "{positive} in {text}");
    }
    let newest = "deployment_info{application=\"shop\",group=\"web\",deployment_id=\"d-";
    assert_eq!(text.matches(newest).count(), 1, "{text}");
    let began =
        "deployment_timestamp_seconds{application=\"shop\",group=\"web\",outcome=\"succeeded\"}";
    assert!(value(&text, began) > Some(1.7e9), "{text}");
    let elsewhere = get(agent, "/").await;
    assert!(
        !format!("{elsewhere:?}").contains("codedeploy_agent_"),
        "{elsewhere:?}"
    );
    wait::until("the file", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let done = "commands_total{event=\"ApplicationStart\",outcome=\"succeeded\"}";
        match value(&text, done) {
            Some(1.0) => Ok(()),
            _ => Err(text),
        }
    })
    .await;
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    fleet.stop().await;
}

#[tokio::test]
async fn an_agent_can_offer_its_metrics_on_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("metrics.sock");
    let fleet = Fleet::start(1, &format!("metrics_listen: {}\n", socket.display())).await;
    let text = wait::until("the socket", async || {
        let mut stream = tokio::net::UnixStream::connect(&socket).await?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n")
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    })
    .await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("build_info"),
        "{text}"
    );
    fleet.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn bad_readers_do_not_keep_others_from_the_metrics() {
    let agent: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let fleet = Fleet::start(1, &format!("metrics_listen: {agent}\n")).await;
    wait::until("the metrics", async || get(agent, "/metrics").await).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(tokio::net::TcpStream::connect(agent).await.unwrap());
    }
    let began = Instant::now();
    get(agent, "/metrics").await.unwrap();
    // A request with a body has an answer, too.
    let mut stream = tokio::net::TcpStream::connect(agent).await.unwrap();
    let post = b"POST /metrics HTTP/1.1\r\nHost: agent\r\nContent-Length: 1\r\n\r\nx";
    stream.write_all(post).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    // One of the silent readers alone is waited for for five seconds.
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(silent);
    fleet.stop().await;
}

#[tokio::test]
async fn an_address_in_use_does_not_keep_an_agent_from_its_work() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = taken.local_addr().unwrap();
    let fleet = Fleet::start(1, &format!("metrics_listen: {agent}\n")).await;
    assert_eq!(deploy(&fleet, "exit 0").await, "Succeeded");
    drop(taken);
    let text = wait::until("the metrics", async || get(agent, "/metrics").await).await;
    let done = "commands_total{event=\"Install\",outcome=\"succeeded\"}";
    assert_eq!(value(&text, done), Some(1.0), "{text}");
    fleet.stop().await;
}

#[test]
fn the_page_lists_every_metric_of_the_agent() {
    let path = repository().join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (_, section) = page.split_once("\n## The agent\n").unwrap();
    let listed: String = section
        .lines()
        .skip_while(|line| !line.starts_with("| metric "))
        .take_while(|line| line.starts_with('|'))
        .map(|line| format!("{line}\n"))
        .collect();
    let declared = codedeploy_support::metrics::table(&codedeploy_agent::metrics::descriptions());
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, page.replace(&listed, &declared)).unwrap();
    } else {
        assert_eq!(
            listed, declared,
            "INSTA_UPDATE=always writes docs/metrics.md anew"
        );
    }
}
