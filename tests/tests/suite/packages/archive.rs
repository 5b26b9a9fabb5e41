//! The archive for systems without a package manager.

use codedeploy_tests::machine::Machine;

use super::site::{CONFIGURATION, RPM, Site, UNIT, appspec, succeeded};

/// Unpacks the archive of a version in the machine, and returns its folder there.
async fn unpack(site: &Site, version: &str) -> String {
    let archive = site.packed("codedeploy-agent", version, "tar.gz").await;
    site.machine
        .succeed(&format!("tar --extract --file {archive} --directory /root"))
        .await;
    archive.trim_end_matches(".tar.gz").to_owned()
}

/// Runs a line that must fail; returns what it prints.
async fn refused(machine: &Machine, line: &str) -> String {
    let output = machine.run(&format!("{{ {line}; }} 2>&1")).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{line}: {said}");
    said
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_archive_installs_upgrades_and_removes_the_agent_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    let first = unpack(&site, "0.1.0").await;
    let said = machine.succeed(&format!("{first}/install 2>&1")).await;
    assert!(said.contains("systemctl start codedeploy-agent"), "{said}");
    assert!(said.ends_with("0.1.0 is installed"), "{said}");
    assert_eq!(machine.property(UNIT, "UnitFileState").await, "enabled");
    site.register().await;
    machine.succeed("systemctl start codedeploy-agent").await;
    let id = site
        .create(&[
            ("appspec.yml", &appspec(&[]).replace("hooks:\n", "")),
            ("page", "one"),
        ])
        .await;
    succeeded(&site.outcome(&id).await);

    let second = unpack(&site, "0.2.0").await;
    leaves_everything_when_it_cannot_write(machine, &second).await;

    let agent = machine.property(UNIT, "MainPID").await;
    machine
        .succeed(&format!(
            "rm {second}/files/usr/share/doc/codedeploy-agent/design.md && {second}/install"
        ))
        .await;
    codedeploy_tests::wait::until("another agent runs", async || {
        let now = machine.property(UNIT, "MainPID").await;
        if now == agent || now == "0" {
            Err(now)
        } else {
            Ok(())
        }
    })
    .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    assert!(machine.read(CONFIGURATION).contains("s3_endpoint_override"));
    let doc = "/usr/share/doc/codedeploy-agent";
    assert!(machine.path(&format!("{doc}/support.md")).exists());
    assert!(
        !machine.path(&format!("{doc}/design.md")).exists(),
        "a file that is not in this version"
    );

    machine.succeed(&format!("{second}/install --remove")).await;
    assert_eq!(machine.property(UNIT, "ActiveState").await, "inactive");
    for path in [
        "/opt/codedeploy-agent/bin",
        doc,
        "/usr/bin/codedeploy-local",
    ] {
        assert!(!machine.path(path).exists(), "{path} is left");
    }
    assert!(machine.read(CONFIGURATION).contains("s3_endpoint_override"));
    machine.succeed(&format!("{second}/install")).await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    let status = machine.succeed("codedeploy-agent status --json").await;
    assert!(
        status.contains("\"succeeded\""),
        "the deployments of before are known: {status}"
    );
    site.close().await;
}

/// A full disk and one that is read-only, in the place of the programs.
async fn leaves_everything_when_it_cannot_write(machine: &Machine, next: &str) {
    for options in ["size=1M", "ro"] {
        let folder = "/opt/codedeploy-agent/bin";
        machine
            .succeed(&format!("mount -t tmpfs -o {options} tmpfs {folder}"))
            .await;
        let said = refused(machine, &format!("{next}/install")).await;
        assert!(said.contains("nothing was changed"), "{said}");
        machine.succeed(&format!("umount {folder}")).await;
        assert_eq!(
            machine.read("/opt/codedeploy-agent/.version"),
            "agent_version: 0.1.0\n"
        );
        let left = machine
            .succeed("find /opt/codedeploy-agent /usr /etc -xdev -name '*.new-*'")
            .await;
        assert_eq!(left, "");
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_archive_does_not_replace_files_of_a_package_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    let folder = unpack(&site, "0.2.0").await;
    let deb = site.package("codedeploy-agent", "0.1.0").await;
    machine.succeed(&format!("dpkg --install {deb} 2>&1")).await;
    let said = refused(machine, &format!("{folder}/install")).await;
    assert!(said.contains("belongs to a Debian package"), "{said}");
    machine.succeed("dpkg --purge codedeploy-agent 2>&1").await;

    let rpm = site.packed("codedeploy-agent", "0.1.0", "rpm").await;
    machine
        .succeed(&format!("{RPM} --install {rpm} 2>&1"))
        .await;
    let said = refused(machine, &format!("{folder}/install")).await;
    assert!(said.contains("belongs to an rpm package"), "{said}");
    site.close().await;
}
