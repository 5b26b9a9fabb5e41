//! CreateDeployment.

use codedeploy_api::codedeploy::*;

use super::decide::{Change, Outcome};
use super::plan::Rules;
use super::records::Record;
use super::state::Progress;
use crate::config::Timers;
use crate::error::{ApiError, ErrorName};
use crate::registry::{Context, applications, configs, groups, random_text, revisions};
use crate::request;

/// Accepts a deployment; its targets are found when it starts.
pub fn create(
    context: &Context<'_>,
    _: &Timers,
    request: request::CreateDeployment,
) -> Result<(CreateDeploymentOutput, Outcome), ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let group = groups::find(context, &application, &request.deployment_group_name)?;
    let style = group.style();
    check_style(&style)?;
    if request.target_instances.is_some() {
        return Err(ErrorName::InvalidTargetInstances.because(
            "targetInstances are for blue/green deployments; the deployment group deploys in place.",
        ));
    }
    let config_name = request.deployment_config_name;
    let config_name = config_name.map_or_else(|| group.config_name().to_owned(), String::from);
    let minimum_healthy = configs::minimum_healthy(context, &config_name)?;
    let request::Source::Revision(revision) = request.source else {
        return Err(ErrorName::InvalidInput
            .because("The deployment mode RESTART is not one of this service; STANDARD is the only one."));
    };
    refuse_second(context, &group.id, &group.name)?;

    let id = new_deployment_id(context)?;
    let ignore_application_stop_failures = request.ignore_application_stop_failures;
    let record = Record {
        id: id.clone(),
        group_id: group.id.clone(),
        created: context.now,
        progress: Progress::Created,
        rules: Rules { minimum_healthy, ignore_application_stop_failures },
        snapshot: DeploymentInfo {
            deployment_config_name: Some(config_name),
            previous_revision: last_successful_revision(context, &group)?,
            revision: Some(revision.clone()),
            description: request.description.map(|description| description.0),
            creator: Some(DeploymentCreator::User),
            ignore_application_stop_failures: Some(ignore_application_stop_failures),
            auto_rollback_configuration: request
                .auto_rollback_configuration
                .or_else(|| Some(group.auto_rollback())),
            update_outdated_instances_only: Some(request.update_outdated_instances_only),
            deployment_style: Some(style),
            instance_termination_wait_time_started: Some(false),
            load_balancer_info: group.settings.load_balancer_info.clone(),
            file_exists_behavior: Some(request.file_exists_behavior),
            compute_platform: Some(ComputePlatform::Server),
            override_alarm_configuration: request.override_alarm_configuration,
            ec2_deployment_options: request.ec2_deployment_options,
            ..DeploymentInfo::default()
        },
        application_name: application.name.clone(),
        group_name: group.name.clone(),
    };
    record.insert(context.tx)?;
    revisions::mark_used(context, &application.id, &revision, &id)?;
    context.tx.execute(
        "UPDATE deployment_groups SET target_revision = ?2, last_attempted = ?3 WHERE id = ?1",
        (&group.id, crate::store::Json(revision), &id),
    )?;
    let mut outcome = Outcome::none(&id);
    outcome.changes.push(Change::Created);
    Ok((CreateDeploymentOutput { deployment_id: Some(id) }, outcome))
}

/// The service moves no traffic: a deployment that relies on it is refused rather than carried out by half.
fn check_style(style: &DeploymentStyle) -> Result<(), ApiError> {
    if style.deployment_type == Some(DeploymentType::BlueGreen) {
        return Err(ErrorName::InvalidInput
            .because("The deployment group has the type BLUE_GREEN; this service deploys IN_PLACE only."));
    }
    if style.deployment_option == Some(DeploymentOption::WithTrafficControl) {
        return Err(ErrorName::InvalidLoadBalancerInfo.because(
            "The deployment group has the option WITH_TRAFFIC_CONTROL; this service is connected to no load balancer. \
             Set WITHOUT_TRAFFIC_CONTROL.",
        ));
    }
    Ok(())
}

/// CI plug-ins find the running deployment's id in this text.
fn refuse_second(context: &Context<'_>, group_id: &str, group_name: &str) -> Result<(), ApiError> {
    let mut statement = context.tx.prepare_cached(
        "SELECT id FROM deployments WHERE group_id = ?1 AND status IN ('Created', 'InProgress') LIMIT 1",
    )?;
    if let Some(row) = statement.query([group_id])?.next()? {
        let running: String = row.get(0)?;
        return Err(ErrorName::DeploymentLimitExceeded.because(format!(
            "The Deployment Group '{group_name}' already has an active Deployment '{running}'"
        )));
    }
    let active: usize = context.tx.query_row(
        "SELECT count(*) FROM deployments WHERE status IN ('Created', 'InProgress')",
        [],
        |row| row.get(0),
    )?;
    if active >= context.quotas.active_deployments {
        return Err(ErrorName::DeploymentLimitExceeded
            .because(format!("There are {active} active deployments, which is the quota.")));
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
fn new_deployment_id(context: &Context<'_>) -> Result<String, ApiError> {
    loop {
        let id = format!("d-{}", random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 9)?);
        if Record::load(context.tx, &id)?.is_none() {
            return Ok(id);
        }
    }
}
