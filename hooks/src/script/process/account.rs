//! As whom a script runs.

use std::ffi::{CString, OsString};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

/// A user of this host, ready to be switched to.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups, the primary one included.
    pub(crate) groups: Vec<Gid>,
    home: OsString,
    shell: OsString,
}

/// Why a script cannot run as a user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("the user {0} does not exist on this host; create it before the deployment, or correct runas")]
    Unknown(String),
    #[error("the user {user} cannot be looked up: {error}")]
    Lookup { user: String, error: Errno },
}

impl Account {
    /// Looks a user up. May block: user databases can be remote.
    pub(crate) fn find(name: &str) -> Result<Self, AccountError> {
        let lookup = |error| AccountError::Lookup { user: name.to_owned(), error };
        let unknown = || AccountError::Unknown(name.to_owned());
        let user = match User::from_name(name) {
            Ok(Some(user)) => user,
            // User databases differ in how they say that there is none (getpwnam(3)).
            Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => {
                return Err(unknown());
            }
            Err(error) => return Err(lookup(error)),
        };
        let c_name = CString::new(name).map_err(|_| unknown())?;
        let groups = getgrouplist(&c_name, user.gid).map_err(lookup)?;
        Ok(Self {
            name: user.name,
            uid: user.uid,
            gid: user.gid,
            groups,
            home: user.dir.into_os_string(),
            shell: user.shell.into_os_string(),
        })
    }

    /// The variables by which programs know their user.
    pub(crate) fn environment(&self) -> [(OsString, OsString); 4] {
        [
            ("HOME".into(), self.home.clone()),
            ("USER".into(), self.name.clone().into()),
            ("LOGNAME".into(), self.name.clone().into()),
            ("SHELL".into(), self.shell.clone()),
        ]
    }
}
