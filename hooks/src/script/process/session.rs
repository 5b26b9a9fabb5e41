//! What a user of this host has when `su` starts a program for him: the session part of its PAM stack ([`pam`]), or, where
//! the host has no PAM, what its usual modules read ([`files`], [`limits`]).
//!
//! Nobody is authenticated and no account is checked: root decides who runs what, as the AppSpec says.

mod files;
mod limits;
mod pam;

use std::ffi::{OsStr, OsString};

use super::order::{Session, Switch};
use crate::script::variables::{DESCRIBING, is_loader, is_setting};
use pam::Pam;

/// A session of this process, to be closed by it.
#[must_use]
pub(super) struct OpenSession(Option<Pam>);

/// What a session brought.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) warnings: Vec<String>,
}

/// Opens a session for `account`: this process gets its limits. The reason when `su` would refuse to.
pub(super) fn open(account: &Switch, wanted: Session) -> Result<(OpenSession, Opened), String> {
    let (session, mut opened) = match Pam::open(&account.name)? {
        Some((pam, opened)) => (OpenSession(Some(pam)), opened),
        None => {
            let mut opened = Opened { environment: files::environment(), warnings: Vec::new() };
            limits::apply(account, &mut opened.warnings);
            (OpenSession(None), opened)
        }
    };
    opened.environment.retain(|(name, _)| is_passed_on(name, wanted));
    Ok((session, opened))
}

/// What describes the deployment comes from the agent alone.
fn is_passed_on(name: &OsStr, wanted: Session) -> bool {
    let name = name.to_string_lossy();
    let is_refused = wanted.strip_loader_env && is_loader(&name);
    !DESCRIBING.contains(&&*name) && !is_setting(&name) && !is_refused
}

impl OpenSession {
    pub(super) fn close(self) {
        if let Some(pam) = self.0 {
            pam.close();
        }
    }
}
