//! A shop: the server of an example, which `codedeploy-local` deploys to one folder or to two slots
//! behind a real program that moves traffic, and visitors never notice.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::balancer::{Balancer, quiet_port, socket};
use crate::bundle;
use crate::nginx::Nginx;
use crate::programs::{Program, Programs, Running};

/// The events at which a deployment can fail, in their order.
pub const FAILING: [&str; 7] = [
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

/// The program in front of the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    Haproxy,
    Nginx,
    Command,
}

/// The way in which the shop is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Slots,
    /// As AWS's agents deploy the same revision: without its strategy.
    InPlace,
}

/// The folders, ports and front door of a shop; its servers end with it.
#[derive(Debug)]
pub struct Shop {
    programs: Programs,
    provider: Provider,
    way: Way,
    address: SocketAddr,
    ports: [u16; 2],
    door: Door,
    folder: tempfile::TempDir,
}

/// The running program.
#[derive(Debug)]
enum Door {
    Haproxy { _balancer: Balancer },
    Nginx(Nginx),
    Command { _front: Running },
}

impl Shop {
    /// Opens the door; there is nothing behind it before the first deployment.
    pub async fn open(programs: Programs, provider: Provider, way: Way) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        let configuration = format!(
            "root_dir: {path}/root\nlog_dir: {path}/log\npid_dir: {path}/run\n",
            path = path.display()
        );
        std::fs::write(path.join("conf.yml"), configuration).expect("the folder is ours");
        let (mut address, ports) = (
            SocketAddr::from(([127, 0, 0, 1], quiet_port())),
            [quiet_port(), quiet_port()],
        );
        let here = |text: &str| rewritten(text, path, address.port(), ports);
        let door = match provider {
            Provider::Haproxy => {
                let head = format!(
                    "global\n  stats socket {} mode 600 level admin\ndefaults\n  timeout connect 2s\n  \
                     timeout client 20s\n  timeout server 20s\n",
                    socket(path).display()
                );
                let site = examples().join(example(provider)).join("haproxy/shop.cfg");
                let site = std::fs::read_to_string(site).expect("the example has it");
                let _balancer = Balancer::run(path, address, &(head + &here(&site))).await;
                Door::Haproxy { _balancer }
            }
            Provider::Nginx => {
                let nginx = Nginx::start(path).await;
                address = nginx.address;
                Door::Nginx(nginx)
            }
            Provider::Command => {
                let target = path.join("var/lib/shop/target");
                let parent = target.parent().expect("it is in a folder");
                std::fs::create_dir_all(parent).expect("the folder is ours");
                std::fs::write(&target, ports[0].to_string()).expect("the folder is ours");
                let configured = |command: &mut tokio::process::Command| {
                    command.arg(examples().join(example(provider)).join("front/front.py"));
                    command
                        .args(["127.0.0.1", &address.port().to_string()])
                        .arg(&target);
                };
                let _front = Program::at("python3").start(configured, &path.join("front.log"));
                Door::Command { _front }
            }
        };
        Self {
            programs,
            provider,
            way,
            address,
            ports,
            door,
            folder,
        }
    }

    /// The address that visitors know.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Deploys a version; `fails` is the event at which it fails. Returns whether the deployment
    /// succeeded, and its output.
    pub async fn deploy(&self, version: &str, fails: Option<&str>) -> (bool, String) {
        let revision = self.revision(version, fails);
        let words = [
            "-l".into(),
            revision.into_os_string(),
            "-t".into(),
            "directory".into(),
            "-c".into(),
            self.folder.path().join("conf.yml").into_os_string(),
        ];
        let output = self.programs.local.output(words).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let output_text = text(&output.stdout) + &text(&output.stderr);
        (output.status.success(), output_text)
    }

    /// Writes the example for this shop, with a version of its own.
    fn revision(&self, version: &str, fails: Option<&str>) -> PathBuf {
        let folder = self.folder.path().join("revision");
        let _ = std::fs::remove_dir_all(&folder);
        let path = self.folder.path();
        let fail = "#!/bin/sh\necho 'told to fail'\nexit 1\n";
        let mut files = example_files(example(self.provider));
        files.push(("scripts/fail.sh".to_owned(), fail.to_owned()));
        let mut written = Vec::new();
        for (name, text) in files {
            let mut text = rewritten(&text, path, self.address.port(), self.ports);
            match name.as_str() {
                "app/VERSION" => version.clone_into(&mut text),
                "appspec.yml" => text = self.appspec(text, fails),
                _ => {}
            }
            written.push((name, text));
        }
        let borrowed: Vec<_> = written
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        bundle::write(&folder, &borrowed);
        folder
    }

    fn appspec(&self, mut text: String, fails: Option<&str>) -> String {
        let cut = |text: &str, from: &str, to: &str, new: &str| {
            let (before, rest) = text.split_once(from).expect("the example has it");
            let (_, after) = rest.split_once(to).expect("the example has it");
            format!("{before}{new}{to}{after}")
        };
        if let Door::Nginx(nginx) = &self.door {
            let traffic = format!("  traffic:\n    {}\n", nginx.traffic());
            text = cut(&text, "  traffic:\n", "hooks:\n", &traffic);
        }
        if self.way == Way::InPlace {
            text = cut(&text, "strategy:\n", "hooks:\n", "");
        }
        match fails {
            None => text,
            Some("Install") => {
                // A folder cannot be made where a file is.
                let file = self.folder.path().join("conf.yml");
                let wrong = format!(
                    "files:\n  - source: app\n    destination: {}\n",
                    file.display()
                );
                text.replacen("files:\n", &wrong, 1)
            }
            Some(event) => failing(&text, event),
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for slot in ["blue", "green"] {
            let file = self.folder.path().join(format!("run/shop/{slot}.pid"));
            let pid = std::fs::read_to_string(file).ok();
            if let Some(pid) = pid.and_then(|text| text.trim().parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// The example of a provider; that of nginx needs systemd, so its server runs from scripts here.
fn example(provider: Provider) -> &'static str {
    match provider {
        Provider::Haproxy | Provider::Nginx => "blue-green-haproxy",
        Provider::Command => "blue-green-command",
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../appspec-examples")
}

/// A text of the example, with places and ports of this shop.
fn rewritten(text: &str, folder: &Path, public: u16, ports: [u16; 2]) -> String {
    let at = |path: &str| folder.join(path).display().to_string();
    text.replace(
        "/run/haproxy/admin.sock",
        &socket(folder).display().to_string(),
    )
    .replace("/srv/shop", &at("srv/shop"))
    .replace("/run/shop", &at("run/shop"))
    .replace("/var/lib/shop", &at("var/lib/shop"))
    .replace("8001", &ports[0].to_string())
    .replace("8002", &ports[1].to_string())
    .replace("8080", &public.to_string())
}

/// The names and texts of all files of an example.
pub fn example_files(example: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    read(&examples().join(example), "", &mut files);
    files
}

/// Adds the files in the folder `name` of the example.
fn read(example: &Path, name: &str, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(example.join(name)).expect("the example has the folder") {
        let below = entry.expect("the folder can be read").file_name();
        let path = Path::new(name).join(below);
        let path = path.to_str().expect("names are text");
        let file = example.join(path);
        if file.is_dir() {
            read(example, path, files);
        } else {
            let text = std::fs::read_to_string(file).expect("examples are text");
            files.push((path.to_owned(), text));
        }
    }
}

/// An AppSpec file whose event ends in a script that fails.
fn failing(appspec: &str, event: &str) -> String {
    let entry = "    - location: scripts/fail.sh\n      timeout: 60\n";
    let key = format!("  {event}:\n");
    let Some((before, rest)) = appspec.split_once(&key) else {
        return format!("{appspec}{key}{entry}");
    };
    // Behind its own script.
    let lines = rest.split_inclusive('\n');
    let own: String = lines.clone().take(2).collect();
    let others: String = lines.skip(2).collect();
    format!("{before}{key}{own}{entry}{others}")
}
