//! Unpacks a tar, plain or compressed, in one pass.

mod header;
mod member;
mod members;
mod pax;
mod sparse;

use std::io::{BufReader, Read};

use rustix::fs::Timespec;

use super::compression::Decompressed;
use super::entry::{EntryName, EntryPath, link_target};
use super::error::{Refusal, UnpackError};
use super::format::Format;
use super::source::Source;
use super::writer::{Attributes, Extent, Root, Writer};
use super::{BundleType, Unpacked};
use header::{BLOCK, Owners};
use member::{Kind, Member};
use members::Members;

const BUFFER: usize = 256 * 1024;

/// Whether `start` begins with a tar's header block.
pub(super) fn begins_with_header(start: &[u8]) -> bool {
    start.first_chunk::<BLOCK>().is_some_and(header::is_header)
}

/// Unpacks a tar; its first bytes show the compression.
pub(super) fn unpack(
    bundle: Source<'_>,
    kind: BundleType,
    root: &Root<'_>,
) -> Result<Unpacked, UnpackError> {
    let format = Format::of(&bundle).map_err(|source| UnpackError::Read { kind, source })?;
    let source = BufReader::with_capacity(BUFFER, bundle);
    match (format, kind) {
        (Format::Compressed(compression), _) => {
            let stream = Decompressed::new(compression, source);
            unpack_stream(BufReader::with_capacity(BUFFER, stream), kind, true, root)
        }
        (Format::Tar, BundleType::Tar) | (Format::Unknown, _) => {
            unpack_stream(source, kind, false, root)
        }
        (other, _) => Err(UnpackError::NotThisType {
            kind,
            found: other.name().unwrap_or_default(),
        }),
    }
}

fn unpack_stream(
    stream: impl Read,
    kind: BundleType,
    compressed: bool,
    root: &Root<'_>,
) -> Result<Unpacked, UnpackError> {
    let mut members = Members::new(stream, kind, compressed, &root.remarks);
    let mut writer = Writer::new(root);
    let mut owners = Owners::new(root.sets_owners());
    while let Some(member) = members.next()? {
        unpack_member(&member, &mut members, &mut writer, &mut owners)?;
    }
    writer.finish()
}

fn unpack_member(
    member: &Member,
    members: &mut Members<'_, impl Read>,
    writer: &mut Writer<'_>,
    owners: &mut Owners,
) -> Result<(), UnpackError> {
    let refuse = |refusal: Refusal| refusal.of(EntryName::new(&member.path));
    let path = EntryPath::parse(&member.path).map_err(refuse)?;
    let attributes = Attributes {
        mode: member.mode,
        owner: Some(owners.resolve(member).map_err(refuse)?),
        modified: Some(Timespec {
            tv_sec: member.modified.0,
            tv_nsec: member.modified.1.into(),
        }),
    };
    match member.kind {
        Kind::File => {
            let extent = Extent {
                size: member.size,
                segments: member.segments.as_deref(),
            };
            writer.file(&path, &attributes, extent, &mut members.content())
        }
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
                refuse(Refusal::HardLinkTarget {
                    target: EntryName::new(&member.link),
                    problem,
                })
            })?;
            writer.hard_link(&path, &target)
        }
    }
}
