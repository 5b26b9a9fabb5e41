//! Checks that a specification belongs to the command at hand: to its deployment and, as far as the
//! signer states it, to this host and this time.

use std::time::Duration;

use codedeploy_api::command::HostCommand;
use time::OffsetDateTime;

use super::DeploymentSpec;

/// The tolerance between the signing time and this host's clock: it covers both clocks and the
/// duration of a call. Requests are rejected long before clocks differ that much.
const AROUND: Duration = Duration::from_secs(3600);

/// The host, command and time for which a specification was signed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Binding {
    pub host_identifier: Option<String>,
    pub deployment_execution_id: Option<String>,
    pub signed_at: Option<OffsetDateTime>,
}

/// The specification was signed for something else.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BindingError {
    #[error(
        "the specification is about the deployment {found}, but the command is of {expected:?}; nothing was done"
    )]
    Deployment { found: String, expected: String },
    #[error(
        "the specification was signed for the host {found:?}, but this is {own}; nothing was done"
    )]
    Host { found: String, own: String },
    #[error(
        "the specification was signed for {found:?}, but the command is of {expected:?}; nothing was done"
    )]
    Execution { found: String, expected: String },
    #[error(
        "the specification was signed at {signed_at}, and it is {now} by this host's clock; expected at most an hour between \
         them. If the clocks are right, somebody repeats an old specification"
    )]
    Time {
        signed_at: OffsetDateTime,
        now: OffsetDateTime,
    },
    #[error(
        "the specification does not say {missing}, which its signer says of every other one: it is an old one that \
         somebody repeats, or the service was replaced by an older version"
    )]
    Missing { missing: &'static str },
}

/// Checks that `spec` belongs to `command` of the host `own`.
pub fn check(spec: &DeploymentSpec, command: &HostCommand, own: &str) -> Result<(), BindingError> {
    let execution = &command.deployment_execution_id;
    let deployment = execution.rsplit('/').next().unwrap_or_default();
    let shown = |text: &str| text.chars().take(200).collect::<String>();
    if spec.deployment_id.as_str() != deployment {
        let (found, expected) = (spec.deployment_id.to_string(), shown(execution));
        return Err(BindingError::Deployment { found, expected });
    }
    match &spec.binding.host_identifier {
        Some(found) if found != own => {
            return Err(BindingError::Host {
                found: shown(found),
                own: own.to_owned(),
            });
        }
        _ => {}
    }
    match &spec.binding.deployment_execution_id {
        Some(found) if found != execution => Err(BindingError::Execution {
            found: shown(found),
            expected: shown(execution),
        }),
        _ => Ok(()),
    }
}

impl Binding {
    /// Checks that it was signed near `now`, if it states a time.
    pub fn check_time(&self, now: OffsetDateTime) -> Result<(), BindingError> {
        match self.signed_at {
            Some(signed_at) if (now - signed_at).unsigned_abs() > AROUND => {
                Err(BindingError::Time { signed_at, now })
            }
            _ => Ok(()),
        }
    }

    /// Checks that it states everything, as this project's controller does.
    pub fn check_complete(&self) -> Result<(), BindingError> {
        let said = [
            ("HostIdentifier", self.host_identifier.is_some()),
            (
                "DeploymentExecutionId",
                self.deployment_execution_id.is_some(),
            ),
            ("SignedAt", self.signed_at.is_some()),
        ];
        match said.iter().find(|(_, said)| !said) {
            Some((missing, _)) => Err(BindingError::Missing { missing }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::envelope::trusted;

    const HOST: &str = "arn:aws:iam::123456789012:user/box1";
    const EXECUTION: &str =
        "CodeDeploy/us-east-1/Prod/arn:aws:sds:us-east-1:123456789012:deployment/d-1";

    fn spec(binding: Value) -> DeploymentSpec {
        let mut document = json!({
            "DeploymentId": "arn:aws:codedeploy:us-east-1:123456789012:deployment/d-1", "DeploymentGroupId": "g",
            "DeploymentGroupName": "web", "ApplicationName": "shop",
            "Revision": {"RevisionType": "Local Directory", "LocalRevision": {"Location": "/x", "BundleType": "directory"}}
        });
        document
            .as_object_mut()
            .unwrap()
            .extend(binding.as_object().unwrap().clone());
        DeploymentSpec::parse(&trusted(document.to_string().into_bytes())).unwrap()
    }

    fn command(execution: &str) -> HostCommand {
        serde_json::from_value(
            json!({"HostCommandIdentifier": "c", "DeploymentExecutionId": execution}),
        )
        .unwrap()
    }

    #[test]
    fn a_specification_counts_for_its_deployment_host_and_execution_only() {
        let whole = || json!({"HostIdentifier": HOST, "DeploymentExecutionId": EXECUTION, "SignedAt": 1.8e9});
        assert_eq!(check(&spec(json!({})), &command(EXECUTION), HOST), Ok(()));
        assert_eq!(check(&spec(json!({})), &command("d-1"), HOST), Ok(()));
        assert_eq!(check(&spec(whole()), &command(EXECUTION), HOST), Ok(()));
        for other in ["d-2", "x/deployment/d-11", "x/deployment/", ""] {
            let refused = check(&spec(json!({})), &command(other), HOST);
            assert!(
                matches!(refused, Err(BindingError::Deployment { .. })),
                "{other}: {refused:?}"
            );
        }
        let refused = check(&spec(whole()), &command(EXECUTION), &format!("{HOST}0"));
        assert!(
            matches!(refused, Err(BindingError::Host { .. })),
            "{refused:?}"
        );
        let refused = check(
            &spec(whole()),
            &command(&EXECUTION.replace("Prod", "Beta")),
            HOST,
        );
        assert!(
            matches!(refused, Err(BindingError::Execution { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn it_counts_when_it_was_signed_and_a_signer_that_says_so_says_all_of_it() {
        let binding = spec(
            json!({"HostIdentifier": HOST, "DeploymentExecutionId": EXECUTION, "SignedAt": 1.8e9}),
        )
        .binding;
        let at =
            |seconds: i64| OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap();
        for (seconds, counts) in [
            (0, true),
            (3599, true),
            (-3599, true),
            (3601, false),
            (-3601, false),
        ] {
            assert_eq!(binding.check_time(at(seconds)).is_ok(), counts, "{seconds}");
        }
        assert_eq!(binding.check_complete(), Ok(()));
        assert_eq!(Binding::default().check_time(at(0)), Ok(()));
        for missing in ["HostIdentifier", "DeploymentExecutionId", "SignedAt"] {
            let mut binding = binding.clone();
            match missing {
                "HostIdentifier" => binding.host_identifier = None,
                "DeploymentExecutionId" => binding.deployment_execution_id = None,
                _ => binding.signed_at = None,
            }
            assert_eq!(
                binding.check_complete(),
                Err(BindingError::Missing { missing })
            );
        }
    }
}
