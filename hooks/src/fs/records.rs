//! Records that others read too, such as log shippers, hooks and other agents.

use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use super::replace_file;

/// Replaces a record as [`replace_file`] does. Who may read it stays as it is.
pub fn replace_record(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let readers = Readers::of(path);
    replace_file(path, bytes, readers.mode)?;
    if let Some((uid, gid)) = readers.owner {
        // Only root can; for everybody else it belongs to whoever writes it.
        let _ = lchown(path, Some(uid), Some(gid));
    }
    Ok(())
}

/// Who may read a record: whoever could read the one before; the first one, everybody who may look into its folder.
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
            return Self { owner: Some((found.uid(), found.gid())), mode: found.mode() & 0o7777 };
        }
        let folder = path.parent().and_then(|folder| folder.metadata().ok());
        let open = folder.is_some_and(|folder| folder.mode() & 0o001 != 0);
        Self { owner: None, mode: if open { 0o644 } else { 0o600 } }
    }
}
