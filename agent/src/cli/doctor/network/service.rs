//! Checks whether the command service accepts this host, with one signed call that changes nothing
//! there.

use std::sync::Arc;

use codedeploy_api::command::GetDeploymentSpecificationInput;
use tokio::time::timeout;

use crate::aws::Access;
use crate::cli::doctor::Check;
use crate::cli::doctor::network::TIME;
use crate::cli::doctor::network::clock::Clocks;
use crate::command::{CallError, CommandService};
use crate::identity::Identity;

const NAME: &str = "service";

/// A deployment that no service has: a request for its specification changes nothing.
const NO_DEPLOYMENT: &str = "codedeploy-agent-doctor";

/// The service's verdict on this host's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    Accepted,
    /// Rejected as wrong or too old; a wrong clock causes this as well as a wrong key.
    Refused,
    /// The response does not show it.
    Unknown,
}

/// The response to a signed request.
pub(super) type Answer = Result<(), CallError>;

/// The result of a signed request.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// `None` if there was none in time.
    pub(super) answer: Option<Answer>,
    /// The signing keys that a controller announces.
    pub(super) signers: Option<Arc<str>>,
}

/// Asks for a deployment that does not exist. This must not be PollHostCommand: it would take a
/// command that the agent is waiting for.
pub(super) async fn ask(access: &Access, identity: &Identity) -> Asked {
    let service = CommandService::new(access, identity.host_identifier.clone());
    let input = GetDeploymentSpecificationInput {
        deployment_execution_id: NO_DEPLOYMENT.into(),
        host_identifier: identity.host_identifier.clone(),
    };
    let answer = timeout(TIME, service.call(&input))
        .await
        .ok()
        .map(|answer| answer.map(|_| ()));
    Asked {
        answer,
        signers: service.signers(),
    }
}

pub(super) fn signature(answer: Option<&Answer>) -> Signature {
    match answer {
        Some(Ok(())) => Signature::Accepted,
        Some(Err(CallError::Service { answer, .. })) => match meaning_of(&answer.kind) {
            ErrorMeaning::NoSuchDeployment => Signature::Accepted,
            ErrorMeaning::WrongSignature | ErrorMeaning::Expired => Signature::Refused,
            _ => Signature::Unknown,
        },
        _ => Signature::Unknown,
    }
}

/// The meaning of an error's name, for a host that asked for a deployment which does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorMeaning {
    /// The service looked for the deployment, so it accepted the host.
    NoSuchDeployment,
    WrongSignature,
    UnknownKey,
    Expired,
    NotAllowed,
    TooOften,
    Other,
}

fn meaning_of(kind: &str) -> ErrorMeaning {
    match kind.trim_end_matches("Exception") {
        "Client"
        | "InvalidInput"
        | "Validation"
        | "DeploymentDoesNotExist"
        | "InvalidDeploymentId"
        | "ResourceNotFound" => ErrorMeaning::NoSuchDeployment,
        "InvalidSignature" | "SignatureDoesNotMatch" | "IncompleteSignature" => {
            ErrorMeaning::WrongSignature
        }
        "UnrecognizedClient"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken" => ErrorMeaning::UnknownKey,
        "ExpiredToken" | "RequestExpired" | "RequestTimeTooSkewed" => ErrorMeaning::Expired,
        "AccessDenied" | "NotAuthorized" | "Unauthorized" => ErrorMeaning::NotAllowed,
        kind if kind.contains("Throttl") || kind == "TooManyRequests" => ErrorMeaning::TooOften,
        _ => ErrorMeaning::Other,
    }
}

/// Judges the response. If a signature is rejected while the clocks are too far apart, the clock is
/// to blame.
pub(super) fn check(endpoint: &str, answer: Option<&Answer>, clocks: Clocks) -> Check {
    let (status, kind, message) = match answer {
        None => {
            return Check::problem(
                NAME,
                format!(
                    "{endpoint} did not answer a signed request within {} s",
                    TIME.as_secs()
                ),
                "try again; if it persists, check the service and the proxies in between",
            );
        }
        Some(Ok(())) => return Check::ok(NAME, format!("{endpoint} accepts this host")),
        Some(Err(CallError::Service { answer, .. })) => {
            (answer.status, answer.kind.as_str(), &answer.message)
        }
        Some(Err(CallError::Transport { reason, .. })) => {
            let text = format!("no signed request reached {endpoint}: {reason}");
            return Check::problem(
                NAME,
                text,
                "correct the credentials, or the network between this host and the service",
            );
        }
        Some(Err(CallError::Answer { .. })) => {
            let text = format!("{endpoint} answers, but is not a command service");
            return Check::problem(NAME, text, "correct deploy_control_endpoint");
        }
    };
    let said = format!("{endpoint} answers {kind} (HTTP {status}): {message}");
    match meaning_of(kind) {
        ErrorMeaning::NoSuchDeployment => {
            Check::ok(NAME, format!("{endpoint} accepts this host's signature"))
        }
        ErrorMeaning::WrongSignature | ErrorMeaning::Expired if clocks.are_too_far_apart() => {
            Check::warning(NAME, said, "fix the clock first")
        }
        ErrorMeaning::WrongSignature => Check::problem(
            NAME,
            said,
            "the secret access key is wrong, or a proxy changes requests; use the secret of this access \
             key id",
        ),
        ErrorMeaning::UnknownKey => Check::problem(
            NAME,
            said,
            "the access key is unknown to the service; use this host's current key",
        ),
        ErrorMeaning::Expired => Check::problem(
            NAME,
            said,
            "the credentials have expired; fix the program that renews them",
        ),
        ErrorMeaning::NotAllowed => Check::problem(
            NAME,
            said,
            "register this host with the service, and allow its identity to call it",
        ),
        ErrorMeaning::TooOften => Check::warning(
            NAME,
            said,
            "the service is called too often; try again later",
        ),
        ErrorMeaning::Other if status == 429 => Check::warning(
            NAME,
            said,
            "the service is called too often; try again later",
        ),
        ErrorMeaning::Other if status >= 500 => Check::warning(
            NAME,
            said,
            "the service has an internal problem; try again later",
        ),
        ErrorMeaning::Other => Check::problem(
            NAME,
            said,
            "this is not the answer of a command service; correct deploy_control_endpoint or the region",
        ),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::super::super::Verdict;
    use super::*;
    use crate::command::ServiceError;

    fn refused(status: u16, kind: &str) -> Answer {
        let answer = ServiceError {
            status,
            kind: kind.into(),
            message: "because".into(),
        };
        Err(CallError::Service {
            operation: "X",
            answer,
        })
    }

    fn clocks(apart: i64) -> Clocks {
        let ours = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        Clocks {
            theirs: Some(ours - time::Duration::seconds(apart)),
            ours,
        }
    }

    #[test]
    fn an_answer_about_a_deployment_that_is_none_tells_what_the_service_thinks_of_the_host() {
        let cases = [
            (400, "ClientException", Verdict::Ok, None),
            (400, "DeploymentDoesNotExistException", Verdict::Ok, None),
            (
                400,
                "InvalidSignatureException",
                Verdict::Problem,
                Some("secret access key is wrong"),
            ),
            (
                403,
                "SignatureDoesNotMatch",
                Verdict::Problem,
                Some("secret access key is wrong"),
            ),
            (
                400,
                "UnrecognizedClientException",
                Verdict::Problem,
                Some("unknown to the service"),
            ),
            (
                400,
                "ExpiredTokenException",
                Verdict::Problem,
                Some("have expired"),
            ),
            (
                400,
                "AccessDeniedException",
                Verdict::Problem,
                Some("register this host"),
            ),
            (
                400,
                "ThrottlingException",
                Verdict::Warning,
                Some("too often"),
            ),
            (
                503,
                "ServiceUnavailable",
                Verdict::Warning,
                Some("internal problem"),
            ),
            (
                404,
                "an error without a name",
                Verdict::Problem,
                Some("deploy_control_endpoint"),
            ),
            (
                400,
                "UnknownOperationException",
                Verdict::Problem,
                Some("deploy_control_endpoint"),
            ),
        ];
        for (status, kind, verdict, advice) in cases {
            let check = check("https://e", Some(&refused(status, kind)), clocks(10));
            assert_eq!(check.verdict, verdict, "{check:?}");
            match advice {
                Some(expected) => assert!(
                    check.advice.as_ref().unwrap().contains(expected),
                    "{check:?}"
                ),
                None => assert_eq!(check.advice, None),
            }
        }
    }

    #[test]
    fn a_signature_refused_for_the_clock_is_not_blamed_on_the_key() {
        for kind in [
            "InvalidSignatureException",
            "RequestExpired",
            "RequestTimeTooSkewed",
        ] {
            let answer = refused(403, kind);
            assert_eq!(signature(Some(&answer)), Signature::Refused);
            let check = check("https://e", Some(&answer), clocks(400));
            assert_eq!(
                (check.verdict, check.advice.as_deref()),
                (Verdict::Warning, Some("fix the clock first"))
            );
        }
    }
}
