//! Collects oddities of a bundle, and data that are not restored from it, while it is unpacked: one
//! warning for each kind.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::entry::EntryName;

/// A fact that an operator is warned of once, with the first entry that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remark {
    /// Extended attributes, ACLs, capabilities, SELinux contexts or file flags.
    Attributes,
    SolarisAttributes,
    VolumeLabel,
    UnknownType,
    SetIdBits,
    NoEndMarker,
    BehindEnd,
}

impl Remark {
    fn text(self) -> &'static str {
        match self {
            Self::Attributes => {
                "extended attributes (ACLs, capabilities, SELinux contexts) are not restored from a bundle; give ACLs and \
                 contexts with permissions in the AppSpec file, capabilities with setcap in a hook script"
            }
            Self::SolarisAttributes => {
                "ACLs and extended attributes of Solaris are not restored from a bundle; give ACLs with permissions in \
                 the AppSpec file"
            }
            Self::VolumeLabel => "the bundle has a volume label, which is no file",
            Self::UnknownType => {
                "an entry of an unknown type was unpacked as a plain file, as GNU tar does; look at how the bundle is built"
            }
            Self::SetIdBits => {
                "set-id bits dropped: the file does not get the owner that they were meant for"
            }
            Self::NoEndMarker => {
                "the bundle's compressed stream is whole, but the tar in it has no end marker; close the archive where it \
                 is written"
            }
            Self::BehindEnd => {
                "bytes behind the bundle's end that belong to no entry are ignored; look at what appends them"
            }
        }
    }
}

/// The remarks on one bundle; several threads may add to them.
#[derive(Debug, Default)]
pub(super) struct Remarks(Mutex<BTreeMap<Remark, (EntryName, u64)>>);

impl Remarks {
    pub(super) fn add(&self, remark: Remark, entry: impl Into<EntryName>) {
        let mut remarks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match remarks.get_mut(&remark) {
            Some((_, others)) => *others += 1,
            None => _ = remarks.insert(remark, (entry.into(), 0)),
        }
    }

    /// Logs one warning for each kind.
    pub(super) fn warn(&self) {
        let remarks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (remark, (entry, others)) in &*remarks {
            let and_others = match others {
                0 => String::new(),
                1 => " and 1 other".to_owned(),
                others => format!(" and {others} others"),
            };
            tracing::warn!("entry {entry}{and_others}: {}", remark.text());
        }
    }
}
