//! Names in deployment groups that are missing from the settings: they would silently have no
//! effect.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use crate::config::known_names::KnownNames;
use crate::error::{ApiError, ErrorName};
use crate::request::members::shorten;
use crate::request::{GroupSettings, References};
use crate::store::{Json, SqlError, Tx};

/// A name that is missing from the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DanglingReference {
    Alarm { name: String, near: Option<String> },
    Topic { arn: String, near: Option<String> },
}

impl fmt::Display for DanglingReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let near = match self {
            DanglingReference::Alarm { name, near } => {
                let name = shorten(name);
                write!(
                    f,
                    "The alarm {name:?} is not one that alarms in the controller's configuration names, so it is never active"
                )?;
                near
            }
            DanglingReference::Topic { arn, near } => {
                let arn = shorten(arn);
                write!(
                    f,
                    "The topic {arn:?} is not one that events.topics in the controller's configuration names, so nobody is told"
                )?;
                near
            }
        };
        near.as_ref()
            .map_or(f.write_str("."), |near| write!(f, ": did you mean {near}?"))
    }
}

impl DanglingReference {
    fn refusal(&self) -> ApiError {
        let name = match self {
            DanglingReference::Alarm { .. } => ErrorName::InvalidAlarmConfig,
            DanglingReference::Topic { .. } => ErrorName::InvalidTriggerConfig,
        };
        name.because(self.to_string())
    }

    fn warn(&self, application: &str, deployment_group: &str) {
        match self {
            DanglingReference::Alarm { name: alarm, near } => tracing::warn!(
                application,
                deployment_group,
                alarm,
                did_you_mean = near,
                "an alarm that alarms does not name in the configuration is never active"
            ),
            DanglingReference::Topic { arn: topic, near } => tracing::warn!(
                application,
                deployment_group,
                topic,
                did_you_mean = near,
                "nobody is told what a trigger asks for: events.topics does not name its topic in the configuration"
            ),
        }
    }
}

/// Handles a group's unknown alarms and topics: warns in the log, or rejects them if names are
/// strict. Returns the warnings.
pub(crate) fn report(
    known: &KnownNames,
    (application, deployment_group): (&str, &str),
    references: &References,
) -> Result<Vec<DanglingReference>, ApiError> {
    let found = find(known, references);
    match found.first() {
        Some(first) if known.strict => return Err(first.refusal()),
        _ => found
            .iter()
            .for_each(|reference| reference.warn(application, deployment_group)),
    }
    Ok(found)
}

/// Warns of every unknown alarm and topic of a deployment group.
pub fn warn(tx: &Tx<'_>, known: &KnownNames) -> Result<(), SqlError> {
    tx.query_while(
        "SELECT a.name AS application, g.name AS deployment_group, settings
         FROM deployment_groups g JOIN applications a ON a.id = g.application_id ORDER BY a.name, g.name",
        (),
        |row| {
            let application: String = row.get("application")?;
            let deployment_group: String = row.get("deployment_group")?;
            match row.get::<Json<GroupSettings>>("settings") {
                Ok(Json(settings)) => {
                    find(known, &settings.references())
                        .iter()
                        .for_each(|reference| reference.warn(&application, &deployment_group));
                }
                // It is a problem of that group only.
                Err(error) => tracing::error!(
                    application,
                    deployment_group,
                    %error,
                    "the settings of a deployment group are damaged: delete the group and create it again"
                ),
            }
            Ok(ControlFlow::Continue(()))
        },
    )
}

fn find(known: &KnownNames, References { alarms, topics }: &References) -> Vec<DanglingReference> {
    let alarms = alarms
        .iter()
        .filter(|name| !known.alarms.contains(*name))
        .map(|name| {
            let near = nearest(name, &known.alarms);
            DanglingReference::Alarm {
                name: name.clone(),
                near,
            }
        });
    let topics = topics
        .iter()
        .filter(|arn| !known.topics.contains(*arn))
        .map(|arn| {
            let near = nearest(arn, &known.topics);
            DanglingReference::Topic {
                arn: arn.clone(),
                near,
            }
        });
    alarms.chain(topics).collect()
}

/// Returns the name that was probably meant.
fn nearest(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), known));
    near.filter(|(far, _)| *far <= 2)
        .min()
        .map(|(_, known)| known.clone())
}
