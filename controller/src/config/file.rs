//! The configuration file: what it may say, and what follows from it and the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::alarms::Alarms;
use crate::events::Events;
use crate::logging::{Format, Logging, Threshold};
use crate::objects::Retention;
use crate::traffic::Balancers;

use super::{Arguments, ConfigError, Endpoint, Partition, Quotas, S3Folder, Settings, Timers, Tls, is_name};

/// Most bytes of a configuration file.
pub(super) const MAX_SIZE: u64 = 1024 * 1024;

/// The keys of [`File`]. Others are found before it is read, so that all of them are told.
pub(super) const KEYS: [&str; 15] = [
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
    "load_balancers",
    "alarms",
    "events",
];

/// What the configuration file may say. Times are in seconds, fractions allowed.
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
    load_balancers: Balancers,
    #[serde(default)]
    alarms: Alarms,
    #[serde(default)]
    events: Events,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "names of timers with numbers of seconds")]
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

/// What is wrong with the settings; reading goes on after each.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<ConfigError>);

impl Problems {
    fn note<T, E: Into<ConfigError>>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(error.into())).ok()
    }
}

impl File {
    /// What follows from the file and the command line; where something does not fit, all that does not.
    pub(super) fn settle(self, arguments: Arguments) -> Result<Settings, Vec<ConfigError>> {
        let mut problems = Problems::default();
        let said = self.listen.map(|text| text.parse().map_err(|_| ConfigError::Listen(text))).transpose();
        let listen = problems.note(said).map(|said: Option<SocketAddr>| {
            arguments.listen.or(said).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7080)))
        });
        let endpoint = self.endpoint.map(|text| Endpoint::read(&text).ok_or(ConfigError::Endpoint(text)));
        let endpoint = problems.note(endpoint.transpose());
        let tls = listen.zip(endpoint.as_ref()).and_then(|(listen, endpoint)| {
            let tls = problems.note(self.tls.settle(listen, endpoint.as_ref()))?;
            let insecure_http = arguments.insecure_http || self.insecure_http.unwrap_or(false);
            if tls == Tls::Off && !listen.ip().is_loopback() && !insecure_http {
                problems.0.push(ConfigError::PlainHttp(listen));
            }
            Some(tls)
        });
        let (has_s3, watches) = (self.s3.is_some(), !self.events.watches.is_empty());
        let s3 = problems.note(self.s3.map(|s3| s3.settle(&arguments.data_dir)).transpose());
        if watches && !has_s3 && self.events.token.is_none() {
            problems.0.push(ConfigError::DeafWatches);
        }
        problems.note(self.events.check());
        let of_others = self.load_balancers.mistakes().into_iter().chain(self.alarms.mistakes());
        problems.0.extend(of_others.map(ConfigError::Other));
        let ca_bundle = self.ca_bundle.map(|path| absolute("ca_bundle", path)).transpose();
        let ca_bundle = problems.note(ca_bundle);
        let region = arguments.region.or(self.region);
        let partition = problems.note(Partition::new(region, arguments.account_id.or(self.account_id)));
        let timers = problems.note(self.timers.settle());
        match (listen, endpoint, tls, ca_bundle, s3, partition, timers) {
            (
                Some(listen),
                Some(endpoint),
                Some(tls),
                Some(ca_bundle),
                Some(s3),
                Some(partition),
                Some(timers),
            ) if problems.0.is_empty() => Ok(Settings {
                data_dir: arguments.data_dir,
                config_file: arguments.config_file,
                logging: Logging { level: self.log_level, format: self.log_format },
                listen,
                tls,
                ca_bundle,
                endpoint,
                s3,
                partition,
                timers,
                quotas: self.quotas.settle(),
                balancers: self.load_balancers,
                alarms: self.alarms,
                events: self.events,
            }),
            _ => Err(problems.0),
        }
    }
}

impl FileTls {
    fn settle(self, listen: SocketAddr, endpoint: Option<&Endpoint>) -> Result<Tls, ConfigError> {
        let half = |given, missing| Err(ConfigError::HalfACertificate { given, missing });
        let self_signed = self.self_signed.unwrap_or(false);
        if self.names.is_some() && !self_signed {
            return Err(ConfigError::NamesOfGiven);
        }
        let tls = match (self.certificate, self.key) {
            (Some(_), Some(_)) if self_signed => return Err(ConfigError::TwoCertificates),
            (Some(certificate), Some(key)) => Tls::Given {
                certificate: absolute("tls.certificate", certificate)?,
                key: absolute("tls.key", key)?,
            },
            (Some(_), None) => return half("certificate", "key"),
            (None, Some(_)) => return half("key", "certificate"),
            (None, None) if self_signed => {
                let mut names = self.names.unwrap_or_default();
                if let Some(name) = names.iter().find(|name| !is_name(name)) {
                    return Err(ConfigError::Name(name.clone()));
                }
                names.extend(endpoint.map(|endpoint| endpoint.host().to_owned()));
                names.extend((!listen.ip().is_unspecified()).then(|| listen.ip().to_string()));
                names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
                let mut known = std::collections::HashSet::new();
                names.retain(|name| known.insert(name.clone()));
                Tls::SelfSigned { names }
            }
            (None, None) => Tls::Off,
        };
        match endpoint {
            // A proxy in front may add TLS; nothing takes it away again.
            Some(endpoint) if !endpoint.is_tls() && tls != Tls::Off => {
                Err(ConfigError::Scheme { endpoint: endpoint.url().to_owned() })
            }
            _ => Ok(tls),
        }
    }
}

impl FileS3 {
    fn settle(self, data_dir: &Path) -> Result<S3Folder, ConfigError> {
        let buckets = self.buckets.unwrap_or_else(|| vec!["revisions".into()]);
        if let Some(wrong) = buckets.iter().find(|name| !crate::objects::is_bucket(name)) {
            return Err(ConfigError::Bucket(wrong.clone()));
        }
        let folder = self.folder.map(|folder| absolute("s3.folder", folder)).transpose()?;
        let days = |days: f64| match days > 0.0 && days <= 36_500.0 {
            true => Ok(Duration::from_secs_f64(days * 86_400.0)),
            false => Err(ConfigError::KeepDays(days)),
        };
        if self.keep_versions == Some(0) {
            return Err(ConfigError::KeepVersions);
        }
        let retention =
            Retention { versions: self.keep_versions, time: self.keep_days.map(days).transpose()? };
        Ok(S3Folder { folder: folder.unwrap_or_else(|| data_dir.join("s3")), buckets, retention })
    }
}

fn absolute(key: &'static str, path: PathBuf) -> Result<PathBuf, ConfigError> {
    if path.is_absolute() { Ok(path) } else { Err(ConfigError::Relative { key, path }) }
}

impl FileTimers {
    fn settle(self) -> Result<Timers, ConfigError> {
        let default = Timers::default();
        let timers = Timers {
            poll: seconds("poll", self.poll, default.poll)?,
            request: seconds("request", self.request, default.request)?,
            lease: seconds("lease", self.lease, default.lease)?,
            pick_up: seconds("pick_up", self.pick_up, default.pick_up)?,
            run: seconds("run", self.run, default.run)?,
            deployment: seconds("deployment", self.deployment, default.deployment)?,
            blue_green: seconds("blue_green", self.blue_green, default.blue_green)?,
            traffic: seconds("traffic", self.traffic, default.traffic)?,
            alarms: seconds("alarms", self.alarms, default.alarms)?,
        };
        if timers.poll > Duration::from_secs(75) {
            return Err(ConfigError::PollTooLong { poll: timers.poll });
        }
        Ok(timers)
    }
}

fn seconds(name: &'static str, given: Option<f64>, default: Duration) -> Result<Duration, ConfigError> {
    match given {
        None => Ok(default),
        Some(seconds) if (0.001..=31_536_000.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Some(seconds) => Err(ConfigError::Timer { name, seconds }),
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
            deployment_configs: self.deployment_configs.unwrap_or(default.deployment_configs),
            active_deployments: self.active_deployments.unwrap_or(default.active_deployments),
            targets_per_deployment: self.targets_per_deployment.unwrap_or(default.targets_per_deployment),
        }
    }
}
