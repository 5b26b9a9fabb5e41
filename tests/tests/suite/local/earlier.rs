//! The state of an earlier deployment by any agent: this host continues from it.

use std::fs;

use codedeploy_tests::bundle;

use super::machine::Machine;

impl Machine {
    /// Makes the folders and records of a deployment to `group` by AWS's agent.
    fn deployed_before(&self, group: &str, files: &[(&str, &str)]) {
        let deployment = self.path(&format!("root/{group}/d-EARLIER00"));
        let instructions = self.path("root/deployment-instructions");
        fs::create_dir_all(&instructions).unwrap();
        bundle::write(&deployment.join("deployment-archive"), files);
        for pointer in ["last_successful_install", "most_recent_install"] {
            fs::write(
                instructions.join(format!("{group}_{pointer}")),
                deployment.display().to_string(),
            )
            .unwrap();
        }
        fs::write(instructions.join(format!("{group}-cleanup")), "").unwrap();
    }

    fn stopping(&self, group: &str) -> String {
        format!(
            "#!/bin/sh\necho stopped >> {}\n",
            self.path(&format!("stopped.{group}")).display()
        )
    }
}

#[tokio::test]
async fn an_earlier_appspec_that_would_be_refused_now_keeps_no_deployment_from_succeeding() {
    let machine = Machine::new();
    let revision = machine.revision("two");
    let stop = "hooks:\n  ApplicationStop:\n    - location: stop.sh\n";
    let head = "version: 0.0\nos: linux\n";
    let cases = [
        ("timeout", format!("{head}{stop}      timeout: 5m\n"), true),
        (
            "version",
            format!("version: '0.0'\nos: Linux\n{stop}"),
            true,
        ),
        (
            "files",
            format!("{head}files:\n  - source: ../x\n    destination: srv\n{stop}"),
            true,
        ),
        (
            "permissions",
            format!("{head}permissions:\n  - mode: 999\n{stop}"),
            true,
        ),
        ("twice", format!("{head}hooks:\n{stop}"), true),
        (
            "other",
            format!("{head}{stop}    - nothing\n  AfterInstall: text\n"),
            true,
        ),
        ("broken", format!("{head}{stop}\t: [\n"), false),
        ("noise", "\u{feff}}".to_owned(), false),
    ];
    for (group, appspec, runs) in cases {
        machine.deployed_before(
            group,
            &[
                ("appspec.yml", &appspec),
                ("stop.sh", &machine.stopping(group)),
            ],
        );
        let ran = machine
            .deploy(&[
                "-l",
                revision.to_str().unwrap(),
                "-g",
                group,
                "-b",
                "OVERWRITE",
            ])
            .await;
        assert!(ran.succeeded, "{group}: {}", ran.everything());
        let warned = ran.everything().matches("would be refused now").count();
        assert_eq!(warned, 1, "{group}: {}", ran.everything());
        let stopped =
            fs::read_to_string(machine.path(&format!("stopped.{group}"))).unwrap_or_default();
        assert_eq!(
            stopped,
            if runs { "stopped\n" } else { "" },
            "{group}: {}",
            ran.everything()
        );
    }
}

#[tokio::test]
async fn a_broken_script_of_the_earlier_revision_is_called_that_and_there_is_a_way_out() {
    let machine = Machine::new();
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStop:\n    - location: stop.sh\n";
    machine.deployed_before("missing", &[("appspec.yml", appspec)]);
    machine.deployed_before(
        "failing",
        &[("appspec.yml", appspec), ("stop.sh", "#!/bin/sh\nexit 3\n")],
    );
    let revision = machine.revision("two");
    let revision = revision.to_str().unwrap();
    for (group, what) in [
        ("missing", "does not exist"),
        ("failing", "failed with exit code 3"),
    ] {
        let ran = machine.deploy(&["-l", revision, "-g", group]).await;
        assert!(
            !ran.succeeded && ran.events().last() == Some(&"ApplicationStop"),
            "{}",
            ran.everything()
        );
        for words in [
            what,
            "one of the earlier deployment d-EARLIER00",
            "--ignore-application-stop-failures",
        ] {
            assert!(ran.stdout.contains(words), "{words}: {}", ran.everything());
        }
        let ran = machine
            .deploy(&[
                "-l",
                revision,
                "-g",
                group,
                "-e",
                "DownloadBundle,Install",
                "-b",
                "OVERWRITE",
            ])
            .await;
        assert!(ran.succeeded, "{}", ran.everything());
    }
}
