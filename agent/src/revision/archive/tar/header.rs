//! Decodes what tar headers say: numbers in their three notations, pax records, owners by name or number.

use std::collections::HashMap;

use ::tar::Header;
use nix::unistd::{Group, User};

use super::super::error::Refusal;
use super::members::Member;

/// Longest name of a user or group, in bytes.
const MAX_NAME: usize = 256;
/// Most names that are remembered.
const MAX_KNOWN: usize = 1024;

/// The numbers of a header block; none where a field holds something else.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) mode: Option<i128>,
    pub(super) user: Option<i128>,
    pub(super) group: Option<i128>,
    pub(super) size: Option<i128>,
    pub(super) modified: Option<i128>,
}

impl Numbers {
    pub(super) fn of(header: &Header) -> Self {
        let fields = header.as_old();
        Self {
            mode: number(&fields.mode),
            user: number(&fields.uid),
            group: number(&fields.gid),
            size: number(&fields.size),
            modified: number(&fields.mtime),
        }
    }
}

/// A numeric field: octal digits, or with its first bit set a big-endian number in two's complement (GNU). Blank is 0.
fn number(field: &[u8]) -> Option<i128> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let start = if negative { i128::from(*first) - 0x100 } else { i128::from(first & 0x7f) };
        return Some(rest.iter().fold(start, |value, byte| (value << 8) | i128::from(*byte)));
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    text.iter().try_fold(0, |value, byte| match byte {
        b'0'..=b'7' => Some(value * 8 + i128::from(byte - b'0')),
        _ => None,
    })
}

/// What records in front of a member say about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) pax: Pax,
}

/// The pax records that matter here. Times of access, comments and extended attributes do not, as for GNU tar.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<i128>,
    pub(super) user: Option<i128>,
    pub(super) group: Option<i128>,
    pub(super) user_name: Option<Vec<u8>>,
    pub(super) group_name: Option<Vec<u8>>,
    pub(super) modified: Option<(i64, u32)>,
    /// Describes a sparse file, whose content is not what the member holds.
    pub(super) sparse: bool,
}

impl Pax {
    /// Parses records of the form `LENGTH KEY=VALUE\n`; the last one of a key counts, an empty value takes it back.
    pub(super) fn parse(mut records: &[u8]) -> Option<Self> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ')?;
            let length = decimal(&records[..space])?;
            let (record, rest) = records.split_at_checked(usize::try_from(length).ok()?)?;
            let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            pax.set(&record[..equals], &record[equals + 1..])?;
            records = rest;
        }
        Some(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            [] => Some(None),
            digits => decimal(digits).map(Some),
        };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"uname" => self.user_name = text(),
            b"gname" => self.group_name = text(),
            b"size" => self.size = number()?,
            b"uid" => self.user = number()?,
            b"gid" => self.group = number()?,
            b"mtime" if value.is_empty() => self.modified = None,
            b"mtime" => self.modified = Some(timestamp(value)?),
            key => self.sparse |= key.starts_with(b"GNU.sparse."),
        }
        Some(())
    }
}

fn decimal(digits: &[u8]) -> Option<i128> {
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, digit| value * 10 + i128::from(digit - b'0')))
}

/// Seconds with an optional sign and fraction, as whole seconds and nanoseconds after them.
fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// Finds owners as GNU tar does: the name counts where this host has it, else the number. Remembers what it looked up.
#[derive(Debug)]
pub(super) struct Owners {
    by_name: bool,
    users: HashMap<Vec<u8>, Option<u32>>,
    groups: HashMap<Vec<u8>, Option<u32>>,
}

impl Owners {
    /// Without `by_name` no name is looked up, which may ask a directory server.
    pub(super) fn new(by_name: bool) -> Self {
        Self { by_name, users: HashMap::new(), groups: HashMap::new() }
    }

    pub(super) fn resolve(&mut self, member: &Member) -> Result<(u32, u32), Refusal> {
        let (mut user, mut group) = (None, None);
        if self.by_name {
            user = named(&mut self.users, &member.user_name, |name| {
                User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
            });
            group = named(&mut self.groups, &member.group_name, |name| {
                Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
            });
        }
        let user = user.or_else(|| id(member.user));
        let group = group.or_else(|| id(member.group));
        user.zip(group).ok_or(Refusal::Header { problem: "its owner's number is out of range" })
    }
}

fn named(
    known: &mut HashMap<Vec<u8>, Option<u32>>,
    name: &[u8],
    look_up: impl FnOnce(&str) -> Option<u32>,
) -> Option<u32> {
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    if let Some(found) = known.get(name) {
        return *found;
    }
    let found = str::from_utf8(name).ok().and_then(look_up);
    if known.len() == MAX_KNOWN {
        known.clear();
    }
    known.insert(name.to_vec(), found);
    found
}

/// A user or group number; the last one of 32 bits means "no change" to the kernel.
fn id(number: i128) -> Option<u32> {
    u32::try_from(number).ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_notation() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b" 755 \0\0\0", Some(0o755)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\x03\x0d\x40", Some(200_000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"12x4567\0", None),
            (b"-000001\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn pax_records_may_hold_newlines_and_the_last_of_a_key_counts() {
        let records = b"29 SCHILY.xattr.user.x=a\nb\0c\n9 path=a\n9 path=b\n10 uid=99\n";
        let pax = Pax::parse(records).unwrap();
        assert_eq!(pax, Pax { path: Some(b"b".to_vec()), user: Some(99), ..Pax::default() });
        for malformed in
            ["8 path=a\n", "9 path=a", "99 path=a\n", "path=a\n", "8 patha\n\n", "10 uid=9x\n", "0 \n"]
        {
            assert_eq!(Pax::parse(malformed.as_bytes()), None, "{malformed:?}");
        }
    }

    #[test]
    fn timestamps_before_the_epoch_count_upwards() {
        assert_eq!(timestamp(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(timestamp(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp(b"-3"), Some((-3, 0)));
        assert_eq!(timestamp(b"1.1234567891"), Some((1, 123_456_789)));
        assert_eq!(timestamp(b"1e3"), None);
    }
}
