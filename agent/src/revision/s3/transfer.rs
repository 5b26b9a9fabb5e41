//! Downloads an object to the disk: in one stream, or in parts of which four streams take the next
//! one each. What breaks off is resumed where it ended.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_smithy_types::byte_stream::ByteStream;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::error::{Failure, S3Error};
use super::{Condition, Source};
use crate::revision::download::{Incoming, PartWriter};
use crate::revision::retry::Failures;
use crate::telemetry::PROGRESS;

/// Objects up to this size use one stream.
const ONE_STREAM: u64 = 16 * 1024 * 1024;
const STREAMS: u64 = 4;
/// The largest part: the streams stay this close together, for a reader that follows them.
const PART: u64 = 32 * 1024 * 1024;

/// The interval of reports about a long download.
const REPORTED: Duration = Duration::from_secs(10);

/// The download of one object into one file.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pub(super) source: &'a Source<'a>,
    /// As S3 sent it, with quotes. Every further request requires it.
    pub(super) etag: &'a str,
    /// Absent if the store does not report it.
    pub(super) total: Option<u64>,
    pub(super) incoming: &'a Incoming,
}

/// A part of the object.
#[derive(Debug, Clone, Copy)]
struct Part {
    from: u64,
    /// Exclusive; absent means to the end, wherever it is.
    to: Option<u64>,
}

/// Bytes from the store.
struct Stream {
    body: ByteStream,
    /// The number of bytes before the requested ones: all of them, from a store that ignores
    /// ranges.
    skip: u64,
}

/// The end of a stream.
enum Ended {
    Complete,
    Broken(String),
}

impl Transfer<'_> {
    /// Downloads everything; `first` is the body of the whole object. Returns the number of bytes.
    pub(super) async fn run(&self, first: ByteStream) -> Result<u64, S3Error> {
        tokio::select! {
            ended = self.download(first) => ended,
            never = self.report_progress() => match never {},
        }
    }

    async fn report_progress(&self) -> Infallible {
        let mut ticks = tokio::time::interval_at(Instant::now() + REPORTED, REPORTED);
        loop {
            ticks.tick().await;
            let received = self.incoming.received();
            let percent = self.total.map(|total| received * 100 / total.max(1));
            let total = self.total;
            tracing::info!(target: PROGRESS, received, total, percent, "downloading the bundle");
        }
    }

    async fn download(&self, first: ByteStream) -> Result<u64, S3Error> {
        let first = Stream {
            body: first,
            skip: 0,
        };
        let whole = Part {
            from: 0,
            to: self.total,
        };
        let Some(total) = self.total.filter(|total| *total > ONE_STREAM) else {
            return self.fill(whole, Some(first)).await;
        };
        let size = total.div_ceil(STREAMS).min(PART);
        let part = |index: u64| Part {
            from: size * index,
            to: Some((size * (index + 1)).min(total)),
        };
        let second = match self.open(part(1)).await {
            Ok(stream) if stream.skip > 0 => {
                tracing::info!("the store does not know ranges; the bundle comes in one stream");
                return self.fill(whole, Some(first)).await;
            }
            Ok(stream) => Some(stream),
            Err(Failure::Temporary { .. }) => None,
            Err(failure) => return Err(self.error(failure).await),
        };
        let taken = AtomicU64::new(0);
        let next = || {
            let index = taken.fetch_add(1, Ordering::Relaxed);
            (index < total.div_ceil(size)).then(|| part(index))
        };
        let opened = [Some(first), second, None, None];
        let streams = opened
            .into_iter()
            .filter_map(|stream| Some((next()?, stream)));
        let streams: Vec<_> = streams.collect();
        let streams = streams.into_iter().map(async |(begun, mut stream)| {
            let mut taken = Some(begun);
            while let Some(part) = taken {
                self.fill(part, stream.take()).await?;
                taken = next();
            }
            Ok::<_, S3Error>(())
        });
        try_join_all(streams).await?;
        Ok(total)
    }

    /// Downloads one part, with as many streams as necessary; returns the position behind it.
    async fn fill(&self, part: Part, mut opened: Option<Stream>) -> Result<u64, S3Error> {
        let mut writer = self.incoming.at(part.from);
        let mut failures = Failures::new(self.source.access.outage);
        loop {
            let rest = Part {
                from: writer.position(),
                to: part.to,
            };
            let stream = match opened.take() {
                Some(stream) => Ok(stream),
                None => self.open(rest).await,
            };
            let (ended, away) = match stream {
                Ok(stream) => (self.copy(stream, &mut writer, part.to).await?, false),
                Err(Failure::Temporary { reason, away }) => (Ended::Broken(reason), away),
                Err(failure) => return Err(self.error(failure).await),
            };
            let reason = match ended {
                Ended::Complete => return Ok(writer.position()),
                Ended::Broken(reason) => reason,
            };
            let received = writer.position();
            let Some(pause) = failures.pause_after(received - part.from, away) else {
                return Err(S3Error::BrokeOff {
                    object: self.source.name(),
                    received,
                    reason,
                });
            };
            tracing::warn!(
                received,
                reason,
                "the download broke off; it continues where it ended"
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Requests a part of the same object.
    async fn open(&self, part: Part) -> Result<Stream, Failure> {
        let end = part.to.map(|to| (to - 1).to_string()).unwrap_or_default();
        let range = Some(format!("bytes={}-{end}", part.from));
        let object = self
            .source
            .get(Condition {
                range,
                etag: Some(self.etag.to_owned()),
            })
            .await?;
        if object.header("etag") != Some(self.etag) {
            // The store ignores If-Match.
            return Err(Failure::Replaced);
        }
        let skip = match object.header("content-range") {
            None => part.from,
            Some(range) if range.starts_with(&format!("bytes {}-", part.from)) => 0,
            Some(range) => {
                let from = part.from;
                return Err(Failure::Permanent(format!(
                    "asked for bytes from {from}, the answer has {range}"
                )));
            }
        };
        Ok(Stream {
            body: object.body,
            skip,
        })
    }

    async fn copy(
        &self,
        mut stream: Stream,
        writer: &mut PartWriter<'_>,
        to: Option<u64>,
    ) -> Result<Ended, S3Error> {
        let read_timeout = self.source.read_timeout();
        let ended = loop {
            let wanted = to.map_or(u64::MAX, |to| to - writer.position());
            if wanted == 0 {
                break Ended::Complete;
            }
            let chunk = match tokio::time::timeout(read_timeout, stream.body.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => {
                    break Ended::Broken(codedeploy_api::chain::Chain(&error).to_string());
                }
                Ok(None) if to.is_none() => break Ended::Complete,
                Ok(None) => break Ended::Broken("the stream ended early".into()),
                Err(_) => {
                    break Ended::Broken(format!(
                        "nothing arrived for {} s",
                        read_timeout.as_secs()
                    ));
                }
            };
            let skipped = stream.skip.min(chunk.len() as u64);
            stream.skip -= skipped;
            let chunk = &chunk[usize::try_from(skipped).unwrap_or(chunk.len())..];
            let usable = usize::try_from(wanted)
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            writer.write(&chunk[..usable]).await?;
        };
        writer.flush().await?;
        Ok(ended)
    }

    async fn error(&self, failure: Failure) -> S3Error {
        match failure {
            Failure::Replaced => {
                let expected = self.etag.trim_matches('"').to_owned();
                S3Error::Replaced {
                    object: self.source.name(),
                    expected,
                }
            }
            failure => self.source.error(failure).await,
        }
    }
}
