//! The controller's own API, `CodeDeployController_20261201`: the operations of operators that AWS
//! CodeDeploy lacks, in AWS JSON 1.1 (`X-Amz-Target: CodeDeployController_20261201.<Operation>`)
//! and in RPC v2 CBOR, signed as those of the [public API](crate::codedeploy). Shapes follow the
//! same rules.

use std::collections::BTreeMap;

use crate::codedeploy::{
    DeploymentCreator, DeploymentOverview, DeploymentStatus, ErrorInformation, LifecycleErrorCode,
    RevisionLocation, Tag, TagFilter, TargetStatus, Timestamp, enumerations, shapes,
};

/// The prefix of `X-Amz-Target`.
pub const TARGET_PREFIX: &str = "CodeDeployController_20261201";

enumerations! {
    /// The reachability of a host: its agent polls, has been silent for three minutes, or was never
    /// seen.
    HostState { Polling = "Polling", Silent = "Silent", NeverSeen = "NeverSeen", }

    /// The revision of a host, compared with that of its deployment group: the one of the group's
    /// last successful deployment, another one, or none that is known.
    RevisionHealth { Current = "Current", Old = "Old", Unknown = "Unknown", }

    /// The progress of a command that has not ended: the host has not fetched it, has fetched and
    /// not acknowledged it, or performs it.
    CommandState { Offered = "Offered", Fetched = "Fetched", Running = "Running", }

    /// The traffic of a drained host: out of rotation, about to be taken out, or without any load
    /// balancer that the controller manages.
    DrainTraffic { Blocked = "Blocked", Blocking = "Blocking", None = "None", }

    /// The status of an update of agents.
    AgentUpdateStatus { InProgress = "InProgress", Succeeded = "Succeeded", Failed = "Failed", Stopped = "Stopped", }

    /// The status of an update of agents on one host: its stage has not begun; the host has not
    /// fetched the command, has fetched and not acknowledged it, or performs it; it has reported
    /// the end, or has failed to; or the update ended before the host's turn.
    AgentUpdateHostStatus {
        Waiting = "Waiting", Offered = "Offered", Fetched = "Fetched", Running = "Running",
        Succeeded = "Succeeded", Failed = "Failed", Skipped = "Skipped",
    }

    /// The part of a command's script output that the controller has: all of it, the last lines
    /// that the host reported with the outcome, or none.
    ScriptLogState { Whole = "Whole", LastLines = "LastLines", None = "None", }
}

shapes! {
    GetControllerInput {}
    /// The controller itself, and the caller.
    GetControllerOutput {
        version: String,
        region: String,
        account_id: String,
        /// The time of its clock.
        time: Timestamp,
        /// The buckets of its S3 endpoint; absent without one.
        buckets: Vec<String>,
        /// The ARN of the request's access key.
        caller_arn: String,
        /// The role of the request's access key.
        caller_role: String,
    }

    /// A deployment on one line.
    DeploymentSummary {
        deployment_id: String,
        application_name: String,
        deployment_group_name: String,
        status: DeploymentStatus,
        creator: DeploymentCreator,
        description: String,
        revision: RevisionLocation,
        create_time: Timestamp,
        start_time: Timestamp,
        complete_time: Timestamp,
        /// The number of its instances by their status; absent in [`GroupStatus`] after its end.
        deployment_overview: DeploymentOverview,
        error_information: ErrorInformation,
        /// The deployment that it rolls back.
        rolls_back: String,
        /// The deployment that rolls it back.
        rolled_back_by: String,
        /// The user ARN of the access key that created it; absent for automatic ones.
        created_by: String,
        /// The event that it waits for, for people.
        waits_for: String,
        /// The time at which this wait ends by itself.
        waits_until: Timestamp,
    }

    GetFleetStatusInput {
        /// Only this application; all of them if absent.
        application_name: String,
        /// Only this deployment group of the application.
        deployment_group_name: String,
        next_token: String,
    }
    GetFleetStatusOutput { groups: Vec<GroupStatus>, next_token: String, }

    /// A deployment group, its revision and its hosts.
    GroupStatus {
        application_name: String,
        deployment_group_name: String,
        /// The last successful deployment, whose revision is the group's.
        current_deployment: DeploymentSummary,
        hosts: HostCounts,
        /// The unfinished deployment.
        running_deployment: DeploymentSummary,
        /// The uploaded revision that is deployed after the running deployment.
        waiting_revision: RevisionLocation,
        /// The last deployment that failed.
        last_failure: DeploymentSummary,
    }

    /// The registered instances that match a group's tag filters.
    HostCounts {
        total: usize,
        /// Those whose last deployment of the group succeeded.
        healthy: usize,
        /// Those without the group's revision.
        behind: usize,
        /// Those whose agents do not poll.
        silent: usize,
        /// Those that are drained.
        drained: usize,
    }

    ListHostsInput {
        /// Only the hosts of a deployment group; given together with its name.
        application_name: String,
        deployment_group_name: String,
        /// Whether the silent hosts come first, then those that were never seen, then the others.
        silent_first: bool,
        /// Only hosts with this text in their names, in upper or lower case.
        name_contains: String,
        /// Only hosts with one of these tags.
        tag_filters: Vec<TagFilter>,
        /// Only hosts whose agents do not poll, or were never seen.
        silent: bool,
        /// Only hosts that are drained.
        drained: bool,
        next_token: String,
    }
    ListHostsOutput { hosts: Vec<HostStatus>, next_token: String, }

    GetHostStatusInput { instance_name: String, }
    GetHostStatusOutput {
        host: HostStatus,
        /// The last deployments of its groups that had it as a target, the newest first; at most
        /// 20.
        deployments: Vec<HostDeployment>,
    }

    /// A deployment as it went on one host.
    HostDeployment {
        deployment: DeploymentSummary,
        status: TargetStatus,
        update_time: Timestamp,
    }

    /// A registered on-premises instance, what is on it, and what it does.
    HostStatus {
        instance_name: String,
        instance_arn: String,
        /// The identifier that its agent polls with.
        host_identifier: String,
        tags: Vec<Tag>,
        register_time: Timestamp,
        agent_version: String,
        /// The time of its agent's last call, to the minute.
        last_seen: Timestamp,
        state: HostState,
        /// Absent unless it is drained.
        drain: HostDrain,
        revisions: Vec<HostRevision>,
        commands: Vec<HostCommand>,
        /// Whether its agent has a command that updates it; absent if the agent has not said so
        /// either way, as AWS's agents.
        can_update: bool,
        /// The update of its agent that is in progress.
        agent_update: AgentUpdateHost,
    }

    /// A host out of traffic and of deployments, by the wish of an operator.
    HostDrain {
        since: Timestamp,
        /// The user ARN of the access key.
        by: String,
        reason: String,
        /// Whether its traffic is taken out of rotation at all load balancers of its groups.
        traffic: DrainTraffic,
        /// The first problem with that.
        problem: String,
    }

    DrainHostInput { instance_name: String, reason: String, }
    /// The host as it is after that.
    DrainHostOutput { host: HostStatus, }

    UndrainHostInput { instance_name: String, }
    UndrainHostOutput {
        host: HostStatus,
        /// The steps that bring it up to date, for people.
        advice: Vec<String>,
    }

    /// A host as a member of a deployment group.
    HostRevision {
        application_name: String,
        deployment_group_name: String,
        /// Absent if it is unknown.
        revision: RevisionLocation,
        revision_health: RevisionHealth,
        /// Whether the last deployment of the group succeeded on it; absent before the first one.
        healthy: bool,
        /// The last deployment of the group that began on it, and that deployment's end.
        deployment_id: String,
        since: Timestamp,
        /// Whether the group's tag filters still match it.
        member: bool,
    }

    /// A command that has not ended.
    HostCommand {
        instance_name: String,
        deployment_id: String,
        lifecycle_event_name: String,
        state: CommandState,
        since: Timestamp,
        /// The time at which the controller gives it up.
        expires: Timestamp,
    }

    ListDeploymentStatusesInput {
        /// Only the deployments of a group; given together with its name.
        application_name: String,
        deployment_group_name: String,
        include_only_statuses: Vec<DeploymentStatus>,
        next_token: String,
    }
    /// The newest first.
    ListDeploymentStatusesOutput { deployments: Vec<DeploymentSummary>, next_token: String, }

    GetDeploymentStatusInput { deployment_id: String, }
    /// A deployment, what failed in it and what it is doing. Lists have at most 20 hosts.
    GetDeploymentStatusOutput {
        deployment: DeploymentSummary,
        failures: Vec<HostFailure>,
        commands: Vec<HostCommand>,
        /// What an operator can do, for people; the most likely first.
        advice: Vec<String>,
    }

    /// The first failed lifecycle event of a host.
    HostFailure {
        instance_name: String,
        status: TargetStatus,
        lifecycle_event_name: String,
        end_time: Timestamp,
        error_code: LifecycleErrorCode,
        script_name: String,
        /// The exit code of the script, if it ended by itself.
        exit_code: i64,
        message: String,
        log_tail: String,
        /// Whether GetScriptLog has more than `log_tail`.
        log_state: ScriptLogState,
    }

    GetScriptLogInput {
        deployment_id: String,
        instance_name: String,
        /// By default the event that failed, or else the last one with output.
        lifecycle_event_name: String,
    }
    /// The output of the scripts of one lifecycle event on one host. It is a text of the host's:
    /// make control characters harmless before it is shown.
    GetScriptLogOutput {
        deployment_id: String,
        instance_name: String,
        lifecycle_event_name: String,
        /// The script that failed.
        script_name: String,
        log: String,
        log_state: ScriptLogState,
    }

    ListAuditEntriesInput {
        /// Only changes at this time or later.
        since: Timestamp,
        /// Only changes whose `who`, whose operation, or whose names with their kinds contain this
        /// text, in letters of either case.
        who: String,
        operation: String,
        name: String,
        next_token: String,
    }
    /// The newest first.
    ListAuditEntriesOutput { entries: Vec<AuditEntry>, next_token: String, }

    /// A change, recorded in the transaction that made it.
    AuditEntry {
        time: Timestamp,
        /// The user ARN of the access key; for changes without one, their origin in words.
        who: String,
        access_key_id: String,
        /// The operation of the API, or the command.
        operation: String,
        /// The names of the changed objects by their kinds, such as `application`.
        names: BTreeMap<String, String>,
        /// The address of the client, or of a proxy.
        address: String,
        request_id: String,
        /// The way in which it was requested: `console`; absent for the API and the commands.
        source: String,
    }

    /// The hosts are given in exactly one way.
    UpdateAgentsInput {
        /// These hosts, all of which must be able to update their agents; at most 100.
        instance_names: Vec<String>,
        /// The hosts of a deployment group; given together with its name.
        application_name: String,
        deployment_group_name: String,
        /// The hosts that match any of these filters.
        tag_filters: Vec<TagFilter>,
        /// Whether all registered hosts are meant.
        all_hosts: bool,
        /// The number of hosts in one stage; 1 if absent.
        at_a_time: usize,
    }
    UpdateAgentsOutput {
        agent_update: AgentUpdate,
        /// Hosts that were not named, and cannot update their agents now.
        left_out: Vec<LeftOutHost>,
    }
    LeftOutHost { instance_name: String, reason: String, }

    GetAgentUpdateInput {
        /// The last one if absent.
        agent_update_id: String,
    }
    /// Empty before the first update.
    GetAgentUpdateOutput { agent_update: AgentUpdate, }

    StopAgentUpdateInput { agent_update_id: String, }
    StopAgentUpdateOutput { agent_update: AgentUpdate, }

    /// An update of the agents of hosts, stage by stage.
    AgentUpdate {
        agent_update_id: String,
        status: AgentUpdateStatus,
        at_a_time: usize,
        /// The user ARN of the access key.
        created_by: String,
        create_time: Timestamp,
        complete_time: Timestamp,
        /// Whether an operator has stopped it.
        stopped: bool,
        /// In the order of their stages.
        hosts: Vec<AgentUpdateHost>,
    }

    /// An update of the agent of one host.
    AgentUpdateHost {
        agent_update_id: String,
        instance_name: String,
        /// From 1 on.
        stage: usize,
        status: AgentUpdateHostStatus,
        /// The time of its last change.
        since: Timestamp,
        /// The time at which the controller gives up, unless the host reports.
        expires: Timestamp,
        /// The version of the agent before the update, and that of the agent that reported its end.
        version_before: String,
        version_after: String,
        message: String,
        /// The last lines of the output of a command that failed.
        log: String,
    }

    RollBackDeploymentGroupInput {
        application_name: String,
        deployment_group_name: String,
        description: String,
    }
    RollBackDeploymentGroupOutput {
        /// The new deployment.
        deployment_id: String,
        /// Its revision.
        revision: RevisionLocation,
        /// The deployment that it takes back.
        rolls_back: String,
    }
}
