//! Settings: the command line and the configuration file, and the values that result.

pub mod alarms;
pub mod console;
mod endpoint;
mod error;
pub mod events;
mod file;
pub mod identity_providers;
pub mod known_names;
pub mod load_balancers;
pub mod metrics;
pub mod retention;
pub mod script_logs;
pub mod show;
mod text;
pub mod traces;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use codedeploy_planner::Timers;

use crate::config::alarms::Alarms;
use crate::config::console::{Console, Login};
use crate::config::events::Events;
use crate::config::identity_providers::Provider;
use crate::config::load_balancers::Balancers;
use crate::config::metrics::{Metrics, Token};
use crate::config::retention::Retention;
use crate::config::script_logs::ScriptLogs;
use crate::config::traces::Traces;
use crate::logging::Logging;
use crate::objects;
pub use endpoint::Endpoint;
pub use error::ConfigError;

/// The data directory if none is named.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/codedeploy-controller";

/// The effective settings; nothing is optional.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Holds the database, the keys and the signing certificate; mode 0700.
    pub data_dir: PathBuf,
    /// The file of these settings, if one was named.
    pub config_file: Option<PathBuf>,
    pub logging: Logging,
    pub listen: SocketAddr,
    pub tls: Tls,
    /// A PEM file of authorities that the service's own requests trust, besides the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The URL by which hosts and clients reach the service, if it differs from the address that it
    /// listens on.
    pub endpoint: Option<Endpoint>,
    /// The folder of revisions, if the service has one.
    pub s3: Option<S3Folder>,
    pub partition: Partition,
    pub timers: Timers,
    pub quotas: Quotas,
    /// The history to keep.
    pub retention: Retention,
    /// The script output that is kept with deployments.
    pub script_logs: ScriptLogs,
    /// The load balancers at which deployments take instances out of rotation and put them back.
    pub balancers: Balancers,
    /// The sources of alarm states.
    pub alarms: Alarms,
    /// The receivers of changes, and the new objects that are deployed.
    pub events: Events,
    /// The issuers of identity tokens that the service trusts.
    pub identity_providers: Vec<Provider>,
    /// The collector of traces, if there is one.
    pub traces: Option<Traces>,
    /// The ways to the service's metrics, if it has any.
    pub metrics: Option<Metrics>,
    /// The web console, if it is on.
    pub console: Option<Console>,
    /// Whether a deployment group may name only alarms and topics of these settings.
    pub strict_names: bool,
}

/// The protection of requests on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Plain http: on a loopback address, or because the operator insists.
    Off,
    /// A certificate (with its chain) and its key, in PEM.
    Given { certificate: PathBuf, key: PathBuf },
    /// A certificate for these names and addresses, signed by the data directory's own authority.
    SelfSigned { names: Vec<String> },
}

/// The folder that is served by the S3 protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Folder {
    pub folder: PathBuf,
    /// Missing ones are made at the start.
    pub buckets: Vec<String>,
    /// The retention of old versions.
    pub retention: objects::Retention,
}

/// The region and account of this service's resources, as in their ARNs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub region: String,
    /// Twelve digits.
    pub account_id: String,
}

/// The quotas of objects that clients can create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    pub applications: usize,
    pub deployment_groups_per_application: usize,
    /// In addition to the predefined ones.
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

/// The settings on the command line.
#[derive(Debug, Clone)]
pub struct Arguments {
    pub data_dir: PathBuf,
    pub listen: Option<SocketAddr>,
    pub region: Option<String>,
    pub account_id: Option<String>,
    pub insecure_http: bool,
    pub config_file: Option<PathBuf>,
}

impl Settings {
    /// The command line overrides the file, the file overrides the defaults.
    pub fn load(arguments: Arguments) -> Result<Settings, ConfigError> {
        let text::Read {
            file, mut problems, ..
        } = match &arguments.config_file {
            Some(path) => text::read(path)?,
            None => text::Read::default(),
        };
        let understood = problems.is_empty();
        match file.settle(arguments) {
            Ok(settings) if understood => return Ok(settings),
            Ok(_) => {}
            Err(more) => {
                // A setting that was not understood must not be reported as missing.
                let derived = |error: &ConfigError| {
                    matches!(error, ConfigError::PlainHttp(_) | ConfigError::DeafWatches)
                };
                problems.extend(
                    more.into_iter()
                        .filter(|error| understood || !derived(error)),
                );
            }
        }
        Err(ConfigError::of(problems))
    }

    /// The identity provider at which users of the console log in, if there is one.
    pub(crate) fn login(&self) -> Option<&Login> {
        self.console.as_ref()?.login.as_ref()
    }

    /// The files with secrets outside the data directory.
    pub(crate) fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let key = match &self.tls {
            Tls::Given { key, .. } => Some(key.as_path()),
            Tls::Off | Tls::SelfSigned { .. } => None,
        };
        let token = self
            .metrics
            .as_ref()
            .and_then(|metrics| metrics.token.as_ref());
        let traces = self.traces.as_ref();
        let has_headers = traces.is_some_and(|traces| !traces.headers.is_empty());
        let has_token = matches!(token, Some(Token::Given(_)));
        self.config_file
            .as_deref()
            .filter(|_| self.events.has_secrets() || has_token || has_headers)
            .into_iter()
            .chain(key)
            .chain(self.metrics.as_ref().and_then(Metrics::token_file))
            .chain(self.login().and_then(Login::secret_file))
    }
}

impl Partition {
    /// The defaults are `us-east-1` and account 123456789012.
    pub fn new(
        region: Option<String>,
        account_id: Option<String>,
    ) -> Result<Self, Vec<ConfigError>> {
        let region = region.unwrap_or_else(|| "us-east-1".into());
        let account_id = account_id.unwrap_or_else(|| "123456789012".into());
        let of_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let mut mistakes = Vec::new();
        if region.is_empty() || region.len() > 32 || !region.chars().all(of_region) {
            mistakes.push(ConfigError::Region(region.clone()));
        }
        if account_id.len() != 12 || !account_id.bytes().all(|b| b.is_ascii_digit()) {
            mistakes.push(ConfigError::AccountId(account_id.clone()));
        }
        if mistakes.is_empty() {
            Ok(Partition { region, account_id })
        } else {
            Err(mistakes)
        }
    }
}

/// Whether a certificate can be made for this name.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let allowed = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len())
            && allowed
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn arguments(folder: &std::path::Path) -> Arguments {
        Arguments {
            data_dir: folder.to_owned(),
            listen: None,
            region: None,
            account_id: None,
            insecure_http: false,
            config_file: Some(folder.join("controller.yml")),
        }
    }

    fn load(listen: &str, insecure_http: bool, file: &str) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("controller.yml"), file).unwrap();
        let listen = Some(listen.parse().unwrap());
        Settings::load(Arguments {
            listen,
            insecure_http,
            ..arguments(folder.path())
        })
    }

    #[test]
    fn plain_http_leaves_the_host_only_when_asked_to() {
        assert!(matches!(
            load("0.0.0.0:0", false, "{}"),
            Err(ConfigError::PlainHttp(_))
        ));
        assert!(load("0.0.0.0:0", true, "{}").is_ok());
        assert!(load("0.0.0.0:0", false, "tls: {self_signed: true}").is_ok());
        assert!(load("127.0.0.1:0", false, "{}").is_ok());
        assert!(load("[::1]:0", false, "").is_ok());
    }

    #[test]
    fn the_file_sets_timers() {
        let settings = load(
            "127.0.0.1:0",
            false,
            "timers: {pick_up: 0.5}\nregion: eu-west-1",
        )
        .unwrap();
        assert_eq!(settings.timers.pick_up, Duration::from_millis(500));
        assert_eq!(settings.timers.run, Timers::default().run);
        assert_eq!(settings.partition.region, "eu-west-1");
    }

    #[test]
    fn what_a_file_gets_wrong_is_named() {
        for (wrong, expected) in [
            (
                "timer: {}",
                "line 1: timer is not a setting: did you mean timers?",
            ),
            ("timers: {run: 0}", "timers.run is 0"),
            ("timers: {run: .nan}", "timers.run is NaN"),
            (
                "timers: {run: soon}",
                "line 1: timers.run: found string \"soon\", expected a number",
            ),
            ("timers: {poll: 76}", "agents give up"),
            ("quotas: {applications: -1}", "applications"),
            (
                "log_level: loud",
                "line 1: log_level: found `loud`, expected one of `error`, `warn`",
            ),
            ("account_id: '12'", "twelve digits"),
            ("region: '../x'", "not a region name"),
            ("listen: here", "IP address and a port such as"),
            ("listen: 7080", "listen"),
            ("- listen", "expected settings"),
            ("listen: [", "is not valid"),
            ("endpoint: box", "not a URL"),
            ("endpoint: ftp://box", "not a URL"),
            ("endpoint: https://box/path", "not a URL"),
            (
                "endpoint: http://box\ntls: {self_signed: true}",
                "only https://",
            ),
            ("tls: {certificate: /c.pem}", "without tls.key"),
            ("tls: {key: /k.pem}", "without tls.certificate"),
            ("tls: {certificate: c.pem, key: /k.pem}", "absolute path"),
            ("ca_bundle: roots.pem", "absolute path"),
            (
                "tls: {certificate: /c.pem, key: /k.pem, self_signed: true}",
                "set only one of them",
            ),
            (
                "tls: {certificate: /c.pem, key: /k.pem, names: [a]}",
                "tls.names",
            ),
            ("tls: {names: [a]}", "tls.names"),
            ("s3: {buckets: [Shop]}", "lower-case"),
            (
                "events: {webhooks: [{url: hooks}]}",
                "https://hooks.example.com",
            ),
            (
                "events: {webhooks: [{uri: 'https://x'}]}",
                "line 1: events.webhooks[0].uri is not a setting: did you mean url?",
            ),
            (
                "events: {topics: {ops: {url: 'https://x'}}}",
                "ARN of a topic",
            ),
            ("events: {token: guess}", "openssl rand"),
            ("events: {watches: [{bucket: b}]}", "missing field"),
            ("s3: {folder: revisions}", "absolute path"),
            ("s3: true", "keys such as buckets"),
            ("s3:", "write s3: {}"),
            (
                "events: {watches: [{bucket: b, application: a, deployment_group: g}]}",
                "events.token to receive notifications",
            ),
            (
                "alarms: {a: {prometheus: {url: foo}}}",
                "http://prometheus:9090",
            ),
            ("alarms: {a: nothing}", "expected `prometheus` or `webhook`"),
            ("alarms: {a: {}}", "prometheus or webhook"),
            ("load_balancers: {a: {webhook: {url: foo}}}", "not a URL"),
            (
                "load_balancers: {a: {haproxy: {socket: rel.sock, backend: web}}}",
                "absolute path",
            ),
            (
                "load_balancers: {a: {haproxy: {socket: /run/h.sock, backend: we b}}}",
                "we b",
            ),
            ("s3: {keep_versions: 0}", "the newest version always stays"),
            ("s3: {keep_versions: few}", "expected a whole number"),
            ("s3: {keep_days: 0}", "s3.keep_days is 0"),
            ("s3: {keep_days: -1}", "above 0"),
            ("s3: {keep_days: .inf}", "at most 36500"),
            ("tls: {self_signed: true, names: ['a b']}", "host name"),
            ("deployments: {keep_per_group: 0}", "expected 1 or more"),
            ("traces: {endpoint: collector}", "traces.endpoint is no URL"),
            (
                "traces: {endpoint: 'http://c:4318', headers: {'a b': c}}",
                "traces.headers has \"a b\"",
            ),
            ("traces: {}", "missing field `endpoint`"),
            ("deployments: {keep_days: 0}", "deployments.keep_days is 0"),
            ("script_logs: {keep_days: -1}", "above 0"),
            (
                "deployments: {keep: 1}",
                "line 1: deployments.keep is not a setting",
            ),
            ("metrics:", "write metrics: {}"),
            (
                "metrics: {listen: here}",
                "a loopback address and a port such as 127.0.0.1:9464",
            ),
            (
                "script_logs: {keep: some}",
                "line 1: script_logs: found `some`, expected one of `failed`, `all`, `none`",
            ),
            (
                "script_logs: {max_bytes: 5000000}",
                "script_logs.max_bytes is 5000000: expected 1 to 4194304",
            ),
            (
                "metrics: {listen: '0.0.0.0:9464'}",
                "this listener asks for no key",
            ),
            ("console:", "write console: {}"),
            ("console: {session_hours: 0}", "from 0.01 to 720"),
            (
                "console: {session_hour: 8}",
                "line 1: console.session_hour is not a setting: did you mean session_hours?",
            ),
            (
                "console: {login: {provider: a, client_id: c, roles: [r]}}",
                "console.login.provider is \"a\": expected a name of identity_providers, which has none",
            ),
            (
                "console: {login: {provider: a, client_id: c}}",
                "line 1: console.login",
            ),
            (
                "console: {login: {provider: a, client_id: c, client_secret: x, roles: [r]}}",
                "console.login.client_secret is not a setting",
            ),
            (
                "{console: {login: {provider: a, client_id: c, roles: [r]}}, identity_providers: {a: {issuer: 'https://b', \
                 jwks_url: 'https://b/k', roles: {q: {role: operator, claims: {sub: x}}}}}}",
                "console.login.roles has \"r\": expected a name of identity_providers.a.roles, which has q",
            ),
            (
                "{console: {login: {provider: a, client_id: c, roles: []}}, identity_providers: {a: {issuer: 'https://b', \
                 jwks_url: 'https://b/k'}}}",
                "console.login.roles is empty",
            ),
            (
                "console: {login: {provider: a, client_id: '', client_secret_file: s, scopes: ['a b'], roles: [r]}}",
                "console.login.client_id is \"\"",
            ),
            (
                "console: {login: {provider: a, client_id: c, client_secret_file: s, roles: [r]}}",
                "console.login.client_secret_file is s: expected an absolute path",
            ),
            (
                "console: {login: {provider: a, client_id: c, scopes: ['a b'], roles: [r]}}",
                "console.login.scopes has \"a b\"",
            ),
            ("metrics: {token: guess}", "openssl rand"),
            ("metrics: {token_file: token}", "absolute path"),
            (
                "metrics: {token_file: /t, token: 01234567890123456789}",
                "set only one of them",
            ),
            (
                "identity_providers: {a: {issuer: 'http://b', jwks_url: 'https://b/k'}}",
                "identity_providers.a.issuer is",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_url: 'http://b/k'}}",
                "on a loopback address",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b'}}",
                "one of jwks_url and jwks_file",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: keys.json}}",
                "absolute path",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', audience: [], jwks_file: /k}}",
                "identity_providers.a.audience",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: /k}, c: {issuer: 'https://b', jwks_file: /k}}",
                "the same issuer",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: /k, roles: {'x y': {role: operator, claims: {sub: c}}}}}",
                "letters, digits",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: /k, roles: {r: {role: operator, claims: {sub: '*'}}}}}",
                "with any token of the issuer",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: /k, roles: {r: {role: operator, claims: {sub: [a, '*']}}}}}",
                "with any token of the issuer",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: /k, roles: {r: {role: operator, claims: {iss: 'https://b', aud: c}}}}}",
                "with any token of the issuer",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: /k, roles: {r: {role: host, claims: {sub: a}}}}}",
                "`operator` or `read-only`",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: /k, roles: {r: {role: operator}}}}",
                "claims",
            ),
            (
                "identity_providers: {a: {issuer: 'https://b', jwks_file: /k, roles: {r: {role: operator, claims: {sub: a}, \
                 deployment_groups: [web]}}}}",
                "exactly one",
            ),
            (
                "identity_providers: {a: {isuer: 'https://b', jwks_file: /k}}",
                "line 1: identity_providers.a.isuer is not a setting: did you mean issuer?",
            ),
            (
                "metrics: {tokens: a}",
                "line 1: metrics.tokens is not a setting: did you mean token?",
            ),
        ] {
            let error = load("127.0.0.1:0", false, wrong).map(|_| ()).unwrap_err();
            let text = crate::error::chain(&error);
            assert!(text.contains(expected), "{wrong}: {text}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_each_with_its_line() {
        let file =
            "listen: here\ntimer:\n  run: 1\ntimers:\n  run: soon\nquotas:\n- 1\nregion: '../x'\n";
        let error = load("127.0.0.1:0", false, file).map(|_| ()).unwrap_err();
        let text = crate::error::chain(&error);
        let told = [
            "there are 5 mistakes",
            "listen is \"here\"",
            "line 2: timer is not",
            "line 5: timers.run",
            "line 6: quotas",
            "region \"../x\"",
        ];
        for expected in told {
            assert!(text.contains(expected), "{expected} is missing from {text}");
        }
    }

    #[test]
    fn what_is_no_file_of_settings_is_named_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.yml");
        let refused = |expected: &str| {
            let error = Settings::load(arguments(folder.path()))
                .map(|_| ())
                .unwrap_err();
            let text = crate::error::chain(&error);
            assert!(
                text.contains(expected) && text.contains(path.to_str().unwrap()),
                "{text}"
            );
        };
        refused("No such file");
        std::fs::create_dir(&path).unwrap();
        refused("is a directory");
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::net::UnixListener::bind(&path).unwrap();
        refused("neither a file nor a directory");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, vec![b'x'; 10_000_000]).unwrap();
        refused("9765 KiB long");
        std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        refused("not valid");
        std::fs::write(&path, vec![b'['; 100_000]).unwrap();
        refused("not valid");
    }
}
