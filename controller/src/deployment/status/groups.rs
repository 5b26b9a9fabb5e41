//! GetFleetStatus: every deployment group with its revision, its hosts, its running and its failed
//! deployment.

use codedeploy_api::controller::{
    DeploymentSummary, GetFleetStatusOutput, GroupStatus, HostCounts,
};

use super::summary::{brief, counted, last_failure};
use crate::error::ApiError;
use crate::fleet::Census;
use crate::pagination::PAGE;
use crate::records::{Record, health, unfinished};
use crate::registry::applications;
use crate::registry::groups::{self, Group};
use crate::request;
use crate::revision::Revision;
use crate::store::Json;
use crate::transaction::Context;

/// In the order of names.
pub fn list(
    context: &Context<'_>,
    request: request::GetFleetStatus,
) -> Result<GetFleetStatusOutput, ApiError> {
    let (application, group) = (request.application.as_deref(), request.group.as_deref());
    if let Some(name) = application {
        let application = applications::find(context, name)?;
        if let Some(name) = group {
            groups::find(context, &application, name)?;
        }
    }
    let listing = context.pages.listing::<(String, String)>(
        format!("fleet {application:?} {group:?}"),
        request.next_token.as_deref(),
    )?;
    let (last_application, last_group) = listing
        .after()
        .map_or(("", ""), |(application, group)| (application, group));
    let last = (last_application, last_group);
    let found = if context.is_limited() {
        let mut visible = groups::visible(context)?;
        visible.retain(|(of, found)| {
            application.is_none_or(|wanted| wanted == of)
                && group.is_none_or(|wanted| wanted == found.name)
                && (of.as_str(), found.name.as_str()) > last
        });
        visible
    } else {
        // One more than a page shows whether there is another page.
        let wanted = groups::Wanted { application, group };
        groups::after(context.tx, wanted, last, PAGE + 1)?
    };
    let items = found.into_iter().map(|(application, group)| {
        let key = (application.clone(), group.name.clone());
        Ok::<_, ApiError>((key, (application, group)))
    });
    let (page, next_token) = listing.page(items)?;
    let census = Census::take(context.tx, context.now)?;
    let groups = page
        .into_iter()
        .map(|(application, group)| status(context, &census, application, group));
    Ok(GetFleetStatusOutput {
        groups: Some(groups.collect::<Result<_, _>>()?),
        next_token,
    })
}

fn status(
    context: &Context<'_>,
    census: &Census,
    application: String,
    group: Group,
) -> Result<GroupStatus, ApiError> {
    let current = load(context, group.last_successful.as_deref())?;
    let revision = current.as_ref().and_then(Record::revision);
    let hosts = count(context, census, &group, revision)?;
    let running = unfinished::of_group(context.tx, &group.id)?;
    let running = load(context, running.as_deref())?;
    let running: Option<DeploymentSummary> = running
        .map(|record| counted(context, &record))
        .transpose()?;
    let waiting = context.tx.query_opt(
        "SELECT revision FROM pending_deployments WHERE application = ?1 AND group_name = ?2",
        (&application, &group.name),
        |row| row.get::<Json<Revision>>(0),
    )?;
    Ok(GroupStatus {
        application_name: Some(application),
        deployment_group_name: Some(group.name),
        current_deployment: current.as_ref().map(brief),
        hosts: Some(hosts),
        running_deployment: running,
        waiting_revision: waiting.map(|Json(revision)| revision.into()),
        last_failure: last_failure(context, &group.id)?,
    })
}

fn load(context: &Context<'_>, id: Option<&str>) -> Result<Option<Record>, ApiError> {
    match id {
        Some(id) => Ok(Record::load(context.tx, id)?),
        None => Ok(None),
    }
}

/// Counts the members of a group. They and the group's rows of health are both in the order of
/// names.
fn count(
    context: &Context<'_>,
    census: &Census,
    group: &Group,
    current: Option<&Revision>,
) -> Result<HostCounts, ApiError> {
    let members = census.members(&group.settings.membership());
    let mut rest = members.iter().peekable();
    let (mut healthy, mut up_to_date) = (0, 0);
    health::compare(context.tx, &group.id, current, |row| {
        while rest.next_if(|member| *member.name < *row.name).is_some() {}
        if rest.next_if(|member| member.name == row.name).is_some() {
            healthy += usize::from(row.healthy);
            up_to_date += usize::from(row.is_current);
        }
    })?;
    let drained = members.iter().filter(|member| member.is_drained).count();
    let silent = members.iter().filter(|member| member.is_silent).count();
    // Without a revision of the group, no host can lack it.
    let behind = current.map_or(0, |_| members.len() - up_to_date);
    Ok(HostCounts {
        total: Some(members.len()),
        healthy: Some(healthy),
        behind: Some(behind),
        silent: Some(silent),
        drained: Some(drained),
    })
}
