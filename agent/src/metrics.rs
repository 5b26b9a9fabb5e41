//! The agent's metrics: counts of what it does, and gauges of its state, which are filled when
//! somebody asks.
//!
//! Without `metrics_listen` and `metrics_textfile` in the settings there are none
//! ([`crate::exporter`]).

pub mod place;

use std::sync::atomic::{AtomicBool, Ordering};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::install::Summary;
use codedeploy_support::metrics::{
    Catalogue, Counter, Description, Gauge, Histogram, Labelled, SLOW,
};
use tokio::sync::Notify;

/// The events of the AppSpec file that are not standard share this label value.
const CUSTOM: &str = "custom";

/// The counters of a running agent. Counting changes atomic numbers.
#[derive(Debug)]
pub struct Metrics {
    catalogue: Catalogue,
    polls: Labelled<Counter, 1>,
    commands: Labelled<Counter, 2>,
    event_seconds: Labelled<Histogram, 1>,
    scripts: Labelled<Counter, 2>,
    downloaded_bytes: Labelled<Counter, 1>,
    install_files: Labelled<Counter, 1>,
    rollbacks: Labelled<Counter, 1>,
    recoveries: Counter,
    leaked_processes: Counter,
    pub(crate) last_poll: Labelled<Gauge, 0>,
    pub(crate) outbox_commands: Gauge,
    pub(crate) outbox_oldest: Labelled<Gauge, 0>,
    pub(crate) archive_bytes: Labelled<Gauge, 0>,
    pub(crate) deployment_info: Labelled<Gauge, 3>,
    pub(crate) deployment_time: Labelled<Gauge, 3>,
    /// Whether something has happened since the archives were measured.
    stale: AtomicBool,
    /// Something has been counted since the text was written.
    pub(crate) changed: Notify,
}

/// Returns all metrics, for the documentation.
pub fn descriptions() -> Vec<Description> {
    Metrics::new().catalogue.descriptions().to_vec()
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut all = Catalogue::new("codedeploy_agent");
        let build = all.gauges(
            "build_info",
            ["version"],
            "Always 1, with the version of the program",
        );
        build.with([env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Metrics {
            polls: all.counters(
                "polls",
                ["outcome"],
                "Polls that the service answered, and polls that failed (`answered`, `failed`)",
            ),
            last_poll: all.gauges(
                "last_successful_poll_timestamp_seconds",
                [],
                "Time of the last answered poll; absent before the first",
            ),
            commands: all.counters(
                "commands",
                ["event", "outcome"],
                "Commands that ended, by lifecycle event (`custom` for events that only an AppSpec file has) and outcome \
                 (`succeeded`, `failed`)",
            ),
            event_seconds: all.histograms(
                "event_duration_seconds",
                ["event"],
                SLOW,
                "Time from the beginning of a lifecycle event to its end",
            ),
            scripts: all.counters(
                "scripts",
                ["event", "outcome"],
                "Scripts that ended, by lifecycle event and outcome (`succeeded`, `failed`)",
            ),
            downloaded_bytes: all.counters(
                "downloaded_bytes",
                ["source"],
                "Bytes of downloaded bundles, by source (`s3`, `github`)",
            ),
            install_files: all.counters(
                "install_files",
                ["action"],
                "Files and folders that Install handled, by action (`created`, `replaced`, `removed`, `kept`, `unchanged`)",
            ),
            outbox_commands: all.gauge(
                "outbox_commands",
                "Outcomes of commands that the service has not accepted yet",
            ),
            outbox_oldest: all.gauges(
                "outbox_oldest_timestamp_seconds",
                [],
                "Time at which the oldest waiting outcome was ready; absent if none waits",
            ),
            rollbacks: all.counters(
                "rollbacks",
                ["outcome"],
                "Rollbacks after a failed deployment, by outcome (`succeeded`, `not_started` if the scripts of the previous \
                 revision failed, `failed`)",
            ),
            recoveries: all.counter(
                "recoveries",
                "Installs of an earlier run that a crash had interrupted, and that the start of the agent ended",
            ),
            leaked_processes: all.counter(
                "leaked_processes",
                "Processes that held the output of an ended script open for longer than `output_drain_seconds`",
            ),
            archive_bytes: all.gauges(
                "archive_bytes",
                [],
                "Bytes of the files in `root_dir`: bundles, archives, copies for rollbacks and logs",
            ),
            deployment_info: all.gauges(
                "deployment_info",
                ["application", "group", "deployment_id"],
                "Always 1: the newest deployment of each group of the last ten deployments on this host",
            ),
            deployment_time: all.gauges(
                "deployment_timestamp_seconds",
                ["application", "group", "outcome"],
                "Time at which that deployment began, with its outcome (`in_progress`, `succeeded`, `failed`)",
            ),
            catalogue: all,
            stale: AtomicBool::new(true),
            changed: Notify::new(),
        };
        for outcome in ["answered", "failed"] {
            metrics.polls.with([outcome]);
        }
        metrics
    }

    /// Returns the present values.
    pub(crate) fn text(&self) -> String {
        self.catalogue.text()
    }

    /// Whether a command has ended since the last call, or this is the first.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn polled(&self, answered: bool) {
        let outcome = if answered { "answered" } else { "failed" };
        self.polls.with([outcome]).inc();
    }

    pub(crate) fn event_ended(&self, event: &str, succeeded: bool, seconds: f64) {
        let event = named(event);
        self.commands.with([event, outcome(succeeded)]).inc();
        self.event_seconds.with([event]).observe(seconds);
        self.stale.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(crate) fn scripts_ended(&self, event: &LifecycleEvent, succeeded: usize, failed: usize) {
        let event = named(event.name());
        for (result, number) in [(true, succeeded), (false, failed)] {
            let number = u64::try_from(number).unwrap_or(u64::MAX);
            self.scripts.with([event, outcome(result)]).inc_by(number);
        }
    }

    pub(crate) fn downloaded(&self, source: &'static str, bytes: u64) {
        self.downloaded_bytes.with([source]).inc_by(bytes);
    }

    pub(crate) fn installed(&self, summary: &Summary) {
        for (action, number) in [
            ("created", summary.created),
            ("replaced", summary.replaced),
            ("removed", summary.removed),
            ("kept", summary.kept),
            ("unchanged", summary.unchanged),
        ] {
            let number = u64::try_from(number).unwrap_or(u64::MAX);
            self.install_files.with([action]).inc_by(number);
        }
    }

    pub(crate) fn rolled_back(&self, outcome: &'static str) {
        self.rollbacks.with([outcome]).inc();
    }

    pub(crate) fn recovered(&self, installs: usize) {
        self.recoveries
            .inc_by(u64::try_from(installs).unwrap_or(u64::MAX));
    }

    pub(crate) fn leaked(&self, processes: usize) {
        self.leaked_processes
            .inc_by(u64::try_from(processes).unwrap_or(u64::MAX));
    }
}

fn named(event: &str) -> &'static str {
    LifecycleEvent::standard_names()
        .find(|known| *known == event)
        .unwrap_or(CUSTOM)
}

fn outcome(succeeded: bool) -> &'static str {
    if succeeded { "succeeded" } else { "failed" }
}
