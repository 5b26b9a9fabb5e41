//! The start of a deployment: who its targets are, and in which order they are attempted.

use std::collections::{HashMap, HashSet};

use codedeploy_api::codedeploy::{ErrorCode, RevisionLocation, TargetLabel};

use super::course::Course;
use super::create::last_successful_revision;
use super::decide::{Change, Outcome};
use super::end;
use super::progress::{DeploymentInput, Ending};
use super::records::{Record, Target};
use super::target::TargetState;
use crate::error::ApiError;
use crate::fleet::{self, Member, Membership};
use crate::registry::{Context, groups};
use crate::store::Json;

/// Finds the targets; a deployment that cannot be carried out ends here.
pub(super) fn start(
    context: &Context<'_>,
    record: &mut Record,
    outcome: &mut Outcome,
) -> Result<(), ApiError> {
    let Some(group) = groups::by_id(context, &record.group_id)? else {
        return Ok(());
    };
    let (targets, ending) = targets(context, record, &group)?;
    for (position, (member, label)) in targets.iter().enumerate() {
        let mut state = TargetState::new(&record.rules, label.clone());
        if ending.is_some() {
            state.skip_rest(context.now)?;
        }
        let target = Target {
            deployment_id: record.id.clone(),
            position,
            member: member.clone(),
            updated: context.now,
            status: state.status(&record.rules),
            state,
        };
        target.insert(context.tx, &record.rules)?;
    }
    outcome.changes.push(Change::Started { targets: targets.len() });
    record.step(context, DeploymentInput::Start(record.rules.course.first_stage()))?;
    match ending {
        Some(ending) => end::end(context, record, ending, None, outcome),
        None => Ok(()),
    }
}

type Labelled = (Member, Option<TargetLabel>);

/// Which instances become targets, in the order of attempt, and the ending of a deployment that cannot begin.
fn targets(
    context: &Context<'_>,
    record: &Record,
    group: &groups::Group,
) -> Result<(Vec<Labelled>, Option<Ending>), ApiError> {
    let own = || fleet::members(context.tx, &Membership::of(&group.settings));
    let label = |members: Vec<Member>, label: &Option<TargetLabel>| -> Vec<Labelled> {
        members.into_iter().map(|member| (member, label.clone())).collect()
    };
    match record.rules.course {
        Course::InPlace | Course::InPlaceBehindLoadBalancer => {
            let history = History::load(context, group)?;
            let (members, ending) = admit(context, record, own()?, &history);
            Ok((label(in_order_of_attempt(members, &history), &None), ending))
        }
        Course::BlueGreen { .. } => {
            let replacement = record.snapshot.target_instances.clone().unwrap_or_default();
            let green = fleet::members(context.tx, &Membership::of_replacement(&replacement))?;
            let replaced_by: HashSet<_> = green.iter().map(|member| member.name.clone()).collect();
            let blue = own()?.into_iter().filter(|member| !replaced_by.contains(&member.name)).collect();
            let history = History::load(context, group)?;
            let (green, ending) = admit(context, record, green, &history);
            let mut targets = label(in_order_of_attempt(green, &history), &Some(TargetLabel::Green));
            if !targets.is_empty() {
                targets.extend(label(blue, &Some(TargetLabel::Blue)));
            }
            Ok((targets, ending))
        }
        Course::BlueGreenRollback => {
            let failed = record.relations.rollback.clone().unwrap_or_default();
            let failed = failed.rollback_triggering_deployment_id.unwrap_or_default();
            // The original instances serve again; a replacement instance that never served has nothing to lose.
            let targets: Vec<_> = Target::load_all(context.tx, &failed)?
                .into_iter()
                .filter(|target| {
                    target.state.label == Some(TargetLabel::Blue) || target.state.was_given_traffic()
                })
                .map(|target| (target.member, target.state.label))
                .collect();
            let nobody = "The deployment failed because the original instances are not known any more.";
            let ending = targets.is_empty().then(|| Ending::failed(ErrorCode::NoInstances, nobody));
            Ok((targets, ending))
        }
    }
}

/// Which of a fleet's members become targets, and the ending of a deployment that cannot begin.
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

/// How earlier deployments of a group left its instances.
struct History {
    /// The group's revision: that of its last successful deployment.
    current: Option<RevisionLocation>,
    instances: HashMap<String, (bool, Option<RevisionLocation>)>,
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
    members.sort_by_cached_key(|member| (class(member), member.name.clone()));
    members
}
