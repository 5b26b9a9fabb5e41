//! RESTART deployments: an archive is reused if it is unchanged, and downloaded otherwise.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::host::{GROUP, Host, is_root, make_fifo, picture};

const HOOKS: &str = "hooks:\n  BeforeInstall:\n    - location: site/run.sh\n";

/// A tar with owners, times, links and a script that is not executable.
fn bundle(host: &Host) -> PathBuf {
    host.revision(HOOKS, &[]);
    let appspec = fs::read(host.path("revision/appspec.yml")).unwrap();
    let mut tar = tar::Builder::new(File::create(host.path("bundle")).unwrap());
    let mut add = |name: &str, kind, mode, data: &[u8], link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        let (uid, gid) = if is_root() { (1000, 1001) } else { own() };
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, name, data).unwrap();
    };
    add("appspec.yml", tar::EntryType::Regular, 0o644, &appspec, "");
    add("site", tar::EntryType::Directory, 0o750, b"", "");
    add(
        "site/run.sh",
        tar::EntryType::Regular,
        0o664,
        b"#!/bin/sh\nexit 0\n",
        "",
    );
    add("site/page", tar::EntryType::Regular, 0o640, b"page", "");
    add("site/same", tar::EntryType::Link, 0o640, b"", "site/page");
    // The later one replaces the earlier one, and may get its inode.
    add("site/twice", tar::EntryType::Regular, 0o640, b"once", "");
    add("site/twice", tar::EntryType::Regular, 0o640, b"again", "");
    add(
        "site/away",
        tar::EntryType::Symlink,
        0o777,
        b"",
        "/no/such place",
    );
    tar.into_inner().unwrap();
    host.path("bundle")
}

fn own() -> (u64, u64) {
    (
        nix::unistd::geteuid().as_raw().into(),
        nix::unistd::getegid().as_raw().into(),
    )
}

fn from(id: &str) -> Value {
    json!({"ReuseArchiveFromDeploymentId": id})
}

#[tokio::test]
async fn an_archive_is_used_again_with_everything_it_holds_also_after_its_scripts_have_run() {
    let host = Host::new();
    let bundle = bundle(&host);
    let events = ["DownloadBundle", "BeforeInstall", "Install"];
    host.succeed(&events, "d-1", &bundle, &json!({})).await;
    fs::write(host.deployment("d-1").join(".bundle-etag"), "\"abc\"").unwrap();
    // The download would fail.
    fs::write(&bundle, "").unwrap();

    let arn = from("arn:aws:codedeploy:us-east-1:123456789012:deployment/d-1");
    let note = host
        .succeed(&["DownloadBundle"], "d-2", &bundle, &arn)
        .await;
    assert_eq!(note, "BundleSource=archive-reuse");
    assert_eq!(picture(&host.archive("d-2")), picture(&host.archive("d-1")));
    let script = host.archive("d-2").join("site/run.sh").metadata().unwrap();
    // Root owns the scripts that it runs; nobody else can write to them.
    let (mode, owner) = if is_root() {
        (0o755, 0)
    } else {
        (0o775, script.uid())
    };
    assert_eq!(
        (script.mode() & 0o7777, script.mtime(), script.uid()),
        (mode, 1_000_000_000, owner)
    );
    let text = |name: &str| fs::read_to_string(host.deployment("d-2").join(name)).unwrap();
    assert_eq!(
        (
            text(".bundle-source").as_str(),
            text(".bundle-etag").as_str()
        ),
        ("archive-reuse", "abc")
    );
    host.succeed(&["BeforeInstall", "Install"], "d-2", &bundle, &arn)
        .await;
    // A copy can be copied again.
    assert_eq!(
        host.succeed(&["DownloadBundle"], "d-3", &bundle, &from("d-2"))
            .await,
        "BundleSource=archive-reuse"
    );
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_script_among_the_installed_files_keeps_its_owner_which_needs_root() {
    let host = Host::new();
    let bundle = bundle(&host);
    host.succeed(
        &["DownloadBundle", "BeforeInstall", "Install"],
        "d-1",
        &bundle,
        &json!({}),
    )
    .await;
    let script = host.path("app/run.sh").metadata().unwrap();
    assert_eq!(
        (script.uid(), script.gid(), script.mode() & 0o7777),
        (1000, 1001, 0o775)
    );
}

/// Writes a deployment's manifest as earlier versions of the agent did.
fn as_before(host: &Host, id: &str) {
    let manifest = host.deployment(id).join(".archive-manifest");
    let text = fs::read(&manifest).unwrap();
    let mut records = text
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty());
    assert_eq!(
        records.next().unwrap(),
        b"codedeploy-agent archive manifest 2"
    );
    let mut before = b"codedeploy-agent archive manifest 1\0".to_vec();
    for record in records {
        let record = std::str::from_utf8(record).unwrap();
        let [kind, mode, owner, size, _, path] = record.splitn(6, ' ').collect::<Vec<_>>()[..]
        else {
            panic!("{record}");
        };
        let path_here = host.archive(id).join(path);
        let digest = match kind {
            "folder" => "-".to_owned(),
            "link" => sha256(fs::read_link(path_here).unwrap().as_os_str().as_bytes()),
            _ => sha256(&fs::read(path_here).unwrap()),
        };
        before.extend(format!("{kind} {mode} {owner} {size} {digest} {path}\0").into_bytes());
    }
    fs::write(manifest, before).unwrap();
}

fn sha256(content: &[u8]) -> String {
    hex::encode(digest(&SHA256, content))
}

#[tokio::test]
async fn an_archive_that_an_earlier_version_unpacked_is_used_again() {
    let host = Host::new();
    let bundle = bundle(&host);
    host.succeed(&["DownloadBundle"], "d-1", &bundle, &json!({}))
        .await;
    as_before(&host, "d-1");
    host.succeed(&["BeforeInstall", "Install"], "d-1", &bundle, &json!({}))
        .await;
    for (id, earlier) in [("d-2", "d-1"), ("d-3", "d-2")] {
        let events = ["DownloadBundle", "BeforeInstall", "Install"];
        host.succeed(&events, id, &bundle, &from(earlier)).await;
        let source = host.deployment(id).join(".bundle-source");
        assert_eq!(fs::read_to_string(source).unwrap(), "archive-reuse", "{id}");
    }
    fs::write(host.archive("d-1").join("site/page"), "PAGE").unwrap();
    let note = host
        .succeed(&["DownloadBundle"], "d-4", &bundle, &from("d-1"))
        .await;
    assert_eq!(note, "BundleSource=downloaded");
}

#[tokio::test]
async fn whatever_is_wrong_with_the_archive_or_its_name_means_a_download() {
    type Spoil = fn(&Path);
    let cases: [(&str, Value, Spoil); 15] = [
        (
            "a number",
            json!({"ReuseArchiveFromDeploymentId": 7}),
            |_| {},
        ),
        ("a path", from("../d-1"), |_| {}),
        ("an empty text", from(""), |_| {}),
        ("itself", from("d-2"), |_| {}),
        ("unknown", from("d-9"), |_| {}),
        ("content", from("d-1"), |path| {
            fs::write(path.join("deployment-archive/site/page"), "PAGE").unwrap();
        }),
        ("mode", from("d-1"), |path| {
            let page = path.join("deployment-archive/site/page");
            fs::set_permissions(page, PermissionsExt::from_mode(0o604)).unwrap();
        }),
        ("added", from("d-1"), |path| {
            fs::write(path.join("deployment-archive/new"), "").unwrap();
        }),
        ("gone", from("d-1"), |path| {
            fs::remove_file(path.join("deployment-archive/site/away")).unwrap();
        }),
        ("a fifo in it", from("d-1"), |path| {
            make_fifo(&path.join("deployment-archive/fifo"))
        }),
        ("no manifest", from("d-1"), |path| {
            fs::remove_file(path.join(".archive-manifest")).unwrap()
        }),
        ("noise", from("d-1"), |path| {
            fs::write(path.join(".archive-manifest"), vec![0xfe; 10 << 20]).unwrap();
        }),
        ("truncated", from("d-1"), |path| {
            let manifest = path.join(".archive-manifest");
            let text = fs::read(&manifest).unwrap();
            fs::write(&manifest, &text[..text.len() - 9]).unwrap();
        }),
        ("a folder", from("d-1"), |path| {
            fs::remove_file(path.join(".archive-manifest")).unwrap();
            fs::create_dir(path.join(".archive-manifest")).unwrap();
        }),
        ("a fifo", from("d-1"), |path| {
            fs::remove_file(path.join(".archive-manifest")).unwrap();
            make_fifo(&path.join(".archive-manifest"));
        }),
    ];
    let host = Host::new();
    let bundle = bundle(&host);
    for (name, more, spoil) in cases {
        host.succeed(&["DownloadBundle"], "d-1", &bundle, &json!({}))
            .await;
        spoil(&host.deployment("d-1"));
        let note = host
            .succeed(&["DownloadBundle"], "d-2", &bundle, &more)
            .await;
        assert_eq!(note, "BundleSource=downloaded", "{name}");
        assert_eq!(
            fs::read(host.archive("d-2").join("site/page")).unwrap(),
            b"page",
            "{name}"
        );
        assert!(
            !host
                .deployment("d-2")
                .join(".deployment-archive.incoming")
                .exists(),
            "{name}"
        );
    }
    let mut host = host;
    host.settings.enable_archive_reuse = false;
    host.succeed(&["DownloadBundle"], "d-1", &bundle, &json!({}))
        .await;
    let note = host
        .succeed(&["DownloadBundle"], "d-2", &bundle, &from("d-1"))
        .await;
    assert_eq!(note, "BundleSource=downloaded");
}

#[tokio::test]
async fn the_deployment_that_is_used_again_is_not_the_one_that_is_cleaned_up() {
    let mut host = Host::new();
    host.settings.max_revisions = 1;
    let bundle = bundle(&host);
    host.succeed(&["DownloadBundle"], "d-1", &bundle, &json!({}))
        .await;
    let note = host
        .succeed(&["DownloadBundle"], "d-2", &bundle, &from("d-1"))
        .await;
    assert_eq!(note, "BundleSource=archive-reuse");
    assert!(host.path("root").join(GROUP).join("d-1").exists());
}
