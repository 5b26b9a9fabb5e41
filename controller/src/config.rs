//! Settings: what the command line and the configuration file may say, and the values the service runs with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::alarms::Alarms;
use crate::traffic::Balancers;

/// What the service runs with; nothing is optional.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Holds the database, the keys and the signing certificate; mode 0700.
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub partition: Partition,
    pub timers: Timers,
    pub quotas: Quotas,
    /// The load balancers that deployments take instances out of and put them back into.
    pub balancers: Balancers,
    /// Where the states of alarms are read.
    pub alarms: Alarms,
}

/// Where this service's resources are, as its ARNs say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub region: String,
    /// Twelve digits.
    pub account_id: String,
}

/// How long the service waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// A poll without a command is answered after this time.
    pub poll: Duration,
    /// A client must have sent a request within this time, once for its head and once for its body.
    pub request: Duration,
    /// A command handed out and not acknowledged is handed out again after this time.
    pub lease: Duration,
    /// A command that no host acknowledged fails after this time.
    pub pick_up: Duration,
    /// An acknowledged command that is not completed fails after this time.
    pub run: Duration,
    /// A deployment that has not ended fails after this time.
    pub deployment: Duration,
    /// The same for a deployment that moves traffic between two fleets, with the time it waits to be continued.
    pub blue_green: Duration,
    /// A load balancer that has not done what it was asked to fails the lifecycle event after this time.
    pub traffic: Duration,
    /// The alarms of active deployments are looked at this often.
    pub alarms: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            poll: Duration::from_secs(45),
            request: Duration::from_secs(30),
            lease: Duration::from_secs(60),
            pick_up: Duration::from_secs(5 * 60),
            run: Duration::from_secs(4200),
            deployment: Duration::from_secs(8 * 3600),
            blue_green: Duration::from_secs(109 * 3600),
            traffic: Duration::from_secs(3600),
            alarms: Duration::from_secs(10),
        }
    }
}

/// Upper bounds of what clients can create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    pub applications: usize,
    pub deployment_groups_per_application: usize,
    /// Beside the predefined ones.
    pub deployment_configs: usize,
    pub active_deployments: usize,
    pub targets_per_deployment: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Quotas {
            applications: 1000,
            deployment_groups_per_application: 1000,
            deployment_configs: 200,
            active_deployments: 1000,
            targets_per_deployment: 1000,
        }
    }
}

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Arguments {
    pub data_dir: PathBuf,
    pub listen: Option<SocketAddr>,
    pub region: Option<String>,
    pub account_id: Option<String>,
    pub insecure_http: bool,
    pub config_file: Option<PathBuf>,
}

/// What the configuration file may say. Times are in seconds, fractions allowed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct File {
    listen: Option<SocketAddr>,
    region: Option<String>,
    account_id: Option<String>,
    insecure_http: Option<bool>,
    #[serde(default)]
    timers: FileTimers,
    #[serde(default)]
    quotas: FileQuotas,
    #[serde(default)]
    load_balancers: Balancers,
    #[serde(default)]
    alarms: Alarms,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
struct FileQuotas {
    applications: Option<usize>,
    deployment_groups_per_application: Option<usize>,
    deployment_configs: Option<usize>,
    active_deployments: Option<usize>,
    targets_per_deployment: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {} is not valid", path.display())]
    Parse { path: PathBuf, source: serde_yaml::Error },
    #[error("timers.{name} is {seconds}: expected a number of seconds from 0.001 to 31536000")]
    Timer { name: &'static str, seconds: f64 },
    #[error("timers.poll is {poll:?}: agents give up after 80 seconds, so it must be at most 75 seconds")]
    PollTooLong { poll: Duration },
    #[error("account id {0:?} is not twelve digits")]
    AccountId(String),
    #[error("region {0:?} is not a region name such as us-east-1: expected 1 to 32 letters, digits and '-'")]
    Region(String),
    #[error(
        "{0} is reachable from other hosts, and requests over plain http can be read by anyone between; this \
         version serves no TLS itself: listen on a loopback address behind a TLS proxy, or give --insecure-http"
    )]
    PlainHttp(SocketAddr),
}

impl Settings {
    /// The command line wins over the file, the file over the defaults.
    pub fn load(arguments: Arguments) -> Result<Settings, ConfigError> {
        let file = match &arguments.config_file {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let listen =
            arguments.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7080)));
        let insecure_http = arguments.insecure_http || file.insecure_http.unwrap_or(false);
        if !listen.ip().is_loopback() && !insecure_http {
            return Err(ConfigError::PlainHttp(listen));
        }
        Ok(Settings {
            data_dir: arguments.data_dir,
            listen,
            partition: Partition::new(
                arguments.region.or(file.region),
                arguments.account_id.or(file.account_id),
            )?,
            timers: file.timers.settle()?,
            quotas: file.quotas.settle(),
            balancers: file.load_balancers,
            alarms: file.alarms,
        })
    }
}

impl Partition {
    /// `us-east-1` and account 123456789012 where nothing is said.
    pub fn new(region: Option<String>, account_id: Option<String>) -> Result<Self, ConfigError> {
        let region = region.unwrap_or_else(|| "us-east-1".into());
        let account_id = account_id.unwrap_or_else(|| "123456789012".into());
        let of_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if region.is_empty() || region.len() > 32 || !region.chars().all(of_region) {
            return Err(ConfigError::Region(region));
        }
        if account_id.len() != 12 || !account_id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ConfigError::AccountId(account_id));
        }
        Ok(Partition { region, account_id })
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    serde_yaml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(listen: &str, insecure_http: bool, file: &str) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.yml");
        std::fs::write(&path, file).unwrap();
        Settings::load(Arguments {
            data_dir: folder.path().to_owned(),
            listen: Some(listen.parse().unwrap()),
            region: None,
            account_id: None,
            insecure_http,
            config_file: Some(path),
        })
    }

    #[test]
    fn plain_http_leaves_the_host_only_when_asked_to() {
        assert!(matches!(load("0.0.0.0:0", false, "{}"), Err(ConfigError::PlainHttp(_))));
        assert!(load("0.0.0.0:0", true, "{}").is_ok());
        assert!(load("127.0.0.1:0", false, "{}").is_ok());
        assert!(load("[::1]:0", false, "{}").is_ok());
    }

    #[test]
    fn the_file_sets_timers_and_unknown_keys_are_errors() {
        let settings = load("127.0.0.1:0", false, "timers: {pick_up: 0.5}\nregion: eu-west-1").unwrap();
        assert_eq!(settings.timers.pick_up, Duration::from_millis(500));
        assert_eq!(settings.timers.run, Timers::default().run);
        assert_eq!(settings.partition.region, "eu-west-1");
        for wrong in
            ["timer: {}", "timers: {run: 0}", "timers: {poll: 76}", "account_id: '12'", "region: '../x'"]
        {
            assert!(load("127.0.0.1:0", false, wrong).is_err(), "{wrong}");
        }
    }
}
