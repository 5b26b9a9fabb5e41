//! A host on which AWS's agent ran before, 1.8.1 or 2.1: this agent reads its files, and writes
//! files of the same form.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::host::{Host, make_fifo};

const EVENTS: [&str; 3] = ["ApplicationStop", "DownloadBundle", "Install"];

/// A host in the state in which this version of the official agent left it after its deployment
/// d-OLD000001.
fn left_by(version: &str) -> Host {
    let host = Host::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(version);
    copy(&fixture.join("deployment-root"), &host.path("root"), &host);
    fs::create_dir_all(host.path("app/old")).unwrap();
    fs::write(host.path("app/index.html"), "old").unwrap();
    fs::write(host.path("app/old/gone.txt"), "gone").unwrap();
    fs::write(host.path("app/operator.txt"), "mine").unwrap();
    host
}

/// Copies a fixture; `@ROOT@` and `@APP@` in it stand for the host's folders.
fn copy(from: &Path, to: &Path, host: &Host) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, host);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("@ROOT@", host.path("root").to_str().unwrap());
        fs::write(
            target,
            text.replace("@APP@", host.path("app").to_str().unwrap()),
        )
        .unwrap();
    }
}

fn next_revision(host: &Host) -> PathBuf {
    host.revision(
        "",
        &[("site/index.html", "new"), ("site/more/page", "page")],
    )
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn the_next_deployment_stops_cleans_up_and_installs_as_if_it_had_always_been_ours() {
    for version in ["1.8.1", "2.1"] {
        let host = left_by(version);
        host.succeed(&EVENTS, "d-NEW000001", &next_revision(&host), &json!({}))
            .await;
        assert_eq!(
            text(host.path("app.log")),
            "stopped by d-NEW000001\n",
            "{version}"
        );
        assert_eq!(text(host.path("app/index.html")), "new");
        assert_eq!(text(host.path("app/operator.txt")), "mine");
        assert!(
            !host.path("app/old").exists(),
            "{version}: what the earlier Install created is gone"
        );
    }
}

#[tokio::test]
async fn what_we_leave_is_what_the_official_agents_write() {
    let host = left_by("1.8.1");
    let app = host.path("app").display().to_string();
    host.succeed(&EVENTS, "d-NEW000001", &next_revision(&host), &json!({}))
        .await;
    let folder = host.deployment("d-NEW000001").display().to_string();
    for pointer in ["_last_successful_install", "_most_recent_install"] {
        assert_eq!(text(host.instructions(pointer)), folder);
    }
    // The folder stayed because of the operator's file; then it is not ours to remove.
    let cleanup = text(host.instructions("-cleanup"));
    let mut lines: Vec<&str> = cleanup.lines().filter(|line| *line != app).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            format!("{app}/index.html"),
            format!("{app}/more"),
            format!("{app}/more/page")
        ]
    );
    assert!(cleanup.ends_with('\n'));
    let position = |path: &str| cleanup.find(&format!("{path}\n"));
    assert!(
        position("/more") < position("/more/page"),
        "in the order of creation: {cleanup}"
    );

    let instructions: Value =
        serde_json::from_str(&text(host.instructions("-install.json"))).unwrap();
    for instruction in instructions["instructions"].as_array().unwrap() {
        let mut keys: Vec<&str> = instruction
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        match instruction["type"].as_str().unwrap() {
            "copy" => assert_eq!(keys, ["destination", "source", "type"]),
            "mkdir" => assert_eq!(keys, ["directory", "type"]),
            other => panic!("{other} was not asked for"),
        }
    }
    assert!(host.archive("d-NEW000001").join("appspec.yml").is_file());
    assert_eq!(
        text(host.deployment("d-NEW000001").join(".bundle-source")),
        "downloaded"
    );
}

#[tokio::test]
async fn a_state_file_that_is_no_use_is_set_aside_and_the_deployment_goes_on() {
    type Spoil = fn(&Path);
    let spoilt: [(&str, Spoil); 8] = [
        ("empty", |path| fs::write(path, "").unwrap()),
        ("truncated", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("noise", |path| {
            fs::write(path, [vec![0xfe; 10 << 20], vec![b'\n']].concat()).unwrap()
        }),
        ("a path too long", |path| {
            fs::write(path, format!("/{}\n", "n".repeat(300))).unwrap()
        }),
        ("NUL", |path| fs::write(path, "/a\0b\n").unwrap()),
        ("upwards", |path| fs::write(path, "/../../etc\n").unwrap()),
        ("a folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir_all(path.join("full")).unwrap();
        }),
        ("a FIFO", |path| {
            fs::remove_file(path).unwrap();
            make_fifo(path);
        }),
    ];
    for name in [
        "_last_successful_install",
        "_most_recent_install",
        "-install.json",
        "-cleanup",
    ] {
        for (how, spoil) in spoilt {
            let host = left_by("2.1");
            spoil(&host.instructions(name));
            // Without its cleanup file, the files of the earlier Install conflict.
            let more = json!({
                "AgentActionOverrides": {"AgentOverrides": {"FileExistsBehavior": "OVERWRITE"}},
                "DeploymentCreator": "codeDeployRollback", "DeploymentType": "BLUE_GREEN"});
            let events = [
                "BeforeBlockTraffic",
                "ApplicationStop",
                "DownloadBundle",
                "Install",
            ];
            host.succeed(&events, "d-NEW000001", &next_revision(&host), &more)
                .await;
            assert_eq!(text(host.path("app/index.html")), "new", "{name} {how}");
            assert_eq!(text(host.path("app/operator.txt")), "mine", "{name} {how}");
            assert!(host.instructions(name).is_file(), "{name} {how}");
            let beside = fs::read_dir(host.path("root/deployment-instructions"))
                .unwrap()
                .count();
            let harmless = ["empty", "truncated"].contains(&how);
            assert!(harmless || beside > 4, "{name} {how}: it was not kept");
        }
    }
}

#[tokio::test]
async fn a_pointer_that_became_a_folder_is_set_aside_by_who_writes_it() {
    let host = left_by("1.8.1");
    let pointer = host.instructions("_most_recent_install");
    fs::remove_file(&pointer).unwrap();
    fs::create_dir_all(pointer.join("full")).unwrap();
    host.succeed(&EVENTS, "d-NEW000001", &next_revision(&host), &json!({}))
        .await;
    assert_eq!(
        text(pointer),
        host.deployment("d-NEW000001").to_str().unwrap()
    );
}
