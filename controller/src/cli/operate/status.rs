//! `status`: the fleet on one page.

use codedeploy_api::controller::{
    DeploymentSummary, GetFleetStatusInput, GetFleetStatusOutput, GroupStatus,
};

use super::connect::Session;
use super::{OperateError, words};
use crate::cli::output;
use crate::cli::table::table;

/// The number of advices below the table.
const ADVICES: usize = 10;

pub(super) async fn show(
    session: &mut Session,
    application: Option<String>,
    group: Option<String>,
    json: bool,
) -> Result<(), OperateError> {
    let mut groups = Vec::new();
    let mut next_token = None;
    loop {
        let input = GetFleetStatusInput {
            application_name: application.clone(),
            deployment_group_name: group.clone(),
            next_token,
        };
        let client = session.client()?;
        let page: GetFleetStatusOutput = client.controller("GetFleetStatus", &input).await?;
        groups.extend(page.groups.unwrap_or_default());
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    if json {
        return Ok(output::show(words::json(&groups))?);
    }
    if groups.is_empty() {
        output::complain(if session.is_local() {
            "There is no deployment group yet."
        } else {
            "There is no deployment group that this access key is for."
        });
        return Ok(());
    }
    let rows: Vec<_> = groups.iter().map(row).collect();
    output::show(table(
        [
            "APPLICATION",
            "GROUP",
            "REVISION",
            "SINCE",
            "BY",
            "HEALTHY",
            "BEHIND",
            "SILENT",
            "NOW",
        ],
        &rows,
    ))?;
    let advices: Vec<String> = groups.iter().flat_map(advices).collect();
    if !advices.is_empty() {
        output::show("\n")?;
    }
    for advice in advices.iter().take(ADVICES) {
        output::show(advice)?;
    }
    if advices.len() > ADVICES {
        let more = advices.len() - ADVICES;
        output::show(format_args!("… and {more} more."))?;
    }
    Ok(())
}

fn row(group: &GroupStatus) -> [String; 9] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let hosts = group.hosts.clone().unwrap_or_default();
    let current = group.current_deployment.as_ref();
    let few = |count: Option<usize>| match count.unwrap_or_default() {
        0 => "-".to_owned(),
        some => some.to_string(),
    };
    [
        text(&group.application_name),
        text(&group.deployment_group_name),
        words::short_revision(current.and_then(|current| current.revision.as_ref())),
        words::ago(current.and_then(|current| current.complete_time)),
        current.map_or("-".into(), words::creator),
        format!(
            "{}/{}",
            hosts.healthy.unwrap_or_default(),
            hosts.total.unwrap_or_default()
        ),
        few(hosts.behind),
        few(hosts.silent),
        now(group),
    ]
}

/// The present or, if nothing is running, the last event of a group that matters.
fn now(group: &GroupStatus) -> String {
    let mut now = match (&group.running_deployment, words::fresh_failure(group)) {
        (Some(running), _) => running_words(running),
        (None, Some(failure)) => format!(
            "{} {} {}",
            words::status(failure.status.as_ref()),
            failure.deployment_id.as_deref().unwrap_or_default(),
            words::ago(failure.complete_time)
        ),
        (None, None) if group.current_deployment.is_none() => "never deployed".into(),
        (None, None) => "idle".into(),
    };
    if group.waiting_revision.is_some() {
        now += ", an upload waits";
    }
    now
}

fn running_words(running: &DeploymentSummary) -> String {
    let id = running.deployment_id.as_deref().unwrap_or_default();
    let status = words::status(running.status.as_ref());
    let Some(counts) = &running.deployment_overview else {
        return format!("{status} {id}");
    };
    let succeeded = counts.succeeded.unwrap_or_default();
    let failed = match counts.failed.unwrap_or_default() {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    let wait = match running.waits_until {
        Some(until) => format!(", ends {}", words::until(until)),
        None => String::new(),
    };
    format!(
        "{status} {id} {succeeded}/{}{failed}{wait}",
        words::total(counts)
    )
}

/// Returns the commands that say more about the problems of a group.
fn advices(group: &GroupStatus) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (application, name) = (
        text(&group.application_name),
        text(&group.deployment_group_name),
    );
    let hosts = group.hosts.clone().unwrap_or_default();
    let some = |count: Option<usize>| count.filter(|count| *count > 0);
    let of_group = format!("--application {application} --group {name}");
    let mut advices = Vec::new();
    if let Some(running) = &group.running_deployment {
        let id = text(&running.deployment_id);
        let verb = match running.status.as_ref().map(|status| status.as_str()) {
            Some("Ready") => "waits for you: codedeploy-controller continue",
            _ => "is running: codedeploy-controller follow",
        };
        advices.push(format!("{application}/{name}: {id} {verb} {id}"));
    } else if let Some(failure) = words::fresh_failure(group) {
        let id = text(&failure.deployment_id);
        advices.push(format!(
            "{application}/{name}: the last deployment failed: codedeploy-controller why {id}"
        ));
    }
    if let Some(silent) = some(hosts.silent) {
        advices.push(format!(
            "{application}/{name}: {}: codedeploy-controller hosts {of_group} --silent",
            words::number(silent, "host is silent", "hosts are silent")
        ));
    }
    if let Some(drained) = some(hosts.drained) {
        advices.push(format!(
            "{application}/{name}: {}: codedeploy-controller hosts {of_group} --drained",
            words::number(drained, "host is drained", "hosts are drained")
        ));
    }
    if let Some(behind) = some(hosts.behind).filter(|_| group.running_deployment.is_none()) {
        advices.push(format!(
            "{application}/{name}: {}: codedeploy-controller hosts {of_group} --behind",
            words::number(behind, "host lacks the revision", "hosts lack the revision")
        ));
    }
    advices
}
