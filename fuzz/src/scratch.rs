//! A temporary folder for one input.

use std::path::Path;

/// Calls `read` with a file that holds `input`; the folder around it is removed afterwards, with
/// all that came to be in it.
#[allow(
    clippy::expect_used,
    reason = "without a temporary folder there is nothing to try"
)]
pub(crate) fn with_file(input: &[u8], read: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("input");
    std::fs::write(&file, input).expect("a temporary file can be written");
    read(&file);
}
