//! Decodes a tar's header block: numbers in their three notations, its name, owners by name or
//! number.

use std::collections::HashMap;

use ::tar::Header;
use nix::unistd::{Group, User};

use super::super::error::Refusal;
use super::member::Member;

/// The size of a block, the unit of a tar, in bytes.
pub(super) const BLOCK: usize = 512;

/// The longest name of a user or group, in bytes.
const MAX_NAME: usize = 256;
/// A number that no user has.
const NOBODY: u32 = u32::MAX;
/// The number of names that are remembered.
const MAX_KNOWN: usize = 1024;

/// The numbers of a header block; `None` if a field holds something else.
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

/// Whether `block` is a header: its checksum is correct, with bytes read as unsigned, or as signed
/// like in old tars.
pub(super) fn is_header(block: &[u8; BLOCK]) -> bool {
    let Some(declared) = number(&block[148..156]) else {
        return false;
    };
    let rest = || block[..148].iter().chain(&block[156..]);
    let blanks = 8 * i128::from(b' ');
    let unsigned: i128 = rest().map(|byte| i128::from(*byte)).sum();
    let signed: i128 = rest().map(|byte| i128::from(byte.cast_signed())).sum();
    (declared == unsigned + blanks || declared == signed + blanks)
        && block.iter().any(|byte| *byte != 0)
}

/// The name in the header block itself: POSIX puts the beginning of a long name into a field of its
/// own.
pub(super) fn own_name(header: &Header) -> Vec<u8> {
    let block = header.as_bytes();
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    if block[257..263] == *b"ustar\0" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

/// The text of a field: up to its first NUL, or all of it.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits, or with its first bit set a big-endian number in two's complement
/// (GNU). Blank is 0.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let start = if negative {
            i128::from(*first) - 0x100
        } else {
            i128::from(first & 0x7f)
        };
        return Some(
            rest.iter()
                .fold(start, |value, byte| (value << 8) | i128::from(*byte)),
        );
    }
    let text = text(field).trim_ascii();
    text.iter().try_fold(0, |value, byte| match byte {
        b'0'..=b'7' => Some(value * 8 + i128::from(byte - b'0')),
        _ => None,
    })
}

/// Finds owners as GNU tar does: by name if this host has it, else by number. Caches its look-ups.
#[derive(Debug)]
pub(super) struct Owners {
    by_name: bool,
    users: HashMap<Vec<u8>, Option<u32>>,
    groups: HashMap<Vec<u8>, Option<u32>>,
}

impl Owners {
    /// Without `by_name` no name is looked up, because a look-up may ask a directory server.
    pub(super) fn new(by_name: bool) -> Self {
        Self {
            by_name,
            users: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    pub(super) fn resolve(&mut self, member: &Member) -> Result<(u32, u32), Refusal> {
        let (mut user, mut group) = (None, None);
        if self.by_name {
            user = named(&mut self.users, &member.user_name, |name| {
                User::from_name(name)
                    .ok()
                    .flatten()
                    .map(|user| user.uid.as_raw())
            });
            group = named(&mut self.groups, &member.group_name, |name| {
                Group::from_name(name)
                    .ok()
                    .flatten()
                    .map(|group| group.gid.as_raw())
            });
        }
        // A file that is not given to anyone may have a number that no host can have.
        let number = |number| id(number).or((!self.by_name).then_some(NOBODY));
        let user = user.or_else(|| number(member.user));
        let group = group.or_else(|| number(member.group));
        user.zip(group).ok_or(Refusal::Header {
            problem: "its owner's number is out of range",
        })
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

/// A user or group number; the kernel reads the last 32-bit number as "no change".
fn id(number: i128) -> Option<u32> {
    u32::try_from(number).ok().filter(|id| *id != u32::MAX)
}

/// Reads decimal digits.
pub(super) fn decimal(digits: &[u8]) -> Option<i128> {
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |value, digit| value * 10 + i128::from(digit - b'0')),
    )
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
}
