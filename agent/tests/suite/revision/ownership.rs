//! Until a revision is installed it belongs to root: no owner in a bundle can change what root will
//! run.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use codedeploy_hooks::script::{Outcome, Report};
use serde_json::json;

use super::host::Host;

/// A user that every host has, and its number.
const USER: (&str, u32) = ("nobody", 65_534);
const STOP: &str = "hooks:\n  ApplicationStop:\n    - location: scripts/stop.sh\n";

/// A tar in which everything belongs to [`USER`]; only the owner may access the script and its
/// folder.
fn bundle(host: &Host, hooks: &str) -> PathBuf {
    host.revision(hooks, &[]);
    let appspec = fs::read(host.path("revision/appspec.yml")).unwrap();
    let drop = host.path("drop");
    fs::create_dir_all(&drop).unwrap();
    fs::set_permissions(&drop, PermissionsExt::from_mode(0o777)).unwrap();
    let script = format!(
        "#!/bin/sh\ncat \"${{0%/*}}/beside\" >>{}/said\n",
        drop.display()
    );
    let mut tar = tar::Builder::new(File::create(host.path("bundle")).unwrap());
    let mut add = |name: &str, kind, mode, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(USER.1.into());
        header.set_gid(12_345);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data).unwrap();
    };
    add("appspec.yml", tar::EntryType::Regular, 0o664, &appspec);
    add("scripts", tar::EntryType::Directory, 0o700, b"");
    add(
        "scripts/stop.sh",
        tar::EntryType::Regular,
        0o700,
        script.as_bytes(),
    );
    add(
        "scripts/beside",
        tar::EntryType::Regular,
        0o600,
        b"deployed\n",
    );
    add("site", tar::EntryType::Directory, 0o775, b"");
    add("site/page", tar::EntryType::Regular, 0o664, b"page");
    add("site/secret", tar::EntryType::Regular, 0o640, b"secret");
    add("site/tool", tar::EntryType::Regular, 0o4755, b"tool");
    tar.into_inner().unwrap();
    host.path("bundle")
}

fn said(host: &Host) -> String {
    fs::read_to_string(host.path("drop/said")).unwrap_or_default()
}

fn state(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

async fn stop(host: &Host, bundle: &Path) -> Report {
    host.perform("ApplicationStop", "d-2", bundle, &json!({}))
        .await
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_users_bundle_is_roots_until_install_gives_it_to_him_which_needs_root() {
    let host = Host::new();
    let runas = format!(
        "hooks:\n  BeforeInstall:\n    - location: scripts/stop.sh\n      runas: {}\n",
        USER.0
    );
    let bundle = bundle(&host, &runas);
    host.succeed(
        &["DownloadBundle", "BeforeInstall"],
        "d-1",
        &bundle,
        &json!({}),
    )
    .await;
    // The user runs his script, which reads a file that only he may read.
    assert_eq!(said(&host), "deployed\n");
    let archive = host.archive("d-1");
    assert_eq!(state(&archive), (0, 0, 0o755));
    for name in [
        "scripts",
        "scripts/stop.sh",
        "scripts/beside",
        "site",
        "site/page",
        "site/tool",
    ] {
        let (uid, _, mode) = state(&archive.join(name));
        assert_eq!((uid, mode & 0o6022), (0, 0), "{name}");
    }
    // Nobody else may read the files that only he could read.
    assert_eq!(state(&archive.join("scripts/beside")).2 & 0o007, 0);

    host.succeed(&["Install"], "d-1", &bundle, &json!({})).await;
    assert_eq!(state(&host.path("app/page")), (USER.1, 12_345, 0o664));
    assert_eq!(state(&host.path("app/secret")), (USER.1, 12_345, 0o640));
    assert_eq!(state(&host.path("app/tool")), (USER.1, 12_345, 0o4755));
}

#[tokio::test]
#[ignore = "needs root"]
async fn what_a_script_gave_away_in_the_archive_is_installed_so_which_needs_root() {
    let host = Host::new();
    let bundle = bundle(&host, "");
    host.succeed(&["DownloadBundle"], "d-1", &bundle, &json!({}))
        .await;
    let page = host.archive("d-1").join("site/page");
    lchown(&page, Some(1), Some(1)).unwrap();
    fs::set_permissions(
        host.archive("d-1").join("site/secret"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    host.succeed(&["Install"], "d-1", &bundle, &json!({})).await;
    assert_eq!(state(&host.path("app/page")), (1, 1, 0o664));
    assert_eq!(state(&host.path("app/secret")), (USER.1, 12_345, 0o600));
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_next_deployment_does_not_run_what_somebody_else_put_in_the_scripts_place_which_needs_root()
 {
    let host = Host::new();
    let bundle = bundle(&host, STOP);
    let events = ["DownloadBundle", "Install"];
    host.succeed(&events, "d-1", &bundle, &json!({})).await;
    let scripts = host.archive("d-1").join("scripts");

    // An unmodified archive of an earlier version of this agent.
    for path in [&scripts, &scripts.join("stop.sh"), &scripts.join("beside")] {
        lchown(path, Some(USER.1), Some(12_345)).unwrap();
    }
    assert!(stop(&host, &bundle).await.outcome.succeeded());
    assert_eq!(said(&host), "deployed\n");
    assert_eq!(
        state(&scripts).0,
        0,
        "nobody else can exchange the script while it runs"
    );

    // The owner of the folder has replaced it.
    let script = scripts.join("stop.sh");
    fs::write(
        &script,
        format!("#!/bin/sh\nid -un >{}/who\n", host.path("drop").display()),
    )
    .unwrap();
    lchown(&scripts, Some(USER.1), None).unwrap();
    let report = stop(&host, &bundle).await;
    let Outcome::Explained { ending, .. } = &report.outcome else {
        panic!("{}", report.outcome)
    };
    let Outcome::NotStarted { reason, .. } = &**ending else {
        panic!("{ending}")
    };
    assert!(
        reason.contains("scripts/stop.sh is not as it was deployed"),
        "{reason}"
    );
    assert!(
        reason.contains(&format!("scripts belongs to user id {}", USER.1)),
        "{reason}"
    );
    assert!(!host.path("drop/who").exists());

    // He owns only the file.
    lchown(&script, Some(USER.1), None).unwrap();
    assert!(!stop(&host, &bundle).await.outcome.succeeded());
    assert!(!host.path("drop/who").exists());
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_script_that_is_exchanged_after_the_event_was_planned_does_not_run_which_needs_root() {
    let host = Host::new();
    let bundle = bundle(&host, STOP);
    host.succeed(&["DownloadBundle", "Install"], "d-1", &bundle, &json!({}))
        .await;
    let script = host.archive("d-1").join("scripts/stop.sh");
    let exchange = || {
        fs::write(
            &script,
            format!("#!/bin/sh\nid -un >{}/who\n", host.path("drop").display()),
        )
        .unwrap();
        lchown(&script, Some(USER.1), None).unwrap();
    };
    let report = host
        .perform_after("ApplicationStop", "d-2", &bundle, &json!({}), exchange)
        .await;
    assert!(
        report
            .outcome
            .to_string()
            .contains("scripts/stop.sh is not as it was deployed"),
        "{}",
        report.outcome
    );
    assert!(!host.path("drop/who").exists());
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_script_that_root_changed_runs_which_needs_root() {
    let host = Host::new();
    let bundle = bundle(&host, STOP);
    host.succeed(&["DownloadBundle", "Install"], "d-1", &bundle, &json!({}))
        .await;
    let script = host.archive("d-1").join("scripts/stop.sh");
    let drop = host.path("drop");
    fs::write(
        &script,
        format!("#!/bin/sh\necho changed >{}/said\n", drop.display()),
    )
    .unwrap();
    assert!(stop(&host, &bundle).await.outcome.succeeded());
    assert_eq!(said(&host), "changed\n");
    // Without its manifest, as another agent leaves an archive, a revision's scripts run unchecked.
    fs::remove_file(host.deployment("d-1").join(".archive-manifest")).unwrap();
    lchown(&script, Some(USER.1), None).unwrap();
    assert!(stop(&host, &bundle).await.outcome.succeeded());
}
