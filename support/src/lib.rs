//! Small modules that the agent and the controller share and that belong to neither.
//!
//! [`plain`] makes text harmless for a terminal, [`fields`] reads the fields of a log event,
//! [`timestamp`] formats its time, [`keyed_lock`] lets tasks take turns at a named object,
//! [`metrics`] declares metrics with their descriptions, and [`version`] names the build of the
//! programs.

pub mod fields;
pub mod keyed_lock;
pub mod metrics;
pub mod plain;
pub mod timestamp;
pub mod version;
