//! Reads small files that others name or write: only regular ones, without blocking, and up to a
//! limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A limit above the size of any configuration file, in bytes.
const LIMIT: u64 = 1 << 20;

/// Opens `path` for reading. A folder, FIFO, socket or device is an error; it never blocks.
pub fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a FIFO waits for a writer.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
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

/// Reads `path`, at most 1 MiB; a larger file is an error.
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
        assert_eq!(
            read(&at("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
