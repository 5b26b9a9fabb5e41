//! A Debian system of its own, booted with its own systemd in a container (systemd-nspawn(1)). It
//! shares the host's network, so a service on loopback is also its own. When it stops, all its
//! changes are lost.

use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

use crate::bucket::tools;
use crate::programs::{Program, Running};
use crate::wait;

/// Boots the system in folder $1 under the name $2, in a control group of version 2 of its own.
const BOOT: &str = r#"
set -e
if [ "$(stat --file-system --format %T /sys/fs/cgroup)" != cgroup2fs ]; then
  umount --recursive /sys/fs/cgroup || true
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
group="/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$2"
mkdir "$group"
echo $$ > "$group/cgroup.procs"
exec systemd-nspawn --quiet --keep-unit --register=no --machine="$2" --directory="$1" --volatile=overlay \
  --resolv-conf=off --boot --console=pipe
"#;

/// A running machine; it ends with the test.
#[derive(Debug)]
pub struct Machine {
    container: Running,
    /// The pid of its init on the host.
    init: u32,
    /// The control group of all its processes.
    group: PathBuf,
}

impl Machine {
    /// Boots a machine whose console writes to a file in `folder`.
    ///
    /// # Panics
    ///
    /// Without root, or if it does not boot.
    pub async fn boot(folder: &Path) -> Self {
        assert!(is_root(), "booting a machine needs root");
        let system = system();
        assert!(
            system.exists(),
            "{} is missing; tests/run makes it",
            system.display()
        );
        let unique = folder
            .file_name()
            .expect("a temporary folder")
            .to_string_lossy();
        let name = format!(
            "codedeploy-{}",
            unique.trim_matches(|c: char| !c.is_ascii_alphanumeric())
        );
        let arguments = |command: &mut Command| {
            command.args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                BOOT,
                "sh",
            ]);
            command.arg(&system).arg(&name);
        };
        let container = Program::at("unshare").start(arguments, &folder.join("console"));
        let init = wait::until("the machine has an init", async || {
            let pid = container.pid().ok_or("it ended")?;
            init_below(pid).ok_or("none yet")
        })
        .await;
        let machine = Self {
            container,
            init,
            group: control_group().join(name),
        };
        wait::until("the machine is up", async || {
            let state = machine.run("systemctl is-system-running").await;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            let up = ["running", "degraded"].contains(&state.as_str());
            if up {
                Ok(())
            } else {
                Err((state, machine.container.output()))
            }
        })
        .await;
        machine
    }

    /// The pid of its init on the host.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// The path on the host of the machine's `path`, which begins with a slash and contains no
    /// absolute link.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Writes a file into the machine.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("below the root"))
            .expect("the folder can be made");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Reads a file of the machine; empty if it does not exist.
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Runs a line of shell as root of the machine.
    pub async fn run(&self, line: &str) -> Output {
        let mut command = Program::at("nsenter").command(["--target", &self.init.to_string()]);
        command
            .args(["--all", "--", "/bin/sh", "-c", line])
            .env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C");
        command.output().await.expect("nsenter exists")
    }

    /// The same for a line that must succeed; returns its output, trimmed.
    pub async fn succeed(&self, line: &str) -> String {
        let output = self.run(line).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let said = [text(&output.stdout), text(&output.stderr)].join("\n");
        if !output.status.success() {
            let journal = text(
                &self
                    .run("journalctl --no-pager --lines=40 --output=cat")
                    .await
                    .stdout,
            );
            panic!(
                "{line}: {}\n{said}\nThe journal ends:\n{journal}",
                output.status
            );
        }
        text(&output.stdout)
    }

    /// A property of a unit.
    pub async fn property(&self, unit: &str, name: &str) -> String {
        self.succeed(&format!("systemctl show --value --property={name} {unit}"))
            .await
    }

    /// Waits until a unit's property has a value.
    pub async fn until_property(&self, unit: &str, name: &str, expected: &str) {
        wait::until(&format!("{name} of {unit} is {expected}"), async || {
            let found = self.property(unit, name).await;
            if found == expected {
                Ok(())
            } else {
                Err((found, self.status(unit).await))
            }
        })
        .await;
    }

    /// The status of a unit, as an operator sees it.
    pub async fn status(&self, unit: &str) -> String {
        let output = self
            .run(&format!("systemctl status --no-pager --full {unit}"))
            .await;
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends it like a power cut.
    pub async fn stop(self) {
        let group = self.group.clone();
        drop(self);
        wait::until("the machine's processes are gone", async || {
            remove_groups(&group);
            if group.exists() {
                Err(group.clone())
            } else {
                Ok(())
            }
        })
        .await;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Ending the container's manager alone would not end the container.
        let _ = std::fs::write(self.group.join("cgroup.kill"), "1");
    }
}

/// The folder of the system; `CODEDEPLOY_TEST_MACHINE` names another one, made by `tests/machine`.
fn system() -> PathBuf {
    std::env::var_os("CODEDEPLOY_TEST_MACHINE")
        .map_or_else(|| tools().join("machine"), PathBuf::from)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The child of `pid` that is the first process of a container.
fn init_below(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .find(|child: &u32| {
            let status =
                std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            status
                .lines()
                .any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
        })
}

/// The folder of this process's control group of version 2.
fn control_group() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    let mount = mounts
        .lines()
        .find_map(|line| line.split_once(" cgroup2 ")?.0.split(' ').nth(1));
    let groups = std::fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    Path::new(mount.unwrap_or("/sys/fs/cgroup")).join(own.unwrap_or_default())
}

/// Removes a control group with everything below it, as far as no process is in it.
fn remove_groups(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}
