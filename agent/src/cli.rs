//! The command line of `codedeploy-agent`, and what it and `codedeploy-local` share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::aws::{Access, AccessError};
use crate::command::CommandService;
use crate::config::{ConfigError, Environment, Settings};
use crate::deployment::Host;
use crate::deployment::ledger::Ledger;
use crate::errors::Chain;
use crate::identity::{Identity, IdentityError};
use crate::local;
use crate::poll::Agent;
use crate::revision::store::StoreError;
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Threads for file work, beside the one that everything else shares.
const BLOCKING_THREADS: usize = 4;

/// Deploys what a CodeDeploy service tells this host to deploy.
#[derive(Debug, Parser)]
#[command(name = "codedeploy-agent", version, arg_required_else_help = true)]
struct Arguments {
    /// The agent's configuration.
    #[arg(long, visible_alias = "config_file", global = true, value_name = "FILE")]
    config_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground until told to stop: poll for deployments and perform them.
    Run,
    /// Deploy a bundle on this machine, without any service; the same as `codedeploy-local`.
    #[command(disable_version_flag = true)]
    DeployLocal(Box<local::Arguments>),
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] telemetry::LogError),
    #[error("cannot follow signals")]
    Signals(#[source] std::io::Error),
}

/// Whichever program `arguments` name first.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    let name = arguments.peek().map(PathBuf::from);
    if name.as_deref().and_then(Path::file_name).is_some_and(|name| name == "codedeploy-local") {
        local(arguments)
    } else {
        agent(arguments)
    }
}

/// The whole of `codedeploy-local`; `arguments` begin with the program's name.
pub fn local(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match local::Arguments::try_parse_from(arguments) {
        Ok(arguments) => local::main(arguments),
        Err(error) => misused(&error),
    }
}

/// The whole of `codedeploy-agent`; `arguments` begin with the program's name.
pub fn agent(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return misused(&error),
    };
    match arguments.command {
        Command::Run => match on_runtime(run(arguments.config_file)) {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(error)) => complain("codedeploy-agent", &error),
            Err(error) => complain("codedeploy-agent", &error),
        },
        Command::DeployLocal(mut local) => {
            local.inherit_configuration(arguments.config_file);
            local::main(*local)
        }
    }
}

async fn run(config_file: Option<PathBuf>) -> Result<(), StartError> {
    let environment = Environment::of_process();
    let (settings, warnings) = Settings::load(config_file.as_deref(), &environment)?;
    telemetry::to_file(&settings.log_dir, &settings.program_name, settings.verbose)?;
    for warning in warnings {
        tracing::warn!("configuration: {warning}");
    }
    let started = start(settings, environment);
    if let Err(error) = &started {
        tracing::error!("the agent cannot start: {}", Chain(error));
    }
    let (agent, shutdown) = started?;
    agent.run(shutdown).await;
    tracing::info!("stopped");
    Ok(())
}

fn start(settings: Settings, environment: Environment) -> Result<(Arc<Agent>, Shutdown), StartError> {
    if settings.disable_core_dumps {
        without_core_dumps();
    }
    let identity = Identity::on_premises(&settings.on_premises_config_file, &environment)?;
    let access = Access::new(&settings, identity.region.clone(), &identity.credentials)?;
    let endpoint = access.command_endpoint();
    if endpoint.starts_with("http://") && !is_loopback(&endpoint) {
        tracing::warn!(
            endpoint,
            "commands come over plain http, readable by everybody on the way; use https"
        );
    }
    let shutdown = Shutdown::on_signals(settings.kill_agent_max_wait_time).map_err(StartError::Signals)?;
    let service = CommandService::new(&access, identity.host_identifier.clone());
    let host = Host::new(settings, environment, Some(access));
    let ledger = Ledger::open(&host.store)?;
    tracing::info!(
        version = crate::version::reported(),
        host = identity.host_identifier,
        region = identity.region.as_str(),
        credentials = %identity.credentials,
        endpoint,
        root = %host.settings.root_dir.display(),
        "agent started",
    );
    Ok((Arc::new(Agent::new(host, service, ledger)), shutdown))
}

fn is_loopback(endpoint: &str) -> bool {
    let authority = endpoint.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// Secrets live in this process; they must not end up in a file. The limit of core dumps would be inherited by hooks and
/// by the applications that they start; this flag ends with the next program (prctl(2), PR_SET_DUMPABLE).
fn without_core_dumps() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
}

/// Runs `work` on the one thread that the agent's own work needs.
pub fn on_runtime<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work))
}

/// Prints what clap has to say: help to stdout, complaints to stderr.
pub fn misused(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

/// Prints why a program gives up.
#[allow(clippy::print_stderr, reason = "the last words of a program go to stderr")]
pub fn complain(program: &str, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("{program}: {}", Chain(error));
    ExitCode::FAILURE
}
