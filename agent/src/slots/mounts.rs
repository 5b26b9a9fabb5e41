//! The mount points of this host.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// A mount point that is `folder` or lies below it, if there is one (proc_pid_mountinfo(5)).
pub(super) fn below(folder: &Path) -> io::Result<Option<PathBuf>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let points = text.split(|byte| *byte == b'\n').filter_map(point);
    Ok({ points }.find(|point| point.starts_with(folder)))
}

/// The mount point in a line, its fifth field.
fn point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    Some(OsString::from_vec(unescaped(field)).into())
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let digits = after
            .get(..3)
            .and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_may_have_any_name() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402\\134x rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(point(line), Some("/mnt 2\\x".into()));
        assert_eq!(point(b"36 35"), None);
        assert_eq!(unescaped(b"a\\04"), b"a\\04");
    }
}
