//! The public API: operations by name.

use std::sync::Arc;

use codedeploy_api::codedeploy::Nothing;
use serde::Serialize;

use super::protocol::RequestBody;
use crate::credentials::{Principal, Role};
use crate::deployment::effects::Effects;
use crate::deployment::removal::{self, Step};
use crate::deployment::{create, intervene, queries, targets};
use crate::error::{ApiError, ErrorName};
use crate::events;
use crate::registry::{applications, configs, groups, instances, revisions, tags, tokens};
use crate::request::members::shorten;
use crate::request::{Request, Subject};
use crate::service::Service;
use crate::transaction::Context;

/// An operation of the public API. Its request is read and checked before the transaction, and its
/// response is encoded after it, both outside of the database's thread.
struct Operation {
    name: &'static str,
    /// Whether it only reads.
    reads: bool,
    prepare: fn(&RequestBody) -> Result<Prepared, ApiError>,
}

/// A checked request, as a function of one transaction. It can be carried out more than once.
struct Prepared {
    work: Work,
    subject: Option<Subject>,
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

pub(super) async fn call(
    service: &Arc<Service>,
    principal: Principal,
    operation: &str,
    body: RequestBody,
) -> Result<Vec<u8>, ApiError> {
    let operation = Operation::named(operation)?;
    operation.authorise(&principal)?;
    let Prepared { work, subject } = (operation.prepare)(&body)?;
    let answer = if operation.reads {
        read(service, work).await?
    } else {
        change(service, work).await?
    };
    if let Some(subject) = subject.filter(|_| !operation.reads) {
        subject.log();
    }
    answer.write(&body)
}

async fn read(service: &Arc<Service>, work: Work) -> Result<Answer, ApiError> {
    let reading = Arc::clone(&work);
    match service.read(move |_, context| reading(context)).await {
        Ok(Reply::Done(answer, _)) => Ok(answer),
        // Only a writing transaction can set an unreadable record aside.
        Err(error) if error.name == ErrorName::DamagedRecord => change(service, work).await,
        Ok(Reply::More(_)) => change(service, work).await,
        Err(error) => Err(error),
    }
}

async fn change(service: &Arc<Service>, work: Work) -> Result<Answer, ApiError> {
    loop {
        let work = Arc::clone(&work);
        let step = service.change(move |_, context| {
            Ok(match work(context)? {
                Reply::More(effects) => (None, Some(*effects)),
                Reply::Done(answer, effects) => (Some(answer), effects),
            })
        });
        if let Some(answer) = step.await? {
            return Ok(answer);
        }
        // Flush notifications before the rows are deleted.
        events::catch_up(service).await?;
    }
}

impl Operation {
    fn named(name: &str) -> Result<&'static Operation, ApiError> {
        OPERATIONS
            .iter()
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
            Role::Operator => Ok(()),
            Role::ReadOnly if self.reads => Ok(()),
            Role::ReadOnly | Role::Host => Err(ErrorName::AccessDenied.because(format!(
                "{} is not authorized to perform codedeploy:{}",
                principal.arn, self.name
            ))),
        }
    }
}

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
    ($($kind:ident $name:ident => $function:path,)*) => {
        /// All operations.
        static OPERATIONS: &[Operation] = &[$(
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
    Ok(Prepared {
        work: Arc::new(move |context| work(context, request.clone())),
        subject,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_model_is_there_once() {
        let names: std::collections::BTreeSet<_> =
            OPERATIONS.iter().map(|operation| operation.name).collect();
        assert_eq!((OPERATIONS.len(), names.len()), (47, 47));
        assert!(Operation::named("CreateApplications").is_err());
    }

    #[test]
    fn the_operations_that_change_nothing_are_those_that_get_and_list() {
        for Operation { name, reads, .. } in OPERATIONS {
            let is_read = ["Get", "List", "BatchGet"]
                .iter()
                .any(|verb| name.starts_with(verb));
            assert_eq!(*reads, is_read, "{name}");
        }
    }
}
