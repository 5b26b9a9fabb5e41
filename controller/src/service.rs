//! The running service: the state that every request and every decision share.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use axum::http::HeaderValue;
use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::command;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument as _;

use crate::config::events::Secret;
use crate::config::known_names::KnownNames;
use crate::config::{self, Settings};
use crate::credentials::unlocked::HostKeys;
use crate::deployment::effects::Effects;
use crate::error::{ApiError, ErrorName};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::objects::{ObjectError, Objects};
use crate::outgoing::{BundleError, Outgoing};
use crate::pagination::Pages;
use crate::registry::dangling_references;
use crate::registry::partition::{self, PartitionError};
use crate::signals::Signals;
use crate::signing::{Signer, SigningError};
use crate::store::{Priority, Store, StoreError, Tx, backup};
use crate::tls::Present;
use crate::transaction::Context;
use crate::vault::{Vault, VaultError};
use crate::web_identity::{CodeFlow, IdentityProviders, KeysError};

/// The environment variable for the data directory, if the command line has none.
pub const DATA_DIR_VARIABLE: &str = "CODEDEPLOY_CONTROLLER_DATA_DIR";

/// The name of the database in the data directory.
const DATABASE: &str = "codedeploy.sqlite3";

#[derive(Debug)]
pub struct Service {
    pub settings: Settings,
    pub vault: Vault,
    pub signer: Arc<Signer>,
    /// The announcement of the signing keys to agents, as a header.
    pub signers: HeaderValue,
    pub signals: Signals,
    /// Sends the service's own requests.
    pub outgoing: Arc<Outgoing>,
    /// The issuers of identity tokens that are accepted.
    pub identity_providers: IdentityProviders,
    /// The one at which users of the console log in, if there is one.
    pub login: Option<CodeFlow>,
    /// The folder of revisions, if the service has one.
    pub objects: Option<Arc<Objects>>,
    /// The keys of hosts that called recently.
    pub host_keys: HostKeys,
    /// A permit for each document that may be signed at once, one for each processor: a thread for
    /// each host of a deployment would take memory, and time from everything else.
    pub signing: Semaphore,
    /// Absent if nobody asks for them.
    pub metrics: Option<Arc<Metrics>>,
    /// The token of scrapers without an access key, if there is one.
    pub metrics_token: Option<Secret>,
    /// The service's certificate, if it has one.
    pub certificate: OnceLock<Present>,
    store: Store,
    pages: Pages,
    known: KnownNames,
    stop: watch::Sender<bool>,
    /// Held for as long as the service lives.
    _lock: Lock,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("there is no data directory {}: name the one of the service with --data-dir", .0.display())]
    NoDataDir(PathBuf),
    #[error("cannot make the data directory {}", path.display())]
    DataDir {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Metrics(#[from] config::metrics::MetricsError),
    #[error(transparent)]
    Console(#[from] config::console::ConsoleError),
    #[error("identity_providers cannot be used")]
    IdentityProviders(#[from] KeysError),
    #[error("the folder of revisions (s3.folder) cannot be used")]
    Objects(#[from] ObjectError),
    #[error("cannot lock the data directory {}", path.display())]
    Lock {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("a service runs on the data directory {}: stop it first", .0.display())]
    InUse(PathBuf),
    #[error(
        "the service on the data directory {} is of an older version than this program, or still starting: restart it with this version, then try again", .0.display()
    )]
    OlderInUse(PathBuf),
    #[error(
        "there is {}, left by an interrupted restore of the database: run `codedeploy-controller restore FILE` again; FILE may be the backup, or this file", .0.display()
    )]
    Unfinished(PathBuf),
    #[error(transparent)]
    Partition(#[from] PartitionError),
    #[error(
        "{} is not the data directory of a service: name the service's with --data-dir or {DATA_DIR_VARIABLE}, or start the service first", .0.display()
    )]
    NotADataDir(PathBuf),
    #[error("cannot look into the data directory {}", path.display())]
    Look {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// A data directory has one service at a time, or none while its database is replaced. The lock
/// ends with the process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "it is locked while it is open")] File);

impl Lock {
    pub fn take(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join("service.lock");
        let failed = |source| OpenError::Lock {
            path: data_dir.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Makes the data directory, readable only for its owner, unless it exists.
pub fn prepare(data_dir: &Path) -> Result<(), OpenError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|source| OpenError::DataDir {
            path: data_dir.to_owned(),
            source,
        })
}

/// The path of a data directory's database.
pub fn database(data_dir: &Path) -> PathBuf {
    data_dir.join(DATABASE)
}

/// Returns the database, unless a restore of it was interrupted.
fn finished(data_dir: &Path) -> Result<PathBuf, OpenError> {
    let database = database(data_dir);
    backup::unfinished(&database).map_or(Ok(database), |left| Err(OpenError::Unfinished(left)))
}

/// Rejects a directory that no service has used. Call this before anything is made in it.
pub fn must_exist(data_dir: &Path) -> Result<(), OpenError> {
    match finished(data_dir)?.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::NotADataDir(data_dir.to_owned())),
        Err(source) => Err(OpenError::Look {
            path: data_dir.to_owned(),
            source,
        }),
    }
}

/// Opens the database of a data directory beside a possibly running service. The schema is migrated
/// only if none is running: an older service would continue with a database that it does not know.
pub fn open_store(data_dir: &Path) -> Result<Store, OpenError> {
    let database = finished(data_dir)?;
    match Store::open_current(&database) {
        Err(StoreError::Older { .. }) => {}
        opened => return Ok(opened?),
    }
    let _lock = Lock::take(data_dir).map_err(|error| match error {
        OpenError::InUse(data_dir) => OpenError::OlderInUse(data_dir),
        other => other,
    })?;
    Ok(Store::open(&database)?)
}

/// Returns the digests of the present signing key and of the next one.
fn announcement(signer: &Signer, next: Option<&Signer>) -> Result<HeaderValue, SigningError> {
    let pins = [Some(signer), next]
        .into_iter()
        .flatten()
        .map(Signer::pin)
        .collect::<Result<Vec<_>, _>>()?;
    let text = pins.join(&command::SIGNER_SEPARATOR.to_string());
    HeaderValue::try_from(text).map_err(|_| SigningError::Sign)
}

impl Service {
    /// Opens everything in the data directory, and makes missing files.
    pub fn open(settings: Settings) -> Result<Arc<Service>, OpenError> {
        prepare(&settings.data_dir)?;
        let lock = Lock::take(&settings.data_dir)?;
        let metrics = settings.metrics.as_ref().map(|_| Arc::new(Metrics::new()));
        let metrics_token = settings
            .metrics
            .as_ref()
            .map(config::metrics::Metrics::token);
        let metrics_token = metrics_token.transpose()?;
        let database = finished(&settings.data_dir)?;
        let of_store = metrics.as_ref().map(|metrics| metrics.store.clone());
        let store = Store::open_checked(&database, of_store)?;
        let wanted = settings.partition.clone();
        let known = KnownNames::of(&settings);
        let names = known.clone();
        store.transact_blocking(move |tx| {
            partition::claim(tx, &wanted)?;
            Ok::<_, OpenError>(
                dangling_references::warn(tx, &names).map_err(StoreError::Transaction)?,
            )
        })?;
        let keys = Keys::of(&settings.data_dir, &store);
        let vault = Vault::open(&keys)?;
        let (signer, next) = (Signer::open(&keys)?, Signer::announced(&keys)?);
        let s3 = settings.s3.as_ref();
        let objects = s3
            .map(|s3| Objects::open(&s3.folder, &s3.buckets))
            .transpose()?;
        Ok(Arc::new(Service {
            signers: announcement(&signer, next.as_ref())?,
            signer: Arc::new(signer),
            signals: Signals::new(metrics.clone(), settings.traces.is_some()),
            metrics,
            host_keys: HostKeys::default(),
            signing: Semaphore::new(std::thread::available_parallelism().map_or(2, Into::into)),
            metrics_token: metrics_token.flatten(),
            certificate: OnceLock::new(),
            outgoing: Arc::new(Outgoing::open(settings.ca_bundle.as_deref())?),
            identity_providers: IdentityProviders::open(&settings.identity_providers)?,
            login: settings.login().map(CodeFlow::open).transpose()?,
            objects: objects.map(Arc::new),
            store,
            pages: Pages::new(vault.page_key()?),
            known,
            stop: watch::Sender::new(false),
            vault,
            settings,
            _lock: lock,
        }))
    }

    /// The key files of its data directory.
    pub fn keys(&self) -> Keys {
        Keys::of(&self.settings.data_dir, &self.store)
    }

    /// Checks every page of the database, unless the start has done that.
    pub async fn check_database(&self) -> Result<(), StoreError> {
        self.store.check().await
    }

    /// Runs `work` as one transaction, which is on disk when this returns.
    pub async fn transact<T, W>(self: &Arc<Self>, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>) -> Result<T, ApiError> + Send + 'static,
    {
        self.transact_at(Priority::Normal, work).await
    }

    async fn transact_at<T, W>(self: &Arc<Self>, priority: Priority, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>) -> Result<T, ApiError> + Send + 'static,
    {
        let service = Arc::clone(self);
        self.store
            .transact_at(priority, move |tx| work(&service, &service.context(tx)))
            .await
    }

    /// Runs `work`, which only reads, concurrently with writing transactions.
    pub async fn read<T, W>(self: &Arc<Self>, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>) -> Result<T, ApiError> + Send + 'static,
    {
        let service = Arc::clone(self);
        self.store
            .read(move |tx| work(&service, &service.context(tx)))
            .await
    }

    /// Runs `work`, which only reads; once more in a writing transaction if it finds an unreadable
    /// record, because only that can set it aside.
    pub async fn look<T, W>(self: &Arc<Self>, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: Fn(&Service, &Context<'_>) -> Result<T, ApiError> + Send + Sync + 'static,
    {
        let work = Arc::new(work);
        let reading = Arc::clone(&work);
        match self
            .read(move |service, context| reading(service, context))
            .await
        {
            Err(error) if error.name == ErrorName::DamagedRecord => {
                self.transact(move |service, context| work(service, context))
                    .await
            }
            found => found,
        }
    }

    fn context<'a>(&'a self, tx: &'a Tx<'a>) -> Context<'a> {
        Context {
            tx,
            now: Timestamp::now(),
            partition: &self.settings.partition,
            quotas: &self.settings.quotas,
            timers: &self.settings.timers,
            balancers: &self.settings.balancers,
            pages: &self.pages,
            known: &self.known,
            vault: &self.vault,
            caller: None,
        }
    }

    /// Runs `work` as [`transact`](Self::transact) does, and announces its effects, if there are
    /// any.
    ///
    /// Both happen even if the caller is gone meanwhile: otherwise the change would stay unnoticed
    /// until a timer expires.
    pub async fn change<T, W>(self: &Arc<Self>, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>) -> Result<(T, Option<Effects>), ApiError>
            + Send
            + 'static,
    {
        self.change_at(Priority::Normal, work).await
    }

    /// The same with a priority.
    pub async fn change_at<T, W>(
        self: &Arc<Self>,
        priority: Priority,
        work: W,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>) -> Result<(T, Option<Effects>), ApiError>
            + Send
            + 'static,
    {
        let service = Arc::clone(self);
        let changing = async move {
            let (value, effects) = service.transact_at(priority, work).await?;
            if let Some(effects) = effects {
                service.signals.announce(&effects);
            }
            Ok(value)
        };
        match tokio::spawn(changing.in_current_span()).await {
            Ok(changed) => changed,
            Err(_) => Err(StoreError::Gone.into()),
        }
    }

    /// Counts or measures something, if anyone wants to know.
    pub fn measure(&self, measure: impl FnOnce(&Metrics)) {
        if let Some(metrics) = &self.metrics {
            measure(metrics);
        }
    }

    /// Asks all waiting tasks to end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Becomes true when the service is asked to stop.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }
}
