//! From which deployment's revision the scripts of an event run.

use codedeploy_api::lifecycle::LifecycleEvent;

/// The deployment whose revision holds an event's scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    ThisDeployment,
    /// The deployment of the group whose Install last succeeded. None so far: the event does nothing.
    LastSuccessful,
    /// The deployment of the group that was last downloaded. None so far: the event does nothing.
    MostRecent,
}

/// What of a deployment decides where scripts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeploymentKind {
    /// Made by the service to go back (`DeploymentCreator` is `codeDeployRollback`).
    pub rollback: bool,
    /// `DeploymentType` is `BLUE_GREEN`.
    pub blue_green: bool,
}

/// The deployment from whose revision the scripts of `event` run. `archive_exists` says whether this deployment
/// has an unpacked revision of its own, which it has from DownloadBundle on; then nothing else matters.
pub fn origin(event: &LifecycleEvent, kind: DeploymentKind, archive_exists: bool) -> Origin {
    use LifecycleEvent::*;
    use Origin::*;

    if archive_exists {
        return ThisDeployment;
    }
    // A blue/green rollback gives traffic back to hosts that run the last good revision, and takes it from those
    // that the failed deployment reached.
    let swaps_back = kind.rollback && kind.blue_green;
    match event {
        BeforeBlockTraffic | AfterBlockTraffic if swaps_back => MostRecent,
        BeforeBlockTraffic | AfterBlockTraffic | ApplicationStop => LastSuccessful,
        BeforeAllowTraffic | AfterAllowTraffic if swaps_back => LastSuccessful,
        BeforeAllowTraffic | AfterAllowTraffic | BlockTraffic | DownloadBundle | BeforeInstall | Install
        | AfterInstall | ApplicationStart | ValidateService | AllowTraffic | Custom(_) => ThisDeployment,
    }
}
