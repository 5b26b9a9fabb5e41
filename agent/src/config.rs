//! The agent's settings: the contents of the configuration file, and the complete values that
//! result (spec: Configuration file).

mod environment;
pub mod reader;
mod signer;
mod size;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use environment::Environment;
use reader::{Effective, ReadError, Reader, Warning, bullets};
pub use signer::{KeyDigest, SignerTrust};

use crate::bounded_read;
use crate::metrics::place::{self, MetricsPlace};

/// Read if no file is named; may be missing.
pub const DEFAULT_FILE: &str = "/etc/codedeploy-agent/conf/codedeployagent.yml";
/// The identity of an on-premises host.
pub const DEFAULT_ON_PREMISES_FILE: &str = "/etc/codedeploy-agent/conf/codedeploy.onpremises.yml";
/// All state of deployments on the host.
pub const DEFAULT_ROOT: &str = "/opt/codedeploy-agent/deployment-root";

/// All settings of the agent, each value checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub program_name: String,
    pub log_dir: PathBuf,
    pub pid_dir: PathBuf,
    pub root_dir: PathBuf,
    pub ongoing_deployment_tracking: String,
    pub on_premises_config_file: PathBuf,
    pub verbose: bool,
    pub log_format: LogFormat,
    /// The size in bytes beyond which the agent's log is rotated before midnight.
    pub log_max_size: u64,
    /// The group that may read new logs with script output.
    pub log_group: String,
    /// The largest part of a command's script output that is sent to a controller that asks for it,
    /// in bytes; 0 for none.
    pub report_log_bytes: usize,
    pub enable_deployments_log: bool,
    /// Whether a restart may reuse an unpacked archive.
    pub enable_archive_reuse: bool,
    pub disable_core_dumps: bool,
    pub wait_between_runs: Duration,
    pub wait_after_error: Duration,
    pub http_read_timeout: Duration,
    /// The time that a stop waits for the commands in progress.
    pub kill_agent_max_wait_time: Duration,
    /// The time after a script's end in which its output still counts.
    pub output_drain: Duration,
    /// The time between TERM and KILL for a script that must end.
    pub hook_kill_grace: Duration,
    /// Whether scripts of another user get a session of that user.
    pub runas_session: bool,
    /// Deployment folders kept per deployment group; at least 1.
    pub max_revisions: usize,
    /// Whether the host takes back a deployment that fails after its Install.
    pub rollback_on_failure: bool,
    /// The operator's command line that updates this agent when the service asks for it.
    pub update_command: Option<String>,
    pub endpoints: Endpoints,
    pub signer: SignerTrust,
    /// The place at which metrics can be read.
    pub metrics_listen: Option<MetricsPlace>,
    /// The file that metrics are written to.
    pub metrics_textfile: Option<PathBuf>,
    pub hardening: Hardening,
    /// Set if `codedeploy_test_profile` is `beta` or `gamma`: the agent uses the keys in its
    /// environment.
    pub keep_environment_credentials: bool,
}

/// Variables that name certificates to trust besides the system's.
pub const TRUST_VARIABLES: [&str; 4] = [
    "AWS_SSL_CA_DIRECTORY",
    "AWS_SSL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
];

/// The result of reading a configuration file.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<Warning>,
    pub effective: Vec<Effective>,
}

/// The format of the agent's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// The layout of AWS's agent 1.8.1.
    Text,
}

/// The addresses of services.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    pub deploy_control: Option<String>,
    pub s3: Option<String>,
    /// GitHub's API, such as that of a GitHub Enterprise Server.
    pub github: Option<String>,
    pub proxy: Option<String>,
    pub use_fips: bool,
    /// `enable_auth_policy`: the endpoint with authorisation policies.
    pub secure: bool,
    /// PEM files and folders that are trusted besides the system's store.
    pub trust: Vec<PathBuf>,
    /// `log_aws_wire`: log requests and responses, without secrets and without bundles.
    pub log_wire: bool,
}

/// Restrictions beyond those that always apply.
#[derive(Debug, Clone, Default)]
pub struct Hardening {
    pub archive_max_extraction_size: Option<u64>,
    pub reject_symlinks: bool,
    pub reject_unsafe_permissions: bool,
    pub ignore_ownership: bool,
    pub reject_unconfined_selinux: bool,
    pub hook_env_allowlist: bool,
    pub strip_loader_env: bool,
    /// Only the agent's user may read new records in `root_dir`.
    pub restrict_agent_dir: bool,
    /// Only the group that reads script logs may read a new log of the agent.
    pub restrict_log_dir: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}; correct it, or name another with --config-file", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the configuration file {} is not usable:\n{}", path.display(), bullets(problems))]
    Invalid {
        path: PathBuf,
        problems: Vec<ReadError>,
    },
}

/// Logs the warnings of [`Settings::load`] about the named file, or the default one.
pub fn log_warnings(named: Option<&Path>, warnings: &[Warning]) {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE)).display();
    for warning in warnings {
        tracing::warn!("{path}: {warning}");
    }
}

impl Settings {
    /// Reads `named`, or the default file if that is `None`; if the default file is missing, the
    /// defaults apply. Also returns warnings for the log.
    pub fn load(
        named: Option<&Path>,
        environment: &Environment,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        Self::read(named, environment).map(|loaded| (loaded.settings, loaded.warnings))
    }

    /// The same, with the origin of each value.
    pub fn read(named: Option<&Path>, environment: &Environment) -> Result<Loaded, ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match bounded_read::read(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Vec::new()
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Self::parse(&text, environment).map_err(|problems| ConfigError::Invalid {
            path: path.to_owned(),
            problems,
        })
    }

    /// The settings without any file.
    pub fn defaults(environment: &Environment) -> Self {
        match Self::parse(b"", environment) {
            Ok(loaded) => loaded.settings,
            Err(_) => unreachable!("an empty configuration names no key that could be wrong"),
        }
    }

    fn parse(text: &[u8], environment: &Environment) -> Result<Loaded, Vec<ReadError>> {
        let mut file = Reader::new(text).map_err(|error| vec![error])?;
        let settings = Settings {
            program_name: file.folder_name_or("program_name", "codedeploy-agent"),
            log_dir: file.path_or("log_dir", "/var/log/aws/codedeploy-agent"),
            pid_dir: file.path_or("pid_dir", "/opt/codedeploy-agent/state/.pid"),
            root_dir: file.path_or("root_dir", DEFAULT_ROOT),
            ongoing_deployment_tracking: file
                .folder_name_or("ongoing_deployment_tracking", "ongoing-deployment"),
            on_premises_config_file: file
                .path_or("on_premises_config_file", DEFAULT_ON_PREMISES_FILE),
            verbose: file.flag("verbose", false),
            log_format: file.parsed_or(
                "log_format",
                "json or text",
                (LogFormat::default(), "json"),
                LogFormat::parse,
            ),
            log_max_size: file.parsed_or(
                "log_max_size",
                "a size of at least 64KiB, such as 64MiB",
                (64 << 20, "64MiB"),
                size::of_log,
            ),
            log_group: file.text_or("log_group", "adm"),
            report_log_bytes: file.parsed_or(
                "report_log_bytes",
                "none, or a size of at most 4MiB, such as 512KiB",
                (1 << 20, "1MiB"),
                size::of_report,
            ),
            enable_deployments_log: file.flag("enable_deployments_log", true),
            enable_archive_reuse: file.flag("enable_archive_reuse", true),
            disable_core_dumps: file.flag("disable_core_dumps", true),
            wait_between_runs: file.seconds("wait_between_runs", 30),
            wait_after_error: file.seconds("wait_after_error", 30),
            http_read_timeout: file.seconds("http_read_timeout", 80),
            kill_agent_max_wait_time: file.seconds("kill_agent_max_wait_time_seconds", 7200),
            output_drain: file
                .renamed("hook_drain_grace", "output_drain_seconds")
                .seconds("output_drain_seconds", 5),
            hook_kill_grace: file.seconds("hook_kill_grace", 10),
            runas_session: file.flag("runas_session", true),
            max_revisions: file.at_least_one("max_revisions", 5),
            rollback_on_failure: file.flag("rollback_on_failure", false),
            update_command: file.text("update_command"),
            endpoints: Endpoints {
                deploy_control: file.url("deploy_control_endpoint"),
                s3: file.url("s3_endpoint_override"),
                github: file.url("github_endpoint"),
                proxy: file.url("proxy_uri"),
                use_fips: file.flag("use_fips_mode", false),
                secure: file.flag("enable_auth_policy", false),
                trust: trusted_files(&mut file, environment),
                log_wire: file.flag("log_aws_wire", false),
            },
            signer: signer::read(&mut file),
            metrics_listen: file.parsed("metrics_listen", place::EXPECTED, MetricsPlace::parse),
            metrics_textfile: file.path("metrics_textfile"),
            hardening: Hardening {
                archive_max_extraction_size: file.parsed(
                    "archive_max_extraction_size",
                    "bytes, or a number with a unit such as 500MB or 2GiB",
                    size::parse,
                ),
                reject_symlinks: file.flag("reject_symlinks_in_bundle", false),
                reject_unsafe_permissions: file.flag("reject_unsafe_permissions_in_bundle", false),
                ignore_ownership: file.flag("ignore_ownership_in_bundle", false),
                reject_unconfined_selinux: file.flag("reject_unconfined_selinux_in_bundle", false),
                hook_env_allowlist: file.flag("restrict_hook_env_to_allowlist", false),
                strip_loader_env: file.flag("strip_loader_env_in_hooks", false),
                restrict_agent_dir: file.flag("restrict_agent_dir_permissions", false),
                restrict_log_dir: file.flag("restrict_log_dir_permissions", false),
            },
            keep_environment_credentials: file.parsed_or(
                "codedeploy_test_profile",
                "prod, beta or gamma",
                (false, "prod"),
                test_profile,
            ),
        };
        for (key, why) in ALWAYS {
            file.ignored(key, why);
        }
        for key in ["user", "group"] {
            file.refused(
                key,
                "the agent does not change its own user; set `User=` in the systemd unit instead",
            );
        }
        let effective = file.effective().to_vec();
        file.finish().map(|warnings| Loaded {
            settings,
            warnings,
            effective,
        })
    }
}

/// Keys of the official agents that ask for this agent's normal behaviour.
const ALWAYS: [(&str, &str); 3] = [
    (
        "disable_imds_v1",
        "instance metadata version 1 is never used",
    ),
    (
        "reject_path_traversal_in_bundle",
        "path traversal is always refused",
    ),
    (
        "reject_symlink_permission_targets",
        "permissions never follow a link",
    ),
];

fn trusted_files(file: &mut Reader, environment: &Environment) -> Vec<PathBuf> {
    let named = TRUST_VARIABLES
        .iter()
        .filter_map(|name| environment.text(name))
        .map(PathBuf::from);
    file.path("ssl_ca_bundle")
        .into_iter()
        .chain(named)
        .collect()
}

/// Whether the profile keeps the credentials of the environment.
fn test_profile(name: &str) -> Option<bool> {
    match name {
        "prod" => Some(false),
        "beta" | "gamma" => Some(true),
        _ => None,
    }
}

impl LogFormat {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "json" => Some(Self::Json),
            "text" => Some(Self::Text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Settings, Vec<Warning>), String> {
        Settings::parse(text.as_bytes(), &Environment::default())
            .map(|loaded| (loaded.settings, loaded.warnings))
            .map_err(|problems| {
                problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            })
    }

    #[test]
    fn the_file_that_the_official_package_ships_reads_without_a_warning() {
        let shipped = "---\n:log_aws_wire: false\n:log_dir: '/var/log/aws/codedeploy-agent/'\n\
            :pid_dir: '/opt/codedeploy-agent/state/.pid/'\n:program_name: codedeploy-agent\n\
            :root_dir: '/opt/codedeploy-agent/deployment-root'\n:verbose: false\n:wait_between_runs: 1\n\
            :proxy_uri:\n:max_revisions: 5\n";
        let (settings, warnings) = parse(shipped).unwrap();
        assert_eq!(settings.wait_between_runs, Duration::from_secs(1));
        assert_eq!(settings.endpoints.proxy, None);
        assert_eq!(warnings, []);
    }

    #[test]
    fn an_empty_file_means_defaults() {
        for text in ["", "---\n", "# only a comment\n"] {
            let (settings, warnings) = parse(text).unwrap();
            assert_eq!(settings.max_revisions, 5);
            assert_eq!(settings.wait_between_runs, Duration::from_secs(30));
            assert_eq!(warnings, []);
        }
    }

    #[test]
    fn every_wrong_value_is_named_with_its_line_and_what_was_expected() {
        let text = "max_revisions: 0\n:wait_between_runs: -1\nverbose: perhaps\nroot_dir: relative\nuser: www\n\
            deploy_control_endpoint: ftp://x\narchive_max_extraction_size: 3 apples\ndeployment_signer_pin: abc\n";
        let problems = parse(text).unwrap_err();
        let expected = [
            "line 1: max_revisions: found 0; expected a whole number, at least 1",
            "line 2: wait_between_runs: found -1; expected a number of seconds, 0 or more",
            "line 3: verbose: found \"perhaps\"; expected true or false",
            "line 4: root_dir: found \"relative\"; expected an absolute path",
            "line 5: user: the agent does not change its own user; set `User=` in the systemd unit instead",
            "line 6: deploy_control_endpoint: found \"ftp://x\"; expected a URL that begins with https:// or http://",
        ];
        for line in expected {
            assert!(problems.contains(line), "{line}\nnot in\n{problems}");
        }
        assert_eq!(problems.lines().count(), 8, "{problems}");
    }

    #[test]
    fn of_a_key_in_both_spellings_the_last_one_counts() {
        let (settings, warnings) = parse("verbose: false\n:verbose: true\n").unwrap();
        assert!(settings.verbose);
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            ["line 2: verbose: stands on line 1 already; this one, the last, counts"]
        );
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let error = Settings::load(
            Some(Path::new("/nowhere/agent.yml")),
            &Environment::default(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("/nowhere/agent.yml"), "{error}");
    }

    #[test]
    fn a_wrong_url_is_told_without_its_password() {
        let problems =
            parse("proxy_uri: htp://me:hush@proxy\ncodedeploy_test_profile: alpha\n").unwrap_err();
        assert!(
            problems.contains("me:(hidden)@proxy") && !problems.contains("hush"),
            "{problems}"
        );
        assert!(
            problems.contains("expected prod, beta or gamma"),
            "{problems}"
        );
    }

    #[test]
    fn unknown_keys_are_warnings_with_their_line() {
        let (_, warnings) = parse("verbose: true\n:max_revision: 3\n").unwrap();
        let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["line 2: max_revision: unknown key, ignored; did you mean max_revisions?"]
        );
    }

    #[test]
    fn every_key_is_documented_with_its_default() {
        let page = include_str!("../../docs/agent/configuration.md");
        let loaded = Settings::parse(b"", &Environment::default()).unwrap();
        for reader::Effective { key, value, .. } in loaded.effective {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{key}` |")));
            let row =
                row.unwrap_or_else(|| panic!("docs/agent/configuration.md has no row for {key}"));
            let default = match value {
                serde_json::Value::Null => "none".to_owned(),
                serde_json::Value::String(text) => format!("`{text}`"),
                other => format!("`{other}`"),
            };
            assert_eq!(row.split('|').nth(2).unwrap().trim(), default, "{key}");
        }
    }

    #[test]
    fn noise_is_refused_with_a_reason() {
        for text in [
            &b"\xff\xfe\x00"[..],
            b"- a list",
            b"just text",
            b"a: [",
            b"a: {b: 1, b: 2}\n",
        ] {
            let problems = Settings::parse(text, &Environment::default()).unwrap_err();
            assert!(!problems[0].to_string().is_empty());
        }
    }
}
