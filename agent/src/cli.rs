//! The command line of `codedeploy-agent`, and what it and `codedeploy-local` share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};
pub use codedeploy_hooks::script::keep_script;

use crate::aws::{Access, AccessError};
use crate::command::CommandService;
use crate::config::{self, ConfigError, Environment, Settings};
use crate::console;
use crate::control::socket::{ControlSocket, SocketError};
use crate::control::status::Status;
use crate::control::{self, Place, Waiter};
use crate::deployment::Host;
use crate::deployment::ledger::Ledger;
use crate::doctor;
use crate::errors::Chain;
use crate::history::History;
use crate::identity::{Identity, IdentityError, METADATA_PATIENCE, is_there};
use crate::local;
use crate::logs;
use crate::memory;
use crate::pidfile::{PidFile, PidFileError};
use crate::poll::Agent;
use crate::recovery;
use crate::register;
use crate::revision::store::StoreError;
use crate::rollback;
use crate::shutdown::Shutdown;
use crate::spec::envelope::{self, EnvelopeError};
use crate::telemetry;

/// How long the daemon waits for a store that does not answer at all: a lifecycle event may last for an hour, and a store
/// that is restarted comes back sooner.
const OUTAGE: Duration = Duration::from_secs(15 * 60);

/// Threads for file work, beside the one that everything else shares.
const BLOCKING_THREADS: usize = 4;

/// Deploys what a CodeDeploy service tells this host to deploy.
#[derive(Debug, Parser)]
#[command(name = "codedeploy-agent", version, arg_required_else_help = true, infer_long_args = true)]
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
    /// Show what the agent and the scripts of deployments have logged, in the order of time.
    Logs(logs::Arguments),
    /// Run in the background; returns when the agent is up, or says why it is not.
    Start,
    /// Stop the agent and wait for its end; refused while a deployment is in progress.
    Stop {
        /// Stop though a deployment is in progress: its current lifecycle event is finished first.
        #[arg(long)]
        force: bool,
    },
    /// Stop the agent if it runs, and start it.
    Restart {
        /// Stop though a deployment is in progress: its current lifecycle event is finished first.
        #[arg(long)]
        force: bool,
    },
    /// Say whether the agent runs. Exit code 0: it does, 3: it does not, 4: unknown.
    Status {
        /// Say all that the agent knows of itself, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check everything that a deployment needs, and say what to do. Exit code 1: there is a problem.
    Doctor {
        /// Print the checks as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say which Installs a crash interrupted, and what the agent will do about them. Exit code 1: there is one.
    Journal {
        /// Print all that is known, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take back the last deployment of a deployment group on this host: what was there before its Install returns, and
    /// the revision before it starts again.
    Rollback(rollback::Arguments),
    /// Deploy a bundle on this machine, without any service; the same as `codedeploy-local`.
    #[command(disable_version_flag = true)]
    DeployLocal(Box<local::CommandLine>),
    /// Print the settings in effect and where each comes from; secrets are hidden.
    Config(config::show::Arguments),
    /// Register this machine with CodeDeploy as an on-premises instance.
    Register(Box<register::RegisterArguments>),
    /// Undo `register`.
    Deregister(register::DeregisterArguments),
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
    Signer(#[from] EnvelopeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] telemetry::LogError),
    #[error("cannot follow signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error(transparent)]
    Socket(#[from] SocketError),
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
    match read::<local::CommandLine>(arguments) {
        Ok(arguments) => local::main(arguments),
        Err(error) => misused(&error),
    }
}

/// The whole of `codedeploy-agent`; `arguments` begin with the program's name.
pub fn agent(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match read::<Arguments>(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return misused(&error),
    };
    match arguments.command {
        Command::Logs(logs) => logs::main(logs, arguments.config_file.as_deref()),
        Command::Run => daemon(arguments.config_file, Waiter::default()),
        Command::Start => control::start(arguments.config_file, daemon),
        Command::Stop { force } => control::stop(arguments.config_file.as_deref(), force),
        Command::Restart { force } => match files_are_usable(arguments.config_file.as_deref()) {
            Ok(()) => control::restart(arguments.config_file, force, daemon),
            Err(error) => complain("codedeploy-agent", &error),
        },
        Command::Status { json } => control::status(arguments.config_file.as_deref(), json),
        Command::Doctor { json } => doctor::main(arguments.config_file.as_deref(), json),
        Command::Journal { json } => recovery::journal::main(arguments.config_file.as_deref(), json),
        Command::Rollback(which) => rollback::main(&which, arguments.config_file.as_deref()),
        Command::DeployLocal(mut local) => {
            local.inherit_configuration(arguments.config_file);
            local::main(*local)
        }
        Command::Config(show) => {
            let (file, environment) = (arguments.config_file.as_deref(), Environment::of_process());
            let (mut out, mut complaints) = (console::out(), console::err());
            match config::show::show(&show, file, &environment, &mut out, &mut complaints) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain("codedeploy-agent", &error),
            }
        }
        Command::Register(register) => register::register(*register, arguments.config_file),
        Command::Deregister(deregister) => register::deregister(deregister, arguments.config_file),
    }
}

/// Reads a command line. The beginning of an option stands for it; one that fits several is told with all of them.
fn read<P: Parser>(arguments: impl Iterator<Item = OsString>) -> Result<P, clap::Error> {
    let arguments: Vec<OsString> = arguments.collect();
    P::try_parse_from(&arguments).map_err(|error| {
        let mut command = P::command();
        command.build();
        ambiguous(&error, &mut command, &arguments).unwrap_or(error)
    })
}

fn ambiguous(
    error: &clap::Error,
    command: &mut clap::Command,
    arguments: &[OsString],
) -> Option<clap::Error> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(found))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let beginning = found.strip_prefix("--")?.split('=').next()?;
    let mut here = &*command;
    for argument in arguments.iter().skip(1) {
        here = here.find_subcommand(argument).unwrap_or(here);
    }
    let options = here.get_arguments().filter_map(clap::Arg::get_long);
    let fitting: Vec<_> =
        options.filter(|option| option.starts_with(beginning)).map(|option| format!("--{option}")).collect();
    let words = format!("--{beginning} could be {}; write more of it", fitting.join(" or "));
    (fitting.len() > 1).then(|| command.error(ErrorKind::UnknownArgument, words))
}

/// What a start reads from files: a restart must not stop an agent that cannot start again.
fn files_are_usable(config_file: Option<&Path>) -> Result<(), StartError> {
    let environment = Environment::of_process();
    let (settings, _) = Settings::load(config_file, &environment)?;
    envelope::check_trust(&settings.signer)?;
    if is_there(&settings.on_premises_config_file) {
        Identity::on_premises(&settings.on_premises_config_file, &environment)?;
    }
    Ok(())
}

/// The agent itself, in this process until it ends.
fn daemon(config_file: Option<PathBuf>, mut waiter: Waiter) -> ExitCode {
    match on_runtime(run(config_file, &mut waiter)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            waiter.failed(&error, matches!(error, StartError::PidFile(PidFileError::Held { .. })));
            complain("codedeploy-agent", &error)
        }
        Err(error) => {
            waiter.failed(&error, false);
            complain("codedeploy-agent", &error)
        }
    }
}

async fn run(config_file: Option<PathBuf>, waiter: &mut Waiter) -> Result<(), StartError> {
    let environment = Environment::of_process();
    let (settings, warnings) = Settings::load(config_file.as_deref(), &environment)?;
    let place = Place::of(&settings);
    let _lock = PidFile::acquire(&place.pid_file)?;
    telemetry::to_file(&settings, &environment)?;
    config::log_warnings(config_file.as_deref(), &warnings);
    let started = start(settings, environment, &place).await;
    if let Err(error) = &started {
        tracing::error!("the agent cannot start: {}", Chain(error));
    }
    let Started { agent, shutdown, status, socket } = started?;
    waiter.up();
    tokio::select! {
        () = agent.run(shutdown) => {}
        () = socket.serve(&status) => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Everything that runs.
struct Started {
    agent: Arc<Agent>,
    shutdown: Shutdown,
    status: Status,
    socket: ControlSocket,
}

async fn start(settings: Settings, environment: Environment, place: &Place) -> Result<Started, StartError> {
    if settings.disable_core_dumps {
        without_core_dumps();
    }
    envelope::check_trust(&settings.signer)?;
    let identity = Identity::find(&settings, &environment, METADATA_PATIENCE).await?;
    let access = Access::new(&settings, identity.region.clone(), &identity.credentials)?;
    let access = Access { outage: OUTAGE, ..access };
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
    let status = Status::new(&identity.host_identifier, History::open(&place.history));
    let socket = ControlSocket::bind(&place.socket)?;
    let agent = Arc::new(Agent::new(host, service, ledger, status.clone()));
    Ok(Started { agent, shutdown, status, socket })
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

/// Runs `work` on the one thread that the agent's own work needs. Threads that still look up a host name when it is
/// over are not waited for.
pub fn on_runtime<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    memory::share_one_arena();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

/// Prints what clap has to say: help to stdout, complaints, which repeat the command line, to stderr.
pub fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    console::complain(error.render().to_string().trim_end());
    ExitCode::from(2)
}

/// Prints why a program gives up, if anybody still reads what it says.
pub fn complain(program: &str, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    console::complain(format_args!("{program}: {}", Chain(error)));
    ExitCode::FAILURE
}
