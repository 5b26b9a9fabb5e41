//! One transaction of the service.

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_planner::Timers;

use crate::config::known_names::KnownNames;
use crate::config::load_balancers::Balancers;
use crate::config::{Partition, Quotas};
use crate::credentials::{Scope, Scopes};
use crate::error::{ApiError, ErrorName};
use crate::pagination::Pages;
use crate::store::Tx;
use crate::vault::Vault;

/// The signer of the request that a transaction carries out, and the origin of the request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user ARN of the access key.
    pub arn: String,
    pub access_key_id: String,
    /// The address of the client, or of a proxy.
    pub address: Option<String>,
    pub request_id: String,
    /// The way in which the request came, if it is not the API: `console`.
    pub source: Option<&'static str>,
    /// The parts of the fleet that its access key is for.
    pub scopes: Scopes,
    /// The subject of the identity token that the access key was made for, if there was one.
    pub subject: Option<String>,
}

/// A transaction and everything that operations need besides their input.
#[derive(Debug, Clone, Copy)]
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
    /// Absent for the service's own work, and for requests of hosts.
    pub caller: Option<&'a Caller>,
}

impl Context<'_> {
    /// Whether the caller's access key is for a part of the fleet only.
    pub fn is_limited(&self) -> bool {
        self.scopes().is_some()
    }

    /// The parts of the fleet that the caller's access key is for, unless it is for all of it.
    pub fn scopes(&self) -> Option<&[Scope]> {
        self.caller.and_then(|caller| caller.scopes.list())
    }

    /// Whether the caller may see an application.
    pub fn sees_application(&self, name: &str) -> bool {
        self.caller
            .is_none_or(|caller| caller.scopes.have_application(name))
    }

    /// Whether the caller may see a deployment group.
    pub fn sees_group(&self, application: &str, name: &str) -> bool {
        self.caller
            .is_none_or(|caller| caller.scopes.have_group(application, name))
    }

    /// Rejects an application that the caller's key is not for, whether or not it exists.
    pub fn admit_application(&self, name: &str) -> Result<(), ApiError> {
        if self.sees_application(name) {
            return Ok(());
        }
        Err(self.outside(&format!("the application {name}")))
    }

    /// Rejects a deployment group that the caller's key is not for, whether or not it exists.
    pub fn admit_group(&self, application: &str, name: &str) -> Result<(), ApiError> {
        if self.sees_group(application, name) {
            return Ok(());
        }
        Err(self.outside(&format!("the deployment group {name} of {application}")))
    }

    /// The error about an object that does not exist or that the caller may not see: a limited key
    /// cannot tell which.
    pub fn unseen(&self, what: &str, absent: impl FnOnce() -> ApiError) -> ApiError {
        if self.is_limited() {
            self.outside(what)
        } else {
            absent()
        }
    }

    /// The error about an object outside of the caller's scopes.
    pub fn outside(&self, what: &str) -> ApiError {
        let who = self.caller.map_or("", |caller| caller.arn.as_str());
        ErrorName::AccessDenied.because(format!("The access key of {who} is not for {what}."))
    }
}
