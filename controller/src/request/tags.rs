//! Requests about tags, and the tags that requests give.

use std::collections::BTreeSet;

use codedeploy_api::codedeploy::*;

use super::members::shorten;
use super::{Member, requests};
use crate::error::{ApiError, ErrorName};

requests! {
    TagResource(TagResourceInput) { resource_arn: Resource, tags: ResourceTags, }
    UntagResource(UntagResourceInput) { resource_arn: Resource, tag_keys: TagKeys, }
    ListTagsForResource(ListTagsForResourceInput) { resource_arn: Resource, }
}

/// What the tag operations can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Application(String),
    Group { application: String, name: String },
    Config(String),
}

impl Member for Resource {
    type Raw = String;

    fn missing() -> ApiError {
        ErrorName::ResourceArnRequired.because("The resource ARN is missing.")
    }

    fn is_given(raw: &String) -> bool {
        !raw.is_empty()
    }

    /// Region and account are not compared: a client that was told no account leaves it out.
    fn check(raw: String) -> Result<Self, ApiError> {
        let parts: Vec<&str> = raw.splitn(6, ':').collect();
        let &["arn", partition, service, _, _, resource] = parts.as_slice() else {
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
        match (service, kind) {
            ("codedeploy", "application") => Ok(Resource::Application(name.into())),
            ("codedeploy", "deploymentconfig") => Ok(Resource::Config(name.into())),
            ("codedeploy", "deploymentgroup") => match name.split_once('/') {
                Some((application, name)) => {
                    Ok(Resource::Group { application: application.into(), name: name.into() })
                }
                None => Err(invalid_arn(&raw)),
            },
            _ => Err(not_supported()),
        }
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
        Ok(TagKeys(raw))
    }
}

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
        check_tags(&raw, ErrorName::InvalidTagsToAdd)?;
        match raw.iter().filter_map(|tag| tag.key.as_deref()).find(|key| key.starts_with("aws:")) {
            None => Ok(ResourceTags(raw)),
            Some(key) => Err(ErrorName::InvalidTagsToAdd
                .because(format!("The tag key {:?} starts with aws:, which is reserved.", shorten(key)))),
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

/// Tags that are complete and within their lengths, each key once.
pub(crate) fn check_tags(tags: &[Tag], refusal: ErrorName) -> Result<(), ApiError> {
    let mut keys = BTreeSet::new();
    for tag in tags {
        let key = tag.key.as_deref().unwrap_or_default();
        if key.is_empty() || key.chars().count() > 128 {
            return Err(refusal.because("A tag key must have 1 to 128 characters."));
        }
        if tag.value.as_deref().unwrap_or_default().chars().count() > 256 {
            return Err(refusal
                .because(format!("The value of the tag {:?} has more than 256 characters.", shorten(key))));
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
        let read = |arn: &str| <Resource as Member>::check(arn.into()).map_err(|refused| refused.name);
        let arn = |resource: &str| format!("arn:aws:codedeploy:us-east-1:123456789012:{resource}");
        assert_eq!(read(&arn("application:shop")), Ok(Resource::Application("shop".into())));
        // Terraform that was told no account.
        assert_eq!(
            read("arn:aws:codedeploy:us-east-1::deploymentgroup:shop/web"),
            Ok(Resource::Group { application: "shop".into(), name: "web".into() })
        );
        for (arn, expected) in [
            ("notanarn".to_owned(), ErrorName::InvalidArn),
            (arn("deploymentgroup:shop"), ErrorName::InvalidArn),
            ("arn:aws:s3:::x".to_owned(), ErrorName::ArnNotSupported),
            (arn("instance/box1_Ab3dE6gH9k"), ErrorName::ArnNotSupported),
        ] {
            assert_eq!(read(&arn), Err(expected), "{arn}");
        }
    }
}
