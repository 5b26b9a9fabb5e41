//! The rpm packages: installed, upgraded, removed, and put in place of AWS's.

use codedeploy_tests::machine::Machine;
use codedeploy_tests::wait;

use super::site::{CONFIGURATION, ON_PREMISES, RPM, Site, UNIT, appspec, succeeded};

const CONTROLLER: &str = "codedeploy-controller.service";

/// A hook that runs until it is released.
const WAITS: &str =
    "#!/bin/sh\ntouch /srv/began\nwhile [ ! -e /srv/go ]; do sleep 0.05; done\ntouch /srv/ended\n";

#[tokio::test]
#[ignore = "needs root"]
async fn the_agents_rpm_serves_a_host_for_its_whole_life_which_needs_root() {
    let site = Site::open().await;
    let first = is_enabled_and_waits_for_an_identity(&site).await;
    let second = an_upgrade_waits_for_the_hook_in_progress(&site).await;
    an_earlier_version_can_come_back(&site, &first, &second).await;
    a_removal_keeps_state_and_the_next_installation_continues(&site, &second).await;
    site.close().await;
}

/// Returns the package's path.
async fn is_enabled_and_waits_for_an_identity(site: &Site) -> String {
    let machine = &site.machine;
    let package = site.packed("codedeploy-agent", "0.1.0", "rpm").await;
    let said = machine
        .succeed(&format!("{RPM} --install {package} 2>&1"))
        .await;
    assert!(said.contains("systemctl start codedeploy-agent"), "{said}");
    assert_eq!(machine.property(UNIT, "UnitFileState").await, "enabled");
    assert_eq!(machine.property(UNIT, "ActiveState").await, "inactive");
    let changed = machine
        .succeed("rpm --verify --nodeps codedeploy-agent")
        .await;
    assert_eq!(changed, "", "what is installed is what the package has");
    machine
        .succeed("codedeploy-local --help && command -v codedeploy-agent")
        .await;
    site.register().await;
    machine.succeed("systemctl start codedeploy-agent").await;
    package
}

async fn an_upgrade_waits_for_the_hook_in_progress(site: &Site) -> String {
    let machine = &site.machine;
    // Packed before the hook's timeout begins.
    let second = site.packed("codedeploy-agent", "0.2.0", "rpm").await;
    let agent = machine.property(UNIT, "MainPID").await;
    let spec = appspec(&[("BeforeInstall", "wait.sh")]);
    let id = site
        .create(&[("appspec.yml", &spec), ("wait.sh", WAITS), ("page", "one")])
        .await;
    wait::until("the hook runs", async || {
        machine.path("/srv/began").metadata()
    })
    .await;
    machine
        .succeed(&format!("{RPM} --upgrade {second} 2>&1"))
        .await;
    assert_eq!(
        machine.read("/opt/codedeploy-agent/.version"),
        "agent_version: 0.2.0\n"
    );
    assert_eq!(machine.property(UNIT, "MainPID").await, agent);
    machine.write("/srv/go", "");
    succeeded(&site.outcome(&id).await);
    assert_eq!(machine.read("/srv/app/page"), "one");
    machine.until_property(UNIT, "ActiveState", "active").await;
    assert_ne!(machine.property(UNIT, "MainPID").await, agent);
    assert!(
        machine.read(CONFIGURATION).contains("s3_endpoint_override"),
        "the operator's file was kept"
    );
    second
}

async fn an_earlier_version_can_come_back(site: &Site, first: &str, second: &str) {
    let machine = &site.machine;
    for package in [first, second] {
        let agent = machine.property(UNIT, "MainPID").await;
        machine
            .succeed(&format!("{RPM} --upgrade --oldpackage {package} 2>&1"))
            .await;
        wait::until("another agent runs", async || {
            let now = machine.property(UNIT, "MainPID").await;
            if now == agent || now == "0" {
                Err(now)
            } else {
                Ok(())
            }
        })
        .await;
        machine.until_property(UNIT, "ActiveState", "active").await;
    }
}

async fn a_removal_keeps_state_and_the_next_installation_continues(site: &Site, package: &str) {
    let machine = &site.machine;
    let kept = format!("{CONFIGURATION}.rpmsave");
    let erase = format!("{RPM} --erase codedeploy-agent 2>&1");
    let install = format!("{RPM} --install {package} 2>&1");
    machine.succeed(&erase).await;
    for path in [
        kept.as_str(),
        ON_PREMISES,
        "/opt/codedeploy-agent/deployment-root/deployment-instructions",
    ] {
        assert!(machine.path(path).exists(), "{path} was removed");
    }
    assert!(!machine.path("/opt/codedeploy-agent/bin").exists());
    assert!(
        !machine
            .path("/etc/systemd/system/multi-user.target.wants/codedeploy-agent.service")
            .exists()
    );

    machine
        .succeed(&format!("{install} && mv {kept} {CONFIGURATION}"))
        .await;
    machine.succeed("systemctl restart codedeploy-agent").await;
    assert_eq!(machine.property(UNIT, "UnitFileState").await, "enabled");
    let status = machine.succeed("codedeploy-agent status --json").await;
    assert!(
        status.contains("\"succeeded\""),
        "the deployments of before are known: {status}"
    );

    machine
        .succeed(&format!(
            "systemctl stop codedeploy-agent && {erase} && {install}"
        ))
        .await;
    assert_eq!(
        machine.property(UNIT, "ActiveState").await,
        "inactive",
        "stopped stays stopped"
    );
    let left = machine.succeed("ls /var/lib/misc").await;
    assert!(!left.contains("codedeploy"), "{left}");
}

#[tokio::test]
#[ignore = "needs root"]
async fn an_rpm_on_a_system_without_systemd_says_how_to_start_the_agent_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    let package = site.packed("codedeploy-agent", "0.1.0", "rpm").await;
    // The same system seen without what is mounted on it: /run is empty there.
    machine
        .succeed("mkdir /root/other && mount --bind / /root/other")
        .await;
    let install = format!("{RPM} --root /root/other");
    let said = machine
        .succeed(&format!("{install} --install {package} 2>&1"))
        .await;
    assert!(said.contains("  codedeploy-agent start"), "{said}");
    machine
        .succeed("chroot /root/other codedeploy-local --help")
        .await;
    let said = machine
        .succeed(&format!("{install} --upgrade --replacepkgs {package} 2>&1"))
        .await;
    // rpm 4.20 misses something of a container.
    let said = said.trim_start_matches("warning: private mounts in chroot not implemented");
    assert_eq!(said, "");
    machine
        .succeed(&format!("{install} --erase codedeploy-agent 2>&1"))
        .await;
    assert!(!machine.path("/opt/codedeploy-agent/bin").exists());
    site.close().await;
}

/// A package with the files of AWS's package, as far as needed, and with scripts that stop and disable the agent when its
/// version goes, whatever comes after it.
const OF_AWS: &str = r#"
name: codedeploy-agent
arch: all
version: 1.8.1
release: 12
maintainer: x
description: x
scripts: {postinstall: post, preremove: preun}
contents:
  - {src: program, dst: /opt/codedeploy-agent/bin/codedeploy-agent, file_info: {mode: 0755}}
  - {src: program, dst: /etc/init.d/codedeploy-agent, file_info: {mode: 0755}}
  - {src: settings, dst: /etc/codedeploy-agent/conf/codedeployagent.yml, type: config|noreplace}
  - {src: unit, dst: /usr/lib/systemd/system/codedeploy-agent.service}
"#;

/// Makes that package in the machine, and returns its path there.
async fn package_of_aws(site: &Site) -> &'static str {
    let folder = site.folder.path().join("aws");
    std::fs::create_dir(&folder).unwrap();
    for (name, text) in [
        ("nfpm.yaml", OF_AWS),
        ("program", "#!/bin/sh\nwhile sleep 1000; do :; done\n"),
        (
            "settings",
            "---\n:root_dir: /opt/codedeploy-agent/deployment-root\n",
        ),
        (
            "unit",
            "[Service]\nExecStart=/opt/codedeploy-agent/bin/codedeploy-agent\n[Install]\nWantedBy=multi-user.target\n",
        ),
        (
            "post",
            "systemctl daemon-reload\nsystemctl enable codedeploy-agent 2>/dev/null\nsystemctl start codedeploy-agent\n",
        ),
        (
            "preun",
            "systemctl disable codedeploy-agent 2>/dev/null\nsystemctl stop codedeploy-agent\n",
        ),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let nfpm = codedeploy_tests::bucket::tools().join("packaging/bin/nfpm");
    let output = std::process::Command::new(nfpm)
        .args(["package", "--packager", "rpm", "--target", "aws.rpm"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::copy(folder.join("aws.rpm"), site.machine.path("/root/aws.rpm")).unwrap();
    "/root/aws.rpm"
}

async fn program_of(machine: &Machine) -> String {
    let pid = machine.property(UNIT, "MainPID").await;
    machine
        .succeed(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline"))
        .await
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_rpm_takes_over_from_that_of_aws_and_gives_back_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    let instructions =
        "/opt/codedeploy-agent/deployment-root/deployment-instructions/g_last_successful_install";
    let aws = package_of_aws(&site).await;
    machine
        .succeed(&format!("{RPM} --install {aws} 2>&1"))
        .await;
    machine.write(instructions, "/opt/codedeploy-agent/deployment-root/g/d-1");
    machine
        .succeed(&format!("echo ':max_revisions: 7' >> {CONFIGURATION}"))
        .await;
    assert!(program_of(machine).await.contains("/bin/sh"));

    let package = site.packed("codedeploy-agent", "0.1.0", "rpm").await;
    site.register().await;
    machine
        .succeed(&format!("{RPM} --upgrade {package} 2>&1"))
        .await;
    assert!(
        machine.read(CONFIGURATION).contains(":max_revisions: 7"),
        "the operator's configuration is kept"
    );
    assert!(machine.path(instructions).exists());
    machine.until_property(UNIT, "ActiveState", "active").await;
    assert_eq!(machine.property(UNIT, "UnitFileState").await, "enabled");
    assert!(
        program_of(machine).await.contains("codedeploy-agent run"),
        "what ran runs on, as this agent"
    );
    let hooks = appspec(&[]).replace("hooks:\n", "");
    let id = site
        .create(&[("appspec.yml", &hooks), ("page", "one")])
        .await;
    succeeded(&site.outcome(&id).await);

    machine
        .succeed(&format!("{RPM} --upgrade --oldpackage {aws} 2>&1"))
        .await;
    assert!(machine.path(instructions).exists());
    assert!(machine.read(CONFIGURATION).contains(":max_revisions: 7"));
    wait::until("AWS's agent runs", async || {
        let state = machine.property(UNIT, "ActiveState").await;
        if state == "active" && program_of(machine).await.contains("/bin/sh") {
            Ok(())
        } else {
            Err(machine.status(UNIT).await)
        }
    })
    .await;
    site.close().await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_controllers_rpm_runs_it_as_a_user_of_its_own_which_needs_root() {
    const SETTINGS: &str = "/etc/codedeploy-controller/controller.yml";
    let site = Site::open().await;
    let machine = &site.machine;
    let first = site.packed("codedeploy-controller", "0.1.0", "rpm").await;
    // Any port but the usual one: the machine shares the host's network.
    machine.write(SETTINGS, "listen: 127.0.0.1:0\n");
    machine
        .succeed(&format!("{RPM} --install {first} 2>&1"))
        .await;
    machine.succeed(&format!("test -e {SETTINGS}.rpmnew")).await;
    machine
        .until_property(CONTROLLER, "ActiveState", "active")
        .await;
    assert_eq!(
        machine.property(CONTROLLER, "UnitFileState").await,
        "enabled"
    );
    assert_eq!(
        machine
            .succeed("stat -c '%U %a' /var/lib/codedeploy-controller")
            .await,
        "codedeploy-controller 700"
    );
    assert_eq!(
        machine
            .succeed(&format!("stat -c '%U:%G %a' {SETTINGS} {SETTINGS}.rpmnew"))
            .await,
        "root:codedeploy-controller 640\nroot:codedeploy-controller 640"
    );
    machine
        .succeed("codedeploy-controller host add box1 --tag env=test --json")
        .await;

    let before = machine.property(CONTROLLER, "MainPID").await;
    let second = site.packed("codedeploy-controller", "0.2.0", "rpm").await;
    machine
        .succeed(&format!("{RPM} --upgrade {second} 2>&1"))
        .await;
    machine
        .until_property(CONTROLLER, "ActiveState", "active")
        .await;
    assert_ne!(machine.property(CONTROLLER, "MainPID").await, before);

    machine
        .succeed(&format!(
            "{RPM} --erase codedeploy-controller 2>&1 && {RPM} --install {second} 2>&1"
        ))
        .await;
    machine
        .until_property(CONTROLLER, "ActiveState", "active")
        .await;
    let hosts = machine.succeed("codedeploy-controller host list").await;
    assert!(hosts.contains("box1"), "{hosts}");
    site.close().await;
}
