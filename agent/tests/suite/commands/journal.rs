//! `codedeploy-agent journal`, and the next deployment after an interrupted Install.

use std::path::PathBuf;
use std::process::Output;

use super::host::{Host, json, stderr, stdout};

const GROUP: &str = "default-local-deployment-group";

/// A host with one deployment, and its revision.
struct Scene {
    host: Host,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            host: Host::new(""),
        };
        std::fs::create_dir(scene.host.path("revision")).unwrap();
        let app = scene.host.path("app");
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: index\n    destination: {}\n",
            app.display()
        );
        std::fs::write(scene.host.path("revision/appspec.yml"), appspec).unwrap();
        std::fs::write(scene.host.path("revision/index"), "1").unwrap();
        let deployed = scene.deploy();
        assert!(deployed.status.success(), "{deployed:?}");
        scene
    }

    fn deploy(&self) -> Output {
        let revision = self.host.path("revision");
        self.host.run(&[
            "deploy-local",
            "-t",
            "directory",
            "-l",
            revision.to_str().unwrap(),
        ])
    }

    fn journal(&self) -> PathBuf {
        self.host.path(&format!(
            "root/deployment-instructions/{GROUP}-journal.json"
        ))
    }

    /// The complete journal of the deployment's Install.
    fn complete(&self) -> String {
        let deployments = std::fs::read_dir(self.host.path(&format!("root/{GROUP}"))).unwrap();
        let record = deployments
            .map(|entry| entry.unwrap().path().join("undo.json"))
            .find(|path| path.exists());
        std::fs::read_to_string(record.unwrap()).unwrap()
    }
}

#[test]
fn it_says_that_nothing_is_left_to_do() {
    let scene = Scene::new();
    let shown = scene.host.run(&["journal"]);
    assert!(shown.status.success());
    assert_eq!(
        stdout(&shown),
        "No Install was interrupted; there is nothing left to do.\n"
    );
    let shown = scene.host.run(&["journal", "--json"]);
    assert_eq!(
        json(&shown),
        serde_json::json!({ "install_in_progress": false, "unfinished": [], "switches": [] })
    );
}

#[test]
fn it_tells_of_each_way_to_be_interrupted_and_the_next_deployment_ends_it() {
    let scene = Scene::new();
    let complete = scene.complete();
    let begun = complete.lines().next().unwrap().to_owned() + "\n";
    let changing = complete
        .split_inclusive('\n')
        .filter(|line| !line.contains("committed"))
        .collect();
    let ways = [
        (
            begun,
            "ended while new files were being built",
            "roll back",
            "Building",
        ),
        (
            changing,
            "ended after 4 of 4 changes.",
            "roll back",
            "Changing",
        ),
        (
            complete,
            "when all 4 changes were made",
            "roll forward",
            "Finishing",
        ),
    ];
    for (journal, words, recovery, phase) in ways {
        std::fs::write(scene.journal(), journal).unwrap();
        let shown = scene.host.run(&["journal"]);
        assert_eq!(shown.status.code(), Some(1));
        let text = stdout(&shown);
        assert!(
            text.starts_with(&format!("Deployment group {GROUP} (")) && text.contains(words),
            "{text}"
        );
        let document = json(&scene.host.run(&["journal", "--json"]));
        let entry = &document["unfinished"][0];
        assert_eq!(entry["recovery"], recovery, "{document}");
        assert_eq!(
            entry["interrupted_while"],
            phase.to_lowercase(),
            "{document}"
        );
        std::fs::write(scene.host.path("revision/index"), phase).unwrap();
        let deployed = scene.deploy();
        assert!(deployed.status.success(), "{phase}: {deployed:?}");
        assert!(
            stderr(&deployed).contains("was interrupted"),
            "{phase}: {deployed:?}"
        );
        assert!(scene.host.run(&["journal"]).status.success());
        assert_eq!(
            std::fs::read_to_string(scene.host.path("app/index")).unwrap(),
            phase
        );
    }
}

#[test]
fn what_cannot_be_read_is_set_aside_and_what_is_newer_stops_the_group() {
    let scene = Scene::new();
    std::fs::write(scene.journal(), "noise\n").unwrap();
    let shown = scene.host.run(&["journal"]);
    assert!(
        stdout(&shown).contains("is no journal of an Install: line 1"),
        "{shown:?}"
    );
    let deployed = scene.deploy();
    assert!(deployed.status.success(), "{deployed:?}");
    assert!(
        stderr(&deployed).contains("journal.json.unusable-"),
        "{deployed:?}"
    );

    let complete = scene.complete();
    let begun = complete.lines().next().unwrap();
    // Another version may use another checksum.
    let document = &begun[begun.find("\"begun\"").unwrap()..];
    let newer = document.replacen("\"version\":3", "\"version\":7", 1);
    std::fs::write(scene.journal(), format!("{{{newer}\n")).unwrap();
    let deployed = scene.deploy();
    assert!(!deployed.status.success());
    let said = stdout(&deployed) + &stderr(&deployed);
    assert!(
        said.contains("has version 7, and this agent knows version 3"),
        "{said}"
    );
    assert!(scene.journal().exists());
}
