//! Tells from the first bytes of a script how it runs, and why it does not.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The number of bytes that the kernel reads (execve(2)).
pub(super) const START: u64 = 256;

const UNIX_LINES: &str = "save the script with Unix line endings";

/// The way a file runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    /// By the interpreter in its first line, as the kernel reads it: including a carriage return,
    /// if there is one.
    Interpreted {
        interpreter: PathBuf,
        carriage_return: bool,
    },
    /// By itself. `foreign`: it was built for another processor than this host's.
    Program { foreign: bool },
    /// By a shell.
    Plain { disguise: Option<Disguise> },
}

/// Bytes before a `#!`, which therefore names no interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disguise {
    #[error(
        "a byte-order mark stands before its #!, so that a shell runs it; save it as UTF-8 without one"
    )]
    ByteOrderMark,
    #[error("it is UTF-16 text, which no shell reads; save it as UTF-8")]
    Utf16,
    #[error(
        "an empty line stands before its #!, so that a shell runs it; move the #! to the first byte"
    )]
    EmptyLine,
    #[error("blanks stand before its #!, so that a shell runs it; move the #! to the first byte")]
    Blanks,
}

impl Disguise {
    fn of(start: &[u8]) -> Option<Self> {
        if [b"\xff\xfe", b"\xfe\xff"]
            .iter()
            .any(|mark| start.starts_with(*mark))
        {
            return Some(Disguise::Utf16);
        }
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
        let rest = text.trim_ascii_start();
        let before = &text[..text.len() - rest.len()];
        if !rest.starts_with(b"#!") {
            return None;
        }
        match before {
            _ if text.len() < start.len() => Some(Disguise::ByteOrderMark),
            before if before.contains(&b'\n') => Some(Disguise::EmptyLine),
            _ => Some(Disguise::Blanks),
        }
    }
}

impl Format {
    /// Judges a file by its `start`, compared with that of `native`, a program that runs here.
    pub(super) fn of(start: &[u8], native: &[u8]) -> Self {
        if let Some(text) = start.strip_prefix(b"#!") {
            let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let words = line.split(|byte| matches!(byte, b' ' | b'\t'));
            let interpreter = words
                .into_iter()
                .find(|word| !word.is_empty())
                .unwrap_or_default();
            let carriage_return = line.ends_with(b"\r");
            return Format::Interpreted {
                interpreter: OsStr::from_bytes(interpreter).into(),
                carriage_return,
            };
        }
        // Word size, byte order and processor (elf(5)).
        let processor =
            |start: &[u8]| Some((start.get(4..6)?.to_owned(), start.get(18..20)?.to_owned()));
        if start.starts_with(b"\x7fELF") {
            Format::Program {
                foreign: processor(start) != processor(native),
            }
        } else {
            Format::Plain {
                disguise: Disguise::of(start),
            }
        }
    }

    /// The reason why the named interpreter does not run the file.
    pub(super) fn disguise(&self) -> Option<Disguise> {
        match self {
            Format::Plain { disguise } => *disguise,
            Format::Interpreted { .. } | Format::Program { .. } => None,
        }
    }

    /// Explains why the operating system refused to start the file at `path`.
    pub(super) fn explain(&self, error: &io::Error, path: &Path) -> String {
        const CHECK: &str = "check that the user may enter every folder on the way and that the file system is not \
                             mounted noexec";
        let path = path.display();
        match (self, error.raw_os_error()) {
            (Format::Interpreted { interpreter, .. }, Some(libc::ENOENT | libc::ENOTDIR)) => {
                match interpreter.as_os_str().as_bytes().strip_suffix(b"\r") {
                    Some(interpreter) => format!(
                        "its first line names the interpreter {} and ends in a carriage return; {UNIX_LINES}",
                        OsStr::from_bytes(interpreter).display()
                    ),
                    None => format!(
                        "its first line names the interpreter {}, which does not exist on this host",
                        interpreter.display()
                    ),
                }
            }
            (Format::Program { .. }, Some(libc::ENOENT)) => format!(
                "{path} is a program whose loader does not exist on this host; build it for this host's system"
            ),
            (Format::Interpreted { interpreter, .. }, Some(libc::EACCES)) => {
                format!(
                    "permission denied for {path} or its interpreter {}; {CHECK}",
                    interpreter.display()
                )
            }
            (_, Some(libc::EACCES)) => format!("permission denied for {path}; {CHECK}"),
            (_, Some(libc::ETXTBSY)) => {
                format!("{path} is open for writing; something is still changing it")
            }
            _ => format!("{path}: {error}"),
        }
    }

    /// States how the file at `path` may have caused its failure.
    pub(super) fn hint(&self, path: &Path) -> Option<String> {
        let path = path.display();
        match self {
            Format::Interpreted {
                carriage_return: true,
                ..
            } => Some(format!(
                "the first line of {path} ends in a carriage return; {UNIX_LINES}"
            )),
            // A shell runs any file that the system does not recognise as a program.
            Format::Program { foreign: true } => Some(format!(
                "{path} is a program for another processor; build it for this host's"
            )),
            Format::Plain {
                disguise: Some(disguise),
            } => Some(format!("{path}: {disguise}")),
            Format::Interpreted { .. }
            | Format::Program { .. }
            | Format::Plain { disguise: None } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_read_as_the_kernel_reads_it() {
        let cases: [(&[u8], &str, bool); 5] = [
            (b"#!/bin/sh\n", "/bin/sh", false),
            (b"#! \t/bin/sh -e\nx\r\n", "/bin/sh", false),
            (b"#!/bin/sh\r\n", "/bin/sh\r", true),
            (b"#!/usr/bin/env bash\r\n", "/usr/bin/env", true),
            (b"#!/bin/sh", "/bin/sh", false),
        ];
        for (start, interpreter, carriage_return) in cases {
            let expected = Format::Interpreted {
                interpreter: interpreter.into(),
                carriage_return,
            };
            assert_eq!(Format::of(start, b""), expected, "{start:?}");
        }
        assert_eq!(Format::of(b"echo\n", b""), Format::Plain { disguise: None });
        assert_eq!(Format::of(b"", b""), Format::Plain { disguise: None });
    }

    #[test]
    fn what_stands_before_an_interpreter_line_is_known() {
        let cases: [(&[u8], Option<Disguise>); 7] = [
            (b"\xef\xbb\xbf#!/bin/sh\n", Some(Disguise::ByteOrderMark)),
            (b"\xff\xfe#\0!\0", Some(Disguise::Utf16)),
            (b"\n#!/bin/sh\n", Some(Disguise::EmptyLine)),
            (b"\r\n  \r\n#!/bin/sh\n", Some(Disguise::EmptyLine)),
            (b" #!/bin/sh\n", Some(Disguise::Blanks)),
            (b"\xef\xbb\xbfecho\n", None),
            (b"# comment\n#!/bin/sh\n", None),
        ];
        for (start, disguise) in cases {
            assert_eq!(Format::of(start, b"").disguise(), disguise, "{start:?}");
        }
    }

    #[test]
    fn a_program_for_another_processor_is_known() {
        let program = |processor: u8| {
            let mut start = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\0\0";
            start[18] = processor;
            start
        };
        let (amd64, arm64) = (program(0x3e), program(0xb7));
        assert_eq!(
            Format::of(&amd64, &amd64),
            Format::Program { foreign: false }
        );
        assert_eq!(
            Format::of(&arm64, &amd64),
            Format::Program { foreign: true }
        );
        assert_eq!(
            Format::of(&amd64[..8], &amd64),
            Format::Program { foreign: true },
            "cut short"
        );
    }
}
