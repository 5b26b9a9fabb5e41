//! The start of a deployment: who its targets are, and in which order they are attempted.

use std::collections::{HashMap, HashSet};

use codedeploy_api::codedeploy::{ErrorCode, RevisionLocation, TargetLabel};
use codedeploy_planner::deployment_state::{DeploymentInput, Stage, Stop};
use codedeploy_planner::rules::Rules;
use codedeploy_planner::strategy::Strategy;
use codedeploy_planner::target_state::TargetState;

use super::create::last_successful_revision;
use crate::deployment::effects::{Change, Effects};
use crate::error::ApiError;
use crate::fleet::{self, Member, Membership};
use crate::records::{Record, Target};
use crate::registry::{groups, tokens};
use crate::store::Json;
use crate::transaction::Context;

/// Finds the targets; a deployment that cannot be carried out ends here.
pub(super) fn start(
    context: &Context<'_>,
    record: &mut Record,
    outcome: &mut Effects,
) -> Result<(), ApiError> {
    let Some(group) = groups::by_id(context, &record.group_id)? else {
        return Ok(());
    };
    let (recruits, stop) = match recruit(context, record, &group)? {
        Ok(recruits) => {
            let stop = match unsatisfiable(&record.rules, &recruits) {
                None => lacks_token(context, record)?,
                some => some,
            };
            (recruits, stop)
        }
        Err(stop) => (Vec::new(), Some(stop)),
    };
    for (position, recruit) in recruits.iter().enumerate() {
        let state = TargetState::new(&record.rules, recruit.label.clone()).beginning_at(recruit.from);
        let target = Target {
            deployment_id: record.id.clone(),
            position,
            member: recruit.member.clone(),
            updated: context.now,
            status: state.status(&record.rules),
            state,
        };
        target.insert(context.tx, &record.rules)?;
    }
    outcome.changes.push(Change::Started { targets: recruits.len() });
    record.step(context, DeploymentInput::Start(record.rules.strategy.first_stage()))?;
    match stop {
        Some(stop) => record.step(context, DeploymentInput::RequestStop(stop)),
        None => Ok(()),
    }
}

/// Why a deployment cannot begin whose revision was fetched with a GitHub token that the application has no more.
fn lacks_token(context: &Context<'_>, record: &Record) -> Result<Option<Stop>, ApiError> {
    if !record.relations.with_github_token || tokens::of_group(context.tx, &record.group_id)?.is_some() {
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
struct NewTarget {
    member: Member,
    label: Option<TargetLabel>,
    /// What comes before is not needed on it.
    from: Stage,
}

impl NewTarget {
    fn new(member: Member, label: Option<TargetLabel>) -> Self {
        NewTarget { member, label, from: Stage::default() }
    }
}

/// Which instances become targets, in the order of attempt, or why none can.
fn recruit(
    context: &Context<'_>,
    record: &Record,
    group: &groups::Group,
) -> Result<Result<Vec<NewTarget>, Stop>, ApiError> {
    let own = || fleet::members(context.tx, &Membership::of(&group.settings));
    let history = History::load(context, group)?;
    let revision = record.revision();
    let outdated_only = record.snapshot.update_outdated_instances_only == Some(true);
    let is_current = |member: &Member| outdated_only && history.has(member, &revision);
    match record.rules.strategy {
        Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer => {
            let members = own()?;
            if members.is_empty() {
                return Ok(Err(no_instances()));
            }
            let outdated = members.into_iter().filter(|member| !is_current(member)).collect();
            Ok(admit(context, outdated).map(|members| {
                let members = history.in_order_of_attempt(members).into_iter();
                members.map(|member| NewTarget::new(member, None)).collect()
            }))
        }
        Strategy::BlueGreen { .. } => {
            let replacement = record.snapshot.target_instances.clone().unwrap_or_default();
            let green = fleet::members(context.tx, &Membership::of_replacement(&replacement))?;
            if green.is_empty() {
                return Ok(Err(no_instances()));
            }
            let replaced_by: HashSet<_> = green.iter().map(|member| member.name.clone()).collect();
            let blue = own()?.into_iter().filter(|member| !replaced_by.contains(&member.name));
            let blue = blue.map(|member| NewTarget::new(member, Some(TargetLabel::Blue)));
            Ok(admit(context, green).map(|green| {
                let green = history.in_order_of_attempt(green).into_iter().map(|member| {
                    // One that has the revision still needs the traffic.
                    let from = if is_current(&member) { Stage::Allow } else { Stage::Deploy };
                    NewTarget { from, ..NewTarget::new(member, Some(TargetLabel::Green)) }
                });
                green.chain(blue).collect()
            }))
        }
        Strategy::BlueGreenRollback => {
            let failed = record.relations.rollback.clone().unwrap_or_default();
            let failed = failed.rollback_triggering_deployment_id.unwrap_or_default();
            // The original instances serve again; a replacement instance that never served has nothing to lose.
            let targets: Vec<_> = Target::load_all(context.tx, &failed)?
                .into_iter()
                .filter(|target| {
                    target.state.label == Some(TargetLabel::Blue) || target.state.was_given_traffic()
                })
                .map(|target| NewTarget::new(target.member, target.state.label))
                .collect();
            let nobody = "The deployment failed because the original instances are not known any more.";
            Ok(if targets.is_empty() {
                Err(Stop::failure(ErrorCode::NoInstances, nobody))
            } else {
                Ok(targets)
            })
        }
    }
}

fn no_instances() -> Stop {
    let message = "The deployment failed because no instances were found for your deployment group. Check that its tag \
                   filters match the tags of registered instances.";
    Stop::failure(ErrorCode::NoInstances, message)
}

/// Refuses more targets than a deployment can have.
fn admit(context: &Context<'_>, members: Vec<Member>) -> Result<Vec<Member>, Stop> {
    let (number, most) = (members.len(), context.quotas.targets_per_deployment);
    if number <= most {
        return Ok(members);
    }
    let message = format!("The deployment group has {number} instances; a deployment can have {most}.");
    Err(Stop::failure(ErrorCode::OverMaxInstances, message))
}

/// Why the minimum of healthy hosts lets nothing begin, if it does. A deployment to no host has nothing to begin.
fn unsatisfiable(rules: &Rules, recruits: &[NewTarget]) -> Option<Stop> {
    let stage = rules.strategy.first_stage();
    let fleet = rules.strategy.fleet(stage);
    let targets = recruits.iter().filter(|recruit| recruit.label == fleet).count();
    if stage != Stage::Deploy || targets == 0 {
        return None;
    }
    let reason = rules.minimum_healthy.budget(targets).err()?;
    Some(Stop::failure(ErrorCode::HealthConstraintsInvalid, reason.to_string()))
}

/// How earlier deployments of a group left its instances.
struct History {
    /// The group's revision: that of its last successful deployment.
    current: Option<RevisionLocation>,
    instances: HashMap<String, (bool, Option<RevisionLocation>)>,
}

impl History {
    fn load(context: &Context<'_>, group: &groups::Group) -> Result<Self, ApiError> {
        let rows = context.tx.query_all(
            "SELECT target_id, healthy, revision FROM health WHERE group_id = ?1",
            [&group.id],
            |row| {
                let revision: Option<Json<_>> = row.get(2)?;
                Ok((row.get(0)?, (row.get(1)?, revision.map(|json| json.0))))
            },
        )?;
        Ok(History {
            current: last_successful_revision(context, group)?,
            instances: rows.into_iter().collect(),
        })
    }

    /// Whether a deployment of the revision was the last that an instance took part in, and succeeded. What is left
    /// after one that failed is not known.
    fn has(&self, member: &Member, revision: &RevisionLocation) -> bool {
        matches!(self.instances.get(&member.name), Some((true, Some(last))) if last == revision)
    }

    /// Unhealthy instances first, then those of unknown, old and current revision; by name within each.
    fn in_order_of_attempt(&self, mut members: Vec<Member>) -> Vec<Member> {
        let class = |member: &Member| match self.instances.get(&member.name) {
            None | Some((false, _)) => 0,
            Some((true, None)) => 1,
            Some((true, revision)) if *revision != self.current => 2,
            Some((true, _)) => 3,
        };
        members.sort_by_cached_key(|member| (class(member), member.name.clone()));
        members
    }
}
