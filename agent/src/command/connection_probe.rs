//! Whether a call without a response has reached the service.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Tracks the connection of the newest call.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionProbe(Arc<Mutex<CaptureSmithyConnection>>);

impl ConnectionProbe {
    /// Whether that call has a connection, established and encrypted.
    pub(super) fn is_connected(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get()
            .is_some()
    }
}

#[dyn_dispatch_hint]
impl Intercept for ConnectionProbe {
    fn name(&self) -> &'static str {
        "ConnectionProbe"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(connection) = config.load::<CaptureSmithyConnection>() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = connection.clone();
        }
        Ok(())
    }
}
