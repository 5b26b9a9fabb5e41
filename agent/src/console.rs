//! What commands say to a person, a line at a time. Whoever has closed the other end has heard enough: a command does not
//! fail for that.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;

/// To the standard output.
pub fn say(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}

/// What was asked for, to the standard output; fails where it cannot be written whole, as on a full disk.
pub fn print(text: impl Display) -> ExitCode {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(format_args!("error: cannot write to the standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// To the standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
