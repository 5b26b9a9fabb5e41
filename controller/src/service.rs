//! The running service: what every request and every decision shares.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use codedeploy_api::codedeploy::Timestamp;
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::config::Settings;
use crate::deployment::decide::Outcome;
use crate::error::ApiError;
use crate::page::Pages;
use crate::reconcile::Signals;
use crate::registry::Context;
use crate::signing::{Signer, SigningError};
use crate::store::{Store, StoreError};
use crate::vault::{Vault, VaultError};

/// Name of the database in the data directory.
const DATABASE: &str = "codedeploy.sqlite3";

#[derive(Debug)]
pub struct Service {
    pub settings: Settings,
    pub vault: Vault,
    pub signer: Signer,
    pub signals: Signals,
    store: Store,
    pages: Pages,
    stop: watch::Sender<bool>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make the data directory {}", path.display())]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the data directory, readable to its owner only, unless it exists.
pub fn prepare(data_dir: &Path) -> Result<(), OpenError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|source| OpenError::DataDir { path: data_dir.to_owned(), source })
}

/// Opens the database of a data directory.
pub fn open_store(data_dir: &Path) -> Result<Store, OpenError> {
    Ok(Store::open(&data_dir.join(DATABASE))?)
}

impl Service {
    /// Opens everything in the data directory, making what is missing.
    pub fn open(settings: Settings) -> Result<Arc<Service>, OpenError> {
        prepare(&settings.data_dir)?;
        let vault = Vault::open(&settings.data_dir)?;
        Ok(Arc::new(Service {
            signer: Signer::open(&settings.data_dir)?,
            signals: Signals::default(),
            store: open_store(&settings.data_dir)?,
            pages: Pages::new(vault.page_key()),
            stop: watch::Sender::new(false),
            vault,
            settings,
        }))
    }

    /// Runs `work` as one transaction, on disk when this returns.
    pub async fn transact<T, W>(self: &Arc<Self>, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>) -> Result<T, ApiError> + Send + 'static,
    {
        let service = Arc::clone(self);
        self.store
            .transact(move |tx| {
                let context = Context {
                    tx,
                    now: Timestamp::now(),
                    partition: &service.settings.partition,
                    quotas: &service.settings.quotas,
                    timers: &service.settings.timers,
                    balancers: &service.settings.balancers,
                    pages: &service.pages,
                };
                work(&service, &context)
            })
            .await
    }

    /// Runs `work` as [`transact`](Self::transact) does, and tells those who wait of its outcome, if it has one.
    ///
    /// Both are done even when the caller goes away meanwhile: what is on disk would else stay unknown until a timer
    /// runs out.
    pub async fn change<T, W>(self: &Arc<Self>, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&Service, &Context<'_>) -> Result<(T, Option<Outcome>), ApiError> + Send + 'static,
    {
        let service = Arc::clone(self);
        let changing = async move {
            let (value, outcome) = service.transact(work).await?;
            if let Some(outcome) = outcome {
                service.signals.announce(&outcome);
            }
            Ok(value)
        };
        match tokio::spawn(changing.in_current_span()).await {
            Ok(changed) => changed,
            Err(_) => Err(StoreError::Gone.into()),
        }
    }

    /// Asks everything that waits to end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Becomes true when the service is asked to stop.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }
}
