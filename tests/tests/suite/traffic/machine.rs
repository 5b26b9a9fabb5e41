//! The examples whose instances systemd starts, on a machine with a systemd of its own.

use std::path::Path;

use codedeploy_tests::balancer::{get, quiet_port};
use codedeploy_tests::bucket::tools;
use codedeploy_tests::machine::Machine;
use codedeploy_tests::programs::programs_folder;
use codedeploy_tests::shop::example_files;
use codedeploy_tests::visitors::Visitors;
use codedeploy_tests::{sweep, wait};

const NGINX: &str = "user root;\nevents {}\nhttp {\n  access_log off;\n  include /etc/nginx/conf.d/*.conf;\n  \
                     include /etc/nginx/sites-enabled/*;\n}\n";

/// Lets a server end when it is started with a socket or a port; `#` stands for the main function.
const BROKEN: &str = "    raise SystemExit('broken')\n";
const BROKEN_WITH_SOCKET: &str =
    "    if 'LISTEN_FDS' in os.environ:\n        raise SystemExit('broken with a socket')\n";

/// The page of a version.
fn hello(version: &str) -> String {
    format!("Hello from version {version}")
}

/// A machine with an example, whose ports no other test uses.
struct Shop {
    machine: Machine,
    example: &'static str,
    public: u16,
    ports: [u16; 2],
}

/// A way in which a deployment fails: the event in the report, and a change of a file.
struct Fault {
    event: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const IN_AFTER_INSTALL: Fault = Fault {
    event: "AfterInstall",
    file: "scripts/after_install.sh",
    from: "set -eu\n",
    to: "exit 1\n",
};
const IN_START: Fault = Fault {
    event: "ApplicationStart",
    file: "app/server.py",
    from: "def main():\n",
    to: BROKEN,
};
const IN_VALIDATION: Fault = Fault {
    event: "ValidateService",
    file: "scripts/validate_service.sh",
    from: "set -eu\n",
    to: "exit 1\n",
};
const WITH_SOCKET: Fault = Fault {
    event: "ValidateService",
    file: "app/server.py",
    from: "def main():\n",
    to: BROKEN_WITH_SOCKET,
};
const IN_NGINX: Fault = Fault {
    event: "ValidateService",
    file: "appspec.yml",
    from: "upstream: shop\n",
    to: "      test: [\"false\"]\n",
};

impl Shop {
    async fn boot(folder: &Path, example: &'static str) -> Self {
        let machine = Machine::boot(folder).await;
        let program = machine.path("/usr/bin/codedeploy-local");
        std::fs::copy(programs_folder().join("codedeploy-local"), program).unwrap();
        Self {
            machine,
            example,
            public: quiet_port(),
            ports: [quiet_port(), quiet_port()],
        }
    }

    /// A text of the example with the ports of this machine.
    fn rewritten(&self, text: &str) -> String {
        text.replace("8001", &self.ports[0].to_string())
            .replace("8002", &self.ports[1].to_string())
            .replace("8080", &self.public.to_string())
    }

    async fn deploy(&self, version: &str, fault: Option<&Fault>) -> (bool, String) {
        self.machine.succeed("rm -rf /srv/revision").await;
        for (name, text) in example_files(self.example) {
            let mut text = self.rewritten(&text);
            if name == "app/VERSION" {
                text = version.to_owned();
            }
            if let Some(fault) = fault.filter(|fault| fault.file == name) {
                assert!(text.contains(fault.from), "{text}");
                text = text.replacen(fault.from, &format!("{}{}", fault.from, fault.to), 1);
            }
            self.machine.write(&format!("/srv/revision/{name}"), &text);
        }
        let command = "codedeploy-local --bundle-location /srv/revision --type directory";
        let output = self.machine.run(command).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout) + &text(&output.stderr),
        )
    }

    async fn deployed(&self, version: &str) {
        let (succeeded, output) = self.deploy(version, None).await;
        assert!(succeeded, "{output}\n{}", self.units().await);
    }

    async fn units(&self) -> String {
        let shown = self
            .machine
            .run("journalctl --no-pager --lines=60 --output=cat")
            .await;
        String::from_utf8_lossy(&shown.stdout).into_owned()
    }

    /// Deploys again and again, each other time with a fault, while visitors come.
    async fn nobody_notices(&self, faults: &[&Fault]) {
        self.deployed("0").await;
        let address = ([127, 0, 0, 1], self.public).into();
        wait::until("the shop answers", async || get(address, "/").await).await;
        let visitors = Visitors::start(address, 6);
        visitors.see(&hello("0")).await;
        let rounds = if sweep::long() { 25 } else { faults.len() };
        for round in 1..=rounds {
            let fault = faults[(round - 1) % faults.len()];
            let wrong = format!("wrong {round}");
            let (succeeded, output) = self.deploy(&wrong, Some(fault)).await;
            let named = format!("  {:<20} failed after", fault.event);
            assert!(
                !succeeded && output.contains(&named),
                "{}: {output}",
                fault.event
            );
            let version = round.to_string();
            self.deployed(&version).await;
            visitors.see(&hello(&version)).await;
            let seen = visitors.seen();
            assert_eq!(
                seen.failed,
                0,
                "{}: {seen:#?}\n{}",
                fault.event,
                self.units().await
            );
        }
        visitors.stop().await.nothing_failed();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn systemd_hands_the_socket_over_and_nobody_notices_which_needs_root() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::boot(folder.path(), "blue-green-systemd-socket").await;
    shop.nobody_notices(&[&IN_AFTER_INSTALL, &IN_START, &IN_VALIDATION, &WITH_SOCKET])
        .await;

    // The next start of the host begins with the slot that serves.
    let machine = &shop.machine;
    let page = get(([127, 0, 0, 1], shop.public).into(), "/").await;
    machine.succeed("systemctl stop shop.socket 'shop@*'").await;
    machine.succeed("systemctl start shop.socket").await;
    let address = ([127, 0, 0, 1], shop.public).into();
    let again = wait::until("the socket starts it", async || get(address, "/").await).await;
    assert_eq!(Ok(again), page);
    shop.machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn nginx_leads_to_the_instance_that_serves_and_nobody_notices_which_needs_root() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::boot(folder.path(), "blue-green-nginx").await;
    let machine = &shop.machine;
    let program = tools().join("nginx/usr/sbin/nginx");
    std::fs::copy(program, machine.path("/usr/sbin/nginx")).unwrap();
    machine.write("/etc/nginx/nginx.conf", NGINX);
    let site = example_files(shop.example)
        .into_iter()
        .find(|(name, _)| name == "nginx/shop.conf")
        .map(|(_, text)| shop.rewritten(&text));
    machine.write("/etc/nginx/sites-enabled/shop.conf", &site.unwrap());
    let upstream = shop.rewritten("upstream shop { server 127.0.0.1:8001; }\n");
    machine.write("/etc/nginx/conf.d/shop-upstream.conf", &upstream);
    machine
        .succeed("mkdir -p /var/log/nginx /var/lib/nginx /usr/share/nginx")
        .await;
    machine
        .succeed("systemd-run --unit=nginx nginx -g 'daemon off;'")
        .await;
    shop.nobody_notices(&[&IN_AFTER_INSTALL, &IN_START, &IN_VALIDATION, &IN_NGINX])
        .await;
    shop.machine.stop().await;
}
