//! The agents' API: operations that a host calls about itself.

use std::sync::Arc;

use axum::http::HeaderMap;
use codedeploy_api::codedeploy::Timestamp;
use codedeploy_api::command::*;

use super::header_text;
use super::protocol::{RequestBody, to_json};
use crate::credentials::{self, Principal, Role};
use crate::deployment::agent_updates;
use crate::deployment::commands::{self, Offer};
use crate::deployment::script_logs;
use crate::error::{ApiError, ErrorName};
use crate::fleet;
use crate::service::Service;
use crate::signing::SigningError;
use crate::store::Priority;
use crate::transaction::Context;

/// The operations of the agents' API.
const OPERATIONS: [&str; 7] = [
    PollHostCommandInput::NAME,
    GetDeploymentSpecificationInput::NAME,
    PutHostCommandAcknowledgementInput::NAME,
    PutHostCommandCompleteInput::NAME,
    PutHostCommandLogInput::NAME,
    PostHostCommandUpdateInput::NAME,
    PostHostRollbackInput::NAME,
];

/// Returns the name of an operation, if there is one.
pub(super) fn known(name: &str) -> Option<&'static str> {
    OPERATIONS.into_iter().find(|known| *known == name)
}

pub(super) async fn call(
    service: &Arc<Service>,
    caller: Caller,
    operation: &str,
    body: &RequestBody,
) -> Result<Vec<u8>, ApiError> {
    match operation {
        PollHostCommandInput::NAME => {
            let input: PollHostCommandInput = body.read()?;
            caller.owns(&input.host_identifier)?;
            body.answer(&poll(service, caller).await?)
        }
        GetDeploymentSpecificationInput::NAME => {
            let input: GetDeploymentSpecificationInput = body.read()?;
            caller.owns(&input.host_identifier)?;
            body.answer(&specification(service, caller, input.deployment_execution_id).await?)
        }
        PutHostCommandAcknowledgementInput::NAME => {
            body.answer(&acknowledge(service, caller, body.mended().read()?).await?)
        }
        PutHostCommandCompleteInput::NAME => {
            body.answer(&complete(service, caller, body.mended().read()?).await?)
        }
        PutHostCommandLogInput::NAME => {
            let part = script_logs::Part::read(body.read()?)?;
            service
                .transact(move |service, context| {
                    let settings = &service.settings.script_logs;
                    script_logs::put(context, settings, caller.admit(context)?, &part)
                })
                .await?;
            body.answer(&PutHostCommandLogOutput {})
        }
        PostHostCommandUpdateInput::NAME => {
            let input: PostHostCommandUpdateInput = body.read()?;
            let id = input.host_command_identifier;
            let status = service.look(move |_, context| {
                let host = caller.admit(context)?;
                match agent_updates::is_of_update(&id) {
                    true => agent_updates::current(context, host, &id),
                    false => commands::current(context, host, &id),
                }
            });
            body.answer(&PostHostCommandUpdateOutput {
                command_status: Some(status.await?),
            })
        }
        PostHostRollbackInput::NAME => {
            let input: PostHostRollbackInput = body.read()?;
            caller.owns(&input.host_identifier)?;
            service
                .transact(move |_, context| {
                    commands::rolled_back(context, caller.admit(context)?, &input)
                })
                .await?;
            body.answer(&PostHostRollbackOutput {})
        }
        other => Err(ErrorName::UnknownOperation.because(format!(
            "The operation {:?} is not one of the agents' API.",
            crate::request::members::shorten(other)
        ))),
    }
}

/// The signer of a request to the agents' API.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    principal: Arc<Principal>,
    agent: Arc<fleet::Agent>,
}

impl Caller {
    pub(super) fn new(principal: Arc<Principal>, headers: &HeaderMap) -> Self {
        let said = |name| header_text(headers, name);
        let agent = fleet::Agent {
            version: said(AGENT_VERSION_HEADER).map(crate::request::members::shorten),
            accepted_signers: said(ACCEPTED_SIGNERS_HEADER)
                .filter(|said| said.len() <= 2048)
                .map(str::to_owned),
            updates: said(UPDATE_HEADER) == Some(CAN_UPDATE),
        };
        Caller {
            principal,
            agent: Arc::new(agent),
        }
    }

    /// Returns the identifier of the principal's host: the principal's ARN is that of a registered
    /// instance, and its key is not revoked.
    ///
    /// Every operation must begin with this. The signature may have been verified with a key that
    /// was [found earlier](credentials::unlocked::HostKeys), and a poll is held for long after it.
    fn admit(&self, context: &Context<'_>) -> Result<&str, ApiError> {
        let Principal {
            access_key_id,
            role,
            arn,
            ..
        } = &*self.principal;
        let host = fleet::host_of_key(context.tx, access_key_id, context.now)?;
        let Some(host) = host.filter(|_| *role == Role::Host) else {
            return Err(self.refusal(context)?);
        };
        if !context.tx.is_readonly() && host.is_news(&self.agent, context.now) {
            fleet::seen(context.tx, arn, &self.agent, context.now)?;
        }
        Ok(arn)
    }

    /// The reason why it is not admitted.
    fn refusal(&self, context: &Context<'_>) -> Result<ApiError, ApiError> {
        let (id, arn) = (&self.principal.access_key_id, &self.principal.arn);
        if credentials::is_good(context.tx, &self.principal, context.now)? {
            return Ok(ErrorName::AccessDenied.because(format!(
                "{arn} is not the identity of a registered on-premises instance."
            )));
        }
        Ok(ErrorName::UnrecognizedClient.because(format!(
            "The access key {id:?} is revoked, or its time is over."
        )))
    }

    /// Whether the agent is of this project: AWS's agents do not list the signers that they accept.
    fn is_ours(&self) -> bool {
        self.agent.accepted_signers.is_some()
    }

    fn owns(&self, identifier: &str) -> Result<(), ApiError> {
        if self.principal.arn == identifier {
            return Ok(());
        }
        Err(ErrorName::AccessDenied.because(format!(
            "The request is signed by {}, which is not the host {:?}.",
            self.principal.arn,
            crate::request::members::shorten(identifier)
        )))
    }
}

/// A poll that counts as held.
struct Held<'a>(&'a Service);

impl<'a> Held<'a> {
    fn new(service: &'a Service) -> Self {
        service.measure(|metrics| {
            metrics.held_polls.inc();
        });
        Held(service)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.measure(|metrics| {
            metrics.held_polls.dec();
        });
    }
}

/// Responds as soon as there is a command, and without one when the poll's time is over or the
/// service stops.
async fn poll(service: &Arc<Service>, caller: Caller) -> Result<PollHostCommandOutput, ApiError> {
    let until = Timestamp::now() + service.settings.timers.poll;
    let signal = service.signals.of_host(&caller.principal.arn);
    let mut stop = service.stopping();
    let _held = Held::new(service);
    loop {
        let mut woken = std::pin::pin!(signal.notified());
        woken.as_mut().enable();
        let caller = caller.clone();
        // The lease is announced whether or not anyone receives the response.
        let offer = service.change(move |_, context| {
            let host = caller.admit(context)?;
            let again_at = match commands::lease(context, host)? {
                (Offer::Nothing { again_at }, None) => again_at,
                offered => return Ok(offered),
            };
            Ok(match agent_updates::lease(context, host, &caller.agent)? {
                (Offer::Nothing { again_at: other }, effects) => {
                    let again_at = again_at.into_iter().chain(other).min();
                    (Offer::Nothing { again_at }, effects)
                }
                offered => offered,
            })
        });
        let again_at = match offer.await? {
            Offer::Command(command) => {
                return Ok(PollHostCommandOutput {
                    host_command: Some(command),
                });
            }
            Offer::Nothing { again_at } => again_at.map_or(until, |at| at.min(until)),
        };
        let now = Timestamp::now();
        if until <= now || *stop.borrow() {
            return Ok(PollHostCommandOutput::default());
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(again_at.since(now)) => {}
            _ = stop.wait_for(|stopping| *stopping) => {}
        }
    }
}

async fn specification(
    service: &Arc<Service>,
    caller: Caller,
    execution_id: String,
) -> Result<GetDeploymentSpecificationOutput, ApiError> {
    let document = service
        .look(move |service, context| {
            let is_traced = service.settings.traces.is_some();
            commands::specification(context, caller.admit(context)?, &execution_id, is_traced)
        })
        .await?;
    let (document, signer) = (to_json(&document)?, Arc::clone(&service.signer));
    let signed = match signer.signed_before(&document) {
        Some(signed) => signed,
        // Signing takes longer than everything else that is done for an agent.
        None => {
            // An error means that the service is gone, which ends this, too.
            let _permit = service.signing.acquire().await;
            let signed = tokio::task::spawn_blocking(move || signer.sign(&document)).await;
            signed.unwrap_or(Err(SigningError::Sign))
        }
    };
    let payload = signed.map_err(|error| {
        tracing::error!(error = %crate::error::chain(&error), "a deployment specification could not be signed");
        ErrorName::InternalFailure.because("the deployment specification could not be signed")
    })?;
    Ok(GetDeploymentSpecificationOutput {
        deployment_system: DEPLOYMENT_SYSTEM.into(),
        deployment_specification: Some(DeploymentSpecification {
            generic_envelope: Some(Envelope {
                format: Envelope::PKCS7_JSON.into(),
                payload,
            }),
            variant_id: None,
            variant_envelope: None,
        }),
    })
}

async fn acknowledge(
    service: &Arc<Service>,
    caller: Caller,
    input: PutHostCommandAcknowledgementInput,
) -> Result<PutHostCommandAcknowledgementOutput, ApiError> {
    // The result starts the command's run timer.
    let status = service
        .change(move |_, context| {
            let (id, host) = (&input.host_command_identifier, caller.admit(context)?);
            let (status, effects) = match agent_updates::is_of_update(id) {
                true => agent_updates::acknowledge(context, host, id)?,
                false => commands::acknowledge(context, host, id, input.diagnostics.as_ref())?,
            };
            Ok((status, Some(effects)))
        })
        .await?;
    Ok(PutHostCommandAcknowledgementOutput {
        command_status: Some(status),
    })
}

async fn complete(
    service: &Arc<Service>,
    caller: Caller,
    input: PutHostCommandCompleteInput,
) -> Result<PutHostCommandCompleteOutput, ApiError> {
    let succeeded = match input.command_status {
        CommandStatus::Succeeded => true,
        CommandStatus::Failed => false,
        CommandStatus::Pending | CommandStatus::InProgress => {
            return Err(ErrorName::Client.because("A command is completed as Succeeded or Failed."));
        }
    };
    // The host has done its work; others wait to begin theirs.
    let script_log = service
        .change_at(Priority::Low, move |service, context| {
            let id = &input.host_command_identifier;
            let host = caller.admit(context)?;
            let diagnostics = input.diagnostics.as_ref();
            if agent_updates::is_of_update(id) {
                let report = (id.as_str(), succeeded, diagnostics);
                let effects = agent_updates::complete(context, host, &caller.agent, report)?;
                return Ok((None, Some(effects)));
            }
            if let Some(scripts) = input
                .scripts
                .as_deref()
                .filter(|_| service.settings.traces.is_some())
            {
                commands::note_scripts(context, host, id, scripts)?;
            }
            let effects = commands::complete(context, host, id, succeeded, diagnostics)?;
            let wanted = if caller.is_ours() {
                script_logs::wanted(context, &service.settings.script_logs, host, id)?
            } else {
                None
            };
            Ok((wanted, Some(effects)))
        })
        .await?;
    Ok(PutHostCommandCompleteOutput { script_log })
}
