//! The agent's package: it is installed, started, used for deployments, upgraded, removed, and put
//! in place of AWS's.

use codedeploy_tests::machine::Machine;
use codedeploy_tests::wait;

use super::site::{CONFIGURATION, ON_PREMISES, Site, UNIT, appspec, succeeded};

const LOG: &str = "/var/log/aws/codedeploy-agent/codedeploy-agent.log";

/// A hook that runs until it is released.
const WAITS: &str =
    "#!/bin/sh\ntouch /srv/began\nwhile [ ! -e /srv/go ]; do sleep 0.05; done\ntouch /srv/ended\n";

#[tokio::test]
#[ignore = "needs root"]
async fn the_agents_package_serves_a_host_for_its_whole_life_which_needs_root() {
    let site = Site::open().await;
    is_enabled_and_waits_for_an_identity(&site).await;
    is_ready_once_the_service_answers(&site).await;
    let server = a_deployment_leaves_a_server(&site).await;
    a_stop_waits_for_the_hook_in_progress(&site, &server).await;
    let second = an_upgrade_waits_for_the_hook_in_progress(&site, &server).await;
    a_timeout_ends_even_what_hid(&site, &server).await;
    a_removal_keeps_what_is_not_the_packages(&site, &server).await;
    comes_back_as_it_was(&site, &second).await;
    a_purge_leaves_what_is_the_operators(&site).await;
    site.close().await;
}

async fn is_enabled_and_waits_for_an_identity(site: &Site) {
    let machine = &site.machine;
    let first = site.package("codedeploy-agent", "0.1.0").await;
    let said = machine
        .succeed(&format!("dpkg --install {first} 2>&1"))
        .await;
    assert!(said.contains("systemctl start codedeploy-agent"), "{said}");
    assert_eq!(machine.property(UNIT, "UnitFileState").await, "enabled");
    assert_eq!(machine.property(UNIT, "ActiveState").await, "inactive");
    assert_eq!(
        machine.read("/opt/codedeploy-agent/.version"),
        "agent_version: 0.1.0\n"
    );
    machine
        .succeed("codedeploy-local --help && command -v codedeploy-agent")
        .await;
    let notices = machine.read("/usr/share/doc/codedeploy-agent/THIRD-PARTY-NOTICES");
    assert!(notices.contains("\n  rustls "), "{notices:.500}");
}

async fn is_ready_once_the_service_answers(site: &Site) {
    site.register().await;
    let machine = &site.machine;
    machine.write(
        "/etc/profile.d/site.sh",
        "SITE_PROXY='http://proxy:3128 \"quoted\"'\nPATH=$PATH:/opt/site/bin\n",
    );
    machine.succeed("systemctl start codedeploy-agent").await;
    assert_eq!(machine.property(UNIT, "ActiveState").await, "active");
    assert_eq!(
        machine.property(UNIT, "StatusText").await,
        "waiting for deployments"
    );
}

/// Its hooks see /etc/profile, and nothing of the agent's own. Returns the pid of a server that a
/// hook has started.
async fn a_deployment_leaves_a_server(site: &Site) -> String {
    let machine = &site.machine;
    let hook = "#!/bin/sh\n{ env -0 | tr '\\0' '\\n' | sort; } > /srv/environment\n(exec ls /proc/self/fd) > /srv/fds\n\
         (exec cat /proc/self/status /proc/self/limits) > /srv/process\ncut -d' ' -f7 /proc/$$/stat > /srv/terminal\n\
         [ -e /srv/server.pid ] || { setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > /srv/server.pid; }\n";
    machine
        .succeed("groupadd deployers && useradd --create-home --groups adm,deployers deploy")
        .await;
    let who =
        "#!/bin/sh\n{ id -un; id -Gn; echo $HOME $USER $LOGNAME; echo $SITE_PROXY; } > /tmp/who\n";
    let simple = appspec(&[("AfterInstall", "who.sh"), ("ApplicationStart", "start.sh")]).replacen(
        "timeout: 60\n",
        "timeout: 60\n      runas: deploy\n      sudo: true\n",
        1,
    );
    let id = site
        .create(&[
            ("appspec.yml", &simple),
            ("who.sh", who),
            ("start.sh", hook),
            ("page", "one"),
        ])
        .await;
    succeeded(&site.outcome(&id).await);
    assert_eq!(
        machine.read("/tmp/who"),
        "deploy\ndeploy adm deployers\n/home/deploy deploy deploy\nhttp://proxy:3128 \"quoted\"\n"
    );
    assert_eq!(machine.read("/srv/app/page"), "one");
    let environment = machine.read("/srv/environment");
    for line in [
        "SITE_PROXY=http://proxy:3128 \"quoted\"\n",
        ":/opt/site/bin\n",
        "HOME=/root\n",
    ] {
        assert!(environment.contains(line), "{line} not in\n{environment}");
    }
    for name in [
        "NOTIFY_SOCKET=",
        "WATCHDOG_USEC=",
        "INVOCATION_ID=",
        "RUNTIME_DIRECTORY=",
    ] {
        assert!(!environment.contains(name), "{name} in\n{environment}");
    }
    assert_private(machine);
    machine.read("/srv/server.pid").trim().to_owned()
}

fn waiting_appspec() -> String {
    appspec(&[("BeforeInstall", "wait.sh")])
}

/// The hook ends well and is reported.
async fn a_stop_waits_for_the_hook_in_progress(site: &Site, server: &str) {
    let machine = &site.machine;
    let slow = waiting_appspec();
    let id = site
        .create(&[("appspec.yml", &slow), ("wait.sh", WAITS), ("page", "two")])
        .await;
    wait::until("the hook runs", async || {
        machine.path("/srv/began").metadata()
    })
    .await;
    machine
        .succeed("systemctl --no-block stop codedeploy-agent")
        .await;
    wait::until("the agent says that it stops", async || {
        let text = machine.property(UNIT, "StatusText").await;
        if text == "stopping; the command in progress is finished first" {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    assert_eq!(machine.property(UNIT, "ActiveState").await, "deactivating");
    machine.write("/srv/go", "");
    machine
        .until_property(UNIT, "ActiveState", "inactive")
        .await;
    assert_eq!(machine.property(UNIT, "Result").await, "success");
    assert!(machine.path("/srv/ended").exists());
    machine.succeed(&format!("kill -0 {server}")).await;
    let events = site.service.events(&id, "box1").await;
    let reported = events
        .iter()
        .any(|e| e.name == "BeforeInstall" && e.status.as_str() == "Succeeded");
    assert!(reported, "{events:#?}");

    // After a restart, the agent continues; the restart leaves the applications of hooks alone.
    machine.succeed("systemctl start codedeploy-agent").await;
    succeeded(&site.outcome(&id).await);
    assert_eq!(machine.read("/srv/app/page"), "two");
    machine.succeed("systemctl restart codedeploy-agent").await;
    machine.succeed(&format!("kill -0 {server}")).await;
}

/// The package is in place at once; the agent follows when the hook is done. Returns the package's
/// path.
async fn an_upgrade_waits_for_the_hook_in_progress(site: &Site, server: &str) -> String {
    let machine = &site.machine;
    for name in ["/srv/began", "/srv/go", "/srv/ended"] {
        std::fs::remove_file(machine.path(name)).unwrap();
    }
    let agent = machine.property(UNIT, "MainPID").await;
    let id = site
        .create(&[
            ("appspec.yml", &waiting_appspec()),
            ("wait.sh", WAITS),
            ("page", "three"),
        ])
        .await;
    wait::until("the hook runs", async || {
        machine.path("/srv/began").metadata()
    })
    .await;
    let second = site.package("codedeploy-agent", "0.2.0").await;
    machine
        .succeed(&format!("dpkg --install {second} 2>&1"))
        .await;
    assert_eq!(
        machine.read("/opt/codedeploy-agent/.version"),
        "agent_version: 0.2.0\n"
    );
    assert_eq!(machine.property(UNIT, "MainPID").await, agent);
    assert!(
        machine.read(CONFIGURATION).contains("s3_endpoint_override"),
        "the operator's file was kept"
    );
    machine.write("/srv/go", "");
    succeeded(&site.outcome(&id).await);
    assert!(machine.path("/srv/ended").exists());
    machine.until_property(UNIT, "ActiveState", "active").await;
    assert_ne!(machine.property(UNIT, "MainPID").await, agent);
    wait::until("the service is told the new version", async || {
        let log = machine.read(LOG);
        if log.contains("0.2.0") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    machine.succeed(&format!("kill -0 {server}")).await;
    second
}

/// A hidden process has no trace in its environment, its own session and no parent.
async fn a_timeout_ends_even_what_hid(site: &Site, server: &str) {
    let machine = &site.machine;
    let hides = "#!/bin/sh\n(env -i /usr/bin/setsid /bin/sh -c 'echo $$ > /srv/hidden; exec /bin/sleep 1000' \
         </dev/null >/dev/null 2>&1 &)\nsleep 1000\n";
    let short = waiting_appspec().replace("timeout: 60", "timeout: 2");
    let id = site
        .create(&[
            ("appspec.yml", &short),
            ("wait.sh", hides),
            ("page", "four"),
        ])
        .await;
    assert_eq!(site.outcome(&id).await.failed_event().name, "BeforeInstall");
    machine
        .succeed("test -s /srv/hidden && ! kill -0 $(cat /srv/hidden)")
        .await;
    machine.succeed(&format!("kill -0 {server}")).await;
}

async fn a_removal_keeps_what_is_not_the_packages(site: &Site, server: &str) {
    let machine = &site.machine;
    machine.succeed("dpkg --remove codedeploy-agent 2>&1").await;
    machine.succeed(&format!("kill -0 {server}")).await;
    for path in [
        CONFIGURATION,
        ON_PREMISES,
        LOG,
        "/opt/codedeploy-agent/deployment-root/deployment-instructions",
    ] {
        assert!(machine.path(path).exists(), "{path} was removed");
    }
    assert!(!machine.path("/opt/codedeploy-agent/bin").exists());
}

async fn a_purge_leaves_what_is_the_operators(site: &Site) {
    let machine = &site.machine;
    machine.succeed("dpkg --purge codedeploy-agent 2>&1").await;
    for path in [
        CONFIGURATION,
        LOG,
        "/opt/codedeploy-agent",
        "/etc/systemd/system/codedeploy-agent.service",
    ] {
        assert!(!machine.path(path).exists(), "{path} was not purged");
    }
    assert!(
        machine.path(ON_PREMISES).exists(),
        "what the operator put there is the operator's"
    );
    assert_eq!(
        machine.read("/srv/app/page"),
        "three",
        "applications are the operator's too"
    );
}

/// Checks that a hook's process is like one that init starts: it has none of the agent's files,
/// signals, limits or terminal.
fn assert_private(machine: &Machine) {
    assert_eq!(
        machine.read("/srv/fds"),
        "0\n1\n2\n3\n",
        "the last is that of ls"
    );
    assert_eq!(machine.read("/srv/terminal"), "0\n");
    let process = machine.read("/srv/process");
    let field = |name: &str| {
        let line = process.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(field("Umask:"), "0022");
    assert_eq!(field("SigBlk:"), "0000000000000000");
    // Except for signals from 32 on, some of which belong to the C library.
    assert_eq!(
        u64::from_str_radix(&field("SigIgn:"), 16).unwrap() & 0x7fff_ffff,
        0
    );
    assert!(
        field("Max core file size").contains("unlimited"),
        "{process}"
    );
    assert_eq!(field("NoNewPrivs:"), "0", "hooks may use sudo");
}

/// A removed agent that is installed again runs again, unless it was stopped or the machine forbids
/// it.
async fn comes_back_as_it_was(site: &Site, package: &str) {
    let machine = &site.machine;
    machine
        .succeed(&format!("dpkg --install {package} 2>&1"))
        .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    assert_eq!(machine.property(UNIT, "UnitFileState").await, "enabled");
    let status = machine.succeed("codedeploy-agent status --json").await;
    assert!(
        status.contains("\"succeeded\""),
        "the deployments of before are known: {status}"
    );
    let doctor = machine.succeed("codedeploy-agent doctor").await;
    let others = doctor
        .lines()
        .find(|line| line.contains("other-agents"))
        .unwrap_or_default();
    assert!(others.starts_with("ok "), "{doctor}");

    machine.succeed("systemctl stop codedeploy-agent").await;
    let third = site.package("codedeploy-agent", "0.3.0").await;
    machine
        .succeed(&format!("dpkg --install {third} 2>&1"))
        .await;
    assert_eq!(
        machine.property(UNIT, "ActiveState").await,
        "inactive",
        "stopped stays stopped"
    );
    machine
        .succeed(&format!(
            "dpkg --remove codedeploy-agent 2>&1 && dpkg --install {third} 2>&1"
        ))
        .await;
    assert_eq!(
        machine.property(UNIT, "ActiveState").await,
        "inactive",
        "stopped stays stopped"
    );

    machine.succeed("systemctl start codedeploy-agent").await;
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
    machine.succeed("chmod 755 /usr/sbin/policy-rc.d").await;
    machine
        .succeed(&format!(
            "dpkg --remove codedeploy-agent 2>&1 && dpkg --install {third} 2>&1"
        ))
        .await;
    assert_eq!(
        machine.property(UNIT, "ActiveState").await,
        "inactive",
        "the machine forbids it"
    );
    machine
        .succeed("rm /usr/sbin/policy-rc.d && dpkg --remove codedeploy-agent 2>&1")
        .await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_service_that_does_not_answer_holds_up_neither_boot_nor_agent_which_needs_root() {
    let site = Site::open().await;
    let package = site.package("codedeploy-agent", "0.1.0").await;
    site.machine
        .succeed(&format!("dpkg --install {package} 2>&1"))
        .await;
    site.register().await;
    let Site {
        machine,
        service,
        bucket,
        folder,
    } = site;
    let service = service.kill().await;

    // As at boot: the target that wants the unit is reached while the unit is still starting.
    machine.write(
        "/etc/systemd/system/codedeploy-agent.service.d/watchdog.conf",
        "[Service]\nWatchdogSec=2\n",
    );
    machine
        .succeed("systemctl daemon-reload && systemctl --no-block start codedeploy-agent")
        .await;
    wait::until("the unit says why it is not ready", async || {
        let text = machine.property(UNIT, "StatusText").await;
        if text.contains("cannot poll for commands") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    assert_eq!(machine.property(UNIT, "ActiveState").await, "activating");
    machine
        .succeed("timeout 20 systemctl restart multi-user.target")
        .await;
    assert_eq!(machine.property(UNIT, "ActiveState").await, "activating");

    // It starts by itself, and then sends watchdog messages.
    let agent = machine.property(UNIT, "MainPID").await;
    let service = service.restart().await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    let first = machine.property(UNIT, "WatchdogTimestampMonotonic").await;
    wait::until("it proves that it lives", async || {
        let now = machine.property(UNIT, "WatchdogTimestampMonotonic").await;
        if now == first { Err(now) } else { Ok(()) }
    })
    .await;
    assert_eq!(machine.property(UNIT, "MainPID").await, agent);

    // An agent that sends none is replaced.
    machine.succeed(&format!("kill -STOP {agent}")).await;
    wait::until("another agent", async || {
        let now = machine.property(UNIT, "MainPID").await;
        if now == agent || now == "0" {
            Err(now)
        } else {
            Ok(())
        }
    })
    .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    machine.stop().await;
    service.stop().await;
    bucket.stop().await;
    drop(folder);
}

/// A package with the files of AWS's package, as far as needed.
const OF_AWS: &str = r#"
set -e
cd "$(mktemp -d)"
mkdir -p DEBIAN etc/codedeploy-agent/conf opt/codedeploy-agent/bin etc/init.d
printf 'Package: codedeploy-agent\nVersion: 1.8.1-12\nArchitecture: all\nMaintainer: x <x@localhost>\nDescription: x\n' \
  > DEBIAN/control
printf '/etc/codedeploy-agent/conf/codedeployagent.yml\n/etc/init.d/codedeploy-agent\n' > DEBIAN/conffiles
printf -- '---\n:root_dir: /opt/codedeploy-agent/deployment-root\n' > etc/codedeploy-agent/conf/codedeployagent.yml
printf '#!/bin/sh\nexit 0\n' | tee etc/init.d/codedeploy-agent > opt/codedeploy-agent/bin/codedeploy-agent
chmod 755 etc/init.d/codedeploy-agent opt/codedeploy-agent/bin/codedeploy-agent
dpkg-deb --root-owner-group --build . /root/aws.deb
dpkg --install /root/aws.deb
mkdir -p /opt/codedeploy-agent/deployment-root/deployment-instructions
echo -n /opt/codedeploy-agent/deployment-root/g/d-1 \
  > /opt/codedeploy-agent/deployment-root/deployment-instructions/g_last_successful_install
echo ':max_revisions: 7' >> /etc/codedeploy-agent/conf/codedeployagent.yml
"#;

#[tokio::test]
#[ignore = "needs root"]
async fn the_package_takes_over_from_that_of_aws_and_gives_back_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    let instructions =
        "/opt/codedeploy-agent/deployment-root/deployment-instructions/g_last_successful_install";
    machine.succeed(OF_AWS).await;
    let package = site.package("codedeploy-agent", "0.1.0").await;
    let said = machine
        .succeed(&format!("dpkg --force-confold --install {package} 2>&1"))
        .await;
    assert!(!said.contains("downgrading"), "{said}");
    assert!(
        machine.read(CONFIGURATION).contains(":max_revisions: 7"),
        "the operator's configuration is kept"
    );
    assert!(machine.path(instructions).exists());
    site.register().await;
    machine.succeed("systemctl start codedeploy-agent").await;
    let agent = machine.property(UNIT, "MainPID").await;
    let hooks = appspec(&[]).replace("hooks:\n", "");
    let id = site
        .create(&[("appspec.yml", &hooks), ("page", "one")])
        .await;
    succeeded(&site.outcome(&id).await);

    machine
        .succeed("dpkg --force-confold --install /root/aws.deb 2>&1")
        .await;
    assert!(machine.path(instructions).exists());
    assert!(machine.read(CONFIGURATION).contains(":max_revisions: 7"));
    assert!(
        machine
            .read("/opt/codedeploy-agent/bin/codedeploy-agent")
            .starts_with("#!/bin/sh")
    );
    machine.succeed(&format!("! kill -0 {agent}")).await;
    assert!(
        !machine
            .path("/lib/systemd/system/codedeploy-agent.service")
            .exists()
    );
    site.close().await;
}
