//! `deployments`: the history, the newest first.

use codedeploy_api::codedeploy::DeploymentStatus;
use codedeploy_api::controller::{
    DeploymentSummary, ListDeploymentStatusesInput, ListDeploymentStatusesOutput,
};

use super::connect::Session;
use super::{OperateError, words};
use crate::cli::output;
use crate::cli::table::table;

pub(super) async fn show(
    session: &mut Session,
    group: Option<(String, String)>,
    statuses: Vec<DeploymentStatus>,
    most: usize,
    json: bool,
) -> Result<(), OperateError> {
    let deployments = list(session, group, statuses, most).await?;
    if json {
        return Ok(output::show(words::json(&deployments))?);
    }
    if deployments.is_empty() {
        output::complain("There is no such deployment.");
        return Ok(());
    }
    let rows: Vec<_> = deployments.iter().map(row).collect();
    Ok(output::show(table(
        [
            "ID", "STATUS", "GROUP", "REVISION", "BY", "CREATED", "TOOK", "HOSTS", "WHY",
        ],
        &rows,
    ))?)
}

async fn list(
    session: &mut Session,
    group: Option<(String, String)>,
    statuses: Vec<DeploymentStatus>,
    most: usize,
) -> Result<Vec<DeploymentSummary>, OperateError> {
    let (application, group) = group.unzip();
    let mut deployments = Vec::new();
    let mut next_token = None;
    while deployments.len() < most {
        let input = ListDeploymentStatusesInput {
            application_name: application.clone(),
            deployment_group_name: group.clone(),
            include_only_statuses: (!statuses.is_empty()).then(|| statuses.clone()),
            next_token,
        };
        let client = session.client()?;
        let page: ListDeploymentStatusesOutput =
            client.controller("ListDeploymentStatuses", &input).await?;
        deployments.extend(page.deployments.unwrap_or_default());
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    deployments.truncate(most);
    Ok(deployments)
}

/// Returns the id of the last deployment that failed.
pub(super) async fn last_failure(session: &mut Session) -> Result<String, OperateError> {
    let failed = list(session, None, vec![DeploymentStatus::Failed], 1).await?;
    let id = failed
        .into_iter()
        .next()
        .and_then(|deployment| deployment.deployment_id);
    id.ok_or(OperateError::NothingFailed)
}

fn row(deployment: &DeploymentSummary) -> [String; 9] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let took = match (deployment.start_time, deployment.complete_time) {
        (Some(start), Some(end)) => words::span(end.since(start)),
        _ => "-".into(),
    };
    let error = deployment.error_information.as_ref();
    let mut why = error
        .and_then(|error| error.code.as_ref())
        .map_or(String::new(), |code| words::plain(code.as_str()));
    if let Some(other) = &deployment.rolls_back {
        why += &format!(" rolls back {other}");
    }
    if let Some(other) = &deployment.rolled_back_by {
        why += &format!(" rolled back by {other}");
    }
    [
        text(&deployment.deployment_id),
        words::status(deployment.status.as_ref()),
        format!(
            "{}/{}",
            text(&deployment.application_name),
            text(&deployment.deployment_group_name)
        ),
        words::short_revision(deployment.revision.as_ref()),
        words::creator(deployment),
        words::ago(deployment.create_time),
        took,
        words::overview(deployment.deployment_overview.as_ref()),
        why.trim_start().to_owned(),
    ]
}
