//! The two pipes that a script writes to, read into the log while the agent waits for something
//! else.

use std::os::fd::AsFd;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::script::outcome::OpenStreams;
use crate::script::output::{ScriptLog, Stream};

/// The number of bytes that are read and logged at once.
const CHUNK: usize = 16 * 1024;

/// The open ends of a script's output.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    buffers: Box<[[u8; CHUNK]; 2]>,
}

impl Pipes {
    pub(crate) fn of(child: &mut Child) -> Self {
        Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            buffers: Box::new([[0; CHUNK]; 2]),
        }
    }

    /// Returns those that are still open.
    pub(crate) fn open(&self) -> Option<OpenStreams> {
        match (&self.stdout, &self.stderr) {
            (Some(_), Some(_)) => Some(OpenStreams::Both),
            (Some(_), None) => Some(OpenStreams::Stdout),
            (None, Some(_)) => Some(OpenStreams::Stderr),
            (None, None) => None,
        }
    }

    /// The inodes of the open ones.
    pub(crate) fn inodes(&self) -> Vec<u64> {
        let ends = [
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        ends.into_iter()
            .flatten()
            .filter_map(|end| rustix::fs::fstat(end).ok())
            .map(|stat| stat.st_ino)
            .collect()
    }

    /// Logs arriving output until `awaited` is ready.
    pub(crate) async fn read_while<T>(
        &mut self,
        log: &mut ScriptLog,
        awaited: impl Future<Output = T>,
    ) -> T {
        let mut awaited = pin!(awaited);
        loop {
            tokio::select! {
                value = &mut awaited => return value,
                () = self.read_some(log), if self.open().is_some() => {}
            }
        }
    }

    /// Logs arriving output until nobody holds either of them open.
    pub(crate) async fn read_to_end(&mut self, log: &mut ScriptLog) {
        while self.open().is_some() {
            self.read_some(log).await;
        }
    }

    /// Safe to cancel: bytes are either still in the pipe or already logged.
    async fn read_some(&mut self, log: &mut ScriptLog) {
        let [stdout_buffer, stderr_buffer] = &mut *self.buffers;
        tokio::select! {
            count = read(&mut self.stdout, stdout_buffer), if self.stdout.is_some() => match count {
                0 => self.stdout = None,
                _ => log.output(Stream::Stdout, &stdout_buffer[..count]),
            },
            count = read(&mut self.stderr, stderr_buffer), if self.stderr.is_some() => match count {
                0 => self.stderr = None,
                _ => log.output(Stream::Stderr, &stderr_buffer[..count]),
            },
            else => {}
        }
        // A script that writes as fast as it can must not starve the rest of the agent.
        tokio::task::yield_now().await;
    }
}

/// The number of bytes read; 0 at the end of the stream, or after an error.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}
