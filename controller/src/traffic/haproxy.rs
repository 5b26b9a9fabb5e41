//! HAProxy: drains an instance, or makes it ready, through the runtime API.

mod runtime;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::load_balancers::Haproxy as Settings;
use crate::deployment::traffic::Direction;
pub(super) use runtime::HaproxyError;
use runtime::Runtime;

/// A backend of an HAProxy, and the known state of its servers.
#[derive(Debug)]
pub(super) struct Haproxy {
    settings: Settings,
    runtime: Runtime,
}

/// The interval of checks of a server.
const LOOK: Duration = Duration::from_millis(200);

impl Haproxy {
    pub(super) fn new(settings: Settings) -> Self {
        Haproxy {
            settings,
            runtime: Runtime::default(),
        }
    }

    /// Returns a remark, if there is one.
    pub(super) async fn perform(
        &self,
        direction: Direction,
        instance: &str,
    ) -> Result<Option<String>, Arc<HaproxyError>> {
        let server = self
            .settings
            .servers
            .get(instance)
            .map_or(instance, String::as_str);
        match direction {
            Direction::Block => self.drain(server).await,
            Direction::Allow => self.make_ready(server).await.map(|()| None),
        }
    }

    /// Stops new sessions, and waits for running ones.
    async fn drain(&self, server: &str) -> Result<Option<String>, Arc<HaproxyError>> {
        let mut told = self.set(server, "drain").await?;
        let until = Instant::now() + self.settings.drain;
        loop {
            let seen = self
                .runtime
                .look(&self.settings.socket, &self.settings.backend, server, told)
                .await?;
            told = Instant::now();
            if !seen.is_taken_out() {
                // A restarted HAProxy has lost the state, and does not show it for a server that is
                // down.
                told = self.set(server, "drain").await?;
            }
            if !seen.takes_traffic() && seen.sessions == 0 {
                return Ok(None);
            }
            if !seen.takes_traffic() && told >= until {
                let shutdown = format!(
                    "shutdown sessions server {}/{server}",
                    self.settings.backend
                );
                self.runtime.tell(&self.settings.socket, &shutdown).await?;
                return Ok(Some(format!(
                    "{} sessions of {}/{server} had not ended after {} s and were closed.",
                    seen.sessions,
                    self.settings.backend,
                    self.settings.drain.as_secs_f64()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Allows new sessions, and waits until HAProxy reports the server as up.
    async fn make_ready(&self, server: &str) -> Result<(), Arc<HaproxyError>> {
        let mut told = self.set(server, "ready").await?;
        loop {
            let seen = self
                .runtime
                .look(&self.settings.socket, &self.settings.backend, server, told)
                .await?;
            told = Instant::now();
            if seen.takes_traffic() {
                return Ok(());
            }
            if seen.is_taken_out() {
                told = self.set(server, "ready").await?;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns the time of the change: later states reflect it, unless HAProxy has lost it.
    async fn set(&self, server: &str, state: &str) -> Result<Instant, Arc<HaproxyError>> {
        let command = format!(
            "set server {}/{server} state {state}",
            self.settings.backend
        );
        let answer = self.runtime.tell(&self.settings.socket, &command).await?;
        if answer.trim().is_empty() {
            return Ok(Instant::now());
        }
        Err(HaproxyError::Refused {
            command,
            answer: answer.trim().chars().take(200).collect(),
        }
        .into())
    }
}
