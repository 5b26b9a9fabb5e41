//! HAProxy: an instance is drained, or made ready, through its runtime API.

mod runtime;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use tokio::time::Instant;

use crate::deployment::traffic::Direction;
pub(super) use runtime::HaproxyError;
use runtime::Runtime;

/// A backend of an HAProxy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Haproxy {
    /// The path of a unix socket with `level admin`, or the `host:port` of one on TCP.
    socket: String,
    backend: String,
    /// The names of servers that are not called as their instances.
    #[serde(default)]
    servers: BTreeMap<String, String>,
    /// How long sessions are given to end by themselves.
    #[serde(default = "default_drain", deserialize_with = "seconds")]
    drain: Duration,
    #[serde(skip)]
    runtime: Arc<Runtime>,
}

fn default_drain() -> Duration {
    Duration::from_secs(300)
}

/// Reads seconds, up to a day.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if (0.0..=86_400.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(de::Error::custom(format_args!("drain is {seconds}: expected a number of seconds from 0 to 86400")))
}

/// How often a server is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl Haproxy {
    /// What is wrong with the settings.
    pub(super) fn mistake(&self) -> Option<String> {
        let port = |text: &str| text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !self.socket.starts_with('/') && !port(&self.socket) {
            return Some(format!(
                "haproxy.socket is {:?}: expected the absolute path of a socket, or host:port",
                self.socket
            ));
        }
        // They become words of a command line.
        let unfit = |name: &&String| {
            name.is_empty()
                || name.contains(|c: char| c.is_whitespace() || c.is_control() || ";/\\".contains(c))
        };
        let name = std::iter::once(&self.backend).chain(self.servers.values()).find(unfit)?;
        Some(format!(
            "haproxy has the name {name:?}: expected the name of a backend or server, as HAProxy has it"
        ))
    }

    /// Gives what there is to remark.
    pub(super) async fn perform(
        &self,
        direction: Direction,
        instance: &str,
    ) -> Result<Option<String>, Arc<HaproxyError>> {
        let server = self.servers.get(instance).map_or(instance, String::as_str);
        match direction {
            Direction::Block => self.drain(server).await,
            Direction::Allow => self.make_ready(server).await.map(|()| None),
        }
    }

    /// New sessions go elsewhere, and those under way are waited for.
    async fn drain(&self, server: &str) -> Result<Option<String>, Arc<HaproxyError>> {
        let mut told = self.set(server, "drain").await?;
        let until = Instant::now() + self.drain;
        loop {
            let seen = self.runtime.look(&self.socket, &self.backend, server, told).await?;
            told = Instant::now();
            if !seen.is_taken_out() {
                // An HAProxy that was started anew has forgotten; of a server that is down it does not show whether.
                told = self.set(server, "drain").await?;
            }
            if !seen.takes_traffic() && seen.sessions == 0 {
                return Ok(None);
            }
            if !seen.takes_traffic() && told >= until {
                let shutdown = format!("shutdown sessions server {}/{server}", self.backend);
                self.runtime.tell(&self.socket, &shutdown).await?;
                return Ok(Some(format!(
                    "{} sessions of {}/{server} had not ended after {} s and were closed.",
                    seen.sessions,
                    self.backend,
                    self.drain.as_secs_f64()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// New sessions come, once HAProxy shows the server up.
    async fn make_ready(&self, server: &str) -> Result<(), Arc<HaproxyError>> {
        let mut told = self.set(server, "ready").await?;
        loop {
            let seen = self.runtime.look(&self.socket, &self.backend, server, told).await?;
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

    /// Gives when it was done: what is seen later is as it was told, unless HAProxy has forgotten.
    async fn set(&self, server: &str, state: &str) -> Result<Instant, Arc<HaproxyError>> {
        let command = format!("set server {}/{server} state {state}", self.backend);
        let answer = self.runtime.tell(&self.socket, &command).await?;
        if answer.trim().is_empty() {
            return Ok(Instant::now());
        }
        Err(HaproxyError::Refused { command, answer: answer.trim().chars().take(200).collect() }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_a_number_of_seconds() {
        let read = |drain: &str| {
            let text = format!("{{socket: /run/haproxy.sock, backend: web, drain: {drain}}}");
            serde_yaml::from_str::<Haproxy>(&text)
                .map(|haproxy| haproxy.drain)
                .map_err(|error| error.to_string())
        };
        assert_eq!(read("0.5"), Ok(Duration::from_millis(500)));
        for wrong in [".nan", ".inf", "-1", "86401"] {
            assert!(read(wrong).is_err_and(|error| error.contains("from 0 to 86400")), "{wrong}");
        }
    }
}
