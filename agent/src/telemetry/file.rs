//! The file of the agent's log: rotated at midnight and by size, reopened when somebody else moves
//! it, and buffered while it cannot be written.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown,
};
use std::path::{Path, PathBuf};

use codedeploy_hooks::clock::{Day, LocalTime};
use codedeploy_hooks::fs::rename_new;
use rustix::fs::CWD;

/// The number of rotated files that are kept, besides the current one.
pub(super) const KEPT: usize = 7;

/// The number of bytes that wait in memory while the file cannot be written.
const MAX_HELD: usize = 256 * 1024;

/// The files of one log: their folder and name.
#[derive(Debug, Clone)]
pub struct LogName {
    folder: PathBuf,
    program: String,
    readers: Readers,
}

/// The readers of a new log. An existing one keeps its readers, also when it is rotated.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Readers {
    #[default]
    Everybody,
    /// This group, if it exists.
    Group(Option<u32>),
}

/// A log that is written. One thread at a time.
#[derive(Debug)]
pub(super) struct LogFile {
    name: LogName,
    file: File,
    /// The day of the file's lines; none while it is empty.
    day: Option<Day>,
    max_size: u64,
    /// Lines that are not in the file, except for `done` bytes of the first one.
    held: VecDeque<Vec<u8>>,
    done: usize,
    held_bytes: usize,
    /// The number of lines that were dropped.
    dropped: u64,
    warned_of_rotation: bool,
}

impl LogName {
    pub fn new(folder: &Path, program: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            program: program.to_owned(),
            readers: Readers::Everybody,
        }
    }

    pub(super) fn readable_by(self, readers: Readers) -> Self {
        Self { readers, ..self }
    }

    /// The current file.
    pub fn current(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.program))
    }

    /// The rotated files, oldest first.
    pub fn rotated(&self) -> io::Result<Vec<PathBuf>> {
        Ok(self
            .rotations()?
            .into_iter()
            .map(|(day, number)| self.of(day, number))
            .collect())
    }

    fn of(&self, Day(day): Day, number: u32) -> PathBuf {
        let number = if number == 0 {
            String::new()
        } else {
            format!(".{number}")
        };
        self.folder
            .join(format!("{}.{day:08}{number}.log", self.program))
    }

    fn rotations(&self) -> io::Result<Vec<(Day, u32)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            found.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| self.rotation(name)),
            );
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The day and the number of a rotated file.
    fn rotation(&self, name: &str) -> Option<(Day, u32)> {
        let rest = name
            .strip_prefix(&self.program)?
            .strip_prefix('.')?
            .strip_suffix(".log")?;
        let (day, number) = rest
            .split_once('.')
            .map_or((rest, None), |(day, number)| (day, Some(number)));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.map_or(Some(0), |number| {
            number.parse().ok().filter(|_| digits(number))
        })?;
        (day.len() == 8 && digits(day)).then_some((Day(day.parse().ok()?), number))
    }
}

impl LogFile {
    /// Opens the log for appending; makes it, and its folder, if they are missing.
    pub(super) fn open(name: LogName, max_size: u64) -> io::Result<Self> {
        let (file, day) = open(&name)?;
        Ok(Self {
            name,
            file,
            day,
            max_size,
            held: VecDeque::new(),
            done: 0,
            held_bytes: 0,
            dropped: 0,
            warned_of_rotation: false,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.name.current()
    }

    /// Appends `line`, which ends with a newline, as one of `today`. After an error it is buffered,
    /// and written before the next line. Returns a sentence that the log's reader should know, if
    /// there is one.
    pub(super) fn append(&mut self, line: &str, today: Day) -> io::Result<Option<String>> {
        self.hold(line);
        self.follow()?;
        let rotated = self.rotate(today);
        while let Some(first) = self.held.front() {
            match self.file.write(&first[self.done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.day.get_or_insert(today);
            if self.done == first.len() {
                self.held_bytes -= first.len();
                self.held.pop_front();
                self.done = 0;
            }
        }
        if let Err(error) = rotated {
            let told = std::mem::replace(&mut self.warned_of_rotation, true);
            return Ok((!told)
                .then(|| format!("this log cannot be rotated, and grows until it can: {error}")));
        }
        self.warned_of_rotation = false;
        let dropped = std::mem::take(&mut self.dropped);
        Ok((dropped > 0)
            .then(|| format!("{dropped} lines are missing here: the log could not be written")))
    }

    fn hold(&mut self, line: &str) {
        if self.held_bytes + line.len() > MAX_HELD && !self.held.is_empty() {
            self.dropped += 1;
            return;
        }
        self.held_bytes += line.len();
        self.held.push_back(line.as_bytes().to_vec());
    }

    /// Opens the path again if it no longer names the open file.
    fn follow(&mut self) -> io::Result<()> {
        let open_file = self.file.metadata()?;
        match std::fs::metadata(self.name.current()) {
            Ok(named) if (named.dev(), named.ino()) == (open_file.dev(), open_file.ino()) => {
                return Ok(());
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        (self.file, self.day) = open(&self.name)?;
        self.done = 0;
        Ok(())
    }

    /// Rotates the file if it is from an earlier day, or would exceed its size.
    fn rotate(&mut self, today: Day) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        let Some(day) = self.day.filter(|_| size > 0 && self.done == 0) else {
            return Ok(());
        };
        if day >= today && size.saturating_add(self.held_bytes as u64) <= self.max_size {
            return Ok(());
        }
        let taken = self.name.rotations()?;
        let last = taken
            .iter()
            .filter(|(of, _)| *of == day)
            .map(|(_, number)| *number)
            .max();
        let aside = self
            .name
            .of(day, last.map_or(0, |number| number.saturating_add(1)));
        let before = self.file.metadata()?;
        rename_new(CWD, self.name.current(), CWD, &aside)?;
        (self.file, self.day) = open(&self.name)?;
        // Only root can change the owner.
        let _ = fchown(&self.file, Some(before.uid()), Some(before.gid()));
        self.file.set_permissions(before.permissions())?;
        let surplus = (taken.len() + 1).saturating_sub(KEPT);
        for (day, number) in taken.into_iter().take(surplus) {
            std::fs::remove_file(self.name.of(day, number))?;
        }
        Ok(())
    }
}

/// Opens the log, and determines the day of its lines.
fn open(name: &LogName) -> io::Result<(File, Option<Day>)> {
    let path = name.current();
    let is_new = match std::fs::metadata(&path) {
        Ok(found) => {
            regular(&found)?;
            false
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error),
    };
    let (mode, group) = match name.readers {
        Readers::Everybody => (0o644, None),
        Readers::Group(group) => (0o640, group),
    };
    if is_new {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&name.folder)?;
    }
    // Non-blocking, because it may have been replaced.
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    if is_new {
        if group.is_some() {
            fchown(&file, None, group)?;
        }
        // Independent of the umask.
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    let day =
        (metadata.len() > 0).then(|| metadata.modified().map(|time| LocalTime::of(time).day()));
    Ok((file, day.transpose()?))
}

fn regular(found: &std::fs::Metadata) -> io::Result<()> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::other(format!(
        "found {what}, expected a file; move it away, or set log_dir"
    )))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TODAY: Day = Day(20261122);

    fn log(folder: &Path, max_size: u64) -> LogFile {
        LogFile::open(LogName::new(folder, "agent"), max_size).unwrap()
    }

    fn contents(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    fs::read_to_string(entry.path()).unwrap(),
                )
            })
            .collect();
        files.sort();
        files
    }

    fn expect(folder: &Path, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect();
        assert_eq!(contents(folder), expected);
    }

    #[test]
    fn a_day_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 1000);
        for (line, day) in [
            ("a\n", 20261121),
            ("b\n", 20261121),
            ("c\n", 20261122),
            ("d\n", 20261121),
        ] {
            assert_eq!(log.append(line, Day(day)).unwrap(), None);
        }
        // Setting the clock back does not bring a day back.
        expect(
            folder.path(),
            &[("agent.20261121.log", "a\nb\n"), ("agent.log", "c\nd\n")],
        );
        let mode = folder.path().join("agent.log").metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, 0o644);
    }

    #[test]
    fn yesterdays_file_is_set_aside_by_an_agent_that_starts_today() {
        let folder = tempfile::tempdir().unwrap();
        log(folder.path(), 1000).append("a\n", TODAY).unwrap();
        let written = LocalTime::of(
            folder
                .path()
                .join("agent.log")
                .metadata()
                .unwrap()
                .modified()
                .unwrap(),
        );
        log(folder.path(), 1000)
            .append("b\n", Day(written.day().0 + 1))
            .unwrap();
        let aside = format!("agent.{}.log", written.day().0);
        expect(folder.path(), &[(&aside, "a\n"), ("agent.log", "b\n")]);
    }

    #[test]
    fn a_full_file_is_set_aside_and_seven_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("agent.20260101.log"), "old\n").unwrap();
        fs::write(folder.path().join("agent.notes.log"), "an operator's\n").unwrap();
        let mut log = log(folder.path(), 4);
        for line in ["0\n", "0\n", "1\n", "1\n", "2222222\n"] {
            log.append(line, TODAY).unwrap();
        }
        let notes = ("agent.notes.log", "an operator's\n");
        let first = [
            ("agent.20261122.1.log", "1\n1\n"),
            ("agent.20261122.log", "0\n0\n"),
        ];
        expect(
            folder.path(),
            &[
                &[("agent.20260101.log", "old\n")],
                &first[..],
                &[("agent.log", "2222222\n"), notes],
            ]
            .concat(),
        );
        for number in 3..=9 {
            log.append(&format!("{number}{number}{number}\n"), TODAY)
                .unwrap();
        }
        let names = log.name.rotated().unwrap();
        let names: Vec<_> = names
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        let numbers = ["2", "3", "4", "5", "6", "7", "8"];
        assert_eq!(
            names,
            numbers.map(|number| format!("agent.20261122.{number}.log"))
        );
    }

    #[test]
    fn an_outside_rotation_is_followed_whichever_way_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.log");
        let mut log = log(folder.path(), 1000);
        log.append("a\n", TODAY).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        log.append("b\n", TODAY).unwrap();
        expect(folder.path(), &[("agent.log", "b\n"), ("moved", "a\n")]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        log.append("c\n", TODAY).unwrap();
        fs::copy(&path, folder.path().join("moved")).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        log.append("d\n", TODAY).unwrap();
        expect(folder.path(), &[("agent.log", "d\n"), ("moved", "c\n")]);
        fs::remove_dir_all(folder.path()).unwrap();
        log.append("e\n", TODAY).unwrap();
        expect(folder.path(), &[("agent.log", "e\n")]);
    }

    #[test]
    fn lines_wait_while_the_file_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.log");
        let mut log = log(folder.path(), u64::MAX);
        log.append("a\n", TODAY).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = log.append("b\n", TODAY).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("found a directory, expected a file"),
            "{error}"
        );
        let big = format!("{}\n", "x".repeat(MAX_HELD / 2));
        (0..3).for_each(|_| drop(log.append(&big, TODAY).unwrap_err()));
        fs::remove_dir(&path).unwrap();
        // The line that had room, and the next one.
        let notice = log.append("c\n", TODAY).unwrap().unwrap();
        assert!(notice.starts_with("2 lines are missing here"), "{notice}");
        expect(folder.path(), &[("agent.log", &format!("b\n{big}c\n"))]);
    }

    #[test]
    fn a_name_that_is_taken_costs_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 4);
        log.append("aaa\n", TODAY).unwrap();
        let taken = folder
            .path()
            .join(format!("agent.20261122.{}.log", u32::MAX));
        fs::create_dir(&taken).unwrap();
        let notice = log.append("bbb\n", TODAY).unwrap().unwrap();
        assert!(notice.contains("cannot be rotated"), "{notice}");
        assert_eq!(log.append("ccc\n", TODAY).unwrap(), None, "told once");
        expect(folder.path(), &[("agent.log", "aaa\nbbb\nccc\n")]);
    }

    #[test]
    fn what_is_no_file_is_refused_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let name = LogName::new(folder.path(), "agent");
        nix::unistd::mkfifo(&name.current(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = LogFile::open(name, 1000).unwrap_err().to_string();
        assert_eq!(
            error,
            "found a FIFO, expected a file; move it away, or set log_dir"
        );
    }
}
