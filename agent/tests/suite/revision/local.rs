//! Revisions on the host itself, and the remains of an interrupted attempt.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::host::{Host, is_root, make_fifo, picture};

#[tokio::test]
async fn a_folder_is_copied_as_cp_does_it() {
    let host = Host::new();
    let revision = host.revision("", &[("site/a", "a"), ("site/deep/b", "b")]);
    symlink("/no/such", revision.join("site/link")).unwrap();
    for (name, mode) in [
        ("site/a", 0o666),
        ("site/deep", 0o777),
        ("site/deep/b", 0o400),
    ] {
        fs::set_permissions(revision.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    if is_root() {
        std::os::unix::fs::chown(revision.join("site/a"), Some(1000), Some(1000)).unwrap();
    }
    host.succeed(&["DownloadBundle"], "d-1", &revision, &json!({}))
        .await;

    #[allow(clippy::disallowed_methods, reason = "cp is the oracle of this test")]
    let mut cp = std::process::Command::new("cp");
    assert!(
        cp.arg("-r")
            .arg(&revision)
            .arg(host.path("copied"))
            .status()
            .unwrap()
            .success()
    );
    let without_times = |folder| {
        let mut picture = picture(folder);
        picture.values_mut().for_each(|state| state.3 = 0);
        picture
    };
    assert_eq!(
        without_times(&host.archive("d-1")),
        without_times(&host.path("copied"))
    );
    assert_eq!(
        fs::read(host.deployment("d-1").join(".bundle-source")).unwrap(),
        b"downloaded"
    );
}

#[tokio::test]
async fn what_a_revision_cannot_hold_is_refused_by_name_and_nothing_is_left() {
    let host = Host::new();
    let revision = host.revision("", &[("site/a", "a")]);
    for (name, found) in [("site/pipe", "a FIFO"), ("site/sock", "a socket")] {
        let path = revision.join(name);
        let _listener = match found {
            "a FIFO" => {
                make_fifo(&path);
                None
            }
            _ => Some(UnixListener::bind(&path).unwrap()),
        };
        let report = host
            .perform("DownloadBundle", "d-1", &revision, &json!({}))
            .await;
        let message = report.outcome.to_string();
        assert!(
            message.contains(name) && message.contains(found),
            "{message}"
        );
        assert_eq!(picture(&host.deployment("d-1")).len(), 0);
        fs::remove_file(path).unwrap();
    }
    let fifo = host.path("bundle.tar");
    make_fifo(&fifo);
    let report = host
        .perform("DownloadBundle", "d-1", &fifo, &json!({}))
        .await;
    assert!(
        report.outcome.to_string().contains("is not a regular file"),
        "{}",
        report.outcome
    );
}

#[tokio::test]
async fn the_agents_own_state_below_a_deployed_folder_is_not_deployed() {
    let host = Host::new();
    let revision = host.revision("", &[("site/a", "a")]);
    fs::rename(revision.join("appspec.yml"), host.path("appspec.yml")).unwrap();
    for id in ["d-1", "d-2"] {
        host.succeed(&["DownloadBundle"], id, host.folder.path(), &json!({}))
            .await;
        assert!(host.archive(id).join("revision/site/a").exists());
        assert!(!host.archive(id).join("root").exists());
    }
}

#[tokio::test]
async fn a_folders_set_id_and_sticky_bits_are_kept() {
    let host = Host::new();
    let revision = host.revision(
        "",
        &[
            ("site/tool", "x"),
            ("site/shared/a", "a"),
            ("site/plain", "x"),
        ],
    );
    let chmod = |name: &str, mode| {
        fs::set_permissions(
            revision.join(name),
            std::os::unix::fs::PermissionsExt::from_mode(mode),
        )
        .unwrap();
    };
    chmod("site/tool", 0o4755);
    chmod("site/shared", 0o3755);
    host.succeed(&["DownloadBundle", "Install"], "d-1", &revision, &json!({}))
        .await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(host.archive("d-1").join("site/tool")), 0o4755);
    assert_eq!(mode(host.archive("d-1").join("site/shared")), 0o3755);
    assert_eq!(mode(host.archive("d-1").join("site/plain")), 0o644);
    assert_eq!(mode(host.path("app/tool")), 0o4755);
}

#[tokio::test]
async fn what_an_interrupted_attempt_left_is_no_revision_and_goes() {
    let host = Host::new();
    let revision = host.revision(
        "hooks:\n  ApplicationStop:\n    - location: x.sh\n",
        &[("site/a", "a")],
    );
    let folder = host.deployment("d-1");
    fs::create_dir_all(folder.join(".deployment-archive.incoming/half")).unwrap();
    fs::write(folder.join(".bundle.tar.incoming"), "half").unwrap();
    // There is no archive yet: the event belongs to the last successful deployment, and there is
    // none.
    host.succeed(&["ApplicationStop"], "d-1", &revision, &json!({}))
        .await;
    host.succeed(
        &["DownloadBundle", "DownloadBundle"],
        "d-1",
        &revision,
        &json!({}),
    )
    .await;
    assert!(!folder.join(".deployment-archive.incoming").exists());
    assert!(!folder.join(".bundle.tar.incoming").exists());
    assert!(host.archive("d-1").join("site/a").exists());
    assert_eq!(
        fs::metadata(host.archive("d-1")).unwrap().mode() & 0o7777,
        0o755
    );
}

/// A small file system that ends with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    #[allow(clippy::disallowed_methods, reason = "tests start programs")]
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted = mount
            .args(["-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    #[allow(clippy::disallowed_methods, reason = "tests start programs")]
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_full_disk_leaves_no_archive_and_the_earlier_deployment_which_needs_root() {
    let host = Host::new();
    let _disk = SmallDisk::mount(&host.path("root")).expect("a small disk can be mounted");
    let revision = host.revision("", &[("site/a", "a")]);
    host.succeed(&["DownloadBundle", "Install"], "d-1", &revision, &json!({}))
        .await;
    // A folder's size is unknown in advance: the copy fills the disk.
    fs::write(revision.join("site/big"), vec![7; 4 << 20]).unwrap();
    let report = host
        .perform("DownloadBundle", "d-2", &revision, &json!({}))
        .await;
    let message = report.outcome.to_string();
    assert!(
        message.contains("site/big") && message.contains("No space left"),
        "{message}"
    );
    assert!(!host.archive("d-2").exists());
    assert!(
        !host
            .deployment("d-2")
            .join(".deployment-archive.incoming")
            .exists()
    );
    let pointer = fs::read_to_string(host.instructions("_most_recent_install")).unwrap();
    assert_eq!(pointer, host.deployment("d-1").to_str().unwrap());
    fs::remove_file(revision.join("site/big")).unwrap();
    host.succeed(&["DownloadBundle", "Install"], "d-2", &revision, &json!({}))
        .await;
}
