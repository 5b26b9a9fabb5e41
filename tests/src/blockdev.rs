//! A disk whose power can be cut: a file in a small file system of our own, with a loop device on
//! it. It records every write and every flush in order, so that every state that a disk could have
//! after a power cut can be reproduced.

mod fuse;
mod recording;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mounts::{self, Mounted};

pub use recording::{Cut, Recording};

/// The size of an atomic write, in bytes.
const BLOCK: usize = 4096;

/// The time that a device may stay busy after its file system is unmounted.
const FREE_WITHIN: Duration = Duration::from_secs(20);

/// Kinds of file systems; each has a minimum size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
}

/// The contents of a disk; blocks that were never written are zero.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Shared by all images that derive from one.
    base: Arc<BTreeMap<u64, Block>>,
    over: BTreeMap<u64, Block>,
}

type Block = Arc<[u8]>;

/// The requests to a disk, in order.
#[derive(Debug, Clone)]
pub enum Told {
    /// Blocks by number, written by one request.
    Write(Vec<(u64, Block)>),
    /// Everything before it was on the disk before the flush completed.
    Flush,
}

/// The disk, which is removed when dropped.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Mutex<Contents>>,
    folder: tempfile::TempDir,
    session: Option<fuser::BackgroundSession>,
}

#[derive(Debug)]
struct Contents {
    size: u64,
    image: Image,
    told: Vec<Told>,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn size(self) -> u64 {
        match self {
            Self::Ext4 => 32 << 20,
            // The smallest possible size.
            Self::Xfs => 300 << 20,
        }
    }
}

impl Disk {
    /// Makes a disk with an empty file system; `Err` names a tool that this machine lacks.
    pub fn create(kind: Kind) -> Result<Self, String> {
        for (needed, what) in [("/dev/fuse", "FUSE"), ("/dev/loop-control", "loop devices")] {
            if !Path::new(needed).exists() {
                return Err(format!(
                    "there is no {needed}, so this kernel has no {what} to offer"
                ));
            }
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [plain, mount] = ["plain", "mount"].map(|name| folder.path().join(name));
        let file = std::fs::File::create_new(&plain).expect("the file can be made");
        file.set_len(kind.size()).expect("it can be that long");
        mounts::run(
            Command::new(format!("mkfs.{}", kind.name()))
                .arg("-q")
                .arg(&plain),
        )?;
        let image = Image::read(&plain);
        std::fs::remove_file(&plain).expect("it is ours");
        std::fs::create_dir(&mount).expect("the folder can be made");
        let shared = Arc::new(Mutex::new(Contents {
            size: kind.size(),
            image,
            told: Vec::new(),
        }));
        let exposed = fuse::OneFile(Arc::clone(&shared));
        let session = fuser::spawn_mount(exposed, &mount, &fuser::Config::default());
        let session =
            Some(session.map_err(|error| format!("cannot mount a FUSE file system: {error}"))?);
        Ok(Self {
            shared,
            folder,
            session,
        })
    }

    /// Mounts its file system.
    pub fn mount(&self, path: &Path) -> Result<Mounted, String> {
        let file = self.folder.path().join("mount").join(fuse::NAME);
        // The loop device is released with the mount.
        Mounted::mount(&["-o".as_ref(), "loop".as_ref(), file.as_os_str()], path)
    }

    /// The disk's contents.
    pub fn image(&self) -> Image {
        let contents = self.contents();
        let Image { base, over } = &contents.image;
        let mut all = BTreeMap::clone(base);
        all.extend(
            over.iter()
                .map(|(number, block)| (*number, Arc::clone(block))),
        );
        Image {
            base: Arc::new(all),
            over: BTreeMap::new(),
        }
    }

    /// Replaces the contents while nothing is mounted, and clears the record of requests.
    pub fn load(&self, image: Image) {
        self.wait_until_free();
        let mut contents = self.contents();
        contents.image = image;
        contents.told.clear();
    }

    /// All requests since the last [`Disk::load`].
    pub fn told(&self) -> Vec<Told> {
        self.contents().told.clone()
    }

    /// The number of requests so far.
    pub fn position(&self) -> usize {
        self.contents().told.len()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A loop device is released a moment after its mount.
    fn wait_until_free(&self) {
        let file = self.folder.path().join("mount").join(fuse::NAME);
        let began = Instant::now();
        loop {
            let devices = Command::new("losetup")
                .arg("--associated")
                .arg(&file)
                .output()
                .expect("losetup is there");
            if devices.stdout.is_empty() {
                return;
            }
            let listed = String::from_utf8_lossy(&devices.stdout).into_owned();
            assert!(began.elapsed() < FREE_WITHIN, "still in use: {listed}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

impl Image {
    fn read(path: &Path) -> Self {
        let file = std::fs::File::open(path).expect("it was just made");
        let length = file.metadata().expect("it is open").len();
        let mut blocks = BTreeMap::new();
        let mut buffer = vec![0; 256 * BLOCK];
        let mut offset = 0;
        while offset < length {
            let read = file.read_at(&mut buffer, offset).expect("it can be read");
            for (index, block) in buffer[..read].chunks(BLOCK).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    blocks.insert(offset / BLOCK as u64 + index as u64, Block::from(block));
                }
            }
            offset += read as u64;
        }
        Self {
            base: Arc::new(blocks),
            over: BTreeMap::new(),
        }
    }

    /// Writes blocks.
    pub fn write<'a>(&mut self, blocks: impl IntoIterator<Item = &'a (u64, Block)>) {
        self.over.extend(
            blocks
                .into_iter()
                .map(|(number, block)| (*number, Arc::clone(block))),
        );
    }

    fn block(&self, number: u64) -> Option<&Block> {
        self.over.get(&number).or_else(|| self.base.get(&number))
    }
}
