//! Offers the agent's metrics: on a loopback address or a socket, and in a file.

mod listen;
mod textfile;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;

use tokio::task::spawn_blocking;

use crate::config::Settings;
use crate::control_socket::status::Status;
use crate::metrics::Metrics;
use crate::metrics::place::MetricsPlace;
use listen::Listener;

/// The ways in which the metrics are offered.
#[derive(Debug)]
pub struct Exporter {
    metrics: Arc<Metrics>,
    root: PathBuf,
    place: Option<MetricsPlace>,
    textfile: Option<PathBuf>,
    /// One reader at a time fills the gauges.
    filling: Mutex<()>,
}

impl Exporter {
    /// Returns what the settings ask for; `None` if that is nothing.
    pub fn new(settings: &Settings) -> Option<Self> {
        let place = settings.metrics_listen.clone();
        let textfile = settings.metrics_textfile.clone();
        if place.is_none() && textfile.is_none() {
            return None;
        }
        Some(Exporter {
            metrics: Arc::new(Metrics::new()),
            root: settings.root_dir.clone(),
            place,
            textfile,
            filling: Mutex::new(()),
        })
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Offers the metrics for as long as it is polled.
    pub async fn serve(&self, status: &Status) {
        let listen = async {
            match &self.place {
                Some(place) => {
                    let listener = Listener::open(place).await;
                    listener.serve(async || self.text(status).await).await
                }
                None => std::future::pending().await,
            }
        };
        let write = async {
            match &self.textfile {
                Some(path) => {
                    let changed = &self.metrics.changed;
                    textfile::keep(path, changed, async || self.text(status).await).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::join!(listen, write);
    }

    /// Returns the present values.
    async fn text(&self, status: &Status) -> String {
        if self.metrics.is_stale() {
            self.measure_archives().await;
        }
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

    /// Measures the files of all revisions, which may be many, while the agent goes on.
    async fn measure_archives(&self) {
        let (root, metrics) = (self.root.clone(), Arc::clone(&self.metrics));
        let measure = move || {
            let bytes = i64::try_from(textfile::size_of(&root)).unwrap_or(i64::MAX);
            metrics.archive_bytes.with([""; 0]).set(bytes);
        };
        // Without it, the last known value stays.
        drop(spawn_blocking(measure).await);
    }
}
