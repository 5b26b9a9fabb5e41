//! The packages, on a Debian system with a systemd of its own: installed, started, deployed with, upgraded, removed.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests start programs, and fail where they cannot"
)]

use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::types::{BundleType, RevisionLocation};
use codedeploy_tests::bucket::Bucket;
use codedeploy_tests::bundle;
use codedeploy_tests::fleet::Deployed;
use codedeploy_tests::machine::Machine;
use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::service::{Service, revision};
use codedeploy_tests::wait;
use tempfile::TempDir;

const UNIT: &str = "codedeploy-agent.service";
const CONFIGURATION: &str = "/etc/codedeploy-agent/conf/codedeployagent.yml";
const ON_PREMISES: &str = "/etc/codedeploy-agent/conf/codedeploy.onpremises.yml";
const LOG: &str = "/var/log/aws/codedeploy-agent/codedeploy-agent.log";

/// A machine, a service and a bucket that it reaches, and packages to install.
struct Site {
    machine: Machine,
    service: Service,
    bucket: Bucket,
    folder: TempDir,
}

impl Site {
    async fn open() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::boot(folder.path()).await?;
        let service = Service::start(&Programs::built(), &folder.path().join("controller")).await;
        service.create_group("shop", "web", ("env", "test")).await;
        let bucket = Bucket::versioned(folder.path(), "revisions").await;
        Some(Self { machine, service, bucket, folder })
    }

    /// Registers the machine, and puts the two files there as an operator would.
    async fn register(&self) {
        let registered =
            self.service.administer(&["host", "add", "box1", "--tag", "env=test", "--json"]).await;
        self.machine.write(ON_PREMISES, registered["codedeploy.onpremises.yml"].as_str().unwrap());
        let lines = registered["codedeployagent.yml"].as_str().unwrap();
        let text = self.machine.read(CONFIGURATION);
        let text = format!("{text}{lines}s3_endpoint_override: {}\n", self.bucket.endpoint);
        self.machine.write(CONFIGURATION, &text);
    }

    /// Puts the package of a version into the machine, and says where it is there.
    async fn package(&self, name: &str, version: &str) -> String {
        let built = build(self.folder.path(), version).await;
        let file = built.into_iter().find(|path| path.to_string_lossy().contains(name)).unwrap();
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

    async fn create(&self, files: &[(&str, &str)]) -> String {
        self.service.deploy("shop", "web", self.push(files).await).await
    }

    async fn outcome(&self, id: &str) -> Deployed {
        let mut events = Vec::new();
        let info = self.service.follow(id, "box1", |event| events.push(event.clone())).await;
        Deployed { id: id.into(), info, events }
    }

    async fn close(self) {
        self.machine.stop().await;
        self.service.stop().await;
        self.bucket.stop().await;
    }
}

/// Packages of the programs that were built beside this test.
async fn build(folder: &Path, version: &str) -> Vec<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/deb");
    let programs = std::env::current_exe().unwrap();
    let mut command = Program::at(script).command::<&str>([]);
    command.env("BIN_DIR", programs.parent().and_then(Path::parent).unwrap());
    command.env("OUT_DIR", folder.join("packages")).env("COMPRESSION", "none").env("VERSION", version);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

fn succeeded(deployed: &Deployed) {
    assert_eq!(deployed.status(), "Succeeded", "{:#?}", deployed.events);
}

/// An AppSpec with one hook script per event.
fn appspec(hooks: &[(&str, &str)]) -> String {
    let hooks: String = hooks
        .iter()
        .map(|(event, script)| format!("  {event}:\n    - location: {script}\n      timeout: 60\n"))
        .collect();
    format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: /srv/app\nfile_exists_behavior: OVERWRITE\n\
         hooks:\n{hooks}"
    )
}

#[tokio::test]
async fn the_agents_package_serves_a_host_for_its_whole_life_which_needs_root() {
    let Some(site) = Site::open().await else { return };
    let machine = &site.machine;

    // Installed: enabled, and not started on a host that nobody knows.
    let first = site.package("codedeploy-agent", "0.1.0").await;
    let said = machine.succeed(&format!("dpkg --install {first} 2>&1")).await;
    assert!(said.contains("systemctl start codedeploy-agent"), "{said}");
    assert_eq!(machine.property(UNIT, "UnitFileState").await, "enabled");
    assert_eq!(machine.property(UNIT, "ActiveState").await, "inactive");
    assert_eq!(machine.read("/opt/codedeploy-agent/.version"), "agent_version: 0.1.0\n");
    machine.succeed("/opt/codedeploy-agent/bin/codedeploy-local --help").await;

    // Registered and started: ready once the service answered.
    site.register().await;
    machine.write(
        "/etc/profile.d/site.sh",
        "SITE_PROXY='http://proxy:3128 \"quoted\"'\nPATH=$PATH:/opt/site/bin\n",
    );
    machine.succeed("systemctl start codedeploy-agent").await;
    assert_eq!(machine.property(UNIT, "ActiveState").await, "active");
    assert_eq!(machine.property(UNIT, "StatusText").await, "waiting for deployments");

    // A deployment: its hooks see /etc/profile, and nothing of the agent's own.
    let hook = "#!/bin/bash\n{ env -0 | tr '\\0' '\\n' | sort; } > /srv/environment\nls -l /proc/$$/fd > /srv/fds\n\
         cat /proc/$$/status /proc/$$/limits /proc/$$/stat > /srv/process\n\
         [ -e /srv/server.pid ] || { setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > /srv/server.pid; }\n";
    let simple = appspec(&[("ApplicationStart", "start.sh")]);
    let id = site.create(&[("appspec.yml", &simple), ("start.sh", hook), ("page", "one")]).await;
    succeeded(&site.outcome(&id).await);
    assert_eq!(machine.read("/srv/app/page"), "one");
    let environment = machine.read("/srv/environment");
    for line in ["SITE_PROXY=http://proxy:3128 \"quoted\"\n", ":/opt/site/bin\n", "HOME=/root\n"] {
        assert!(environment.contains(line), "{line} not in\n{environment}");
    }
    for name in ["NOTIFY_SOCKET=", "WATCHDOG_USEC=", "INVOCATION_ID=", "RUNTIME_DIRECTORY="] {
        assert!(!environment.contains(name), "{name} in\n{environment}");
    }
    let server = machine.read("/srv/server.pid").trim().to_owned();

    // A stop waits for the hook in progress, which ends well and is reported.
    let waits =
        "#!/bin/sh\ntouch /srv/began\nwhile [ ! -e /srv/go ]; do sleep 0.05; done\ntouch /srv/ended\n";
    let slow = appspec(&[("BeforeInstall", "wait.sh")]);
    let id = site.create(&[("appspec.yml", &slow), ("wait.sh", waits), ("page", "two")]).await;
    wait::until("the hook runs", async || machine.path("/srv/began").metadata()).await;
    machine.succeed("systemctl --no-block stop codedeploy-agent").await;
    wait::until("the agent says that it stops", async || {
        let text = machine.property(UNIT, "StatusText").await;
        if text == "stopping; the command in progress is finished first" { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(machine.property(UNIT, "ActiveState").await, "deactivating");
    machine.write("/srv/go", "");
    machine.until_property(UNIT, "ActiveState", "inactive").await;
    assert_eq!(machine.property(UNIT, "Result").await, "success");
    assert!(machine.path("/srv/ended").exists());
    machine.succeed(&format!("kill -0 {server}")).await;
    let events = site.service.events(&id, "box1").await;
    let reported = events.iter().any(|e| e.name == "BeforeInstall" && e.status.as_str() == "Succeeded");
    assert!(reported, "{events:#?}");

    // Started again, it goes on; a restart leaves what hooks started alone.
    machine.succeed("systemctl start codedeploy-agent").await;
    succeeded(&site.outcome(&id).await);
    assert_eq!(machine.read("/srv/app/page"), "two");
    machine.succeed("systemctl restart codedeploy-agent").await;
    machine.succeed(&format!("kill -0 {server}")).await;

    // Upgraded in the middle of a deployment: the package is in place at once, the agent follows when the hook is done.
    for name in ["/srv/began", "/srv/go", "/srv/ended"] {
        std::fs::remove_file(machine.path(name)).unwrap();
    }
    let agent = machine.property(UNIT, "MainPID").await;
    let id = site.create(&[("appspec.yml", &slow), ("wait.sh", waits), ("page", "three")]).await;
    wait::until("the hook runs", async || machine.path("/srv/began").metadata()).await;
    let second = site.package("codedeploy-agent", "0.2.0").await;
    machine.succeed(&format!("dpkg --install {second} 2>&1")).await;
    assert_eq!(machine.read("/opt/codedeploy-agent/.version"), "agent_version: 0.2.0\n");
    assert_eq!(machine.property(UNIT, "MainPID").await, agent);
    assert!(machine.read(CONFIGURATION).contains("s3_endpoint_override"), "the operator's file was kept");
    machine.write("/srv/go", "");
    succeeded(&site.outcome(&id).await);
    assert!(machine.path("/srv/ended").exists());
    machine.until_property(UNIT, "ActiveState", "active").await;
    assert_ne!(machine.property(UNIT, "MainPID").await, agent);
    wait::until("the service is told the new version", async || {
        let log = machine.read(LOG);
        if log.contains("0.2.0") { Ok(()) } else { Err(log) }
    })
    .await;
    machine.succeed(&format!("kill -0 {server}")).await;

    // A timeout ends even what hid: no trace in its environment, a session of its own, no parent.
    let hides = "#!/bin/sh\n(env -i /usr/bin/setsid /bin/sh -c 'echo $$ > /srv/hidden; exec /bin/sleep 1000' \
         </dev/null >/dev/null 2>&1 &)\nsleep 1000\n";
    let short = slow.replace("timeout: 60", "timeout: 2");
    let id = site.create(&[("appspec.yml", &short), ("wait.sh", hides), ("page", "four")]).await;
    assert_eq!(site.outcome(&id).await.failed_event().name, "BeforeInstall");
    machine.succeed("test -s /srv/hidden && ! kill -0 $(cat /srv/hidden)").await;
    machine.succeed(&format!("kill -0 {server}")).await;

    // Removed: everything that is not the package's stays, and so does what hooks started. Purged: the agent's own goes.
    machine.succeed("dpkg --remove codedeploy-agent 2>&1").await;
    machine.succeed(&format!("kill -0 {server}")).await;
    for path in
        [CONFIGURATION, ON_PREMISES, LOG, "/opt/codedeploy-agent/deployment-root/deployment-instructions"]
    {
        assert!(machine.path(path).exists(), "{path} was removed");
    }
    assert!(!machine.path("/opt/codedeploy-agent/bin").exists());
    machine.succeed("dpkg --purge codedeploy-agent 2>&1").await;
    for path in [CONFIGURATION, LOG, "/opt/codedeploy-agent", "/etc/systemd/system/codedeploy-agent.service"]
    {
        assert!(!machine.path(path).exists(), "{path} was not purged");
    }
    assert!(machine.path(ON_PREMISES).exists(), "what the operator put there is the operator's");
    assert_eq!(machine.read("/srv/app/page"), "three", "applications are the operator's too");
    site.close().await;
}
