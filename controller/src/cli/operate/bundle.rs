//! Bundles: a folder as a tgz file, or a file that is one. The same folder always makes the same
//! file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use codedeploy_api::codedeploy::BundleType;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::ids::random_text;
use crate::revision::address::bundle_type;

/// The names of an AppSpec file, one of which a revision has at its root.
const APPSPEC: [&str; 2] = ["appspec.yml", "appspec.yaml"];
/// The deepest folder of a revision; agents reject deeper ones.
const DEEPEST: usize = 256;

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum BundlingError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the bundle {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} has no appspec.yml: expected one at the root of a revision", .0.display())]
    NoAppSpec(PathBuf),
    #[error(
        "{} is neither a folder nor a bundle: expected a name that ends with .zip, .tar, .tgz or .tar.gz", .0.display()
    )]
    NotABundle(PathBuf),
    #[error(
        "{} is neither a file, a folder nor a link, so that no bundle can have it", .0.display()
    )]
    Special(PathBuf),
    #[error("{} is deeper than {DEEPEST} folders, which agents reject", .0.display())]
    Deep(PathBuf),
    #[error("a name for the bundle could not be made")]
    Random,
}

/// A bundle on disk. One that was made of a folder is deleted with this value.
#[derive(Debug)]
pub(super) struct Bundle {
    path: PathBuf,
    is_temporary: bool,
    pub(super) kind: BundleType,
    /// The number of files in the folder.
    pub(super) files: Option<usize>,
    pub(super) size: u64,
    /// The SHA-256 in hexadecimal digits.
    pub(super) hash: String,
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.is_temporary {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Bundle {
    pub(super) fn make(path: &Path, without_hidden: bool) -> Result<Self, BundlingError> {
        let found = std::fs::metadata(path).map_err(|source| BundlingError::Read {
            path: path.to_owned(),
            source,
        })?;
        if found.is_dir() {
            return Self::of_folder(path, without_hidden);
        }
        let kind = bundle_type(&path.to_string_lossy()).filter(|_| found.is_file());
        let kind = kind.ok_or_else(|| BundlingError::NotABundle(path.to_owned()))?;
        Bundle {
            path: path.to_owned(),
            is_temporary: false,
            kind,
            files: None,
            size: found.len(),
            hash: String::new(),
        }
        .hashed()
    }

    fn of_folder(folder: &Path, without_hidden: bool) -> Result<Self, BundlingError> {
        if !APPSPEC.iter().any(|name| folder.join(name).is_file()) {
            return Err(BundlingError::NoAppSpec(folder.to_owned()));
        }
        let (mut bundle, file) = Self::temporary()?;
        let path = bundle.path.clone();
        let unwritable = |source| BundlingError::Write {
            path: path.clone(),
            source,
        };
        let encoder = GzEncoder::new(BufWriter::new(file), Compression::default());
        let mut packing = Packing {
            archive: Builder::new(encoder),
            bundle: path.clone(),
            without_hidden,
            files: 0,
        };
        packing.add_folder(folder, Path::new(""), 0)?;
        bundle.files = Some(packing.files);
        let written = packing
            .archive
            .into_inner()
            .and_then(GzEncoder::finish)
            .and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error));
        bundle.size = written
            .and_then(|file| file.metadata())
            .map_err(unwritable)?
            .len();
        bundle.hashed()
    }

    /// Makes an empty file that is deleted with the bundle.
    pub(super) fn temporary() -> Result<(Self, File), BundlingError> {
        let name = random_text(b"abcdefghijklmnopqrstuvwxyz0123456789", 16)
            .map_err(|_| BundlingError::Random)?;
        let path = std::env::temp_dir().join(format!("codedeploy-{name}.tgz"));
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| BundlingError::Write {
                path: path.clone(),
                source,
            })?;
        let bundle = Bundle {
            path,
            is_temporary: true,
            kind: BundleType::Tgz,
            files: Some(0),
            size: 0,
            hash: String::new(),
        };
        Ok((bundle, file))
    }

    pub(super) fn file(&self) -> &Path {
        &self.path
    }

    fn hashed(mut self) -> Result<Self, BundlingError> {
        let hash = hash(&self.path).map_err(|source| BundlingError::Read {
            path: self.path.clone(),
            source,
        })?;
        self.hash = hash;
        Ok(self)
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 64 * 1024]);
    let mut context = digest::Context::new(&digest::SHA256);
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some(bytes) if read > 0 => context.update(bytes),
            _ => return Ok(hex::encode(context.finish())),
        }
    }
}

/// An archive that is being written.
struct Packing<W: Write> {
    archive: Builder<W>,
    /// Its path, for messages.
    bundle: PathBuf,
    without_hidden: bool,
    files: usize,
}

impl<W: Write> Packing<W> {
    /// Adds the contents of a folder, in the order of names; `inside` is its path in the archive.
    fn add_folder(
        &mut self,
        folder: &Path,
        inside: &Path,
        depth: usize,
    ) -> Result<(), BundlingError> {
        if depth > DEEPEST {
            return Err(BundlingError::Deep(folder.to_owned()));
        }
        let unreadable = |source| BundlingError::Read {
            path: folder.to_owned(),
            source,
        };
        let entries = std::fs::read_dir(folder).map_err(unreadable)?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let mut names: Vec<_> = names.collect::<Result<_, _>>().map_err(unreadable)?;
        names.sort_unstable();
        for name in names {
            if self.without_hidden && name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            self.add(&folder.join(&name), &inside.join(&name), depth)?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, inside: &Path, depth: usize) -> Result<(), BundlingError> {
        let unreadable = |source| BundlingError::Read {
            path: path.to_owned(),
            source,
        };
        let bundle = self.bundle.clone();
        let unwritable = |source| BundlingError::Write {
            path: bundle,
            source,
        };
        let found = path.symlink_metadata().map_err(unreadable)?;
        if found.is_dir() {
            let mut header = header(&found, EntryType::Directory, 0);
            self.archive
                .append_data(&mut header, inside, io::empty())
                .map_err(unwritable)?;
            return self.add_folder(path, inside, depth + 1);
        }
        self.files += 1;
        if found.is_symlink() {
            let target = std::fs::read_link(path).map_err(unreadable)?;
            let mut header = header(&found, EntryType::Symlink, 0);
            return self
                .archive
                .append_link(&mut header, inside, target)
                .map_err(unwritable);
        }
        if !found.is_file() {
            return Err(BundlingError::Special(path.to_owned()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let mut header = header(&found, EntryType::Regular, found.len());
        // A file that shrinks meanwhile ends the command with an error; one that grows is cut.
        self.archive
            .append_data(&mut header, inside, file.take(found.len()))
            .map_err(unwritable)
    }
}

/// Returns the header of an entry, without times and owners, which differ between checkouts.
fn header(found: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(found.permissions().mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir_all(path.join("scripts")).unwrap();
        std::fs::write(path.join("appspec.yml"), "version: 0.0\nos: linux\n").unwrap();
        std::fs::write(path.join("scripts/start.sh"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(
            path.join("scripts/start.sh"),
            std::fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        std::fs::write(path.join(".env"), "A=1\n").unwrap();
        std::os::unix::fs::symlink("scripts", path.join("link")).unwrap();
        folder
    }

    /// The entries of a bundle, each with its mode.
    fn entries(bundle: &Bundle) -> Vec<String> {
        let file = flate2::read::GzDecoder::new(File::open(bundle.file()).unwrap());
        let mut archive = tar::Archive::new(file);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.header().mode().unwrap();
            format!("{} {mode:o}", entry.path().unwrap().display())
        });
        entries.collect()
    }

    #[test]
    fn equal_folders_make_equal_bundles_with_modes_and_links() {
        let (one, other) = (folder(), folder());
        let bundles = [&one, &other].map(|folder| Bundle::make(folder.path(), false).unwrap());
        assert_eq!(bundles[0].hash, bundles[1].hash);
        assert_eq!((bundles[0].hash.len(), bundles[0].files), (64, Some(4)));
        let listed = entries(&bundles[0]);
        let names: Vec<_> = listed
            .iter()
            .map(|entry| entry.split(' ').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [".env", "appspec.yml", "link", "scripts", "scripts/start.sh"]
        );
        assert!(listed[4].ends_with(" 755"), "{listed:?}");
        let without = Bundle::make(one.path(), true).unwrap();
        assert!(!entries(&without).concat().contains(".env"));
        let path = without.file().to_owned();
        drop(without);
        assert!(!path.exists());
    }

    #[test]
    fn wrong_revisions_are_found_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| Bundle::make(path, false).unwrap_err().to_string();
        assert!(message(folder.path()).contains("no appspec.yml"));
        let file = folder.path().join("site.rar");
        std::fs::write(&file, "").unwrap();
        assert!(message(&file).contains(".tar.gz"));
        assert!(message(&folder.path().join("gone")).contains("cannot read"));
    }
}
