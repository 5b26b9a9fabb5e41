//! The members that requests share, and their checks.

use std::ops::Deref;

use codedeploy_api::codedeploy::*;

use super::Member;
use crate::error::{ApiError, ErrorName};
use crate::fleet::TagTest;

/// The number of names or ids in one batch.
const BATCH: usize = 100;
/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 256;

/// Shortens a client's text for a message or a log: never long, never more than one line once
/// quoted.
pub(crate) fn shorten(text: &str) -> String {
    let end = text.char_indices().nth(100);
    end.map_or(text, |(end, _)| &text[..end]).to_owned()
}

/// Whether a text has at most `most` characters.
pub(super) fn fits(text: &str, most: usize) -> bool {
    text.chars().nth(most).is_none()
}

/// Texts of one kind: their name in messages, their error, and the allowed ones.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident {
        $what:literal, missing: $missing:ident, invalid: $invalid:ident, allowed: $allowed:expr, $expected:expr
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl Member for $name {
            type Raw = String;

            const WHAT: &'static str = $what;

            fn missing() -> ApiError {
                ErrorName::$missing.because(concat!("The ", $what, " is missing."))
            }

            fn is_given(raw: &String) -> bool {
                !raw.is_empty()
            }

            fn check(raw: String) -> Result<Self, ApiError> {
                let allowed: fn(&str) -> bool = $allowed;
                if allowed(&raw) {
                    return Ok($name(raw));
                }
                Err(ErrorName::$invalid.because(format!(
                    concat!("The ", $what, " {:?} is not valid: expected ", $expected, "."),
                    shorten(&raw)
                )))
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }
    )*};
}

/// The texts that [`is_name`] allows.
macro_rules! a_name {
    () => {
        "1 to 100 letters, digits and the characters + = , . @ _ -"
    };
}

texts! {
    ApplicationName {
        "application name", missing: ApplicationNameRequired, invalid: InvalidApplicationName,
        allowed: is_name, a_name!()
    }
    GroupName {
        "deployment group name", missing: DeploymentGroupNameRequired, invalid: InvalidDeploymentGroupName,
        allowed: is_name, a_name!()
    }
    NewApplicationName {
        "new application name (newApplicationName)",
        missing: ApplicationNameRequired, invalid: InvalidApplicationName,
        allowed: is_name, a_name!()
    }
    /// The name of a group that is to be changed.
    CurrentGroupName {
        "current deployment group name (currentDeploymentGroupName)",
        missing: DeploymentGroupNameRequired, invalid: InvalidDeploymentGroupName,
        allowed: is_name, a_name!()
    }
    ConfigName {
        "deployment configuration name",
        missing: DeploymentConfigNameRequired, invalid: InvalidDeploymentConfigName,
        allowed: is_name, a_name!()
    }
    InstanceName {
        "instance name", missing: InstanceNameRequired, invalid: InvalidInstanceName,
        allowed: is_name, a_name!()
    }
    DeploymentId {
        "deployment id", missing: DeploymentIdRequired, invalid: InvalidDeploymentId,
        allowed: is_deployment_id, "an id such as d-A1B2C3D4E"
    }
    /// An update of agents.
    AgentUpdateId {
        "agent update id", missing: InvalidInput, invalid: InvalidInput,
        allowed: is_agent_update_id, "an id such as u-A1B2C3D4E"
    }
    /// A target by its id or its ARN.
    TargetId {
        "target id", missing: DeploymentTargetIdRequired, invalid: InvalidDeploymentTargetId,
        allowed: is_target_id, "an instance name or an instance ARN"
    }
    /// A target by its id or its ARN, under the name of the older operations.
    InstanceId {
        "instance id", missing: InstanceIdRequired, invalid: InvalidInstanceName,
        allowed: is_target_id, "an instance name or an instance ARN"
    }
    /// The name of a stored GitHub token.
    TokenName {
        "GitHub account token name",
        missing: GitHubAccountTokenNameRequired, invalid: InvalidGitHubAccountTokenName,
        allowed: is_name, a_name!()
    }
    /// The id that another service set for a deployment.
    ExternalId {
        "external id", missing: InvalidExternalId, invalid: InvalidExternalId,
        allowed: |text| (1..=256).contains(&text.chars().count()) && !text.contains(char::is_control),
        "1 to 256 characters"
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    (1..=100).contains(&text.len()) && text.chars().all(allowed)
}

fn is_deployment_id(text: &str) -> bool {
    is_id(text, "d-")
}

fn is_agent_update_id(text: &str) -> bool {
    is_id(text, "u-")
}

fn is_id(text: &str, prefix: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    text.len() <= 64
        && text
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(allowed))
}

fn is_target_id(text: &str) -> bool {
    let resource = text
        .strip_prefix("arn:")
        .and_then(|arn| arn.split_once(":instance/"));
    resource.map_or_else(
        || is_name(text),
        |(_, name)| text.len() <= 1024 && !name.is_empty() && !name.contains('/'),
    )
}

/// Enumerations, with the error for an unknown text.
macro_rules! choices {
    ($($type:ident: $what:literal, $invalid:ident;)*) => {$(
        impl Member for $type {
            type Raw = $type;

            fn check(raw: $type) -> Result<Self, ApiError> {
                if raw.is_known() {
                    return Ok(raw);
                }
                Err(ErrorName::$invalid.because(format!(
                    concat!("The ", $what, " {:?} is not one of {}."),
                    shorten(raw.as_str()),
                    $type::KNOWN.join(", ")
                )))
            }
        }
    )*};
}

choices! {
    ApplicationRevisionSortBy: "sort key", InvalidSortBy;
    AutoRollbackEvent: "automatic rollback event", InvalidAutoRollbackConfig;
    AutoScalingGroupProcess: "Auto Scaling group process", InvalidAutoScalingGroupProcessToSuspend;
    DeploymentMode: "deployment mode", InvalidInput;
    DeploymentStatus: "deployment status", InvalidDeploymentStatus;
    DeploymentWaitType: "deployment wait type", InvalidDeploymentWaitType;
    ListStateFilterAction: "deployed state filter", InvalidDeployedStateFilter;
    OutdatedInstancesStrategy: "outdated instances strategy", InvalidInput;
    RegistrationStatus: "registration status", InvalidRegistrationStatus;
    SortOrder: "sort order", InvalidSortOrder;
    TargetLabel: "instance type", InvalidInstanceType;
    TargetStatus: "instance status", InvalidInstanceStatus;
}

impl Member for String {
    type Raw = String;

    fn check(raw: String) -> Result<Self, ApiError> {
        Ok(raw)
    }
}

impl Member for bool {
    type Raw = bool;

    fn check(raw: bool) -> Result<Self, ApiError> {
        Ok(raw)
    }
}

/// Any number of them.
impl<M: Member> Member for Vec<M> {
    type Raw = Vec<M::Raw>;

    fn missing() -> ApiError {
        M::missing()
    }

    fn is_given(raw: &Vec<M::Raw>) -> bool {
        !raw.is_empty()
    }

    fn check(raw: Vec<M::Raw>) -> Result<Self, ApiError> {
        let read = |one: M::Raw| {
            if M::is_given(&one) {
                M::check(one)
            } else {
                Err(M::missing())
            }
        };
        raw.into_iter().map(read).collect()
    }
}

/// Each value of a choice once: a longer list has repetitions.
pub(crate) fn once_each<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    let mut once = Vec::new();
    for value in values {
        if !once.contains(&value) {
            once.push(value);
        }
    }
    once
}

fn refuse_more_than<M: Member>(
    most: usize,
    given: usize,
    refusal: ErrorName,
) -> Result<(), ApiError> {
    if given <= most {
        return Ok(());
    }
    Err(refusal.because(format!(
        "{given} {}s were given; at most {most} can be given at once.",
        M::WHAT
    )))
}

/// The names or ids of a batch operation; at most `MOST`.
#[derive(Debug, Clone)]
pub struct Batch<M, const MOST: usize = BATCH>(pub Vec<M>);

impl<M: Member, const MOST: usize> Member for Batch<M, MOST> {
    type Raw = Vec<M::Raw>;

    fn missing() -> ApiError {
        M::missing()
    }

    fn is_given(raw: &Vec<M::Raw>) -> bool {
        !raw.is_empty()
    }

    fn check(raw: Vec<M::Raw>) -> Result<Self, ApiError> {
        refuse_more_than::<M>(MOST, raw.len(), ErrorName::BatchLimitExceeded)?;
        Ok(Batch(Vec::check(raw)?))
    }
}

/// Lists with an error of their own for too many items.
macro_rules! limited {
    ($($name:ident($member:ident): $limit:ident;)*) => {$(
        #[derive(Debug, Clone)]
        pub struct $name(pub Vec<$member>);

        impl Member for $name {
            type Raw = Vec<<$member as Member>::Raw>;

            fn missing() -> ApiError {
                $member::missing()
            }

            fn is_given(raw: &Self::Raw) -> bool {
                !raw.is_empty()
            }

            fn check(raw: Self::Raw) -> Result<Self, ApiError> {
                refuse_more_than::<$member>(BATCH, raw.len(), ErrorName::$limit)?;
                Ok($name(Vec::check(raw)?))
            }
        }
    )*};
}

limited! {
    InstanceNames(InstanceName): InstanceLimitExceeded;
    TargetIds(TargetId): InvalidDeploymentTargetId;
}

/// The purpose of a deployment or a revision, in a person's words.
#[derive(Debug, Clone)]
pub struct Description(pub String);

impl Member for Description {
    type Raw = String;

    fn check(raw: String) -> Result<Self, ApiError> {
        match raw.chars().count() {
            0..=MAX_DESCRIPTION => Ok(Description(raw)),
            length => Err(ErrorName::DescriptionTooLong.because(format!(
                "The description has {length} characters; at most {MAX_DESCRIPTION} are allowed."
            ))),
        }
    }
}

/// The only platform of this service.
#[derive(Debug, Clone, Copy)]
pub struct ServerPlatform;

impl Member for ServerPlatform {
    type Raw = ComputePlatform;

    fn check(raw: ComputePlatform) -> Result<Self, ApiError> {
        if raw == ComputePlatform::Server {
            return Ok(ServerPlatform);
        }
        Err(ErrorName::InvalidComputePlatform.because(format!(
            "The compute platform {:?} is not valid: this service deploys to Server only.",
            shorten(raw.as_str())
        )))
    }
}

/// A period; either end may be open.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Period {
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
}

impl Member for Period {
    type Raw = TimeRange;

    fn check(TimeRange { start, end }: TimeRange) -> Result<Self, ApiError> {
        if start.zip(end).is_some_and(|(start, end)| start > end) {
            return Err(
                ErrorName::InvalidTimeRange.because("The time range ends before it starts.")
            );
        }
        Ok(Period { start, end })
    }
}

/// The largest number of tag filters in a request: each is compared with the tags of all hosts.
const MAX_TAG_FILTERS: usize = 100;

/// Tests of the tags of hosts, of which one must match.
#[derive(Debug, Clone, Default)]
pub struct TagTests(pub Vec<TagTest>);

impl Member for TagTests {
    type Raw = Vec<TagFilter>;

    fn check(raw: Vec<TagFilter>) -> Result<Self, ApiError> {
        let refused = |why| ErrorName::InvalidTagFilter.because(why);
        if raw.len() > MAX_TAG_FILTERS {
            return Err(refused(format!(
                "{} tag filters were given; expected at most {MAX_TAG_FILTERS}.",
                raw.len()
            )));
        }
        let tests = raw.iter().map(TagTest::read).collect::<Result<_, _>>();
        tests
            .map(TagTests)
            .map_err(|invalid| refused(invalid.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Field;

    #[test]
    fn names_and_ids() {
        let name = |text: Option<&str>| {
            ApplicationName::read(text.map(Into::into)).map_err(|refused| refused.name)
        };
        assert!(name(Some("shop+=,.@_-1")).is_ok());
        assert_eq!(name(None), Err(ErrorName::ApplicationNameRequired));
        assert_eq!(name(Some("")), Err(ErrorName::ApplicationNameRequired));
        for text in ["bad name", "a/b", "ä", &"x".repeat(101)] {
            assert_eq!(
                name(Some(text)),
                Err(ErrorName::InvalidApplicationName),
                "{text}"
            );
        }
        assert!(is_deployment_id("d-A1B2C3D4E"));
        for text in [
            "A1B2C3D4E",
            "d-",
            "d-a1b2c3d4e",
            "d-../X",
            &format!("d-{}", "A".repeat(63)),
        ] {
            assert!(!is_deployment_id(text), "{text}");
        }
        assert!(
            is_target_id("i-0123")
                && is_target_id("arn:aws:codedeploy:r:1:instance/box1_Ab3dE6gH9k")
        );
        assert!(!is_target_id("a b") && !is_target_id("arn:aws:s3:::x"));
    }

    #[test]
    fn batches_are_limited_and_name_what_they_lack() {
        let batch = |count: usize| {
            Batch::<InstanceName>::read(Some(vec!["a".to_owned(); count])).map(|_| ())
        };
        assert!(batch(100).is_ok());
        assert_eq!(batch(101).unwrap_err().name, ErrorName::BatchLimitExceeded);
        assert_eq!(batch(0).unwrap_err().name, ErrorName::InstanceNameRequired);
        let blank = Batch::<InstanceName>::read(Some(vec![String::new()]));
        assert_eq!(blank.unwrap_err().name, ErrorName::InstanceNameRequired);
    }
}
