//! A listening socket that systemd hands from one instance of a service to the other, on a machine
//! with a systemd of its own.

use codedeploy_tests::balancer::{free_port, get};
use codedeploy_tests::machine::Machine;
use codedeploy_tests::programs::programs_folder;
use codedeploy_tests::visitors::Visitors;
use codedeploy_tests::{sweep, wait};

use crate::pages;

const UNIT: &str = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nEnvironmentFile=/srv/%i.env\n\
                    ExecStart=/usr/bin/python3 /srv/%i/server.py\nTimeoutStopSec=30\nTimeoutStartSec=30\n";

/// The page of a version.
fn hello(version: &str) -> String {
    format!("Hello from version {version}")
}

/// The example's server, in both slots of a machine.
struct Slots {
    machine: Machine,
    public: u16,
    ports: [u16; 2],
}

impl Slots {
    async fn boot(folder: &std::path::Path) -> Self {
        let machine = Machine::boot(folder).await;
        let (public, ports) = (free_port(), [free_port(), free_port()]);
        let server =
            pages::repository().join("appspec-examples/blue-green-systemd-socket/app/server.py");
        let server = std::fs::read_to_string(server).unwrap();
        for (slot, port) in ["blue", "green"].into_iter().zip(ports) {
            machine.write(&format!("/srv/{slot}/server.py"), &server);
            machine.write(&format!("/srv/{slot}.env"), &format!("PORT={port}\n"));
        }
        let socket = format!("[Socket]\nListenStream=127.0.0.1:{public}\nBacklog=1024\n");
        machine.write("/etc/systemd/system/shop.socket", &socket);
        machine.write("/etc/systemd/system/shop@.service", UNIT);
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - {{source: /, destination: /srv/app}}\nstrategy:\n  type: blue_green\n  \
             link: /srv/app\n  ports: [{}, {}]\n  drain: 30\n  traffic:\n    \
             systemd-socket: {{socket: shop.socket, service: shop@.service}}\n",
            ports[0], ports[1]
        );
        machine.write("/srv/appspec.yml", &appspec);
        let program = machine.path("/srv/move_traffic");
        std::fs::copy(programs_folder().join("move_traffic"), program).unwrap();
        machine.succeed("systemctl daemon-reload").await;
        Self {
            machine,
            public,
            ports,
        }
    }

    /// Starts the new version as a deployment does, where only its own port leads to it.
    async fn start(&self, slot: &str, version: &str) {
        self.machine.write(&format!("/srv/{slot}/VERSION"), version);
        self.machine
            .succeed(&format!("systemctl restart shop@{slot}"))
            .await;
        let port = self.ports[usize::from(slot == "green")];
        let page = get(([127, 0, 0, 1], port).into(), "/").await;
        assert_eq!(page, Ok(hello(version)));
    }

    async fn move_to(&self, slot: &str) -> std::process::Output {
        self.machine
            .run(&format!("/srv/move_traffic /srv/appspec.yml {slot}"))
            .await
    }

    async fn release(&self, slot: &str, version: &str) {
        self.start(slot, version).await;
        let moved = self.move_to(slot).await;
        assert!(
            moved.status.success(),
            "{}",
            String::from_utf8_lossy(&moved.stderr)
        );
        let old = if slot == "blue" {
            "shop@green"
        } else {
            "shop@blue"
        };
        self.machine
            .until_property(old, "ActiveState", "inactive")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn systemd_hands_the_socket_over_and_no_request_fails_which_needs_root() {
    let folder = tempfile::tempdir().unwrap();
    let slots = Slots::boot(folder.path()).await;
    slots.release("blue", "release 0").await;
    let address = ([127, 0, 0, 1], slots.public).into();
    assert_eq!(get(address, "/").await, Ok(hello("release 0")));

    let visitors = Visitors::start(address, 6);
    let rounds = if sweep::long() { 50 } else { 4 };
    for round in 1..=rounds {
        let slot = if round % 2 == 0 { "blue" } else { "green" };
        let text = format!("release {round}");
        slots.release(slot, &text).await;
        visitors.see(&hello(&text)).await;
    }

    // Repeated, as after a crash, it starts nothing anew.
    let pid = slots.machine.property("shop@blue", "MainPID").await;
    assert!(slots.move_to("blue").await.status.success());
    assert_eq!(slots.machine.property("shop@blue", "MainPID").await, pid);

    // A version that is not ready gets no traffic, and the serving one keeps the socket.
    slots
        .machine
        .write("/srv/green/server.py", "import sys\nsys.exit('broken')\n");
    let moved = slots.move_to("green").await;
    let said = String::from_utf8_lossy(&moved.stderr).into_owned();
    assert!(
        !moved.status.success() && said.contains("systemctl"),
        "{said}"
    );
    visitors.see(&hello(&format!("release {rounds}"))).await;
    slots
        .machine
        .until_property("shop.socket", "ActiveState", "active")
        .await;
    slots
        .machine
        .until_property("shop@green", "ActiveState", "failed")
        .await;
    visitors.stop().await.nothing_failed();

    // The next start of the host begins with the slot that serves.
    slots
        .machine
        .succeed("systemctl stop shop.socket shop@blue && systemctl start shop.socket")
        .await;
    let page = wait::until("the socket starts it", async || get(address, "/").await).await;
    assert_eq!(page, hello(&format!("release {rounds}")));
    slots.machine.stop().await;
}
