//! Requests about on-premises instances.

use codedeploy_api::codedeploy::*;

use super::members::*;
use super::tags::InstanceTags;
use super::{Field, Request, requests};
use crate::error::{ApiError, ErrorName};
use crate::fleet::TagTest;
use crate::registry::instances::Identity;

requests! {
    DeregisterOnPremisesInstance(DeregisterOnPremisesInstanceInput) { instance_name: InstanceName, }
    GetOnPremisesInstance(GetOnPremisesInstanceInput) { instance_name: InstanceName, }
    BatchGetOnPremisesInstances(BatchGetOnPremisesInstancesInput) { instance_names: Batch<InstanceName>, }
    ListOnPremisesInstances(ListOnPremisesInstancesInput) {
        registration_status: Option<RegistrationStatus>,
        tag_filters: Option<Vec<TagTest>>,
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

/// An instance is known by a user or by a session, never by both.
#[derive(Debug, Clone)]
pub struct RegisterOnPremisesInstance {
    pub instance_name: InstanceName,
    pub identity: Identity,
}

impl Request for RegisterOnPremisesInstance {
    type Input = RegisterOnPremisesInstanceInput;

    fn check(input: Self::Input) -> Result<Self, ApiError> {
        let instance_name = Field::read(input.instance_name)?;
        let given = |arn: Option<String>| arn.filter(|arn| !arn.is_empty());
        let identity = match (&given(input.iam_user_arn), &given(input.iam_session_arn)) {
            (None, None) => {
                return Err(ErrorName::IamArnRequired.because("Give an IAM user ARN or an IAM session ARN."));
            }
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
        Ok(RegisterOnPremisesInstance { instance_name, identity })
    }
}
