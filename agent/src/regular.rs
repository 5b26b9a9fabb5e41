//! Reading small files that somebody else names or writes: regular ones only, without ever waiting, and no more of them
//! than they could need.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// More than any file has that configures the agent, in bytes.
const LIMIT: u64 = 1 << 20;

/// Opens `path` for reading. A folder, FIFO, socket or device in its place is an error, not a wait.
pub fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a FIFO waits for somebody to write to it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if kind.is_dir() {
        return refused("found a folder; expected a file");
    }
    if !kind.is_file() {
        return refused("found a FIFO, socket or device; expected a regular file");
    }
    Ok(file)
}

/// The contents of `path`, at most 1 MiB; what is larger is an error.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, LIMIT)
}

/// The same with another limit, in bytes.
pub fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let what = format!("found more than {limit} bytes; expected a small text file");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
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
