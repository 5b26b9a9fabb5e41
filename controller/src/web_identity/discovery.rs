//! The addresses of an issuer at which people log in, as it publishes them (OpenID Connect Discovery).

use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::identity_providers::is_safe;
use crate::error::chain;
use crate::outgoing::Outgoing;

/// The largest answer of an issuer, in bytes.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// The time for which the addresses of an issuer are used, and the time after which it is asked
/// again if it failed.
const FRESH: Duration = Duration::from_secs(3600);
const FAILED: Duration = Duration::from_secs(2);

/// The addresses of one issuer, in a cache.
#[derive(Debug)]
pub(super) struct Discovery {
    issuer: String,
    /// One reading at a time.
    found: Arc<Mutex<Option<Found>>>,
}

#[derive(Debug)]
struct Found {
    at: Instant,
    endpoints: Result<Endpoints, String>,
}

/// The addresses of an issuer, of which nobody on the way can change the traffic.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    pub(super) authorization: String,
    pub(super) token: String,
    /// Whether the client's secret is a field of the request, in place of a header.
    pub(super) secret_in_form: bool,
}

/// The document of an issuer (OpenID Connect Discovery, 3).
#[derive(Debug, Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Discovery {
    pub(super) fn of(issuer: &str) -> Self {
        Discovery {
            issuer: issuer.to_owned(),
            found: Arc::default(),
        }
    }

    /// Returns the addresses, or the reason why there are none. A caller that goes away does not end
    /// the reading that others wait for.
    pub(super) async fn endpoints(&self, outgoing: &Arc<Outgoing>) -> Result<Endpoints, String> {
        let (issuer, outgoing) = (self.issuer.clone(), Arc::clone(outgoing));
        let found = Arc::clone(&self.found);
        let reading = tokio::spawn(async move {
            let mut found = found.lock().await;
            if let Some(known) = found.as_ref().filter(|known| known.is_fresh()) {
                return known.endpoints.clone();
            }
            let endpoints = read(&issuer, &outgoing).await;
            if let Err(error) = &endpoints {
                tracing::warn!(error, "an identity provider cannot be used");
            }
            *found = Some(Found {
                at: Instant::now(),
                endpoints: endpoints.clone(),
            });
            endpoints
        });
        reading.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Found {
    fn is_fresh(&self) -> bool {
        let limit = match self.endpoints {
            Ok(_) => FRESH,
            Err(_) => FAILED,
        };
        self.at.elapsed() < limit
    }
}

async fn read(issuer: &str, outgoing: &Outgoing) -> Result<Endpoints, String> {
    let url = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let answer = outgoing.get_at_most(MAX_ANSWER, &url).await;
    let answer = answer.map_err(|error| chain(&error))?;
    if answer.status != 200 {
        return Err(format!(
            "{url} answered {}: expected 200 and a document",
            answer.status
        ));
    }
    let document: Document = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{url} is no document of OpenID Connect: {error}"))?;
    if document.issuer != issuer {
        let other: String = document.issuer.chars().take(200).collect();
        return Err(format!(
            "{url} is the document of {other:?}: expected the issuer {issuer:?}"
        ));
    }
    for (name, address) in [
        ("authorization_endpoint", &document.authorization_endpoint),
        ("token_endpoint", &document.token_endpoint),
    ] {
        let is_plain = address.parse::<Uri>().is_ok() && !address.contains('#');
        if !is_plain || !is_safe(address) {
            return Err(format!(
                "{name} in {url} is no https:// address, and none of this host"
            ));
        }
    }
    let methods = document.token_endpoint_auth_methods_supported;
    let has = |name: &str| {
        methods
            .as_ref()
            .is_some_and(|methods| methods.iter().any(|one| one == name))
    };
    Ok(Endpoints {
        secret_in_form: has("client_secret_post") && !has("client_secret_basic"),
        authorization: document.authorization_endpoint,
        token: document.token_endpoint,
    })
}
