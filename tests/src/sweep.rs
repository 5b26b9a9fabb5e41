//! The same deployment over and over, disturbed at another point each time, and a count of what came of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use crate::pair::Found;
use crate::strike::{Blow, Report, Strike};

/// Sweeps leave out nothing when this is set to anything; `tests/run --long` sets it.
const LONG: &str = "CODEDEPLOY_TEST_LONG";

/// A folder for rows of the table that says what was done how often.
const TABLE: &str = "CODEDEPLOY_TEST_TABLE";

/// Deployments at once: two wait for disks while the others compute.
pub const AT_ONCE: usize = 4;

/// Whether there is time for everything.
pub fn long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// A temporary folder in memory, where there is one that programs can be run from: a sweep should not wait for a disk.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let usable = nix::sys::statvfs::statvfs(memory)
        .is_ok_and(|it| !it.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC));
    let made = if usable { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}

/// The numbers of all calls of a deployment when there is time, otherwise about `budget`, spread evenly over the calls of
/// each name.
pub fn points(report: &Report, numbers: impl IntoIterator<Item = usize>, budget: usize) -> Vec<usize> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for number in numbers {
        by_name.entry(&report.calls[number - 1].name).or_default().push(number);
    }
    if long() {
        return by_name.into_values().flatten().collect();
    }
    let all: usize = by_name.values().map(Vec::len).sum();
    let mut chosen = Vec::new();
    for numbers in by_name.into_values() {
        let count = (numbers.len() * budget).div_ceil(all).min(numbers.len());
        chosen.extend((0..count).map(|index| numbers[(index * 2 + 1) * numbers.len() / (count * 2)]));
    }
    chosen
}

/// What came of many disturbed deployments.
#[derive(Debug)]
pub struct Tally {
    /// What was done to them, as a line of a table says it.
    what: String,
    counts: RefCell<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    dealt: BTreeMap<String, usize>,
    /// Points that the program did not come to.
    missed: usize,
    old: usize,
    new: usize,
    mixed: Vec<String>,
    wrong: Vec<String>,
}

impl Tally {
    pub fn new(what: &str) -> Self {
        Self { what: what.into(), counts: RefCell::default() }
    }

    /// A disturbance of this kind was dealt.
    pub fn dealt(&self, kind: &str) {
        *self.counts.borrow_mut().dealt.entry(kind.into()).or_default() += 1;
    }

    /// The program ended before its disturbance.
    pub fn missed(&self) {
        self.counts.borrow_mut().missed += 1;
    }

    /// This is what was there afterwards.
    pub fn found(&self, point: &str, found: &Found) {
        let mut counts = self.counts.borrow_mut();
        match found {
            Found::Old => counts.old += 1,
            Found::New => counts.new += 1,
            Found::Mixed(how) => counts.mixed.push(format!("{point}: {how}")),
        }
    }

    /// Something else was not as it should be.
    pub fn expect(&self, point: &str, result: Result<(), String>) {
        if let Err(what) = result {
            self.counts.borrow_mut().wrong.push(format!("{point}: {what}"));
        }
    }

    /// The same for one that must be right.
    ///
    /// # Panics
    ///
    /// When anything was mixed or wrong, or nothing was dealt.
    pub fn conclude(self) {
        self.count().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Prints the count and adds it to the table. It is an error when anything was mixed or wrong, or nothing was dealt.
    pub fn count(self) -> Result<(), String> {
        let counts = self.counts.into_inner();
        let dealt: usize = counts.dealt.values().sum();
        let Counts { old, new, mixed, wrong, missed, .. } = &counts;
        println!(
            "{}: {dealt} dealt, {missed} not reached; {old} old, {new} new, {} mixed, {} otherwise wrong\n  {}",
            self.what,
            mixed.len(),
            wrong.len(),
            counts.dealt.iter().map(|(kind, times)| format!("{kind} {times}")).collect::<Vec<_>>().join(", "),
        );
        let row = format!("| {} | {dealt} | {old} | {new} | {} |\n", self.what, mixed.len() + wrong.len());
        if let Some(folder) = std::env::var_os(TABLE) {
            let name: String = self.what.chars().filter(char::is_ascii_alphanumeric).collect();
            std::fs::write(Path::new(&folder).join(name), row).expect("the table can be written");
        }
        let bad: Vec<&String> = mixed.iter().chain(wrong).collect();
        let shown: String = bad.iter().take(12).map(|text| format!("\n\n{text}")).collect();
        if dealt == 0 {
            return Err(format!("{}: nothing was done at all, which proves nothing", self.what));
        }
        if !bad.is_empty() {
            return Err(format!("{}: {} of {dealt} went wrong:{shown}\n", self.what, bad.len()));
        }
        Ok(())
    }
}

/// Performs `each` on every point; `beds` are what deployments need for themselves, one for every deployment at once.
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
    numbers.into_iter().map(|number| Strike(Some((number, Blow::Kill)))).collect()
}
