//! The requests to a disk while a program worked, and the disks that a power cut could have left.

use super::{Image, Told};

/// A deployment as a disk saw it.
#[derive(Debug)]
pub struct Recording {
    pub before: Image,
    pub told: Vec<Told>,
    /// The position in the disk's requests when the program reported its success.
    pub reported: usize,
}

/// The contents of the disk when the power went.
#[derive(Debug)]
pub struct Cut {
    pub name: String,
    pub image: Image,
    /// Whether the success had been reported.
    pub reported: bool,
}

impl Recording {
    /// The disk after each write, or after `count` of them.
    pub fn prefixes(&self, count: usize) -> Vec<Cut> {
        let all = self.told.len() + 1;
        let count = count.min(all);
        let ends = (0..count).map(|index| {
            if count == all {
                index
            } else {
                (index * 2 + 1) * all / (count * 2)
            }
        });
        let cut = |end: usize| Cut {
            name: format!("after {end} of {}", self.told.len()),
            image: self.image(end, |_| true),
            reported: end >= self.reported,
        };
        ends.map(cut).collect()
    }

    /// The disk at `count` moments, each with only some of the writes since the last flush; half of
    /// them just before the next flush.
    pub fn reordered(&self, count: usize) -> Vec<Cut> {
        let flushes: Vec<usize> = (0..self.told.len())
            .filter(|at| matches!(self.told[*at], Told::Flush))
            .collect();
        let cut = |seed: usize| {
            let mut dice = fastrand::Rng::with_seed(seed as u64);
            let any = dice.usize(0..=self.told.len());
            let end = if seed.is_multiple_of(2) {
                any
            } else {
                *dice.choice(&flushes).unwrap_or(&any)
            };
            Cut {
                name: format!("seed {seed}, after {end} of {}", self.told.len()),
                image: self.image(end, |_| dice.bool()),
                reported: end >= self.reported,
            }
        };
        (0..count).map(cut).collect()
    }

    /// The first `end` entries; unflushed ones are included only if `keeps` says so.
    fn image(&self, end: usize, mut keeps: impl FnMut(u64) -> bool) -> Image {
        let told = &self.told[..end];
        let flushed = told
            .iter()
            .rposition(|told| matches!(told, Told::Flush))
            .unwrap_or(0);
        let mut image = self.before.clone();
        for (index, told) in told.iter().enumerate() {
            if let Told::Write(blocks) = told {
                image.write(
                    blocks
                        .iter()
                        .filter(|(number, _)| index < flushed || keeps(*number)),
                );
            }
        }
        image
    }
}
