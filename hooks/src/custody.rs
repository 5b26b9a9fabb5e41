//! The owners of an unpacked revision's files until Install puts them in place.
//!
//! A bundle may name any user as an owner. Until Install, that user must not be able to change a
//! file that root will run, or that a script of root will read. So root owns the whole archive:
//! nobody else can write to it, and everybody can read and execute what the bundle allows. Install
//! then sets the owners and modes of the bundle, unless a script of the deployment has changed them
//! in the archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;
const EXECUTE: u32 = 0o111;
const READ_EXECUTE: u32 = 0o5;

/// Owner, group and permission bits of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl Access {
    /// The access while root holds the archive. Set-id bits stay only with the owner that they are
    /// meant for.
    pub fn held(self) -> Self {
        let special = if self.uid == 0 { self.mode & 0o7000 } else { 0 };
        let group = self.owners_own().unwrap_or_default() << 3;
        Self {
            uid: 0,
            mode: special | ((self.mode & 0o777 | group) & !OTHERS_WRITE),
            ..self
        }
    }

    /// The owner's permission bits, for an ACL entry that keeps his access while root owns the
    /// file; `None` if he needs no entry.
    pub fn owners_own(self) -> Option<u32> {
        let [owner, group, others] = [6, 3, 0].map(|shift| self.mode >> shift & READ_EXECUTE);
        (self.uid != 0 && owner & !(group & others) != 0).then_some(owner)
    }

    /// The access of a path at its destination, where `self` is the bundle's access and `found` the
    /// one in the archive: a change that a script made counts.
    pub fn given(self, found: Self) -> Self {
        let held = self.held();
        let has_owners = (found.uid, found.gid) == (held.uid, held.gid);
        let (uid, gid) = if has_owners {
            (self.uid, self.gid)
        } else {
            (found.uid, found.gid)
        };
        let mode = if found.mode & !EXECUTE != held.mode & !EXECUTE {
            found.mode
        } else if found.mode & EXECUTE != held.mode & EXECUTE {
            // Scripts are made executable before they run.
            self.mode & !EXECUTE | found.mode & EXECUTE
        } else {
            self.mode
        };
        Self { uid, gid, mode }
    }
}

/// The digests of an event's scripts, taken when their revision was unpacked.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Digests by path below the archive, links resolved.
    pub digests: BTreeMap<PathBuf, String>,
    /// Computes the digest of a file.
    pub digest: fn(File) -> io::Result<String>,
}

impl Deployed {
    /// Whether `file`, which is at `path` below the archive, still holds what was deployed.
    pub(crate) fn holds(&self, path: &Path, file: File) -> io::Result<bool> {
        match self.digests.get(path) {
            Some(expected) => Ok((self.digest)(file)? == *expected),
            None => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(uid: u32, mode: u32) -> Access {
        Access { uid, gid: 9, mode }
    }

    #[test]
    fn root_holds_what_nobody_else_may_write_and_everybody_may_read_as_before() {
        for (given, held, own) in [
            (access(0, 0o755), 0o755, None),
            (access(0, 0o4755), 0o4755, None),
            (access(0, 0o666), 0o644, None),
            (access(1000, 0o775), 0o755, None),
            (access(1000, 0o6755), 0o755, None),
            (access(1000, 0o640), 0o640, Some(4)),
            (access(1000, 0o700), 0o750, Some(5)),
            (access(1000, 0o200), 0o200, None),
        ] {
            assert_eq!(given.held(), access(0, held), "{:o}", given.mode);
            assert_eq!(given.owners_own(), own, "{:o}", given.mode);
        }
    }

    #[test]
    fn install_gives_what_the_bundle_named_unless_a_script_changed_it() {
        let bundle = access(1000, 0o664);
        let held = bundle.held();
        assert_eq!(bundle.given(held), bundle);
        assert_eq!(
            bundle.given(Access {
                mode: 0o755,
                ..held
            }),
            access(1000, 0o775)
        );
        assert_eq!(
            bundle.given(Access {
                mode: 0o600,
                ..held
            }),
            access(1000, 0o600)
        );
        assert_eq!(bundle.given(access(33, 0o644)), access(33, 0o664));
        assert_eq!(bundle.given(bundle), bundle);
        assert_eq!(
            access(1000, 0o700).given(access(1000, 0o700).held()),
            access(1000, 0o700)
        );
    }
}
