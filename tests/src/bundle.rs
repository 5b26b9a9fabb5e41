//! Revisions: folders written from text, and bundles made of folders.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use zip::write::SimpleFileOptions;

/// Writes `files` below `folder`; files that begin with `#!` are made executable.
pub fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("below the folder"))
            .expect("the folder can be made");
        fs::write(&path, text).expect("the file can be written");
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the mode can be set");
    }
}

/// The folder's contents as a zip.
pub fn zip(folder: &Path) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    below(folder, Path::new(""), &mut |name, path| {
        let metadata = fs::symlink_metadata(path).expect("it was listed");
        let options =
            SimpleFileOptions::default().unix_permissions(metadata.permissions().mode() & 0o7777);
        if metadata.is_symlink() {
            let target = fs::read_link(path).expect("it is a link");
            archive
                .add_symlink(name, target.to_string_lossy(), options)
                .expect("links fit");
        } else if metadata.is_dir() {
            archive.add_directory(name, options).expect("folders fit");
        } else {
            archive.start_file(name, options).expect("files fit");
            archive
                .write_all(&fs::read(path).expect("it was listed"))
                .expect("memory suffices");
        }
    });
    archive
        .finish()
        .expect("the archive is complete")
        .into_inner()
}

/// The folder's contents as a tar.
pub fn tar(folder: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive
        .append_dir_all(".", folder)
        .expect("the folder can be read");
    archive.into_inner().expect("the archive is complete")
}

/// The folder's contents as a gzipped tar.
pub fn tgz(folder: &Path) -> Vec<u8> {
    let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
    compressed.write_all(&tar(folder)).expect("memory suffices");
    compressed.finish().expect("memory suffices")
}

fn below(folder: &Path, name: &Path, visit: &mut impl FnMut(String, &Path)) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = name.join(entry.file_name());
        visit(name.to_string_lossy().into_owned(), &entry.path());
        if entry.file_type().expect("an entry").is_dir() {
            below(&entry.path(), &name, visit);
        }
    }
}
