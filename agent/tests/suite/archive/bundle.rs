//! Bundles made byte by byte, as no honest tool would make them, and pictures of folders for
//! comparison.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use codedeploy_agent::revision::archive::{BundleType, Limits, UnpackError, Unpacked, unpack};
use tempfile::TempDir;

/// A folder to unpack into, beside one that must not change.
pub(crate) struct Host {
    folder: TempDir,
    canary: BTreeMap<PathBuf, Node>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        fs::create_dir(folder.path().join("canary")).unwrap();
        fs::write(folder.path().join("canary/file"), "sings").unwrap();
        let canary = picture(&folder.path().join("canary"));
        Self { folder, canary }
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn unpack(
        &self,
        kind: BundleType,
        bundle: &[u8],
        limits: &Limits,
    ) -> Result<Unpacked, UnpackError> {
        let path = self.path("bundle");
        fs::write(&path, bundle).unwrap();
        let bundle = File::open(&path).unwrap().into();
        let result = unpack(&bundle, kind, &self.out(), limits);
        self.assert_canary_alive();
        result.map(|(unpacked, _)| unpacked)
    }

    pub(crate) fn assert_canary_alive(&self) {
        assert_eq!(
            picture(&self.path("canary")),
            self.canary,
            "something outside was touched"
        );
        let mut beside: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.retain(|name| {
            !["out", "canary", "bundle"]
                .iter()
                .any(|known| name == known)
        });
        assert!(beside.is_empty(), "made outside: {beside:?}");
    }
}

/// One path of a folder, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: (i64, i64),
    pub(crate) links: u64,
    pub(crate) content: Vec<u8>,
}

/// Every path below `folder`.
pub(crate) fn picture(folder: &Path) -> BTreeMap<PathBuf, Node> {
    let mut nodes = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_file() {
                fs::read(&path).unwrap()
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec()
            } else {
                folders.push(path.clone());
                Vec::new()
            };
            let node = Node {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                links: if metadata.is_dir() {
                    0
                } else {
                    metadata.nlink()
                },
                content,
            };
            nodes.insert(path.strip_prefix(folder).unwrap().to_owned(), node);
        }
    }
    nodes
}

/// A member of a tar.
#[derive(Clone)]
pub(crate) struct Tar {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) modified: u64,
    pub(crate) data: Vec<u8>,
}

impl Tar {
    pub(crate) fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        let owner = (
            nix::unistd::geteuid().as_raw().into(),
            nix::unistd::getegid().as_raw().into(),
        );
        let name = name.as_ref().to_vec();
        Self {
            name,
            kind,
            link: Vec::new(),
            mode: 0o644,
            owner,
            modified: 1_000_000_000,
            data: Vec::new(),
        }
    }

    pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self {
            data: data.as_ref().to_vec(),
            ..Self::new(b'0', name)
        }
    }

    pub(crate) fn folder(name: impl AsRef<[u8]>) -> Self {
        Self {
            mode: 0o755,
            ..Self::new(b'5', name)
        }
    }

    pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self {
            link: target.as_ref().to_vec(),
            ..Self::new(b'2', name)
        }
    }

    pub(crate) fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self {
            link: target.as_ref().to_vec(),
            ..Self::new(b'1', name)
        }
    }

    /// Pax records for the next member.
    pub(crate) fn pax(kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..)
                .map(|digits| rest + digits)
                .find(|length| length.to_string().len() + rest == *length);
            data.extend_from_slice(format!("{} {key}=", length.unwrap()).as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        Self {
            data,
            ..Self::new(kind, "PaxHeaders/records")
        }
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..self.name.len()].copy_from_slice(&self.name);
        header.as_old_mut().linkname[..self.link.len()].copy_from_slice(&self.link);
        header.as_old_mut().linkflag[0] = self.kind;
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.modified);
        header.set_size(self.data.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// A tar with its end marker.
pub(crate) fn tar_of(members: &[Tar]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(Tar::bytes).collect();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An entry of a zip.
#[derive(Clone)]
pub(crate) struct Zip {
    pub(crate) name: Vec<u8>,
    /// The system that the archive claims: 0 for DOS, 3 for Unix, 10 for NTFS.
    pub(crate) system: u8,
    /// Unix mode with its type, or 0.
    pub(crate) mode: u32,
    pub(crate) dos_attributes: u32,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    pub(crate) extra: Vec<u8>,
    /// Declared in place of the real size.
    pub(crate) size: Option<u32>,
    /// The compressed content, if it is not made from the data.
    pub(crate) packed: Option<Vec<u8>>,
    pub(crate) data: Vec<u8>,
}

impl Zip {
    pub(crate) fn new(name: impl AsRef<[u8]>, mode: u32, data: impl AsRef<[u8]>) -> Self {
        let (name, data) = (name.as_ref().to_vec(), data.as_ref().to_vec());
        Self {
            name,
            system: 3,
            mode,
            dos_attributes: 0,
            method: 8,
            flags: 0,
            extra: Vec::new(),
            size: None,
            packed: None,
            data,
        }
    }

    pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self::new(name, 0o100_644, data)
    }

    pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(name, 0o120_777, target)
    }

    fn fields(&self, packed: &[u8]) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(&self.data);
        let mut bytes = Vec::new();
        for short in [20, self.flags, self.method, 0x6000, 0x5a21] {
            bytes.extend_from_slice(&short.to_le_bytes());
        }
        let size = self.size.unwrap_or(self.data.len() as u32);
        for long in [crc.sum(), packed.len() as u32, size] {
            bytes.extend_from_slice(&long.to_le_bytes());
        }
        for short in [self.name.len(), self.extra.len()] {
            bytes.extend_from_slice(&(short as u16).to_le_bytes());
        }
        bytes
    }
}

pub(crate) fn zip_of(entries: &[Zip]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let packed = match (&entry.packed, entry.method) {
            (Some(packed), _) => packed.clone(),
            (None, 8) => {
                let mut encoder =
                    flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&entry.data).unwrap();
                encoder.finish().unwrap()
            }
            (None, _) => entry.data.clone(),
        };
        let offset = bytes.len() as u32;
        bytes.extend_from_slice(b"PK\x03\x04");
        bytes.extend(entry.fields(&packed));
        bytes.extend_from_slice(&entry.name);
        bytes.extend_from_slice(&entry.extra);
        bytes.extend_from_slice(&packed);

        directory.extend_from_slice(b"PK\x01\x02");
        directory.extend_from_slice(&[20, entry.system]);
        directory.extend(entry.fields(&packed));
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(entry.mode << 16 | entry.dos_attributes).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(&entry.name);
        directory.extend_from_slice(&entry.extra);
    }
    let (start, count) = (bytes.len() as u32, entries.len() as u16);
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&start.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes
}
