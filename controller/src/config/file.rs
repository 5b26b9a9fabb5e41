//! The configuration file: its format, and the settings that result from it and the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codedeploy_planner::Timers;
use serde::Deserialize;

use super::{
    Arguments, ConfigError, Endpoint, Partition, Quotas, S3Folder, Settings, Tls, is_name,
};
use crate::config::alarms::Alarms;
use crate::config::console::FileConsole;
use crate::config::events::Events;
use crate::config::identity_providers::FileProviders;
use crate::config::load_balancers::Balancers;
use crate::config::metrics::FileMetrics;
use crate::config::retention::{DeploymentRetention, FileAudit, FileDeployments, Retention};
use crate::config::script_logs::FileScriptLogs;
use crate::config::traces::Traces;
use crate::logging::{Format, Logging, Threshold};
use crate::objects;

/// The largest configuration file, in bytes.
pub(super) const MAX_SIZE: u64 = 1024 * 1024;

/// The keys of [`File`]. Unknown keys are found before it is read, so that all of them are
/// reported.
pub(super) const KEYS: [&str; 23] = [
    "listen",
    "region",
    "account_id",
    "insecure_http",
    "endpoint",
    "log_level",
    "log_format",
    "tls",
    "ca_bundle",
    "s3",
    "timers",
    "quotas",
    "audit",
    "deployments",
    "script_logs",
    "load_balancers",
    "alarms",
    "events",
    "identity_providers",
    "traces",
    "metrics",
    "console",
    "strict_names",
];

/// The format of the configuration file. Times are in seconds; fractions are allowed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) struct File {
    listen: Option<String>,
    region: Option<String>,
    account_id: Option<String>,
    insecure_http: Option<bool>,
    endpoint: Option<String>,
    #[serde(default)]
    log_level: Threshold,
    #[serde(default)]
    log_format: Format,
    #[serde(default)]
    tls: FileTls,
    ca_bundle: Option<PathBuf>,
    s3: Option<FileS3>,
    #[serde(default)]
    timers: FileTimers,
    #[serde(default)]
    quotas: FileQuotas,
    #[serde(default)]
    audit: FileAudit,
    #[serde(default)]
    deployments: FileDeployments,
    #[serde(default)]
    script_logs: FileScriptLogs,
    #[serde(default)]
    load_balancers: Balancers,
    #[serde(default)]
    alarms: Alarms,
    #[serde(default)]
    events: Events,
    #[serde(default)]
    identity_providers: FileProviders,
    traces: Option<Traces>,
    metrics: Option<FileMetrics>,
    console: Option<FileConsole>,
    strict_names: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "names of timers with numbers of seconds"
)]
struct FileTimers {
    poll: Option<f64>,
    request: Option<f64>,
    lease: Option<f64>,
    pick_up: Option<f64>,
    run: Option<f64>,
    deployment: Option<f64>,
    blue_green: Option<f64>,
    traffic: Option<f64>,
    alarms: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "names of quotas with whole numbers")]
struct FileQuotas {
    applications: Option<usize>,
    deployment_groups_per_application: Option<usize>,
    deployment_configs: Option<usize>,
    active_deployments: Option<usize>,
    targets_per_deployment: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as self_signed: true")]
struct FileTls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    self_signed: Option<bool>,
    names: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as buckets, or {}")]
struct FileS3 {
    folder: Option<PathBuf>,
    buckets: Option<Vec<String>>,
    keep_versions: Option<usize>,
    keep_days: Option<f64>,
}

/// The problems of the settings; reading continues after each.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<ConfigError>);

impl Problems {
    fn note<T, E: Into<ConfigError>>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(error.into())).ok()
    }

    fn note_all<T, E: Into<ConfigError>>(&mut self, result: Result<T, Vec<E>>) -> Option<T> {
        let noted = result.map_err(|errors| self.0.extend(errors.into_iter().map(Into::into)));
        noted.ok()
    }
}

impl File {
    /// Combines the file and the command line; returns all contradictions, if there are any.
    pub(super) fn settle(self, arguments: Arguments) -> Result<Settings, Vec<ConfigError>> {
        let mut problems = Problems::default();
        let said = self
            .listen
            .map(|text| text.parse().map_err(|_| ConfigError::Listen(text)))
            .transpose();
        let listen = problems.note(said).map(|said: Option<SocketAddr>| {
            arguments
                .listen
                .or(said)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7080)))
        });
        let endpoint = self
            .endpoint
            .map(|text| Endpoint::read(&text).ok_or(ConfigError::Endpoint(text)));
        let endpoint = problems.note(endpoint.transpose());
        let insecure_http = arguments.insecure_http || self.insecure_http.unwrap_or(false);
        let tls = self
            .tls
            .settle(listen, endpoint.clone().flatten().as_ref(), &mut problems);
        if let Some((listen, Tls::Off)) = listen.zip(tls.as_ref())
            && !listen.ip().is_loopback()
            && !insecure_http
        {
            problems.0.push(ConfigError::PlainHttp(listen));
        }
        let watches = !self.events.watches.is_empty();
        if watches && self.s3.is_none() && self.events.token.is_none() {
            problems.0.push(ConfigError::DeafWatches);
        }
        let s3 = self
            .s3
            .map(|s3| s3.settle(&arguments.data_dir, &mut problems));
        problems
            .0
            .extend(self.events.mistakes().into_iter().map(ConfigError::Events));
        let of_others = self
            .load_balancers
            .mistakes()
            .into_iter()
            .chain(self.alarms.mistakes());
        problems.0.extend(of_others.map(ConfigError::Other));
        let ca_bundle = self
            .ca_bundle
            .map(|path| absolute("ca_bundle", path))
            .transpose();
        let ca_bundle = problems.note(ca_bundle);
        let region = arguments.region.or(self.region);
        let account_id = arguments.account_id.or(self.account_id);
        let partition = problems.note_all(Partition::new(region, account_id));
        let timers = self.timers.settle(&mut problems);
        let mut age = |key, days: Option<f64>| {
            let age = days.map(|days| keep(key, days));
            problems.note(age.transpose()).flatten()
        };
        let retention = Retention {
            deployments: DeploymentRetention {
                age: age("deployments.keep_days", self.deployments.keep_days),
                per_group: self.deployments.keep_per_group,
            },
            script_logs: age("script_logs.keep_days", self.script_logs.keep_days),
            audit: age("audit.keep_days", self.audit.keep_days),
        };
        if retention.deployments.per_group == Some(0) {
            problems.0.push(ConfigError::KeepPerGroup);
        }
        let script_logs = self.script_logs.settle();
        let script_logs = problems.note(script_logs.map_err(ConfigError::ScriptLogBytes));
        let metrics = self.metrics.map(FileMetrics::settle).transpose();
        let metrics = problems.note_all(metrics).flatten();
        let traces = self.traces.as_ref().map(Traces::mistakes);
        problems
            .0
            .extend(traces.into_iter().flatten().map(ConfigError::Traces));
        let identity_providers = self.identity_providers.settle();
        let known = identity_providers.as_deref().ok();
        let console = self.console.map(|console| console.settle(known));
        let console = problems.note_all(console.transpose()).flatten();
        let identity_providers = problems.note_all(identity_providers).unwrap_or_default();
        match (listen, endpoint, tls, ca_bundle, partition) {
            (Some(listen), Some(endpoint), Some(tls), Some(ca_bundle), Some(partition))
                if problems.0.is_empty() =>
            {
                Ok(Settings {
                    data_dir: arguments.data_dir,
                    config_file: arguments.config_file,
                    logging: Logging {
                        level: self.log_level,
                        format: self.log_format,
                    },
                    listen,
                    tls,
                    ca_bundle,
                    endpoint,
                    s3,
                    partition,
                    timers,
                    quotas: self.quotas.settle(),
                    retention,
                    script_logs: script_logs.unwrap_or_default(),
                    balancers: self.load_balancers,
                    alarms: self.alarms,
                    events: self.events,
                    identity_providers,
                    traces: self.traces,
                    metrics,
                    console,
                    strict_names: self.strict_names.unwrap_or(false),
                })
            }
            _ => Err(problems.0),
        }
    }
}

impl FileTls {
    /// The address and the endpoint are passed if they are known.
    fn settle(
        self,
        listen: Option<SocketAddr>,
        endpoint: Option<&Endpoint>,
        problems: &mut Problems,
    ) -> Option<Tls> {
        let before = problems.0.len();
        let self_signed = self.self_signed.unwrap_or(false);
        if self.names.is_some() && !self_signed {
            problems.0.push(ConfigError::NamesOfGiven);
        }
        let wrong = self.names.iter().flatten().filter(|name| !is_name(name));
        problems
            .0
            .extend(wrong.map(|name| ConfigError::Name(name.clone())));
        let certificate = self
            .certificate
            .map(|path| absolute("tls.certificate", path));
        let key = self.key.map(|path| absolute("tls.key", path));
        let half = |given, missing| ConfigError::HalfACertificate { given, missing };
        let tls = match (certificate, key) {
            (Some(_), Some(_)) if self_signed => {
                problems.0.push(ConfigError::TwoCertificates);
                return None;
            }
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (problems.note(certificate), problems.note(key));
                Tls::Given {
                    certificate: certificate?,
                    key: key?,
                }
            }
            (Some(_), None) => {
                problems.0.push(half("certificate", "key"));
                return None;
            }
            (None, Some(_)) => {
                problems.0.push(half("key", "certificate"));
                return None;
            }
            (None, None) if self_signed => {
                let mut names = self.names.unwrap_or_default();
                names.extend(endpoint.map(|endpoint| endpoint.host().to_owned()));
                let address = listen
                    .map(|listen| listen.ip())
                    .filter(|ip| !ip.is_unspecified());
                names.extend(address.map(|ip| ip.to_string()));
                names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
                let mut known = std::collections::HashSet::new();
                names.retain(|name| known.insert(name.clone()));
                Tls::SelfSigned { names }
            }
            (None, None) => Tls::Off,
        };
        // A proxy in front may add TLS, but nothing removes it.
        if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_tls() && tls != Tls::Off) {
            problems.0.push(ConfigError::Scheme {
                endpoint: endpoint.url().to_owned(),
            });
        }
        (problems.0.len() == before).then_some(tls)
    }
}

impl FileS3 {
    fn settle(self, data_dir: &Path, problems: &mut Problems) -> S3Folder {
        let buckets = self.buckets.unwrap_or_else(|| vec!["revisions".into()]);
        let wrong = buckets.iter().filter(|name| !objects::is_bucket(name));
        problems
            .0
            .extend(wrong.map(|name| ConfigError::Bucket(name.clone())));
        let folder = self
            .folder
            .map(|folder| absolute("s3.folder", folder))
            .transpose();
        let folder = problems
            .note(folder)
            .flatten()
            .unwrap_or_else(|| data_dir.join("s3"));
        if self.keep_versions == Some(0) {
            problems.0.push(ConfigError::KeepVersions);
        }
        let time = self.keep_days.map(|days| keep("s3.keep_days", days));
        let time = problems.note(time.transpose()).flatten();
        S3Folder {
            folder,
            buckets,
            retention: objects::Retention {
                versions: self.keep_versions,
                time,
            },
        }
    }
}

/// Reads a retention time in days.
fn keep(key: &'static str, days: f64) -> Result<Duration, ConfigError> {
    if days > 0.0 && days <= 36_500.0 {
        Ok(Duration::from_secs_f64(days * 86_400.0))
    } else {
        Err(ConfigError::KeepDays { key, days })
    }
}

fn absolute(key: &'static str, path: PathBuf) -> Result<PathBuf, ConfigError> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(ConfigError::Relative { key, path })
    }
}

impl FileTimers {
    fn settle(self, problems: &mut Problems) -> Timers {
        let default = Timers::default();
        let mut seconds = |name, given: Option<f64>, default| match given {
            None => default,
            Some(seconds) if (0.001..=31_536_000.0).contains(&seconds) => {
                Duration::from_secs_f64(seconds)
            }
            Some(seconds) => {
                problems.0.push(ConfigError::Timer { name, seconds });
                default
            }
        };
        let timers = Timers {
            poll: seconds("poll", self.poll, default.poll),
            request: seconds("request", self.request, default.request),
            lease: seconds("lease", self.lease, default.lease),
            pick_up: seconds("pick_up", self.pick_up, default.pick_up),
            run: seconds("run", self.run, default.run),
            deployment: seconds("deployment", self.deployment, default.deployment),
            blue_green: seconds("blue_green", self.blue_green, default.blue_green),
            traffic: seconds("traffic", self.traffic, default.traffic),
            alarms: seconds("alarms", self.alarms, default.alarms),
        };
        if timers.poll > Duration::from_secs(75) {
            problems
                .0
                .push(ConfigError::PollTooLong { poll: timers.poll });
        }
        timers
    }
}

impl FileQuotas {
    fn settle(self) -> Quotas {
        let default = Quotas::default();
        Quotas {
            applications: self.applications.unwrap_or(default.applications),
            deployment_groups_per_application: self
                .deployment_groups_per_application
                .unwrap_or(default.deployment_groups_per_application),
            deployment_configs: self
                .deployment_configs
                .unwrap_or(default.deployment_configs),
            active_deployments: self
                .active_deployments
                .unwrap_or(default.active_deployments),
            targets_per_deployment: self
                .targets_per_deployment
                .unwrap_or(default.targets_per_deployment),
        }
    }
}
