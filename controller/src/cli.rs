//! The command line: `serve`, the commands of the data directory's administrator, and those of
//! operators.

mod admin;
mod console;
mod data_dir;
mod help;
mod hosts;
mod operate;
mod output;
mod settings;
mod table;
mod tokens;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use codedeploy_api::codedeploy::Tag;
use codedeploy_support::plain::harmless_lines;
use codedeploy_support::version::version;
use futures_util::StreamExt as _;
use rustix::process::geteuid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::{Arguments, ConfigError, Settings};
use crate::credentials::Role;
use crate::error::chain;
use crate::keys::Key;
use crate::privileges::PrivilegesError;
use crate::server::{self, ServeError};
use crate::service::OpenError;
use crate::tls::TlsError;
use data_dir::DataDir;
use hosts::NewHost;
use output::OutputError;
use tokens::GithubToken;

/// A self-hosted AWS CodeDeploy service.
#[derive(Debug, Parser)]
#[command(
    name = "codedeploy-controller",
    version = version(),
    after_help = help::CONTROLLER
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    #[command(after_help = help::SERVE)]
    Serve(Serve),
    #[command(flatten)]
    Operate(operate::Operate),
    /// Show the effective settings, or everything that is wrong with them.
    #[command(after_help = help::CONFIG)]
    Config {
        #[command(flatten)]
        data: DataDir,
        /// File with settings, in YAML [default: /etc/codedeploy-controller/controller.yml, if it
        /// exists].
        #[arg(long, value_name = "FILE")]
        config_file: Option<PathBuf>,
        /// Print JSON: a list of key, value and origin.
        #[arg(long)]
        json: bool,
    },
    /// Access keys.
    #[command(subcommand, after_help = help::CREDENTIALS)]
    Credentials(Credentials),
    /// Print a link that logs in to the web console, once and within ten minutes.
    #[command(after_help = help::CONSOLE)]
    Console {
        #[command(flatten)]
        data: DataDir,
        /// The rights of the login.
        #[arg(long, value_enum, default_value = "operator")]
        role: Role,
        /// IAM user ARN that the changes are recorded under [default: user/local/NAME, with your
        /// name].
        #[arg(long, value_name = "ARN")]
        user_arn: Option<String>,
        /// Limit the login to this application; can be given more than once.
        #[arg(long = "application", value_name = "APPLICATION")]
        applications: Vec<String>,
        /// Limit the login to this deployment group of the application; can be given more than
        /// once.
        #[arg(long = "group", value_name = "GROUP", requires = "applications")]
        groups: Vec<String>,
    },
    /// On-premises instances.
    #[command(subcommand, after_help = help::HOST)]
    Host(HostCommand),
    /// GitHub tokens, which hosts use to fetch revisions from private repositories.
    #[command(subcommand, after_help = help::GITHUB_TOKEN)]
    GithubToken(GithubToken),
    /// Show the certificate that signs deployment specifications, and the pin of its key.
    #[command(after_help = help::SIGNER)]
    Signer(DataDir),
    /// Show the certificate of the authority that signs the service's own certificate, for clients
    /// to trust.
    #[command(after_help = help::CERTIFICATE)]
    Certificate(DataDir),
    /// Retire a key; the next start makes a new one, or takes the announced one. The service must
    /// be stopped.
    #[command(after_help = help::REPLACE_KEY)]
    ReplaceKey {
        #[command(flatten)]
        data: DataDir,
        /// The key to retire.
        #[arg(value_enum)]
        key: Key,
        /// Announce the signer's next key instead, so that hosts can accept it before it signs; the
        /// service may be running.
        #[arg(long)]
        next: bool,
    },
    /// Copy the database into a new file; the service may be running.
    #[command(after_help = help::BACKUP)]
    Backup {
        #[command(flatten)]
        data: DataDir,
        /// The new file.
        file: PathBuf,
    },
    /// Replace the database with a backup; the service must be stopped.
    #[command(after_help = help::RESTORE)]
    Restore {
        #[command(flatten)]
        data: DataDir,
        /// A file that `backup` made.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    data: DataDir,
    /// Address and port to listen on; port 0 picks a free port [default: 127.0.0.1:7080].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Region in ARNs and signatures [default: us-east-1].
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Account in ARNs [default: 123456789012].
    #[arg(long, value_name = "ACCOUNT")]
    account_id: Option<String>,
    /// Serve plain http to other hosts.
    #[arg(long)]
    insecure_http: bool,
    /// File with further settings, in YAML [default: /etc/codedeploy-controller/controller.yml, if
    /// it exists].
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Credentials {
    /// Make an access key and show its secret, once.
    #[command(after_help = help::CREATE)]
    Create {
        #[command(flatten)]
        data: DataDir,
        /// The operations that the key may call.
        #[arg(long, value_enum)]
        role: Role,
        /// IAM user or session ARN of the key; for a host, its host identifier.
        #[arg(long, value_name = "ARN")]
        user_arn: Option<String>,
        /// Make a temporary key with a session token that expires after this time, such as 12h or
        /// 7d.
        #[arg(long, value_parser = admin::duration, value_name = "DURATION")]
        expires_in: Option<Duration>,
        /// Limit the key to this application; can be given more than once.
        #[arg(long = "application", value_name = "APPLICATION")]
        applications: Vec<String>,
        /// Limit the key to this deployment group of the application; can be given more than once.
        #[arg(long = "group", value_name = "GROUP", requires = "applications")]
        groups: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the usable access keys, without their secrets.
    #[command(after_help = help::LIST_CREDENTIALS)]
    List {
        #[command(flatten)]
        data: DataDir,
        /// Include revoked and expired keys.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke an access key at once.
    #[command(after_help = help::REVOKE)]
    Revoke {
        #[command(flatten)]
        data: DataDir,
        /// The id in the output of `credentials list`.
        access_key_id: String,
    },
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Register a host, make its access key, and print or write the files that its agent needs.
    #[command(after_help = help::ADD_HOST)]
    Add {
        #[command(flatten)]
        data: DataDir,
        /// The instance's name in deployments.
        name: String,
        /// A tag, as key=value; can be given up to ten times.
        #[arg(long = "tag", value_parser = tag, value_name = "KEY=VALUE")]
        tags: Vec<Tag>,
        /// URL of this service as the host reaches it [default: the configured endpoint, or the
        /// address it listens on].
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// Write the files into this folder, with mode 0600, instead of printing them.
        #[arg(long, value_name = "FOLDER")]
        output: Option<PathBuf>,
        /// The folder for the files on the host.
        #[arg(long, value_name = "FOLDER", default_value = hosts::CONF_DIR)]
        conf_dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the registered hosts, when each was last seen, and the version of its agent.
    #[command(after_help = help::LIST_HOSTS)]
    List {
        #[command(flatten)]
        data: DataDir,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Deregister a host and revoke its access keys. Its commands in progress fail.
    #[command(after_help = help::REMOVE_HOST)]
    Remove {
        #[command(flatten)]
        data: DataDir,
        /// The instance's name.
        name: String,
    },
}

/// Reads `key=value`.
fn tag(text: &str) -> Result<Tag, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not a tag: expected key=value"))?;
    Ok(Tag {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    })
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    #[error(transparent)]
    Operate(#[from] operate::OperateError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Print(#[from] OutputError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// The time that a failed start waits under systemd, which would restart the service at once.
const FAILED_START: Duration = Duration::from_secs(4);

/// The settings are wrong, and will be at the next start (`EX_CONFIG` of sysexits.h): systemd need
/// not retry.
const WRONG_SETTINGS: u8 = 78;

impl CliError {
    /// The advice for an operation that the system denied to a program that `was_root` at its
    /// start.
    fn advice(&self, was_root: bool) -> String {
        let own_data = match self {
            Self::Admin(_) | Self::Operate(_) | Self::Privileges(_) | Self::Config(_) => false,
            Self::Serve(ServeError::Open(_)) => true,
            Self::Serve(_) | Self::Tls(_) | Self::Print(_) | Self::Runtime(_) => {
                return String::new();
            }
        };
        let user = geteuid();
        if user.is_root() || !is_denied(self) {
            String::new()
        } else if was_root {
            let owner = user.as_raw();
            format!(
                ": root acts as the owner of the data directory, the user with id {owner}; give that user all files in it \
                 (chown -R {owner} DIRECTORY)"
            )
        } else if own_data {
            ": run it as root (sudo), or name a directory of your own with --data-dir".into()
        } else {
            ": run it as root (sudo)".into()
        }
    }

    fn status(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Tls(_) => ExitCode::from(WRONG_SETTINGS),
            Self::Serve(ServeError::Tls(_) | ServeError::Open(OpenError::Partition(_))) => {
                ExitCode::from(WRONG_SETTINGS)
            }
            _ => ExitCode::FAILURE,
        }
    }
}

/// Whether the system denied an operation for lack of permission.
fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Prints clap's output: help, or an error under the program's name.
fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // The terminal may be gone, and then nobody reads this.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.trim_end();
    match text.strip_prefix("error: ") {
        Some(what) => output::complain(format_args!(
            "codedeploy-controller: {}",
            harmless_lines(what)
        )),
        // The help of a program that needs a command.
        None => output::complain(harmless_lines(text)),
    }
    ExitCode::from(2)
}

/// The definition of the command line, for its manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program; `args` are the command line, beginning with the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            return misused(&error);
        }
    };
    let was_root = geteuid().is_root();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            output::complain(format_args!(
                "codedeploy-controller: {}{}",
                harmless_lines(&chain(&error)),
                error.advice(was_root)
            ));
            if let CliError::Operate(error) = &error
                && let Some(step) = error.next_step()
            {
                output::complain(harmless_lines(&step));
            }
            error.status()
        }
    }
}

/// Whether systemd waits for this process to report readiness.
fn systemd_waits() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Operate(command) => Ok(operate::run(command)?),
        other => administer(other).map(|()| ExitCode::SUCCESS),
    }
}

fn administer(command: Command) -> Result<(), CliError> {
    match command {
        // Handled before.
        Command::Operate(_) => Ok(()),
        Command::Serve(serve) => run_service(serve),
        Command::Config {
            data,
            config_file,
            json,
        } => settings::config(&data, config_file, json),
        Command::Credentials(Credentials::Create {
            data,
            role,
            user_arn,
            expires_in,
            applications,
            groups,
            json,
        }) => {
            let scopes = admin::scopes(role, applications, groups)?;
            let new = admin::NewKey {
                role,
                user_arn,
                lifetime: expires_in,
                scopes,
            };
            Ok(admin::create_credentials(data.enter()?, new, json)?)
        }
        Command::Credentials(Credentials::List { data, all, json }) => {
            Ok(admin::list_credentials(data.enter()?, all, json)?)
        }
        Command::Credentials(Credentials::Revoke {
            data,
            access_key_id,
        }) => Ok(admin::revoke_credentials(data.enter()?, access_key_id)?),
        Command::Console {
            data,
            role,
            user_arn,
            applications,
            groups,
        } => {
            let scopes = admin::scopes(role, applications, groups)?;
            Ok(console::offer(&data, role, user_arn, scopes)?)
        }
        Command::Host(HostCommand::Add {
            data,
            name,
            tags,
            endpoint,
            output,
            conf_dir,
            json,
        }) => {
            let host = NewHost {
                name,
                tags,
                endpoint,
                output,
                conf_dir,
                json,
            };
            Ok(hosts::add(&data, host)?)
        }
        Command::Host(HostCommand::List { data, json }) => Ok(hosts::list(data.enter()?, json)?),
        Command::Host(HostCommand::Remove { data, name }) => {
            Ok(hosts::remove(data.enter()?, name)?)
        }
        Command::GithubToken(GithubToken::Add {
            data,
            name,
            account,
            applications,
            replace,
        }) => Ok(tokens::add(
            data.enter()?,
            name,
            account,
            applications,
            replace,
        )?),
        Command::GithubToken(GithubToken::List { data, json }) => {
            Ok(tokens::list(data.enter()?, json)?)
        }
        Command::GithubToken(GithubToken::Link {
            data,
            name,
            applications,
        }) => Ok(tokens::link(data.enter()?, name, applications)?),
        Command::GithubToken(GithubToken::Unlink { data, applications }) => {
            Ok(tokens::unlink(data.enter()?, applications)?)
        }
        Command::GithubToken(GithubToken::Remove { data, name }) => {
            Ok(tokens::remove(data.enter()?, name)?)
        }
        Command::Signer(data) => Ok(admin::show_signer(data.enter()?)?),
        Command::Certificate(data) => Ok(admin::show_certificate(data.enter()?)?),
        Command::ReplaceKey {
            data,
            key,
            next: true,
        } => Ok(admin::announce_key(data.enter()?, key)?),
        Command::ReplaceKey {
            data,
            key,
            next: false,
        } => Ok(admin::replace_key(data.enter()?, key)?),
        Command::Backup { data, file } => Ok(admin::back_up(&data, &file)?),
        Command::Restore { data, file } => Ok(admin::restore(&data, &file)?),
    }
}

fn run_service(serve: Serve) -> Result<(), CliError> {
    let settings = Settings::load(Arguments {
        data_dir: serve.data.path().to_owned(),
        listen: serve.listen,
        region: serve.region,
        account_id: serve.account_id,
        insecure_http: serve.insecure_http,
        config_file: serve.config_file.or_else(settings::packaged_file),
    })?;
    // Before any other thread starts: all threads act as this one does.
    serve.data.enter()?;
    settings.logging.begin();
    for path in settings.secret_files() {
        if settings::is_readable_by_all(path) {
            tracing::warn!(path = %path.display(), "{}", settings::READABLE);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let served = runtime.block_on(async {
        let mut signals =
            signal_hook_tokio::Signals::new([SIGTERM, SIGINT]).map_err(CliError::Runtime)?;
        let hangups = signal_hook_tokio::Signals::new([SIGHUP]).map_err(CliError::Runtime)?;
        let mut stop = std::pin::pin!(async move {
            signals.next().await;
        });
        let served = Box::pin(server::serve(settings, stop.as_mut(), hangups.map(|_| ()))).await;
        if served.as_ref().is_err_and(ServeError::is_of_a_start) && systemd_waits() {
            tokio::select! {
                () = stop => {}
                () = tokio::time::sleep(FAILED_START) => {}
            }
        }
        Ok(served?)
    });
    // The service has reported its end: work that still waits for a disk ends with the process.
    runtime.shutdown_background();
    served
}
