//! The contents of a bundle: its files by path, and the hooks of its AppSpec file. Nothing is
//! unpacked, and the memory that a bundle takes is limited.

mod hooks;
mod metered;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use aws_lc_rs::digest;
use flate2::read::MultiGzDecoder;
use serde::Serialize;
use tar::EntryType;
use zip::ZipArchive;

pub(crate) use hooks::{Hook, Hooks};
use metered::Metered;

/// The most that is read of a bundle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) files: usize,
    /// Of all members of the archive, with their headers.
    pub(crate) bytes: u64,
}

impl Limits {
    /// For a process that does nothing else.
    pub(crate) const WIDE: Self = Limits {
        files: 200_000,
        bytes: 16 * 1024 * 1024 * 1024,
    };
}

/// The longest path and the longest target of a link, in bytes.
const MAX_PATH: usize = 4096;
/// The average length of a path with its link's target, in bytes, in a bundle of the most files.
const USUAL_PATH: usize = 256;
/// The most that a tar has before the content of a member: long names and extended headers, which
/// are kept in memory. In bytes.
const MAX_HEADERS: u64 = 1024 * 1024;
/// The size of a header in a tar, in bytes.
const HEADER: u64 = 512;
/// The size of the list of a zip by the most files that it may have, in bytes. It is kept in memory.
const LISTED: u64 = 512;
/// The largest AppSpec file, in bytes.
const MAX_APPSPEC: usize = 1024 * 1024;

/// The names of an AppSpec file.
const APPSPEC: [&str; 2] = ["appspec.yml", "appspec.yaml"];

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it is not a zip that can be read")]
    Zip(#[from] zip::result::ZipError),
    #[error(
        "it has more than {} files, more than {} bytes, or paths of more than {MAX_PATH} bytes, or of {USUAL_PATH} on average",
        .0.files, .0.bytes
    )]
    TooLarge(Limits),
}

/// A file or a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Absent for a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    /// In octal digits; absent for a link, and if the bundle has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// The target of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

/// The contents of a bundle.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) files: BTreeMap<String, Entry>,
    /// Or the reason why they cannot be read.
    pub(crate) hooks: Result<Hooks, String>,
}

impl Manifest {
    /// Reads a bundle; its form is recognised by its first bytes, as agents do.
    pub(crate) fn read(bundle: &Path, limits: Limits) -> Result<Self, ManifestError> {
        let mut file = File::open(bundle)?;
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        let mut reading = Reading {
            limits,
            files: BTreeMap::new(),
            names: 0,
            bytes: 0,
            top: None,
            appspecs: BTreeMap::new(),
        };
        match magic.as_slice() {
            [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6] => reading.zip(file)?,
            [0x1f, 0x8b, ..] => reading.tar(MultiGzDecoder::new(BufReader::new(file)))?,
            _ => reading.tar(BufReader::new(file))?,
        }
        Ok(reading.end())
    }
}

/// A bundle that is being read.
#[derive(Debug)]
struct Reading {
    limits: Limits,
    files: BTreeMap<String, Entry>,
    /// The length of all paths and targets, in bytes.
    names: usize,
    bytes: u64,
    /// The folder of the first file below the root. If there is an only folder, it is this one.
    top: Option<String>,
    /// The texts of files that may be the AppSpec file, by path.
    appspecs: BTreeMap<String, Vec<u8>>,
}

impl Reading {
    fn tar(&mut self, reader: impl Read) -> Result<(), ManifestError> {
        let (reader, meter) = Metered::new(reader);
        let mut archive = tar::Archive::new(reader);
        let mut entries = archive.entries()?;
        loop {
            meter.allow(MAX_HEADERS);
            let Some(entry) = entries.next() else {
                return Ok(());
            };
            let mut entry = entry?;
            meter.allow(u64::MAX);
            // So that members without content have an end, too.
            self.count(HEADER)?;
            let path = self.plain(&entry.path_bytes())?;
            let mode = entry.header().mode().ok();
            let target = entry.link_name_bytes();
            match (entry.header().entry_type(), target) {
                (EntryType::Symlink, Some(target)) => {
                    let target = String::from_utf8_lossy(&target).into_owned();
                    self.link(path, target)?;
                }
                // It has the content of an earlier file.
                (EntryType::Link, Some(target)) => {
                    let target = self.plain(&target)?;
                    if let Some(same) = self.files.get(&target).cloned() {
                        self.insert(path, same)?;
                    }
                }
                (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, _) => {
                    self.file(path, mode, &mut entry)?;
                }
                _ => {}
            }
            self.each_part(&mut entry, |_| ())?;
        }
    }

    fn zip(&mut self, file: File) -> Result<(), ManifestError> {
        let (file, meter) = Metered::new(file);
        meter.allow(LISTED.saturating_mul(self.limits.files as u64));
        let mut archive = ZipArchive::new(file)?;
        meter.allow(u64::MAX);
        if archive.len() > self.limits.files {
            return Err(self.too_large());
        }
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index)?;
            let path = self.plain(entry.name_raw())?;
            let mode = entry.unix_mode();
            if entry.is_symlink() {
                let mut target = String::new();
                (&mut entry)
                    .take(MAX_PATH as u64)
                    .read_to_string(&mut target)?;
                self.link(path, target)?;
            } else if !entry.is_dir() {
                self.file(path, mode, &mut entry)?;
            }
        }
        Ok(())
    }

    fn link(&mut self, path: String, target: String) -> Result<(), ManifestError> {
        if target.len() > MAX_PATH {
            return Err(self.too_large());
        }
        let entry = Entry {
            size: None,
            sha256: None,
            mode: None,
            target: Some(target),
        };
        self.insert(path, entry)
    }

    fn file(
        &mut self,
        path: String,
        mode: Option<u32>,
        content: &mut impl Read,
    ) -> Result<(), ManifestError> {
        let mut text = self.may_be_appspec(&path).then(Vec::new);
        let mut context = digest::Context::new(&digest::SHA256);
        let size = self.each_part(content, |bytes| {
            context.update(bytes);
            if let Some(text) = text.as_mut().filter(|text| text.len() <= MAX_APPSPEC) {
                text.extend_from_slice(bytes);
            }
        })?;
        if let Some(text) = text {
            self.appspecs.insert(path.clone(), text);
        }
        let entry = Entry {
            size: Some(size),
            sha256: Some(hex::encode(context.finish())),
            mode: mode.map(|mode| format!("{:o}", mode & 0o7777)),
            target: None,
        };
        self.insert(path, entry)
    }

    /// Whether a path has the name of an AppSpec file at the root, or in what may be the only folder.
    fn may_be_appspec(&self, path: &str) -> bool {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let is_there = folder.is_empty() || self.top.as_deref().is_none_or(|top| top == folder);
        APPSPEC.contains(&name) && is_there
    }

    /// Reads content to its end; returns its size.
    fn each_part(
        &mut self,
        content: &mut impl Read,
        mut part: impl FnMut(&[u8]),
    ) -> Result<u64, ManifestError> {
        let (mut size, mut buffer) = (0, vec![0; 64 * 1024]);
        loop {
            let read = content.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                return Ok(size);
            };
            size += bytes.len() as u64;
            self.count(bytes.len() as u64)?;
            part(bytes);
        }
    }

    fn count(&mut self, bytes: u64) -> Result<(), ManifestError> {
        self.bytes += bytes;
        match self.bytes > self.limits.bytes {
            true => Err(self.too_large()),
            false => Ok(()),
        }
    }

    /// Returns a path without `./` and without a slash at its end.
    fn plain(&self, path: &[u8]) -> Result<String, ManifestError> {
        if path.len() > MAX_PATH {
            return Err(self.too_large());
        }
        let path = String::from_utf8_lossy(path);
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
        Ok(parts.collect::<Vec<_>>().join("/"))
    }

    fn too_large(&self) -> ManifestError {
        ManifestError::TooLarge(self.limits)
    }

    fn insert(&mut self, path: String, entry: Entry) -> Result<(), ManifestError> {
        self.names += path.len() + entry.target.as_ref().map_or(0, String::len);
        if self.top.is_none() {
            self.top = path.split_once('/').map(|(top, _)| top.to_owned());
        }
        self.files.insert(path, entry);
        let most = self.limits.files.saturating_mul(USUAL_PATH);
        if self.files.len() > self.limits.files || self.names > most {
            return Err(self.too_large());
        }
        Ok(())
    }

    /// Makes the only folder the root if it has the AppSpec file, as agents do.
    fn end(self) -> Manifest {
        let Self {
            mut files,
            mut appspecs,
            ..
        } = self;
        let top = files.keys().next().and_then(|path| path.split_once('/'));
        let top = top.map(|(top, _)| format!("{top}/"));
        let only = top.filter(|top| files.keys().all(|path| path.starts_with(top.as_str())));
        if let Some(only) = only.filter(|only| {
            APPSPEC
                .iter()
                .any(|name| files.contains_key(&format!("{only}{name}")))
        }) {
            let cut = |path: String| path.get(only.len()..).unwrap_or_default().to_owned();
            files = files
                .into_iter()
                .map(|(path, entry)| (cut(path), entry))
                .collect();
            appspecs = appspecs
                .into_iter()
                .map(|(path, text)| (cut(path), text))
                .collect();
        }
        let appspec = APPSPEC.iter().find_map(|name| appspecs.get(*name));
        let hooks = match appspec {
            Some(text) if text.len() > MAX_APPSPEC => Err("it is too large".to_owned()),
            Some(text) => hooks::read(text),
            None => Err("the revision has none".to_owned()),
        };
        Manifest { files, hooks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPSPEC_TEXT: &str = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n  - {location: a.sh, timeout: 30, runas: app}\n";

    fn tar(top: &str) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, text, mode) in [
            ("appspec.yml", APPSPEC_TEXT, 0o644),
            ("a.sh", "#!/bin/sh\n", 0o755),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(mode);
            let path = format!("{top}{path}");
            archive
                .append_data(&mut header, path, text.as_bytes())
                .unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive
            .append_link(&mut header, format!("{top}link"), "a.sh")
            .unwrap();
        archive.into_inner().unwrap()
    }

    fn read(bundle: &[u8]) -> Result<Manifest, ManifestError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bundle).unwrap();
        Manifest::read(file.path(), Limits::WIDE)
    }

    #[test]
    fn a_bundle_is_its_files_and_its_hooks_with_or_without_a_top_folder() {
        for top in ["", "./", "site-12/"] {
            let manifest = read(&tar(top)).unwrap();
            let names: Vec<_> = manifest.files.keys().map(String::as_str).collect();
            assert_eq!(names, ["a.sh", "appspec.yml", "link"], "{top}");
            let script = &manifest.files["a.sh"];
            assert_eq!(
                (script.size, script.mode.as_deref()),
                (Some(10), Some("755"))
            );
            assert_eq!(manifest.files["link"].target.as_deref(), Some("a.sh"));
            let hooks = manifest.hooks.unwrap();
            let hook = &hooks["AfterInstall"][0];
            assert_eq!(
                (
                    hook.location.as_str(),
                    hook.timeout.as_deref(),
                    hook.runas.as_deref()
                ),
                ("a.sh", Some("30"), Some("app"))
            );
        }
    }

    #[test]
    fn a_zip_has_the_same_files() {
        let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        archive
            .start_file("a.sh", options.unix_permissions(0o755))
            .unwrap();
        io::Write::write_all(&mut archive, b"#!/bin/sh\n").unwrap();
        archive
            .start_file("appspec.yml", options.unix_permissions(0o644))
            .unwrap();
        io::Write::write_all(&mut archive, APPSPEC_TEXT.as_bytes()).unwrap();
        archive.add_symlink("link", "a.sh", options).unwrap();
        let zipped = read(&archive.finish().unwrap().into_inner()).unwrap();
        assert_eq!(zipped.files, read(&tar("")).unwrap().files);
    }

    #[test]
    fn damage_is_an_error_and_a_missing_appspec_a_remark() {
        for wrong in [
            &b"PK\x03\x04 and no more"[..],
            b"\x1f\x8b\x08 broken",
            b"no archive at all",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(b"").unwrap().hooks.is_err());
    }
}
