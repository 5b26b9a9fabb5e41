//! The promises of an example's README, read from its table of lifecycle events.

use std::path::{Path, PathBuf};

/// A line of the table: an event, and its script unless the agent performs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) event: String,
    pub(crate) script: Option<String>,
}

/// The folder with all examples.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../appspec-examples")
}

/// The names of all examples, sorted.
pub(crate) fn examples() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder())
        .expect("the examples are in the repository")
        .map(|entry| entry.expect("the folder is readable"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("names are text"))
        .collect();
    names.sort();
    names
}

pub(crate) fn text(example: &str) -> String {
    let path = folder().join(example).join("README.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The steps of a deployment of `example` to a host that already has it.
pub(crate) fn steps(example: &str) -> Vec<Step> {
    let text = text(example);
    let table = text
        .lines()
        .skip_while(|line| *line != "| Event | Script | What it does |")
        .skip(2);
    let steps: Vec<_> = table.map_while(step).collect();
    assert!(
        !steps.is_empty(),
        "the README of {example} has no table of events"
    );
    steps
}

fn step(line: &str) -> Option<Step> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let quoted = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
    Some(Step {
        event: quoted(cells.next()?)?,
        script: quoted(cells.next()?),
    })
}
