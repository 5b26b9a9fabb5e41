//! What commands say to a person, a line at a time. Whoever has closed the other end has heard enough: a command does not
//! fail for that. Nothing that is said acts upon a terminal, whoever's words it repeats.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;

use codedeploy_hooks::plain::{harmless_json, harmless_lines};
use serde_json::Value;

use codedeploy_api::chain::Chain;

/// To the standard output.
pub fn say(line: impl Display) {
    let _ = writeln!(stdout(), "{}", harmless_lines(&line.to_string()));
}

/// What was asked for, to the standard output; fails where it cannot be written whole, as on a full disk.
pub fn print(text: impl Display) -> ExitCode {
    whole(&harmless_lines(&text.to_string()))
}

/// The same for programs: JSON on one line, `{:#}` on several.
pub fn print_json(document: impl Display) -> ExitCode {
    whole(&harmless_json(&document.to_string()))
}

/// A document, as [`print_json`] writes it.
pub fn json(document: &Value) -> String {
    harmless_json(&document.to_string()).into_owned()
}

fn whole(text: &str) -> ExitCode {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(format_args!("error: cannot write to the standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The standard output for what is written piece by piece, as harmless as what [`say`] says.
pub fn out() -> impl Write {
    Plain(stdout())
}

/// The standard error, in the same way.
pub fn err() -> impl Write {
    Plain(stderr())
}

/// Takes whole characters at a time, as [`write!`] gives them.
struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(harmless_lines(&String::from_utf8_lossy(text)).as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// To the standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(stderr(), "{}", harmless_lines(&line.to_string()));
}

/// Prints what clap has to say: help to stdout, complaints, which repeat the command line, to stderr.
pub fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    complain(error.render().to_string().trim_end());
    ExitCode::from(2)
}

/// Prints why a program gives up, if anybody still reads what it says.
pub fn fail(program: &str, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    complain(format_args!("{program}: {}", Chain(error)));
    ExitCode::FAILURE
}
