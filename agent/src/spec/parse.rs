//! Parses the specification's JSON into a [`DeploymentSpec`]: null counts as absent, unknown
//! members are ignored, all others are checked by name.

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_api::trace::TraceParent;
use codedeploy_hooks::appspec::ArchivePath;
use codedeploy_hooks::lifecycle::DeploymentKind;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::DeploymentSpec;
use super::binding::Binding;
use super::envelope::VerifiedSpec;
use crate::path_component::PathComponent;
use crate::revision::archive::BundleType;
use crate::revision::{AccessToken, GitHubRevision, LocalRevision, Revision, S3Revision};
use crate::spec::ReuseFrom;

#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("the deployment specification is not JSON")]
    Json { source: serde_json::Error },
    #[error("the deployment specification: {member}: {problem}")]
    Member { member: String, problem: String },
}

/// The member that names a deployment whose unpacked archive is reused.
pub const REUSE_ARCHIVE_FROM: &str = "ReuseArchiveFromDeploymentId";

/// The file names of an AppSpec if the specification names none that exists.
pub const APPSPEC_FILENAMES: [&str; 2] = ["appspec.yml", "appspec.yaml"];

impl DeploymentSpec {
    pub fn parse(spec: &VerifiedSpec) -> Result<Self, SpecError> {
        let value: Value =
            serde_json::from_slice(&spec.json).map_err(|source| SpecError::Json { source })?;
        let top = Members {
            path: String::new(),
            map: object(value, "the document")?,
        };
        let overrides = top.optional("AgentActionOverrides")?;
        let overrides = overrides
            .map(|members| members.optional("AgentOverrides"))
            .transpose()?
            .flatten();
        let behavior = overrides
            .map(|members| members.optional_text("FileExistsBehavior"))
            .transpose()?
            .flatten();
        let creator = top.optional_text("DeploymentCreator")?;
        let kind = top.optional_text("DeploymentType")?;
        Ok(Self {
            deployment_id: identifier(&top, "DeploymentId")?,
            deployment_group_id: identifier(&top, "DeploymentGroupId")?,
            deployment_group_name: top.text("DeploymentGroupName")?,
            application_name: top.text("ApplicationName")?,
            kind: DeploymentKind {
                rollback: creator.as_deref() == Some("codeDeployRollback"),
                blue_green: kind.as_deref() == Some("BLUE_GREEN"),
            },
            appspec_filename: appspec_filename(&top)?,
            file_exists_behavior: behavior.map_or(Ok(FileExistsBehavior::default()), |text| {
                text.parse().map_err(|problem| {
                    top.wrong(
                        "AgentActionOverrides.AgentOverrides.FileExistsBehavior",
                        problem,
                    )
                })
            })?,
            all_possible_lifecycle_events: events(&top)?,
            revision: revision(&top)?,
            reuse_archive_from: reuse_archive_from(&top),
            trace_parent: trace_parent(&top),
            binding: Binding {
                host_identifier: top.optional_text("HostIdentifier")?,
                deployment_execution_id: top.optional_text("DeploymentExecutionId")?,
                signed_at: signed_at(&top)?,
            },
        })
    }
}

/// A deployment's id may be an ARN, of which the part after the slash counts.
fn identifier(top: &Members, key: &str) -> Result<PathComponent, SpecError> {
    let text = top.text(key)?;
    let id = if key == "DeploymentId" {
        after_slash(&text)
    } else {
        &text
    };
    PathComponent::new(id).ok_or_else(|| top.wrong(key, format!("{text:?} cannot name a folder")))
}

fn signed_at(top: &Members) -> Result<Option<OffsetDateTime>, SpecError> {
    let Some(value) = top.value("SignedAt") else {
        return Ok(None);
    };
    let nanoseconds = value.as_f64().map(|seconds| (seconds * 1e9) as i128);
    let time = nanoseconds.and_then(|at| OffsetDateTime::from_unix_timestamp_nanos(at).ok());
    time.map(Some)
        .ok_or_else(|| top.wrong("SignedAt", "expected a number of seconds since 1970"))
}

/// A malformed one must not fail the deployment.
fn trace_parent(top: &Members) -> Option<TraceParent> {
    top.value("TraceParent")?.as_str()?.parse().ok()
}

/// Reads an id or ARN like `DeploymentId`. A malformed one is kept, because it must not fail the
/// deployment.
fn reuse_archive_from(top: &Members) -> Option<ReuseFrom> {
    let value = top.value(REUSE_ARCHIVE_FROM)?;
    let id = value
        .as_str()
        .and_then(|text| PathComponent::new(after_slash(text)));
    Some(id.map_or_else(
        || ReuseFrom::Malformed(value.to_string()),
        ReuseFrom::Deployment,
    ))
}

/// The part of an ARN after the slash; the whole text if it is no ARN.
fn after_slash(text: &str) -> &str {
    let arn = text
        .strip_prefix("arn:")
        .and_then(|arn| arn.split_once('/'));
    arn.map_or(text, |(_, id)| id)
}

fn appspec_filename(top: &Members) -> Result<String, SpecError> {
    let Some(name) = top.optional_text("AppSpecFilename")? else {
        return Ok(APPSPEC_FILENAMES[0].into());
    };
    match ArchivePath::new(&name) {
        Ok(path) if !path.is_root() && !name.starts_with('/') => Ok(name),
        Ok(_) => Err(top.wrong(
            "AppSpecFilename",
            format!("{name:?} is not a path inside the revision"),
        )),
        Err(problem) => Err(top.wrong("AppSpecFilename", format!("{name:?} {problem}"))),
    }
}

fn events(top: &Members) -> Result<Option<Vec<LifecycleEvent>>, SpecError> {
    let key = "AllPossibleLifecycleEvents";
    let Some(value) = top.value(key) else {
        return Ok(None);
    };
    let Value::Array(names) = value else {
        return Err(top.wrong(key, "expected a list of event names"));
    };
    let event = |name: &Value| match name.as_str().map(str::parse::<LifecycleEvent>) {
        Some(Ok(event)) => Ok(event),
        Some(Err(problem)) => Err(top.wrong(key, problem)),
        None => Err(top.wrong(key, "expected a list of event names")),
    };
    names.iter().map(event).collect::<Result<_, _>>().map(Some)
}

fn revision(top: &Members) -> Result<Revision, SpecError> {
    let revision = top.required("Revision")?;
    match revision.text("RevisionType")?.as_str() {
        "S3" => {
            let s3 = revision.required("S3Revision")?;
            Ok(Revision::S3(S3Revision {
                bucket: s3.text("Bucket")?,
                key: s3.text("Key")?,
                bundle_type: bundle_type(&s3, &s3.text("BundleType")?)?,
                version: s3.optional_text("Version")?,
                etag: s3
                    .optional_text("ETag")?
                    .map(|etag| etag.trim_matches('"').to_owned()),
            }))
        }
        "GitHub" => {
            let github = revision.required("GitHubRevision")?;
            let bundle_type = match github.optional_text("BundleType")? {
                Some(text) => bundle_type(&github, &text)?,
                None => BundleType::Tar,
            };
            Ok(Revision::GitHub(GitHubRevision {
                account: github.text("Account")?,
                repository: github.text("Repository")?,
                commit_id: github.text("CommitId")?,
                bundle_type,
                token: top
                    .optional_text("GitHubAccessToken")?
                    .map(AccessToken::new),
            }))
        }
        kind @ ("Local File" | "Local Directory") => {
            let local = revision.required("LocalRevision")?;
            let location = local.text("Location")?.into();
            Ok(Revision::Local(if kind == "Local Directory" {
                LocalRevision::Directory { location }
            } else {
                LocalRevision::File {
                    location,
                    bundle_type: bundle_type(&local, &local.text("BundleType")?)?,
                }
            }))
        }
        other => Err(revision.wrong(
            "RevisionType",
            format!("found {other:?}; expected S3, GitHub, Local File or Local Directory"),
        )),
    }
}

fn bundle_type(members: &Members, text: &str) -> Result<BundleType, SpecError> {
    text.parse().map_err(|_| {
        members.wrong(
            "BundleType",
            format!("found {text:?}; expected tar, tgz or zip"),
        )
    })
}

/// The members of one object, and its path.
struct Members {
    path: String,
    map: Map<String, Value>,
}

impl Members {
    fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn optional(&self, key: &str) -> Result<Option<Members>, SpecError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let path = self.at(key);
        Ok(Some(Members {
            map: object(value.clone(), &path)?,
            path,
        }))
    }

    fn required(&self, key: &str) -> Result<Members, SpecError> {
        self.optional(key)?
            .ok_or_else(|| self.wrong(key, "is missing"))
    }

    fn optional_text(&self, key: &str) -> Result<Option<String>, SpecError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(key, "expected a text")),
        }
    }

    fn text(&self, key: &str) -> Result<String, SpecError> {
        self.optional_text(key)?
            .ok_or_else(|| self.wrong(key, "is missing or empty"))
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn wrong(&self, key: &str, problem: impl ToString) -> SpecError {
        SpecError::Member {
            member: self.at(key),
            problem: problem.to_string(),
        }
    }
}

fn object(value: Value, member: &str) -> Result<Map<String, Value>, SpecError> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(SpecError::Member {
            member: member.into(),
            problem: "expected an object".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::envelope::trusted;

    fn document() -> Value {
        json!({
            "DeploymentId": "arn:aws:codedeploy:us-east-1:123456789012:deployment/d-7Q2M0ZK4A",
            "DeploymentGroupId": "6b0e7c5e-8a53-4b76-9a0c-0e3f1f7f2a11",
            "DeploymentGroupName": "web", "ApplicationName": "shop", "Unknown": [1],
            "AgentActionOverrides": {"AgentOverrides": {"FileExistsBehavior": "overwrite"}},
            "Revision": {"RevisionType": "S3", "S3Revision": {
                "Bucket": "b", "Key": "k.zip", "BundleType": "zip", "Version": null, "ETag": "\"abc\""}}
        })
    }

    fn parse(value: &Value) -> Result<DeploymentSpec, String> {
        DeploymentSpec::parse(&trusted(value.to_string().into_bytes()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_specification_reads_with_its_defaults() {
        let spec = parse(&document()).unwrap();
        assert_eq!(spec.deployment_id.as_str(), "d-7Q2M0ZK4A");
        assert_eq!(spec.file_exists_behavior, FileExistsBehavior::Overwrite);
        assert_eq!(spec.appspec_filename, "appspec.yml");
        let Revision::S3(s3) = spec.revision else {
            panic!("not S3")
        };
        assert_eq!((s3.version, s3.etag.as_deref()), (None, Some("abc")));
    }

    #[test]
    fn a_token_goes_to_its_revision_and_is_not_shown() {
        let mut document = document();
        document["GitHubAccessToken"] = json!("ghp_secret");
        document["Revision"] = json!({"RevisionType": "GitHub", "GitHubRevision": {
            "Account": "octo", "Repository": "shop", "CommitId": "1a2b3c4"}});
        let spec = parse(&document).unwrap();
        assert!(!format!("{spec:?}").contains("ghp_secret"));
        let Revision::GitHub(github) = spec.revision else {
            panic!("not GitHub")
        };
        assert_eq!(github.token, Some(AccessToken::new("ghp_secret".into())));
        assert_eq!(github.bundle_type, BundleType::Tar);
    }

    #[test]
    fn the_archive_to_use_again_is_an_id_or_an_arn_and_never_an_error() {
        let reuse = |value| {
            let mut document = document();
            document["ReuseArchiveFromDeploymentId"] = value;
            parse(&document).unwrap().reuse_archive_from
        };
        let earlier = Some(ReuseFrom::Deployment(PathComponent::new("d-1").unwrap()));
        assert_eq!(reuse(json!("d-1")), earlier);
        assert_eq!(
            reuse(json!(
                "arn:aws:codedeploy:us-east-1:123456789012:deployment/d-1"
            )),
            earlier
        );
        assert_eq!(reuse(json!(null)), None);
        for malformed in [json!(7), json!("a/b"), json!(["d-1"]), json!("")] {
            assert!(
                matches!(reuse(malformed.clone()), Some(ReuseFrom::Malformed(_))),
                "{malformed}"
            );
        }
    }

    #[test]
    fn every_wrong_member_is_named() {
        let cases = [
            (
                "/DeploymentId",
                json!(""),
                "DeploymentId: is missing or empty",
            ),
            (
                "/DeploymentId",
                json!(".."),
                "DeploymentId: \"..\" cannot name a folder",
            ),
            (
                "/DeploymentId",
                json!("arn:aws:x:deployment/../etc"),
                "cannot name a folder",
            ),
            (
                "/DeploymentGroupId",
                json!("a/b"),
                "DeploymentGroupId: \"a/b\" cannot name a folder",
            ),
            (
                "/DeploymentGroupId",
                json!("a\nb"),
                "DeploymentGroupId: \"a\\nb\" cannot name a folder",
            ),
            (
                "/DeploymentId",
                json!("d-1\u{1b}[2J"),
                "DeploymentId: \"d-1\\u{1b}[2J\" cannot name a folder",
            ),
            ("/DeploymentId", json!("d-1\u{85}"), "cannot name a folder"),
            (
                "/ApplicationName",
                json!(7),
                "ApplicationName: expected a text",
            ),
            (
                "/AgentActionOverrides/AgentOverrides/FileExistsBehavior",
                json!("KEEP"),
                "not one of DISALLOW",
            ),
            (
                "/Revision/RevisionType",
                json!("FTP"),
                "Revision.RevisionType: found \"FTP\"",
            ),
            (
                "/Revision/S3Revision",
                json!(null),
                "Revision.S3Revision: is missing",
            ),
            (
                "/Revision/S3Revision/BundleType",
                json!("rar"),
                "Revision.S3Revision.BundleType: found \"rar\"",
            ),
        ];
        for (pointer, value, expected) in cases {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = value;
            let message = parse(&document).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let mut document = document();
        document["AppSpecFilename"] = json!("../appspec.yml");
        assert!(parse(&document).unwrap_err().contains("AppSpecFilename"));
        document["AppSpecFilename"] = json!("conf/appspec.yml");
        document["AllPossibleLifecycleEvents"] = json!(["ApplicationStop", "WarmUp"]);
        assert_eq!(
            parse(&document)
                .unwrap()
                .all_possible_lifecycle_events
                .unwrap()[1]
                .name(),
            "WarmUp"
        );
    }
}
