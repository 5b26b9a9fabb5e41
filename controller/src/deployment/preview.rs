//! The effect of a deployment before it is created: its targets, their order, and what would stop
//! it at once.

use codedeploy_api::codedeploy::TargetLabel;
use codedeploy_planner::deployment_state::Stop;

use super::create::prepare;
use super::start::{Decline, find_targets, unsatisfiable};
use crate::error::ApiError;
use crate::fleet::Census;
use crate::records::Record;
use crate::request;
use crate::transaction::Context;

/// A deployment that is not created.
#[derive(Debug)]
pub struct Preview {
    pub(crate) record: Record,
    /// In the order of attempt.
    pub targets: Vec<Planned>,
    /// The error with which the deployment would end at once.
    pub stop: Option<String>,
}

/// A host that would become a target.
#[derive(Debug, Clone)]
pub struct Planned {
    pub name: String,
    pub label: Option<TargetLabel>,
    /// Whether its agent does not poll.
    pub is_silent: bool,
}

/// Returns the effect of a deployment; an error if it would not be created.
pub fn preview(
    context: &Context<'_>,
    request: request::CreateDeployment,
) -> Result<Preview, ApiError> {
    let (record, group) = prepare(context, request)?;
    let (found, stop) = match find_targets(context, &record, &group) {
        Ok(found) => {
            let stop = unsatisfiable(&record.rules, &found);
            (found, stop)
        }
        Err(Decline::Stop(stop)) => (Vec::new(), Some(stop)),
        Err(Decline::Error(error)) => return Err(error),
    };
    let census = Census::take(context.tx, context.now)?;
    let is_silent = |name: &str| {
        let place = census
            .instances
            .binary_search_by(|instance| instance.name.as_str().cmp(name));
        let instance = place.ok().and_then(|place| census.instances.get(place));
        instance.is_none_or(|instance| instance.is_silent)
    };
    let targets = found.into_iter().map(|target| Planned {
        is_silent: is_silent(&target.member.name),
        name: target.member.name,
        label: target.label,
    });
    Ok(Preview {
        targets: targets.collect(),
        stop: stop.map(message),
        record,
    })
}

fn message(stop: Stop) -> String {
    let ending = stop.ending();
    let error = ending.error().and_then(|error| error.message.clone());
    error.unwrap_or_default()
}
