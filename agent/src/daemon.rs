//! The daemon: reads, checks and opens everything before it polls, and cleans up at its end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::aws::{Access, AccessError};
use crate::background::Waiter;
use crate::command::CommandService;
use crate::config::{self, ConfigError, Environment, Settings};
use crate::control_socket::Place;
use crate::control_socket::socket::{ControlSocket, SocketError};
use crate::control_socket::status::Status;
use crate::deployment::Host;
use crate::deployment::ledger::Ledger;
use crate::deployment_root::StoreError;
use crate::exporter::Exporter;
use crate::history::History;
use crate::identity::{Identity, IdentityError, METADATA_TIMEOUT, is_there};
use crate::output::fail;
use crate::pidfile::{PidFile, PidFileError};
use crate::poll::Agent;
use crate::runtime::on_runtime;
use crate::shutdown::Shutdown;
use crate::spec::envelope::{self, EnvelopeError};
use crate::telemetry;
use codedeploy_api::chain::Chain;

/// The time that the daemon waits for a store that does not respond at all: a lifecycle event may
/// last for an hour, and a restarted store comes back sooner.
const OUTAGE: Duration = Duration::from_secs(15 * 60);

/// The reason why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
    #[error("cannot handle signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Checks the files that a start reads: a restart must not stop an agent that cannot start again.
pub fn files_are_usable(config_file: Option<&Path>) -> Result<(), StartError> {
    let environment = Environment::of_process();
    let (settings, _) = Settings::load(config_file, &environment)?;
    envelope::check_trust(&settings.signer)?;
    if is_there(&settings.on_premises_config_file) {
        Identity::on_premises(&settings.on_premises_config_file, &environment)?;
    }
    Ok(())
}

/// Runs the agent in this process until it ends.
pub fn run(config_file: Option<PathBuf>, mut waiter: Waiter) -> ExitCode {
    match on_runtime(serve(config_file, &mut waiter)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            waiter.failed(
                &error,
                matches!(error, StartError::PidFile(PidFileError::Held { .. })),
            );
            fail("codedeploy-agent", &error)
        }
        Err(error) => {
            waiter.failed(&error, false);
            fail("codedeploy-agent", &error)
        }
    }
}

async fn serve(config_file: Option<PathBuf>, waiter: &mut Waiter) -> Result<(), StartError> {
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
    let Started {
        agent,
        shutdown,
        status,
        socket,
        exporter,
    } = started?;
    waiter.up();
    tokio::select! {
        () = agent.run(shutdown) => {}
        () = socket.serve(&status) => {}
        () = offer(exporter.as_ref(), &status) => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// The running parts.
struct Started {
    agent: Arc<Agent>,
    shutdown: Shutdown,
    status: Status,
    socket: ControlSocket,
    exporter: Option<Exporter>,
}

/// Offers the metrics, if the settings ask for them. Never ends.
async fn offer(exporter: Option<&Exporter>, status: &Status) {
    match exporter {
        Some(exporter) => Box::pin(exporter.serve(status)).await,
        None => std::future::pending().await,
    }
}

async fn start(
    settings: Settings,
    environment: Environment,
    place: &Place,
) -> Result<Started, StartError> {
    if settings.disable_core_dumps {
        without_core_dumps();
    }
    envelope::check_trust(&settings.signer)?;
    let identity = Identity::find(&settings, &environment, METADATA_TIMEOUT).await?;
    let access = Access::new(&settings, identity.region.clone(), &identity.credentials)?;
    let access = Access {
        outage: OUTAGE,
        ..access
    };
    let endpoint = access.command_endpoint();
    if endpoint.starts_with("http://") && !is_loopback(&endpoint) {
        tracing::warn!(
            endpoint,
            "commands arrive over plain http, readable on the way; use https"
        );
    }
    let shutdown =
        Shutdown::on_signals(settings.kill_agent_max_wait_time).map_err(StartError::Signals)?;
    let service = CommandService::new(&access, identity.host_identifier.clone());
    let exporter = Exporter::new(&settings);
    let metrics = exporter.as_ref().map(Exporter::metrics);
    let host = Host::new(settings, environment, Some(access)).measured(metrics.clone());
    let ledger = Ledger::open(host.store())?;
    tracing::info!(
        version = crate::version::reported(),
        host = identity.host_identifier,
        region = identity.region.as_str(),
        credentials = %identity.credentials,
        endpoint,
        root = %host.settings().root_dir.display(),
        "agent started",
    );
    let status = Status::new(
        &identity.host_identifier,
        History::open(&place.history),
        metrics,
    );
    let socket = ControlSocket::bind(&place.socket)?;
    let agent = Arc::new(Agent::new(host, service, ledger, status.clone()));
    Ok(Started {
        agent,
        shutdown,
        status,
        socket,
        exporter,
    })
}

fn is_loopback(endpoint: &str) -> bool {
    let authority = endpoint
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// This process holds secrets, which must not end up in a core file. A limit of core dumps would be
/// inherited by hooks and by their applications; this flag ends with exec (prctl(2),
/// PR_SET_DUMPABLE).
fn without_core_dumps() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "cannot switch off core dumps");
    }
}
