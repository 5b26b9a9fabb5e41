//! Revisions: pointers to bundles that the hosts of this service can fetch.

pub mod address;
pub(crate) mod changes;
pub(crate) mod manifest;

use std::fmt;

use codedeploy_api::codedeploy::{
    BundleType, GitHubLocation, RevisionLocation, RevisionLocationType, S3Location,
};
use serde::{Deserialize, Serialize};

/// A bundle, with everything that a host needs to fetch it. The Server compute platform has no
/// other kinds of revisions.
///
/// It is stored in the shape of the API, whose text is the revision's identity in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RevisionLocation", into = "RevisionLocation")]
pub enum Revision {
    S3(S3Object),
    GitHub(Commit),
}

/// An object in S3, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Object {
    pub bucket: String,
    pub key: String,
    pub bundle: Bundle,
    pub version: Option<String>,
    /// Without the quotation marks of the HTTP header.
    pub etag: Option<String>,
}

/// A commit of a repository on GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub account: String,
    pub repository: String,
    pub id: String,
}

/// The format of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bundle {
    Tar,
    Tgz,
    Zip,
}

/// The number of characters of a client's text in a message.
const SHOWN: usize = 100;

/// The location is not that of a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotARevision {
    #[error("revisionType is missing: it must be S3 or GitHub.")]
    NoType,
    #[error(
        "The revision type {0:?} is not one that the Server compute platform has: it must be S3 or GitHub."
    )]
    OtherType(String),
    #[error("A revision of type S3 needs s3Location and no other location.")]
    S3Alone,
    #[error("A revision of type GitHub needs gitHubLocation and no other location.")]
    GitHubAlone,
    #[error("The S3 location needs a bucket and a key.")]
    NoObject,
    #[error("The bundle type must be one of tar, tgz and zip.")]
    NoBundleType,
    #[error("The GitHub repository must be given as account/repository.")]
    NoRepository,
    #[error("The GitHub commit id must be the full SHA-1 of 40 hexadecimal digits.")]
    NoCommit,
}

impl Bundle {
    /// Its name in the API, in specifications, and as the suffix of a key.
    pub fn name(self) -> &'static str {
        match self {
            Bundle::Tar => "tar",
            Bundle::Tgz => "tgz",
            Bundle::Zip => "zip",
        }
    }
}

impl TryFrom<RevisionLocation> for Revision {
    type Error = NotARevision;

    fn try_from(location: RevisionLocation) -> Result<Self, NotARevision> {
        match (
            location.revision_type,
            location.s3_location,
            location.git_hub_location,
        ) {
            (Some(RevisionLocationType::S3), Some(s3), None) => {
                S3Object::try_from(s3).map(Revision::S3)
            }
            (Some(RevisionLocationType::GitHub), None, Some(git_hub)) => {
                Commit::try_from(git_hub).map(Revision::GitHub)
            }
            (Some(RevisionLocationType::S3), ..) => Err(NotARevision::S3Alone),
            (Some(RevisionLocationType::GitHub), ..) => Err(NotARevision::GitHubAlone),
            (Some(other), ..) => Err(NotARevision::OtherType(
                other.as_str().chars().take(SHOWN).collect(),
            )),
            (None, ..) => Err(NotARevision::NoType),
        }
    }
}

impl TryFrom<S3Location> for S3Object {
    type Error = NotARevision;

    fn try_from(location: S3Location) -> Result<Self, NotARevision> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (bucket, key) = given(location.bucket)
            .zip(given(location.key))
            .ok_or(NotARevision::NoObject)?;
        let bundle = match location.bundle_type {
            Some(BundleType::Tar) => Bundle::Tar,
            Some(BundleType::Tgz) => Bundle::Tgz,
            Some(BundleType::Zip) => Bundle::Zip,
            _ => return Err(NotARevision::NoBundleType),
        };
        Ok(S3Object {
            bucket,
            key,
            bundle,
            version: location.version,
            etag: location.e_tag,
        })
    }
}

impl TryFrom<GitHubLocation> for Commit {
    type Error = NotARevision;

    fn try_from(location: GitHubLocation) -> Result<Self, NotARevision> {
        let full_name = location.repository.unwrap_or_default();
        let (account, repository) = full_name
            .split_once('/')
            .filter(|(account, name)| {
                !account.is_empty() && !name.is_empty() && !name.contains('/')
            })
            .ok_or(NotARevision::NoRepository)?;
        let id = location.commit_id.unwrap_or_default();
        if id.len() != 40 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotARevision::NoCommit);
        }
        Ok(Commit {
            account: account.to_owned(),
            repository: repository.to_owned(),
            id,
        })
    }
}

impl From<Revision> for RevisionLocation {
    fn from(revision: Revision) -> Self {
        match revision {
            Revision::S3(object) => RevisionLocation {
                revision_type: Some(RevisionLocationType::S3),
                s3_location: Some(object.into()),
                git_hub_location: None,
            },
            Revision::GitHub(commit) => RevisionLocation {
                revision_type: Some(RevisionLocationType::GitHub),
                s3_location: None,
                git_hub_location: Some(commit.into()),
            },
        }
    }
}

impl From<S3Object> for S3Location {
    fn from(object: S3Object) -> Self {
        S3Location {
            bucket: Some(object.bucket),
            key: Some(object.key),
            bundle_type: Some(match object.bundle {
                Bundle::Tar => BundleType::Tar,
                Bundle::Tgz => BundleType::Tgz,
                Bundle::Zip => BundleType::Zip,
            }),
            version: object.version,
            e_tag: object.etag,
        }
    }
}

impl From<Commit> for GitHubLocation {
    fn from(commit: Commit) -> Self {
        let repository = format!("{}/{}", commit.account, commit.repository);
        GitHubLocation {
            repository: Some(repository),
            commit_id: Some(commit.id),
        }
    }
}

/// On one line, for the log.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Revision::S3(S3Object {
                bucket,
                key,
                version,
                ..
            }) => {
                write!(f, "s3://{bucket}/{key}")?;
                version
                    .as_ref()
                    .map_or(Ok(()), |version| write!(f, "?versionId={version}"))
            }
            Revision::GitHub(Commit {
                account,
                repository,
                id,
            }) => {
                write!(f, "github.com/{account}/{repository}@{id}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_revision_is_that_of_its_location() {
        for text in [
            r#"{"revisionType":"S3","s3Location":{"bucket":"b","key":"k","bundleType":"zip"}}"#,
            r#"{"revisionType":"S3","s3Location":{"bucket":"b","key":"k","bundleType":"tgz","version":"v","eTag":"e"}}"#,
            r#"{"revisionType":"S3","s3Location":{"bucket":"b","key":"k","bundleType":"tar","version":""}}"#,
            r#"{"revisionType":"GitHub","gitHubLocation":{"repository":"a/b","commitId":"0123456789012345678901234567890123456789"}}"#,
        ] {
            let location: RevisionLocation = serde_json::from_str(text).unwrap();
            let revision: Revision = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&revision).unwrap(), text);
            assert_eq!(RevisionLocation::from(revision), location);
        }
    }
}
