//! The revisions in requests.

use codedeploy_api::codedeploy::RevisionLocation;

use super::Member;
use crate::error::{ApiError, ErrorName};
use crate::revision::{Commit, Revision, S3Object};

/// The longest bucket name, in characters, and the longest key, in bytes.
pub(super) const MAX_BUCKET: usize = 63;
pub(super) const MAX_KEY: usize = 1024;

/// The longest version and ETag of an object, in characters.
const MAX_VERSION: usize = 1024;

/// The longest `account/repository`, in characters: GitHub allows 39 and 100.
const MAX_REPOSITORY: usize = 140;

impl Member for Revision {
    type Raw = RevisionLocation;

    const WHAT: &'static str = "revision";

    fn missing() -> ApiError {
        ErrorName::RevisionRequired
            .because("The revision is missing: give an S3 or GitHub location.")
    }

    fn check(location: RevisionLocation) -> Result<Self, ApiError> {
        let invalid = |message: String| ErrorName::InvalidRevision.because(message);
        let mut revision =
            Revision::try_from(location).map_err(|wrong| invalid(wrong.to_string()))?;
        match &mut revision {
            Revision::S3(object) => check_object(object),
            Revision::GitHub(commit) => check_commit(commit),
        }
        .map_err(invalid)?;
        Ok(revision)
    }
}

fn check_object(
    S3Object {
        bucket,
        key,
        version,
        etag,
        ..
    }: &mut S3Object,
) -> Result<(), String> {
    if let Some(etag) = etag {
        *etag = etag.trim_matches('"').to_owned();
    }
    // Agents would compare an empty text with the bucket's value.
    version.take_if(|version| version.is_empty());
    etag.take_if(|etag| etag.is_empty());
    if bucket.len() > MAX_BUCKET {
        return Err(format!(
            "The bucket's name has more than {MAX_BUCKET} characters."
        ));
    }
    if key.len() > MAX_KEY {
        return Err(format!("The key has more than {MAX_KEY} bytes."));
    }
    if [version, etag]
        .into_iter()
        .flatten()
        .any(|text| text.len() > MAX_VERSION)
    {
        return Err(format!(
            "The version or the ETag has more than {MAX_VERSION} characters."
        ));
    }
    Ok(())
}

fn check_commit(
    Commit {
        account,
        repository,
        ..
    }: &Commit,
) -> Result<(), String> {
    if account.len() + "/".len() + repository.len() > MAX_REPOSITORY {
        return Err("The GitHub repository must be given as account/repository.".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Field as _;

    #[test]
    fn only_locations_a_host_can_fetch_are_accepted() {
        for (json, wrong) in [
            (
                r#"{"revisionType":"S3","s3Location":{"bucket":"b","key":"k","bundleType":"zip"}}"#,
                false,
            ),
            (
                r#"{"revisionType":"S3","s3Location":{"bucket":"b","key":"k","bundleType":"YAML"}}"#,
                true,
            ),
            (
                r#"{"revisionType":"S3","s3Location":{"bucket":"","key":"k","bundleType":"zip"}}"#,
                true,
            ),
            (r#"{"revisionType":"S3"}"#, true),
            (
                r#"{"s3Location":{"bucket":"b","key":"k","bundleType":"zip"}}"#,
                true,
            ),
            (
                r#"{"revisionType":"GitHub","gitHubLocation":{"repository":"a","commitId":"c"}}"#,
                true,
            ),
            (
                r#"{"revisionType":"GitHub","gitHubLocation":{"repository":"a/b","commitId":"0123456789012345678901234567890123456789"}}"#,
                false,
            ),
            (r#"{"revisionType":"String"}"#, true),
        ] {
            let location = serde_json::from_str(json).unwrap();
            assert_eq!(
                <Revision as Member>::check(location).is_err(),
                wrong,
                "{json}"
            );
        }
        assert_eq!(
            Revision::demand(&None).unwrap_err().name,
            ErrorName::RevisionRequired
        );
    }
}
