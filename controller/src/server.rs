//! Runs the service: listens, advances deployments, and ends in order.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, Digest};
use futures_util::{Stream, StreamExt as _};
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::config::{Endpoint, Partition, Settings, Tls};
use crate::error::ApiError;
use crate::events::delivery;
use crate::http::connections::{self, Listener};
use crate::service::{OpenError, Service};
use crate::tls::{Certificates, TlsError};
use crate::{alarms, console, http, pruning, reconcile, traces, traffic};

/// The time that requests may take to end once the service stops.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot write {}", path.display())]
    Announce {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("deployments cannot be advanced")]
    Reconcile(#[source] ApiError),
}

impl ServeError {
    /// Whether the start failed for a reason that may be temporary.
    pub(crate) fn is_of_a_start(&self) -> bool {
        match self {
            Self::Open(error) => !matches!(error, OpenError::Partition(_)),
            Self::Listen { .. } | Self::Announce { .. } => true,
            Self::Tls(_) | Self::Reconcile(_) => false,
        }
    }
}

/// The facts about a running service in its data directory, for the administrative commands and for
/// scripts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Announcement {
    pub address: SocketAddr,
    pub region: String,
    pub account_id: String,
    /// The URL by which hosts reach it, if there is one.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The names in its self-made certificate; empty without one.
    #[serde(default)]
    pub self_signed_for: Vec<String>,
    /// Whether it accepts only TLS.
    #[serde(default)]
    pub tls: bool,
    /// Whether it serves revisions itself.
    #[serde(default)]
    pub has_s3: bool,
    /// The address of the metrics that ask for no key, if there is one.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Whether it has the web console.
    #[serde(default)]
    pub has_console: bool,
}

impl Announcement {
    const FILE: &str = "service.json";
    /// Only the address, for shell scripts.
    const ADDRESS_FILE: &str = "address";

    /// Reads the last facts about the service of a data directory, if it ever ran.
    pub fn read(data_dir: &Path) -> Option<Announcement> {
        let text = std::fs::read(data_dir.join(Self::FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The URL for browsers: the endpoint, else an address of this host.
    pub fn url(&self) -> String {
        self.endpoint.clone().unwrap_or_else(|| self.url_here())
    }

    /// The URL on the service's own host. A certificate of its operator has only the name of the
    /// endpoint; one that it made itself has this host's names, too.
    pub fn url_here(&self) -> String {
        let own_certificate = self.tls && self.self_signed_for.is_empty();
        if let Some(endpoint) = self.endpoint.as_ref().filter(|_| own_certificate) {
            return endpoint.clone();
        }
        let scheme = if self.tls { "https" } else { "http" };
        let (address, ip) = (self.address, self.address.ip());
        if ip.is_unspecified() || (ip.is_loopback() && self.tls) {
            format!("{scheme}://localhost:{}", address.port())
        } else {
            format!("{scheme}://{address}")
        }
    }

    fn write(&self, data_dir: &Path) -> Result<(), ServeError> {
        replace(
            &data_dir.join(Self::FILE),
            &serde_json::json!(self).to_string(),
        )?;
        replace(
            &data_dir.join(Self::ADDRESS_FILE),
            &format!("{}\n", self.address),
        )
    }
}

/// Replaces a file atomically, so that no reader sees half of it.
fn replace(path: &Path, text: &str) -> Result<(), ServeError> {
    let staged = path.with_extension("new");
    std::fs::write(&staged, text)
        .and_then(|()| std::fs::rename(&staged, path))
        .map_err(|source| ServeError::Announce {
            path: path.to_owned(),
            source,
        })
}

/// Serves until `stop` is ready; held polls are answered then. An item from `reload` makes the
/// service read its certificate again.
pub async fn serve(
    settings: Settings,
    stop: impl Future<Output = ()>,
    reload: impl Stream<Item = ()>,
) -> Result<(), ServeError> {
    connections::raise_file_limit();
    let address = settings.listen;
    let data_dir = settings.data_dir.clone();
    let Settings {
        partition: Partition { region, account_id },
        tls,
        endpoint,
        metrics,
        ..
    } = settings.clone();
    let has_s3 = settings.s3.is_some();
    let has_console = settings.console.is_some();
    let config_file = settings.config_file.clone();
    let service = Service::open(settings)?;
    let certificates = Certificates::open(&tls, &service.keys())?;
    if let Some(certificates) = &certificates {
        // It is set once.
        let _ = service.certificate.set(certificates.present());
    }
    let acceptor = certificates
        .as_ref()
        .map(Certificates::acceptor)
        .transpose()?;
    let listening = TcpListener::bind(address).await;
    let listener = listening.map_err(|source| ServeError::Listen { address, source })?;
    let address = listener
        .local_addr()
        .map_err(|source| ServeError::Listen { address, source })?;
    let endpoint = endpoint.as_ref().map(|endpoint| endpoint.url().to_owned());
    let endpoint = endpoint.or_else(|| by_address(address, &tls));
    let speaks_tls = tls != Tls::Off;
    let self_signed_for = if let Tls::SelfSigned { names } = tls {
        names
    } else {
        Vec::new()
    };
    let announcement = Announcement {
        address,
        region,
        account_id,
        endpoint,
        self_signed_for,
        tls: speaks_tls,
        has_s3,
        metrics: None,
        has_console,
    };
    let metrics = match metrics.and_then(|metrics| metrics.listen) {
        Some(address) => {
            let listening = TcpListener::bind(address).await;
            Some(listening.map_err(|source| ServeError::Listen { address, source })?)
        }
        None => None,
    };
    let announcement = Announcement {
        metrics: metrics.as_ref().and_then(|socket| socket.local_addr().ok()),
        ..announcement
    };
    announcement.write(&data_dir)?;
    tracing::info!(
        %address,
        endpoint = announcement.endpoint,
        region = announcement.region,
        metrics = announcement.metrics.map(tracing::field::display),
        data_dir = %data_dir.display(),
        config_file = config_file.as_ref().map(|path| path.display().to_string()),
        version = codedeploy_support::version::version(),
        "ready"
    );
    tell_systemd(NotifyState::Ready);
    let listener = Listener {
        socket: listener,
        tls: acceptor.map(connections::Tls),
    };
    let file = config_file.map(Watched::new);
    let reload = reload.inspect(|()| file.iter().for_each(Watched::look));
    let fresh = async {
        match certificates {
            Some(certificates) => certificates.keep_fresh(reload).await,
            None => {
                reload.for_each(|()| async {}).await;
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        ended = run(service, announcement.url(), (listener, metrics), stop) => ended?,
        () = fresh => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// The configuration file, which is read only at the start.
struct Watched {
    path: PathBuf,
    content: Option<Digest>,
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        let content = Self::content(&path);
        Watched { path, content }
    }

    fn content(path: &Path) -> Option<Digest> {
        std::fs::read(path)
            .ok()
            .map(|text| digest::digest(&digest::SHA256, &text))
    }

    /// A reload does not apply other changes, which its caller may expect.
    fn look(&self) {
        let found = Self::content(&self.path);
        if found.as_ref().map(Digest::as_ref) != self.content.as_ref().map(Digest::as_ref) {
            tracing::warn!(
                config_file = %self.path.display(),
                "the configuration file has changed since the start, and a reload reads only certificates: restart the service to apply it"
            );
        }
    }
}

/// Without systemd, nothing is sent.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}

/// The URL of an address, if others can use it directly.
fn by_address(address: SocketAddr, tls: &Tls) -> Option<String> {
    let scheme = if *tls == Tls::Off { "http" } else { "https" };
    let url = (!address.ip().is_unspecified()).then(|| format!("{scheme}://{address}"))?;
    Endpoint::read(&url).map(|endpoint| endpoint.url().to_owned())
}

async fn run(
    service: Arc<Service>,
    url: String,
    (listener, metrics): (Listener, Option<TcpListener>),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let stopping = |service: &Service| {
        let mut stopping = service.stopping();
        async move {
            // An error means that the service is gone, which has the same effect.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    };
    reconcile::give_time(&service)
        .await
        .map_err(ServeError::Reconcile)?;
    let shutdown = stopping(&service);
    let timeout = service.settings.timers.request;
    let requests = connections::serve(
        listener,
        http::router(Arc::clone(&service), console::router(&service, url)),
        timeout,
        shutdown,
    );
    let metrics = metrics.map(|socket| {
        let listener = Listener { socket, tls: None };
        let router = http::metrics_router(Arc::clone(&service));
        Box::pin(connections::serve(
            listener,
            router,
            timeout,
            stopping(&service),
        ))
    });
    let metrics = async {
        if let Some(metrics) = metrics {
            metrics.await;
        }
    };
    let deployments = async {
        reconcile::run(Arc::clone(&service))
            .await
            .map_err(ServeError::Reconcile)
    };
    let stop = async {
        stop.await;
        tracing::info!("stopping");
        tell_systemd(NotifyState::Stopping);
        service.stop();
        tokio::time::sleep(GRACE).await;
    };
    let both = async {
        let requests = async {
            tokio::join!(requests, metrics);
            Ok(())
        };
        let traffic = async {
            traffic::run(Arc::clone(&service))
                .await
                .map_err(ServeError::Reconcile)
        };
        let alarms = async {
            alarms::run(Arc::clone(&service))
                .await
                .map_err(ServeError::Reconcile)
        };
        let events = async {
            delivery::run(Arc::clone(&service))
                .await
                .map_err(ServeError::Reconcile)
        };
        let traces = async {
            traces::run(Arc::clone(&service))
                .await
                .map_err(ServeError::Reconcile)
        };
        let check = async {
            let checked = service.check_database().await;
            checked.map_err(|damage| ServeError::Open(damage.into()))
        };
        let pruning = async {
            pruning::run(Arc::clone(&service))
                .await
                .map_err(ServeError::Reconcile)
        };
        tokio::try_join!(
            requests,
            deployments,
            traffic,
            alarms,
            events,
            traces,
            check,
            pruning
        )
        .map(|_| ())
    };
    tokio::select! {
        ended = both => ended,
        () = stop => {
            tracing::warn!("some requests had not ended when the service stopped");
            Ok(())
        }
    }
}
