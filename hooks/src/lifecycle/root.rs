//! Decides which deployment's revision an event's scripts come from.

use codedeploy_api::lifecycle::LifecycleEvent;

/// The deployment whose revision holds an event's scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    ThisDeployment,
    /// The deployment of the group whose Install last succeeded. If there is none yet, the event
    /// does nothing.
    LastSuccessful,
    /// The deployment of the group that was last downloaded. If there is none yet, the event does
    /// nothing.
    MostRecent,
}

/// The facts of a deployment that decide where scripts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeploymentKind {
    /// The service made it to roll back (`DeploymentCreator` is `codeDeployRollback`).
    pub rollback: bool,
    /// `DeploymentType` is `BLUE_GREEN`.
    pub blue_green: bool,
}

/// Returns the deployment whose revision holds the scripts of `event`. `archive_exists` means that
/// this deployment has an unpacked revision of its own, as it has from DownloadBundle on; then
/// nothing else matters.
pub fn origin(event: &LifecycleEvent, kind: DeploymentKind, archive_exists: bool) -> Origin {
    use LifecycleEvent::*;
    use Origin::*;

    if archive_exists {
        return ThisDeployment;
    }
    // A blue/green rollback returns traffic to hosts that run the last good revision, and takes it
    // from those that the failed deployment reached.
    let swaps_back = kind.rollback && kind.blue_green;
    match event {
        BeforeBlockTraffic | AfterBlockTraffic if swaps_back => MostRecent,
        BeforeBlockTraffic | AfterBlockTraffic | ApplicationStop => LastSuccessful,
        BeforeAllowTraffic | AfterAllowTraffic if swaps_back => LastSuccessful,
        BeforeAllowTraffic | AfterAllowTraffic | BlockTraffic | DownloadBundle | BeforeInstall
        | Install | AfterInstall | ApplicationStart | ValidateService | AllowTraffic
        | Custom(_) => ThisDeployment,
    }
}
