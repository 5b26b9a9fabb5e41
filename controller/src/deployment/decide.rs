//! Carries decisions out: one transaction takes a deployment as far as it can go now.

use codedeploy_api::codedeploy::{DeploymentStatus, ErrorCode, RevisionLocation, TargetStatus, Timestamp};
use rusqlite::named_params;

use super::create::last_successful_revision;
use super::plan::{Action, Event, Standing, TargetState, plan, standing, target_status};
use super::records::{self, Command, Record, Target};
use super::state::{DeploymentInput, Ending, EventState, IllegalEvent};
use crate::config::Timers;
use crate::error::{ApiError, ErrorName};
use crate::fleet::{self, Member, Membership};
use crate::registry::{Context, groups};
use crate::store::Json;

/// What a decision did, for those who act on it once it is on disk.
#[derive(Debug)]
pub struct Outcome {
    pub deployment_id: String,
    /// When to decide again if nothing happens before; absent for an ended deployment.
    pub again_at: Option<Timestamp>,
    /// Hosts that have a new command.
    pub hosts: Vec<String>,
    pub changes: Vec<Change>,
}

/// A change of state, for the log.
#[derive(Debug)]
pub enum Change {
    Created,
    Started { targets: usize },
    Ended { status: DeploymentStatus, error: String },
    Target { target: String, status: TargetStatus },
    Event { target: String, event: String, state: &'static str, message: String },
}

impl Outcome {
    /// Nothing was done.
    pub(super) fn none(deployment_id: &str) -> Self {
        Outcome {
            deployment_id: deployment_id.to_owned(),
            again_at: None,
            hosts: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Writes every change to the log.
    pub fn log(&self) {
        let deployment_id = self.deployment_id.as_str();
        for change in &self.changes {
            match change {
                Change::Created => tracing::info!(deployment_id, "deployment created"),
                Change::Started { targets } => {
                    tracing::info!(deployment_id, targets, "deployment started");
                }
                Change::Ended { status, error } => {
                    tracing::info!(deployment_id, %status, error, "deployment ended");
                }
                Change::Target { target, status } => {
                    tracing::info!(deployment_id, host = target, %status, "target changed");
                }
                Change::Event { target, event, state, message } => {
                    tracing::info!(
                        deployment_id,
                        host = target,
                        lifecycle_event = event,
                        state,
                        detail = message,
                        "lifecycle event changed"
                    );
                }
            }
        }
    }
}

impl From<IllegalEvent> for ApiError {
    fn from(cause: IllegalEvent) -> Self {
        tracing::error!(error = %cause, "a decision did not fit the state it was made for");
        ErrorName::InternalFailure.because("the service decided something impossible; its log has the cause")
    }
}

/// Decides about a deployment and carries the decision out. Nothing happens to one that ended or does not exist.
pub fn decide(context: &Context<'_>, timers: &Timers, id: &str) -> Result<Outcome, ApiError> {
    let mut outcome = Outcome::none(id);
    let Some(mut record) = Record::load(context.tx, id)? else {
        return Ok(outcome);
    };
    if record.progress.status() == DeploymentStatus::Created {
        start(context, &mut record, &mut outcome)?;
    }
    let mut targets = Target::load_all(context.tx, id)?;
    let mut state = records::state(&record, &targets);
    let decision = plan(&state, timers, context.now);
    for action in &decision.actions {
        state.apply(action, context.now)?;
        let changed = match action {
            Action::Issue { target, .. } | Action::Expire { target, .. } | Action::SkipRest { target } => {
                *target
            }
            Action::End(ending) => {
                record.progress = state.progress.clone();
                end(context, &record, &targets, ending, &mut outcome)?;
                continue;
            }
        };
        let (Some(target), Some(new)) = (targets.get_mut(changed), state.targets.get(changed)) else {
            continue;
        };
        let before = std::mem::replace(&mut target.state, new.clone());
        outcome.save(context, &record, target, &before)?;
        if let Action::Issue { event, .. } = action {
            Command::offer(context.tx, target, *event)?;
            outcome.hosts.push(target.member.host.clone());
        }
    }
    outcome.again_at = decision.again_at;
    Ok(outcome)
}

impl Outcome {
    /// Writes a target whose state was `before`, and notes what changed. Skipped events are told by their target.
    pub(super) fn save(
        &mut self,
        context: &Context<'_>,
        record: &Record,
        target: &mut Target,
        before: &TargetState,
    ) -> Result<(), ApiError> {
        let status = target.status.clone();
        target.save(context.tx, &record.rules, context.now)?;
        for (old, new) in before.events.iter().zip(&target.state.events) {
            let skipped = matches!(new.state, EventState::Skipped { .. });
            if old.state.name() != new.state.name() && !skipped {
                let diagnostics = new.state.diagnostics();
                let message = diagnostics.and_then(|diagnostics| diagnostics.message.clone());
                self.changes.push(Change::Event {
                    target: target.member.name.clone(),
                    event: new.name.name().to_owned(),
                    state: new.state.name(),
                    message: message.unwrap_or_default(),
                });
            }
        }
        if status != target.status {
            self.changes
                .push(Change::Target { target: target.member.name.clone(), status: target.status.clone() });
        }
        Ok(())
    }
}

/// Finds the targets; a deployment that cannot be carried out ends here.
fn start(context: &Context<'_>, record: &mut Record, outcome: &mut Outcome) -> Result<(), ApiError> {
    let Some(group) = groups::by_id(context, &record.group_id)? else {
        return Ok(());
    };
    let members = fleet::members(context.tx, &Membership::of(&group.settings))?;
    let history = History::load(context, &group)?;
    let (members, ending) = admit(context, record, members, &history);
    let targets: Vec<Target> = in_order_of_attempt(members, &history)
        .into_iter()
        .enumerate()
        .map(|(position, member)| new_target(record, position, member, ending.is_some(), context.now))
        .collect();
    record.progress = record.progress.next(DeploymentInput::Start, context.now)?;
    for target in &targets {
        target.insert(context.tx)?;
    }
    outcome.changes.push(Change::Started { targets: targets.len() });
    match ending {
        Some(ending) => {
            record.progress = record.progress.next(DeploymentInput::End(ending.clone()), context.now)?;
            end(context, record, &targets, &ending, outcome)
        }
        None => Ok(record.save_progress(context.tx)?),
    }
}

/// Which of a group's members become targets, and the ending of a deployment that cannot begin.
fn admit(
    context: &Context<'_>,
    record: &Record,
    members: Vec<Member>,
    history: &History,
) -> (Vec<Member>, Option<Ending>) {
    if members.is_empty() {
        let message = "The deployment failed because no instances were found for your deployment group. Check that its \
                       tag filters match the tags of registered instances.";
        return (members, Some(Ending::failed(ErrorCode::NoInstances, message)));
    }
    let outdated_only = record.snapshot.update_outdated_instances_only == Some(true);
    let revision = record.revision();
    let members: Vec<_> = members
        .into_iter()
        .filter(|member| !outdated_only || history.revision(member) != Some(&revision))
        .collect();
    if members.is_empty() {
        return (members, Some(Ending::Succeeded));
    }
    let most = context.quotas.targets_per_deployment;
    if members.len() > most {
        let message =
            format!("The deployment group has {} instances; a deployment can have {most}.", members.len());
        return (Vec::new(), Some(Ending::failed(ErrorCode::OverMaxInstances, message)));
    }
    let ending =
        record.rules.minimum_healthy.budget(members.len()).err().map(|unsatisfiable| {
            Ending::failed(ErrorCode::HealthConstraintsInvalid, unsatisfiable.to_string())
        });
    (members, ending)
}

fn new_target(record: &Record, position: usize, member: Member, skipped: bool, now: Timestamp) -> Target {
    let event_state = if skipped { EventState::Skipped { ended: now } } else { EventState::Pending };
    let state = TargetState {
        events: super::in_place_events().map(|name| Event { name, state: event_state.clone() }).collect(),
    };
    Target {
        deployment_id: record.id.clone(),
        position,
        member,
        updated: now,
        status: target_status(&state, &record.rules),
        state,
    }
}

/// How earlier deployments of a group left its instances.
struct History {
    /// The group's revision: that of its last successful deployment.
    current: Option<RevisionLocation>,
    instances: std::collections::HashMap<String, (bool, Option<RevisionLocation>)>,
}

impl History {
    fn load(context: &Context<'_>, group: &groups::Group) -> Result<Self, ApiError> {
        let mut statement = context
            .tx
            .prepare_cached("SELECT target_id, healthy, revision FROM health WHERE group_id = ?1")?;
        let rows = statement.query_map([&group.id], |row| {
            let revision: Option<Json<_>> = row.get(2)?;
            Ok((row.get(0)?, (row.get(1)?, revision.map(|json| json.0))))
        })?;
        Ok(History {
            current: last_successful_revision(context, group)?,
            instances: rows.collect::<Result<_, _>>()?,
        })
    }

    fn revision(&self, member: &Member) -> Option<&RevisionLocation> {
        self.instances.get(&member.name).and_then(|(_, revision)| revision.as_ref())
    }
}

/// Unhealthy instances first, then those of unknown, old and current revision; by name within each.
fn in_order_of_attempt(mut members: Vec<Member>, history: &History) -> Vec<Member> {
    let class = |member: &Member| match history.instances.get(&member.name) {
        None | Some((false, _)) => 0,
        Some((true, None)) => 1,
        Some((true, revision)) if *revision != history.current => 2,
        Some((true, _)) => 3,
    };
    members.sort_by(|a, b| class(a).cmp(&class(b)).then_with(|| a.name.cmp(&b.name)));
    members
}

/// Writes the end of a deployment and what it means for its group and for later deployments.
fn end(
    context: &Context<'_>,
    record: &Record,
    targets: &[Target],
    ending: &Ending,
    outcome: &mut Outcome,
) -> Result<(), ApiError> {
    record.save_progress(context.tx)?;
    let Some(group) = groups::by_id(context, &record.group_id)? else {
        return Ok(());
    };
    let history = History::load(context, &group)?;
    for target in targets {
        let attempted = target.state.events.iter().any(|event| event.state.diagnostics().is_some());
        if !attempted {
            continue;
        }
        let healthy = standing(&target.state, &record.rules) == Standing::Succeeded;
        let before = history.revision(&target.member);
        let revision = if healthy {
            Some(record.revision())
        } else {
            // What is on a host after a failure is not known to be the group's revision any more.
            before.filter(|revision| Some(*revision) != history.current.as_ref()).cloned()
        };
        context
            .tx
            .prepare_cached(
                "INSERT INTO health (group_id, target_id, healthy, revision)
                 VALUES (:group, :target, :healthy, :revision)
                 ON CONFLICT DO UPDATE SET healthy = excluded.healthy, revision = excluded.revision",
            )?
            .execute(named_params! {
                ":group": record.group_id,
                ":target": target.member.name,
                ":healthy": healthy,
                ":revision": revision.map(Json),
            })?;
    }
    if *ending == Ending::Succeeded {
        context.tx.execute(
            "UPDATE deployment_groups SET last_successful = ?2 WHERE id = ?1",
            (&record.group_id, &record.id),
        )?;
    }
    let error = ending.error().and_then(|error| error.message.clone());
    outcome
        .changes
        .push(Change::Ended { status: record.progress.status(), error: error.unwrap_or_default() });
    Ok(())
}

/// The deployments that are not over: what the service goes on with after a restart.
pub fn active(context: &Context<'_>) -> Result<Vec<String>, ApiError> {
    let mut statement = context.tx.prepare_cached(
        "SELECT id FROM deployments WHERE status IN ('Created', 'InProgress') ORDER BY created",
    )?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}
