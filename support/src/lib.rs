//! Small things that the agent and the controller share, and that belong to neither.
//!
//! [`plain`] makes text harmless for a terminal, [`fields`] reads the fields of an event of the log, and [`keyed_lock`]
//! lets tasks take turns at something that has a name.

pub mod fields;
pub mod keyed_lock;
pub mod plain;
