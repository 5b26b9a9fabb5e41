//! The switch: traffic moves to the new slot, the link leads to it, the old slot drains, and the
//! old revision stops. Each step can be repeated, so an interrupted switch is finished.

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::Strategy;
use codedeploy_hooks::appspec::strategy::Keep;
use codedeploy_hooks::lifecycle::HookPlan;
use codedeploy_hooks::script::Outcome;
use codedeploy_hooks::slots::{Side, SlotName};
use tokio_util::sync::CancellationToken;

use super::placed::{Placed, SlotsError, strategy as strategy_of};
use super::{Log, run_event};
use crate::deployment::installed::Installed;
use crate::deployment::reports::failed;
use crate::deployment::{Host, blocking, scripts};
use crate::deployment_root::{DeploymentFolder, Store};
use crate::path_component::PathComponent;
use crate::slots::journal::{Journal, Step, Switch};
use crate::slots::layout::Live;
use crate::slots::link;
use crate::slots::traffic::{self, Call, Change, Drained};
use codedeploy_api::chain::Chain;

/// Makes the deployment of `log` serve. Returns warnings that its report names.
pub(in crate::deployment) async fn switch(
    host: &Host,
    log: Log<'_>,
    stop: &CancellationToken,
) -> Result<Vec<String>, SlotsError> {
    let (store, group, folder) = (host.store.clone(), log.group.clone(), log.folder.clone());
    let placed = blocking(move || Placed::look(&store, &group, &folder, None)).await??;
    let Some(placed) = placed.filter(|placed| placed.is_filled && !placed.serves()) else {
        return Ok(Vec::new());
    };
    let mut switch = Switch::new(log.folder.path(), placed.layout.serving(), placed.own);
    let old = switch
        .from
        .and_then(|slot| placed.record.as_ref()?.tenant(slot));
    switch.stops = old.map(ToOwned::to_owned);
    switch.empties = placed.strategy.keep == Keep::Serving && switch.from.is_some();
    if placed.layout.live == Live::Folder {
        tracing::info!(
            "the folder {} becomes the slot blue",
            placed.strategy.link.as_path().display()
        );
    }
    begin(host, log, &placed.strategy, switch, stop).await
}

/// Makes the deployment in another slot serve again; nothing is stopped.
pub(in crate::deployment) async fn back(
    host: &Host,
    log: Log<'_>,
    deployment: &DeploymentFolder,
    strategy: &Strategy,
    to: SlotName,
    stop: &CancellationToken,
) -> Result<Vec<String>, SlotsError> {
    let switch = Switch::new(deployment.path(), Some(to.other()), to);
    begin(host, log, strategy, switch, stop).await
}

async fn begin(
    host: &Host,
    log: Log<'_>,
    strategy: &Strategy,
    switch: Switch,
    stop: &CancellationToken,
) -> Result<Vec<String>, SlotsError> {
    let path = host.store.switch_journal(log.group);
    let mut journal = Journal::begin(&path, switch).map_err(SlotsError::Journal)?;
    let result = run(host, log, strategy, &mut journal, stop).await;
    // After the link, the next start does the rest.
    if journal.done() == Some(Step::Finished) || journal.done() < Some(Step::Linked) {
        journal.remove();
    }
    result
}

/// Finishes the switches that dead processes left. One that cannot be finished is taken back.
pub async fn recover(host: &Host, stop: &CancellationToken) {
    let groups = host.store.slot_groups().unwrap_or_else(|error| {
        tracing::error!("{}; interrupted switches are not finished", Chain(&error));
        Default::default()
    });
    for group in groups.switching {
        match Journal::left(&host.store.switch_journal(&group)) {
            Ok(None) => {}
            Ok(Some(journal)) => recover_one(host, &group, journal, stop).await,
            Err(error) => {
                tracing::error!(deployment_group = %group, %error, "the journal of an interrupted switch is unusable; check which slot serves, and remove it");
            }
        }
    }
}

async fn recover_one(
    host: &Host,
    group: &PathComponent,
    mut journal: Journal,
    stop: &CancellationToken,
) {
    let folder = DeploymentFolder::at(journal.switch.deployment.clone());
    let to = journal.switch.to;
    let known = Installed::read(&folder)
        .ok()
        .zip(strategy_of(&folder, None));
    let Some((installed, strategy)) = known else {
        tracing::error!(deployment_group = %group, slot = %to, "a switch was interrupted, and its revision is gone; check which slot serves");
        journal.remove();
        return;
    };
    tracing::warn!(deployment_group = %group, slot = %to, "a switch was interrupted; it is finished now");
    let log = Log {
        group,
        deployment: &installed.about.deployment_id,
        folder: &folder,
        variables: &installed.variables,
    };
    match run(host, log, &strategy, &mut journal, stop).await {
        Ok(_) if journal.done() == Some(Step::Finished) => journal.remove(),
        Ok(_) => {}
        Err(error) if journal.done() < Some(Step::Linked) => {
            tracing::error!(deployment_group = %group, "the switch cannot be finished and is taken back: {}", Chain(&error));
            journal.remove();
        }
        Err(error) => {
            tracing::error!(deployment_group = %group, "the switch cannot be finished: {}; the next start tries again", Chain(&error));
        }
    }
}

/// Does the steps that the journal does not record as done. After an error before the link was
/// switched, the old slot serves.
async fn run(
    host: &Host,
    log: Log<'_>,
    strategy: &Strategy,
    journal: &mut Journal,
    stop: &CancellationToken,
) -> Result<Vec<String>, SlotsError> {
    let switch = journal.switch.clone();
    let (to, old) = (strategy.side(switch.to), old_side(strategy, &switch));
    let mut warnings = Vec::new();
    if journal.done() < Some(Step::Linked) {
        let change = Change {
            from: old.clone(),
            to: to.clone(),
        };
        if let Err(error) = forward(host, log, strategy, journal, change, stop).await {
            if let Some(old) = old {
                let back = Change {
                    from: Some(to),
                    to: old,
                };
                if let Err(error) = move_traffic(host, log, strategy, back, stop).await {
                    tracing::error!("traffic was not moved back: {}", Chain(&error));
                }
            }
            return Err(error);
        }
        tracing::info!(slot = %switch.to, "the slot serves");
    }
    if !leads_to(strategy, switch.to).await? {
        // Stopping and emptying the other slot would end what serves.
        warnings.push(format!(
            "somebody changed the link {} after the switch to the slot {}, so the rest of the switch is left out",
            strategy.link.as_path().display(),
            switch.to
        ));
        return finish(journal, warnings);
    }
    if let Some(old) = &old
        && journal.done() < Some(Step::Drained)
    {
        warnings.extend(drain(strategy, old, stop).await);
        if stop.is_cancelled() {
            return Ok(warnings);
        }
        journal.note(Step::Drained).map_err(SlotsError::Journal)?;
    }
    if let Some(stops) = &switch.stops {
        journal.note(Step::Stopping).map_err(SlotsError::Journal)?;
        let tenant = DeploymentFolder::at(stops.clone());
        let warning = stop_old(host, log, &tenant, stop).await;
        if stop.is_cancelled() {
            return Ok(warnings);
        }
        warnings.extend(warning);
    }
    if let Some(from) = switch.from.filter(|_| switch.empties) {
        let folder = strategy.folder(from);
        let emptied = blocking(move || link::empty(&folder)).await?;
        warnings.extend(
            emptied
                .err()
                .map(|error| format!("the slot {from} keeps its files: {}", Chain(&error))),
        );
    }
    finish(journal, warnings)
}

/// Notes that nothing is left to do.
fn finish(journal: &mut Journal, warnings: Vec<String>) -> Result<Vec<String>, SlotsError> {
    journal.note(Step::Finished).map_err(SlotsError::Journal)?;
    warnings
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
    Ok(warnings)
}

async fn leads_to(strategy: &Strategy, slot: SlotName) -> Result<bool, SlotsError> {
    let (link, slots) = (strategy.link.clone(), strategy.slots.clone());
    let layout = blocking(move || link::layout(link.as_path(), slots.as_path())).await?;
    Ok(layout.is_ok_and(|layout| layout.serving() == Some(slot)))
}

/// Moves the traffic and the link.
async fn forward(
    host: &Host,
    log: Log<'_>,
    strategy: &Strategy,
    journal: &mut Journal,
    change: Change,
    stop: &CancellationToken,
) -> Result<(), SlotsError> {
    let to = change.to.name;
    if journal.done() < Some(Step::Moved) {
        move_traffic(host, log, strategy, change, stop).await?;
        journal.note(Step::Moved).map_err(SlotsError::Journal)?;
    }
    let for_link = strategy.clone();
    blocking(move || link::switch(&for_link, to)).await??;
    journal.note(Step::Linked).map_err(SlotsError::Journal)
}

/// The slot that served. The revision in it may have had other ports.
fn old_side(strategy: &Strategy, switch: &Switch) -> Option<Side> {
    let slot = switch.from?;
    let tenant = switch.stops.clone().map(DeploymentFolder::at);
    let own = tenant.and_then(|tenant| strategy_of(&tenant, None));
    Some(own.as_ref().unwrap_or(strategy).side(slot))
}

async fn move_traffic(
    host: &Host,
    log: Log<'_>,
    strategy: &Strategy,
    change: Change,
    stop: &CancellationToken,
) -> Result<(), SlotsError> {
    let to = change.to.name;
    let run = async |call: Call| run_call(host, log, call, stop).await;
    traffic::move_to(&strategy.traffic, &change, &log.folder.archive(), run)
        .await
        .map_err(|source| SlotsError::Traffic { to, source })
}

/// Runs a script that moves traffic, as a script of AllowTraffic.
async fn run_call(host: &Host, log: Log<'_>, call: Call, stop: &CancellationToken) -> Outcome {
    let mut variables = log.variables.clone();
    variables.extend(call.variables);
    let plan = HookPlan {
        event: LifecycleEvent::AllowTraffic,
        archive: call.archive,
        scripts: vec![call.script],
    };
    let report = scripts::run(
        host,
        &plan,
        log.folder,
        log.deployment,
        &variables,
        stop.clone(),
    );
    report.await.unwrap_or_else(|error| failed(&error)).outcome
}

async fn drain(strategy: &Strategy, old: &Side, stop: &CancellationToken) -> Option<String> {
    let slot = old.name;
    let drained = tokio::select! {
        drained = traffic::drained(&strategy.traffic, old, strategy.drain) => drained,
        () = stop.cancelled() => return None,
    };
    match drained {
        Ok(Drained::Open(open)) => Some(format!(
            "the slot {slot} still had {open} open connections after {} seconds",
            strategy.drain.as_secs()
        )),
        Ok(Drained::Empty | Drained::Unknown) => None,
        Err(error) => Some(format!(
            "nobody knows whether the slot {slot} is drained: {}",
            Chain(&error)
        )),
    }
}

/// Runs the deferred ApplicationStop of the old revision; returns a warning if it failed.
async fn stop_old(
    host: &Host,
    log: Log<'_>,
    tenant: &DeploymentFolder,
    stop: &CancellationToken,
) -> Option<String> {
    let event = LifecycleEvent::ApplicationStop;
    let reason = match run_event(host, &event, tenant, log, stop).await {
        Ok(report) if report.outcome.succeeded() => return None,
        Ok(report) => report.outcome.to_string(),
        Err(error) => Chain(&error).to_string(),
    };
    Some(format!(
        "the new revision serves, but ApplicationStop of the old one, {}, failed: {reason}",
        tenant.id()
    ))
}

/// Whether a switch to this deployment was interrupted.
pub(crate) fn is_unfinished(store: &Store, group: &PathComponent) -> bool {
    store.switch_journal(group).exists()
}
