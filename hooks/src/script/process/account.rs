//! The user that a script runs as.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

/// The shell of accounts without one (passwd(5)), and of scripts without an interpreter line.
pub(super) const DEFAULT_SHELL: &str = "/bin/sh";

/// Programs that accounts have instead of a shell.
const NO_SHELLS: [&str; 7] = [
    "nologin",
    "false",
    "true",
    "sync",
    "shutdown",
    "halt",
    "git-shell",
];

/// A user of this host whom root can switch to.
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

/// The reason why a script cannot run as a user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error(
        "the user {0} does not exist on this host; create it before the deployment, or correct runas"
    )]
    Unknown(String),
    #[error("the user {user} cannot be looked up: {error}")]
    Lookup { user: String, error: Errno },
}

impl Account {
    /// Looks up a user. May block: user databases can be remote.
    pub(crate) fn find(name: &str) -> Result<Self, AccountError> {
        let lookup = |error| AccountError::Lookup {
            user: name.to_owned(),
            error,
        };
        let unknown = || AccountError::Unknown(name.to_owned());
        let user = match User::from_name(name) {
            Ok(Some(user)) => user,
            // User databases report a missing user in different ways (getpwnam(3)).
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
            shell: match user.shell.into_os_string() {
                empty if empty.is_empty() => DEFAULT_SHELL.into(),
                shell => shell,
            },
        })
    }

    /// The command that lets the account's login shell run the program at `path`, as `su` does;
    /// `None` if the account has no usable shell.
    pub(super) fn shell_command(&self, path: &Path) -> Option<Vec<OsString>> {
        let shell = Path::new(&self.shell);
        let name = shell.file_name()?;
        let executable = |shell: &Path| {
            let found = shell.metadata().ok();
            found.is_some_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        if NO_SHELLS.iter().any(|no_shell| name == *no_shell)
            || !shell.is_absolute()
            || !executable(shell)
        {
            return None;
        }
        Some(vec![
            self.shell.clone(),
            "-c".into(),
            quoted(path.as_os_str(), name),
        ])
    }

    /// The variables that tell programs who their user is.
    pub(crate) fn environment(&self) -> [(OsString, OsString); 4] {
        [
            ("HOME".into(), self.home.clone()),
            ("USER".into(), self.name.clone().into()),
            ("LOGNAME".into(), self.name.clone().into()),
            ("SHELL".into(), self.shell.clone()),
        ]
    }
}

/// Quotes `word` for the shell named `shell`.
fn quoted(word: &OsStr, shell: &OsStr) -> OsString {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(byte);
    if word.as_bytes().iter().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            b'\\' if shell == "fish" => quoted.extend_from_slice(br"\\"),
            // History expansion, which quotes do not prevent in these shells.
            b'!' if shell == "csh" || shell == "tcsh" => quoted.extend_from_slice(br"\!"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}
