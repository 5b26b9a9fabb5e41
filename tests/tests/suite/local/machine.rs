//! A machine of its own for each test of `codedeploy-local`, and the output of a deployment on it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use codedeploy_tests::bundle;
use codedeploy_tests::programs::Programs;

/// A machine: a folder for state, one for what is deployed, one for the revision.
pub(crate) struct Machine {
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) struct Ran {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) const DEFAULT_ORDER: [&str; 11] = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        // Hooks of other users must be able to reach the deployed folder.
        fs::set_permissions(machine.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = machine.path("root");
        fs::write(
            machine.path("conf.yml"),
            format!("root_dir: {}\n", root.display()),
        )
        .unwrap();
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn app(&self) -> String {
        self.path("app").display().to_string()
    }

    /// Writes a revision that installs `page` and whose scripts record their event.
    pub(crate) fn revision(&self, page: &str) -> PathBuf {
        let folder = self.path("revision");
        let _ = fs::remove_dir_all(&folder);
        let note = format!(
            "#!/bin/sh\necho \"$LIFECYCLE_EVENT\" >> {}\n",
            self.path("events").display()
        );
        let mut appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: site\n    destination: {}\nhooks:\n",
            self.app()
        );
        for event in DEFAULT_ORDER
            .into_iter()
            .filter(|event| !["DownloadBundle", "Install"].contains(event))
        {
            appspec += &format!("  {event}:\n    - location: note.sh\n");
        }
        bundle::write(
            &folder,
            &[
                ("appspec.yml", &appspec),
                ("note.sh", &note),
                ("site/index.html", page),
                ("site/deep/er/page.html", "deep"),
            ],
        );
        folder
    }

    pub(crate) async fn deploy(&self, arguments: &[&str]) -> Ran {
        let configuration = self.path("conf.yml");
        let configuration = ["-c", configuration.to_str().unwrap()];
        ran(Programs::built()
            .local
            .output(arguments.iter().chain(&configuration))
            .await)
    }
}

pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        succeeded: output.status.success(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

impl Ran {
    pub(crate) fn events(&self) -> Vec<&str> {
        let line =
            |line: &'_ str| line.contains(" succeeded in ") || line.contains(" failed after ");
        self.stdout
            .lines()
            .filter(|text| line(text))
            .filter_map(|line| line.split_whitespace().next())
            .collect()
    }

    pub(crate) fn everything(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}
