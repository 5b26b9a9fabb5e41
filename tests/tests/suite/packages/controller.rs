//! The controller's package, and recovery when a part of it is lost.

use codedeploy_tests::machine::Machine;
use codedeploy_tests::wait;

use super::site::Site;
use crate::pages::recipes;

const UNIT: &str = "codedeploy-controller.service";
const CONFIGURATION: &str = "/etc/codedeploy-controller/controller.yml";
const STATE: &str = "/var/lib/codedeploy-controller";

/// The machine shares the host's network, so it uses any port but the usual one, to keep tests
/// apart.
const ANY_PORT: &str = "listen: 127.0.0.1:0\n";

#[tokio::test]
#[ignore = "needs root"]
async fn the_controllers_package_runs_it_as_a_user_of_its_own_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    let package = runs_as_a_user_of_its_own(&site).await;
    is_administered_by_root(machine).await;
    comes_back_after_a_removal(machine, &package).await;
    waits_for_a_port_that_is_taken(machine).await;
    machine
        .succeed("dpkg --remove codedeploy-controller 2>&1")
        .await;
    machine
        .succeed("dpkg --purge codedeploy-controller 2>&1")
        .await;
    assert!(!machine.path(STATE).exists());
    site.close().await;
}

/// Returns the package's path.
async fn runs_as_a_user_of_its_own(site: &Site) -> String {
    let machine = &site.machine;
    let package = site.package("codedeploy-controller", "0.1.0").await;
    machine.write(CONFIGURATION, ANY_PORT);
    machine
        .succeed(&format!("dpkg --force-confold --install {package} 2>&1"))
        .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    let address = wait::until("it says where it listens", async || {
        let address = machine.read(&format!("{STATE}/address"));
        if address.is_empty() {
            Err(machine.status(UNIT).await)
        } else {
            Ok(address)
        }
    })
    .await;
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert_eq!(
        machine.succeed(&format!("stat -c '%U %a' {STATE}")).await,
        "codedeploy-controller 700"
    );
    let config = format!("stat -c '%U:%G %a' {CONFIGURATION}");
    assert_eq!(
        machine.succeed(&config).await,
        "root:codedeploy-controller 640"
    );
    let notices = machine.read("/usr/share/doc/codedeploy-controller/THIRD-PARTY-NOTICES");
    assert!(notices.contains("\n  rusqlite "), "{notices:.500}");
    package
}

/// Root administers it while it runs, and does not change the owner of its files.
async fn is_administered_by_root(machine: &Machine) {
    machine
        .succeed("codedeploy-controller host add box1 --tag env=test --json")
        .await;
    assert_eq!(
        machine.succeed(&format!("find {STATE} -user root")).await,
        ""
    );
    machine
        .succeed("systemctl restart codedeploy-controller")
        .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    let exposure = machine
        .succeed("systemd-analyze --no-pager security codedeploy-controller 2>&1")
        .await;
    let level = exposure
        .lines()
        .find(|line| line.contains("Overall exposure level"))
        .and_then(|line| line.rsplit(": ").next()?.split(' ').next()?.parse().ok());
    assert!(level.is_some_and(|level: f64| level < 3.0), "{exposure}");
}

async fn comes_back_after_a_removal(machine: &Machine, package: &str) {
    machine
        .succeed("dpkg --remove codedeploy-controller 2>&1")
        .await;
    assert!(machine.path(STATE).exists());
    machine
        .succeed(&format!("dpkg --install {package} 2>&1"))
        .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    assert_eq!(machine.property(UNIT, "UnitFileState").await, "enabled");
}

/// A busy port is retried from time to time, until it is free.
async fn waits_for_a_port_that_is_taken(machine: &Machine) {
    machine
        .succeed("systemctl stop codedeploy-controller")
        .await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    machine.write(CONFIGURATION, &format!("listen: {port}\n"));
    machine
        .succeed("systemctl --no-block start codedeploy-controller")
        .await;
    wait::until("it was tried twice", async || {
        let log = machine
            .succeed(&format!("journalctl -u {UNIT} -o cat --no-pager"))
            .await;
        let tries = log
            .lines()
            .filter(|line| line.contains("cannot listen on"))
            .count();
        if tries >= 2 { Ok(()) } else { Err(log) }
    })
    .await;
    let starts = machine.property(UNIT, "NRestarts").await;
    assert!(starts.parse::<u32>().unwrap() <= 3, "{starts} starts");
    drop(taken);
    machine.until_property(UNIT, "ActiveState", "active").await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_page_on_disaster_recovery_works_as_it_stands_which_needs_root() {
    let site = Site::open().await;
    let machine = &site.machine;
    let package = site.package("codedeploy-controller", "0.1.0").await;
    machine.write(CONFIGURATION, ANY_PORT);
    machine
        .succeed(&format!("dpkg --force-confold --install {package} 2>&1"))
        .await;
    machine.until_property(UNIT, "ActiveState", "active").await;
    machine
        .succeed("codedeploy-controller host add box1 --tag env=test --json")
        .await;
    let pin = machine.succeed("codedeploy-controller signer").await;

    let kept = follow(machine, "## Backups").await;
    assert!(kept.contains("codedeploy-2"), "no backup was made:\n{kept}");
    let drill = follow(machine, "## Restore drill").await;
    assert!(
        drill.contains("box1") && drill.ends_with("the pins are the same"),
        "{drill}"
    );

    let damage = format!(
        "echo 'not a database' > {STATE}/codedeploy.sqlite3; rm -f {STATE}/codedeploy.sqlite3-*"
    );
    machine
        .succeed(&format!("systemctl stop {UNIT} && {damage}"))
        .await;
    follow(machine, "## The database is damaged").await;
    knows_its_host(machine, &pin).await;

    machine
        .succeed(&format!(
            "systemctl stop {UNIT} && rm {STATE}/master.key {STATE}/signer-key.der"
        ))
        .await;
    follow(machine, "## A key file is lost").await;
    knows_its_host(machine, &pin).await;

    machine
        .succeed("dpkg --purge codedeploy-controller 2>&1")
        .await;
    assert!(!machine.path(STATE).exists());
    machine.write(CONFIGURATION, ANY_PORT);
    let listed = follow(machine, "## The machine is lost").await;
    assert!(listed.contains("box1"), "{listed}");
    knows_its_host(machine, &pin).await;

    machine
        .succeed(&format!("systemctl stop {UNIT} && rm {STATE}/master.key"))
        .await;
    follow(machine, "## A key is lost for good").await;
    knows_its_host(machine, &pin).await;
    let good = machine
        .succeed("codedeploy-controller credentials list --json")
        .await;
    assert_eq!(good, "[]", "every access key was revoked");
    site.close().await;
}

/// Runs the page's shell lines below a heading, in the folder with the package; returns their
/// output.
async fn follow(machine: &Machine, heading: &str) -> String {
    let recipe = recipes("docs/controller/recovery.md", heading);
    // dpkg would ask an operator which settings to keep.
    machine
        .succeed(&format!(
            "export DPKG_FORCE=confold\ncd /root && set -e\n{recipe}"
        ))
        .await
}

async fn knows_its_host(machine: &Machine, pin: &str) {
    machine.until_property(UNIT, "ActiveState", "active").await;
    let hosts = machine.succeed("codedeploy-controller host list").await;
    assert!(hosts.contains("box1"), "{hosts}");
    assert_eq!(
        machine.succeed("codedeploy-controller signer").await,
        pin,
        "hosts have another pin"
    );
}
