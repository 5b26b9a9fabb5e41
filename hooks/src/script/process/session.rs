//! The session that `su` gives a user of this host: the session part of its PAM stack ([`pam`]),
//! or, without PAM, the files that its usual modules read ([`files`], [`limits`]).
//!
//! No user is authenticated and no account is checked: root decides who runs what, as the AppSpec
//! asks.

mod files;
mod limits;
mod pam;

use std::ffi::{OsStr, OsString};

use super::order::{Session, Switch};
use crate::script::variables::{DESCRIBING, is_loader, is_setting};
use pam::Pam;

/// A session of this process; the process must close it.
#[must_use]
pub(super) struct OpenSession(Option<Pam>);

/// The result of opening a session.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) warnings: Vec<String>,
}

/// Opens a session for `account`, whose limits this process gets. Returns the reason if `su` would
/// refuse.
pub(super) fn open(account: &Switch, wanted: Session) -> Result<(OpenSession, Opened), String> {
    let (session, mut opened) = match Pam::open(&account.name)? {
        Some((pam, opened)) => (OpenSession(Some(pam)), opened),
        None => {
            let mut opened = Opened {
                environment: files::environment(),
                warnings: Vec::new(),
            };
            limits::apply(account, &mut opened.warnings);
            (OpenSession(None), opened)
        }
    };
    opened
        .environment
        .retain(|(name, _)| is_passed_on(name, wanted));
    Ok((session, opened))
}

/// Variables that describe the deployment come from the agent alone.
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
