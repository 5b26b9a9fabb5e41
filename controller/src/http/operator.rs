//! The APIs for operators, the public one and the controller's own: operations by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use codedeploy_api::codedeploy::{Nothing, Timestamp};
use codedeploy_api::controller::GetControllerOutput;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Origin;
use super::protocol::RequestBody;
use crate::credentials::{Principal, Role};
use crate::deployment::effects::Effects;
use crate::deployment::removal::{self, Step};
use crate::deployment::{
    agent_updates, create, drain, intervene, queries, reversal, script_logs, status, targets,
};
use crate::error::{ApiError, ErrorName};
use crate::events;
use crate::registry::{applications, audit, configs, groups, instances, revisions, tags, tokens};
use crate::request::members::shorten;
use crate::request::{Request, Subject};
use crate::service::Service;
use crate::transaction::{Caller, Context};

/// The public API.
pub(super) const PUBLIC: &[Operation] = OPERATIONS;

/// The controller's own API.
pub(super) const OWN: &[Operation] = OWN_OPERATIONS;

/// An operation. Its request is read and checked before the transaction, and its response is
/// encoded after it, both outside of the database's thread.
pub(super) struct Operation {
    name: &'static str,
    /// Whether it only reads.
    reads: bool,
    prepare: fn(&RequestBody) -> Result<Prepared, ApiError>,
}

/// A checked request, as a function of one transaction. It can be carried out more than once.
struct Prepared {
    work: Work,
    subject: Option<Subject>,
    /// The names for the record of a change.
    recorded: BTreeMap<String, String>,
}

type Work = Arc<dyn Fn(&Context<'_>) -> Result<Reply, ApiError> + Send + Sync>;

/// The result of one transaction.
enum Reply {
    /// The operation must continue in another transaction.
    More(Box<Effects>),
    Done(Answer, Option<Effects>),
}

/// An output that is not encoded yet.
enum Answer {
    Empty,
    Output(Box<dyn Output>),
}

trait Output: Send {
    fn write(&self, body: &RequestBody) -> Result<Vec<u8>, ApiError>;
}

impl<T: Serialize + Send> Output for T {
    fn write(&self, body: &RequestBody) -> Result<Vec<u8>, ApiError> {
        body.answer(self)
    }
}

impl Answer {
    fn of(output: impl Output + 'static) -> Self {
        Answer::Output(Box::new(output))
    }

    fn write(&self, body: &RequestBody) -> Result<Vec<u8>, ApiError> {
        match self {
            Answer::Empty => Ok(Vec::new()),
            Answer::Output(output) => output.write(body),
        }
    }
}

/// The record of a change.
struct Record {
    caller: Caller,
    operation: &'static str,
    names: BTreeMap<String, String>,
}

impl Record {
    /// Writes it into the transaction of the change, which may have created a deployment or an
    /// update of agents.
    fn write(&self, context: &Context<'_>, effects: Option<&Effects>) -> Result<(), ApiError> {
        let mut names = self.names.clone();
        let created = effects.map_or("", |effects| effects.deployment_id.as_str());
        if created.starts_with("d-") {
            names.insert("deploymentId".into(), created.to_owned());
        } else if agent_updates::is_of_update(created) {
            names.insert("agentUpdateId".into(), created.to_owned());
        }
        Ok(audit::record(
            context.tx,
            context.now,
            &self.caller,
            self.operation,
            &names,
        )?)
    }
}

pub(super) async fn call(
    service: &Arc<Service>,
    api: &'static [Operation],
    (principal, origin): (Principal, Origin),
    operation: &str,
    body: RequestBody,
) -> Result<Vec<u8>, ApiError> {
    let operation = Operation::named(api, operation)?;
    operation.authorise(&principal)?;
    let caller = origin.caller(principal);
    let Prepared {
        work,
        subject,
        recorded,
    } = (operation.prepare)(&body)?;
    let written = caller.clone();
    let work: Work = Arc::new(move |context| {
        let caller = Some(&caller);
        work(&Context { caller, ..*context })
    });
    let answer = if operation.reads {
        read(service, work).await?
    } else {
        let record = Record {
            caller: written,
            operation: operation.name,
            names: recorded,
        };
        change(service, work, Some(Arc::new(record))).await?
    };
    if let Some(subject) = subject.filter(|_| !operation.reads) {
        subject.log();
    }
    answer.write(&body)
}

/// Calls an operation of the controller's own API. GetController reads the settings, and no other
/// does.
pub(super) async fn call_own(
    service: &Arc<Service>,
    (principal, origin): (Principal, Origin),
    operation: &str,
    body: RequestBody,
) -> Result<Vec<u8>, ApiError> {
    if operation != GET_CONTROLLER {
        return call(service, OWN, (principal, origin), operation, body).await;
    }
    if principal.role == Role::Host {
        return Err(wrong_role(&principal, GET_CONTROLLER));
    }
    let settings = &service.settings;
    body.answer(&GetControllerOutput {
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        region: Some(settings.partition.region.clone()),
        account_id: Some(settings.partition.account_id.clone()),
        time: Some(Timestamp::now()),
        buckets: settings.s3.as_ref().map(|s3| s3.buckets.clone()),
        caller_arn: Some(principal.arn),
        caller_role: Some(principal.role.text().to_owned()),
    })
}

/// Carries an operation of either API out, for a caller inside this program.
pub(crate) async fn perform<O: DeserializeOwned>(
    service: &Arc<Service>,
    (principal, origin): (Principal, Origin),
    operation: &str,
    input: &impl Serialize,
) -> Result<O, ApiError> {
    let api = match known(PUBLIC, operation) {
        Some(_) => PUBLIC,
        None => OWN,
    };
    let body = RequestBody::of(input)?;
    let output = call(service, api, (principal, origin), operation, body).await?;
    RequestBody::json(output).read()
}

/// Runs `work`, which does what these operations do and only reads, as the caller of all of them.
pub(crate) async fn query<T: Send + 'static>(
    service: &Arc<Service>,
    (principal, origin): (Principal, Origin),
    operations: &[&str],
    work: impl Fn(&Context<'_>) -> Result<T, ApiError> + Send + Sync + 'static,
) -> Result<T, ApiError> {
    for operation in operations {
        authorise(&principal, operation)?;
    }
    let caller = origin.caller(principal);
    let look = service.look(move |_, context| {
        let caller = Some(&caller);
        work(&Context { caller, ..*context })
    });
    look.await
}

/// Checks that a principal may call an operation of either API.
pub(crate) fn authorise(principal: &Principal, operation: &str) -> Result<(), ApiError> {
    Operation::named(PUBLIC, operation)
        .or_else(|_| Operation::named(OWN, operation))?
        .authorise(principal)
}

const GET_CONTROLLER: &str = "GetController";

async fn read(service: &Arc<Service>, work: Work) -> Result<Answer, ApiError> {
    let reading = Arc::clone(&work);
    match service.read(move |_, context| reading(context)).await {
        Ok(Reply::Done(answer, _)) => Ok(answer),
        // Only a writing transaction can set an unreadable record aside.
        Err(error) if error.name == ErrorName::DamagedRecord => change(service, work, None).await,
        Ok(Reply::More(_)) => change(service, work, None).await,
        Err(error) => Err(error),
    }
}

/// Carries work out, with its record if it is a change.
async fn change(
    service: &Arc<Service>,
    work: Work,
    record: Option<Arc<Record>>,
) -> Result<Answer, ApiError> {
    loop {
        let (work, record) = (Arc::clone(&work), record.clone());
        let step = service.change(move |_, context| {
            Ok(match work(context)? {
                Reply::More(effects) => (None, Some(*effects)),
                Reply::Done(answer, effects) => {
                    if let Some(record) = &record {
                        record.write(context, effects.as_ref())?;
                    }
                    (Some(answer), effects)
                }
            })
        });
        if let Some(answer) = step.await? {
            return Ok(answer);
        }
        // Flush notifications before the rows are deleted.
        events::catch_up(service).await?;
    }
}

/// Returns the name of an operation of the controller's own API, if there is one.
pub(super) fn known_own(name: &str) -> Option<&'static str> {
    (name == GET_CONTROLLER)
        .then_some(GET_CONTROLLER)
        .or_else(|| known(OWN, name))
}

/// Returns the name of an operation, if there is one.
pub(super) fn known(operations: &[Operation], name: &str) -> Option<&'static str> {
    operations
        .iter()
        .map(|operation| operation.name)
        .find(|known| *known == name)
}

impl Operation {
    fn named(api: &'static [Operation], name: &str) -> Result<&'static Operation, ApiError> {
        api.iter()
            .find(|operation| operation.name == name)
            .ok_or_else(|| {
                ErrorName::UnknownOperation.because(format!(
                    "The operation {:?} is not one that this service has.",
                    shorten(name)
                ))
            })
    }

    fn authorise(&self, principal: &Principal) -> Result<(), ApiError> {
        match principal.role {
            Role::Operator => {}
            Role::ReadOnly if self.reads => {}
            Role::ReadOnly | Role::Host => return Err(wrong_role(principal, self.name)),
        }
        if principal.scopes.are_limited() && !SCOPED.contains(&self.name) {
            let why = "its access key is limited, and this reaches beyond a deployment group: use a key for the whole fleet";
            return Err(denied(principal, self.name, why));
        }
        Ok(())
    }
}

fn wrong_role(principal: &Principal, operation: &str) -> ApiError {
    let role = principal.role.text();
    let why = format!("its access key has the role {role}: use a key of role operator");
    denied(principal, operation, &why)
}

fn denied(principal: &Principal, operation: &str, why: &str) -> ApiError {
    ErrorName::AccessDenied.because(format!(
        "{} is not authorized to perform codedeploy:{operation}; {why}",
        principal.arn
    ))
}

/// The operations for keys that are limited to applications or groups; each of these checks the
/// names in its request, or filters its list. The others affect the whole fleet: hosts, their tags,
/// the tag filters of groups, tokens.
const SCOPED: &[&str] = &[
    "BatchGetApplicationRevisions",
    "BatchGetApplications",
    "BatchGetDeploymentGroups",
    "BatchGetDeploymentInstances",
    "BatchGetDeploymentTargets",
    "BatchGetDeployments",
    "ContinueDeployment",
    "CreateDeployment",
    "GetApplication",
    "GetApplicationRevision",
    "GetDeployment",
    "GetDeploymentConfig",
    "GetDeploymentGroup",
    "GetDeploymentInstance",
    "GetDeploymentStatus",
    "GetDeploymentTarget",
    "GetFleetStatus",
    "GetHostStatus",
    "GetScriptLog",
    "ListApplicationRevisions",
    "ListApplications",
    "ListDeploymentConfigs",
    "ListDeploymentGroups",
    "ListDeploymentInstances",
    "ListDeploymentStatuses",
    "ListDeploymentTargets",
    "ListDeployments",
    "ListHosts",
    "RegisterApplicationRevision",
    "RollBackDeploymentGroup",
    "SkipWaitTimeForInstanceTermination",
    "StopDeployment",
];

/// Operations by name, with the kind of the function that carries each out.
///
/// * `read`: it only reads, and its output is sent;
/// * `answer`: its output is sent;
/// * `silent`: it has no output, and the body is empty;
/// * `decide`: its output is sent, and its effects are announced;
/// * `settle`: it has no output, the body is empty, and its effects are announced;
/// * `remove`: its output is sent once everything is removed, which can take many transactions;
/// * `erase`: the same without an output.
macro_rules! operations {
    ($(#[$doc:meta])* $table:ident: $($kind:ident $name:ident => $function:path,)*) => {
        $(#[$doc])*
        const $table: &[Operation] = &[$(
            Operation {
                name: stringify!($name),
                reads: operations!(@reads $kind),
                prepare: |body| prepare(body, |context, request| Ok(reply::$kind($function(context, request)?))),
            },
        )*];
    };
    (@reads read) => { true };
    (@reads $other:ident) => { false };
}

fn prepare<R: Request + Clone + Send + Sync + 'static>(
    body: &RequestBody,
    work: fn(&Context<'_>, R) -> Result<Reply, ApiError>,
) -> Result<Prepared, ApiError> {
    let request = R::check(body.read()?)?;
    let subject = request.subject();
    let recorded = request.recorded().names();
    Ok(Prepared {
        work: Arc::new(move |context| work(context, request.clone())),
        subject,
        recorded,
    })
}

/// Handles the result of an operation, by its kind.
mod reply {
    use super::{Answer, Effects, Nothing, Output, Reply, Step};

    pub(super) fn read(output: impl Output + 'static) -> Reply {
        Reply::Done(Answer::of(output), None)
    }

    pub(super) fn answer(output: impl Output + 'static) -> Reply {
        Reply::Done(Answer::of(output), None)
    }

    pub(super) fn silent(Nothing {}: Nothing) -> Reply {
        Reply::Done(Answer::Empty, None)
    }

    pub(super) fn decide((output, effects): (impl Output + 'static, Effects)) -> Reply {
        Reply::Done(Answer::of(output), Some(effects))
    }

    pub(super) fn settle((Nothing {}, effects): (Nothing, Effects)) -> Reply {
        Reply::Done(Answer::Empty, Some(effects))
    }

    pub(super) fn remove(step: Step<impl Output + 'static>) -> Reply {
        match step {
            Step::More(effects) => Reply::More(effects),
            Step::Done(output) => Reply::Done(Answer::of(output), None),
        }
    }

    pub(super) fn erase(step: Step<Nothing>) -> Reply {
        match step {
            Step::More(effects) => Reply::More(effects),
            Step::Done(Nothing {}) => Reply::Done(Answer::Empty, None),
        }
    }
}

operations! {
    /// AWS's operations.
    OPERATIONS:

    answer CreateApplication => applications::create,
    read GetApplication => applications::get,
    read ListApplications => applications::list,
    read BatchGetApplications => applications::batch_get,
    silent UpdateApplication => applications::update,
    erase DeleteApplication => removal::delete_application,

    silent RegisterApplicationRevision => revisions::register,
    read GetApplicationRevision => revisions::get,
    read BatchGetApplicationRevisions => revisions::batch_get,
    read ListApplicationRevisions => revisions::list,

    answer CreateDeploymentConfig => configs::create,
    read GetDeploymentConfig => configs::get,
    read ListDeploymentConfigs => configs::list,
    silent DeleteDeploymentConfig => configs::delete,

    answer CreateDeploymentGroup => groups::create,
    read GetDeploymentGroup => groups::get,
    read BatchGetDeploymentGroups => groups::batch_get,
    read ListDeploymentGroups => groups::list,
    answer UpdateDeploymentGroup => groups::update,
    remove DeleteDeploymentGroup => removal::delete_group,

    silent RegisterOnPremisesInstance => instances::register,
    settle DeregisterOnPremisesInstance => removal::deregister,
    read GetOnPremisesInstance => instances::get,
    read BatchGetOnPremisesInstances => instances::batch_get,
    read ListOnPremisesInstances => instances::list,
    silent AddTagsToOnPremisesInstances => instances::add_tags,
    silent RemoveTagsFromOnPremisesInstances => instances::remove_tags,

    decide CreateDeployment => create::create,
    read GetDeployment => queries::get,
    read BatchGetDeployments => queries::batch_get,
    read ListDeployments => queries::list,
    decide StopDeployment => intervene::stop,
    settle ContinueDeployment => intervene::proceed,
    settle SkipWaitTimeForInstanceTermination => intervene::skip_wait,
    silent PutLifecycleEventHookExecutionStatus => queries::put_hook_status,
    answer DeleteResourcesByExternalId => queries::delete_by_external_id,

    read ListDeploymentTargets => targets::list,
    read GetDeploymentTarget => targets::get,
    read BatchGetDeploymentTargets => targets::batch_get,
    read ListDeploymentInstances => targets::list_instances,
    read GetDeploymentInstance => targets::get_instance,
    read BatchGetDeploymentInstances => targets::batch_get_instances,

    answer TagResource => tags::tag,
    answer UntagResource => tags::untag,
    read ListTagsForResource => tags::list,
    read ListGitHubAccountTokenNames => tokens::list,
    answer DeleteGitHubAccountToken => tokens::delete,
}

operations! {
    /// The operations that AWS CodeDeploy lacks.
    OWN_OPERATIONS:

    read GetFleetStatus => status::groups::list,
    read ListHosts => status::hosts::list,
    read GetHostStatus => status::hosts::get,
    read ListDeploymentStatuses => status::deployments::list,
    read GetDeploymentStatus => status::deployments::get,
    read GetScriptLog => script_logs::get,
    read ListAuditEntries => audit::list,
    decide DrainHost => drain::drain,
    decide UndrainHost => drain::undrain,
    decide UpdateAgents => agent_updates::begin,
    read GetAgentUpdate => agent_updates::get,
    decide StopAgentUpdate => agent_updates::stop,
    decide RollBackDeploymentGroup => reversal::roll_back,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_model_is_there_once() {
        let names: std::collections::BTreeSet<_> =
            OPERATIONS.iter().map(|operation| operation.name).collect();
        assert_eq!((OPERATIONS.len(), names.len()), (47, 47));
        assert!(Operation::named(PUBLIC, "CreateApplications").is_err());
    }

    #[test]
    fn the_operations_for_limited_keys_exist() {
        for name in SCOPED {
            let mut all = PUBLIC.iter().chain(OWN);
            assert!(all.any(|operation| operation.name == *name), "{name}");
        }
    }

    #[test]
    fn the_operations_that_change_nothing_are_those_that_get_and_list() {
        for Operation { name, reads, .. } in PUBLIC.iter().chain(OWN) {
            let is_read = ["Get", "List", "BatchGet"]
                .iter()
                .any(|verb| name.starts_with(verb));
            assert_eq!(*reads, is_read, "{name}");
        }
    }
}
