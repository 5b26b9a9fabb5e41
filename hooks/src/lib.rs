//! One host, one revision: what an AppSpec says, and doing it.
//!
//! * [`appspec`] reads `appspec.yml` into an [`appspec::AppSpec`] that is valid by construction;
//! * [`lifecycle`] decides, without touching anything, from which revision an event's scripts run and which;
//! * [`script`] runs those scripts and says how each ended;
//! * [`install`] puts a revision's files on the host: snapshot, plan, steps, apply;
//! * [`custody`] says whom a revision's files belong to until they are installed;
//! * [`fs`] is the one place that writes files others rely on;
//! * [`clock`] shows the host's time zone;
//! * [`plain`] makes text harmless that others wrote.
//!
//! Nothing here knows of a network, a service or a deployment group's history: paths and values come in,
//! outcomes go out.

pub mod appspec;
pub mod clock;
pub mod custody;
pub mod fs;
pub mod install;
pub mod lifecycle;
pub mod plain;
pub mod script;
