//! GetAgentUpdate, and updates in the view of operators.

use codedeploy_api::controller::{AgentUpdate as View, AgentUpdateHost, GetAgentUpdateOutput};

use crate::error::{ApiError, ErrorName};
use crate::records::agent_update::{AgentUpdate, UpdatedHost};
use crate::request;
use crate::request::members::shorten;
use crate::store::{SqlError, Tx};
use crate::transaction::Context;

pub fn get(
    context: &Context<'_>,
    request: request::GetAgentUpdate,
) -> Result<GetAgentUpdateOutput, ApiError> {
    let found = match &request.agent_update_id {
        Some(id) => Some(find(context, id)?),
        None => AgentUpdate::last(context.tx)?,
    };
    let found = found.map(|update| view(context, update));
    Ok(GetAgentUpdateOutput {
        agent_update: found.transpose()?,
    })
}

pub(super) fn find(context: &Context<'_>, id: &str) -> Result<AgentUpdate, ApiError> {
    AgentUpdate::find(context.tx, id)?.ok_or_else(|| {
        let id = shorten(id);
        ErrorName::AgentUpdateDoesNotExist
            .because(format!("There is no update of agents with the id {id:?}."))
    })
}

pub(super) fn view(context: &Context<'_>, update: AgentUpdate) -> Result<View, ApiError> {
    let hosts = update.hosts(context.tx)?.into_iter();
    let hosts = hosts.map(|host| host_view(host, update.at_a_time));
    Ok(View {
        hosts: Some(hosts.collect()),
        agent_update_id: Some(update.id),
        status: Some(update.status),
        at_a_time: Some(update.at_a_time),
        created_by: update.created_by,
        create_time: Some(update.created),
        complete_time: update.ended,
        stopped: Some(update.is_stopped),
    })
}

/// The update of a host's agent that is in progress.
pub(in crate::deployment) fn present(
    tx: &Tx<'_>,
    host: &str,
) -> Result<Option<AgentUpdateHost>, SqlError> {
    let Some(mine) = UpdatedHost::open_of(tx, host)? else {
        return Ok(None);
    };
    let update = AgentUpdate::find(tx, &mine.update_id)?;
    Ok(update.map(|update| host_view(mine, update.at_a_time)))
}

fn host_view(host: UpdatedHost, at_a_time: usize) -> AgentUpdateHost {
    AgentUpdateHost {
        agent_update_id: Some(host.update_id),
        instance_name: Some(host.name),
        stage: Some(host.position / at_a_time.max(1) + 1),
        status: Some(host.status),
        since: Some(host.since),
        expires: host.deadline,
        version_before: host.before,
        version_after: host.after,
        message: host.message,
        log: host.log,
    }
}
