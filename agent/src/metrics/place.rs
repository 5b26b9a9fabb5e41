//! The place at which the metrics are offered: reachable from this host alone, because nobody has
//! to prove who asks.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A loopback address, or the path of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsPlace {
    Loopback(SocketAddr),
    Socket(PathBuf),
}

/// The form of a place, for messages.
pub const EXPECTED: &str = "a loopback address and port such as 127.0.0.1:9465, or the absolute path of a socket: who asks \
     for metrics shows no key, so they do not leave this host";

impl MetricsPlace {
    /// Reads an address or a path; `None` if others could reach it.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(MetricsPlace::Socket(text.into()));
        }
        let address: SocketAddr = text.parse().ok()?;
        address
            .ip()
            .is_loopback()
            .then_some(MetricsPlace::Loopback(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_on_this_host_are_accepted() {
        for good in [
            "127.0.0.1:9465",
            "127.1.2.3:1",
            "[::1]:9465",
            "/run/agent.sock",
        ] {
            assert!(MetricsPlace::parse(good).is_some(), "{good}");
        }
        for bad in [
            "0.0.0.0:9465",
            "[::]:9465",
            "10.0.0.1:9465",
            ":9465",
            "9465",
            "localhost:9465",
            "run/x.sock",
            "",
        ] {
            assert_eq!(MetricsPlace::parse(bad), None, "{bad}");
        }
    }
}
