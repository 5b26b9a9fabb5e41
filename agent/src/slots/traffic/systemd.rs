//! systemd: hands the listening socket of a socket unit to the instance of a service that serves.
//!
//! The socket unit stays active throughout, so that the kernel queues connections while nobody
//! accepts them. systemd passes the socket when a service starts, to the service that the socket
//! unit names as `Service=` (systemd.socket(5)). So the agent names the new instance in a drop-in,
//! restarts that instance, which then accepts beside the old one, and when it is ready stops the
//! old one, which finishes its requests.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use codedeploy_hooks::appspec::strategy::traffic::SystemdSocket;
use codedeploy_hooks::fs::replace_file;
use codedeploy_hooks::slots::{Side, SlotName};

use super::program::{self, ProgramError};
use crate::bounded_read;

/// The folder of the host's own units.
const UNITS: &str = "/etc/systemd/system";

/// The name of the drop-in.
const DROP_IN: &str = "codedeploy-slot.conf";

/// The time for a question or a change without a start.
const QUICK: Duration = Duration::from_secs(30);

/// The time in which an instance must stop and be ready again; its own limits are usually shorter.
const START: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error("the drop-in {path} cannot be {what}")]
    DropIn {
        path: PathBuf,
        what: &'static str,
        source: io::Error,
    },
    #[error("systemctl failed")]
    Systemctl(#[from] ProgramError),
    #[error("{unit} is {state} after its start; expected active")]
    NotActive { unit: String, state: String },
}

/// Starts the slot's instance with the socket, and stops the other one. If the first is not ready,
/// it is stopped, and the other one goes on.
pub(super) async fn move_to(units: &SystemdSocket, to: &Side) -> Result<(), SystemdError> {
    let drop_in = DropIn::of(units);
    let before = drop_in.read()?;
    let new = units.service.of(to.name);
    drop_in.write(&format!("[Socket]\nService={new}\n"))?;
    if let Err(error) = hand_over(units, &new).await {
        drop_in.put_back(before.as_deref())?;
        for arguments in [["stop", &new], ["daemon-reload", "--quiet"]] {
            if let Err(error) = systemctl(&arguments, START).await {
                tracing::warn!(%error, "systemd keeps the new instance");
            }
        }
        return Err(error);
    }
    let old = units.service.of(to.name.other());
    systemctl(&["stop", "--no-block", &old], QUICK).await?;
    Ok(())
}

/// The number of instances of a slot that have not ended: 1 or 0.
pub(super) async fn running(units: &SystemdSocket, slot: SlotName) -> Result<u64, SystemdError> {
    let unit = units.service.of(slot);
    let state = property(&unit, "ActiveState").await?;
    Ok(u64::from(!matches!(state.as_str(), "inactive" | "failed")))
}

/// Starts the socket unit, unless it is active, and the instance with the socket.
async fn hand_over(units: &SystemdSocket, new: &str) -> Result<(), SystemdError> {
    let socket = units.socket.to_string();
    systemctl(&["daemon-reload"], QUICK).await?;
    if property(&socket, "ActiveState").await? != "active" {
        // A socket unit cannot start while its service runs.
        systemctl(&["stop", new], START).await?;
        systemctl(&["start", &socket], QUICK).await?;
    }
    if !has_socket(new, &socket).await? {
        // Frequent deployments do not count as failures of the unit.
        systemctl(&["reset-failed", new], QUICK).await.ok();
        systemctl(&["restart", new], START).await?;
    }
    let state = property(new, "ActiveState").await?;
    if state != "active" {
        let unit = new.to_owned();
        return Err(SystemdError::NotActive { unit, state });
    }
    Ok(())
}

/// Whether the unit runs with the socket: systemd lists its name in the environment
/// (sd_listen_fds(3)).
async fn has_socket(unit: &str, socket: &str) -> Result<bool, SystemdError> {
    if property(unit, "ActiveState").await? != "active" {
        return Ok(false);
    }
    let pid = property(unit, "MainPID").await?;
    let environment = bounded_read::read(format!("/proc/{pid}/environ").as_ref());
    let environment = String::from_utf8_lossy(&environment.unwrap_or_default()).into_owned();
    let names = environment
        .split('\0')
        .find_map(|variable| variable.strip_prefix("LISTEN_FDNAMES="));
    Ok(names.is_some_and(|names| names.split(':').any(|name| name == socket)))
}

async fn property(unit: &str, name: &str) -> Result<String, SystemdError> {
    let property = format!("--property={name}");
    let shown = systemctl(&["show", "--value", &property, unit], QUICK).await?;
    Ok(shown.trim().to_owned())
}

async fn systemctl(arguments: &[&str], limit: Duration) -> Result<String, ProgramError> {
    program::run("systemctl", arguments, limit).await
}

/// The file that names the instance which gets the socket.
#[derive(Debug)]
struct DropIn {
    path: PathBuf,
}

impl DropIn {
    fn of(units: &SystemdSocket) -> Self {
        let path = format!("{UNITS}/{}.d/{DROP_IN}", units.socket);
        Self { path: path.into() }
    }

    fn read(&self) -> Result<Option<Vec<u8>>, SystemdError> {
        match bounded_read::read(&self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.cannot("read", source)),
        }
    }

    fn write(&self, text: &str) -> Result<(), SystemdError> {
        let folder = self.path.parent().unwrap_or(UNITS.as_ref());
        std::fs::create_dir_all(folder)
            .and_then(|()| replace_file(&self.path, text.as_bytes(), 0o644))
            .map_err(|source| self.cannot("written", source))
    }

    fn put_back(&self, before: Option<&[u8]>) -> Result<(), SystemdError> {
        match before {
            Some(bytes) => self.write(&String::from_utf8_lossy(bytes)),
            None => {
                std::fs::remove_file(&self.path).map_err(|source| self.cannot("removed", source))
            }
        }
    }

    fn cannot(&self, what: &'static str, source: io::Error) -> SystemdError {
        SystemdError::DropIn {
            path: self.path.clone(),
            what,
            source,
        }
    }
}
