//! The commands of operators. They call a running controller over its API, from any machine; on the
//! controller's own host they need no key.

mod audit;
mod aws_profile;
mod bundle;
mod connect;
mod deploy;
mod deployments;
mod diff;
mod drain;
mod follow;
mod hosts;
mod next_step;
mod status;
mod update_agents;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use codedeploy_api::codedeploy::{
    ContinueDeploymentInput, DeploymentStatus, DeploymentWaitType, Nothing, StopDeploymentInput,
    StopDeploymentOutput,
};
use codedeploy_api::controller::{
    GetDeploymentStatusInput, GetDeploymentStatusOutput, RollBackDeploymentGroupInput,
    RollBackDeploymentGroupOutput,
};
use serde::Serialize;
use serde_json::json;

use super::admin::{self, AdminError};
use super::help;
use super::output::{self, OutputError};
use crate::client::ClientError;
use crate::outgoing::BundleError;
use crate::privileges::PrivilegesError;
use crate::words;
use bundle::BundlingError;
use connect::{Access, Connection, Session};

pub(super) use connect::login_name;

/// The exit code of a command that waited for a deployment that failed.
const FAILED: u8 = 3;
/// The same for one that was stopped.
const STOPPED: u8 = 4;
/// The deployment had not ended when the time to wait was over.
const UNFINISHED: u8 = 5;

#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Show every deployment group: its revision, its hosts, its running deployment, its last
    /// failure.
    #[command(after_help = help::STATUS)]
    Status {
        /// Only this application.
        application: Option<String>,
        /// Only this deployment group of it.
        group: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show the hosts, what is on each, and what it does.
    #[command(after_help = help::HOSTS)]
    Hosts {
        /// Everything about one host.
        #[arg(conflicts_with_all = ["application", "group", "contains", "tag", "silent", "behind"])]
        name: Option<String>,
        /// Only the hosts of a deployment group of this application.
        #[arg(long, requires = "group")]
        application: Option<String>,
        /// Only the hosts of this deployment group.
        #[arg(long, requires = "application")]
        group: Option<String>,
        /// Only hosts with this text in their names.
        #[arg(long, value_name = "TEXT")]
        contains: Option<String>,
        /// Only hosts with this tag: KEY=VALUE, or KEY for any value.
        #[arg(long)]
        tag: Option<String>,
        /// Only hosts whose agents do not poll.
        #[arg(long)]
        silent: bool,
        /// Only hosts without the revision of a group that they belong to.
        #[arg(long)]
        behind: bool,
        /// Only drained hosts.
        #[arg(long)]
        drained: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// List deployments, the newest first.
    #[command(after_help = help::DEPLOYMENTS)]
    Deployments {
        /// Only deployments of a deployment group of this application.
        #[arg(requires = "group")]
        application: Option<String>,
        /// Only deployments of this deployment group.
        group: Option<String>,
        /// Only deployments with this status, such as Failed; can be given more than once.
        #[arg(long, value_name = "STATUS", ignore_case = true)]
        status: Vec<Status>,
        /// The number of deployments.
        #[arg(short = 'n', long, default_value_t = 20, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
        lines: usize,
        #[command(flatten)]
        connection: Connection,
    },
    /// Follow a deployment until it ends; the exit code is its outcome.
    #[command(after_help = help::FOLLOW)]
    Follow {
        /// The deployment's id.
        id: String,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        connection: Connection,
    },
    /// Explain a deployment: failed hosts, event, script, exit code, last lines, and what to do.
    #[command(after_help = help::WHY)]
    Why {
        /// The deployment's id [default: the last one that failed].
        id: Option<String>,
        /// Show the whole output of the scripts that the controller has, in place of the last lines.
        #[arg(long)]
        log: bool,
        /// Only this host.
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Stop a deployment; commands that hosts run are not aborted.
    #[command(after_help = help::STOP)]
    Stop {
        /// The deployment's id.
        id: String,
        /// Roll back to the last successful revision, whatever the deployment's settings are.
        #[arg(long, conflicts_with = "no_rollback")]
        rollback: bool,
        /// Do not roll back, whatever the deployment's settings are.
        #[arg(long)]
        no_rollback: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Let a waiting blue/green deployment continue.
    #[command(after_help = help::CONTINUE)]
    Continue {
        /// The deployment's id.
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Deploy the revision before: after a failure the last successful one, after a success the one
    /// before that.
    #[command(after_help = help::ROLLBACK)]
    Rollback {
        /// The application's name.
        application: String,
        /// The deployment group's name.
        group: String,
        #[command(flatten)]
        waiting: Waiting,
        #[command(flatten)]
        connection: Connection,
    },
    /// Deploy a folder, a bundle or an object in S3.
    #[command(after_help = help::DEPLOY)]
    Deploy(deploy::Deploy),
    /// Compare a revision with the one that a deployment group runs: files, modes and hooks.
    #[command(after_help = help::DIFF)]
    Diff(diff::Diff),
    /// Take a host out of traffic and of deployments, until undrain.
    #[command(after_help = help::DRAIN)]
    Drain {
        /// The host's name.
        host: String,
        /// The purpose, for everybody who sees the host.
        #[arg(long)]
        reason: Option<String>,
        /// Wait until the host gets no traffic and performs no command.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        connection: Connection,
    },
    /// Return a drained host to traffic and deployments.
    #[command(after_help = help::UNDRAIN)]
    Undrain {
        /// The host's name.
        host: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Update the agents of hosts, stage by stage, with the command that each host has for it; or
    /// show the last update.
    #[command(after_help = help::UPDATE_AGENTS)]
    UpdateAgents(update_agents::UpdateAgents),
    /// Show who changed what, from where and when.
    #[command(after_help = help::AUDIT)]
    Audit {
        /// Only changes of this time, such as 2h.
        #[arg(long, value_parser = admin::duration, value_name = "DURATION", default_value = "1d")]
        since: Duration,
        #[command(flatten)]
        only: audit::Only,
        #[command(flatten)]
        connection: Connection,
    },
}

/// The statuses that deployments can have here.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "verbatim")]
pub(super) enum Status {
    Created,
    InProgress,
    Ready,
    Succeeded,
    Failed,
    Stopped,
}

impl From<Status> for DeploymentStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Created => DeploymentStatus::Created,
            Status::InProgress => DeploymentStatus::InProgress,
            Status::Ready => DeploymentStatus::Ready,
            Status::Succeeded => DeploymentStatus::Succeeded,
            Status::Failed => DeploymentStatus::Failed,
            Status::Stopped => DeploymentStatus::Stopped,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Waiting {
    /// Follow the deployment until it ends; the exit code is its outcome.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Args)]
pub(super) struct Patience {
    /// Wait no longer than this, such as 10m; the work continues.
    #[arg(long, value_parser = admin::duration, value_name = "DURATION")]
    timeout: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OperateError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Print(#[from] OutputError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Bundling(#[from] BundlingError),
    #[error(transparent)]
    Local(#[from] AdminError),
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    #[error(
        "no access key for {endpoint}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; `codedeploy-controller credentials create` on the controller's host makes keys"
    )]
    NoKeys { endpoint: String },
    #[error(
        "no controller: set AWS_ENDPOINT_URL_CODEDEPLOY or --endpoint to its URL, or run this on its own host ({} is not the data directory of a service)", .data_dir.display()
    )]
    NoController { data_dir: PathBuf },
    #[error(
        "no access to the controller of this host, whose data directory is {}: run this with sudo, or set AWS_ENDPOINT_URL_CODEDEPLOY and an access key", .data_dir.display()
    )]
    NotAllowed { data_dir: PathBuf },
    #[error("cannot read {}", path.display())]
    Profile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("no profile {0:?} in the AWS credentials or configuration file")]
    NoProfile(String),
    #[error("the authority of the controller cannot be read")]
    Authority(#[source] rustls::pki_types::pem::Error),
    #[error(
        "{host} did not fail in {id}; expected one of the failed hosts: codedeploy-controller why {id}"
    )]
    DidNotFail { host: String, id: String },
    #[error("the group {group} has no revision yet: no deployment to it has succeeded")]
    NothingRuns { group: String },
    #[error(
        "{revision} is not in a bucket of the controller, so it cannot be read here: download it; the running revision is named with --running PATH, the other one as a path in place of its URL"
    )]
    NotHeld { revision: String },
    #[error("the bundle of {name} cannot be compared")]
    Manifest {
        name: String,
        source: crate::revision::manifest::ManifestError,
    },
    #[error("no deployment has failed")]
    NothingFailed,
    #[error("the deployment {id} does not wait for anybody: its status is {status}")]
    DoesNotWait { id: String, status: String },
    #[error("the deployment group {group} already has an active Deployment '{id}'")]
    Busy { group: String, id: String },
    #[error("{0} does not exist, and a deployment of it would fail")]
    NoObject(String),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("{0:?} is not an object in S3: expected s3://bucket/key")]
    NotAnObject(String),
    #[error(
        "the controller has no S3 endpoint for bundles: set s3 in its configuration, or name an object: s3://bucket/key"
    )]
    NoBucket,
}

pub(super) fn run(command: Operate) -> Result<ExitCode, OperateError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(OperateError::Runtime)?;
    runtime.block_on(perform(command))
}

async fn perform(command: Operate) -> Result<ExitCode, OperateError> {
    let done = ExitCode::SUCCESS;
    match command {
        Operate::Status {
            application,
            group,
            connection,
        } => {
            let mut session = connection.open(Access::Reads)?;
            status::show(&mut session, application, group, connection.json).await?;
            Ok(done)
        }
        Operate::Hosts {
            name: Some(name),
            connection,
            ..
        } => {
            let mut session = connection.open(Access::Reads)?;
            hosts::show_one(&mut session, name, connection.json).await?;
            Ok(done)
        }
        Operate::Hosts {
            name: None,
            application,
            group,
            contains,
            tag,
            silent,
            behind,
            drained,
            connection,
        } => {
            let mut session = connection.open(Access::Reads)?;
            let only = hosts::Only {
                group: application.zip(group),
                contains,
                tag,
                silent,
                behind,
                drained,
            };
            hosts::show(&mut session, &only, connection.json).await?;
            Ok(done)
        }
        Operate::Deployments {
            application,
            group,
            status,
            lines,
            connection,
        } => {
            let mut session = connection.open(Access::Reads)?;
            let statuses = status.into_iter().map(DeploymentStatus::from).collect();
            let group = application.zip(group);
            deployments::show(&mut session, group, statuses, lines, connection.json).await?;
            Ok(done)
        }
        Operate::Follow {
            id,
            patience,
            connection,
        } => {
            let mut session = connection.open(Access::Reads)?;
            follow::follow(&mut session, &id, patience.timeout, connection.json).await
        }
        Operate::Why {
            id,
            log,
            host,
            connection,
        } => {
            let mut session = connection.open(Access::Reads)?;
            let id = match id {
                Some(id) => id,
                None => deployments::last_failure(&mut session).await?,
            };
            let only = why::Only { host, log };
            why::show(&mut session, &id, only, connection.json).await?;
            Ok(done)
        }
        Operate::Stop {
            id,
            rollback,
            no_rollback,
            connection,
        } => {
            let mut session = connection.open(Access::Changes)?;
            let input = StopDeploymentInput {
                deployment_id: Some(id.clone()),
                auto_rollback_enabled: (rollback || no_rollback).then_some(rollback),
            };
            let client = session.client()?;
            let output: StopDeploymentOutput = client.codedeploy("StopDeployment", &input).await?;
            let message = output.status_message.clone().unwrap_or_default();
            report(
                connection.json,
                &output,
                &format!("{id}: {}", words::plain(&message)),
            )?;
            Ok(done)
        }
        Operate::Continue { id, connection } => {
            let mut session = connection.open(Access::Changes)?;
            proceed(&mut session, &id).await?;
            report(
                connection.json,
                &json!({"deploymentId": id}),
                &format!("{id} continues"),
            )?;
            Ok(done)
        }
        Operate::Rollback {
            application,
            group,
            waiting,
            connection,
        } => {
            let mut session = connection.open(Access::Changes)?;
            let input = RollBackDeploymentGroupInput {
                application_name: Some(application.clone()),
                deployment_group_name: Some(group.clone()),
                description: None,
            };
            let output: RollBackDeploymentGroupOutput = session
                .client()?
                .controller("RollBackDeploymentGroup", &input)
                .await?;
            let id = output.deployment_id.clone().unwrap_or_default();
            let words = format!(
                "{id} deploys {} to {application}/{group}, in place of {}",
                words::revision(output.revision.as_ref()),
                output.rolls_back.as_deref().unwrap_or("-"),
            );
            finish(
                &mut session,
                &id,
                &waiting,
                connection.json,
                &output,
                &words,
            )
            .await
        }
        Operate::Deploy(deploy) => deploy::deploy(deploy).await,
        Operate::Diff(diff) => {
            diff::diff(diff).await?;
            Ok(done)
        }
        Operate::Drain {
            host,
            reason,
            wait,
            patience,
            connection,
        } => {
            let mut session = connection.open(Access::Changes)?;
            let waiting = wait.then_some(&patience);
            drain::drain(&mut session, host, reason, waiting, connection.json).await
        }
        Operate::Undrain { host, connection } => {
            let mut session = connection.open(Access::Changes)?;
            drain::undrain(&mut session, host, connection.json).await?;
            Ok(done)
        }
        Operate::UpdateAgents(command) => update_agents::run(command).await,
        Operate::Audit {
            since,
            only,
            connection,
        } => {
            let mut session = connection.open(Access::Reads)?;
            audit::show(&mut session, since, only, connection.json).await?;
            Ok(done)
        }
    }
}

/// Asks for a deployment.
async fn ask(session: &mut Session, id: &str) -> Result<GetDeploymentStatusOutput, OperateError> {
    let input = GetDeploymentStatusInput {
        deployment_id: Some(id.to_owned()),
    };
    let client = session.client()?;
    Ok(client.controller("GetDeploymentStatus", &input).await?)
}

/// Ends the wait of a deployment.
async fn proceed(session: &mut Session, id: &str) -> Result<(), OperateError> {
    let found = ask(session, id).await?.deployment.unwrap_or_default();
    let wait = match found.status {
        Some(DeploymentStatus::Ready) => DeploymentWaitType::ReadyWait,
        Some(DeploymentStatus::Succeeded) if found.waits_until.is_some() => {
            DeploymentWaitType::TerminationWait
        }
        status => {
            return Err(OperateError::DoesNotWait {
                id: id.to_owned(),
                status: status.map_or("unknown".into(), |status| status.to_string()),
            });
        }
    };
    let input = ContinueDeploymentInput {
        deployment_id: Some(id.to_owned()),
        deployment_wait_type: Some(wait),
    };
    let client = session.client()?;
    let Nothing {} = client.codedeploy("ContinueDeployment", &input).await?;
    Ok(())
}

/// Reports a new deployment, and follows it if that is wanted. With `--json`, the standard output
/// is one document.
async fn finish(
    session: &mut Session,
    id: &str,
    waiting: &Waiting,
    json: bool,
    output: &impl Serialize,
    words: &str,
) -> Result<ExitCode, OperateError> {
    if !waiting.wait {
        report(json, output, words)?;
        if !json {
            output::remark(format_args!("codedeploy-controller follow {id}"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !json {
        output::show(words)?;
    }
    follow::follow(session, id, waiting.patience.timeout, json).await
}

fn report(json: bool, output: &impl Serialize, words: &str) -> Result<(), OutputError> {
    if json {
        output::show(words::json(output))
    } else {
        output::show(words)
    }
}
