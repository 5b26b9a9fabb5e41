//! Offers the agent's metrics: on a loopback address or a socket, and in a file.

mod listen;
mod textfile;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;

use crate::config::Settings;
use crate::control_socket::status::Status;
use crate::metrics::Metrics;
pub use listen::ListenError;
use listen::Listener;

/// The ways in which the metrics are offered.
#[derive(Debug)]
pub struct Exporter {
    metrics: Arc<Metrics>,
    root: PathBuf,
    listener: Option<Listener>,
    textfile: Option<PathBuf>,
    /// One reader at a time fills the gauges.
    filling: Mutex<()>,
}

impl Exporter {
    /// Opens what the settings ask for; `None` if that is nothing.
    pub fn open(settings: &Settings) -> Result<Option<Self>, ListenError> {
        let listener = settings.metrics_listen.as_ref().map(Listener::bind);
        let (listener, textfile) = (listener.transpose()?, settings.metrics_textfile.clone());
        if listener.is_none() && textfile.is_none() {
            return Ok(None);
        }
        Ok(Some(Exporter {
            metrics: Arc::new(Metrics::new()),
            root: settings.root_dir.clone(),
            listener,
            textfile,
            filling: Mutex::new(()),
        }))
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Offers the metrics for as long as it is polled.
    pub async fn serve(&self, status: &Status) {
        let listen = async {
            match &self.listener {
                Some(listener) => listener.serve(|| self.text(status)).await,
                None => std::future::pending().await,
            }
        };
        let write = async {
            match &self.textfile {
                Some(path) => {
                    let changed = &self.metrics.changed;
                    textfile::keep(path, changed, || self.text(status)).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::join!(listen, write);
    }

    /// Returns the present values.
    fn text(&self, status: &Status) -> String {
        let _filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let (metrics, report) = (&self.metrics, status.report());
        let seconds = |time: OffsetDateTime| time.unix_timestamp();
        if let Some(at) = report.last_poll_at {
            metrics.last_poll.with([""; 0]).set(seconds(at));
        }
        let waiting = i64::try_from(report.outbox.waiting).unwrap_or(i64::MAX);
        metrics.outbox_commands.set(waiting);
        metrics.outbox_oldest.clear();
        if let Some(oldest) = report.outbox.oldest {
            metrics.outbox_oldest.with([""; 0]).set(seconds(oldest));
        }
        if metrics.is_stale() {
            let bytes = i64::try_from(textfile::size_of(&self.root)).unwrap_or(i64::MAX);
            metrics.archive_bytes.with([""; 0]).set(bytes);
        }
        metrics.deployment_info.clear();
        metrics.deployment_time.clear();
        let mut seen = BTreeSet::new();
        for deployment in report.deployments {
            let of = (deployment.application, deployment.deployment_group);
            if !seen.insert(of.clone()) {
                continue;
            }
            let (application, group) = of;
            let began = seconds(deployment.began_at);
            let outcome = deployment.outcome.word().to_owned();
            metrics
                .deployment_info
                .with([application.clone(), group.clone(), deployment.deployment_id])
                .set(1);
            metrics
                .deployment_time
                .with([application, group, outcome])
                .set(began);
        }
        metrics.text()
    }
}
