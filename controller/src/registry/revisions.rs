//! Revisions of an application: pointers to bundles.

use codedeploy_api::codedeploy::*;
use rusqlite::{OptionalExtension, Row, named_params};

use super::applications::{self, Application};
use super::{Context, check_description};
use crate::error::{ApiError, ErrorName};
use crate::store::Json;

/// A location that has everything a host needs to fetch the bundle.
pub(crate) fn check(location: Option<RevisionLocation>) -> Result<RevisionLocation, ApiError> {
    let mut location = location.ok_or_else(|| {
        ErrorName::RevisionRequired.because("The revision is missing: give an S3 or GitHub location.")
    })?;
    if let Some(s3) = &mut location.s3_location {
        // Agents would compare an empty text with what the bucket says.
        s3.version.take_if(|version| version.is_empty());
        s3.e_tag.take_if(|e_tag| e_tag.is_empty());
    }
    let invalid = |message: &str| Err(ErrorName::InvalidRevision.because(message));
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    match (&location.revision_type, &location.s3_location, &location.git_hub_location) {
        (Some(RevisionLocationType::S3), Some(s3), None) => {
            if !given(&s3.bucket) || !given(&s3.key) {
                return invalid("The S3 location needs a bucket and a key.");
            }
            match s3.bundle_type {
                Some(BundleType::Tar | BundleType::Tgz | BundleType::Zip) => Ok(location),
                _ => invalid("The bundle type must be one of tar, tgz and zip."),
            }
        }
        (Some(RevisionLocationType::GitHub), None, Some(github)) => {
            let repository = github.repository.as_deref().unwrap_or_default();
            let named = repository.split_once('/').is_some_and(|(account, name)| {
                !account.is_empty() && !name.is_empty() && !name.contains('/')
            });
            if !named {
                return invalid("The GitHub repository must be given as account/repository.");
            }
            let commit = github.commit_id.as_deref().unwrap_or_default();
            if commit.len() != 40 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return invalid("The GitHub commit id must be the full SHA-1 of 40 hexadecimal digits.");
            }
            Ok(location)
        }
        (Some(RevisionLocationType::S3), ..) => {
            invalid("A revision of type S3 needs s3Location and no other location.")
        }
        (Some(RevisionLocationType::GitHub), ..) => {
            invalid("A revision of type GitHub needs gitHubLocation and no other location.")
        }
        _ => invalid("The revision type must be S3 or GitHub for the Server compute platform."),
    }
}

struct Revision {
    location: RevisionLocation,
    description: Option<String>,
    registered: Timestamp,
    first_used: Option<Timestamp>,
    last_used: Option<Timestamp>,
}

impl Revision {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let time = |column| -> rusqlite::Result<Option<Timestamp>> {
            Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
        };
        Ok(Revision {
            location: row.get::<_, Json<_>>("location")?.0,
            description: row.get("description")?,
            registered: Timestamp::from_millis(row.get("registered")?),
            first_used: time("first_used")?,
            last_used: time("last_used")?,
        })
    }
}

pub fn register(context: &Context<'_>, input: RegisterApplicationRevisionInput) -> Result<Nothing, ApiError> {
    let application = applications::find(context, input.application_name)?;
    let location = check(input.revision)?;
    check_description(&input.description)?;
    context.tx.execute(
        "INSERT INTO revisions (application_id, location, description, registered)
         VALUES (:application, :location, :description, :now)
         ON CONFLICT DO UPDATE SET description = excluded.description, registered = excluded.registered",
        named_params! {
            ":application": application.id,
            ":location": Json(location),
            ":description": input.description,
            ":now": context.now.millis(),
        },
    )?;
    Ok(Nothing {})
}

/// Notes that a deployment uses a revision, registering it where nobody did.
pub(crate) fn mark_used(
    context: &Context<'_>,
    application_id: &str,
    location: &RevisionLocation,
    deployment_id: &str,
) -> Result<(), ApiError> {
    context.tx.execute(
        "INSERT INTO revisions (application_id, location, description, registered, first_used, last_used)
         VALUES (:application, :location, :description, :now, :now, :now)
         ON CONFLICT DO UPDATE SET first_used = coalesce(first_used, :now), last_used = :now",
        named_params! {
            ":application": application_id,
            ":location": Json(location),
            ":description": format!("Application revision registered by Deployment ID: {deployment_id}"),
            ":now": context.now.millis(),
        },
    )?;
    Ok(())
}

pub fn get(
    context: &Context<'_>,
    input: GetApplicationRevisionInput,
) -> Result<GetApplicationRevisionOutput, ApiError> {
    let application = applications::find(context, input.application_name)?;
    let location = check(input.revision)?;
    let mut statement =
        context.tx.prepare_cached("SELECT * FROM revisions WHERE application_id = ?1 AND location = ?2")?;
    let revision = statement
        .query_row((&application.id, Json(&location)), Revision::read)
        .optional()?
        .ok_or_else(|| {
            ErrorName::RevisionDoesNotExist
                .because(format!("The revision is not registered with the application {}.", application.name))
        })?;
    let groups = groups_targeting(context, &application, &location)?;
    Ok(GetApplicationRevisionOutput {
        application_name: Some(application.name),
        revision: Some(location),
        revision_info: Some(GenericRevisionInfo {
            description: revision.description,
            deployment_groups: Some(groups),
            first_used_time: revision.first_used,
            last_used_time: revision.last_used,
            register_time: Some(revision.registered),
        }),
    })
}

fn groups_targeting(
    context: &Context<'_>,
    application: &Application,
    location: &RevisionLocation,
) -> Result<Vec<String>, ApiError> {
    let mut statement = context.tx.prepare_cached(
        "SELECT name FROM deployment_groups WHERE application_id = ?1 AND target_revision = ?2 ORDER BY name",
    )?;
    let names = statement.query_map((&application.id, Json(location)), |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

pub fn list(
    context: &Context<'_>,
    input: ListApplicationRevisionsInput,
) -> Result<ListApplicationRevisionsOutput, ApiError> {
    let listing = serde_json::to_string(&ListApplicationRevisionsInput { next_token: None, ..input.clone() });
    let listing = listing.unwrap_or_default();
    let filter = Filter::check(&input)?;
    let application = applications::find(context, input.application_name)?;
    let mut statement = context.tx.prepare_cached("SELECT * FROM revisions WHERE application_id = ?1")?;
    let revisions: Vec<Revision> =
        statement.query_map([&application.id], Revision::read)?.collect::<Result<_, _>>()?;
    let mut items = Vec::new();
    for revision in revisions {
        let deployed = || -> Result<bool, ApiError> {
            Ok(!groups_targeting(context, &application, &revision.location)?.is_empty())
        };
        if !filter.place.admits(&revision.location) {
            continue;
        }
        let admitted = match filter.deployed {
            Some(wanted) => deployed()? == wanted,
            None => true,
        };
        if admitted {
            items.push((filter.sort_key(&revision), revision.location));
        }
    }
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (revisions, next_token) =
        context.pages.cut(&format!("revisions{listing}"), input.next_token.as_deref(), items)?;
    Ok(ListApplicationRevisionsOutput { revisions: Some(revisions), next_token })
}

/// What ListApplicationRevisions was asked for, checked.
struct Filter {
    sort_by: ApplicationRevisionSortBy,
    descending: bool,
    place: Place,
    /// Only target revisions of groups, or only the others.
    deployed: Option<bool>,
}

enum Place {
    Anywhere,
    Bucket { name: String, prefix: String },
}

impl Place {
    fn admits(&self, location: &RevisionLocation) -> bool {
        let Place::Bucket { name, prefix } = self else {
            return true;
        };
        location.s3_location.as_ref().is_some_and(|s3| {
            s3.bucket.as_ref() == Some(name)
                && s3.key.as_ref().is_some_and(|key| key.starts_with(prefix.as_str()))
        })
    }
}

impl Filter {
    fn check(input: &ListApplicationRevisionsInput) -> Result<Self, ApiError> {
        let sort_by = input.sort_by.clone().unwrap_or(ApplicationRevisionSortBy::RegisterTime);
        if !sort_by.is_known() {
            let message = "sortBy must be one of registerTime, firstUsedTime and lastUsedTime.";
            return Err(ErrorName::InvalidSortBy.because(message));
        }
        let descending = match input.sort_order {
            None | Some(SortOrder::Ascending) => false,
            Some(SortOrder::Descending) => true,
            Some(SortOrder::Other(_)) => {
                return Err(ErrorName::InvalidSortOrder.because("sortOrder must be ascending or descending."));
            }
        };
        let place = match (input.s3_bucket.as_deref(), input.s3_key_prefix.as_deref()) {
            (None, None) => Place::Anywhere,
            (Some(""), _) => return Err(ErrorName::InvalidBucketNameFilter.because("s3Bucket is empty.")),
            (_, Some("")) => return Err(ErrorName::InvalidKeyPrefixFilter.because("s3KeyPrefix is empty.")),
            (None, Some(_)) => {
                return Err(
                    ErrorName::BucketNameFilterRequired.because("s3KeyPrefix needs s3Bucket beside it.")
                );
            }
            (Some(name), prefix) => {
                Place::Bucket { name: name.into(), prefix: prefix.unwrap_or_default().into() }
            }
        };
        let deployed = match input.deployed {
            None | Some(ListStateFilterAction::Ignore) => None,
            Some(ListStateFilterAction::Include) => Some(true),
            Some(ListStateFilterAction::Exclude) => Some(false),
            Some(ListStateFilterAction::Other(_)) => {
                let message = "deployed must be one of include, exclude and ignore.";
                return Err(ErrorName::InvalidDeployedStateFilter.because(message));
            }
        };
        Ok(Filter { sort_by, descending, place, deployed })
    }

    /// The time, then the location: no two revisions of an application have the same.
    fn sort_key(&self, revision: &Revision) -> String {
        let time = match self.sort_by {
            ApplicationRevisionSortBy::FirstUsedTime => revision.first_used,
            ApplicationRevisionSortBy::LastUsedTime => revision.last_used,
            _ => Some(revision.registered),
        };
        let millis = time.map_or(0, Timestamp::millis).max(0);
        let ordered = if self.descending { i64::MAX - millis } else { millis };
        let location = serde_json::to_string(&revision.location).unwrap_or_default();
        format!("{ordered:020}{location}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> bool {
        check(Some(serde_json::from_str(json).unwrap())).is_err()
    }

    #[test]
    fn only_locations_a_host_can_fetch_are_accepted() {
        for (json, wrong) in [
            (r#"{"revisionType":"S3","s3Location":{"bucket":"b","key":"k","bundleType":"zip"}}"#, false),
            (r#"{"revisionType":"S3","s3Location":{"bucket":"b","key":"k","bundleType":"YAML"}}"#, true),
            (r#"{"revisionType":"S3","s3Location":{"bucket":"","key":"k","bundleType":"zip"}}"#, true),
            (r#"{"revisionType":"S3"}"#, true),
            (r#"{"s3Location":{"bucket":"b","key":"k","bundleType":"zip"}}"#, true),
            (r#"{"revisionType":"GitHub","gitHubLocation":{"repository":"a","commitId":"c"}}"#, true),
            (
                r#"{"revisionType":"GitHub","gitHubLocation":{"repository":"a/b","commitId":"0123456789012345678901234567890123456789"}}"#,
                false,
            ),
            (r#"{"revisionType":"String"}"#, true),
        ] {
            assert_eq!(refused(json), wrong, "{json}");
        }
        assert_eq!(check(None).unwrap_err().name, ErrorName::RevisionRequired);
    }
}
