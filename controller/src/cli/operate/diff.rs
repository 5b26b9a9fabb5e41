//! `diff`: a revision compared with the one that a deployment group runs. Both bundles are read
//! here; the controller only hands them out.

use std::path::PathBuf;

use clap::Args;
use codedeploy_api::codedeploy::{RevisionLocation, RevisionLocationType, S3Location};
use codedeploy_api::controller::{
    GetControllerInput, GetControllerOutput, GetFleetStatusInput, GetFleetStatusOutput,
};
use serde_json::json;

use super::bundle::Bundle;
use super::connect::{Access, Connection, Session};
use super::deploy::{Source, source};
use super::{OperateError, words};
use crate::cli::output;
use crate::revision::changes::Changes;
use crate::revision::manifest::{Limits, Manifest};

/// The number of files that are shown to people.
const SHOWN: usize = 200;

#[derive(Debug, Args)]
pub(in crate::cli) struct Diff {
    /// The application's name.
    application: String,
    /// The deployment group's name.
    group: String,
    /// A folder with an appspec.yml, a file (.zip, .tar, .tgz or .tar.gz), or
    /// s3://bucket/key?versionId=…
    revision: String,
    /// The running revision as a folder or a file, if the controller does not hold it.
    #[arg(long, value_name = "PATH")]
    running: Option<PathBuf>,
    /// Leave out files and folders whose names begin with a dot.
    #[arg(long)]
    ignore_hidden_files: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn diff(diff: Diff) -> Result<(), OperateError> {
    let new = source(&diff.revision)?;
    let mut session = diff.connection.open(Access::Reads)?;
    let running = running(&mut session, &diff).await?;
    let old = match (&diff.running, &running.s3_location) {
        (Some(path), _) => Bundle::make(path, diff.ignore_hidden_files)?,
        (None, Some(location)) => fetch(&mut session, location).await?,
        (None, None) => {
            let revision = words::revision(Some(&running));
            return Err(OperateError::NotHeld { revision });
        }
    };
    let (new, location) = match new {
        Source::Path(path) => (Bundle::make(&path, diff.ignore_hidden_files)?, None),
        Source::Object(location) => (fetch(&mut session, &location).await?, Some(location)),
    };
    let changes = Changes::between(
        &read(&old, "the running revision")?,
        &read(&new, &diff.revision)?,
    );
    let new = location.map(|location| RevisionLocation {
        revision_type: Some(RevisionLocationType::S3),
        s3_location: Some(location),
        ..RevisionLocation::default()
    });
    if diff.connection.json {
        let mut document = json!({
            "applicationName": diff.application,
            "deploymentGroupName": diff.group,
            "runningRevision": running,
            "changes": changes,
        });
        if let Some(new) = new {
            document["revision"] = json!(new);
        }
        return Ok(output::show(words::json(&document))?);
    }
    let name = match new {
        Some(new) => words::revision(Some(&new)),
        None => words::plain(&diff.revision),
    };
    let page = format!(
        "{}/{}: {name} in place of {}\n\n{}",
        words::plain(&diff.application),
        words::plain(&diff.group),
        words::revision(Some(&running)),
        page(&changes)
    );
    Ok(output::show(page)?)
}

/// Returns the revision of the group.
async fn running(session: &mut Session, diff: &Diff) -> Result<RevisionLocation, OperateError> {
    let input = GetFleetStatusInput {
        application_name: Some(diff.application.clone()),
        deployment_group_name: Some(diff.group.clone()),
        next_token: None,
    };
    let client = session.client()?;
    let output: GetFleetStatusOutput = client.controller("GetFleetStatus", &input).await?;
    let group = output.groups.into_iter().flatten().next();
    let current = group.and_then(|group| group.current_deployment);
    let revision = current.and_then(|current| current.revision);
    revision.ok_or_else(|| OperateError::NothingRuns {
        group: format!("{}/{}", diff.application, diff.group),
    })
}

/// Fetches an object from the controller.
async fn fetch(session: &mut Session, location: &S3Location) -> Result<Bundle, OperateError> {
    let client = session.client()?;
    let about: GetControllerOutput = client
        .controller("GetController", &GetControllerInput {})
        .await?;
    let bucket = location.bucket.clone().unwrap_or_default();
    if !about.buckets.iter().flatten().any(|held| *held == bucket) {
        let revision = words::revision(Some(&RevisionLocation {
            s3_location: Some(location.clone()),
            ..RevisionLocation::default()
        }));
        return Err(OperateError::NotHeld { revision });
    }
    let (bundle, file) = Bundle::temporary()?;
    let key = location.key.as_deref().unwrap_or_default();
    let version = location
        .version
        .as_deref()
        .filter(|version| *version != "null");
    client.get_object(&bucket, (key, version), file).await?;
    Ok(bundle)
}

fn read(bundle: &Bundle, name: &str) -> Result<Manifest, OperateError> {
    Manifest::read(bundle.file(), Limits::WIDE).map_err(|source| OperateError::Manifest {
        name: name.to_owned(),
        source,
    })
}

fn page(changes: &Changes) -> String {
    let mut page = String::new();
    for change in changes.files.iter().take(SHOWN) {
        let line = change.line();
        let parts: Vec<String> = std::iter::once(line.name).chain(line.details).collect();
        page += &format!("  {:<8} {}\n", line.verb, parts.join(", "));
    }
    let more = changes.files.len().saturating_sub(SHOWN);
    if more > 0 {
        page += &format!("  … and {more} more; --json has all\n");
    }
    page += &format!("{}\n", changes.equality());
    if let Some(problem) = &changes.hooks_problem {
        page += &format!(
            "\nThe hooks cannot be compared: {}\n",
            words::plain(problem)
        );
    }
    if !changes.hooks.is_empty() {
        page += "\nHooks\n";
    }
    for change in &changes.hooks {
        let line = change.line();
        let details = line.details.join(", ");
        page += &format!("  {:<8} {}: {details}\n", line.verb, line.name);
    }
    page
}
