//! The metrics in a file, for the textfile collector of node_exporter.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Notify;

/// The longest time for which the file is out of date.
const EVERY: Duration = Duration::from_secs(15);

/// Writes the file at once, after each change and from time to time. Never ends.
pub(super) async fn keep(path: &Path, changed: &Notify, text: impl AsyncFn() -> String) {
    let mut last = String::new();
    let mut fails = false;
    loop {
        let new = text().await;
        if new != last {
            match write(path, &new) {
                Ok(()) => (last, fails) = (new, false),
                Err(error) => {
                    if !std::mem::replace(&mut fails, true) {
                        tracing::warn!(path = %path.display(), %error, "the file of metrics_textfile cannot be written; trying again");
                    }
                }
            }
        }
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Replaces the file, so that no reader sees a part of it. It need not survive a power cut.
fn write(path: &Path, text: &str) -> io::Result<()> {
    // The collector reads only files whose names end in .prom.
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    let staged = PathBuf::from(staged);
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&staged)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| fs::rename(&staged, path));
    if written.is_err() {
        // A full disk has no room for a part of the text either.
        let _ = fs::remove_file(&staged);
    }
    written
}

/// Returns the bytes of all files in a folder; what cannot be read does not count.
pub(super) fn size_of(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_owned()];
    let mut size = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) if found.is_file() => size += found.len(),
                _ => {}
            }
        }
    }
    size
}
