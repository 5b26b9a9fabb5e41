//! One transaction of the service.

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_planner::Timers;

use crate::config::known_names::KnownNames;
use crate::config::load_balancers::Balancers;
use crate::config::{Partition, Quotas};
use crate::pagination::Pages;
use crate::store::Tx;
use crate::vault::Vault;

/// A transaction and what every operation needs beside its input.
#[derive(Debug)]
pub struct Context<'a> {
    pub tx: &'a Tx<'a>,
    pub now: Timestamp,
    pub partition: &'a Partition,
    pub quotas: &'a Quotas,
    pub timers: &'a Timers,
    pub balancers: &'a Balancers,
    /// The names that groups may have of alarms and topics.
    pub known: &'a KnownNames,
    pub pages: &'a Pages,
    /// Opens the secrets that are stored.
    pub vault: &'a Vault,
}
