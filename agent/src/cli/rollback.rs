//! `codedeploy-agent rollback`: takes back the last deployment of a deployment group on this host,
//! by hand.

pub mod notice;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::acquaintance::Acquaintance;
use crate::aws::Access;
use crate::cli::control;
use crate::cli::control::ControlError;
use crate::command::CommandService;
use crate::config::{self, ConfigError, Environment, Settings};
use crate::control_socket::Place;
use crate::deployment::Host;
use crate::deployment::installed::Installed;
use crate::deployment::rollback::journal::Cause;
use crate::deployment::rollback::{self, RollbackError, RolledBack};
use crate::deployment::slots;
use crate::deployment_root::{DeploymentFolder, StoreError};
use crate::history::History;
use crate::identity::Identity;
use crate::output;
use crate::output::fail;
use crate::runtime::on_runtime;
use crate::shutdown::Shutdown;
use crate::telemetry;
use notice::NoticeError;

/// The time that a person waits for the service to accept the report.
const TELLING: Duration = Duration::from_secs(15);

/// The options of `codedeploy-agent rollback`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The deployment group whose last deployment is taken back: its name or its id.
    #[arg(long, value_name = "GROUP")]
    deployment_group: String,
}

#[derive(Debug, thiserror::Error)]
enum RollbackCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Log(#[from] telemetry::LogError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "nothing of a deployment group {wanted:?} is installed on this host; installed are: {}",
        listed(groups)
    )]
    Unknown { wanted: String, groups: Vec<String> },
    #[error(
        "several deployment groups have the name {wanted:?}; give the id: {}",
        listed(ids)
    )]
    Ambiguous { wanted: String, ids: Vec<String> },
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    #[error(transparent)]
    Notice(#[from] NoticeError),
    #[error("cannot handle signals")]
    Signals(#[from] io::Error),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// Runs `codedeploy-agent rollback`.
pub fn main(arguments: &Arguments, config_file: Option<&Path>) -> ExitCode {
    match on_runtime(run(&arguments.deployment_group, config_file)) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => fail("codedeploy-agent", &error),
        Err(error) => fail("codedeploy-agent", &error),
    }
}

/// Returns whether the restored revision runs, as far as its scripts can tell.
async fn run(wanted: &str, config_file: Option<&Path>) -> Result<bool, RollbackCommandError> {
    let environment = Environment::of_process();
    let (settings, warnings) = Settings::load(config_file, &environment)?;
    telemetry::to_terminal_and_file(&settings, &environment)?;
    config::log_warnings(config_file, &warnings);
    control::refuse_while_deploying(&settings)?;
    let shutdown = Shutdown::on_signals(settings.kill_agent_max_wait_time)?;
    let place = Place::of(&settings);
    let host = Host::new(settings, environment, None);
    slots::switch::recover(&host, &shutdown.end_running).await;
    let folder = find(&host, wanted)?;
    let about = Installed::read(&folder).map_err(RollbackError::from)?.about;

    output::say(format_args!(
        "Taking back deployment {} of deployment group {wanted}",
        folder.id()
    ));
    tracing::info!(deployment_id = %about.deployment_id, "a rollback by hand begins");
    let cause = Cause::new(about.clone(), None, None);
    let (rolled_back, journal) =
        rollback::roll_back(&host, cause, shutdown.end_running.clone()).await?;
    tell(&rolled_back);
    let words = rolled_back.to_string();
    // These were already printed.
    rolled_back
        .warnings
        .iter()
        .for_each(|warning| tracing::info!("{warning}"));
    tracing::info!(deployment_id = %about.deployment_id, "deployment {} was taken back by hand: {words}", about.deployment_id);
    History::open(&place.history).rolled_back(&about, &words);
    notice::keep(host.store(), &journal, &words)?;
    journal.remove();
    tell_service(&host).await;
    Ok(rolled_back.succeeded())
}

/// Reports to the service at once if it is this project's controller, so that the next deployment
/// takes the rollback into account. If it does not answer, or is not known yet, the agent reports
/// later.
async fn tell_service(host: &Host) {
    let told = async {
        let identity = Identity::find(host.settings(), host.environment(), Duration::ZERO)
            .await
            .ok()?;
        let access = Access::new(host.settings(), identity.region, &identity.credentials).ok()?;
        let service = CommandService::new(&access, identity.host_identifier);
        if Acquaintance::is_controller(host.store(), service.endpoint()) {
            notice::tell(host.store(), &service).await;
        }
        Some(())
    };
    if tokio::time::timeout(TELLING, told).await.is_err() {
        tracing::warn!("the service does not answer; the agent will report the rollback");
    }
}

/// Finds the last deployment of the group with this id or name.
fn find(host: &Host, wanted: &str) -> Result<DeploymentFolder, RollbackCommandError> {
    let installed = host.store().installed()?;
    if let Some((_, folder)) = installed.iter().find(|(id, _)| id.as_str() == wanted) {
        return Ok(folder.clone());
    }
    let name = |folder: &DeploymentFolder| {
        Installed::read(folder)
            .ok()
            .map(|kept| kept.about.deployment_group)
    };
    let mut named: Vec<_> = installed
        .iter()
        .filter(|(_, folder)| name(folder).as_deref() == Some(wanted))
        .collect();
    match (named.pop(), named.is_empty()) {
        (Some((_, folder)), true) => Ok(folder.clone()),
        (Some((last, _)), false) => {
            let ids = named
                .iter()
                .map(|(id, _)| id)
                .chain([last])
                .map(ToString::to_string)
                .collect();
            Err(RollbackCommandError::Ambiguous {
                wanted: wanted.to_owned(),
                ids,
            })
        }
        (None, _) => {
            let words = |(id, folder): &(_, DeploymentFolder)| match name(folder) {
                Some(name) => format!("{name} ({id})"),
                None => format!("{id}"),
            };
            let groups = installed.iter().map(words).collect();
            Err(RollbackCommandError::Unknown {
                wanted: wanted.to_owned(),
                groups,
            })
        }
    }
}

fn tell(rolled_back: &RolledBack) {
    for warning in &rolled_back.warnings {
        output::say(format_args!("  note: {warning}"));
    }
    for (event, result) in &rolled_back.started {
        let short = result.words.split(':').next().unwrap_or_default();
        output::say(format_args!("  {event} {short}"));
        if !result.succeeded {
            result
                .log_tail
                .lines()
                .for_each(|line| output::say(format_args!("  | {line}")));
        }
    }
    let text = rolled_back.to_string();
    output::say(format_args!("{}{}", text[..1].to_uppercase(), &text[1..]));
}
