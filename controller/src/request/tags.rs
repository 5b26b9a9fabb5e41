//! Requests about tags, and the tags that requests give.

use std::collections::BTreeSet;

use codedeploy_api::codedeploy::*;

use super::members::{fits, shorten};
use super::{Member, requests};
use crate::error::{ApiError, ErrorName};
use crate::fleet::{MAX_KEY, MAX_VALUE};

requests! {
    TagResource(TagResourceInput) { resource_arn: ResourceArn, tags: ResourceTags, }
    UntagResource(UntagResourceInput) { resource_arn: ResourceArn, tag_keys: TagKeys, }
    ListTagsForResource(ListTagsForResourceInput) { resource_arn: ResourceArn, }
}

/// An ARN in the tag operations. Only the service can compare its account and region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceArn {
    pub text: String,
    pub region: String,
    pub account_id: String,
    pub resource: Resource,
}

/// The resources that the tag operations accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Application(String),
    Group { application: String, name: String },
    Config(String),
}

impl Member for ResourceArn {
    type Raw = String;

    fn missing() -> ApiError {
        ErrorName::ResourceArnRequired.because("The resource ARN is missing.")
    }

    fn is_given(raw: &String) -> bool {
        !raw.is_empty()
    }

    fn check(raw: String) -> Result<Self, ApiError> {
        let parts: Vec<&str> = raw.splitn(6, ':').collect();
        let &["arn", partition, service, region, account_id, resource] = parts.as_slice() else {
            return Err(invalid_arn(&raw));
        };
        if raw.len() > 1011 || partition.is_empty() || service.is_empty() || resource.is_empty() {
            return Err(invalid_arn(&raw));
        }
        let not_supported = || {
            ErrorName::ArnNotSupported.because(format!(
                "{:?} is not the ARN of an application, a deployment group or a deployment configuration of CodeDeploy.",
                shorten(&raw)
            ))
        };
        let (kind, name) = resource.split_once(':').ok_or_else(not_supported)?;
        let resource = match (service, kind) {
            ("codedeploy", "application") => Resource::Application(name.into()),
            ("codedeploy", "deploymentconfig") => Resource::Config(name.into()),
            ("codedeploy", "deploymentgroup") => match name.split_once('/') {
                Some((application, name)) if !application.is_empty() => Resource::Group {
                    application: application.into(),
                    name: name.into(),
                },
                _ => return Err(invalid_arn(&raw)),
            },
            _ => return Err(not_supported()),
        };
        if name.is_empty() || name.ends_with('/') {
            return Err(invalid_arn(&raw));
        }
        let (region, account_id) = (region.into(), account_id.into());
        Ok(ResourceArn {
            region,
            account_id,
            resource,
            text: raw,
        })
    }
}

fn invalid_arn(text: &str) -> ApiError {
    ErrorName::InvalidArn.because(format!(
        "{:?} is not an ARN such as arn:aws:codedeploy:us-east-1:123456789012:application:name.",
        shorten(text)
    ))
}

/// Keys of tags to remove.
#[derive(Debug, Clone)]
pub struct TagKeys(pub Vec<String>);

impl Member for TagKeys {
    type Raw = Vec<String>;

    fn missing() -> ApiError {
        ErrorName::TagRequired.because("At least one tag key is needed.")
    }

    fn is_given(raw: &Vec<String>) -> bool {
        !raw.is_empty()
    }

    fn check(raw: Vec<String>) -> Result<Self, ApiError> {
        if raw.len() > MAX_RESOURCE_TAGS {
            return Err(ErrorName::InvalidTagsToAdd.because(format!(
                "{} tag keys were given; a resource can have at most {MAX_RESOURCE_TAGS} tags.",
                raw.len()
            )));
        }
        match raw.iter().find(|key| key.is_empty() || !fits(key, MAX_KEY)) {
            None => Ok(TagKeys(raw)),
            Some(key) => Err(ErrorName::InvalidTagsToAdd.because(format!(
                "The tag key {:?} is not valid: expected 1 to {MAX_KEY} characters.",
                shorten(key)
            ))),
        }
    }
}

/// The number of tags of one resource.
pub(crate) const MAX_RESOURCE_TAGS: usize = 50;

/// Tags of a resource of this service.
#[derive(Debug, Clone, Default)]
pub struct ResourceTags(pub Vec<Tag>);

impl Member for ResourceTags {
    type Raw = Vec<Tag>;

    fn missing() -> ApiError {
        ErrorName::TagRequired.because("At least one tag is needed.")
    }

    fn is_given(raw: &Vec<Tag>) -> bool {
        !raw.is_empty()
    }

    fn check(raw: Vec<Tag>) -> Result<Self, ApiError> {
        if raw.len() > MAX_RESOURCE_TAGS {
            return Err(ErrorName::InvalidTagsToAdd.because(format!(
                "{} tags were given; a resource can have at most {MAX_RESOURCE_TAGS}.",
                raw.len()
            )));
        }
        check_tags(&raw, ErrorName::InvalidTagsToAdd)?;
        match raw
            .iter()
            .filter_map(|tag| tag.key.as_deref())
            .find(|key| key.starts_with("aws:"))
        {
            None => Ok(ResourceTags(raw)),
            Some(key) => Err(ErrorName::InvalidTagsToAdd.because(format!(
                "The tag key {:?} starts with aws:, which is reserved.",
                shorten(key)
            ))),
        }
    }
}

/// Tags of an on-premises instance.
#[derive(Debug, Clone)]
pub struct InstanceTags(pub Vec<Tag>);

impl Member for InstanceTags {
    type Raw = Vec<Tag>;

    fn missing() -> ApiError {
        ResourceTags::missing()
    }

    fn is_given(raw: &Vec<Tag>) -> bool {
        !raw.is_empty()
    }

    fn check(raw: Vec<Tag>) -> Result<Self, ApiError> {
        check_tags(&raw, ErrorName::InvalidTag)?;
        Ok(InstanceTags(raw))
    }
}

/// Checks that tags are complete and within their lengths, each key once.
pub(crate) fn check_tags(tags: &[Tag], refusal: ErrorName) -> Result<(), ApiError> {
    let mut keys = BTreeSet::new();
    for tag in tags {
        let Some(key) = tag.key.as_deref() else {
            return Err(
                refusal.because(r#"A tag has no key; a tag is {"Key": ..., "Value": ...}."#)
            );
        };
        if key.is_empty() || key.chars().count() > MAX_KEY {
            return Err(refusal.because(format!(
                "The tag key {:?} is not valid: expected 1 to {MAX_KEY} characters.",
                shorten(key)
            )));
        }
        if tag.value.as_deref().unwrap_or_default().chars().count() > MAX_VALUE {
            return Err(refusal.because(format!(
                "The value of the tag {:?} has more than {MAX_VALUE} characters.",
                shorten(key)
            )));
        }
        if !keys.insert(key) {
            return Err(refusal.because(format!("The tag key {:?} is given twice.", shorten(key))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_of_resources() {
        let read = |arn: &str| {
            let read = <ResourceArn as Member>::check(arn.into());
            read.map(|arn| arn.resource).map_err(|refused| refused.name)
        };
        let arn = |resource: &str| format!("arn:aws:codedeploy:us-east-1:123456789012:{resource}");
        assert_eq!(
            read(&arn("application:shop")),
            Ok(Resource::Application("shop".into()))
        );
        // From Terraform without an account.
        assert_eq!(
            read("arn:aws:codedeploy:us-east-1::deploymentgroup:shop/web"),
            Ok(Resource::Group {
                application: "shop".into(),
                name: "web".into()
            })
        );
        for (arn, expected) in [
            ("notanarn".to_owned(), ErrorName::InvalidArn),
            (arn("deploymentgroup:shop"), ErrorName::InvalidArn),
            (arn("deploymentgroup:/web"), ErrorName::InvalidArn),
            (arn("deploymentgroup:shop/"), ErrorName::InvalidArn),
            (arn("application:"), ErrorName::InvalidArn),
            ("arn:aws:s3:::x".to_owned(), ErrorName::ArnNotSupported),
            (arn("instance/box1_Ab3dE6gH9k"), ErrorName::ArnNotSupported),
        ] {
            assert_eq!(read(&arn), Err(expected), "{arn}");
        }
    }
}
