//! Blue/green on one host: two slots, and a link that names the one that serves.
//!
//! The link alone decides which slot serves ([`link`]). [`record`] names the deployment of each
//! slot; an Install changes it together with its files. [`layout`] decides from both, without
//! touching anything, which slot is filled next. [`journal`] has the steps of a switch, so that
//! the next start finishes one that was interrupted. [`traffic`] moves connections, [`units`]
//! starts and stops units of systemd. `deployment::slots` puts these parts together.

pub mod journal;
pub mod layout;
pub mod link;
mod mounts;
pub mod record;
pub mod traffic;
pub mod units;
