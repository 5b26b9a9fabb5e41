//! The hosts of an update: those that an operator means, and of these the ones that can update
//! their agents now.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use codedeploy_api::codedeploy::{Tag, Timestamp};
use codedeploy_api::controller::LeftOutHost;

use crate::error::{ApiError, ErrorName};
use crate::fleet::SILENCE;
use crate::registry::{applications, groups, instances};
use crate::request::ChosenHosts;
use crate::store::{Json, Row, SqlError};
use crate::transaction::Context;

pub(super) const NO_COMMAND: &str = "its agent has no update_command";

/// The number of hosts of one update.
const MAX_HOSTS: usize = 1000;

/// A host that can update its agent.
pub(super) struct Able {
    pub(super) name: String,
    pub(super) host: String,
    /// The version of its agent.
    pub(super) version: Option<String>,
}

pub(super) struct Selection {
    pub(super) able: Vec<Able>,
    pub(super) left_out: Vec<LeftOutHost>,
}

/// Returns the chosen hosts in the order of their names. A host that was named must be able to
/// update its agent; others are left out.
pub(super) fn select(context: &Context<'_>, chosen: &ChosenHosts) -> Result<Selection, ApiError> {
    let is_chosen = test(context, chosen)?;
    let sql = "SELECT * FROM instances WHERE deregistered IS NULL ORDER BY name";
    let mut selection = Selection {
        able: Vec::new(),
        left_out: Vec::new(),
    };
    context.tx.query_while(sql, (), |row| {
        let (name, Json(tags)): (String, Json<Vec<Tag>>) = (row.get("name")?, row.get("tags")?);
        if is_chosen(&name, &tags) {
            match obstacle(row, context.now)? {
                None => selection.able.push(Able {
                    name,
                    host: row.get("principal")?,
                    version: row.get("agent_version")?,
                }),
                Some(reason) => selection.left_out.push(LeftOutHost {
                    instance_name: Some(name),
                    reason: Some(reason.to_owned()),
                }),
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let are_named = matches!(chosen, ChosenHosts::Named(_));
    if let Some(first) = selection.left_out.first()
        && (are_named || selection.able.is_empty())
    {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let others = match selection.left_out.len() {
            1 => String::new(),
            more => format!(" The same holds for {} others.", more - 1),
        };
        return Err(ErrorName::InvalidInput.because(format!(
            "The agent of {} cannot be updated from here: {}.{others}",
            text(&first.instance_name),
            text(&first.reason)
        )));
    }
    match selection.able.len() {
        0 => Err(ErrorName::InvalidInput.because("No registered host is meant by that.")),
        1..=MAX_HOSTS => Ok(selection),
        more => Err(ErrorName::InvalidInput.because(format!(
            "{more} hosts are too many for one update: choose {MAX_HOSTS} or fewer."
        ))),
    }
}

type Test = Box<dyn Fn(&str, &[Tag]) -> bool>;

fn test(context: &Context<'_>, chosen: &ChosenHosts) -> Result<Test, ApiError> {
    Ok(match chosen {
        ChosenHosts::Named(names) => {
            let mut wanted = BTreeSet::new();
            for name in &names.0 {
                if instances::registered(context.tx, name)?.is_none() {
                    return Err(instances::not_registered(name));
                }
                wanted.insert(name.to_string());
            }
            Box::new(move |name, _| wanted.contains(name))
        }
        ChosenHosts::Group(application, group) => {
            let application = applications::find(context, application)?;
            let group = groups::find(context, &application, group)?;
            let membership = group.settings.membership();
            Box::new(move |_, tags| membership.includes(tags))
        }
        ChosenHosts::Tagged(tests) => {
            let tests = tests.clone();
            Box::new(move |_, tags| tests.iter().any(|test| test.matches(tags)))
        }
        ChosenHosts::All => Box::new(|_, _| true),
    })
}

/// The reason why a registered host cannot update its agent now.
fn obstacle(row: &Row<'_>, now: Timestamp) -> Result<Option<&'static str>, SqlError> {
    let seen: Option<Timestamp> = row.get("last_seen")?;
    let can_update: Option<bool> = row.get("can_update")?;
    Ok(match (seen, can_update) {
        (None, _) => Some("its agent was never seen"),
        (Some(seen), _) if seen + SILENCE < now => Some("its agent is silent"),
        (_, None) => Some("its agent is AWS's, or is older than this command"),
        (_, Some(false)) => Some(NO_COMMAND),
        (_, Some(true)) => None,
    })
}
