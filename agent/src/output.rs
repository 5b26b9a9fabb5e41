//! The output of commands for a person, line by line. A command does not fail if the reader has
//! closed the other end. Control characters are made harmless, because the output may repeat text
//! from anywhere.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use codedeploy_support::plain::{harmless_json, harmless_lines};
use serde_json::Value;

use codedeploy_api::chain::Chain;

/// Prints to the standard output.
pub fn say(line: impl Display) {
    let _ = writeln!(stdout(), "{}", harmless_lines(&line.to_string()));
}

/// Prints the requested text to standard output; fails if the text cannot be written whole, for
/// example on a full disk.
pub fn print(text: impl Display) -> ExitCode {
    whole(&harmless_lines(&text.to_string()))
}

/// The same for programs: JSON on one line, `{:#}` on several.
pub fn print_json(document: impl Display) -> ExitCode {
    whole(&harmless_json(&document.to_string()))
}

/// Formats a document as [`print_json`] writes it.
pub fn json(document: &Value) -> String {
    harmless_json(&document.to_string()).into_owned()
}

fn whole(text: &str) -> ExitCode {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let error = WriteError(error);
            fail(&own_name(), &error)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The standard output for piecewise writing, made as harmless as by [`say`].
pub fn out() -> impl Write {
    Plain(stdout())
}

/// The standard error, in the same way.
pub fn err() -> impl Write {
    Plain(stderr())
}

/// Receives whole characters, as [`write!`] passes them.
struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0
            .write_all(harmless_lines(&String::from_utf8_lossy(text)).as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Prints to the standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(stderr(), "{}", harmless_lines(&line.to_string()));
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write to the standard output")]
struct WriteError(#[source] std::io::Error);

/// The name under which this process was started.
fn own_name() -> String {
    let path = std::env::args_os().next().map(PathBuf::from);
    let name = path.as_deref().and_then(Path::file_name);
    name.map_or_else(
        || "codedeploy-agent".into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Prints clap's output: help to stdout, errors, which repeat the command line, to stderr.
pub fn misused(program: &str, error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.trim_end();
    match text.strip_prefix("error: ") {
        Some(what) => complain(format_args!("{program}: {what}")),
        // The help of a program that needs a command.
        None => complain(text),
    }
    ExitCode::from(2)
}

/// Prints the error with which a program ends, if anybody still reads it.
pub fn fail(program: &str, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    complain(format_args!("{program}: {}", Chain(error)));
    ExitCode::FAILURE
}
