//! What commands say to a person, a line at a time. Whoever has closed the other end has heard enough: a command does not
//! fail for that.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

/// To the standard output.
pub fn say(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}

/// To the standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
