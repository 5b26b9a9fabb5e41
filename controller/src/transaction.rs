//! One transaction of the service.

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_planner::Timers;

use crate::config::known_names::KnownNames;
use crate::config::load_balancers::Balancers;
use crate::config::{Partition, Quotas};
use crate::pagination::Pages;
use crate::store::Tx;
use crate::vault::Vault;

/// A transaction and everything that operations need besides their input.
#[derive(Debug)]
pub struct Context<'a> {
    pub tx: &'a Tx<'a>,
    pub now: Timestamp,
    pub partition: &'a Partition,
    pub quotas: &'a Quotas,
    pub timers: &'a Timers,
    pub balancers: &'a Balancers,
    /// The names of alarms and topics that groups may use.
    pub known: &'a KnownNames,
    pub pages: &'a Pages,
    /// Decrypts the stored secrets.
    pub vault: &'a Vault,
}
