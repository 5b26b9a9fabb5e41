//! Finishes Installs that a crash or a power cut interrupted, before anything new begins, and
//! reports them (`codedeploy-agent journal`).

use codedeploy_hooks::install::{self, RecoverError, Recovery, Turn, TurnError};

use crate::deployment_root::{Store, StoreError};
use crate::path_component::PathComponent;
use codedeploy_api::chain::Chain;

/// The reason why no Install can begin.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Turn(#[from] TurnError),
    #[error("an earlier Install of this deployment group was interrupted and has not been ended")]
    Unfinished(#[source] RecoverError),
}

/// The result for the interrupted Install of one deployment group.
#[derive(Debug)]
pub struct Recovered {
    pub group: String,
    pub result: Result<Recovery, RecoverError>,
}

/// Finishes the interrupted Installs of all deployment groups, and removes unfinished files; waits
/// for an Install of another process. An Install that could not be finished is logged, and reported
/// again by [`before_install`].
pub fn at_start(store: &Store) -> Result<Vec<Recovered>, RecoveryError> {
    store.sweep();
    if store.journals()?.is_empty() {
        return Ok(Vec::new());
    }
    let turn = Turn::wait(&store.instructions())?;
    recover_all(store, &turn)
}

/// Returns the right to install, once nothing of this group is unfinished: another process may have
/// died since the start.
pub fn before_install(store: &Store, group: &PathComponent) -> Result<Turn, RecoveryError> {
    store.make_records_folder(&store.instructions())?;
    store.sweep();
    let turn = Turn::wait(&store.instructions())?;
    for recovered in recover_all(store, &turn)? {
        match recovered.result {
            Err(error)
                if recovered.group == group.as_str()
                    && !matches!(error, RecoverError::SetAside { .. }) =>
            {
                return Err(RecoveryError::Unfinished(error));
            }
            _ => {}
        }
    }
    Ok(turn)
}

fn recover_all(store: &Store, turn: &Turn) -> Result<Vec<Recovered>, RecoveryError> {
    let mut all = Vec::new();
    for (group, journal) in store.journals()? {
        let result = install::recover(&journal, turn);
        match &result {
            // Another process has finished it meanwhile.
            Ok(Recovery::Nothing) => continue,
            Ok(recovery) => tracing::warn!(deployment_group = group, "{recovery}"),
            Err(error) => tracing::error!(deployment_group = group, "{}", Chain(error)),
        }
        let notes = match &result {
            Ok(Recovery::RolledForward { summary, .. }) => &summary.warnings[..],
            Ok(Recovery::RolledBack { kept, .. }) => &kept[..],
            Ok(Recovery::Nothing) | Err(_) => &[],
        };
        notes
            .iter()
            .for_each(|note| tracing::warn!(deployment_group = group, "{note}"));
        all.push(Recovered { group, result });
    }
    Ok(all)
}
