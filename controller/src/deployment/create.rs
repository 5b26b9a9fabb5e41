//! CreateDeployment.

use codedeploy_api::codedeploy::CreateDeploymentOutput;
use codedeploy_planner::deployment_state::DeploymentState;
use codedeploy_planner::rules::Rules;
use codedeploy_planner::strategy::Strategy;

use crate::deployment::effects::{Change, Effects};
use crate::error::{ApiError, ErrorName};
use crate::fleet;
use crate::ids::random_text;
use crate::options::{Alarms, BlueGreen, Replacement, Style};
use crate::records::definition::{Creator, Definition};
use crate::records::{Record, Relations, unfinished};
use crate::registry::{applications, configs, dangling_references, groups, revisions, tokens};
use crate::request::members::shorten;
use crate::request::{self, References, Source};
use crate::revision::Revision;
use crate::transaction::Context;

/// Accepts a deployment; its targets are determined when it starts.
pub fn create(
    context: &Context<'_>,
    request: request::CreateDeployment,
) -> Result<(CreateDeploymentOutput, Effects), ApiError> {
    let (record, group) = prepare(context, request)?;
    let revision = record.definition()?.revision.clone();
    publish(context, &group, &record, Some(&revision))?;
    let id = record.id;
    let mut effects = Effects::none(&id);
    effects.recheck_self();
    effects.note(
        context,
        Change::Created {
            application: record.application_name,
            deployment_group: record.group_name,
            revision,
        },
    )?;
    Ok((
        CreateDeploymentOutput {
            deployment_id: Some(id),
        },
        effects,
    ))
}

/// Checks everything about a deployment that can be checked before it starts; changes nothing.
pub(super) fn prepare(
    context: &Context<'_>,
    request: request::CreateDeployment,
) -> Result<(Record, groups::Group), ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let group = groups::find(context, &application, &request.deployment_group_name)?;
    if request.replacement.is_some() && context.is_limited() {
        return Err(context.outside("targetInstances, which may name any hosts"));
    }
    let style = group.settings.style();
    let config_name = request
        .deployment_config_name
        .as_deref()
        .unwrap_or(group.config_name())
        .to_owned();
    let minimum_healthy = configs::for_server(context, &config_name)?;
    refuse_second(context, &group.id, &group.name)?;
    request.check_together()?;
    let restarts = matches!(request.source, Source::LastSuccessful { .. });
    let strategy = strategy(
        context,
        &group,
        style,
        request.replacement.as_ref(),
        restarts,
    )?;
    let (revision, mut relations) = match request.source {
        Source::Revision(revision) => (revision, Relations::default()),
        Source::LastSuccessful { .. } => restarted(context, &group)?,
    };
    relations.with_github_token |= has_token(context, &group, &revision)?;
    relations.takes_back = request.takes_back;
    let alarms = request
        .override_alarms
        .clone()
        .or_else(|| group.settings.alarms());
    let messages = unknown_alarms(context, &application.name, &group.name, alarms.as_ref())?;

    let id = new_deployment_id(context)?;
    let ignore_application_stop_failures = request.ignore_application_stop_failures;
    let record = Record {
        id,
        group_id: group.id.clone(),
        created: context.now,
        created_by: context.caller.map(|caller| caller.arn.clone()),
        progress: DeploymentState::Created,
        rules: Rules {
            minimum_healthy,
            ignore_application_stop_failures,
            strategy,
            alarms: alarms.as_ref().and_then(Alarms::monitored),
        },
        definition: Some(Definition {
            revision,
            previous_revision: last_successful_revision(context, &group)?,
            config_name,
            description: request.description.map(|description| description.0),
            creator: Creator::User,
            style,
            restarts,
            file_exists: request.file_exists,
            ignore_application_stop_failures,
            update_outdated_only: request.update_outdated_only,
            auto_rollback: request
                .auto_rollback
                .unwrap_or_else(|| group.settings.auto_rollback()),
            replacement: request.replacement,
            blue_green: group.settings.blue_green(),
            load_balancers: group.settings.load_balancers(),
            override_alarms: request.override_alarms,
            ec2_options: request.ec2_options,
            messages,
        }),
        relations,
        was_set_aside: false,
        application_name: application.name,
        group_name: group.name.clone(),
    };
    Ok((record, group))
}

/// Stores a new deployment as the last attempted one of its group.
pub(super) fn publish(
    context: &Context<'_>,
    group: &groups::Group,
    record: &Record,
    target_revision: Option<&Revision>,
) -> Result<(), ApiError> {
    record.insert(context.tx)?;
    revisions::mark_used(
        context,
        &group.application_id,
        &record.definition()?.revision,
        &record.id,
    )?;
    Ok(groups::note_attempt(
        context.tx,
        &group.id,
        target_revision,
        &record.id,
    )?)
}

/// Returns the warning about alarms that can never stop the deployment.
fn unknown_alarms(
    context: &Context<'_>,
    application: &str,
    group: &str,
    alarms: Option<&Alarms>,
) -> Result<Vec<String>, ApiError> {
    let alarms = alarms
        .into_iter()
        .flat_map(Alarms::names)
        .map(str::to_owned)
        .collect();
    let references = References {
        alarms,
        topics: Vec::new(),
    };
    let found = dangling_references::report(context.known, (application, group), &references)?;
    Ok(found.iter().map(ToString::to_string).collect())
}

/// Whether hosts get a GitHub token for the revision; a token that cannot be decrypted is an error.
fn has_token(
    context: &Context<'_>,
    group: &groups::Group,
    revision: &Revision,
) -> Result<bool, ApiError> {
    if !matches!(revision, Revision::GitHub(_)) {
        return Ok(false);
    }
    let Some(kept) = tokens::of_group(context.tx, &group.id)? else {
        return Ok(false);
    };
    match kept.open(context.vault) {
        Ok(_) => Ok(true),
        Err(cause) => Err(ErrorName::InvalidGitHubAccountToken.because(format!(
            "The application's GitHub token cannot be used: {cause}, or store the token again."
        ))),
    }
}

/// Returns the revision of a group's last successful deployment, and the relations of a deployment
/// that repeats it.
fn restarted(
    context: &Context<'_>,
    group: &groups::Group,
) -> Result<(Revision, Relations), ApiError> {
    let last = match &group.last_successful {
        Some(id) => Record::load(context.tx, id)?,
        None => None,
    };
    let last = last.and_then(|last| last.revision().cloned().map(|revision| (last, revision)));
    let (last, revision) = last.ok_or_else(|| {
        ErrorName::RevisionDoesNotExist.because(format!(
            "The deployment group {} has no successful deployment whose revision could be restarted.",
            group.name
        ))
    })?;
    let with_github_token = last.relations.with_github_token;
    let relations = Relations {
        reuse_archive_from: group.last_successful.clone(),
        with_github_token,
        ..Relations::default()
    };
    Ok((revision, relations))
}

/// Returns the strategy of the deployment, if this service supports it.
fn strategy(
    context: &Context<'_>,
    group: &groups::Group,
    style: Style,
    replacement: Option<&Replacement>,
    restarts: bool,
) -> Result<Strategy, ApiError> {
    if style.shifts_traffic() {
        let names = group
            .settings
            .load_balancers()
            .map(|balancers| balancers.names())
            .unwrap_or_default();
        if let Some(unknown) = names.iter().find(|name| !context.balancers.has(name)) {
            return Err(ErrorName::InvalidLoadBalancerInfo.because(format!(
                "The load balancer {:?} is not one that this service is connected to; its configuration has {}.",
                shorten(unknown),
                context.balancers.list()
            )));
        }
    }
    match style {
        Style::InPlace | Style::InPlaceWithTrafficControl if replacement.is_some() => {
            Err(ErrorName::InvalidTargetInstances.because(
                "targetInstances are for blue/green deployments; the deployment group deploys in place.",
            ))
        }
        Style::InPlace => Ok(Strategy::InPlace),
        Style::InPlaceWithTrafficControl => Ok(Strategy::InPlaceBehindLoadBalancer),
        Style::BlueGreen if restarts => {
            Err(ErrorName::InvalidInput
                .because("The deployment mode RESTART is for deployments in place only."))
        }
        Style::BlueGreen => {
            check_replacement(context, replacement)?;
            blue_green(group.settings.blue_green().as_ref())
        }
    }
}

fn blue_green(options: Option<&BlueGreen>) -> Result<Strategy, ApiError> {
    match options {
        Some(options) if options.copies_auto_scaling_group() => Err(ErrorName::InvalidInput.because(
            "The deployment group copies an Auto Scaling group, which this service has none of; set \
             greenFleetProvisioningOption to DISCOVER_EXISTING.",
        )),
        Some(options) => Ok(options.strategy()),
        None => Ok(Strategy::BlueGreen { wait_minutes: None, retire_minutes: None }),
    }
}

fn check_replacement(
    context: &Context<'_>,
    replacement: Option<&Replacement>,
) -> Result<(), ApiError> {
    let refuse = |reason: &str| Err(ErrorName::InvalidTargetInstances.because(reason));
    let Some(replacement) = replacement else {
        return refuse(
            "The deployment group is blue/green: name the replacement instances with the tags in targetInstances.",
        );
    };
    if fleet::members(context.tx, &replacement.membership())?.is_empty() {
        return refuse("The tags in targetInstances match no registered instance.");
    }
    Ok(())
}

/// CI plug-ins parse the running deployment's id from this text.
pub(super) fn refuse_second(
    context: &Context<'_>,
    group_id: &str,
    group_name: &str,
) -> Result<(), ApiError> {
    if let Some(running) = unfinished::of_group(context.tx, group_id)? {
        return Err(ErrorName::DeploymentLimitExceeded.because(format!(
            "The Deployment Group '{group_name}' already has an active Deployment '{running}'"
        )));
    }
    let active = unfinished::count(context.tx)?;
    if active >= context.quotas.active_deployments {
        return Err(ErrorName::DeploymentLimitExceeded.because(format!(
            "There are {active} active deployments, which is the quota (quotas.active_deployments in the \
                 controller's configuration)."
        )));
    }
    Ok(())
}

/// Returns the revision of a group's last successful deployment.
pub(super) fn last_successful_revision(
    context: &Context<'_>,
    group: &groups::Group,
) -> Result<Option<Revision>, ApiError> {
    match &group.last_successful {
        Some(id) => Ok(Record::load(context.tx, id)?.and_then(|record| record.revision().cloned())),
        None => Ok(None),
    }
}

/// `d-` and nine characters: agents use it as a folder name.
pub(super) fn new_deployment_id(context: &Context<'_>) -> Result<String, ApiError> {
    loop {
        let id = format!(
            "d-{}",
            random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 9)?
        );
        if Record::load(context.tx, &id)?.is_none() {
            return Ok(id);
        }
    }
}
