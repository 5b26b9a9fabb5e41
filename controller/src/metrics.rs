//! The service's metrics: counts of what happens, and gauges of its state, which is read when
//! somebody asks.
//!
//! Without `metrics` in the settings there are none. Label values are words of this program, names
//! of the settings, or names in the registry; nothing that an unauthenticated client sends becomes
//! one.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use codedeploy_support::metrics::{
    Catalogue, Counter, Description, Gauge, Histogram, Labelled, QUICK, SLOW,
};

/// The outcomes of deployments and their creators, in AWS's words.
const OUTCOMES: [&str; 3] = ["Succeeded", "Failed", "Stopped"];
const CREATORS: [&str; 2] = ["user", "codeDeployRollback"];

/// The number of deployment groups whose counters exist before their first deployment, so that a
/// rate sees it.
const AT_ZERO: usize = 500;

/// Upper bounds of buckets for the number of pieces of work in one transaction.
const JOBS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The metrics of a running service. Measuring changes atomic numbers.
#[derive(Debug)]
pub struct Metrics {
    catalogue: Catalogue,
    /// One reader at a time fills the gauges.
    pub filling: Mutex<()>,
    /// By API, operation and HTTP status.
    pub requests: Labelled<Counter, 3>,
    /// By API and operation.
    pub request_seconds: Labelled<Histogram, 2>,
    /// By the name of the error.
    pub refused_requests: Labelled<Counter, 1>,
    pub held_polls: Gauge,
    deployments: Labelled<Counter, 4>,
    deployment_seconds: Labelled<Histogram, 1>,
    lead_seconds: Labelled<Histogram, 1>,
    restore_seconds: Labelled<Histogram, 1>,
    pub pickup_seconds: Histogram,
    pub decision_seconds: Histogram,
    pub store: StoreMetrics,
    /// By alarm.
    pub alarm_active: Labelled<Gauge, 1>,
    pub alarm_read_errors: Labelled<Counter, 1>,
    /// By `succeeded` or `failed`.
    pub traffic_changes: Labelled<Counter, 1>,
    /// By receiver, and `accepted`, `delayed` or `dropped`.
    pub messages: Labelled<Counter, 2>,
    /// By `sent` or `dropped`.
    pub traces: Labelled<Counter, 1>,
    /// By kind.
    pub deleted_records: Labelled<Counter, 1>,
    pub state: State,
}

/// The metrics of the database's thread.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    pub batch_jobs: Histogram,
    pub commit_seconds: Histogram,
    pub queue: Gauge,
}

/// The gauges that are filled when somebody asks.
#[derive(Debug)]
pub struct State {
    pub hosts: Labelled<Gauge, 1>,
    pub deployments: Labelled<Gauge, 1>,
    pub targets: Labelled<Gauge, 1>,
    pub outbox_messages: Labelled<Gauge, 1>,
    pub outbox_oldest: Labelled<Gauge, 1>,
    /// Absent without TLS.
    pub certificate_expiry: Labelled<Gauge, 0>,
    pub credentials_expiring: Labelled<Gauge, 1>,
    pub object_bytes: Labelled<Gauge, 1>,
}

/// A deployment that has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    pub application: &'a str,
    pub group: &'a str,
    pub creator: &'a str,
    pub outcome: &'a str,
    /// The time from its creation to its end.
    pub took: Duration,
    /// The time from the registration of its revision to its end, if the group got the revision for
    /// the first time.
    pub lead: Option<Duration>,
    /// The time from the first failure since the group's last success to this success, if there was
    /// one.
    pub restored_after: Option<Duration>,
}

/// Returns all metrics, for the documentation.
pub fn descriptions() -> Vec<Description> {
    Metrics::new().catalogue.descriptions().to_vec()
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut all = Catalogue::new("codedeploy_controller");
        let build = all.gauges(
            "build_info",
            ["version"],
            "Always 1, with the version of the program",
        );
        build.with([env!("CARGO_PKG_VERSION")]).set(1);
        let requests = all.counters(
            "requests",
            ["api", "operation", "code"],
            "Requests that were answered, by API (`codedeploy`, `controller`, `commands` of agents, `sts`, `s3`, `console`, `other`), operation and \
             HTTP status",
        );
        let request_seconds = all.histograms(
            "request_duration_seconds",
            ["api", "operation"],
            QUICK,
            "Time from the head of a request to its response; a poll is held until there is a command, at most `timers.poll`",
        );
        let refused_requests = all.counters(
            "refused_requests",
            ["reason"],
            "Requests that were refused or failed, by the name of the error without `Exception`",
        );
        let held_polls = all.gauge("held_polls", "Polls of hosts that wait for a command");
        let deployments = all.counters(
            "deployments",
            ["application", "group", "creator", "outcome"],
            "Deployments that ended, by deployment group, creator (`user`, `codeDeployRollback`) and status",
        );
        let deployment_seconds = all.histograms(
            "deployment_duration_seconds",
            ["outcome"],
            SLOW,
            "Time from the creation of a deployment to its end",
        );
        let lead_seconds = all.histograms(
            "deployment_lead_time_seconds",
            ["application"],
            SLOW,
            "Time from the registration of a revision to the end of its first successful deployment to a group",
        );
        let restore_seconds = all.histograms(
            "deployment_restore_seconds",
            ["application"],
            SLOW,
            "Time from the end of a group's first failed deployment to the end of its next successful one",
        );
        let pickup_seconds = all.histogram(
            "command_pickup_seconds",
            QUICK,
            "Time from the creation of a command to the poll of its host that received it",
        );
        let decision_seconds = all.histogram(
            "decision_duration_seconds",
            QUICK,
            "Time for one decision about a deployment, until it is on disk",
        );
        let store = StoreMetrics {
            batch_jobs: all.histogram(
                "store_batch_jobs",
                JOBS,
                "Pieces of work that were committed together",
            ),
            commit_seconds: all.histogram(
                "store_commit_seconds",
                QUICK,
                "Time in which a transaction was written to disk",
            ),
            queue: all.gauge(
                "store_queue",
                "Pieces of work that wait for the database's thread",
            ),
        };
        let alarm_active = all.gauges(
            "alarm_active",
            ["alarm"],
            "1 if the alarm was active when it was last read, else 0; alarms are read for deployments in progress",
        );
        let alarm_read_errors = all.counters(
            "alarm_read_errors",
            ["alarm"],
            "Reads of an alarm that failed, each with its retry",
        );
        let traffic_changes = all.counters(
            "traffic_changes",
            ["outcome"],
            "Changes of traffic at load balancers, by outcome (`succeeded`, `failed`)",
        );
        let messages = all.counters(
            "messages",
            ["receiver", "outcome"],
            "Attempts to deliver a message, by receiver and outcome (`accepted`, `delayed`, `dropped`)",
        );
        let traces = all.counters(
            "traces",
            ["outcome"],
            "Traces of deployments, by outcome: `sent` to the collector, `dropped` because it was away or too many waited",
        );
        for outcome in ["sent", "dropped"] {
            traces.with([outcome]);
        }
        let deleted_records = all.counters(
            "deleted_records",
            ["kind"],
            "Records that were deleted because they were old by the settings, by kind (`deployment`, `script_log`, `audit_entry`)",
        );
        for kind in ["deployment", "script_log", "audit_entry"] {
            deleted_records.with([kind]);
        }
        let state = State {
            hosts: all.gauges(
                "hosts",
                ["state"],
                "Registered hosts: `polling` called within the last 3 minutes, `silent` did not, `never_seen` never did",
            ),
            deployments: all.gauges(
                "deployments",
                ["status"],
                "Deployments in progress, by status",
            ),
            targets: all.gauges(
                "targets",
                ["status"],
                "Targets of the deployments in progress, by status",
            ),
            outbox_messages: all.gauges(
                "outbox_messages",
                ["receiver"],
                "Messages that wait for their receiver",
            ),
            outbox_oldest: all.gauges(
                "outbox_oldest_timestamp_seconds",
                ["receiver"],
                "Time at which the oldest waiting message was made; absent if none waits",
            ),
            certificate_expiry: all.gauges(
                "certificate_expiry_timestamp_seconds",
                [],
                "Time at which the service's certificate expires; absent without TLS",
            ),
            credentials_expiring: all.gauges(
                "credentials_expiring",
                ["role"],
                "Access keys that expire within the next 7 days, by role, without those of assumed roles",
            ),
            object_bytes: all.gauges(
                "object_bytes",
                ["bucket"],
                "Bytes of all versions in a bucket, counted at most every 5 minutes; absent without `s3`",
            ),
        };
        for outcome in ["succeeded", "failed"] {
            traffic_changes.with([outcome]);
        }
        Metrics {
            catalogue: all,
            filling: Mutex::new(()),
            requests,
            request_seconds,
            refused_requests,
            held_polls,
            deployments,
            deployment_seconds,
            lead_seconds,
            restore_seconds,
            pickup_seconds,
            decision_seconds,
            store,
            alarm_active,
            alarm_read_errors,
            traffic_changes,
            messages,
            traces,
            deleted_records,
            state,
        }
    }

    /// Returns the present values of all metrics.
    pub fn text(&self) -> String {
        self.catalogue.text()
    }

    pub fn note_end(&self, ended: &Ended<'_>) {
        let name = |text: &str| text.to_owned();
        let by = [ended.application, ended.group, ended.creator, ended.outcome];
        self.deployments.with(by.map(name)).inc();
        self.deployment_seconds
            .with([name(ended.outcome)])
            .observe(ended.took.as_secs_f64());
        for (seconds, time) in [
            (&self.lead_seconds, ended.lead),
            (&self.restore_seconds, ended.restored_after),
        ] {
            if let Some(time) = time {
                seconds
                    .with([name(ended.application)])
                    .observe(time.as_secs_f64());
            }
        }
    }

    /// Drops the metrics of deployment groups that do not exist, given the existing ones as pairs
    /// of application and group, and makes those of the others.
    pub fn know_groups(&self, groups: &BTreeSet<(String, String)>) {
        let applications: BTreeSet<&str> = groups.iter().map(|(name, _)| name.as_str()).collect();
        self.deployments.retain(|[application, group, ..]| {
            groups.contains(&(application.to_string(), group.to_string()))
        });
        for seconds in [&self.lead_seconds, &self.restore_seconds] {
            seconds.retain(|[application]| applications.contains(application.as_ref()));
        }
        for (application, group) in groups.iter().take(AT_ZERO) {
            for (creator, outcome) in CREATORS
                .into_iter()
                .flat_map(|creator| OUTCOMES.map(|outcome| (creator, outcome)))
            {
                let by = [application.as_str(), group, creator, outcome];
                self.deployments.with(by.map(str::to_owned));
            }
        }
    }
}
