//! The hosts' side of a deployment: commands are leased, acknowledged and completed.
//!
//! Functions here get the identifier of an authenticated host.

use std::collections::BTreeMap;
use std::time::Duration;

use codedeploy_api::codedeploy::{
    DeploymentCreator, Diagnostics, FileExistsBehavior, RevisionLocationType, Timestamp,
};
use codedeploy_api::command::{
    CommandStatus, Envelope, HostCommand, Operation as _, PostHostRollbackInput,
};
use codedeploy_api::diagnostics::{MAX_LOCATION_CHARS, MAX_SCRIPT_RUNS, ScriptRun};
use codedeploy_api::specification::{
    AgentActionOverrides, AgentOverrides, GitHubRevisionDocument, RevisionDocument,
    S3RevisionDocument, SpecificationBinding, SpecificationDocument,
};
use codedeploy_planner::event_state::{EventInput, EventState};
use codedeploy_planner::plan;

use super::{diagnostics, trace};
use crate::config::Partition;
use crate::deployment::effects::Effects;
use crate::error::{ApiError, ErrorName};
use crate::records::command::Command;
use crate::records::definition::Definition;
use crate::records::{Record, Target, health, listing, script_runs, set_aside};
use crate::registry::audit;
use crate::registry::tokens::{self, Token};
use crate::request::Member;
use crate::request::members::{DeploymentId, shorten};
use crate::revision::{Commit, Revision, S3Object};
use crate::transaction::Context;

/// The time for which a host receives the same document, so that it is signed once. Agents accept a
/// document for an hour. The periods begin with the deployment: with the clock's, all hosts of a
/// deployment would need new signatures at once while it runs.
const SIGNATURE_PERIOD: Duration = Duration::from_secs(300);

/// The response to a poll.
#[derive(Debug)]
pub enum Offer {
    Command(HostCommand),
    /// No command now; at the given time, a command leased to another poll may be due again.
    Nothing {
        again_at: Option<Timestamp>,
    },
}

/// Leases the oldest waiting command to its host.
pub fn lease(context: &Context<'_>, host: &str) -> Result<(Offer, Option<Effects>), ApiError> {
    let mut again_at: Option<Timestamp> = None;
    for command in Command::offered_to(context.tx, host)? {
        // A problem of one deployment must not keep others from its host.
        let Some((record, mut target)) = of(context, &command)? else {
            continue;
        };
        let Some(event) = target
            .state
            .events
            .get(command.event)
            .filter(|_| !record.is_over())
        else {
            continue;
        };
        if let EventState::Leased { until, .. } = event.state
            && until > context.now
        {
            again_at = again_at.into_iter().chain([until]).min();
            continue;
        }
        // It is about to be withdrawn.
        if target.state.drained || is_over(context, &record, &target) {
            continue;
        }
        let until = context.now + context.timers.lease;
        let command_name = event.name.name().to_owned();
        let queued = match event.state {
            EventState::Queued { since } => Some(since),
            _ => None,
        };
        let mut effects = advance(
            context,
            &command,
            &record,
            &mut target,
            EventInput::Lease { until },
        )?;
        effects.picked_up_after = queued.map(|since| context.now.since(since));
        let command = HostCommand {
            host_command_identifier: command.id,
            host_identifier: host.to_owned(),
            deployment_execution_id: execution_id(context.partition, &record.id),
            command_name,
            nonce: command.sequence,
        };
        return Ok((Offer::Command(command), Some(effects)));
    }
    Ok((Offer::Nothing { again_at }, None))
}

/// Records that the host has the command. The response tells the host to run it, or that it has
/// ended.
pub fn acknowledge(
    context: &Context<'_>,
    host: &str,
    id: &str,
    envelope: Option<&Envelope>,
) -> Result<(CommandStatus, Effects), ApiError> {
    let Some(command) = find(context, host, id)? else {
        return Ok((CommandStatus::Failed, Effects::none(id)));
    };
    let Some((record, mut target)) = of(context, &command)? else {
        return Ok((CommandStatus::Failed, Effects::none(id)));
    };
    let Some(event) = target.state.events.get(command.event) else {
        return Ok((CommandStatus::Failed, Effects::none(&record.id)));
    };
    if event.state.ended().is_some() {
        return Ok((status(&event.state), Effects::none(&record.id)));
    }
    let is_withdrawn = target.state.drained || is_over(context, &record, &target);
    if event.state.is_offered() && is_withdrawn {
        let mut effects = Effects::none(&record.id);
        effects.recheck_self();
        return Ok((CommandStatus::Failed, effects));
    }
    let effects = advance(
        context,
        &command,
        &record,
        &mut target,
        EventInput::Acknowledge,
    )?;
    if let Some(noop) = diagnostics::is_noop(envelope) {
        command.note_noop(context.tx, noop)?;
    }
    Ok((CommandStatus::InProgress, effects))
}

/// Keeps the times of a command's scripts, for the trace of its deployment.
pub fn note_scripts(
    context: &Context<'_>,
    host: &str,
    id: &str,
    scripts: &[ScriptRun],
) -> Result<(), ApiError> {
    let Some(command) = find(context, host, id)? else {
        return Ok(());
    };
    let cut = |run: &ScriptRun| ScriptRun {
        location: run.location.chars().take(MAX_LOCATION_CHARS).collect(),
        ..run.clone()
    };
    let scripts: Vec<ScriptRun> = scripts.iter().take(MAX_SCRIPT_RUNS).map(cut).collect();
    Ok(script_runs::keep(context.tx, &command, &scripts)?)
}

/// Records the outcome of a command. The first completion counts; agents send more than one.
pub fn complete(
    context: &Context<'_>,
    host: &str,
    id: &str,
    succeeded: bool,
    envelope: Option<&Envelope>,
) -> Result<Effects, ApiError> {
    finish(
        context,
        host,
        id,
        succeeded,
        diagnostics::read(succeeded, envelope),
    )
}

/// Ends a command, unless it has ended.
pub(super) fn finish(
    context: &Context<'_>,
    host: &str,
    id: &str,
    succeeded: bool,
    diagnostics: Diagnostics,
) -> Result<Effects, ApiError> {
    let Some(command) = find(context, host, id)? else {
        return Ok(Effects::none(id));
    };
    let Some((record, mut target)) = of(context, &command)? else {
        return Ok(Effects::none(id));
    };
    let Some(event) = target.state.events.get(command.event) else {
        return Ok(Effects::none(&record.id));
    };
    if event.state.ended().is_some() {
        return Ok(Effects::none(&record.id));
    }
    advance(
        context,
        &command,
        &record,
        &mut target,
        EventInput::Complete {
            succeeded,
            diagnostics,
        },
    )
}

/// Records that a deployment was taken back on the host outside of any command, so that the host
/// has the previous revision. A later deployment there takes precedence.
pub fn rolled_back(
    context: &Context<'_>,
    host: &str,
    input: &PostHostRollbackInput,
) -> Result<(), ApiError> {
    let id = &input.deployment_id;
    let not_of_host = || {
        ErrorName::Client.because(format!(
            "{:?} is not a deployment of this host.",
            shorten(id)
        ))
    };
    let mut record = Record::load(context.tx, id)?.ok_or_else(not_of_host)?;
    let target = Target::id_of_host(context.tx, id, host)?.ok_or_else(not_of_host)?;
    let latest = listing::last_on_host(context.tx, &record.group_id, host)?;
    let message: String = input.message.chars().take(1000).collect();
    tracing::warn!(deployment = %id, host, previous = input.previous_deployment_id.as_deref(), outcome = message, "a deployment was taken back on a host");
    let names = BTreeMap::from([
        ("application".to_owned(), record.application_name.clone()),
        ("deploymentGroup".to_owned(), record.group_name.clone()),
        ("deploymentId".to_owned(), id.clone()),
        ("instances".to_owned(), target.clone()),
    ]);
    let change = audit::Change {
        who: host,
        access_key_id: None,
        operation: PostHostRollbackInput::NAME,
        names: &names,
        address: None,
        request_id: None,
        source: None,
    };
    change.record(context.tx, context.now)?;
    if latest.as_ref() != Some(id) {
        return Ok(());
    }
    let previous = match &input.previous_deployment_id {
        Some(previous) => Record::load(context.tx, previous)?,
        None => None,
    };
    let previous = previous.filter(|previous| previous.group_id == record.group_id);
    let revision = previous.as_ref().and_then(Record::revision);
    health::note_revision(context.tx, &record.group_id, &target, revision)?;
    if !record.is_over() {
        // Otherwise its end would record its own revision.
        record
            .relations
            .taken_back
            .insert(target, previous.map(|previous| previous.id));
        record.save_progress(context.tx)?;
    }
    Ok(())
}

/// Returns the status of a command.
pub fn current(context: &Context<'_>, host: &str, id: &str) -> Result<CommandStatus, ApiError> {
    let Some(command) = find(context, host, id)? else {
        return Ok(CommandStatus::Failed);
    };
    let target = of(context, &command)?.map(|(_, target)| target);
    let event = target
        .as_ref()
        .and_then(|target| target.state.events.get(command.event));
    Ok(event.map_or(CommandStatus::Failed, |event| status(&event.state)))
}

/// Returns the specification of a deployment for one of its hosts. It is valid for this host, this
/// deployment and this time.
pub fn specification(
    context: &Context<'_>,
    host: &str,
    execution_id: &str,
    is_traced: bool,
) -> Result<SpecificationDocument, ApiError> {
    let refused = || {
        ErrorName::Client.because(format!(
            "{:?} is not a deployment of this host.",
            execution_id.chars().take(129).collect::<String>()
        ))
    };
    let id = execution_id.rsplit('/').next().unwrap_or_default();
    if execution_id != self::execution_id(context.partition, id) {
        return Err(refused());
    }
    if !Target::is_host_of(context.tx, id, host)? {
        return Err(refused());
    }
    let record = Record::load(context.tx, id)?.ok_or_else(refused)?;
    // A later caller does not need the secret.
    let definition = record.definition.clone().ok_or_else(refused)?;
    let is_over = record.progress.completed().is_some();
    let token = if is_over {
        None
    } else {
        token(context, &record, &definition.revision)?
    };
    let target = is_traced.then(|| Target::id_of_host(context.tx, id, host));
    let trace_parent = target.transpose()?.flatten().map(|name| {
        let deployment = trace::of_deployment(context.partition, id);
        trace::of_host(deployment, &name).to_string()
    });
    let binding = SpecificationBinding {
        host_identifier: Some(host.to_owned()),
        deployment_execution_id: Some(execution_id.to_owned()),
        signed_at: Some(context.now.floor_from(record.created, SIGNATURE_PERIOD)),
    };
    Ok(SpecificationDocument {
        github_access_token: token,
        trace_parent,
        binding,
        ..document(record, definition)
    })
}

/// Returns the token for the repository of a revision on GitHub if the application is linked to
/// one.
fn token(
    context: &Context<'_>,
    record: &Record,
    revision: &Revision,
) -> Result<Option<String>, ApiError> {
    if !matches!(revision, Revision::GitHub(_)) {
        return Ok(None);
    }
    let kept = tokens::of_group(context.tx, &record.group_id)?;
    Ok(kept
        .map(|kept| kept.open(context.vault))
        .transpose()?
        .map(Token::reveal))
}

/// Returns the name that AWS's service uses for a deployment towards agents.
fn execution_id(partition: &Partition, deployment_id: &str) -> String {
    let Partition { region, account_id } = partition;
    format!("CodeDeploy/{region}/Prod/arn:aws:sds:{region}:{account_id}:deployment/{deployment_id}")
}

fn document(record: Record, definition: Definition) -> SpecificationDocument {
    let file_exists = FileExistsBehavior::from(definition.file_exists);
    SpecificationDocument {
        deployment_id: record.id,
        deployment_group_id: record.group_id,
        deployment_group_name: record.group_name,
        application_name: record.application_name,
        deployment_creator: Some(DeploymentCreator::from(definition.creator).into()),
        deployment_type: Some(definition.style.kind().into()),
        app_spec_filename: Some("appspec.yml".into()),
        agent_action_overrides: Some(AgentActionOverrides {
            agent_overrides: Some(AgentOverrides {
                file_exists_behavior: Some(file_exists.into()),
            }),
        }),
        all_possible_lifecycle_events: None,
        revision: revision(definition.revision),
        github_access_token: None,
        reuse_archive_from_deployment_id: record.relations.reuse_archive_from,
        trace_parent: None,
        binding: SpecificationBinding::default(),
    }
}

/// Returns a revision in the agents' format.
fn revision(revision: Revision) -> RevisionDocument {
    match revision {
        Revision::S3(S3Object {
            bucket,
            key,
            bundle,
            version,
            etag,
        }) => RevisionDocument {
            revision_type: RevisionLocationType::S3.into(),
            s3_revision: Some(S3RevisionDocument {
                bucket,
                key,
                bundle_type: bundle.name().to_owned(),
                version,
                etag,
            }),
            github_revision: None,
            local_revision: None,
        },
        Revision::GitHub(Commit {
            account,
            repository,
            id,
        }) => RevisionDocument {
            revision_type: RevisionLocationType::GitHub.into(),
            s3_revision: None,
            github_revision: Some(GitHubRevisionDocument {
                account,
                repository,
                commit_id: id,
                bundle_type: None,
            }),
            local_revision: None,
        },
    }
}

fn status(state: &EventState) -> CommandStatus {
    match state {
        EventState::Pending | EventState::Queued { .. } => CommandStatus::Pending,
        EventState::Leased { .. } | EventState::Acknowledged { .. } => CommandStatus::InProgress,
        EventState::Succeeded { .. } => CommandStatus::Succeeded,
        // An agent drops a command that is reported as failed.
        EventState::Failed { .. } | EventState::Skipped { .. } => CommandStatus::Failed,
    }
}

/// Whether the next decision will withdraw the target's running command.
pub(super) fn is_over(context: &Context<'_>, record: &Record, target: &Target) -> bool {
    let closing = plan::closing(&record.rules, &record.progress, context.timers, context.now);
    let deadline = target.state.deadline(&record.rules, context.timers);
    closing.is_some() || deadline.is_some_and(|deadline| deadline <= context.now)
}

/// Returns a command of the host; `None` if its deployment was removed meanwhile, so that it has
/// ended for the host as well.
fn find(context: &Context<'_>, host: &str, id: &str) -> Result<Option<Command>, ApiError> {
    if let Some(command) = Command::of_host(context.tx, host, id)? {
        return Ok(Some(command));
    }
    let deployment = id.split('.').next().unwrap_or_default();
    let is_one = <DeploymentId as Member>::check(deployment.to_owned()).is_ok();
    if is_one && Record::load(context.tx, deployment)?.is_none() {
        Ok(None)
    } else {
        Err(unknown(id))
    }
}

pub(super) fn unknown(id: &str) -> ApiError {
    ErrorName::Client.because(format!("{:?} is not a command of this host.", shorten(id)))
}

/// Returns the deployment and the target of a command; `None` if its group is gone, because nobody
/// carries out the deployments of that group. A target that cannot be read takes its deployment
/// with it.
pub(super) fn of(
    context: &Context<'_>,
    command: &Command,
) -> Result<Option<(Record, Target)>, ApiError> {
    let id = command.deployment_id.as_str();
    let target = match Target::at(context.tx, id, command.target) {
        Err(damage) if damage.is_damage() && !context.tx.is_readonly() => {
            set_aside(context.tx, id, &damage.to_string(), context.now)?;
            Target::at(context.tx, id, command.target)?
        }
        found => found?,
    };
    let record = Record::load(context.tx, id)?;
    // Setting the deployment aside has rewritten the target.
    let target = match &record {
        Some(record) if record.was_set_aside => Target::at(context.tx, id, command.target)?,
        _ => target,
    };
    Ok(record.zip(target))
}

/// Applies one input to the command's event, and everything that follows for its target.
pub(super) fn advance(
    context: &Context<'_>,
    command: &Command,
    record: &Record,
    target: &mut Target,
    input: EventInput,
) -> Result<Effects, ApiError> {
    let mut effects = Effects::none(&record.id);
    let before = target.state.clone();
    target.state.advance(command.event, input, context.now)?;
    let closing =
        plan::closing(&record.rules, &record.progress, context.timers, context.now).is_some();
    let ended = target
        .state
        .events
        .get(command.event)
        .is_some_and(|event| event.state.ended().is_some());
    let issued = if ended {
        target
            .state
            .settle(&record.rules, closing, context.timers, context.now)?
    } else {
        None
    };
    effects.save(context, record, target, &before, issued)?;
    // The target's own part is done; the deployment continues when the target ends, or when its own
    // turn comes.
    if closing || (ended && issued.is_none()) {
        effects.recheck_self();
    }
    Ok(effects)
}
