//! `codedeploy-local`: deploys without a service (spec: codedeploy-local); [`plan`] shows what a
//! deployment would do, [`validate`] checks AppSpec files.

mod arguments;
mod events;
mod plan;
mod scratch;
mod validate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::Report;
use codedeploy_support::version::version;

use super::help;
use crate::aws::{Access, AccessError};
use crate::config::reader::Warning;
use crate::config::{self, ConfigError, Environment, Settings};
use crate::deployment::{Host, preview, rollback, slots};
use crate::deployment_root::DeploymentFolder;
use crate::identity::{CredentialSource, Identity, IdentityError, Region, is_there};
use crate::output;
use crate::output::fail;
use crate::recovery::{self, RecoveryError};
use crate::revision::Revision;
use crate::runtime::on_runtime;
use crate::shutdown::Shutdown;
use crate::spec::envelope::trusted;
use crate::spec::{DeploymentSpec, SpecError};
use crate::telemetry;
use arguments::Arguments;
use arguments::UsageError;
use codedeploy_api::chain::Chain;
use scratch::Scratch;

/// Deploys a bundle on this machine without a service.
#[derive(Debug, clap::Parser)]
#[command(
    name = "codedeploy-local",
    version = version(),
    after_help = help::LOCAL,
    disable_version_flag = true,
    infer_long_args = true,
    args_conflicts_with_subcommands = true
)]
pub struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    /// Show what the deployment would do, and change nothing; the same as `plan`.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: print JSON.
    #[arg(long, requires = "dry_run")]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what a deployment would do to this host, and change nothing.
    #[command(version = version(), disable_version_flag = true, after_help = help::PLAN)]
    Plan(plan::Arguments),
    /// Check AppSpec files, and bundles that are folders.
    #[command(after_help = help::VALIDATE)]
    Validate(validate::Arguments),
}

impl CommandLine {
    /// Takes the configuration of the whole program, unless this command has its own.
    pub fn inherit_configuration(&mut self, named: Option<PathBuf>) {
        match &mut self.command {
            None => self.arguments.inherit_configuration(named),
            Some(Command::Plan(plan)) => plan.deployment.inherit_configuration(named),
            Some(Command::Validate(_)) => {}
        }
    }
}

/// The time after which this host is assumed not to be an EC2 instance: a person is waiting.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// The characters of deployment ids.
const ID_CHARACTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

#[derive(Debug, thiserror::Error)]
enum LocalError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Log(#[from] telemetry::LogError),
    #[error(
        "no credentials for S3: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or write {}. EC2 instance \
         metadata, which would have those of an instance profile, does not answer", on_premises.display()
    )]
    NoCredentials { on_premises: PathBuf },
    #[error(
        "HOME and XDG_STATE_HOME are not set, so there is no place for the deployment's state; set one of them"
    )]
    NoHome,
    #[error(
        "cannot make a temporary folder to unpack the revision in; TMPDIR can name another place"
    )]
    Scratch(#[source] std::io::Error),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error("interrupted; nothing was changed")]
    Interrupted,
    #[error("cannot write to the standard output")]
    Output(#[from] std::io::Error),
}

/// Runs `codedeploy-local` with parsed arguments.
pub fn main(line: CommandLine) -> ExitCode {
    let CommandLine {
        arguments: deployment,
        dry_run,
        json,
        command,
    } = line;
    let done = match command {
        Some(Command::Validate(arguments)) => return validate::main(&arguments),
        Some(Command::Plan(arguments)) => on_runtime(plan::plan(arguments)),
        None if dry_run => on_runtime(plan::plan(plan::Arguments { deployment, json })),
        None => on_runtime(deploy(deployment)),
    };
    match done {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => fail("codedeploy-local", &error),
        Err(error) => fail("codedeploy-local", &error),
    }
}

/// Turns the options into this host, a deployment, and the events in their order.
async fn prepare(
    arguments: &Arguments,
) -> Result<(Host, DeploymentSpec, Vec<LifecycleEvent>), LocalError> {
    let environment = Environment::of_process();
    let order = events::order(arguments.events.as_deref())?;
    let location = arguments.location()?;
    let named = arguments.agent_configuration_file.as_deref();
    let (settings, warnings) = settings(named, &environment)?;
    telemetry::to_terminal(settings.verbose, &environment)?;
    config::log_warnings(named, &warnings);
    let id = deployment_id();
    let document = arguments.specification(&id, &location, &order);
    let spec = DeploymentSpec::parse(&trusted(serde_json::to_vec(&document).unwrap_or_default()))?;
    let access = match spec.revision {
        Revision::S3(_) => Some(access(&settings, &environment).await?),
        Revision::GitHub(_) | Revision::Local(_) => None,
    };
    Ok((Host::new(settings, environment, access), spec, order))
}

/// Rejects a misspelt event before anything runs.
async fn check_events(
    host: &Host,
    spec: &DeploymentSpec,
    order: &[LifecycleEvent],
    shutdown: &Shutdown,
) -> Result<(), LocalError> {
    if !order.iter().any(events::is_custom) {
        return Ok(());
    }
    let scratch = Scratch::new(host.environment()).map_err(LocalError::Scratch)?;
    let defined = scratch
        .with(
            shutdown,
            Box::pin(preview::defined_events(host, spec, scratch.path())),
        )
        .await?;
    if let Err(error) = &defined {
        // The deployment will report the same.
        tracing::debug!(error = %Chain(error), "the revision's lifecycle events are not known beforehand");
    }
    Ok(events::check_known(order, defined.ok().as_deref())?)
}

/// Deploys, and returns whether it succeeded.
async fn deploy(arguments: Arguments) -> Result<bool, LocalError> {
    let (host, spec, order) = prepare(&arguments).await?;
    let shutdown = Shutdown::on_signals(Duration::ZERO)?;
    check_events(&host, &spec, &order, &shutdown).await?;
    let folder = host
        .store()
        .deployment(&spec.deployment_group_id, &spec.deployment_id);

    recovery::at_start(host.store())?;
    slots::switch::recover(&host, &shutdown.end_running).await;
    rollback::finish_local(&host, shutdown.end_running.clone()).await;
    output::say(format_args!(
        "Starting to execute deployment from within folder {}",
        folder.path().display()
    ));
    for event in &order {
        let began = Instant::now();
        let plan = host.plan(event, &spec).await;
        let report = host.perform(plan, None, shutdown.end_running.clone()).await;
        let seconds = began.elapsed().as_secs_f64();
        if !report.outcome.succeeded() {
            output::say(format_args!("  {event:<20} failed after {seconds:.2} s"));
            explain(event, &report);
            point_to_log(&folder);
            return Ok(false);
        }
        output::say(format_args!("  {event:<20} succeeded in {seconds:.2} s"));
    }
    point_to_log(&folder);
    output::say(format_args!(
        "AppSpec file valid. Local deployment successful"
    ));
    Ok(true)
}

/// Prints the path of the scripts' output, if any script has run.
fn point_to_log(folder: &DeploymentFolder) {
    let log = folder.scripts_log();
    if log.exists() {
        output::say(format_args!(
            "See the deployment log at {} for more details",
            log.display()
        ));
    }
}

fn explain(event: &LifecycleEvent, report: &Report) {
    let script = report.outcome.script_name();
    let at = if script.is_empty() {
        String::new()
    } else {
        format!(" in {script}")
    };
    output::say(format_args!(
        "Your local deployment failed at {event}{at}: {}",
        report.outcome
    ));
    report
        .log_tail
        .lines()
        .for_each(|line| output::say(format_args!("  | {line}")));
}

/// Reads the named configuration, else the host's. Without one and without root, all state stays
/// below the user's own state folder.
fn settings(
    named: Option<&Path>,
    environment: &Environment,
) -> Result<(Settings, Vec<Warning>), LocalError> {
    let shared = named.is_some()
        || nix::unistd::geteuid().is_root()
        || PathBuf::from(config::DEFAULT_FILE).exists();
    if shared {
        return Ok(Settings::load(named, environment)?);
    }
    let state = match (environment.text("XDG_STATE_HOME"), environment.text("HOME")) {
        (Some(state), _) if state.starts_with('/') => PathBuf::from(state),
        (_, Some(home)) => PathBuf::from(home).join(".local/state"),
        _ => return Err(LocalError::NoHome),
    };
    let state = state.join("codedeploy");
    let root_dir = state.join("deployment-root");
    let defaults = Settings::defaults(environment);
    Ok((
        Settings {
            root_dir,
            log_dir: state.clone(),
            pid_dir: state,
            ..defaults
        },
        Vec::new(),
    ))
}

/// Uses the credentials of the on-premises file if there is one, else those of the caller, else
/// those of the EC2 instance.
async fn access(settings: &Settings, environment: &Environment) -> Result<Access, LocalError> {
    let on_premises = &settings.on_premises_config_file;
    let region = environment
        .text("AWS_REGION")
        .or_else(|| environment.text("AWS_DEFAULT_REGION"));
    if let (false, Some(region), Some(keys)) = (
        is_there(on_premises),
        region,
        CredentialSource::of_person(environment),
    ) {
        let mut settings = settings.clone();
        let endpoint = environment.text("AWS_ENDPOINT_URL_S3").map(str::to_owned);
        settings.endpoints.s3 = settings.endpoints.s3.or(endpoint);
        return Ok(Access::new(&settings, Region::new(region)?, &keys)?);
    }
    let identity = Identity::find(settings, environment, Duration::ZERO);
    match tokio::time::timeout(METADATA_TIMEOUT, identity).await {
        Ok(Ok(identity)) => Ok(Access::new(
            settings,
            identity.region,
            &identity.credentials,
        )?),
        Ok(Err(IdentityError::Nobody { .. })) | Err(_) => Err(LocalError::NoCredentials {
            on_premises: on_premises.clone(),
        }),
        Ok(Err(error)) => Err(error.into()),
    }
}

fn deployment_id() -> String {
    let random = || char::from(ID_CHARACTERS[fastrand::usize(..ID_CHARACTERS.len())]);
    format!(
        "d-{}-local",
        std::iter::repeat_with(random).take(9).collect::<String>()
    )
}
