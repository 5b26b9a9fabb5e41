//! Thousands of simulated hosts in one process: each with its keys, its connection and its long
//! poll.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bucket::Keys;
use crate::service::REGION;

/// The last lifecycle event of a deployment in place.
const LAST: &str = "ValidateService";

/// A host that completes every lifecycle event at once without any action.
#[derive(Debug)]
pub struct Host {
    pub identifier: String,
    pub keys: Keys,
}

/// The counters of all hosts together.
#[derive(Debug, Default)]
pub struct Deeds {
    /// The number of polls that wait for a response.
    pub polling: AtomicUsize,
    pub commands: AtomicUsize,
    /// The number of hosts that have completed their last lifecycle event.
    pub done: AtomicUsize,
    /// The number of connections that had to be made again.
    pub reconnects: AtomicUsize,
    latencies: Latencies,
}

/// The times from the response to a completion to the next command, in microseconds, as counts per
/// power of 2^(1/4).
#[derive(Debug)]
struct Latencies {
    buckets: [AtomicU64; 128],
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Deeds {
    fn note(&self, latency: Duration) {
        let micros = latency.as_micros().max(1) as f64;
        let bucket = (micros.log2() * 4.0) as usize;
        self.latencies.buckets[bucket.min(127)].fetch_add(1, Ordering::Relaxed);
    }

    /// The latency that `share` of the commands did not exceed, in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let counts: Vec<_> = self
            .latencies
            .buckets
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        bucket.map_or(0.0, |bucket| 2_f64.powf((bucket + 1) as f64 / 4.0) / 1000.0)
    }

    /// Resets the counters, except for present polls.
    pub fn reset(&self) {
        for counter in [&self.commands, &self.done, &self.reconnects] {
            counter.store(0, Ordering::Relaxed);
        }
        self.latencies
            .buckets
            .iter()
            .for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }
}

impl Host {
    /// Polls, and carries out its commands, until the task is dropped.
    pub async fn live(self, service: SocketAddr, deeds: Arc<Deeds>) {
        let mut connection = None;
        let mut completed: Option<Instant> = None;
        loop {
            let poll = json!({"HostIdentifier": self.identifier});
            deeds.polling.fetch_add(1, Ordering::Relaxed);
            let answer = self
                .call(&mut connection, service, "PollHostCommand", &poll, &deeds)
                .await;
            deeds.polling.fetch_sub(1, Ordering::Relaxed);
            let Some(command) = answer.get("HostCommand") else {
                completed = None;
                continue;
            };
            if let Some(completed) = completed {
                deeds.note(completed.elapsed());
            }
            deeds.commands.fetch_add(1, Ordering::Relaxed);
            let specification = json!({
                "DeploymentExecutionId": command["DeploymentExecutionId"], "HostIdentifier": self.identifier,
            });
            self.call(
                &mut connection,
                service,
                "GetDeploymentSpecification",
                &specification,
                &deeds,
            )
            .await;
            let id = &command["HostCommandIdentifier"];
            let noop = json!({"Format": "JSON", "Payload": "{\"IsCommandNoop\":false}"});
            let acknowledgement = json!({"HostCommandIdentifier": id, "Diagnostics": noop});
            self.call(
                &mut connection,
                service,
                "PutHostCommandAcknowledgement",
                &acknowledgement,
                &deeds,
            )
            .await;
            let done = json!({"HostCommandIdentifier": id, "CommandStatus": "Succeeded"});
            self.call(
                &mut connection,
                service,
                "PutHostCommandComplete",
                &done,
                &deeds,
            )
            .await;
            completed = Some(Instant::now());
            if command["CommandName"] == LAST {
                deeds.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Repeats the request until there is a response.
    async fn call(
        &self,
        connection: &mut Option<TcpStream>,
        service: SocketAddr,
        operation: &str,
        input: &Value,
        deeds: &Deeds,
    ) -> Value {
        loop {
            let request = self.request(service, operation, &input.to_string());
            if let Some((status, answer)) = exchange(connection, service, &request).await {
                assert!(status == 200, "{operation}: {status} {answer}");
                return answer;
            }
            *connection = None;
            deeds.reconnects.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }

    /// The request, signed (AWS General Reference, "Signature Version 4 signing process").
    fn request(&self, service: SocketAddr, operation: &str, body: &str) -> String {
        let stamp = stamp(SystemTime::now());
        let target = format!("CodeDeployCommandService_v20141006.{operation}");
        let hash = sha256(body);
        let headers = format!(
            "host:{service}\nx-amz-content-sha256:{hash}\nx-amz-date:{stamp}\nx-amz-target:{target}\n"
        );
        let names = "host;x-amz-content-sha256;x-amz-date;x-amz-target";
        let scope = format!("{}/{REGION}/codedeploy-commands/aws4_request", &stamp[..8]);
        let canonical = sha256(&format!("POST\n/\n\n{headers}\n{names}\n{hash}"));
        let mut key = format!("AWS4{}", self.keys.secret_access_key).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        let signature = hex::encode(mac(
            &key,
            &format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical}"),
        ));
        format!(
            "POST / HTTP/1.1\r\nhost: {service}\r\nx-amz-content-sha256: {hash}\r\nx-amz-date: {stamp}\r\n\
             x-amz-target: {target}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\
             authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\r\n{body}",
            body.len(),
            self.keys.access_key_id,
        )
    }
}

fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
        .as_ref()
        .to_vec()
}

/// `20261123T101112Z`, from days since the epoch (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn stamp(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .expect("the clock is right")
        .as_secs() as i64;
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Sends a request and reads its response; `None` if the connection broke.
async fn exchange(
    connection: &mut Option<TcpStream>,
    service: SocketAddr,
    request: &str,
) -> Option<(u16, Value)> {
    if connection.is_none() {
        let stream = TcpStream::connect(service).await.ok()?;
        stream.set_nodelay(true).ok()?;
        *connection = Some(stream);
    }
    let stream = connection.as_mut()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            break (end + 4, length.unwrap_or(0));
        }
    };
    while answer.len() < head + length {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
    let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
    Some((
        status,
        serde_json::from_slice(&answer[head..head + length]).unwrap_or(Value::Null),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_calendar() {
        let at = |seconds| stamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_826_154), "20000229T120914Z");
        assert_eq!(at(1_795_424_400), "20261123T090000Z");
    }
}
