//! DownloadBundle: fetches and unpacks the revision beside its final folder, and publishes it there
//! when it is complete.

use std::pin::pin;
use std::time::Instant;

use codedeploy_hooks::script::Report;
use tokio::sync::oneshot;

use super::reports::succeeded;
use super::slots::placed;
use super::{CommandError, Host, appspec, blocking, reuse};
use crate::deployment_root::{DeploymentFolder, INCOMING, Pointer, create_folders};
use crate::revision::archive::{self, Bundle};
use crate::revision::digest::Digests;
use crate::revision::manifest;
use crate::revision::{FetchedBundle, Revision, fetch};
use crate::spec::DeploymentSpec;
use crate::telemetry::milliseconds_since;
use codedeploy_api::chain::Chain;

/// Creates the deployment's archive. A rename publishes it, so later events never see a partial
/// one.
pub(super) async fn download(host: &Host, spec: &DeploymentSpec) -> Result<Report, CommandError> {
    let folder = host.folder(spec);
    make_room(host, spec, &folder).await?;
    let brought = bring(host, spec, &folder).await;
    let (store, group) = (host.store.clone(), spec.deployment_group_id.clone());
    let source = blocking(move || {
        if brought.is_err() {
            store.clear_incoming(&folder)?;
        }
        let source = brought?;
        store.point(&group, Pointer::MostRecent, &folder)?;
        Ok::<_, CommandError>(source)
    });
    Ok(succeeded(Some(&format!("BundleSource={}", source.await??))))
}

/// Removes the group's oldest deployments, and creates an empty folder for this one.
async fn make_room(
    host: &Host,
    spec: &DeploymentSpec,
    folder: &DeploymentFolder,
) -> Result<(), CommandError> {
    let keep = host.settings.max_revisions;
    let reuses = host.is_deployed_again(spec);
    let (store, spec, folder) = (host.store.clone(), spec.clone(), folder.clone());
    blocking(move || {
        let wanted = spec.reuse_archive_from.as_ref().filter(|_| reuses);
        let earlier = wanted.and_then(|from| reuse::folder(from, &store, &spec));
        let mut needed = placed::tenants(&store, &spec.deployment_group_id);
        needed.extend(earlier);
        store.prune(&spec.deployment_group_id, &folder, &needed, keep)?;
        Ok(store.create(&folder)?)
    })
    .await?
}

/// Makes the deployment's archive; returns its source.
async fn bring(
    host: &Host,
    spec: &DeploymentSpec,
    folder: &DeploymentFolder,
) -> Result<&'static str, CommandError> {
    let mut digests = Digests::default();
    let reused = reused(host, spec, folder).await?;
    let source = if reused {
        "archive-reuse"
    } else {
        digests = fetch_and_unpack(host, spec, folder).await?;
        "downloaded"
    };
    let (store, folder) = (host.store.clone(), folder.clone());
    let named = spec.appspec_filename.clone();
    blocking(move || {
        let archive = folder.incoming_archive();
        // The message names the final path of the archive.
        appspec::find(&archive, &named).map_err(|error| error.in_archive(&folder.archive(), &named))?;
        let written = if reused {
            Ok(())
        } else {
            manifest::write(&archive, &folder.manifest(), &digests)
        };
        match written {
            // A user other than root may be unable to read the files of the bundle, and has nothing
            // to guard.
            Err(error) if !rustix::process::geteuid().is_root() => {
                tracing::warn!(reason = %Chain(&error), "no restart will be able to use this archive again");
            }
            written => written.and_then(|()| manifest::hold(&archive, &folder.manifest()))?,
        }
        Ok(store.publish(&folder)?)
    })
    .await?
    .map(|()| source)
}

/// Whether an earlier deployment's archive now replaces the download.
async fn reused(
    host: &Host,
    spec: &DeploymentSpec,
    folder: &DeploymentFolder,
) -> Result<bool, CommandError> {
    let Some(from) = spec.reuse_archive_from.clone() else {
        return Ok(false);
    };
    if !host.settings.enable_archive_reuse {
        tracing::info!("enable_archive_reuse is off; the revision is downloaded");
        return Ok(false);
    }
    let (store, spec, folder) = (host.store.clone(), spec.clone(), folder.clone());
    Ok(blocking(move || reuse::reuse(&from, &store, &spec, &folder)).await?)
}

/// Fetches the bundle and unpacks it, a tar while it arrives. Nothing is unpacked after this.
async fn fetch_and_unpack(
    host: &Host,
    spec: &DeploymentSpec,
    folder: &DeploymentFolder,
) -> Result<Digests, CommandError> {
    let (arriving, arrived) = oneshot::channel();
    let (access, settings) = (host.access.as_ref(), &host.settings);
    let mut fetching = pin!(fetch(&spec.revision, folder, access, settings, arriving));
    let mut following = pin!(async {
        let (bundle, kind) = arrived.await.ok()?;
        Some(unpack(host, spec, folder, bundle, kind).await)
    });
    let mut followed = None;
    let fetched = loop {
        tokio::select! {
            fetched = &mut fetching => break fetched,
            // A bundle that is refused is not downloaded any further.
            unpacked = &mut following, if followed.is_none() => {
                followed = Some(unpacked.transpose()?);
            }
        }
    };
    // A download that fails ends its reader, and is the cause to report.
    let followed = match followed {
        Some(digests) => Ok(digests),
        None => following.await.transpose(),
    };
    let FetchedBundle::File { file, bundle_type } = fetched? else {
        return Ok(Digests::default());
    };
    host.measure(|metrics| {
        let bytes = file.metadata().map_or(0, |found| found.len());
        match spec.revision {
            Revision::S3(_) => metrics.downloaded("s3", bytes),
            Revision::GitHub(_) => metrics.downloaded("github", bytes),
            Revision::Local(_) => {}
        }
    });
    match followed? {
        Some(digests) => Ok(digests),
        None => unpack(host, spec, folder, file.into(), bundle_type).await,
    }
}

async fn unpack(
    host: &Host,
    spec: &DeploymentSpec,
    folder: &DeploymentFolder,
    bundle: Bundle,
    kind: archive::BundleType,
) -> Result<Digests, CommandError> {
    let hardening = &host.settings.hardening;
    let limits = archive::Limits {
        max_extracted_bytes: hardening.archive_max_extraction_size,
        reject_symlinks: hardening.reject_symlinks,
        reject_unsafe_permissions: hardening.reject_unsafe_permissions,
        ignore_ownership: hardening.ignore_ownership,
    };
    let (target, names) = (
        folder.incoming_archive(),
        appspec::file_names(&spec.appspec_filename),
    );
    let began = Instant::now();
    blocking(move || {
        create_folders(&target, INCOMING)?;
        let (unpacked, digests) = archive::unpack(&bundle, kind, &target, &limits)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        archive::flatten_single_folder(&target, &names)?;
        let duration_ms = milliseconds_since(began);
        tracing::info!(
            duration_ms,
            entries = unpacked.entries,
            bytes = unpacked.bytes,
            "bundle unpacked"
        );
        Ok(digests)
    })
    .await?
}
