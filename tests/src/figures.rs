//! The figures of a benchmark, as lines of text or as JSON with the description of the machine.

#![allow(clippy::print_stderr, reason = "a wrong command line is told there")]

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

/// The bound that a figure should keep.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Aim {
    fn parts(self) -> (&'static str, Option<f64>) {
        match self {
            Self::AtMost(bound) => ("at most", Some(bound)),
            Self::AtLeast(bound) => ("at least", Some(bound)),
            Self::None => ("", None),
        }
    }
}

/// Reads the command line of a benchmark whose only option is `--json`: whether it is there. After
/// `--help`, or wrong usage, the program ends with the code.
pub fn only_json(program: &str, about: &str, arguments: &[OsString]) -> Result<bool, ExitCode> {
    let mut json = false;
    for word in arguments.iter().skip(1) {
        match word.to_str() {
            Some("--json") => json = true,
            Some("-h" | "--help") => {
                say(&format!(
                    "{about}\n\nUsage: {program} [--json]\n\n{OPTIONS}"
                ));
                return Err(ExitCode::SUCCESS);
            }
            _ => {
                eprintln!("{program}: found {word:?}, expected --json; --help shows the arguments");
                return Err(ExitCode::from(2));
            }
        }
    }
    if cfg!(debug_assertions) && !json {
        say("This is a debug build; the figures mean little. Add --release.\n");
    }
    Ok(json)
}

const OPTIONS: &str = "\
Options:
      --json  print the figures as JSON, with the machine's description
  -h, --help  print this help

The programs are roles of this executable, unless CODEDEPLOY_BIN_DIR names a folder with those of a
release.";

/// Prints figures as they are measured; with JSON, all of them at the end.
///
/// Nobody may listen any more: a closed pipe ends the output and nothing else.
#[derive(Debug)]
pub struct Figures {
    json: bool,
    load_before: f64,
    section: String,
    found: Vec<Value>,
}

impl Figures {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            load_before: load(),
            section: String::new(),
            found: Vec::new(),
        }
    }

    /// Begins a group of figures.
    pub fn section(&mut self, title: &str) {
        if !self.section.is_empty() {
            self.print("");
        }
        self.print(title);
        self.section = title.to_owned();
    }

    pub fn add(&mut self, name: &str, value: f64, unit: &str, aim: Aim) {
        let (word, bound) = aim.parts();
        let aim = bound.map_or(String::new(), |bound| format!("aim: {word} {bound}"));
        let line = format!("  {name:<48} {value:>10.1} {unit:<4} {aim}");
        self.print(line.trim_end());
        let mut figure =
            json!({"section": self.section, "name": name, "value": value, "unit": unit});
        if let Some(bound) = bound {
            figure["aim"] = json!({ word: bound });
        }
        self.found.push(figure);
    }

    /// Adds a figure beside that of something else in the same unit, with their ratio, for which
    /// the aim is.
    pub fn compare(&mut self, name: &str, ours: f64, other: (&str, f64), unit: &str, aim: Aim) {
        let (who, theirs) = other;
        let ratio = ours / theirs;
        let (word, bound) = aim.parts();
        let aim = bound.map_or(String::new(), |bound| format!("aim: {word} {bound}"));
        let line = format!(
            "  {name:<48} {ours:>10.2} {unit:<4} {who} {theirs:.2} {unit}, ratio {ratio:.2}  {aim}"
        );
        self.print(line.trim_end());
        let mut figure = json!({
            "section": self.section, "name": name, "value": ours, "unit": unit,
            "beside": who, "theirs": theirs, "ratio": ratio,
        });
        if let Some(bound) = bound {
            figure["aim"] = json!({ word: bound });
        }
        self.found.push(figure);
    }

    /// Prints the JSON, if it is wanted, and otherwise the load of the machine.
    pub fn finish(self) {
        let load = [self.load_before, self.load_before.max(load())];
        if self.json {
            let whole = json!({"machine": machine(), "load": load, "figures": self.found});
            say(&format!("{whole:#}"));
        } else {
            let [before, after] = load;
            say(&format!(
                "\nload of the machine: {before:.1} before, {after:.1} at the end"
            ));
        }
    }

    fn print(&self, line: &str) {
        if !self.json {
            say(line);
        }
    }
}

/// Prints a line, if anyone reads it.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Returns the median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// The number of processes that wanted a core in the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or_default()
}
