//! systemd's journal, in its native protocol: every field of a record becomes a journal field.

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::Level;

use super::record::{Record, harmless};

const SOCKET: &str = "/run/systemd/journal/socket";

/// The prefix of our fields' names.
const PREFIX: &str = "CODEDEPLOY_";

/// The largest value in bytes: a record must fit into a datagram.
const MAX_VALUE: usize = 32 * 1024;

/// The time that an unresponsive journal may delay the agent.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    address: PathBuf,
    identifier: String,
}

impl Journal {
    /// Returns the journal, if `stream` (`JOURNAL_STREAM`, device and inode) identifies `output`.
    pub(super) fn behind(output: impl AsFd, stream: &str, identifier: &str) -> Option<Self> {
        let (device, inode) = stream.split_once(':')?;
        let open = rustix::fs::fstat(output).ok()?;
        let same = device.parse() == Ok(open.st_dev) && inode.parse() == Ok(open.st_ino);
        if same {
            Self::at(Path::new(SOCKET), identifier)
        } else {
            None
        }
    }

    fn at(address: &Path, identifier: &str) -> Option<Self> {
        if !address.exists() {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT)).ok()?;
        Some(Self {
            socket,
            address: address.to_owned(),
            identifier: identifier.to_owned(),
        })
    }

    /// Sends `record`; if the journal does not accept it, only the log file has it.
    pub(super) fn send(&self, record: &Record) {
        let _ = self.socket.send_to(&self.datagram(record), &self.address);
    }

    fn datagram(&self, record: &Record) -> Vec<u8> {
        let mut datagram = Vec::new();
        put(&mut datagram, "MESSAGE", &record.sentence());
        put(&mut datagram, "PRIORITY", priority(record.level));
        put(&mut datagram, "SYSLOG_IDENTIFIER", &self.identifier);
        put(&mut datagram, &format!("{PREFIX}TARGET"), &record.target);
        for (name, value) in record.fields.iter() {
            let name: String = name
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() {
                        c.to_ascii_uppercase()
                    } else {
                        '_'
                    }
                })
                .collect();
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            put(&mut datagram, &format!("{PREFIX}{name}"), &harmless(&value));
        }
        datagram
    }
}

/// Adds a field in the form for any value: with its length first.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(MAX_VALUE)];
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;
    use crate::telemetry::record::Fields;

    /// Reads the fields like systemd.
    fn fields(mut datagram: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(datagram[..end].to_vec()).unwrap();
            let (length, rest) = datagram[end + 1..].split_at(8);
            let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
            let value = String::from_utf8(rest[..length].to_vec()).unwrap();
            assert_eq!(rest[length], b'\n');
            datagram = &rest[length + 1..];
            fields.insert(name, value);
        }
        fields
    }

    #[test]
    fn the_journal_has_every_field_and_a_priority() {
        let folder = tempfile::tempdir().unwrap();
        let address = folder.path().join("socket");
        let listener = UnixDatagram::bind(&address).unwrap();
        let journal = Journal::at(&address, "codedeploy-agent").unwrap();
        let mut record_fields = Fields::default();
        record_fields.set("deployment_id", "d-1".into());
        record_fields.set("duration_ms", 12.into());
        let record = Record {
            time: SystemTime::now(),
            level: Level::WARN,
            target: "t".into(),
            message: "two\nlines".into(),
            fields: record_fields,
        };
        journal.send(&record);
        let mut buffer = vec![0; 4096];
        let read = listener.recv(&mut buffer).unwrap();
        let fields = fields(&buffer[..read]);
        assert_eq!(
            fields["MESSAGE"],
            "two\\nlines deployment_id=d-1 duration_ms=12"
        );
        assert_eq!(fields["PRIORITY"], "4");
        assert_eq!(fields["CODEDEPLOY_DEPLOYMENT_ID"], "d-1");
        assert_eq!(fields["CODEDEPLOY_DURATION_MS"], "12");
        assert_eq!(fields["SYSLOG_IDENTIFIER"], "codedeploy-agent");
    }

    #[test]
    fn the_journal_is_used_only_where_the_output_goes_there() {
        let file = tempfile::tempfile().unwrap();
        assert!(Journal::behind(&file, "1:2", "x").is_none());
        assert!(Journal::behind(&file, "noise", "x").is_none());
    }

    #[test]
    fn a_journal_that_does_not_read_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let address = folder.path().join("socket");
        let _listener = UnixDatagram::bind(&address).unwrap();
        let journal = Journal::at(&address, "x").unwrap();
        let big = "x".repeat(MAX_VALUE);
        let record = Record {
            time: SystemTime::now(),
            level: Level::INFO,
            target: "t".into(),
            message: big,
            fields: Fields::default(),
        };
        (0..12).for_each(|_| journal.send(&record));
    }
}
