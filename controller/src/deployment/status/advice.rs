//! The next steps of an operator, in words. Pure.

use codedeploy_api::codedeploy::{DeploymentStatus, ErrorCode, LifecycleErrorCode};
use codedeploy_api::controller::{CommandState, HostCommand, HostFailure, ScriptLogState};

use crate::records::Record;

/// The facts about a deployment that its advice depends on.
pub(super) struct Situation<'a> {
    pub(super) record: &'a Record,
    pub(super) failures: &'a [HostFailure],
    pub(super) commands: &'a [HostCommand],
    /// The later deployment of the group that matters most, if there is one.
    pub(super) later: Option<&'a Record>,
    /// Whether the group has a successful deployment.
    pub(super) can_go_back: bool,
}

/// Returns the steps, the most likely first.
pub(super) fn advise(situation: &Situation<'_>) -> Vec<String> {
    let record = situation.record;
    let mut advice = Vec::new();
    match record.progress.status() {
        DeploymentStatus::Failed | DeploymentStatus::Stopped => {
            advice.extend(about_first_failure(situation));
            advice.extend(about_error(record));
            advice.extend(way_back(situation, advice.is_empty()));
        }
        DeploymentStatus::Ready => advice.push(format!(
            "The replacement instances are ready. Let it continue: codedeploy-controller continue {}",
            record.id
        )),
        _ => advice.extend(about_unfetched(situation)),
    }
    advice
}

fn about_first_failure(situation: &Situation<'_>) -> Vec<String> {
    let Some(failure) = situation.failures.first() else {
        return Vec::new();
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (host, event) = (
        text(&failure.instance_name),
        text(&failure.lifecycle_event_name),
    );
    let script = text(&failure.script_name);
    let id = &situation.record.id;
    let log = match failure.log_state {
        Some(ScriptLogState::Whole) => {
            format!("Read the whole output: codedeploy-controller why {id} --log --host {host}")
        }
        _ => format!(
            "Read the whole output on {host}: codedeploy-agent logs --scripts --deployment {id}"
        ),
    };
    match failure.error_code {
        Some(LifecycleErrorCode::ScriptFailed) => vec![
            log,
            format!("Correct {script} in the revision, and deploy again."),
        ],
        Some(LifecycleErrorCode::ScriptTimedOut) => vec![
            log,
            format!(
                "{script} took longer than its timeout. Find out what it waited for, or raise `timeout` of the hook \
                 {event} in appspec.yml."
            ),
        ],
        Some(LifecycleErrorCode::ScriptMissing) => vec![format!(
            "The hook {event} in appspec.yml names {script}, which the revision lacks: add the file or correct the name."
        )],
        Some(LifecycleErrorCode::ScriptNotExecutable) => vec![format!(
            "{script} cannot be executed: run chmod +x on it before the revision is made, and check its first line (#!)."
        )],
        _ if !has_reported(failure) => vec![
            format!(
                "The agent on {host} did not report. Look at it there: systemctl status codedeploy-agent, then \
                 codedeploy-agent doctor"
            ),
            format!("If {host} is lost for good: codedeploy-controller host remove {host}"),
        ],
        _ => vec![format!(
            "Read the agent's log on {host}: codedeploy-agent logs --deployment {id}"
        )],
    }
}

/// Whether the host itself reported the failure: the service's own reports have no script and no
/// output.
fn has_reported(failure: &HostFailure) -> bool {
    let message = failure.message.as_deref().unwrap_or_default();
    let by_service = ["CodeDeploy agent ", "The on-premises instance "];
    failure.log_tail.is_some()
        || failure.script_name.is_some()
        || !by_service.iter().any(|begin| message.starts_with(begin))
}

fn about_error(record: &Record) -> Option<String> {
    let (application, group) = (&record.application_name, &record.group_name);
    let code = record.error()?.code.as_ref()?;
    Some(match code {
        ErrorCode::NoInstances => format!(
            "No registered host matches the tag filters of the group {group}. Compare them with the tags of the hosts: \
             aws deploy get-deployment-group --application-name {application} --deployment-group-name {group}, and \
             codedeploy-controller hosts"
        ),
        ErrorCode::HealthConstraintsInvalid => format!(
            "The deployment configuration demands as many healthy hosts as the group has, so that none may begin. Use \
             another one: codedeploy-controller deploy {application} {group} … --config CodeDeployDefault.AllAtOnce"
        ),
        ErrorCode::AlarmActive => {
            "An alarm is active. Find out why before the next deployment; the alarm's name is in the message.".into()
        }
        ErrorCode::MissingGithubToken => {
            format!("Link the application to a token: codedeploy-controller github-token link NAME {application}")
        }
        ErrorCode::OverMaxInstances => {
            "Raise quotas.targets_per_deployment in the controller's configuration, or split the group.".into()
        }
        ErrorCode::Timeout => {
            "Look for the hosts that did not end: codedeploy-controller hosts".into()
        }
        ErrorCode::InternalError => "The controller's log has the cause.".into(),
        _ => return None,
    })
}

/// Returns the way to a good revision: a rollback of the group would not undo this deployment, but
/// the last one.
fn way_back(situation: &Situation<'_>, is_only: bool) -> Option<String> {
    let record = situation.record;
    let rollback = record.relations.rollback.as_ref();
    if let Some(id) = rollback.and_then(|rollback| rollback.rollback_deployment_id.as_ref()) {
        return Some(format!(
            "It is rolled back by {id}: codedeploy-controller follow {id}"
        ));
    }
    if let Some(later) = situation.later {
        let id = &later.id;
        return Some(match later.progress.status() {
            DeploymentStatus::Succeeded => {
                format!("The group has recovered: its deployment {id} succeeded later.")
            }
            DeploymentStatus::Failed | DeploymentStatus::Stopped => {
                format!("A later deployment did not succeed either: codedeploy-controller why {id}")
            }
            _ => format!("A later deployment is running: codedeploy-controller follow {id}"),
        });
    }
    (situation.can_go_back && !record.is_rollback()).then(|| {
        format!(
            "{} to the last successful revision: codedeploy-controller rollback {} {}",
            if is_only { "Go back" } else { "Or go back" },
            record.application_name,
            record.group_name
        )
    })
}

fn about_unfetched(situation: &Situation<'_>) -> Option<String> {
    let unfetched = situation
        .commands
        .iter()
        .find(|command| command.state == Some(CommandState::Offered))?;
    let host = unfetched.instance_name.as_deref().unwrap_or_default();
    Some(format!(
        "{host} has not fetched its command yet. If that lasts: codedeploy-controller hosts {host}"
    ))
}
