//! Reading the small files that configure the agent: regular files only, never more than they could need.

use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// More than any of these files needs.
const LIMIT: u64 = 1 << 20;

/// The contents of the regular file `path`. A folder, a FIFO, a device and more than 1 MiB are errors; nothing blocks.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, LIMIT)
}

/// The same, with another limit in bytes.
pub fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let refused = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return refused("found a folder; expected a file".into());
    }
    if !kind.is_file() {
        return refused("found a FIFO, socket or device; expected a regular file".into());
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return refused(format!("found more than {limit} bytes; expected a small text file"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_reasonable_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("good"), "text").unwrap();
        std::fs::write(at("noise"), vec![b'x'; 10 << 20]).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&at("good")).unwrap(), b"text");
        for (name, expected) in [("noise", "more than"), ("fifo", "FIFO"), (".", "a folder")] {
            let error = read(&at(name)).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
        assert_eq!(read(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
