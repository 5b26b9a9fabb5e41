//! A Debian system with its own systemd, a service and a bucket for it, and packages to install
//! there.

use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::types::{BundleType, RevisionLocation};
use codedeploy_tests::bucket::Bucket;
use codedeploy_tests::bundle;
use codedeploy_tests::fleet::Deployed;
use codedeploy_tests::machine::Machine;
use codedeploy_tests::programs::{Program, Programs, programs_folder};
use codedeploy_tests::service::{SETTINGS, Service, revision};
use tempfile::TempDir;

use crate::pages::repository;

pub(crate) const UNIT: &str = "codedeploy-agent.service";
pub(crate) const CONFIGURATION: &str = "/etc/codedeploy-agent/conf/codedeployagent.yml";
pub(crate) const ON_PREMISES: &str = "/etc/codedeploy-agent/conf/codedeploy.onpremises.yml";

/// rpm on a Debian system: its database does not have the packages that ours needs, and until Debian
/// 13 it wants to be sure that it is meant.
pub(crate) const RPM: &str =
    "rpm $(! rpm --force-debian --version >/dev/null 2>&1 || echo --force-debian) --nodeps";

pub(crate) struct Site {
    pub(crate) machine: Machine,
    pub(crate) service: Service,
    pub(crate) bucket: Bucket,
    pub(crate) folder: TempDir,
}

impl Site {
    pub(crate) async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::boot(folder.path()).await;
        // The agent is ready when its first poll gets a response, which must not take long here.
        let data = folder.path().join("controller");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join(SETTINGS), "timers: {poll: 2}\n").unwrap();
        let service = Service::start(&Programs::built(), &data).await;
        service.create_group("shop", "web", ("env", "test")).await;
        let bucket = Bucket::versioned(folder.path(), "revisions").await;
        Self {
            machine,
            service,
            bucket,
            folder,
        }
    }

    /// Registers the machine, and copies the two files there as an operator would.
    pub(crate) async fn register(&self) {
        let registered = self
            .service
            .administer(&["host", "add", "box1", "--tag", "env=test", "--json"])
            .await;
        self.machine.write(
            ON_PREMISES,
            registered["codedeploy.onpremises.yml"].as_str().unwrap(),
        );
        let lines = registered["codedeployagent.yml"].as_str().unwrap();
        // An operator keeps the present settings, and adds missing ones.
        let there = self.machine.read(CONFIGURATION);
        let key = |line: &str| {
            line.split_inclusive(": ")
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let new = lines
            .lines()
            .filter(|line| !there.contains(&key(line)))
            .collect::<Vec<_>>()
            .join("\n");
        let text = format!(
            "{there}{new}\n:s3_endpoint_override: {}\n",
            self.bucket.endpoint
        );
        self.machine.write(CONFIGURATION, &text);
    }

    /// Copies the Debian package of a version into the machine, and returns its path there.
    pub(crate) async fn package(&self, name: &str, version: &str) -> String {
        self.packed(name, version, "deb").await
    }

    /// Copies the package of a version in one of the formats into the machine, and returns its path there.
    /// `CODEDEPLOY_TEST_DIST` names a folder with a release, whose packages are not packed again.
    pub(crate) async fn packed(&self, name: &str, version: &str, format: &str) -> String {
        let file = match released(name, version, format) {
            Some(file) => file,
            None => {
                let folder = self.folder.path().join("packages");
                let built = pack(&folder, &["--version", version, "--format", format]).await;
                built
                    .into_iter()
                    .find(|path| path.to_string_lossy().contains(name))
                    .unwrap()
            }
        };
        let inside = format!("/root/{}", file.file_name().unwrap().to_string_lossy());
        std::fs::copy(file, self.machine.path(&inside)).unwrap();
        inside
    }

    async fn push(&self, files: &[(&str, &str)]) -> RevisionLocation {
        let source = tempfile::tempdir().unwrap();
        bundle::write(source.path(), files);
        let object = self.bucket.put("app.zip", bundle::zip(source.path())).await;
        revision(&self.bucket, &object, BundleType::Zip)
    }

    pub(crate) async fn create(&self, files: &[(&str, &str)]) -> String {
        self.service
            .deploy("shop", "web", self.push(files).await)
            .await
    }

    pub(crate) async fn outcome(&self, id: &str) -> Deployed {
        let mut events = Vec::new();
        let info = self
            .service
            .follow(id, "box1", |event| events.push(event.clone()))
            .await;
        Deployed {
            id: id.into(),
            info,
            events,
        }
    }

    pub(crate) async fn close(self) {
        self.machine.stop().await;
        self.service.stop().await;
        self.bucket.stop().await;
    }
}

/// The package of a version in a release that is being tried, if it has one.
fn released(name: &str, version: &str, format: &str) -> Option<PathBuf> {
    let machine = std::env::consts::ARCH;
    let file = match format {
        "deb" => {
            let debian = if machine == "x86_64" {
                "amd64"
            } else {
                "arm64"
            };
            format!("{name}_{version}_{debian}.deb")
        }
        "rpm" => format!("{name}-{version}-1.{machine}.rpm"),
        _ => format!("{name}-{version}-linux-{machine}.tar.gz"),
    };
    let path = Path::new(&std::env::var_os("CODEDEPLOY_TEST_DIST")?).join(file);
    path.exists().then_some(path)
}

/// Packs the programs under test into `folder`, and returns the packages.
pub(crate) async fn pack(folder: &Path, options: &[&str]) -> Vec<PathBuf> {
    let mut command = Program::at(repository().join("packaging/package")).command(options);
    command
        .arg("--quick")
        .arg("--binaries")
        .arg(programs_folder());
    command.arg("--output").arg(folder);
    let output = command.output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(PathBuf::from)
        .collect()
}

pub(crate) fn succeeded(deployed: &Deployed) {
    assert_eq!(deployed.status(), "Succeeded", "{:#?}", deployed.events);
}

/// An AppSpec with one hook script per event.
pub(crate) fn appspec(hooks: &[(&str, &str)]) -> String {
    let hooks: String = hooks
        .iter()
        .map(|(event, script)| format!("  {event}:\n    - location: {script}\n      timeout: 60\n"))
        .collect();
    format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: /srv/app\nfile_exists_behavior: OVERWRITE\n\
         hooks:\n{hooks}"
    )
}
