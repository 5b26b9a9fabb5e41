//! `deploy`: a folder, a file or an object in S3 becomes a deployment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use codedeploy_api::codedeploy::{
    CreateDeploymentInput, CreateDeploymentOutput, FileExistsBehavior, GetDeploymentConfigInput,
    GetDeploymentConfigOutput, RevisionLocation, RevisionLocationType, S3Location,
};
use codedeploy_api::controller::{
    GetControllerInput, GetControllerOutput, GetFleetStatusInput, GetFleetStatusOutput,
};
use serde_json::json;

use super::bundle::Bundle;
use super::connect::{Access, Connection, Session};
use super::{OperateError, Waiting, finish, words};
use crate::cli::output;
use crate::revision::address;

#[derive(Debug, Args)]
pub(in crate::cli) struct Deploy {
    /// The application's name.
    application: String,
    /// The deployment group's name.
    group: String,
    /// A folder with an appspec.yml, a file (.zip, .tar, .tgz or .tar.gz), or
    /// s3://bucket/key?versionId=…
    revision: String,
    /// Bucket of the controller for a folder or a file [default: its first one].
    #[arg(long)]
    bucket: Option<String>,
    /// Leave out files and folders whose names begin with a dot.
    #[arg(long)]
    ignore_hidden_files: bool,
    /// Description of the deployment.
    #[arg(long)]
    description: Option<String>,
    /// Deployment configuration [default: the group's].
    #[arg(long, value_name = "NAME")]
    config: Option<String>,
    /// Treatment of files that exist and that no deployment made.
    #[arg(long, value_name = "BEHAVIOR", ignore_case = true)]
    file_exists_behavior: Option<FileExists>,
    /// Only hosts that do not have the revision.
    #[arg(long)]
    outdated_only: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    connection: Connection,
}

/// The treatment of files that no deployment made.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(super) enum FileExists {
    Disallow,
    Overwrite,
    Retain,
}

impl From<FileExists> for FileExistsBehavior {
    fn from(behavior: FileExists) -> Self {
        match behavior {
            FileExists::Disallow => FileExistsBehavior::Disallow,
            FileExists::Overwrite => FileExistsBehavior::Overwrite,
            FileExists::Retain => FileExistsBehavior::Retain,
        }
    }
}

/// The source of a deployment.
#[derive(Debug)]
pub(super) enum Source {
    Path(PathBuf),
    Object(S3Location),
}

pub(super) async fn deploy(deploy: Deploy) -> Result<ExitCode, OperateError> {
    let json = deploy.connection.json;
    // Mistakes in the revision are found before anything is sent.
    let source = source(&deploy.revision)?;
    let bundle = match &source {
        Source::Path(path) => Some(Bundle::make(path, deploy.ignore_hidden_files)?),
        Source::Object(_) => None,
    };
    let mut session = deploy.connection.open(Access::Changes)?;
    check(&mut session, &deploy).await?;
    if let Source::Object(location) = &source {
        check_object(&mut session, location).await?;
    }
    let location = match (source, bundle) {
        (Source::Object(location), _) => location,
        (Source::Path(path), Some(bundle)) => {
            upload(&mut session, &deploy, &path, &bundle, json).await?
        }
        (Source::Path(_), None) => return Err(OperateError::NotAnObject(deploy.revision)),
    };
    let revision = RevisionLocation {
        revision_type: Some(RevisionLocationType::S3),
        s3_location: Some(location),
        ..RevisionLocation::default()
    };
    let (application, group) = (&deploy.application, &deploy.group);
    let input = CreateDeploymentInput {
        application_name: Some(application.clone()),
        deployment_group_name: Some(group.clone()),
        revision: Some(revision.clone()),
        description: deploy.description,
        deployment_config_name: deploy.config,
        file_exists_behavior: deploy.file_exists_behavior.map(FileExistsBehavior::from),
        update_outdated_instances_only: deploy.outdated_only.then_some(true),
        ..CreateDeploymentInput::default()
    };
    let client = session.client()?;
    let output: CreateDeploymentOutput = client.codedeploy("CreateDeployment", &input).await?;
    let id = output.deployment_id.unwrap_or_default();
    let text = format!(
        "{id} deploys {} to {application}/{group}",
        words::revision(Some(&revision))
    );
    let document = json!({"deploymentId": id, "revision": revision});
    finish(&mut session, &id, &deploy.waiting, json, &document, &text).await
}

/// Finds the mistakes in the names, and a deployment that is running, before anything is uploaded.
async fn check(session: &mut Session, deploy: &Deploy) -> Result<(), OperateError> {
    let input = GetFleetStatusInput {
        application_name: Some(deploy.application.clone()),
        deployment_group_name: Some(deploy.group.clone()),
        next_token: None,
    };
    let client = session.client()?;
    let found: GetFleetStatusOutput = client.controller("GetFleetStatus", &input).await?;
    let group = found.groups.unwrap_or_default().into_iter().next();
    let running = group.and_then(|group| group.running_deployment);
    if let Some(id) = running.and_then(|running| running.deployment_id) {
        let group = format!("{}/{}", deploy.application, deploy.group);
        return Err(OperateError::Busy { group, id });
    }
    if deploy.config.is_some() {
        let input = GetDeploymentConfigInput {
            deployment_config_name: deploy.config.clone(),
        };
        let _: GetDeploymentConfigOutput = client.codedeploy("GetDeploymentConfig", &input).await?;
    }
    Ok(())
}

/// Rejects an object that is missing from a bucket of the controller.
async fn check_object(session: &mut Session, location: &S3Location) -> Result<(), OperateError> {
    let (Some(bucket), Some(key)) = (&location.bucket, &location.key) else {
        return Ok(());
    };
    if !buckets(session).await?.contains(bucket) {
        return Ok(());
    }
    let client = session.client()?;
    let version = location.version.as_deref();
    match client.head_object(bucket, key, version).await {
        Ok(None) => {
            let revision = RevisionLocation {
                s3_location: Some(location.clone()),
                ..RevisionLocation::default()
            };
            Err(OperateError::NoObject(words::revision(Some(&revision))))
        }
        // Hosts may read more than the caller.
        _ => Ok(()),
    }
}

/// Returns the buckets of the controller.
async fn buckets(session: &mut Session) -> Result<Vec<String>, OperateError> {
    let client = session.client()?;
    let about: GetControllerOutput = client
        .controller("GetController", &GetControllerInput {})
        .await?;
    Ok(about.buckets.unwrap_or_default())
}

/// Puts a bundle into a bucket of the controller. Its name is that of its content, so that the same
/// bundle is uploaded once.
async fn upload(
    session: &mut Session,
    deploy: &Deploy,
    path: &Path,
    bundle: &Bundle,
    json: bool,
) -> Result<S3Location, OperateError> {
    let bucket = match &deploy.bucket {
        Some(bucket) => bucket.clone(),
        None => {
            let buckets = buckets(session).await?;
            buckets.into_iter().next().ok_or(OperateError::NoBucket)?
        }
    };
    let client = session.client()?;
    let digest = bundle.hash.get(..16).unwrap_or_default();
    let key = format!("{}/{digest}.{}", deploy.application, bundle.kind.as_str());
    let (object, verb) = match client.head_object(&bucket, &key, None).await? {
        Some(present) => (present, "is there already"),
        None => {
            let hash = bundle.hash.clone();
            let object = client
                .put_object(&bucket, &key, bundle.file(), hash)
                .await?;
            (object, "uploaded")
        }
    };
    if !json {
        let name = words::plain(&path.display().to_string());
        let files = match bundle.files {
            Some(1) => "1 file, ".to_owned(),
            Some(files) => format!("{files} files, "),
            None => String::new(),
        };
        output::show(format_args!(
            "{name} ({files}{}) {verb}: s3://{bucket}/{key}",
            size(bundle.size)
        ))?;
    }
    Ok(S3Location {
        bucket: Some(bucket),
        key: Some(key),
        bundle_type: Some(bundle.kind.clone()),
        version: object.version.filter(|version| version != "null"),
        e_tag: object.etag,
    })
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// Reads `s3://bucket/key?versionId=…&etag=…`, or a path.
pub(super) fn source(text: &str) -> Result<Source, OperateError> {
    if !text.starts_with("s3://") {
        return Ok(Source::Path(PathBuf::from(text)));
    }
    let object = address::object(text);
    let object = object.ok_or_else(|| OperateError::NotAnObject(text.to_owned()))?;
    Ok(Source::Object(object))
}

#[cfg(test)]
mod tests {
    use codedeploy_api::codedeploy::BundleType;

    use super::*;

    #[test]
    fn objects_are_read_with_their_version() {
        let Ok(Source::Object(location)) = source("s3://b/a/k.tar.gz?versionId=v%2B1&etag=e")
        else {
            panic!("an object")
        };
        assert_eq!(
            (location.bucket.as_deref(), location.key.as_deref()),
            (Some("b"), Some("a/k.tar.gz"))
        );
        assert_eq!(location.bundle_type, Some(BundleType::Tgz));
        assert_eq!(
            (location.version.as_deref(), location.e_tag.as_deref()),
            (Some("v+1"), Some("e"))
        );
        for wrong in ["s3://b", "s3:///k", "s3://b/", "s3://b/k?other=1"] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(source("site.zip"), Ok(Source::Path(_))));
    }
}
