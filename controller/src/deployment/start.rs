//! The start of a deployment: its targets, and their order.

use std::collections::{HashMap, HashSet};

use codedeploy_api::codedeploy::{ErrorCode, TargetLabel};
use codedeploy_planner::deployment_state::{DeploymentInput, Stage, Stop};
use codedeploy_planner::rules::Rules;
use codedeploy_planner::strategy::Strategy;
use codedeploy_planner::target_state::TargetState;

use super::create::last_successful_revision;
use crate::deployment::effects::{Change, Effects};
use crate::error::ApiError;
use crate::fleet::{self, Member};
use crate::records::health::{self, Health};
use crate::records::{Record, Target};
use crate::registry::{groups, tokens};
use crate::revision::Revision;
use crate::transaction::Context;

/// Determines the targets; an impossible deployment ends here.
pub(super) fn start(
    context: &Context<'_>,
    record: &mut Record,
    effects: &mut Effects,
) -> Result<(), ApiError> {
    let Some(group) = groups::by_id(context, &record.group_id)? else {
        return Ok(());
    };
    let (new_targets, stop) = match find_targets(context, record, &group) {
        Ok(new_targets) => {
            let stop = match unsatisfiable(&record.rules, &new_targets) {
                None => lacks_token(context, record)?,
                some => some,
            };
            (new_targets, stop)
        }
        Err(Decline::Stop(stop)) => (Vec::new(), Some(stop)),
        Err(Decline::Error(error)) => return Err(error),
    };
    note_drained(context, record, &group)?;
    effects.note(
        context,
        Change::Started {
            targets: new_targets.len(),
        },
    )?;
    for (
        position,
        NewTarget {
            member,
            label,
            from,
        },
    ) in new_targets.into_iter().enumerate()
    {
        let state = TargetState::new(&record.rules, label).beginning_at(from);
        let target = Target {
            deployment_id: record.id.clone(),
            position,
            member,
            updated: context.now,
            status: state.status(&record.rules),
            state,
        };
        target.insert(context.tx, &record.rules)?;
    }
    record.step(
        context,
        DeploymentInput::Start(record.rules.strategy.first_stage()),
    )?;
    match stop {
        Some(stop) => record.step(context, DeploymentInput::RequestStop(stop)),
        None => Ok(()),
    }
}

/// The number of drained hosts that a message names.
const NAMED: usize = 10;

/// Adds the drained hosts, which are no targets, to the messages of the deployment.
fn note_drained(
    context: &Context<'_>,
    record: &mut Record,
    group: &groups::Group,
) -> Result<(), ApiError> {
    let Some(definition) = record.definition.as_mut() else {
        return Ok(());
    };
    let replacement = definition.replacement.as_ref();
    let memberships = [
        Some(group.settings.membership()),
        replacement.map(|replacement| replacement.membership()),
    ];
    let names = fleet::drained(
        context.tx,
        &memberships.into_iter().flatten().collect::<Vec<_>>(),
    )?;
    if names.is_empty() {
        return Ok(());
    }
    let others = names.len().saturating_sub(NAMED);
    let more = if others > 0 {
        format!(" and {others} more")
    } else {
        String::new()
    };
    let named = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    definition
        .messages
        .push(format!("Drained hosts are left out: {named}{more}."));
    Ok(record.save_definition(context.tx)?)
}

/// Returns a stop, if the revision was fetched with a GitHub token and the application no longer
/// has one.
fn lacks_token(context: &Context<'_>, record: &Record) -> Result<Option<Stop>, ApiError> {
    if !record.relations.with_github_token
        || tokens::of_group(context.tx, &record.group_id)?.is_some()
    {
        return Ok(None);
    }
    let message = format!(
        "The revision was fetched with a GitHub token, and the application {0} is not linked to one any more: link it \
         with `codedeploy-controller github-token link NAME {0}`, and deploy again.",
        record.application_name
    );
    Ok(Some(Stop::failure(ErrorCode::MissingGithubToken, message)))
}

/// An instance that becomes a target.
pub(super) struct NewTarget {
    pub(super) member: Member,
    pub(super) label: Option<TargetLabel>,
    /// Earlier stages are not needed on it.
    pub(super) from: Stage,
}

impl NewTarget {
    fn new(member: Member, label: Option<TargetLabel>) -> Self {
        NewTarget {
            member,
            label,
            from: Stage::default(),
        }
    }
}

/// The end of a search for targets without any.
pub(super) enum Decline {
    /// The deployment cannot be carried out.
    Stop(Stop),
    Error(ApiError),
}

impl From<Stop> for Decline {
    fn from(stop: Stop) -> Self {
        Decline::Stop(stop)
    }
}

impl<E: Into<ApiError>> From<E> for Decline {
    fn from(error: E) -> Self {
        Decline::Error(error.into())
    }
}

/// Returns the instances that become targets, in the order of attempt.
pub(super) fn find_targets(
    context: &Context<'_>,
    record: &Record,
    group: &groups::Group,
) -> Result<Vec<NewTarget>, Decline> {
    let own = || fleet::members(context.tx, &group.settings.membership());
    let history = History::load(context, group)?;
    let definition = record.definition()?;
    let is_current = |member: &Member| {
        definition.update_outdated_only && history.has(member, &definition.revision)
    };
    match record.rules.strategy {
        Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer => {
            let members = at_least_one(own()?)?;
            let outdated = members
                .into_iter()
                .filter(|member| !is_current(member))
                .collect();
            let members = history
                .in_order_of_attempt(admit(context, outdated)?)
                .into_iter();
            Ok(members.map(|member| NewTarget::new(member, None)).collect())
        }
        Strategy::BlueGreen { .. } => {
            let green = match &definition.replacement {
                Some(replacement) => fleet::members(context.tx, &replacement.membership())?,
                None => Vec::new(),
            };
            let green = at_least_one(green)?;
            let replaced_by: HashSet<_> = green.iter().map(|member| member.name.clone()).collect();
            let blue = own()?
                .into_iter()
                .filter(|member| !replaced_by.contains(&member.name));
            let blue = blue.map(|member| NewTarget::new(member, Some(TargetLabel::Blue)));
            let green = history
                .in_order_of_attempt(admit(context, green)?)
                .into_iter()
                .map(|member| {
                    // An instance that has the revision still needs the traffic.
                    let from = if is_current(&member) {
                        Stage::Allow
                    } else {
                        Stage::Deploy
                    };
                    NewTarget {
                        from,
                        ..NewTarget::new(member, Some(TargetLabel::Green))
                    }
                });
            Ok(green.chain(blue).collect())
        }
        Strategy::BlueGreenRollback => {
            let failed = record.rolls_back().unwrap_or_default();
            // The original instances serve again; a replacement instance that never served has
            // nothing to lose.
            let targets: Vec<_> = Target::load_all(context.tx, &failed)?
                .into_iter()
                .filter(|target| {
                    let is_wanted = target.state.label == Some(TargetLabel::Blue)
                        || target.state.was_given_traffic();
                    is_wanted && !target.state.drained
                })
                .map(|target| NewTarget::new(target.member, target.state.label))
                .collect();
            if targets.is_empty() {
                let nobody =
                    "The deployment failed because the original instances are not known any more.";
                return Err(Stop::failure(ErrorCode::NoInstances, nobody).into());
            }
            Ok(targets)
        }
    }
}

fn at_least_one(members: Vec<Member>) -> Result<Vec<Member>, Stop> {
    if members.is_empty() {
        Err(no_instances())
    } else {
        Ok(members)
    }
}

fn no_instances() -> Stop {
    let message = "The deployment failed because no instances were found for your deployment group. Check that its tag \
                   filters match the tags of registered instances, and that not all of these are drained.";
    Stop::failure(ErrorCode::NoInstances, message)
}

/// Rejects more targets than a deployment may have.
fn admit(context: &Context<'_>, members: Vec<Member>) -> Result<Vec<Member>, Stop> {
    let (number, most) = (members.len(), context.quotas.targets_per_deployment);
    if number <= most {
        return Ok(members);
    }
    let message =
        format!("The deployment group has {number} instances; a deployment can have {most}.");
    Err(Stop::failure(ErrorCode::OverMaxInstances, message))
}

/// Returns a stop, if the minimum of healthy hosts lets nothing begin. A deployment to no host has
/// nothing to begin.
pub(super) fn unsatisfiable(rules: &Rules, new_targets: &[NewTarget]) -> Option<Stop> {
    let stage = rules.strategy.first_stage();
    let fleet = rules.strategy.fleet(stage);
    let targets = new_targets
        .iter()
        .filter(|target| target.label == fleet)
        .count();
    if stage != Stage::Deploy || targets == 0 {
        return None;
    }
    let reason = rules.minimum_healthy.budget(targets).err()?;
    Some(Stop::failure(
        ErrorCode::HealthConstraintsInvalid,
        reason.to_string(),
    ))
}

/// The effect of a group's earlier deployments on its instances.
struct History {
    /// The group's revision: that of its last successful deployment.
    current: Option<Revision>,
    instances: HashMap<String, Health>,
}

impl History {
    fn load(context: &Context<'_>, group: &groups::Group) -> Result<Self, ApiError> {
        Ok(History {
            current: last_successful_revision(context, group)?,
            instances: health::of_group(context.tx, &group.id)?,
        })
    }

    /// Whether the instance's last deployment had the revision and succeeded. After a failure, its
    /// revision is unknown.
    fn has(&self, member: &Member, revision: &Revision) -> bool {
        let seen = self.instances.get(&member.name).filter(|seen| seen.healthy);
        seen.is_some_and(|seen| seen.revision.as_ref() == Some(revision))
    }

    /// Unhealthy instances come first, then those of unknown, old and current revision, each by
    /// name.
    fn in_order_of_attempt(&self, mut members: Vec<Member>) -> Vec<Member> {
        let class = |member: &Member| match self.instances.get(&member.name) {
            None | Some(Health { healthy: false, .. }) => 0,
            Some(Health { revision: None, .. }) => 1,
            Some(Health { revision, .. }) if *revision != self.current => 2,
            Some(_) => 3,
        };
        members.sort_by_cached_key(|member| (class(member), member.name.clone()));
        members
    }
}
