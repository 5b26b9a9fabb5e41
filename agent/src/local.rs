//! `codedeploy-local`: the same deployment without any service (spec: codedeploy-local); [`plan`] tells what it would
//! do, [`validate`] checks AppSpec files.

mod arguments;
mod events;
mod plan;
mod validate;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::Report;

use crate::aws::{Access, AccessError};
use crate::cli::{complain, on_runtime};
use crate::config::{self, ConfigError, Environment, Settings};
use crate::deployment::Host;
use crate::identity::{CredentialSource, Identity, IdentityError, Region};
use crate::recovery::{self, RecoveryError};
use crate::revision::Revision;
use crate::shutdown::Shutdown;
use crate::spec::envelope::trusted;
use crate::spec::{DeploymentSpec, SpecError};
use crate::telemetry;
use arguments::Arguments;
use arguments::UsageError;

/// Deploys a bundle on this machine, without any service.
#[derive(Debug, clap::Parser)]
#[command(
    name = "codedeploy-local",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true
)]
pub struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    /// Show what the deployment would do and touch nothing; the same as `plan`.
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
    /// Show what a deployment would do to this host, and touch nothing.
    #[command(version, disable_version_flag = true)]
    Plan(plan::Arguments),
    /// Check AppSpec files, and bundles that are folders.
    Validate(validate::Arguments),
}

impl CommandLine {
    /// Takes the configuration that was named for the whole program, unless this command names its own.
    pub fn inherit_configuration(&mut self, named: Option<PathBuf>) {
        match &mut self.command {
            None => self.arguments.inherit_configuration(named),
            Some(Command::Plan(plan)) => plan.deployment.inherit_configuration(named),
            Some(Command::Validate(_)) => {}
        }
    }
}

/// Characters of deployment ids.
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
        "no credentials for S3: write {on_premises}, or set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"
    )]
    NoCredentials { on_premises: String },
    #[error(
        "HOME and XDG_STATE_HOME are not set, so there is no place for the deployment's state; set one of them"
    )]
    NoHome,
    #[error("cannot make a temporary folder to unpack the revision in; TMPDIR can name another place")]
    Scratch(#[source] std::io::Error),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error("interrupted; nothing was changed")]
    Interrupted,
    #[error("cannot write to the standard output")]
    Output(#[from] std::io::Error),
}

/// The whole of `codedeploy-local`, after its arguments were read.
pub fn main(line: CommandLine) -> ExitCode {
    let CommandLine { arguments: deployment, dry_run, json, command } = line;
    let done = match command {
        Some(Command::Validate(arguments)) => return validate::main(&arguments),
        Some(Command::Plan(arguments)) => on_runtime(plan::plan(arguments)),
        None if dry_run => on_runtime(plan::plan(plan::Arguments { deployment, json })),
        None => on_runtime(deploy(deployment)),
    };
    match done {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => complain("codedeploy-local", &error),
        Err(error) => complain("codedeploy-local", &error),
    }
}

/// What the options come to: this host, a deployment, and the events in their order.
fn prepare(arguments: &Arguments) -> Result<(Host, DeploymentSpec, Vec<LifecycleEvent>), LocalError> {
    let environment = Environment::of_process();
    let order = events::order(arguments.events.as_deref())?;
    let location = arguments.location()?;
    let settings = settings(arguments.agent_configuration_file.as_deref(), &environment)?;
    telemetry::to_terminal(settings.verbose, &environment)?;
    let id = deployment_id();
    let document = arguments.specification(&id, &location, &order);
    let spec = DeploymentSpec::parse(&trusted(serde_json::to_vec(&document).unwrap_or_default()))?;
    let access = match spec.revision {
        Revision::S3(_) => Some(access(&settings, &environment)?),
        Revision::GitHub(_) | Revision::Local(_) => None,
    };
    Ok((Host::new(settings, environment, access), spec, order))
}

/// Deploys, and says whether it succeeded.
async fn deploy(arguments: Arguments) -> Result<bool, LocalError> {
    let (host, spec, order) = prepare(&arguments)?;
    let shutdown = Shutdown::on_signals(std::time::Duration::ZERO)?;
    let folder = host.store.deployment(&spec.deployment_group_id, &spec.deployment_id);

    recovery::at_start(&host.store)?;
    let mut out = std::io::stdout();
    writeln!(out, "Starting to execute deployment from within folder {}", folder.path().display())?;
    for event in &order {
        let began = Instant::now();
        let report = host.perform(event, &spec, shutdown.end_running.clone()).await;
        let seconds = began.elapsed().as_secs_f64();
        if !report.outcome.succeeded() {
            writeln!(out, "  {event:<20} failed after {seconds:.2} s")?;
            explain(&mut out, event, &report)?;
            writeln!(out, "See the deployment log at {} for more details", folder.scripts_log().display())?;
            return Ok(false);
        }
        writeln!(out, "  {event:<20} succeeded in {seconds:.2} s")?;
    }
    writeln!(out, "AppSpec file valid. Local deployment successful")?;
    Ok(true)
}

fn explain(out: &mut impl Write, event: &LifecycleEvent, report: &Report) -> std::io::Result<()> {
    let script = report.outcome.script_name();
    let at = if script.is_empty() { String::new() } else { format!(" in {script}") };
    writeln!(out, "Your local deployment failed at {event}{at}: {}", report.outcome)?;
    report.log_tail.lines().try_for_each(|line| writeln!(out, "  | {line}"))
}

/// The named configuration, else the host's; without one and without root, everything stays below the person's own
/// state folder.
fn settings(named: Option<&std::path::Path>, environment: &Environment) -> Result<Settings, LocalError> {
    let shared =
        named.is_some() || nix::unistd::geteuid().is_root() || PathBuf::from(config::DEFAULT_FILE).exists();
    if shared {
        let (settings, warnings) = Settings::load(named, environment)?;
        for warning in warnings {
            tracing::warn!("configuration: {warning}");
        }
        return Ok(settings);
    }
    let state = match (environment.text("XDG_STATE_HOME"), environment.text("HOME")) {
        (Some(state), _) if state.starts_with('/') => PathBuf::from(state),
        (_, Some(home)) => PathBuf::from(home).join(".local/state"),
        _ => return Err(LocalError::NoHome),
    };
    let state = state.join("codedeploy");
    let root_dir = state.join("deployment-root");
    Ok(Settings { root_dir, log_dir: state.clone(), pid_dir: state, ..Settings::defaults(environment) })
}

/// The host's identity when it has one, else the keys of whoever runs this.
fn access(settings: &Settings, environment: &Environment) -> Result<Access, LocalError> {
    let file = &settings.on_premises_config_file;
    if file.exists() {
        let identity = Identity::on_premises(file, environment)?;
        return Ok(Access::new(settings, identity.region, &identity.credentials)?);
    }
    let region = environment.text("AWS_REGION").or_else(|| environment.text("AWS_DEFAULT_REGION"));
    let (Some(region), Some(keys)) = (region, CredentialSource::of_person(environment)) else {
        return Err(LocalError::NoCredentials { on_premises: file.display().to_string() });
    };
    let mut settings = settings.clone();
    let endpoint = environment.text("AWS_ENDPOINT_URL_S3").map(str::to_owned);
    settings.endpoints.s3 = settings.endpoints.s3.or(endpoint);
    Ok(Access::new(&settings, Region::new(region)?, &keys)?)
}

fn deployment_id() -> String {
    let random = || char::from(ID_CHARACTERS[fastrand::usize(..ID_CHARACTERS.len())]);
    format!("d-{}-local", std::iter::repeat_with(random).take(9).collect::<String>())
}
