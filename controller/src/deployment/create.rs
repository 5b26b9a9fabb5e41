//! CreateDeployment.

use codedeploy_api::codedeploy::*;
use codedeploy_planner::deployment_state::DeploymentState;
use codedeploy_planner::rules::{Rules, Watch};
use codedeploy_planner::strategy::Strategy;

use crate::deployment::effects::{Change, Effects};
use crate::error::{ApiError, ErrorName};
use crate::fleet::{self, Membership};
use crate::ids::random_text;
use crate::records::{Record, Relations};
use crate::registry::{applications, configs, groups, loose_ends, revisions, tokens};
use crate::request::members::shorten;
use crate::request::{self, Source};
use crate::transaction::Context;

/// Accepts a deployment; its targets are found when it starts.
pub fn create(
    context: &Context<'_>,
    request: request::CreateDeployment,
) -> Result<(CreateDeploymentOutput, Effects), ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let group = groups::find(context, &application, &request.deployment_group_name)?;
    let style = group.style();
    let config_name = request.deployment_config_name.as_deref().unwrap_or(group.config_name()).to_owned();
    let minimum_healthy = configs::for_server(context, &config_name)?;
    refuse_second(context, &group.id, &group.name)?;
    request.check_together()?;
    let restarts = matches!(request.source, Source::LastSuccessful { .. });
    let strategy = strategy(context, &group, &style, request.target_instances.as_ref(), restarts)?;
    let (revision, mut relations) = match request.source {
        Source::Revision(revision) => (revision, Relations::default()),
        Source::LastSuccessful { .. } => restarted(context, &group)?,
    };
    relations.with_github_token |= has_token(context, &group, &revision)?;
    let alarms =
        request.override_alarm_configuration.as_ref().or(group.settings.alarm_configuration.as_ref());
    let unknown = unknown_alarms(context, &application.name, &group.name, alarms)?;

    let id = new_deployment_id(context)?;
    let ignore_application_stop_failures = request.ignore_application_stop_failures;
    let record = Record {
        id: id.clone(),
        group_id: group.id.clone(),
        created: context.now,
        progress: DeploymentState::Created,
        rules: Rules { minimum_healthy, ignore_application_stop_failures, strategy, alarms: watch(alarms) },
        snapshot: DeploymentInfo {
            deployment_config_name: Some(config_name),
            previous_revision: last_successful_revision(context, &group)?,
            revision: Some(revision.clone()),
            description: request.description.map(|description| description.0),
            creator: Some(DeploymentCreator::User),
            deployment_status_messages: (!unknown.is_empty()).then_some(unknown),
            ignore_application_stop_failures: Some(ignore_application_stop_failures),
            auto_rollback_configuration: request
                .auto_rollback_configuration
                .or_else(|| group.settings.auto_rollback_configuration.clone()),
            update_outdated_instances_only: Some(request.update_outdated_instances_only),
            deployment_style: Some(style),
            target_instances: request.target_instances,
            blue_green_deployment_configuration: group.settings.blue_green_deployment_configuration.clone(),
            deployment_mode: restarts.then_some(DeploymentMode::Restart),
            load_balancer_info: group.settings.load_balancer_info.clone(),
            file_exists_behavior: Some(request.file_exists_behavior),
            compute_platform: Some(ComputePlatform::Server),
            override_alarm_configuration: request.override_alarm_configuration,
            ec2_deployment_options: request.ec2_deployment_options,
            ..DeploymentInfo::default()
        },
        relations,
        was_set_aside: false,
        application_name: application.name.clone(),
        group_name: group.name.clone(),
    };
    record.insert(context.tx)?;
    revisions::mark_used(context, &application.id, &revision, &id)?;
    context.tx.execute(
        "UPDATE deployment_groups SET target_revision = ?2, last_attempted = ?3 WHERE id = ?1",
        (&group.id, crate::store::Json(&revision), &id),
    )?;
    let mut outcome = Effects::none(&id);
    outcome.recheck_self();
    outcome.changes.push(Change::Created {
        application: application.name,
        deployment_group: group.name,
        revision,
    });
    Ok((CreateDeploymentOutput { deployment_id: Some(id) }, outcome))
}

/// What is said of alarms that can never stop the deployment.
fn unknown_alarms(
    context: &Context<'_>,
    application: &str,
    group: &str,
    alarms: Option<&AlarmConfiguration>,
) -> Result<Vec<String>, ApiError> {
    let alarms = DeploymentGroupSettings { alarm_configuration: alarms.cloned(), ..Default::default() };
    let found = loose_ends::look(context.known, (application, group), &alarms)?;
    Ok(found.iter().map(ToString::to_string).collect())
}

/// Whether hosts are given a GitHub token for the revision; one that cannot be opened is refused.
fn has_token(
    context: &Context<'_>,
    group: &groups::Group,
    revision: &RevisionLocation,
) -> Result<bool, ApiError> {
    if revision.git_hub_location.is_none() {
        return Ok(false);
    }
    let Some(kept) = tokens::of_group(context.tx, &group.id)? else {
        return Ok(false);
    };
    match kept.open(context.vault) {
        Ok(_) => Ok(true),
        Err(cause) => Err(ErrorName::InvalidGitHubAccountToken.because(format!(
            "The application's GitHub token cannot be used: {cause}, or store the token anew."
        ))),
    }
}

/// The revision of a group's last successful deployment, and how a deployment of it depends on that one.
fn restarted(
    context: &Context<'_>,
    group: &groups::Group,
) -> Result<(RevisionLocation, Relations), ApiError> {
    let last = match &group.last_successful {
        Some(id) => Record::load(context.tx, id)?,
        None => None,
    };
    let last = last.ok_or_else(|| {
        ErrorName::RevisionDoesNotExist.because(format!(
            "The deployment group {} has no successful deployment whose revision could be restarted.",
            group.name
        ))
    })?;
    let with_github_token = last.relations.with_github_token;
    let relations =
        Relations { reuse_archive_from: group.last_successful.clone(), with_github_token, rollback: None };
    Ok((last.revision(), relations))
}

/// The way the deployment takes, if this service can take it.
fn strategy(
    context: &Context<'_>,
    group: &groups::Group,
    style: &DeploymentStyle,
    replacement: Option<&TargetInstances>,
    restarts: bool,
) -> Result<Strategy, ApiError> {
    if style.deployment_option == Some(DeploymentOption::WithTrafficControl) {
        let names = request::load_balancers(group.settings.load_balancer_info.as_ref());
        if let Some(unknown) = names.iter().find(|name| !context.balancers.has(name)) {
            return Err(ErrorName::InvalidLoadBalancerInfo.because(format!(
                "The load balancer {:?} is not one that this service is connected to; its configuration has {}.",
                shorten(unknown),
                context.balancers.list()
            )));
        }
    }
    if style.deployment_type != Some(DeploymentType::BlueGreen) {
        return match replacement {
            None => Ok(Strategy::in_place(style.deployment_option.as_ref())),
            Some(_) => Err(ErrorName::InvalidTargetInstances.because(
                "targetInstances are for blue/green deployments; the deployment group deploys in place.",
            )),
        };
    }
    if restarts {
        return Err(
            ErrorName::InvalidInput.because("The deployment mode RESTART is for deployments in place only.")
        );
    }
    check_replacement(context, replacement)?;
    blue_green(group.settings.blue_green_deployment_configuration.clone().unwrap_or_default())
}

fn check_replacement(context: &Context<'_>, replacement: Option<&TargetInstances>) -> Result<(), ApiError> {
    let refuse = |reason: &str| Err(ErrorName::InvalidTargetInstances.because(reason));
    let Some(replacement) = replacement else {
        return refuse(
            "The deployment group is blue/green: name the replacement instances with the tags in targetInstances.",
        );
    };
    if fleet::members(context.tx, &Membership::of_replacement(replacement))?.is_empty() {
        return refuse("The tags in targetInstances match no registered instance.");
    }
    Ok(())
}

fn blue_green(configuration: BlueGreenDeploymentConfiguration) -> Result<Strategy, ApiError> {
    let provisioning = configuration.green_fleet_provisioning_option.and_then(|option| option.action);
    if provisioning == Some(GreenFleetProvisioningAction::CopyAutoScalingGroup) {
        return Err(ErrorName::InvalidInput.because(
            "The deployment group copies an Auto Scaling group, which this service has none of; set \
             greenFleetProvisioningOption to DISCOVER_EXISTING.",
        ));
    }
    let minutes = |minutes: Option<i64>| u32::try_from(minutes.unwrap_or(0)).unwrap_or(0);
    let ready = configuration.deployment_ready_option.unwrap_or_default();
    let waits = ready.action_on_timeout == Some(DeploymentReadyAction::StopDeployment);
    let blue = configuration.terminate_blue_instances_on_deployment_success.unwrap_or_default();
    // AWS terminates them unless it is told not to; nobody should lose hosts by leaving a member out.
    let retires = blue.action == Some(InstanceAction::Terminate);
    Ok(Strategy::BlueGreen {
        wait_minutes: waits.then(|| minutes(ready.wait_time_in_minutes)),
        retire_minutes: retires.then(|| minutes(blue.termination_wait_time_in_minutes)),
    })
}

fn watch(configuration: Option<&AlarmConfiguration>) -> Option<Watch> {
    let configuration = configuration.filter(|configuration| configuration.enabled == Some(true))?;
    let alarms = configuration.alarms.iter().flatten();
    let names: Vec<_> = alarms.filter_map(|alarm| alarm.name.clone()).collect();
    let ignore_poll_failure = configuration.ignore_poll_alarm_failure.unwrap_or(false);
    (!names.is_empty()).then_some(Watch { names, ignore_poll_failure })
}

/// CI plug-ins find the running deployment's id in this text.
fn refuse_second(context: &Context<'_>, group_id: &str, group_name: &str) -> Result<(), ApiError> {
    let running: Option<String> = context.tx.query_opt(
        "SELECT id FROM deployments WHERE group_id = ?1 AND status IN ('Created', 'InProgress', 'Ready') LIMIT 1",
        [group_id],
        |row| row.get(0),
    )?;
    if let Some(running) = running {
        return Err(ErrorName::DeploymentLimitExceeded.because(format!(
            "The Deployment Group '{group_name}' already has an active Deployment '{running}'"
        )));
    }
    let active: usize = context.tx.query_one(
        "SELECT count(*) FROM deployments WHERE status IN ('Created', 'InProgress', 'Ready')",
        (),
        |row| row.get(0),
    )?;
    if active >= context.quotas.active_deployments {
        return Err(ErrorName::DeploymentLimitExceeded.because(format!(
            "There are {active} active deployments, which is the quota (quotas.active_deployments in the \
                 controller's configuration)."
        )));
    }
    Ok(())
}

/// The revision of a group's last successful deployment.
pub(super) fn last_successful_revision(
    context: &Context<'_>,
    group: &groups::Group,
) -> Result<Option<RevisionLocation>, ApiError> {
    match &group.last_successful {
        Some(id) => Ok(Record::load(context.tx, id)?.map(|record| record.revision())),
        None => Ok(None),
    }
}

/// `d-` and nine characters: agents make folders of it.
pub(super) fn new_deployment_id(context: &Context<'_>) -> Result<String, ApiError> {
    loop {
        let id = format!("d-{}", random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 9)?);
        if Record::load(context.tx, &id)?.is_none() {
            return Ok(id);
        }
    }
}
