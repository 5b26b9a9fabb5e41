//! Owns BlockTraffic and AllowTraffic: the lifecycle events that the service performs itself, at load balancers.

mod haproxy;
mod webhook;

use std::collections::BTreeMap;

use serde::Deserialize;

use haproxy::Haproxy;
use webhook::Webhook;

/// The load balancers that the service is connected to, by the names that deployment groups give them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Balancers {
    by_name: BTreeMap<String, Provider>,
}

/// How a load balancer is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Provider {
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
        self.by_name.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}
