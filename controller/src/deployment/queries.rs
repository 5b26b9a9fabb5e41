//! GetDeployment, BatchGetDeployments and ListDeployments.

use codedeploy_api::codedeploy::*;

use super::progress::Progress;
use super::records::{Record, overview};
use crate::error::{ApiError, ErrorName};
use crate::registry::{BATCH, Context, applications, groups, shorten};

/// An identifier of the right form.
pub(super) fn check_id(id: Option<String>) -> Result<String, ApiError> {
    let id = id
        .filter(|id| !id.is_empty())
        .ok_or_else(|| ErrorName::DeploymentIdRequired.because("The deployment id is missing."))?;
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let valid = id.strip_prefix("d-").is_some_and(|rest| !rest.is_empty() && rest.chars().all(allowed));
    if !valid || id.len() > 64 {
        return Err(ErrorName::InvalidDeploymentId
            .because(format!("{:?} is not a deployment id such as d-A1B2C3D4E.", shorten(&id))));
    }
    Ok(id)
}

/// The deployment named by a request.
pub(super) fn find(context: &Context<'_>, id: Option<String>) -> Result<Record, ApiError> {
    let id = check_id(id)?;
    Record::load(context.tx, &id)?.ok_or_else(|| {
        ErrorName::DeploymentDoesNotExist.because(format!("The deployment {id} could not be found."))
    })
}

fn info(context: &Context<'_>, record: Record) -> Result<DeploymentInfo, ApiError> {
    let error_information = match &record.progress {
        Progress::Ended { ending, .. } => ending.error().cloned(),
        Progress::Created | Progress::InProgress { .. } | Progress::Ready { .. } => None,
    };
    let overview = match record.progress.started() {
        Some(_) => Some(overview(context.tx, &record.id)?),
        None => None,
    };
    Ok(DeploymentInfo {
        application_name: Some(record.application_name),
        deployment_group_name: Some(record.group_name),
        deployment_id: Some(record.id),
        status: Some(record.progress.status()),
        error_information,
        create_time: Some(record.created),
        start_time: record.progress.started(),
        complete_time: record.progress.completed(),
        deployment_overview: overview,
        ..record.snapshot
    })
}

/// What a deployment group shows of its last deployments.
pub(crate) fn last_info(context: &Context<'_>, id: &str) -> Result<Option<LastDeploymentInfo>, ApiError> {
    Ok(Record::load(context.tx, id)?.map(|record| LastDeploymentInfo {
        deployment_id: Some(record.id),
        status: Some(record.progress.status()),
        end_time: record.progress.completed(),
        create_time: Some(record.created),
    }))
}

pub fn get(context: &Context<'_>, input: GetDeploymentInput) -> Result<GetDeploymentOutput, ApiError> {
    let record = find(context, input.deployment_id)?;
    Ok(GetDeploymentOutput { deployment_info: Some(info(context, record)?) })
}

/// Deployments that do not exist are left out.
pub fn batch_get(
    context: &Context<'_>,
    input: BatchGetDeploymentsInput,
) -> Result<BatchGetDeploymentsOutput, ApiError> {
    let ids = input.deployment_ids.unwrap_or_default();
    if ids.is_empty() {
        return Err(ErrorName::DeploymentIdRequired.because("At least one deployment id is needed."));
    }
    if ids.len() > BATCH {
        return Err(ErrorName::BatchLimitExceeded.because(format!(
            "{} deployment ids were given; at most {BATCH} can be given at once.",
            ids.len()
        )));
    }
    let ids = ids.into_iter().map(|id| check_id(Some(id))).collect::<Result<Vec<_>, _>>()?;
    let mut infos = Vec::new();
    for id in ids {
        if let Some(record) = Record::load(context.tx, &id)? {
            infos.push(info(context, record)?);
        }
    }
    Ok(BatchGetDeploymentsOutput { deployments_info: Some(infos) })
}

/// The newest first.
pub fn list(context: &Context<'_>, input: ListDeploymentsInput) -> Result<ListDeploymentsOutput, ApiError> {
    if let Some(id) = input.external_id.as_deref().filter(|id| !id.is_empty()) {
        return Err(ErrorName::InvalidExternalId.because(format!(
            "No deployment of this service has an external id; {:?} was given.",
            shorten(id)
        )));
    }
    let statuses = input.include_only_statuses.unwrap_or_default();
    if let Some(status) = statuses.iter().find(|status| !status.is_known()) {
        return Err(ErrorName::InvalidDeploymentStatus.because(format!(
            "{:?} is not one of {}.",
            shorten(status.as_str()),
            DeploymentStatus::KNOWN.join(", ")
        )));
    }
    let range = input.create_time_range.unwrap_or_default();
    if range.start.zip(range.end).is_some_and(|(start, end)| start > end) {
        return Err(ErrorName::InvalidTimeRange.because("The time range ends before it starts."));
    }
    let group_id = match (input.application_name, input.deployment_group_name) {
        (None, None) => None,
        (Some(_), None) => {
            return Err(ErrorName::DeploymentGroupNameRequired.because(
                "The deployment group name is missing: give it together with the application name.",
            ));
        }
        (None, Some(_)) => {
            return Err(ErrorName::ApplicationNameRequired.because(
                "The application name is missing: give it together with the deployment group name.",
            ));
        }
        (application, group) => {
            let application = applications::find(context, application)?;
            Some(groups::find(context, &application, group)?.id)
        }
    };
    let mut statement = context.tx.prepare_cached(
        "SELECT id, created, status FROM deployments
         WHERE (?1 IS NULL OR group_id = ?1) AND created BETWEEN ?2 AND ?3
         ORDER BY created DESC, id",
    )?;
    let mut rows = statement.query((
        &group_id,
        range.start.map_or(i64::MIN, Timestamp::millis),
        range.end.map_or(i64::MAX, Timestamp::millis),
    ))?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, created, status): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if statuses.is_empty() || statuses.contains(&DeploymentStatus::from(status)) {
            items.push((format!("{:020}{id}", i64::MAX - created), id));
        }
    }
    let listing = format!("deployments{group_id:?}{statuses:?}{range:?}");
    let (deployments, next_token) = context.pages.cut(&listing, input.next_token.as_deref(), items)?;
    Ok(ListDeploymentsOutput { deployments: Some(deployments), next_token })
}
