//! The whole script output of a command, for this project's controller: sent after the command's
//! outcome was accepted, and only if the controller's response asked for it. AWS's service never
//! asks.
//!
//! Each log that is wanted has a small record on disk until the controller has the log, or rejects
//! it. So nothing waits for it, and neither a break of the connection nor a restart loses it.

use std::collections::HashSet;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use codedeploy_api::command::{PutHostCommandLogInput, SCRIPT_LOG_PART, WantedScriptLog};
use codedeploy_api::diagnostics::MAX_LOG_CHARS;
use codedeploy_hooks::fs::replace_file;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::bounded_read;
use crate::command::CommandService;
use crate::deployment::ledger::{Ended, Logged};
use crate::deployment_root::{Store, create_folders};

/// The only version of the records so far.
const VERSION: u32 = 1;

/// The number of logs that wait; the oldest are dropped first.
const MAX_WAITING: usize = 100;

/// The length of the time before each line of a script log.
const TIME: u64 = "YYYY-MM-DD HH:MM:SS ".len() as u64;

/// The space for the line that stands in place of a cut.
const CUT_LINE: usize = 256;

/// The logs that the controller wants and does not have.
#[derive(Debug)]
pub struct ScriptLogs {
    store: Store,
    folder: PathBuf,
    /// The limit of this host, in bytes; 0 for none.
    limit: usize,
    /// Held by the task that sends.
    sending: Mutex<()>,
}

/// A log that the controller wants.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    host_command_identifier: String,
    logged: Logged,
    max_bytes: usize,
}

/// The fate of one log.
enum Sent {
    /// The controller has it, or will never take it, or the host no longer has it.
    Over,
    Later,
}

impl ScriptLogs {
    pub fn of(store: &Store, limit: usize) -> Self {
        Self {
            store: store.clone(),
            folder: store.commands().join("script-logs"),
            limit,
            sending: Mutex::default(),
        }
    }

    /// Records that the controller wants the output of a command, if the host has more of it than
    /// the command's outcome contained.
    pub fn want(&self, ended: &Ended, wanted: WantedScriptLog) {
        let max_bytes = wanted.max_bytes.min(self.limit);
        let Some(logged) = ended.logged.as_ref().filter(|_| max_bytes > 0) else {
            return;
        };
        if let Err(error) = self.keep(ended, logged, max_bytes) {
            tracing::warn!(deployment_id = %logged.deployment_id, %error, "the script log that the controller wants is not sent");
        }
    }

    fn keep(&self, ended: &Ended, logged: &Logged, max_bytes: usize) -> io::Result<()> {
        create_folders(&self.folder, 0o700).map_err(io::Error::other)?;
        let id = &ended.completion.host_command_identifier;
        let record = Record {
            version: VERSION,
            host_command_identifier: id.clone(),
            logged: logged.clone(),
            max_bytes,
        };
        let path = self.folder.join(crate::deployment::ledger::file_name(id));
        replace_file(&path, &serde_json::to_vec_pretty(&record)?, 0o600)?;
        let waiting = self.waiting();
        let surplus = waiting.len().saturating_sub(MAX_WAITING);
        waiting.iter().take(surplus).for_each(remove);
        Ok(())
    }

    /// Whether a log waits.
    pub fn is_waiting(&self) -> bool {
        std::fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Forgets all logs that wait: the service is not this project's controller.
    pub fn drop_all(&self) {
        self.waiting().iter().for_each(remove);
    }

    /// Sends the logs that wait, unless another task does. Those that the controller does not
    /// accept now stay for later.
    pub async fn send(&self, service: &CommandService) {
        let Ok(_sending) = self.sending.try_lock() else {
            return;
        };
        let mut over = HashSet::new();
        // A log can be recorded while the others are sent.
        let next = |over: &HashSet<PathBuf>| {
            let mut waiting = self.waiting().into_iter();
            waiting.find(|path| !over.contains(path))
        };
        while let Some(path) = next(&over) {
            match self.send_one(&path, service).await {
                Sent::Over => remove(&path),
                Sent::Later => return,
            }
            over.insert(path);
        }
    }

    async fn send_one(&self, path: &Path, service: &CommandService) -> Sent {
        let Some(record) = read(path) else {
            return Sent::Over;
        };
        let Record {
            host_command_identifier,
            logged,
            max_bytes,
            ..
        } = record;
        let deployment_id = logged.deployment_id.clone();
        let log = self
            .store
            .deployment(&logged.deployment_group_id, &deployment_id)
            .scripts_log();
        let text = spawn_blocking(move || text(&log, &logged, max_bytes)).await;
        let text = match text.map_err(io::Error::other).flatten() {
            Ok(Some(text)) => text,
            // The outcome contained all of it.
            Ok(None) => return Sent::Over,
            Err(error) => {
                tracing::info!(%deployment_id, %error, "the script log that the controller wants is gone");
                return Sent::Over;
            }
        };
        for (part, content) in text.chunks(SCRIPT_LOG_PART).enumerate() {
            // Another service has no such operation.
            if service.signers().is_none() {
                return Sent::Later;
            }
            let Ok(content) = compressed(content) else {
                return Sent::Over;
            };
            let input = PutHostCommandLogInput {
                host_command_identifier: host_command_identifier.clone(),
                bytes: text.len(),
                part,
                content,
            };
            match service.attempt(&input).await {
                Ok(_) => {}
                Err(error) if error.is_refusal() => {
                    tracing::warn!(%deployment_id, %error, "the controller rejects the script log of a command");
                    return Sent::Over;
                }
                Err(error) => {
                    tracing::warn!(%deployment_id, %error, "the script log of a command could not be sent yet");
                    return Sent::Later;
                }
            }
        }
        tracing::info!(%deployment_id, bytes = text.len(), "the controller has the script log of a command");
        Sent::Over
    }

    /// The records, oldest first.
    fn waiting(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        let mut paths: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                Path::new(&name)
                    .extension()
                    .is_some_and(|extension| extension == "json")
            })
            .map(|entry| {
                let time = entry.metadata().and_then(|metadata| metadata.modified());
                (time.unwrap_or(SystemTime::UNIX_EPOCH), entry.path())
            })
            .collect();
        paths.sort();
        paths.into_iter().map(|(_, path)| path).collect()
    }
}

fn read(path: &Path) -> Option<Record> {
    let record: io::Result<Record> = bounded_read::read(path)
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
    match record {
        Ok(record) if record.version == VERSION => Some(record),
        Ok(Record { version, .. }) => {
            tracing::warn!(path = %path.display(), version, "removed a record of a script log; this agent reads version {VERSION}");
            None
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "removed an unreadable record of a script log");
            None
        }
    }
}

/// Reads the output of a command from its deployment's log; `None` if the last lines in the
/// command's outcome are all of it. A text above `max` bytes loses its middle.
fn text(log: &Path, logged: &Logged, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut file = bounded_read::open(log)?;
    let size = logged
        .end
        .min(file.metadata()?.len())
        .saturating_sub(logged.begin);
    let mut read = |begin: u64, length: u64| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        (&mut file).take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    if size <= max as u64 {
        let text = read(logged.begin, size)?;
        let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        let shown = size.saturating_sub(lines * TIME);
        return Ok((shown > MAX_LOG_CHARS as u64).then_some(text));
    }
    let half = (max.saturating_sub(CUT_LINE) / 2) as u64;
    let mut text = read(logged.begin, half)?;
    text.truncate(
        text.iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1),
    );
    let end = read(logged.begin + size - half, half)?;
    let begin = end
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(end.len(), |end| end + 1);
    let end = &end[begin..];
    let left_out = size - (text.len() + end.len()) as u64;
    let id = &logged.deployment_id;
    writeln!(
        text,
        "… {left_out} bytes are left out here; the host may still have them: codedeploy-agent logs --scripts --deployment {}",
        id.as_str().chars().take(64).collect::<String>()
    )?;
    text.extend_from_slice(end);
    Ok(Some(text))
}

fn compressed(text: &[u8]) -> io::Result<String> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text)?;
    Ok(STANDARD.encode(encoder.finish()?))
}

fn remove(path: &PathBuf) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove the record of a script log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path_component::PathComponent;

    fn logged(begin: u64, end: u64) -> Logged {
        let id = |text| PathComponent::new(text).unwrap();
        Logged {
            deployment_group_id: id("group"),
            deployment_id: id("d-1"),
            begin,
            end,
        }
    }

    #[test]
    fn a_log_keeps_whole_lines_at_its_begin_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("scripts.log");
        let line = |number: usize| format!("2026-12-01 10:00:00 [stdout]line {number}\n");
        let whole: String = (0..10_000).map(line).collect();
        std::fs::write(&log, format!("before\n{whole}after\n")).unwrap();
        let logged = logged(7, 7 + whole.len() as u64);
        assert_eq!(
            text(&log, &logged, 1 << 20).unwrap().unwrap(),
            whole.as_bytes()
        );
        for max in [4096, 5000, 100_000] {
            let cut = String::from_utf8(text(&log, &logged, max).unwrap().unwrap()).unwrap();
            assert!(
                cut.len() <= max && cut.len() > max - 512,
                "{max}: {}",
                cut.len()
            );
            assert!(
                cut.starts_with(&line(0)) && cut.ends_with(&line(9999)),
                "{cut}"
            );
            let mark = cut.lines().find(|line| line.starts_with('…')).unwrap();
            let left_out: usize = mark.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(whole.len(), cut.len() - mark.len() - 1 + left_out);
            assert_eq!(
                cut.lines().filter(|line| !line.starts_with("2026")).count(),
                1
            );
        }
        assert!(text(&log, &logged, 0).unwrap().is_some());
    }

    #[test]
    fn a_log_that_the_outcome_contains_is_not_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("scripts.log");
        let line = format!("2026-12-01 10:00:00 {}\n", "x".repeat(1023));
        std::fs::write(&log, line.repeat(3)).unwrap();
        let of = |lines: u64| text(&log, &logged(0, lines * line.len() as u64), 1 << 20).unwrap();
        assert!(of(2).is_none() && of(3).is_some());
        assert!(text(&folder.path().join("gone"), &logged(0, 9), 9).is_err());
    }
}
