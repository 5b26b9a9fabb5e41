//! A revision as a folder, and bundles of it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Writes a file of a revision.
pub(crate) fn write(folder: &Path, path: &str, text: &str, mode: u32) {
    let path = folder.join(path);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// An AppSpec file whose first script may take this many seconds.
pub(crate) fn appspec(timeout: u32) -> String {
    format!(
        "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - {{location: after.sh, timeout: {timeout}}}\n  \
         ApplicationStart:\n    - location: start.sh\n"
    )
}

/// A revision with two scripts.
pub(crate) fn revision(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    write(folder, "appspec.yml", &appspec(30), 0o644);
    write(folder, "after.sh", "#!/bin/sh\nexit 0\n", 0o755);
    write(folder, "start.sh", "#!/bin/sh\nexit 0\n", 0o755);
    write(folder, "old.txt", "old", 0o644);
    write(folder, "same.txt", "same", 0o644);
}

/// A folder as a tar.
pub(crate) fn tar(folder: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", folder).unwrap();
    archive.into_inner().unwrap()
}

/// A member of a gzip stream; a stream may have many.
pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The header of a member of a tar, whose content follows.
pub(crate) fn header(kind: tar::EntryType, path: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}
