//! The responder: this project's controller announces its signing keys in every response. Only the
//! controller gets the list of accepted signers, and learns whether the agent can be updated; no
//! other service gets anything beyond AWS's protocol.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use codedeploy_api::command::{
    ACCEPTED_SIGNERS_HEADER, ANY_SIGNER, AUTHORITY_SIGNER, CAN_UPDATE, SIGNER_SEPARATOR,
    SIGNERS_HEADER, UPDATE_HEADER,
};

use crate::config::{KeyDigest, SignerTrust};

/// The longest header that is remembered; two digests have 129 characters.
const MAX_SIGNERS: usize = 1024;

/// The headers of the latest response.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    accepts: Arc<str>,
    can_update: bool,
    signers: Arc<Mutex<Option<Arc<str>>>>,
}

impl Peer {
    pub(super) fn new(trust: &SignerTrust, can_update: bool) -> Self {
        let accepts = match trust {
            SignerTrust::Anyone => ANY_SIGNER.to_owned(),
            SignerTrust::Authority(_) => AUTHORITY_SIGNER.to_owned(),
            SignerTrust::Pins(pins) => {
                let pins: Vec<String> = pins.iter().map(KeyDigest::to_string).collect();
                pins.join(&SIGNER_SEPARATOR.to_string())
            }
        };
        Self {
            accepts: accepts.into(),
            can_update,
            signers: Arc::default(),
        }
    }

    /// The digests of the controller's signing keys; `None` if the latest response did not come
    /// from a controller.
    pub(super) fn signers(&self) -> Option<Arc<str>> {
        self.signers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[dyn_dispatch_hint]
impl Intercept for Peer {
    fn name(&self) -> &'static str {
        "Peer"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.signers().is_some() {
            let headers = context.request_mut().headers_mut();
            headers.try_insert(ACCEPTED_SIGNERS_HEADER, self.accepts.to_string())?;
            if self.can_update {
                headers.try_insert(UPDATE_HEADER, CAN_UPDATE)?;
            }
        }
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let said = context
            .response()
            .headers()
            .get(SIGNERS_HEADER)
            .filter(|said| said.len() <= MAX_SIGNERS);
        *self.signers.lock().unwrap_or_else(PoisonError::into_inner) = said.map(Arc::from);
        Ok(())
    }
}
