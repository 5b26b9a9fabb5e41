//! The CodeDeployCommand service (spec: Command service protocol).

mod connection_probe;
mod peer;
mod persistence;

use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::command::{self, HostCommand, Operation};

use crate::aws::Access;
pub use crate::aws::json::{CallError, ServiceError};
use crate::aws::json::{Service, ServiceClient};
use crate::backoff::jittered;
use connection_probe::ConnectionProbe;
use peer::Peer;
pub use persistence::Persistence;

/// The service's client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CommandService {
    host_identifier: String,
    client: ServiceClient,
    probe: ConnectionProbe,
    peer: Peer,
    endpoint: String,
}

/// The longest pause between attempts of [`CommandService::call_persistently`].
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl CommandService {
    pub fn new(access: &Access, host_identifier: String) -> Self {
        let (target_prefix, signing_name) = if access.endpoints.secure {
            (command::TARGET_PREFIX_SECURE, command::SIGNING_NAME_SECURE)
        } else {
            (command::TARGET_PREFIX, command::SIGNING_NAME)
        };
        let (probe, peer) = (
            ConnectionProbe::default(),
            Peer::new(&access.signer, access.can_update),
        );
        let endpoint = access.command_endpoint();
        let service = Service {
            endpoint: &endpoint,
            target_prefix,
            signing_name,
            headers: vec![(command::AGENT_VERSION_HEADER, crate::version::reported())],
        };
        let client = service.client(access, |builder| {
            builder.interceptor(probe.clone()).interceptor(peer.clone())
        });
        Self {
            host_identifier,
            client,
            probe,
            peer,
            endpoint,
        }
    }

    /// Whether the newest call is connected to the service, even if there is no response yet.
    pub fn is_connected(&self) -> bool {
        self.probe.is_connected()
    }

    /// The digests of the service's signing keys, from its latest response, if it is this project's
    /// controller.
    pub fn signers(&self) -> Option<Arc<str>> {
        self.peer.signers()
    }

    /// The service's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The host's identifier at the service.
    pub fn host_identifier(&self) -> &str {
        &self.host_identifier
    }

    /// Waits for the next command of this host; `None` if there is none. Makes one attempt: the
    /// caller backs off. Dropping the future ends the wait.
    pub async fn poll(&self) -> Result<Option<HostCommand>, CallError> {
        let input = command::PollHostCommandInput {
            host_identifier: self.host_identifier.clone(),
        };
        Ok(self.attempt(&input).await?.host_command)
    }

    /// Calls until there is a response, a permanent error, or no attempt left.
    pub async fn call<O: Operation>(&self, input: &O) -> Result<O::Output, CallError> {
        self.client.call(input).await
    }

    /// Calls until the service responds or rejects the call for good; `None` if the time is over.
    pub async fn call_persistently<O: Operation>(
        &self,
        input: &O,
        persistence: Persistence<'_>,
    ) -> Option<Result<O::Output, CallError>> {
        let end = persistence.end();
        let mut longest = Duration::from_secs(1);
        loop {
            let answer = tokio::select! {
                biased;
                () = end.cancelled() => return None,
                answer = self.attempt(input) => answer,
            };
            let error = match answer {
                Err(error) if persistence.goes_on_after(&error) => error,
                ended => return Some(ended),
            };
            if persistence.is_over() {
                return None;
            }
            let pause = jittered(longest);
            tracing::info!(%error, retry_in_ms = pause.as_millis(), "call failed");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = end.cancelled() => {}
            }
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }

    /// Calls once, and once more if the credentials are rejected and their source has new ones.
    pub async fn attempt<O: Operation>(&self, input: &O) -> Result<O::Output, CallError> {
        self.client.attempt(input).await
    }
}
