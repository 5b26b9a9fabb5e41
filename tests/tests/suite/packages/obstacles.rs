//! Packages on a system that is not as they expect: what is installed stays usable, and a message
//! says what to do.

use codedeploy_tests::machine::Machine;
use codedeploy_tests::wait;

use super::site::{RPM, Site, UNIT};

const BIN: &str = "/opt/codedeploy-agent/bin";

/// A package manager.
struct Manager {
    format: &'static str,
    /// Installs a package, or upgrades to it.
    install: String,
    /// Installs an older version.
    downgrade: String,
    /// Its complaint about a full disk.
    full: &'static str,
    /// Reports files that are not as their package has them.
    verify: &'static str,
}

fn managers() -> [Manager; 2] {
    let deb = Manager {
        format: "deb",
        install: "dpkg --install".into(),
        downgrade: "dpkg --install".into(),
        full: "No space left on device",
        verify: "dpkg --audit && dpkg --verify codedeploy-agent",
    };
    let rpm = Manager {
        format: "rpm",
        install: format!("{RPM} --upgrade"),
        downgrade: format!("{RPM} --upgrade --oldpackage"),
        full: "more space on the /opt/codedeploy-agent/bin filesystem",
        verify: "rpm --verify --nodeps codedeploy-agent",
    };
    [deb, rpm]
}

/// Runs a line that must fail; returns what it prints.
async fn refused(machine: &Machine, line: &str) -> String {
    let output = machine.run(&format!("{line} 2>&1")).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "{line}: {said}");
    said
}

async fn until_another_agent_runs(machine: &Machine, before: &str) {
    wait::until("another agent runs", async || {
        let now = machine.property(UNIT, "MainPID").await;
        if now == before || now == "0" {
            Err(now)
        } else {
            Ok(())
        }
    })
    .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn an_upgrade_that_has_no_room_changes_nothing_which_needs_root() {
    for manager in managers() {
        let site = Site::open().await;
        let machine = &site.machine;
        let [first, second] = [
            site.packed("codedeploy-agent", "0.1.0", manager.format)
                .await,
            site.packed("codedeploy-agent", "0.2.0", manager.format)
                .await,
        ];
        let Manager {
            install, downgrade, ..
        } = &manager;
        machine.succeed(&format!("{install} {first} 2>&1")).await;
        site.register().await;
        machine.succeed("systemctl start codedeploy-agent").await;
        let agent = machine.property(UNIT, "MainPID").await;

        machine
            .succeed(&format!(
                "mount --bind {BIN} {BIN} && mount -o remount,bind,ro {BIN}"
            ))
            .await;
        let said = refused(machine, &format!("{install} {second}")).await;
        assert!(
            said.contains("bin is read-only, and nothing was changed: mount it for writing"),
            "{said}"
        );
        is_still_the_first(machine, &manager, &agent).await;
        machine.succeed(&format!("umount {BIN}")).await;

        // Room for the programs of one version.
        machine
            .succeed(&format!(
                "size=$(du --summarize --block-size=1 {BIN} | cut -f1) && cp -a {BIN} /root/bin && \
                 mount -t tmpfs -o mode=755,size=$((size + 1000000)) tmpfs {BIN} && cp -a /root/bin/. {BIN}"
            ))
            .await;
        let said = refused(machine, &format!("{install} {second}")).await;
        assert!(said.contains(manager.full), "{said}");
        is_still_the_first(machine, &manager, &agent).await;

        machine
            .succeed(&format!("mount -o remount,size=90% {BIN}"))
            .await;
        machine.succeed(&format!("{install} {second} 2>&1")).await;
        until_another_agent_runs(machine, &agent).await;
        assert_eq!(
            machine.read("/opt/codedeploy-agent/.version"),
            "agent_version: 0.2.0\n"
        );

        let agent = machine.property(UNIT, "MainPID").await;
        machine.succeed(&format!("{downgrade} {first} 2>&1")).await;
        until_another_agent_runs(machine, &agent).await;
        let agent = machine.property(UNIT, "MainPID").await;
        is_still_the_first(machine, &manager, &agent).await;
        if manager.format == "rpm" {
            let beside = format!("{RPM} --install {second}");
            let said = refused(machine, &beside).await;
            assert!(said.contains("conflicts with file from package"), "{said}");
            is_still_the_first(machine, &manager, &agent).await;
        }
        site.close().await;
    }
}

/// The version, its files and its running agent.
async fn is_still_the_first(machine: &Machine, manager: &Manager, agent: &str) {
    assert_eq!(
        machine.read("/opt/codedeploy-agent/.version"),
        "agent_version: 0.1.0\n"
    );
    machine.succeed("codedeploy-local --version").await;
    assert_eq!(machine.property(UNIT, "MainPID").await, agent);
    let changed = machine.run(manager.verify).await;
    let said = String::from_utf8_lossy(&changed.stdout).into_owned();
    let others: Vec<_> = said
        .lines()
        // The registration changed one, and a mount has another folder in the place of the package's.
        .filter(|line| !line.ends_with("codedeployagent.yml") && !line.ends_with("/bin"))
        .collect();
    assert!(others.is_empty(), "{said}");
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_package_does_not_replace_what_an_archive_installed_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    let archive = site.packed("codedeploy-agent", "0.1.0", "tar.gz").await;
    machine
        .succeed(&format!("tar --extract --file {archive} --directory /root"))
        .await;
    let installer = format!("{}/install", archive.trim_end_matches(".tar.gz"));
    machine.succeed(&installer).await;
    site.register().await;
    machine.succeed("systemctl start codedeploy-agent").await;
    let agent = machine.property(UNIT, "MainPID").await;
    for Manager {
        format, install, ..
    } in managers()
    {
        let package = site.packed("codedeploy-agent", "0.2.0", format).await;
        let said = refused(machine, &format!("{install} {package}")).await;
        assert!(said.contains("it was installed from an archive"), "{said}");
        assert_eq!(machine.property(UNIT, "MainPID").await, agent);
        assert_eq!(
            machine.read("/opt/codedeploy-agent/.version"),
            "agent_version: 0.1.0\n"
        );
    }
    let package = site.package("codedeploy-agent", "0.2.0").await;
    machine
        .succeed(&format!(
            "{installer} --remove && dpkg --force-confold --install {package} 2>&1"
        ))
        .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    let unit = machine.property(UNIT, "FragmentPath").await;
    assert!(
        unit.ends_with("/lib/systemd/system/codedeploy-agent.service"),
        "{unit}"
    );
    site.close().await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_deb_on_a_system_without_systemd_says_how_to_start_it_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    // The same system seen without what is mounted on it: /run is empty there.
    machine
        .succeed("mkdir /root/other && mount --bind / /root/other && mount -t proc proc /root/other/proc")
        .await;
    let inside = "chroot /root/other";
    let [first, second] = [
        site.package("codedeploy-agent", "0.1.0").await,
        site.package("codedeploy-agent", "0.2.0").await,
    ];
    let said = machine
        .succeed(&format!("{inside} dpkg --install {first} 2>&1"))
        .await;
    assert!(said.contains("  codedeploy-agent start"), "{said}");
    site.register().await;
    machine
        .succeed(&format!("{inside} codedeploy-agent start"))
        .await;
    let said = machine
        .succeed(&format!("{inside} dpkg --install {second} 2>&1"))
        .await;
    assert!(said.contains("  codedeploy-agent restart"), "{said}");
    machine
        .succeed(&format!(
            "{inside} codedeploy-agent restart && {inside} codedeploy-agent status && {inside} codedeploy-agent stop"
        ))
        .await;
    machine
        .succeed(&format!("{inside} dpkg --purge codedeploy-agent 2>&1"))
        .await;

    let controller = site.package("codedeploy-controller", "0.1.0").await;
    let said = machine
        .succeed(&format!("{inside} dpkg --install {controller} 2>&1"))
        .await;
    assert!(said.contains("  codedeploy-controller serve"), "{said}");
    site.close().await;
}
