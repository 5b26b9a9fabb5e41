//! One host, one revision: reads an AppSpec and carries it out.
//!
//! * [`appspec`] reads `appspec.yml` into an [`appspec::AppSpec`] that is valid by construction;
//! * [`lifecycle`] decides, without touching anything, which scripts of an event run and which
//!   revision they come from;
//! * [`script`] runs those scripts and reports how each ended;
//! * [`install`] puts a revision's files on the host: snapshot, plan, steps, apply;
//! * [`custody`] decides who owns a revision's files until they are installed;
//! * [`fs`] alone writes files that others rely on;
//! * [`slots`] names the two slots of a blue/green deployment on one host;
//! * [`clock`] returns the host's local time.
//!
//! Nothing here depends on a network, a service or a deployment group's history: paths and values
//! come in, outcomes go out.

pub mod appspec;
pub mod clock;
pub mod custody;
pub mod fs;
pub mod install;
pub mod lifecycle;
pub mod script;
pub mod slots;
