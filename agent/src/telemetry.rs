//! The agent's own log: its outputs and layouts (docs/logs.md).
//!
//! Every event becomes a [`record::Record`] with the fields of its spans. It goes to the log file,
//! to systemd's journal if stderr is connected to it, and as text to a terminal.

mod file;
mod journal;
pub mod record;
mod recorder;
pub mod words;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use codedeploy_hooks::clock::LocalTime;
use codedeploy_hooks::script::log_readers;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Environment, LogFormat, Settings};
pub use file::LogName;
use file::{LogFile, Readers};
use journal::Journal;
use record::{Fields, Record};
use recorder::Recorder;
use words::Style;

/// The prefix of our own modules; libraries log whole requests and their configuration, so only
/// their warnings are kept.
const OURS: &str = "codedeploy";

/// The target of records that a person at a terminal waits for, beside warnings.
pub const PROGRESS: &str = "codedeploy_agent::progress";

/// The number of warnings that a command remembers, so that each is printed once.
const MAX_TOLD: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot open the log {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the log was set up twice")]
    Twice(#[from] TryInitError),
}

/// The value of the field `duration_ms` for an operation that began then.
pub fn milliseconds_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The outputs of a daemon's records.
struct Outputs {
    file: Mutex<Output>,
    format: LogFormat,
    program: String,
    journal: Option<Journal>,
    terminal: Option<Style>,
}

struct Output {
    file: LogFile,
    /// Whether the last line could not be written.
    failing: bool,
}

/// Logs to `<log_dir>/<program>.log` in the configured layout; also to the journal or, as text, to
/// a terminal if stderr is one of them.
pub fn to_file(settings: &Settings, environment: &Environment) -> Result<(), LogError> {
    let readers = if settings.hardening.restrict_log_dir {
        Readers::Group(log_readers(&settings.log_group))
    } else {
        Readers::Everybody
    };
    let name = LogName::new(&settings.log_dir, &settings.program_name).readable_by(readers);
    let stream = environment.text("JOURNAL_STREAM");
    let outputs = Outputs {
        journal: stream
            .and_then(|stream| Journal::behind(io::stderr(), stream, &settings.program_name)),
        terminal: io::stderr().is_terminal().then(|| Style {
            time: true,
            colour: colours(environment),
            ..Style::default()
        }),
        ..Outputs::file(settings, name)?
    };
    begin(
        Recorder(move |record: &Record| outputs.write(record)),
        filter(level(settings)),
    )
}

/// Logs to the file like the daemon, beside a running one, and prints warnings as text to stderr:
/// for commands of a person that change the host.
pub fn to_terminal_and_file(
    settings: &Settings,
    environment: &Environment,
) -> Result<(), LogError> {
    let name = LogName::new(&settings.log_dir, &settings.program_name);
    let outputs = Outputs::file(settings, name)?;
    let style = style_of_stderr(environment);
    let shown = if settings.verbose {
        Level::DEBUG
    } else {
        Level::WARN
    };
    let recorder = Recorder(move |record: &Record| {
        if record.level <= shown {
            let _ = writeln!(io::stderr(), "{}", style.words(record));
        }
        outputs.write(record);
    });
    begin(recorder, filter(level(settings)))
}

/// Prints warnings and progress as text to stderr: for commands that a person runs.
pub fn to_terminal(verbose: bool, environment: &Environment) -> Result<(), LogError> {
    let level = if verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    let style = style_of_stderr(environment);
    // A deployment causes the same warning in each of its lifecycle events.
    let told = Mutex::new(BTreeSet::new());
    let recorder = Recorder(move |record: &Record| {
        let words = style.words(record);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if record.level != Level::WARN || told.len() >= MAX_TOLD || told.insert(words.clone()) {
            let _ = writeln!(io::stderr(), "{words}");
        }
    });
    begin(
        recorder,
        filter(level).with_target(PROGRESS, level.max(LevelFilter::INFO)),
    )
}

/// The level of the agent's own records in its log.
fn level(settings: &Settings) -> LevelFilter {
    if settings.verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    }
}

/// Passes the records of this process that `filter` allows to `recorder`.
fn begin<R>(recorder: Recorder<R>, filter: Targets) -> Result<(), LogError>
where
    R: Fn(&Record) + Send + Sync + 'static,
{
    Ok(tracing_subscriber::registry()
        .with(recorder.with_filter(filter))
        .try_init()?)
}

fn style_of_stderr(environment: &Environment) -> Style {
    Style {
        colour: io::stderr().is_terminal() && colours(environment),
        ..Style::default()
    }
}

/// Whether a terminal may be coloured (<https://no-color.org>).
pub fn colours(environment: &Environment) -> bool {
    environment.text("NO_COLOR").is_none() && environment.text("TERM") != Some("dumb")
}

/// Allows the agent's own records from `level` on, and the warnings of libraries.
fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target(OURS, level)
}

impl Outputs {
    /// The log file alone.
    fn file(settings: &Settings, name: LogName) -> Result<Self, LogError> {
        let path = name.current();
        let file = LogFile::open(name, settings.log_max_size)
            .map_err(|source| LogError::Open { path, source })?;
        Ok(Self {
            file: Mutex::new(Output {
                file,
                failing: false,
            }),
            format: settings.log_format,
            program: settings.program_name.clone(),
            journal: None,
            terminal: None,
        })
    }

    fn write(&self, record: &Record) {
        if let Some(journal) = &self.journal {
            journal.send(record);
        }
        if let Some(style) = self.terminal {
            to_stderr(&style.words(record));
        }
        let mut output = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.to_file(&mut output, record);
    }

    /// Lines that the file does not accept go to stderr, unless that is a terminal or the journal,
    /// which has them already.
    fn to_file(&self, output: &mut Output, record: &Record) {
        let line = self.line(record);
        let (failed, notice) = match output.file.append(&line, LocalTime::of(record.time).day()) {
            Ok(notice) => (None, notice),
            Err(error) => (Some(error), None),
        };
        let failed_before = std::mem::replace(&mut output.failing, failed.is_some());
        if let Some(error) = failed {
            if !failed_before {
                let path = output.file.path();
                to_stderr(&format!(
                    "{}: cannot write the log {}: {error}; until it can be written, its lines come here",
                    self.program,
                    path.display()
                ));
            }
            if self.journal.is_none() && self.terminal.is_none() {
                to_stderr(line.trim_end());
            }
        } else if failed_before {
            to_stderr(&format!(
                "{}: the log {} is written again",
                self.program,
                output.file.path().display()
            ));
        }
        if let Some(notice) = notice {
            self.to_file(output, &warning(notice));
        }
    }

    fn line(&self, record: &Record) -> String {
        let mut line = match self.format {
            LogFormat::Json => record.json(),
            LogFormat::Text => record.text(&self.program, std::process::id()),
        };
        line.push('\n');
        line
    }
}

fn warning(message: String) -> Record {
    let target = module_path!().into();
    Record {
        time: SystemTime::now(),
        level: Level::WARN,
        target,
        message,
        fields: Fields::default(),
    }
}

/// Writes a line to stderr, unless its reader does not read: a log must not block the agent.
fn to_stderr(line: &str) {
    let stderr = io::stderr();
    let mut ready = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut ready, Some(&now)).is_ok_and(|count| count > 0)
        && ready[0].revents().contains(PollFlags::OUT)
    {
        // A writable pipe accepts at least this much without blocking.
        let line = &line[..line.floor_char_boundary(libc::PIPE_BUF - 1)];
        let _ = stderr.lock().write_all(format!("{line}\n").as_bytes());
    }
}
