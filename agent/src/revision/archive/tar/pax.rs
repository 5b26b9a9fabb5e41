//! Decodes pax records, which describe the next member, or all later ones.

use super::header::decimal;
use super::sparse::Sparse;

/// The records in front of a member.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extension {
    /// A long name in GNU's notation; a pax path overrides it regardless of order, as in GNU tar.
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) pax: Pax,
}

/// The pax records that matter here. Access times and comments do not, as in GNU tar.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<i128>,
    pub(super) user: Option<i128>,
    pub(super) group: Option<i128>,
    pub(super) user_name: Option<Vec<u8>>,
    pub(super) group_name: Option<Vec<u8>>,
    pub(super) modified: Option<(i64, u32)>,
    /// The storage of a file with holes.
    pub(super) sparse: Option<Sparse>,
    /// Data that are not restored: extended attributes, ACLs, an SELinux context, file flags.
    pub(super) attributes: bool,
    /// The archive has a label.
    pub(super) label: bool,
    /// The member continues one of another volume.
    pub(super) continued: bool,
}

impl Pax {
    /// Parses records of the form `LENGTH KEY=VALUE\n`, in addition to those for every member; the
    /// last record of a key counts, an empty value removes it.
    pub(super) fn parse(base: &Self, mut records: &[u8]) -> Option<Self> {
        let mut pax = base.clone();
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

    /// Whether these records give every later member the same name, size or holes.
    pub(super) fn repeats_one_member(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some() || self.sparse.is_some()
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
            b"GNU.volume.label" => self.label = true,
            b"GNU.volume.offset" => self.continued = true,
            key => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().set(key, value)?;
                }
                self.attributes |= ATTRIBUTES.iter().any(|prefix| key.starts_with(prefix));
            }
        }
        Some(())
    }
}

/// Prefixes of the keys of attributes that are not restored.
const ATTRIBUTES: [&[u8]; 5] = [
    b"SCHILY.xattr.",
    b"SCHILY.acl.",
    b"SCHILY.fflags",
    b"LIBARCHIVE.xattr.",
    b"RHT.security.",
];

/// Parses seconds with an optional sign and fraction into whole seconds and nanoseconds.
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
    let digits = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_may_hold_newlines_and_the_last_of_a_key_counts() {
        let records = b"29 SCHILY.xattr.user.x=a\nb\0c\n9 path=a\n9 path=b\n10 uid=99\n";
        let pax = Pax::parse(&Pax::default(), records).unwrap();
        let expected = Pax {
            path: Some(b"b".to_vec()),
            user: Some(99),
            attributes: true,
            ..Pax::default()
        };
        assert_eq!(pax, expected);
        for malformed in [
            "8 path=a\n",
            "9 path=a",
            "99 path=a\n",
            "path=a\n",
            "8 patha\n\n",
            "10 uid=9x\n",
            "0 \n",
        ] {
            assert_eq!(
                Pax::parse(&Pax::default(), malformed.as_bytes()),
                None,
                "{malformed:?}"
            );
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
