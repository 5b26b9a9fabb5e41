//! What systemd is told: readiness, and in words what the agent is doing. Without systemd, nothing happens.

use std::sync::Once;

use sd_notify::NotifyState;

/// Told once: the service was reached.
pub fn ready() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| notify(&[NotifyState::Ready, NotifyState::Status("waiting for deployments")]));
}

pub fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

pub fn stopping(commands: usize) {
    let text = format!("stopping; {commands} commands in progress are finished first");
    notify(&[NotifyState::Stopping, NotifyState::Status(&text)]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
