//! The file system that exposes a disk as its only file.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};

use super::{BLOCK, Block, Contents, Told};

/// The file's name.
pub(super) const NAME: &str = "disk";

const FILE: INodeNo = INodeNo(2);
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

pub(super) struct OneFile(pub(super) Arc<Mutex<Contents>>);

impl OneFile {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, number: INodeNo) -> FileAttr {
        let file = number == FILE;
        FileAttr {
            ino: number,
            size: if file { self.contents().size } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOR_EVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(number));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Nothing may be cached: the contents are replaced between two mounts.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let contents = self.contents();
        let end = (offset + u64::from(size)).min(contents.size);
        let mut data = Vec::with_capacity(size as usize);
        let mut at = offset;
        while at < end {
            let inside = (at % BLOCK as u64) as usize;
            let length = (BLOCK - inside).min((end - at) as usize);
            match contents.image.block(at / BLOCK as u64) {
                Some(block) => data.extend(&block[inside..inside + length]),
                None => data.resize(data.len() + length, 0),
            }
            at += length as u64;
        }
        reply.data(&data);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut contents = self.contents();
        let mut blocks: Vec<(u64, Block)> = Vec::new();
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let inside = (at % BLOCK as u64) as usize;
            let (now, later) = rest.split_at((BLOCK - inside).min(rest.len()));
            let number = at / BLOCK as u64;
            let mut block = contents
                .image
                .block(number)
                .map_or_else(|| vec![0; BLOCK], |block| block.to_vec());
            block[inside..inside + now.len()].copy_from_slice(now);
            blocks.push((number, block.into()));
            at += now.len() as u64;
            rest = later;
        }
        contents.image.write(&blocks);
        contents.told.push(Told::Write(blocks));
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.contents().told.push(Told::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
