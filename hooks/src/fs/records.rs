//! Records that others read too, such as log shippers, hooks and other agents.

use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use super::replace_file;

/// Replaces a record as [`replace_file`] does, and keeps its readers.
pub fn replace_record(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let readers = Readers::of(path);
    replace_file(path, bytes, readers.mode)?;
    if let Some((uid, gid)) = readers.owner {
        // Only root can do this; for everybody else the record belongs to its writer.
        let _ = lchown(path, Some(uid), Some(gid));
    }
    Ok(())
}

/// The readers of a record: those of the previous record; for the first one, everybody who may look
/// into its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readers {
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: u32,
}

impl Readers {
    pub(crate) fn of(path: &Path) -> Self {
        if let Ok(found) = path.symlink_metadata()
            && found.is_file()
        {
            return Self {
                owner: Some((found.uid(), found.gid())),
                mode: found.mode() & 0o7777,
            };
        }
        let folder = path.parent().and_then(|folder| folder.metadata().ok());
        let open = folder.is_some_and(|folder| folder.mode() & 0o001 != 0);
        Self {
            owner: None,
            mode: if open { 0o644 } else { 0o600 },
        }
    }
}
