//! The agent's HTTP client, with its trust store and its proxy.

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::bounded::bounded;
use super::{AccessError, trust, wire};
use crate::config::Endpoints;

/// Builds the client of all outgoing calls. It trusts the system's certificates and the configured
/// ones, and uses only the configured proxy: proxies in the environment are for hooks.
pub fn client(endpoints: &Endpoints) -> Result<SharedHttpClient, AccessError> {
    let tls = TlsContext::builder()
        .with_trust_store(trust::store(&endpoints.trust)?)
        .build();
    let tls = tls.map_err(|source| AccessError::Tls {
        source: source.into(),
    })?;
    let proxy = endpoints
        .proxy
        .as_deref()
        .map_or_else(|| Ok(ProxyConfig::disabled()), proxy)?;
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector
            .proxy_config(proxy.clone())
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .build()
    });
    let client = bounded(client);
    Ok(if endpoints.log_wire {
        wire::logged(client)
    } else {
        client
    })
}

/// Reads `http://[user:password@]host:port`; user and password may be percent-encoded.
fn proxy(uri: &str) -> Result<ProxyConfig, AccessError> {
    let refused = |what| AccessError::Proxy { what };
    let (scheme, rest) = uri.split_once("://").ok_or(refused("it has no scheme"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, address) = match authority.rsplit_once('@') {
        Some((login, address)) => (Some(login), address),
        None => (None, authority),
    };
    if address.is_empty() || address.starts_with(':') {
        return Err(refused(
            "it names no host; in a user or password, write @ as %40, / as %2F and # as %23",
        ));
    }
    let Some(login) = login else {
        return ProxyConfig::all(uri.to_owned()).map_err(|_| refused("it is not an address"));
    };
    if !is_percent_encoded(login) {
        return Err(refused(
            "user or password have a wrong % sign; write % as %25",
        ));
    }
    // The client decodes user and password, and splits at the first @.
    let uri = format!("{scheme}://{}@{address}", login.replace('@', "%40"));
    ProxyConfig::all(uri).map_err(|_| {
        refused("it is not an address; percent-encode special characters in user and password")
    })
}

/// Whether every % sign precedes two hexadecimal digits.
fn is_percent_encoded(text: &str) -> bool {
    let digits = |part: &str| {
        part.get(..2)
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    text.split('%').skip(1).all(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_without_its_password() {
        for uri in [
            "http://",
            "http://:80",
            "http://me:hush@",
            "http://me:hu%zz@proxy:1",
            "ftp://me:hush@proxy",
        ] {
            let error = proxy(uri).unwrap_err().to_string();
            assert!(
                !error.contains("hush") && error.contains("expected http://"),
                "{error}"
            );
        }
        for uri in [
            "http://proxy:3128",
            "https://proxy",
            "http://me:p%40ss@proxy:3128",
            "http://me@[::1]:1",
            "http://me:p@ss@proxy",
        ] {
            assert!(proxy(uri).is_ok(), "{uri}");
        }
    }
}
