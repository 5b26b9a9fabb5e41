//! The collector that gets a trace of each deployment.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::endpoint::is_url;
use super::events::Secret;

/// The path of traces below a collector's address (OTLP/HTTP).
const PATH: &str = "/v1/traces";

/// The collector.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as endpoint")]
pub struct Traces {
    endpoint: String,
    /// Further headers of each request, which may contain a key.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
}

#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    // It may contain credentials, so it is not shown.
    #[error("traces.endpoint is no URL such as http://collector.example.com:4318")]
    Endpoint,
    #[error("traces.headers has {0:?}: expected the name of a header, and a value on one line")]
    Header(String),
}

impl Traces {
    /// The mistakes in these settings.
    pub(crate) fn mistakes(&self) -> Vec<TracesError> {
        let is_header = |(name, Secret(value)): &(&String, &Secret)| {
            HeaderName::try_from(name.as_str()).is_ok() && HeaderValue::try_from(value).is_ok()
        };
        let wrong = self.headers.iter().filter(|header| !is_header(header));
        let wrong = wrong.map(|(name, _)| TracesError::Header(name.clone()));
        let endpoint = (!is_url(&self.endpoint)).then_some(TracesError::Endpoint);
        endpoint.into_iter().chain(wrong).collect()
    }

    /// The address for traces.
    pub fn url(&self) -> String {
        let endpoint = self.endpoint.trim_end_matches('/');
        match endpoint.strip_suffix(PATH) {
            Some(_) => endpoint.to_owned(),
            None => format!("{endpoint}{PATH}"),
        }
    }
}
