//! Runs the same deployment again and again, disturbed at another point each time, and counts the
//! results.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use crate::pair::Found;
use crate::strike::{Blow, Report, Strike};

/// If this is set, sweeps omit nothing; `tests/run --long` sets it.
const LONG: &str = "CODEDEPLOY_TEST_LONG";

/// A folder for rows of the table with the number of each kind of disturbance.
const TABLE: &str = "CODEDEPLOY_TEST_TABLE";

/// The number of concurrent deployments: two wait for disks while the others compute.
pub const AT_ONCE: usize = 4;

/// Whether there is time for everything.
pub fn long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// A temporary folder in memory, if there is one from which programs can be executed: a sweep
/// should not wait for a disk.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let usable = nix::sys::statvfs::statvfs(memory)
        .is_ok_and(|it| !it.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC));
    let made = if usable {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.or_else(|_| tempfile::tempdir())
        .expect("a temporary folder")
}

/// The numbers of all calls of a deployment if there is time, otherwise about `budget`, spread
/// evenly over the calls of each name.
pub fn points(
    report: &Report,
    numbers: impl IntoIterator<Item = usize>,
    budget: usize,
) -> Vec<usize> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for number in numbers {
        by_name
            .entry(&report.calls[number - 1].name)
            .or_default()
            .push(number);
    }
    if long() {
        return by_name.into_values().flatten().collect();
    }
    let all: usize = by_name.values().map(Vec::len).sum();
    let mut chosen = Vec::new();
    for numbers in by_name.into_values() {
        let count = (numbers.len() * budget).div_ceil(all).min(numbers.len());
        chosen
            .extend((0..count).map(|index| numbers[(index * 2 + 1) * numbers.len() / (count * 2)]));
    }
    chosen
}

/// The results of many disturbed deployments.
#[derive(Debug)]
pub struct Tally {
    /// The kind of disturbance, as in a line of the table.
    what: String,
    counts: RefCell<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    dealt: BTreeMap<String, usize>,
    /// The points that the program did not reach.
    missed: usize,
    old: usize,
    new: usize,
    mixed: Vec<String>,
    wrong: Vec<String>,
}

impl Tally {
    pub fn new(what: &str) -> Self {
        Self {
            what: what.into(),
            counts: RefCell::default(),
        }
    }

    /// Counts a disturbance of this kind.
    pub fn dealt(&self, kind: &str) {
        *self
            .counts
            .borrow_mut()
            .dealt
            .entry(kind.into())
            .or_default() += 1;
    }

    /// Counts a program that ended before its disturbance.
    pub fn missed(&self) {
        self.counts.borrow_mut().missed += 1;
    }

    /// Counts the revision that was found afterwards.
    pub fn found(&self, point: &str, found: &Found) {
        let mut counts = self.counts.borrow_mut();
        match found {
            Found::Old => counts.old += 1,
            Found::New => counts.new += 1,
            Found::Mixed(how) => counts.mixed.push(format!("{point}: {how}")),
        }
    }

    /// Counts another result that is not as it should be.
    pub fn expect(&self, point: &str, result: Result<(), String>) {
        if let Err(what) = result {
            self.counts
                .borrow_mut()
                .wrong
                .push(format!("{point}: {what}"));
        }
    }

    /// The same for a sweep that must succeed.
    ///
    /// # Panics
    ///
    /// If anything was mixed or wrong, or there was no disturbance.
    pub fn conclude(self) {
        self.count().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Prints the counts and adds them to the table. Fails if anything was mixed or wrong, or if
    /// there was no disturbance.
    pub fn count(self) -> Result<(), String> {
        let counts = self.counts.into_inner();
        let dealt: usize = counts.dealt.values().sum();
        let Counts {
            old,
            new,
            mixed,
            wrong,
            missed,
            ..
        } = &counts;
        println!(
            "{}: {dealt} dealt, {missed} not reached; {old} old, {new} new, {} mixed, {} otherwise wrong\n  {}",
            self.what,
            mixed.len(),
            wrong.len(),
            counts
                .dealt
                .iter()
                .map(|(kind, times)| format!("{kind} {times}"))
                .collect::<Vec<_>>()
                .join(", "),
        );
        let row = format!(
            "| {} | {dealt} | {old} | {new} | {} |\n",
            self.what,
            mixed.len() + wrong.len()
        );
        if let Some(folder) = std::env::var_os(TABLE) {
            let name: String = self
                .what
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .collect();
            std::fs::write(Path::new(&folder).join(name), row).expect("the table can be written");
        }
        let bad: Vec<&String> = mixed.iter().chain(wrong).collect();
        let shown: String = bad
            .iter()
            .take(12)
            .map(|text| format!("\n\n{text}"))
            .collect();
        if dealt == 0 {
            return Err(format!(
                "{}: nothing was done at all, which proves nothing",
                self.what
            ));
        }
        if !bad.is_empty() {
            return Err(format!(
                "{}: {} of {dealt} went wrong:{shown}\n",
                self.what,
                bad.len()
            ));
        }
        Ok(())
    }
}

/// Runs `each` for every point; `beds` are the hosts, one for each concurrent deployment.
pub async fn sweep<B, P>(beds: Vec<B>, points: Vec<P>, each: impl AsyncFn(&mut B, P)) {
    let points = RefCell::new(VecDeque::from(points));
    let workers = beds.into_iter().map(async |mut bed| {
        loop {
            let next = points.borrow_mut().pop_front();
            let Some(point) = next else { return };
            each(&mut bed, point).await;
        }
    });
    futures_util::future::join_all(workers).await;
}

/// A kill at each of these calls.
pub fn kills(numbers: Vec<usize>) -> Vec<Strike> {
    numbers
        .into_iter()
        .map(|number| Strike(Some((number, Blow::Kill))))
        .collect()
}
