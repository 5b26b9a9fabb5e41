//! Mistakes in the settings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::console::ConsoleError;
use super::events::EventsError;
use super::file;
use super::identity_providers::IdentityProvidersError;
use super::metrics::MetricsError;
use super::traces::TracesError;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the configuration file {} is {found}: expected a regular file of at most {} KiB", path.display(), file::MAX_SIZE / 1024)]
    NotAFile { path: PathBuf, found: String },
    #[error("the configuration file {} is not valid: correct it, or see docs/controller/configuration.md for its keys", path.display())]
    Parse {
        path: PathBuf,
        source: serde_yaml::Error,
    },
    #[error("{}", listed(.0))]
    Several(Vec<ConfigError>),
    #[error("{place}{what}")]
    Value { place: String, what: String },
    #[error("{place}{key} is not a setting{hint}")]
    UnknownKey {
        place: String,
        key: String,
        hint: String,
    },
    #[error("the configuration file has no keys: expected settings such as listen: 127.0.0.1:7080")]
    NoKeys,
    #[error(
        "{place}s3 has no value, so it has no effect: write s3: {{}} to serve revisions, or remove it"
    )]
    NullS3 { place: String },
    #[error(
        "listen is {0:?}: expected an IP address and a port such as 127.0.0.1:7080 or [::]:7080"
    )]
    Listen(String),
    #[error(
        "events.watches is set, but new objects cannot be noticed: set s3 to serve them here, or events.token to receive notifications"
    )]
    DeafWatches,
    /// A mistake in the settings of alarms and load balancers.
    #[error("{0}")]
    Other(String),
    #[error("timers.{name} is {seconds}: expected a number of seconds from 0.001 to 31536000")]
    Timer { name: &'static str, seconds: f64 },
    #[error(
        "timers.poll is {poll:?}: agents give up after 80 seconds, so it must be at most 75 seconds"
    )]
    PollTooLong { poll: Duration },
    #[error("account id {0:?} is not twelve digits")]
    AccountId(String),
    #[error(
        "region {0:?} is not a region name such as us-east-1: expected 1 to 32 letters, digits and '-'"
    )]
    Region(String),
    #[error(
        "endpoint {0:?} is not a URL such as https://codedeploy.example.com:7080, without a path"
    )]
    Endpoint(String),
    #[error("endpoint is {endpoint}, but tls is set, so only https:// reaches the service")]
    Scheme { endpoint: String },
    #[error(
        "{0} is reachable from other hosts, and anyone on the network path can read requests over plain http: set \
         tls.self_signed: true or tls.certificate and tls.key, or listen on a loopback address behind a TLS proxy; \
         insecure_http: true (--insecure-http) serves plain http all the same"
    )]
    PlainHttp(SocketAddr),
    #[error("tls.{given} is set without tls.{missing}: give both, or tls.self_signed: true alone")]
    HalfACertificate {
        given: &'static str,
        missing: &'static str,
    },
    #[error(
        "tls.self_signed is set together with tls.certificate and tls.key: set only one of them"
    )]
    TwoCertificates,
    #[error(
        "tls.names is set, but only a self-made certificate takes its names from there: set tls.self_signed: true"
    )]
    NamesOfGiven,
    #[error(
        "tls.names has {0:?}: expected a host name such as codedeploy.example.com, or an IP address"
    )]
    Name(String),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error(
        "{place}metrics has no value, so it has no effect: write metrics: {{}} to offer them to access keys, or remove it"
    )]
    NullMetrics { place: String },
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error(
        "{place}console has no value, so it has no effect: write console: {{}} to turn it on, or remove it"
    )]
    NullConsole { place: String },
    #[error(transparent)]
    Events(#[from] EventsError),
    #[error(transparent)]
    IdentityProviders(#[from] IdentityProvidersError),
    #[error("s3.buckets has {0:?}: expected 3 to 63 lower-case letters, digits, dots and hyphens")]
    Bucket(String),
    #[error("s3.keep_versions is 0: expected 1 or more, as the newest version always stays")]
    KeepVersions,
    #[error(
        "deployments.keep_per_group is 0: expected 1 or more, as the last deployment of a group always stays"
    )]
    KeepPerGroup,
    #[error("script_logs.max_bytes is {0}: expected 1 to {max}", max = codedeploy_api::command::MAX_SCRIPT_LOG)]
    ScriptLogBytes(usize),
    #[error("{key} is {days}: expected a number of days above 0, and at most 36500")]
    KeepDays { key: &'static str, days: f64 },
    #[error("{key} is {}: expected an absolute path", path.display())]
    Relative { key: &'static str, path: PathBuf },
}

impl ConfigError {
    /// All problems, at least one.
    pub(crate) fn of(mut problems: Vec<ConfigError>) -> Self {
        match problems.len() {
            1 => problems.remove(0),
            _ => ConfigError::Several(problems),
        }
    }
}

fn listed(problems: &[ConfigError]) -> String {
    let lines = problems
        .iter()
        .map(|problem| format!("\n  {}", crate::error::chain(problem)));
    format!(
        "there are {} mistakes in the settings:{}",
        problems.len(),
        lines.collect::<String>()
    )
}
