//! Tags of applications, deployment groups and deployment configurations.

use codedeploy_api::codedeploy::*;
use rusqlite::OptionalExtension;

use super::Context;
use crate::error::{ApiError, ErrorName};
use crate::request::{self, Resource};
use crate::store::Json;

/// Most tags of one resource.
const MAX_TAGS: usize = 50;

/// Where a resource keeps its tags.
struct Place {
    table: &'static str,
    rowid: i64,
    tags: Vec<Tag>,
}

impl Place {
    fn find(context: &Context<'_>, resource: &Resource) -> Result<Option<Place>, ApiError> {
        let (table, owner, name) = match resource {
            Resource::Application(name) => ("applications", "", name),
            Resource::Config(name) => ("deployment_configs", "", name),
            Resource::Group { application, name } => ("deployment_groups", application.as_str(), name),
        };
        let of_owner = match resource {
            Resource::Group { .. } => "application_id = (SELECT id FROM applications WHERE name = ?2)",
            Resource::Application(_) | Resource::Config(_) => "?2 = ''",
        };
        let sql = format!("SELECT rowid, tags FROM {table} WHERE name = ?1 AND {of_owner}");
        let mut statement = context.tx.prepare_cached(&sql)?;
        let found = statement.query_row((name, owner), |row| {
            Ok(Place { table, rowid: row.get(0)?, tags: row.get::<_, Json<_>>(1)?.0 })
        });
        Ok(found.optional()?)
    }

    fn demand(context: &Context<'_>, resource: &Resource) -> Result<Place, ApiError> {
        Place::find(context, resource)?.ok_or_else(|| match resource {
            Resource::Application(name) => {
                ErrorName::ApplicationDoesNotExist.because(format!("No application found for name: {name}"))
            }
            Resource::Group { application, name } => ErrorName::DeploymentGroupDoesNotExist.because(format!(
                "No Deployment Group found for name: {name} in the application {application}"
            )),
            Resource::Config(name) => ErrorName::DeploymentConfigDoesNotExist
                .because(format!("No deployment configuration that can be tagged found for name: {name}")),
        })
    }

    fn save(self, context: &Context<'_>) -> Result<Empty, ApiError> {
        let sql = format!("UPDATE {} SET tags = ?2 WHERE rowid = ?1", self.table);
        context.tx.prepare_cached(&sql)?.execute((self.rowid, Json(self.tags)))?;
        Ok(Empty {})
    }
}

/// A tag with a key that is there gives it another value.
pub fn tag(context: &Context<'_>, request: request::TagResource) -> Result<Empty, ApiError> {
    let mut place = Place::demand(context, &request.resource_arn)?;
    for tag in request.tags.0 {
        match place.tags.iter_mut().find(|present| present.key == tag.key) {
            Some(same) => same.value = tag.value,
            None => place.tags.push(tag),
        }
    }
    if place.tags.len() > MAX_TAGS {
        return Err(ErrorName::InvalidTagsToAdd.because(format!(
            "The resource would have {} tags; at most {MAX_TAGS} are allowed.",
            place.tags.len()
        )));
    }
    place.save(context)
}

/// Removing a tag that is not there succeeds.
pub fn untag(context: &Context<'_>, request: request::UntagResource) -> Result<Empty, ApiError> {
    let mut place = Place::demand(context, &request.resource_arn)?;
    place.tags.retain(|tag| !request.tag_keys.0.iter().any(|key| tag.key.as_ref() == Some(key)));
    place.save(context)
}

/// What does not exist has no tags; AWS has no error for it here.
pub fn list(
    context: &Context<'_>,
    request: request::ListTagsForResource,
) -> Result<ListTagsForResourceOutput, ApiError> {
    let tags = Place::find(context, &request.resource_arn)?.map(|place| place.tags);
    Ok(ListTagsForResourceOutput { tags: Some(tags.unwrap_or_default()), next_token: None })
}
