//! Revisions of an application: pointers to bundles.

use std::collections::BTreeSet;

use codedeploy_api::codedeploy::*;

use super::applications::{self, Application};
use crate::error::{ApiError, ErrorName};
use crate::request;
use crate::revision::Revision;
use crate::store::{Json, named};
use crate::transaction::Context;

pub fn register(
    context: &Context<'_>,
    request: request::RegisterApplicationRevision,
) -> Result<Nothing, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    context.tx.execute(
        "INSERT INTO revisions (application_id, location, description, registered)
         VALUES (:application, :location, :description, :now)
         ON CONFLICT (application_id, location) DO UPDATE
             SET description = excluded.description, registered = excluded.registered",
        named! {
            ":application": application.id,
            ":location": Json(request.revision),
            ":description": request.description.map(|description| description.0),
            ":now": context.now,
        },
    )?;
    Ok(Nothing {})
}

/// Records that a deployment uses a revision, and registers it if necessary.
pub(crate) fn mark_used(
    context: &Context<'_>,
    application_id: &str,
    revision: &Revision,
    deployment_id: &str,
) -> Result<(), ApiError> {
    context.tx.execute(
        "INSERT INTO revisions (application_id, location, description, registered, first_used, last_used)
         VALUES (:application, :location, :description, :now, :now, :now)
         ON CONFLICT (application_id, location) DO UPDATE
             SET first_used = coalesce(revisions.first_used, :now), last_used = :now",
        named! {
            ":application": application_id,
            ":location": Json(revision),
            ":description": format!("Application revision registered by Deployment ID: {deployment_id}"),
            ":now": context.now,
        },
    )?;
    Ok(())
}

/// Returns the versions of an object that are the revision of an active deployment, or that a
/// deployment group has as its target or may be rolled back to.
pub(crate) fn needed(
    context: &Context<'_>,
    bucket: &str,
    key: &str,
) -> Result<BTreeSet<String>, ApiError> {
    let revisions = context.tx.query_all(
        "SELECT target_revision FROM deployment_groups WHERE target_revision IS NOT NULL
         UNION ALL SELECT d.revision FROM deployment_groups g JOIN deployments d ON d.id = g.last_successful
         UNION ALL SELECT revision FROM deployments WHERE status IN ('Created', 'InProgress', 'Ready')
         UNION ALL SELECT revision FROM pending_deployments",
        (),
        |row| row.get(0),
    )?;
    let versions =
        revisions
            .into_iter()
            .filter_map(|Json(revision): Json<Option<RevisionLocation>>| {
                let object = revision?.s3_location?;
                let is_it =
                    object.bucket.as_deref() == Some(bucket) && object.key.as_deref() == Some(key);
                object.version.filter(|_| is_it)
            });
    Ok(versions.collect())
}

/// Returns the facts about a revision, if it is registered.
fn info(
    context: &Context<'_>,
    application: &Application,
    revision: &Revision,
) -> Result<Option<GenericRevisionInfo>, ApiError> {
    let found = context.tx.query_opt(
        "SELECT * FROM revisions WHERE application_id = ?1 AND location = ?2",
        (&application.id, Json(revision)),
        |row| {
            Ok(GenericRevisionInfo {
                description: row.get("description")?,
                deployment_groups: None,
                first_used_time: row.get("first_used")?,
                last_used_time: row.get("last_used")?,
                register_time: row.get("registered")?,
            })
        },
    )?;
    let Some(info) = found else {
        return Ok(None);
    };
    let groups = groups_targeting(context, application, revision)?;
    Ok(Some(GenericRevisionInfo {
        deployment_groups: Some(groups),
        ..info
    }))
}

pub fn get(
    context: &Context<'_>,
    request: request::GetApplicationRevision,
) -> Result<GetApplicationRevisionOutput, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let revision = request.revision;
    let info = info(context, &application, &revision)?.ok_or_else(|| {
        ErrorName::RevisionDoesNotExist.because(format!(
            "The revision is not registered with the application {}: bucket, key, bundleType, eTag and version, or \
             repository and commitId, must all be as they were registered (aws deploy list-application-revisions \
             shows them).",
            application.name
        ))
    })?;
    Ok(GetApplicationRevisionOutput {
        application_name: Some(application.name),
        revision: Some(revision.into()),
        revision_info: Some(info),
    })
}

/// Revisions that are not registered are left out, and named in the message.
pub fn batch_get(
    context: &Context<'_>,
    request: request::BatchGetApplicationRevisions,
) -> Result<BatchGetApplicationRevisionsOutput, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let (mut revisions, mut missing) = (Vec::new(), Vec::new());
    for revision in request.revisions.0 {
        match info(context, &application, &revision)? {
            Some(info) => revisions.push(RevisionInfo {
                revision_location: Some(revision.into()),
                generic_revision_info: Some(info),
            }),
            None => missing.push(serde_json::to_string(&revision).unwrap_or_default()),
        }
    }
    let error_message = match missing.as_slice() {
        [] => String::new(),
        missing => format!("Revisions that are not registered: {}", missing.join(", ")),
    };
    Ok(BatchGetApplicationRevisionsOutput {
        application_name: Some(application.name),
        error_message: Some(error_message),
        revisions: Some(revisions),
    })
}

fn groups_targeting(
    context: &Context<'_>,
    application: &Application,
    revision: &Revision,
) -> Result<Vec<String>, ApiError> {
    let mut names: Vec<String> = context.tx.query_all(
        "SELECT name FROM deployment_groups WHERE application_id = ?1 AND target_revision = ?2 ORDER BY name",
        (&application.id, Json(revision)),
        |row| row.get(0),
    )?;
    names.retain(|name| context.sees_group(&application.name, name));
    Ok(names)
}

/// Returns the target revisions of an application's groups that the caller may see, as they are
/// stored.
fn targets(context: &Context<'_>, application: &Application) -> Result<BTreeSet<String>, ApiError> {
    let targets = context.tx.query_all(
        "SELECT name, target_revision FROM deployment_groups
         WHERE application_id = ?1 AND target_revision IS NOT NULL",
        [&application.id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let seen = |(name, target): (String, String)| {
        context
            .sees_group(&application.name, &name)
            .then_some(target)
    };
    Ok(targets.into_iter().filter_map(seen).collect())
}

pub fn list(
    context: &Context<'_>,
    request: request::ListApplicationRevisions,
) -> Result<ListApplicationRevisionsOutput, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let time = match request.sort_by {
        ApplicationRevisionSortBy::FirstUsedTime => "coalesce(first_used, 0)",
        ApplicationRevisionSortBy::LastUsedTime => "coalesce(last_used, 0)",
        _ => "registered",
    };
    let (beyond, order, start) = if request.descending {
        ("<", "DESC", i64::MAX)
    } else {
        (">", "ASC", i64::MIN)
    };
    let name = format!(
        "revisions of {} by {time} {order}, {:?} {:?}",
        application.id, request.place, request.deployed
    );
    let listing = context
        .pages
        .listing::<(i64, i64)>(name, request.next_token.as_deref())?;
    let after = listing.after().copied().unwrap_or((start, start));
    let sql = format!(
        "SELECT location, {time}, sequence FROM revisions
         WHERE application_id = ?1 AND {time} {beyond}= ?2 AND ({time}, sequence) {beyond} (?2, ?3)
         ORDER BY {time} {order}, sequence {order}"
    );
    let targets = targets(context, &application)?;
    let (revisions, next_token) = listing.query(
        context.tx,
        &sql,
        (&application.id, after.0, after.1),
        |row| {
            let Json(location) = row.get::<Json<RevisionLocation>>(0)?;
            let deployed = targets.contains(&row.get::<String>(0)?);
            let admitted = request.deployed.is_none_or(|wanted| wanted == deployed)
                && request
                    .place
                    .as_ref()
                    .is_none_or(|place| is_at(&location, place));
            Ok(if admitted {
                Some(((row.get(1)?, row.get(2)?), location))
            } else {
                None
            })
        },
    )?;
    Ok(ListApplicationRevisionsOutput {
        revisions: Some(revisions),
        next_token,
    })
}

fn is_at(location: &RevisionLocation, (bucket, prefix): &(String, String)) -> bool {
    location.s3_location.as_ref().is_some_and(|s3| {
        s3.bucket.as_ref() == Some(bucket)
            && s3
                .key
                .as_ref()
                .is_some_and(|key| key.starts_with(prefix.as_str()))
    })
}
