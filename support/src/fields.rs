//! The fields of an event or a span of the log, as JSON values.

use std::error::Error;
use std::fmt;

use codedeploy_api::chain::Chain;
use serde_json::Value;
use tracing::field::{Field, Visit};

/// Passes the fields to a function, in their order.
#[derive(Debug)]
pub struct EachField<F>(pub F);

impl<F: FnMut(&Field, Value)> Visit for EachField<F> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        (self.0)(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        (self.0)(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        (self.0)(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        (self.0)(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        (self.0)(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        (self.0)(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        (self.0)(field, Chain(value).to_string().into());
    }
}
