//! The output of commands. Each function here decides whether a failed write is an error.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _, stderr, stdout};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error("cannot write to the standard output")]
    Write(#[source] io::Error),
    #[error(
        "the standard output is closed or /dev/null, and the output cannot be shown again: nothing was made"
    )]
    Nobody,
    #[error("cannot print output that cannot be shown again: nothing was made")]
    Lost(#[source] io::Error),
}

/// Prints the requested output. A reader that has left has read enough; a file that cannot take it
/// all would be mistaken for the whole.
pub(super) fn show(text: impl Display) -> Result<(), OutputError> {
    match print(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(OutputError::Write),
    }
}

/// Prints output that cannot be shown again, such as a secret. Call this before storing it: a
/// secret that nobody has seen must not exist.
pub(super) fn hand_over(text: impl Display) -> Result<(), OutputError> {
    if is_nowhere().map_err(OutputError::Lost)? {
        return Err(OutputError::Nobody);
    }
    print(text).map_err(OutputError::Lost)
}

/// Reports a finished action; a failed write changes nothing about that.
pub(super) fn remark(text: impl Display) {
    let _ = print(text);
}

/// Prints advice beside requested output, so that a file or a pipe gets the output alone.
pub(super) fn advise(text: impl Display) {
    let _ = writeln!(stderr(), "{text}");
}

/// Reports an error, if anybody reads it.
pub(super) fn complain(text: impl Display) {
    let _ = writeln!(stderr(), "{text}");
}

/// Prints lines; the last line may lack its newline.
fn print(text: impl Display) -> io::Result<()> {
    let mut text = text.to_string();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether all output is lost. A closed standard output is `/dev/null` by the time a program runs.
fn is_nowhere() -> io::Result<bool> {
    let out = File::from(stdout().as_fd().try_clone_to_owned()?).metadata()?;
    let null = std::fs::metadata("/dev/null")?;
    Ok(out.file_type().is_char_device() && out.rdev() == null.rdev())
}
