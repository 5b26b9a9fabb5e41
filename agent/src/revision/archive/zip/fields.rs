//! Decodes numbers and the extra fields of a zip's headers.

use rustix::fs::Timespec;

const WIDE: u16 = 0x0001;
const NTFS: u16 = 0x000a;
const UNIX_TIMES: u16 = 0x5455;
const OLD_UNIX_TIMES: u16 = 0x5855;
const UNICODE_PATH: u16 = 0x7075;

/// Windows counts time in steps of 100 ns from 1601.
const NTFS_STEPS_PER_SECOND: u64 = 10_000_000;
const NTFS_EPOCH: i64 = -11_644_473_600;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array(bytes, at).map_or(0, u64::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The extra fields of a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u16, &'a [u8]);

    /// The next field; padding that is too short for a field ends the list, as it does for every
    /// reader.
    fn next(&mut self) -> Option<Self::Item> {
        let (kind, length) = (u16_at(self.0, 0), u16_at(self.0, 2) as usize);
        let value = self.0.get(4..4 + length)?;
        self.0 = &self.0[4 + length..];
        Some((kind, value))
    }
}

impl<'a> Fields<'a> {
    fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut fields = self;
        fields.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// Numbers with all 32 bits set are stored, in this order, in a 64-bit field.
    pub(super) fn widened<const N: usize>(self, narrow: [u32; N]) -> Option<[u64; N]> {
        let mut wide = self.find(WIDE).unwrap_or_default();
        let mut numbers = [0; N];
        for (number, narrow) in numbers.iter_mut().zip(narrow) {
            *number = match (narrow, array(wide, 0)) {
                (u32::MAX, Some(value)) => {
                    wide = &wide[8..];
                    u64::from_le_bytes(value)
                }
                // Without the field, the number stands for itself.
                (u32::MAX, None) if self.find(WIDE).is_some() => return None,
                _ => narrow.into(),
            };
        }
        Some(numbers)
    }

    /// Returns the UTF-8 name that accompanies `name`, if it belongs to it.
    pub(super) fn unicode_path(self, name: &[u8]) -> Option<&'a [u8]> {
        let value = self.find(UNICODE_PATH)?;
        let mut crc = flate2::Crc::new();
        crc.update(name);
        (value.first() == Some(&1) && value.len() > 5 && u32_at(value, 1) == crc.sum())
            .then(|| &value[5..])
    }

    /// The modification time: that of Unix, else that of Windows.
    pub(super) fn modified(self) -> Option<Timespec> {
        let mut ntfs = None;
        for (kind, value) in self {
            match kind {
                UNIX_TIMES if value.len() >= 5 && value[0] & 1 != 0 => {
                    return Some(unix_time(value, 1));
                }
                OLD_UNIX_TIMES if value.len() >= 8 => return Some(unix_time(value, 4)),
                // Four reserved bytes, then attributes in a form of their own; the first has the
                // times.
                NTFS if value.len() >= 16 && u16_at(value, 4) == 1 && u64_at(value, 8) > 0 => {
                    let steps = u64_at(value, 8);
                    ntfs = Some(Timespec {
                        tv_sec: (steps / NTFS_STEPS_PER_SECOND).cast_signed() + NTFS_EPOCH,
                        tv_nsec: ((steps % NTFS_STEPS_PER_SECOND) * 100).cast_signed() as _,
                    });
                }
                _ => {}
            }
        }
        ntfs
    }
}

/// A signed 32-bit number, as unzip reads it.
fn unix_time(value: &[u8], at: usize) -> Timespec {
    Timespec {
        tv_sec: u32_at(value, at).cast_signed().into(),
        tv_nsec: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_64_bits_stand_in_the_order_of_those_that_do_not_fit() {
        let field = |values: &[u64]| {
            let length = (8 * values.len()) as u16;
            let mut bytes = [WIDE.to_le_bytes(), length.to_le_bytes()].concat();
            values
                .iter()
                .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
            bytes
        };
        let max = u32::MAX;
        let one = field(&[1 << 40]);
        assert_eq!(Fields(&one).widened([5, max, 7]), Some([5, 1 << 40, 7]));
        assert_eq!(Fields(&one).widened([max, max, 7]), None);
        assert_eq!(Fields(&[]).widened([max, 1, 2]), Some([max.into(), 1, 2]));
        assert_eq!(Fields(&[1, 0, 8, 0, 1]).widened([3, 1, 2]), Some([3, 1, 2]));
    }
}
