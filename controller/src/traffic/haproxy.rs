//! HAProxy, told through its runtime API (HAProxy Management Guide, "Unix Socket commands").

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Haproxy {
    /// The path of a unix socket with `level admin`, or the `host:port` of one on TCP.
    socket: String,
    backend: String,
}
