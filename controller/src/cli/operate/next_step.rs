//! The next step after an error, for people.

use super::OperateError;
use crate::client::ClientError;

impl OperateError {
    /// Returns the next step, unless the error itself names it.
    pub(in crate::cli) fn next_step(&self) -> Option<String> {
        match self {
            OperateError::Busy { id, .. } => Some(about_active(id)),
            OperateError::Client(ClientError::Refused { name, message }) => about(name, message),
            OperateError::Client(ClientError::Outgoing(_)) => Some(
                "Find out on its host whether it runs: systemctl status codedeploy-controller"
                    .into(),
            ),
            _ => None,
        }
    }
}

fn about(name: &str, message: &str) -> Option<String> {
    let step = match name.trim_end_matches("Exception") {
        "ApplicationDoesNotExist" | "DeploymentGroupDoesNotExist" => {
            "List all deployment groups: codedeploy-controller status"
        }
        "InstanceNotRegistered" => "List all hosts: codedeploy-controller hosts",
        "DeploymentDoesNotExist" | "InvalidDeploymentId" => {
            "List the deployments: codedeploy-controller deployments"
        }
        "DeploymentLimitExceeded" => {
            return message
                .split('\'')
                .find(|word| is_id(word))
                .map(about_active);
        }
        _ => return None,
    };
    Some(step.to_owned())
}

fn about_active(id: &str) -> String {
    format!(
        "Follow it: codedeploy-controller follow {id}\nOr stop it: codedeploy-controller stop {id}"
    )
}

fn is_id(word: &str) -> bool {
    word.strip_prefix("d-")
        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric()))
}
