//! Requests about on-premises instances.

use codedeploy_api::codedeploy::*;

use super::members::*;
use super::tags::InstanceTags;
use super::{Field, Member, Request, Subject, requests};
use crate::error::{ApiError, ErrorName};
use crate::identity::Identity;

requests! {
    DeregisterOnPremisesInstance(DeregisterOnPremisesInstanceInput) { instance_name: InstanceName, }
    GetOnPremisesInstance(GetOnPremisesInstanceInput) { instance_name: InstanceName, }
    BatchGetOnPremisesInstances(BatchGetOnPremisesInstancesInput) { instance_names: Batch<InstanceName>, }
    ListOnPremisesInstances(ListOnPremisesInstancesInput) {
        registration_status: Option<RegistrationStatus>,
        tag_filters: Option<TagTests>,
        next_token: Option<String>,
    }
    AddTagsToOnPremisesInstances(AddTagsToOnPremisesInstancesInput) {
        tags: InstanceTags,
        instance_names: InstanceNames,
    }
    RemoveTagsFromOnPremisesInstances(RemoveTagsFromOnPremisesInstancesInput) {
        tags: InstanceTags,
        instance_names: InstanceNames,
    }
}

/// An instance has a user or a session, never both.
#[derive(Debug, Clone)]
pub struct RegisterOnPremisesInstance {
    pub instance_name: NewInstanceName,
    pub identity: Identity,
}

/// A name that an instance may be registered with.
#[derive(Debug, Clone)]
pub struct NewInstanceName(InstanceName);

impl std::ops::Deref for NewInstanceName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Member for NewInstanceName {
    type Raw = String;

    fn missing() -> ApiError {
        InstanceName::missing()
    }

    fn is_given(raw: &String) -> bool {
        InstanceName::is_given(raw)
    }

    fn check(raw: String) -> Result<Self, ApiError> {
        if raw.starts_with("i-") {
            return Err(ErrorName::InvalidInstanceName.because(format!(
                "The instance name {:?} starts with i-, as EC2 instance ids do: choose another.",
                shorten(&raw)
            )));
        }
        InstanceName::check(raw).map(NewInstanceName)
    }
}

impl Request for RegisterOnPremisesInstance {
    type Input = RegisterOnPremisesInstanceInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        NewInstanceName::demand(&input.instance_name)?;
        let given = |arn: Option<String>| arn.filter(|arn| !arn.is_empty());
        let (user, session) = (given(input.iam_user_arn), given(input.iam_session_arn));
        let missing =
            || ErrorName::IamArnRequired.because("Give an IAM user ARN or an IAM session ARN.");
        if user.is_none() && session.is_none() {
            return Err(missing());
        }
        let instance_name = Field::read(input.instance_name)?;
        let identity = match (&user, &session) {
            (None, None) => return Err(missing()),
            (Some(_), Some(_)) => {
                return Err(ErrorName::MultipleIamArnsProvided
                    .because("Give an IAM user ARN or an IAM session ARN, not both."));
            }
            (Some(arn), None) => Identity::user(arn).ok_or_else(|| {
                ErrorName::InvalidIamUserArn.because(format!(
                    "{:?} is not an IAM user ARN such as arn:aws:iam::123456789012:user/name.",
                    shorten(arn)
                ))
            })?,
            (None, Some(arn)) => Identity::session(arn).ok_or_else(|| {
                ErrorName::InvalidIamSessionArn.because(format!(
                    "{:?} is not a session ARN such as arn:aws:sts::123456789012:assumed-role/role/session.",
                    shorten(arn)
                ))
            })?,
        };
        Ok(RegisterOnPremisesInstance {
            instance_name,
            identity,
        })
    }

    fn subject(&self) -> Option<Subject> {
        Some(Subject {
            instances: vec![self.instance_name.to_string()],
            ..Subject::default()
        })
    }
}
