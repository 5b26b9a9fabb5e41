//! Unpacks a tar, plain or compressed with gzip, in one pass.

mod header;
mod members;

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;

use flate2::read::MultiGzDecoder;
use rustix::fs::Timespec;

use super::entry::{EntryName, EntryPath, link_target};
use super::error::{Refusal, UnpackError};
use super::source::Source;
use super::writer::{Attributes, Root, Writer};
use super::{BundleType, Unpacked};
use header::Owners;
use members::{Kind, Member, Members};

const BUFFER: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

pub(super) fn unpack(bundle: &File, kind: BundleType, root: &Root<'_>) -> Result<Unpacked, UnpackError> {
    let mut magic = [0; 2];
    let compressed = match kind {
        BundleType::Tgz => true,
        _ => {
            let unreadable = |source| UnpackError::Read { kind, source };
            bundle.read_at(&mut magic, 0).map_err(unreadable)? == magic.len() && magic == GZIP_MAGIC
        }
    };
    let source = BufReader::with_capacity(BUFFER, Source::new(bundle));
    if compressed {
        unpack_stream(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(source)), kind, root)
    } else {
        unpack_stream(source, kind, root)
    }
}

fn unpack_stream(stream: impl Read, kind: BundleType, root: &Root<'_>) -> Result<Unpacked, UnpackError> {
    let mut members = Members::new(stream, kind);
    let mut writer = Writer::new(root);
    let mut owners = Owners::new(root.sets_owners());
    while let Some(member) = members.next()? {
        unpack_member(&member, &mut members, &mut writer, &mut owners)?;
    }
    writer.finish()
}

fn unpack_member(
    member: &Member,
    members: &mut Members<impl Read>,
    writer: &mut Writer<'_>,
    owners: &mut Owners,
) -> Result<(), UnpackError> {
    let refuse = |refusal: Refusal| refusal.of(EntryName::new(&member.path));
    let path = EntryPath::parse(&member.path).map_err(refuse)?;
    let attributes = Attributes {
        mode: member.mode,
        owner: Some(owners.resolve(member).map_err(refuse)?),
        modified: Some(Timespec { tv_sec: member.modified.0, tv_nsec: member.modified.1.into() }),
    };
    match member.kind {
        Kind::File => writer.file(&path, &attributes, member.size, &mut members.content()),
        Kind::Folder => writer.folder(path, attributes),
        Kind::Symlink => {
            let target = link_target(member.link.clone()).map_err(refuse)?;
            writer.link(path, target, attributes)
        }
        Kind::HardLink => {
            let target = EntryPath::parse(&member.link).map_err(|refusal| {
                let problem = match refusal {
                    Refusal::Absolute | Refusal::ParentFolder => "lies outside the revision",
                    _ => "is no possible path",
                };
                refuse(Refusal::HardLinkTarget { target: EntryName::new(&member.link), problem })
            })?;
            writer.hard_link(&path, &target)
        }
    }
}
