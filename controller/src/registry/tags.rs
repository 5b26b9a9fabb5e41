//! Tags of applications, deployment groups and deployment configurations.

use codedeploy_api::codedeploy::*;

use super::{applications, groups};
use crate::config::Partition;
use crate::error::{ApiError, ErrorName};
use crate::request::members::shorten;
use crate::request::{self, MAX_RESOURCE_TAGS, Resource, ResourceArn};
use crate::store::Json;
use crate::transaction::Context;

/// A resource and its tags.
struct Tagged {
    table: &'static str,
    id: String,
    tags: Vec<Tag>,
}

impl Tagged {
    /// Clients without an account or region omit it.
    fn find(context: &Context<'_>, arn: &ResourceArn) -> Result<Option<Tagged>, ApiError> {
        let Partition { region, account_id } = context.partition;
        let foreign = |given: &str, own: &str| !given.is_empty() && given != own;
        if foreign(&arn.region, region) || foreign(&arn.account_id, account_id) {
            return Err(ErrorName::ArnNotSupported.because(format!(
                "The ARN is of a resource in {:?} of the account {:?}; this service is {region} of {account_id}.",
                shorten(&arn.region),
                shorten(&arn.account_id)
            )));
        }
        let resource = &arn.resource;
        let (table, owner, name) = match resource {
            Resource::Application(name) => ("applications", "", name),
            Resource::Config(name) => ("deployment_configs", "", name),
            Resource::Group { application, name } => {
                ("deployment_groups", application.as_str(), name)
            }
        };
        let of_owner = match resource {
            Resource::Group { .. } => {
                "application_id = (SELECT id FROM applications WHERE name = ?2)"
            }
            Resource::Application(_) | Resource::Config(_) => "?2 = ''",
        };
        let sql = format!("SELECT id, tags FROM {table} WHERE name = ?1 AND {of_owner}");
        let found = context.tx.query_opt(&sql, (name, owner), |row| {
            Ok(Tagged {
                table,
                id: row.get(0)?,
                tags: row.get::<Json<_>>(1)?.0,
            })
        })?;
        Ok(found)
    }

    fn demand(context: &Context<'_>, arn: &ResourceArn) -> Result<Tagged, ApiError> {
        if let Some(tagged) = Tagged::find(context, arn)? {
            return Ok(tagged);
        }
        Err(match &arn.resource {
            Resource::Application(name) => applications::does_not_exist(name),
            Resource::Group { application, name } => {
                let application = applications::find(context, application)?;
                groups::does_not_exist(&application, name)
            }
            Resource::Config(name) => ErrorName::DeploymentConfigDoesNotExist.because(format!(
                "No deployment configuration that can be tagged found for name: {name}"
            )),
        })
    }

    fn save(self, context: &Context<'_>) -> Result<Empty, ApiError> {
        let sql = format!("UPDATE {} SET tags = ?2 WHERE id = ?1", self.table);
        context.tx.execute(&sql, (self.id, Json(self.tags)))?;
        Ok(Empty {})
    }
}

/// A tag with an existing key replaces its value.
pub fn tag(context: &Context<'_>, request: request::TagResource) -> Result<Empty, ApiError> {
    let mut tagged = Tagged::demand(context, &request.resource_arn)?;
    for tag in request.tags.0 {
        match tagged
            .tags
            .iter_mut()
            .find(|present| present.key == tag.key)
        {
            Some(same) => same.value = tag.value,
            None => tagged.tags.push(tag),
        }
    }
    if tagged.tags.len() > MAX_RESOURCE_TAGS {
        return Err(ErrorName::InvalidTagsToAdd.because(format!(
            "The resource would have {} tags; at most {MAX_RESOURCE_TAGS} are allowed.",
            tagged.tags.len()
        )));
    }
    tagged.save(context)
}

/// Removing a missing tag succeeds.
pub fn untag(context: &Context<'_>, request: request::UntagResource) -> Result<Empty, ApiError> {
    let mut tagged = Tagged::demand(context, &request.resource_arn)?;
    tagged.tags.retain(|tag| {
        !request
            .tag_keys
            .0
            .iter()
            .any(|key| tag.key.as_ref() == Some(key))
    });
    tagged.save(context)
}

/// A missing resource has no tags; AWS has no error for it here.
pub fn list(
    context: &Context<'_>,
    request: request::ListTagsForResource,
) -> Result<ListTagsForResourceOutput, ApiError> {
    let tags = Tagged::find(context, &request.resource_arn)?.map(|tagged| tagged.tags);
    Ok(ListTagsForResourceOutput {
        tags: Some(tags.unwrap_or_default()),
        next_token: None,
    })
}
