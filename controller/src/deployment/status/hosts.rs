//! ListHosts and GetHostStatus: the registered instances, what is on them, and what they do.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::ControlFlow;

use codedeploy_api::codedeploy::{Tag, Timestamp};
use codedeploy_api::controller::{
    CommandState, GetHostStatusOutput, HostCommand, HostDeployment, HostRevision, HostState,
    HostStatus, ListHostsOutput, RevisionHealth,
};
use codedeploy_planner::event_state::EventState;

use super::summary::brief;
use crate::deployment::{agent_updates, drain, queries};
use crate::error::ApiError;
use crate::fleet::Membership;
use crate::pagination::PAGE;
use crate::records::health::{self, Left};
use crate::records::listing::{Wanted, newest};
use crate::records::{Record, Target};
use crate::registry::groups::{self, Group};
use crate::registry::{applications, instances};
use crate::request;
use crate::revision::Revision;
use crate::store::{Json, Row, SqlError, Tx};
use crate::transaction::Context;

const AFTER: &str =
    "SELECT * FROM instances WHERE deregistered IS NULL AND name > ?1 ORDER BY name";
/// The hosts of one state only, so that the others are not read.
const SILENT_AFTER: &str = "SELECT * FROM instances
    WHERE deregistered IS NULL AND name > ?1 AND last_seen < ?2 ORDER BY name";
const NEVER_SEEN_AFTER: &str = "SELECT * FROM instances
    WHERE deregistered IS NULL AND name > ?1 AND last_seen IS NULL ORDER BY name";
const POLLING_AFTER: &str = "SELECT * FROM instances
    WHERE deregistered IS NULL AND name > ?1 AND last_seen >= ?2 ORDER BY name";

/// The number of deployments in the history of a host, and the number of its groups' in which they
/// are looked for.
const HISTORY: usize = 20;
const LOOKED_AT: usize = 100;

/// A registered instance.
struct Host {
    name: String,
    arn: String,
    principal: String,
    tags: Vec<Tag>,
    registered: Timestamp,
    agent_version: Option<String>,
    last_seen: Option<Timestamp>,
    can_update: Option<bool>,
    /// Since when it is drained, by whom and why.
    drain: Option<(Timestamp, Option<String>, Option<String>)>,
}

impl Host {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(Host {
            name: row.get("name")?,
            arn: row.get("arn")?,
            principal: row.get("principal")?,
            tags: row.get::<Json<_>>("tags")?.0,
            registered: row.get("registered")?,
            agent_version: row.get("agent_version")?,
            last_seen: row.get("last_seen")?,
            can_update: row.get("can_update")?,
            drain: match row.get("drained")? {
                Some(since) => Some((since, row.get("drained_by")?, row.get("drain_reason")?)),
                None => None,
            },
        })
    }
}

/// A deployment group with its membership, and its revision once it was needed.
struct Known {
    application: String,
    group: Group,
    membership: Membership,
    current: OnceCell<Option<Revision>>,
}

impl Known {
    /// Returns all groups that the caller may see, by name.
    fn all(context: &Context<'_>) -> Result<Vec<Known>, ApiError> {
        let known = |(application, group): (String, Group)| Known {
            application,
            membership: group.settings.membership(),
            group,
            current: OnceCell::new(),
        };
        let visible = groups::visible(context)?;
        Ok(visible.into_iter().map(known).collect())
    }

    /// The revision of its last successful deployment.
    fn current(&self, tx: &Tx<'_>) -> Result<Option<&Revision>, ApiError> {
        if let Some(found) = self.current.get() {
            return Ok(found.as_ref());
        }
        let record = match &self.group.last_successful {
            Some(id) => Record::load(tx, id)?,
            None => None,
        };
        let found = record.and_then(|record| record.revision().cloned());
        Ok(self.current.get_or_init(|| found).as_ref())
    }
}

/// By name, or the silent ones first.
pub fn list(
    context: &Context<'_>,
    request: request::ListHosts,
) -> Result<ListHostsOutput, ApiError> {
    let membership = match &request.group {
        Some((application, group)) => {
            let application = applications::find(context, application)?;
            let group = groups::find(context, &application, group)?;
            Some(group.settings.membership())
        }
        None => None,
    };
    let only = &request.only;
    let name = format!(
        "hosts {:?} {} {only:?}",
        request.group, request.silent_first
    );
    let listing = context
        .pages
        .listing::<(usize, String)>(name, request.next_token.as_deref())?;
    let known = Known::all(context)?;
    let is_listed = |tags: &[Tag]| {
        membership
            .as_ref()
            .is_none_or(|membership| membership.includes(tags))
            && only.have_tags(tags)
            && sees(context, &known, tags)
    };
    let mut listed = ByTags::new(is_listed);
    // Each round lists the hosts of one state, or all of them.
    let rounds: &[Option<HostState>] = match request.silent_first {
        true => &[
            Some(HostState::Silent),
            Some(HostState::NeverSeen),
            Some(HostState::Polling),
        ],
        false => &[None],
    };
    let (begin, name) = listing.after().cloned().unwrap_or_default();
    let silence = i64::try_from(crate::fleet::SILENCE.as_millis()).unwrap_or(i64::MAX);
    let since = context.now.millis().saturating_sub(silence);
    let mut found = Vec::new();
    for (number, wanted) in rounds.iter().enumerate().skip(begin) {
        let after = if number == begin { name.as_str() } else { "" };
        let look = |row: &Row<'_>| {
            let is_silent = || {
                Ok::<_, SqlError>(state(row.get("last_seen")?, context.now) != HostState::Polling)
            };
            let is_drained =
                || Ok::<_, SqlError>(row.get::<Option<Timestamp>>("drained")?.is_some());
            if only.have_name(|| row.get("name"))?
                && (!only.silent || is_silent()?)
                && (!only.drained || is_drained()?)
                && listed.is(row)?
            {
                let host = Host::read(row)?;
                found.push(((number, host.name.clone()), host));
            }
            // One more than a page shows whether there is another page.
            Ok(match found.len() > PAGE {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        };
        match wanted {
            None => context.tx.query_while(AFTER, [after], look)?,
            Some(HostState::NeverSeen) => {
                context.tx.query_while(NEVER_SEEN_AFTER, [after], look)?;
            }
            Some(HostState::Polling) => {
                context
                    .tx
                    .query_while(POLLING_AFTER, (after, since), look)?;
            }
            Some(_) => context.tx.query_while(SILENT_AFTER, (after, since), look)?,
        }
        if found.len() > PAGE {
            break;
        }
    }
    let (hosts, next_token) = listing.page(found.into_iter().map(Ok::<_, ApiError>))?;
    let hosts = hosts.into_iter().map(|host| status(context, &known, host));
    Ok(ListHostsOutput {
        hosts: Some(hosts.collect::<Result<_, _>>()?),
        next_token,
    })
}

pub fn get(
    context: &Context<'_>,
    request: request::GetHostStatus,
) -> Result<GetHostStatusOutput, ApiError> {
    let (known, host) = find(context, &request.instance_name)?;
    let deployments = history(context, &known, &host)?;
    Ok(GetHostStatusOutput {
        host: Some(status(context, &known, host)?),
        deployments: Some(deployments),
    })
}

/// Returns the state of the registered instance of a name.
pub(crate) fn by_name(context: &Context<'_>, name: &str) -> Result<HostStatus, ApiError> {
    let (known, host) = find(context, name)?;
    status(context, &known, host)
}

/// Returns the registered instance of a name, and every group.
fn find(context: &Context<'_>, name: &str) -> Result<(Vec<Known>, Host), ApiError> {
    let sql = "SELECT * FROM instances WHERE deregistered IS NULL AND name = ?1";
    let host = context.tx.query_opt(sql, [name], Host::read)?;
    let known = Known::all(context)?;
    let host = host.filter(|host| sees(context, &known, &host.tags));
    let host = host.ok_or_else(|| {
        context.unseen(&format!("the host {name}"), || {
            instances::not_registered(name)
        })
    })?;
    Ok((known, host))
}

/// Returns the last deployments with a host as a target, the newest first.
fn history(
    context: &Context<'_>,
    known: &[Known],
    host: &Host,
) -> Result<Vec<HostDeployment>, ApiError> {
    let left = health::of_instance(context.tx, &host.name)?;
    let of_host = known.iter().filter(|known| {
        known.membership.includes(&host.tags) || left.contains_key(&known.group.id)
    });
    let groups: Vec<String> = of_host.map(|known| known.group.id.clone()).collect();
    let wanted = Wanted {
        groups: Some(&groups),
        statuses: &[],
        start: i64::MIN,
        end: i64::MAX,
        before: (i64::MAX, i64::MAX),
    };
    let made = newest(context.tx, &wanted, LOOKED_AT)?;
    let mut history = Vec::new();
    for (_, id) in made {
        if history.len() == HISTORY {
            break;
        }
        let Some(target) = Target::named(context.tx, &id, &host.name)? else {
            continue;
        };
        if let Some(record) = Record::load(context.tx, &id)? {
            history.push(HostDeployment {
                deployment: Some(brief(&record)),
                status: Some(target.status),
                update_time: Some(target.updated),
            });
        }
    }
    Ok(history)
}

/// Whether the caller may see a host: it belongs to one of the visible groups.
fn sees(context: &Context<'_>, visible: &[Known], tags: &[Tag]) -> bool {
    !context.is_limited() || visible.iter().any(|known| known.membership.includes(tags))
}

/// A test of the tags of hosts. Most hosts have the same tags as others, so that few lists are
/// tested.
struct ByTags<F> {
    test: F,
    known: HashMap<String, bool>,
}

impl<F: Fn(&[Tag]) -> bool> ByTags<F> {
    fn new(test: F) -> Self {
        ByTags {
            test,
            known: HashMap::new(),
        }
    }

    /// Tests the tags of the host in a row.
    fn is(&mut self, row: &Row<'_>) -> Result<bool, SqlError> {
        let known = row.text("tags", |text| self.known.get(text).copied())?;
        if let Some(known) = known {
            return Ok(known);
        }
        let Json(tags) = row.get::<Json<Vec<Tag>>>("tags")?;
        let is = (self.test)(&tags);
        self.known.insert(row.get("tags")?, is);
        Ok(is)
    }
}

fn status(context: &Context<'_>, known: &[Known], host: Host) -> Result<HostStatus, ApiError> {
    let mut left = health::of_instance(context.tx, &host.name)?;
    let revisions = known
        .iter()
        .filter_map(|known| revision(context.tx, known, &host, &mut left).transpose());
    let mut commands = Target::busy_of_host(context.tx, &host.principal)?;
    if context.is_limited() {
        // A host may be performing a command of a group that the caller does not see.
        let mut visible = Vec::new();
        for busy in commands {
            if queries::find(context, &busy.0.deployment_id).is_ok() {
                visible.push(busy);
            }
        }
        commands = visible;
    }
    let commands = commands
        .iter()
        .filter_map(|(target, deadline)| command(target, *deadline));
    // An update of agents may reach beyond the groups of the caller's key.
    let agent_update = match context.is_limited() {
        true => None,
        false => agent_updates::present(context.tx, &host.principal)?,
    };
    let drain = host
        .drain
        .clone()
        .map(|drain| drain::view(context, &host.arn, drain));
    Ok(HostStatus {
        drain: drain.transpose()?,
        can_update: host.can_update,
        agent_update,
        revisions: Some(revisions.collect::<Result<_, _>>()?),
        commands: Some(commands.collect()),
        state: Some(state(host.last_seen, context.now)),
        instance_name: Some(host.name),
        instance_arn: Some(host.arn),
        host_identifier: Some(host.principal),
        tags: Some(host.tags),
        register_time: Some(host.registered),
        agent_version: host.agent_version,
        last_seen: host.last_seen,
    })
}

fn state(last_seen: Option<Timestamp>, now: Timestamp) -> HostState {
    match last_seen {
        Some(seen) if seen + crate::fleet::SILENCE >= now => HostState::Polling,
        Some(_) => HostState::Silent,
        None => HostState::NeverSeen,
    }
}

/// Returns a host as a member of a group; `None` if the group has nothing to do with it.
fn revision(
    tx: &Tx<'_>,
    known: &Known,
    host: &Host,
    left: &mut HashMap<String, Left>,
) -> Result<Option<HostRevision>, ApiError> {
    let member = known.membership.includes(&host.tags);
    let left = left.remove(&known.group.id);
    if left.is_none() && !member {
        return Ok(None);
    }
    let current = known.current(tx)?;
    let revision = left.as_ref().and_then(|left| left.health.revision.clone());
    let health = match (&revision, current) {
        (None, _) => RevisionHealth::Unknown,
        (Some(revision), Some(current)) if revision == current => RevisionHealth::Current,
        (Some(_), _) => RevisionHealth::Old,
    };
    Ok(Some(HostRevision {
        application_name: Some(known.application.clone()),
        deployment_group_name: Some(known.group.name.clone()),
        revision: revision.map(Into::into),
        revision_health: Some(health),
        healthy: left.as_ref().map(|left| left.health.healthy),
        since: left.as_ref().and_then(|left| left.changed),
        deployment_id: left.and_then(|left| left.deployment_id),
        member: Some(member),
    }))
}

/// Returns the command of a target that has not ended.
pub(super) fn command(target: &Target, expires: Option<Timestamp>) -> Option<HostCommand> {
    let mut events = target.state.events.iter();
    let (event, state, since) = events.find_map(|event| {
        let (state, since) = match &event.state {
            EventState::Queued { since } => (CommandState::Offered, *since),
            EventState::Leased { started, .. } => (CommandState::Fetched, *started),
            EventState::Acknowledged { started, .. } => (CommandState::Running, *started),
            EventState::Pending
            | EventState::Succeeded { .. }
            | EventState::Failed { .. }
            | EventState::Skipped { .. } => return None,
        };
        Some((event, state, since))
    })?;
    Some(HostCommand {
        instance_name: Some(target.member.name.clone()),
        deployment_id: Some(target.deployment_id.clone()),
        lifecycle_event_name: Some(event.name.name().to_owned()),
        state: Some(state),
        since: Some(since),
        expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn a_page_of_hosts_reads_no_earlier_hosts() {
        for sql in [AFTER, SILENT_AFTER, NEVER_SEEN_AFTER, POLLING_AFTER] {
            let way = way_of(sql);
            assert!(
                way.contains("instances_by_name (name>?)") && !way.contains("TEMP B-TREE"),
                "{way}"
            );
        }
    }
}
