//! Slots that root has: strangers on their way, and units of systemd.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown};

use codedeploy_tests::balancer::{free_port, get};
use codedeploy_tests::machine::Machine;
use codedeploy_tests::mounts::{Mounted, in_own_mounts};
use codedeploy_tests::programs::programs_folder;

use super::slots::{Bench, Revision, fails, revision, succeeds};
use crate::pages;

/// A user of nobody.
const STRANGER: u32 = 54_321;

#[tokio::test]
#[ignore = "needs root"]
async fn a_link_or_slots_that_a_stranger_could_lead_elsewhere_are_refused_which_needs_root() {
    let bench = Bench::new();
    let own = Some(0);
    chown(bench.path(""), Some(STRANGER), None).unwrap();
    let said = fails(bench.deploy(&revision("v1")).await);
    assert!(said.contains("belongs to user 54321"), "{said}");
    chown(bench.path(""), own, None).unwrap();
    let mode = |mode| fs::set_permissions(bench.path(""), fs::Permissions::from_mode(mode));
    mode(0o777).unwrap();
    let said = fails(bench.deploy(&revision("v1")).await);
    assert!(said.contains("can be written by everybody"), "{said}");
    mode(0o755).unwrap();
    fs::create_dir(bench.path("app.slots")).unwrap();
    chown(bench.path("app.slots"), Some(STRANGER), None).unwrap();
    let said = fails(bench.deploy(&revision("v1")).await);
    assert!(said.contains("app.slots belongs to user 54321"), "{said}");
    assert_eq!(bench.names("app.slots"), [""; 0]);
    chown(bench.path("app.slots"), own, None).unwrap();
    succeeds(bench.deploy(&revision("v1")).await);
    lchown(bench.path("app"), Some(STRANGER), None).unwrap();
    let said = fails(bench.deploy(&revision("v2")).await);
    assert!(said.contains("app belongs to user 54321"), "{said}");
    bench.expect("blue", "v1");
    lchown(bench.path("app"), own, None).unwrap();
    succeeds(bench.deploy(&revision("v2")).await);
    bench.expect("green", "v2");
}

#[test]
#[ignore = "needs root"]
fn what_is_mounted_in_a_slot_survives_its_end() {
    in_own_mounts(async || {
        let bench = Bench::new();
        succeeds(bench.deploy(&revision("v1")).await);
        fs::create_dir_all(bench.path("app.slots/green/data")).unwrap();
        fs::create_dir(bench.path("data")).unwrap();
        fs::write(bench.path("data/precious"), "").unwrap();
        let inside = bench.path("app.slots/green/data");
        let mounted = Mounted::mount(
            &["--bind".as_ref(), bench.path("data").as_os_str()],
            &inside,
        )
        .unwrap();
        let once = Revision {
            strategy: Some("  keep: 1\n"),
            ..revision("v2")
        };
        succeeds(bench.deploy(&once).await);
        let last = Revision {
            version: "v3",
            ..once
        };
        let said = succeeds(bench.deploy(&last).await);
        bench.expect("blue", "v3");
        assert!(said.contains("is a mount point"), "{said}");
        assert!(bench.path("data/precious").exists());
        mounted.unmount().unwrap();
    });
}

const UNIT: &str = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nEnvironmentFile=/srv/%i.env\n\
                    ExecStart=/usr/bin/python3 /srv/shop.slots/%i/server.py\nTimeoutStartSec=30\n";

/// Deploys a version on the machine; returns whether it succeeded, and the output.
async fn deploy(machine: &Machine, version: &str, server: &str) -> (bool, String) {
    machine.write("/srv/revision/app/VERSION", version);
    machine.write("/srv/revision/app/server.py", server);
    let output = machine
        .run("codedeploy-local --bundle-location /srv/revision 2>&1")
        .await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn units_are_started_and_stopped_without_any_script_which_needs_root() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::boot(folder.path()).await;
    let program = machine.path("/usr/bin/codedeploy-local");
    fs::copy(programs_folder().join("codedeploy-local"), program).unwrap();
    let ports = [free_port(), free_port()];
    for (slot, port) in ["blue", "green"].into_iter().zip(ports) {
        machine.write(&format!("/srv/{slot}.env"), &format!("PORT={port}\n"));
    }
    machine.write("/etc/systemd/system/shop@.service", UNIT);
    machine.succeed("systemctl daemon-reload").await;
    machine.write(
        "/srv/revision/appspec.yml",
        "version: 0.0\nos: linux\nfiles:\n  - {source: app, destination: /srv/shop}\nstrategy:\n  type: blue_green\n  \
         link: /srv/shop\n  units: [shop@.service]\n",
    );
    let server =
        pages::repository().join("appspec-examples/blue-green-systemd-socket/app/server.py");
    let server = fs::read_to_string(server).unwrap();
    let page = async |port: u16| get(([127, 0, 0, 1], port).into(), "/").await;

    succeeds(deploy(&machine, "one", &server).await);
    assert!(page(ports[0]).await.unwrap().contains("one"));
    succeeds(deploy(&machine, "two", &server).await);
    assert!(page(ports[1]).await.unwrap().contains("two"));
    machine
        .until_property("shop@blue", "ActiveState", "inactive")
        .await;
    let said = fails(deploy(&machine, "three", "raise SystemExit(3)\n").await);
    assert!(said.contains("failed at ApplicationStart"), "{said}");
    assert!(
        said.contains("systemctl restart shop@blue.service failed"),
        "{said}"
    );
    assert!(page(ports[1]).await.unwrap().contains("two"));
    assert_eq!(
        machine.succeed("readlink /srv/shop").await,
        "/srv/shop.slots/green"
    );
    succeeds(deploy(&machine, "four", &server).await);
    assert!(page(ports[0]).await.unwrap().contains("four"));
    machine
        .until_property("shop@green", "ActiveState", "inactive")
        .await;
}
