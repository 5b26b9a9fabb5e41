//! The agent's own log.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Libraries that log whole requests, and their own configuration, below this level.
const NOISY: [&str; 7] =
    ["aws_config", "aws_runtime", "aws_sdk_s3", "aws_sigv4", "aws_smithy_runtime", "hyper", "rustls"];

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot open the log {path}")]
    Open { path: String, source: io::Error },
    #[error("the log was set up twice")]
    Twice(#[from] TryInitError),
}

/// Logs as JSON lines to `<log_dir>/<program>.log` and, in words, to a terminal on stderr.
pub fn to_file(log_dir: &Path, program: &str, verbose: bool) -> Result<(), LogError> {
    let path = log_dir.join(format!("{program}.log"));
    let open = || {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(log_dir)?;
        OpenOptions::new().create(true).append(true).mode(0o644).open(&path)
    };
    let file = open().map_err(|source| LogError::Open { path: path.display().to_string(), source })?;
    let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(Mutex::new(file));
    let terminal = io::stderr().is_terminal().then(|| {
        tracing_subscriber::fmt::layer().compact().with_writer(io::stderr).with_filter(filter(verbose))
    });
    Ok(tracing_subscriber::registry().with(json.with_filter(filter(verbose))).with(terminal).try_init()?)
}

/// Logs warnings, in words, to stderr: for commands that a person runs.
pub fn to_terminal(verbose: bool) -> Result<(), LogError> {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let words = tracing_subscriber::fmt::layer()
        .compact()
        .without_time()
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    Ok(tracing_subscriber::registry()
        .with(words.with_filter(quiet(Targets::new().with_default(level))))
        .try_init()?)
}

fn filter(verbose: bool) -> Targets {
    quiet(Targets::new().with_default(if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO }))
}

fn quiet(targets: Targets) -> Targets {
    targets.with_targets(NOISY.map(|name| (name, LevelFilter::WARN)))
}
