//! RollBackDeploymentGroup: a rollback by hand, also after a success.

use codedeploy_api::codedeploy::DeploymentStatus;
use codedeploy_api::controller::RollBackDeploymentGroupOutput;

use super::create;
use crate::deployment::effects::Effects;
use crate::error::{ApiError, ErrorName};
use crate::records::Record;
use crate::records::listing::{Wanted, newest};
use crate::registry::{applications, groups};
use crate::request::{self, CreateDeployment};
use crate::revision::Revision;
use crate::transaction::Context;

/// The number of successful deployments that are searched for the revision before.
const SEARCHED: usize = 100;

/// A rollback that is possible.
#[derive(Debug)]
pub struct Reversal {
    /// The deployment that is taken back.
    pub takes_back: String,
    /// The deployment whose revision comes back.
    pub good: String,
    pub revision: Revision,
}

/// Returns the revision that a group had before: after a failure that of its last successful
/// deployment, after a success the one before that.
pub fn find(context: &Context<'_>, group: &groups::Group) -> Result<Reversal, ApiError> {
    create::refuse_second(context, &group.id, &group.name)?;
    let nowhere = |reason: &str| ErrorName::RevisionDoesNotExist.because(reason);
    let last = match group.last_attempted() {
        Some(id) => Record::load(context.tx, id)?,
        None => None,
    };
    let last = last.ok_or_else(|| {
        nowhere("The deployment group has had no deployment: there is nothing to roll back.")
    })?;
    let history = history(context, &group.id)?;
    let succeeded = group.last_successful.as_ref() == Some(&last.id);
    let depth = usize::from(succeeded);
    let before = stack(&history)
        .into_iter()
        .rev()
        .nth(depth)
        .ok_or_else(|| {
            nowhere(
                "No earlier successful deployment of the group has another revision: there is nothing to roll back to.",
            )
        })?;
    Ok(Reversal {
        takes_back: last.id,
        good: before.deployment_id.clone(),
        revision: before.revision.clone(),
    })
}

/// Deploys the revision that a group had before.
pub fn roll_back(
    context: &Context<'_>,
    request: request::RollBackDeploymentGroup,
) -> Result<(RollBackDeploymentGroupOutput, Effects), ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let group = groups::find(context, &application, &request.deployment_group_name)?;
    let Reversal {
        takes_back,
        good,
        revision,
    } = find(context, &group)?;
    let file_exists = Record::load(context.tx, &good)?
        .and_then(|good| good.definition)
        .map(|good| good.file_exists);
    let description = request
        .description
        .map_or_else(|| format!("Rollback of {takes_back}"), |given| given.0);
    let mut create = CreateDeployment::of_revision(
        &application.name,
        &group.name,
        revision.clone(),
        &description,
    )?;
    create.file_exists = file_exists.unwrap_or(create.file_exists);
    create.takes_back = Some(takes_back.clone());
    let (output, effects) = create::create(context, create)?;
    Ok((
        RollBackDeploymentGroupOutput {
            deployment_id: output.deployment_id,
            revision: Some(revision.into()),
            rolls_back: Some(takes_back),
        },
        effects,
    ))
}

/// A successful deployment.
#[derive(Debug)]
struct Success {
    deployment_id: String,
    revision: Revision,
    /// Whether it went back to an earlier revision.
    went_back: bool,
}

/// Returns the last deployments of the present revision of a group and of the one before it: a
/// rollback by hand needs them.
pub(super) fn needed(context: &Context<'_>, group_id: &str) -> Result<Vec<String>, ApiError> {
    let history = history(context, group_id)?;
    let needed = stack(&history).into_iter().rev().take(2);
    Ok(needed
        .map(|success| success.deployment_id.clone())
        .collect())
}

/// Returns the successful deployments of a group, the oldest first.
fn history(context: &Context<'_>, group_id: &str) -> Result<Vec<Success>, ApiError> {
    let wanted = Wanted {
        groups: Some(&[group_id.to_owned()]),
        statuses: &[DeploymentStatus::Succeeded],
        start: i64::MIN,
        end: i64::MAX,
        before: (i64::MAX, i64::MAX),
    };
    let mut history = Vec::new();
    for (_, id) in newest(context.tx, &wanted, SEARCHED)?.into_iter().rev() {
        let Some(record) = Record::load(context.tx, &id)? else {
            continue;
        };
        if let Some(revision) = record.revision().cloned() {
            history.push(Success {
                went_back: record.is_rollback() || record.relations.takes_back.is_some(),
                deployment_id: id,
                revision,
            });
        }
    }
    Ok(history)
}

/// Returns the last deployments of the present revision and of the ones before it, the present
/// one last. A rollback removes the revisions after the one that it went back to, so that two
/// rollbacks in a row do not return to a revision that was rolled back.
fn stack(history: &[Success]) -> Vec<&Success> {
    let mut stack: Vec<&Success> = Vec::new();
    for success in history {
        let same = stack
            .iter()
            .rposition(|earlier| earlier.revision == success.revision);
        match same {
            Some(place) if success.went_back || place + 1 == stack.len() => stack.truncate(place),
            _ => {}
        }
        stack.push(success);
    }
    stack
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revision::{Bundle, S3Object};

    fn revision(key: &str) -> Revision {
        Revision::S3(S3Object {
            bucket: "b".into(),
            key: key.into(),
            bundle: Bundle::Zip,
            version: None,
            etag: None,
        })
    }

    /// The keys of a history's stack; `<` marks a rollback.
    fn keys(history: &str) -> String {
        let history: Vec<Success> = history
            .split_whitespace()
            .map(|word| Success {
                deployment_id: String::new(),
                revision: revision(word.trim_start_matches('<')),
                went_back: word.starts_with('<'),
            })
            .collect();
        let keys = stack(&history)
            .into_iter()
            .map(|success| match &success.revision {
                Revision::S3(object) => object.key.clone(),
                Revision::GitHub(_) => String::new(),
            });
        keys.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_revisions_before() {
        for (history, expected) in [
            ("", ""),
            ("1", "1"),
            ("1 2 3", "1 2 3"),
            ("1 2 2", "1 2"),
            ("1 2 3 <2", "1 2"),
            ("1 2 3 <2 <1", "1"),
            ("1 2 3 <2 4", "1 2 4"),
            // An earlier revision that is deployed on purpose is a new one.
            ("1 2 1", "1 2 1"),
            // A rollback to a revision that is older than the searched history.
            ("2 <1", "2 1"),
        ] {
            assert_eq!(keys(history), expected, "{history}");
        }
    }
}
