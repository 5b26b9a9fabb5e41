//! The load balancers that deployment groups may name, and the way in which each is controlled.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::endpoint::is_url;

/// The connected load balancers, by the names that deployment groups use.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Balancers {
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    by_name: BTreeMap<String, Provider>,
}

/// The way in which a load balancer is controlled.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Provider {
    Haproxy(Haproxy),
    Webhook(Webhook),
}

impl Balancers {
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The names, for a message.
    pub fn list(&self) -> String {
        if self.by_name.is_empty() {
            return "none".into();
        }
        self.by_name
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }

    pub(crate) fn by_name(&self) -> &BTreeMap<String, Provider> {
        &self.by_name
    }

    /// The mistakes in these settings, one sentence each.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let wrong = |(name, provider): (&String, &Provider)| {
            let mistake = match provider {
                Provider::Haproxy(haproxy) => haproxy.mistake(),
                Provider::Webhook(webhook) => webhook.mistake(),
            };
            mistake.map(|mistake| format!("load_balancers.{name}: {mistake}"))
        };
        self.by_name.iter().filter_map(wrong).collect()
    }
}

/// A backend of an HAProxy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Haproxy {
    /// The path of a unix socket with `level admin`, or the `host:port` of a TCP socket.
    pub(crate) socket: String,
    pub(crate) backend: String,
    /// The names of servers whose names differ from their instances'.
    #[serde(default)]
    pub(crate) servers: BTreeMap<String, String>,
    /// The time that sessions may take to end by themselves.
    #[serde(default = "default_drain", deserialize_with = "seconds")]
    pub(crate) drain: Duration,
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
    Err(de::Error::custom(format_args!(
        "drain is {seconds}: expected a number of seconds from 0 to 86400"
    )))
}

impl Haproxy {
    /// The mistake in these settings, if there is one.
    fn mistake(&self) -> Option<String> {
        let port = |text: &str| {
            text.rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        };
        if !self.socket.starts_with('/') && !port(&self.socket) {
            return Some(format!(
                "haproxy.socket is {:?}: expected the absolute path of a socket, or host:port",
                self.socket
            ));
        }
        // They become words of a command line.
        let unfit = |name: &&String| {
            name.is_empty()
                || name
                    .contains(|c: char| c.is_whitespace() || c.is_control() || ";/\\".contains(c))
        };
        let name = std::iter::once(&self.backend)
            .chain(self.servers.values())
            .find(unfit)?;
        Some(format!(
            "haproxy has the name {name:?}: expected the name of a backend or server, as HAProxy has it"
        ))
    }
}

/// A server that responds with 200 or 204 when the instance has traffic, or has none any more; with
/// 202 to be asked again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    pub(crate) url: String,
}

impl Webhook {
    /// The mistake in these settings, if there is one.
    fn mistake(&self) -> Option<String> {
        let url = &self.url;
        (!is_url(url)).then(|| {
            format!(
                "webhook.url is {url:?}, which is not a URL such as https://lb.example.com/traffic"
            )
        })
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
            assert!(
                read(wrong).is_err_and(|error| error.contains("from 0 to 86400")),
                "{wrong}"
            );
        }
    }
}
