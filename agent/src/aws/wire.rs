//! `log_aws_wire`: logs every request and response, without secrets and without the contents of
//! revisions and script output.

use std::time::Instant;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use serde_json::Value;

use crate::telemetry::milliseconds_since;
use codedeploy_api::chain::Chain;

const HIDDEN: &str = "(hidden)";
/// Query parameters without secrets; signed URLs have others.
const OPEN_PARAMETERS: [&str; 5] = ["versionId", "x-id", "list-type", "prefix", "partNumber"];
/// Parts of the names of headers and members with secrets.
const SECRET_NAMES: [&str; 7] = [
    "authorization",
    "token",
    "secret",
    "password",
    "cookie",
    "credential",
    "customer-key",
];
/// Members with signed specifications, which can contain tokens, and with the output of scripts.
const ELIDED_MEMBERS: [&str; 2] = ["Payload", "Diagnostics"];
/// The length beyond which bodies are cut.
const LONGEST_BODY: usize = 16 << 10;

/// Wraps `client` to log everything.
pub(super) fn logged(client: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(Logged(client))
}

#[derive(Debug)]
struct Logged(SharedHttpClient);

#[derive(Debug)]
struct LoggedConnector(SharedHttpConnector);

impl HttpClient for Logged {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(LoggedConnector(self.0.http_connector(settings, components)))
    }
}

impl HttpConnector for LoggedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (method, uri) = (
            request.method().to_owned(),
            without_parameters(request.uri()),
        );
        let body = if is_json(request.headers()) {
            request.body().bytes().map(without_secrets)
        } else {
            None
        };
        tracing::info!(
            method,
            uri,
            headers = headers(request.headers()),
            body,
            "request"
        );
        let began = Instant::now();
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut response = match answer.await {
                Ok(response) => response,
                Err(error) => {
                    let reason = Chain(&error).to_string();
                    tracing::info!(method, uri, reason, "no response");
                    return Err(error);
                }
            };
            let body = if is_json(response.headers()) {
                Some(body_of(&mut response).await?)
            } else {
                None
            };
            tracing::info!(
                method,
                uri,
                status = response.status().as_u16(),
                headers = headers(response.headers()),
                body,
                duration_ms = milliseconds_since(began),
                "response"
            );
            Ok(response)
        })
    }
}

/// Only CodeDeploy's own documents: a response of S3 or GitHub is a bundle, or repeats signed
/// headers.
fn is_json(headers: &Headers) -> bool {
    headers
        .get("content-type")
        .is_some_and(|kind| kind.starts_with("application/x-amz-json-"))
}

/// Reads the body for the log, and puts it back.
async fn body_of(response: &mut HttpResponse) -> Result<String, ConnectorError> {
    let body = ByteStream::new(response.take_body()).collect().await;
    let body = body
        .map_err(|error| ConnectorError::io(error.into()))?
        .into_bytes();
    let shown = without_secrets(&body);
    *response.body_mut() = SdkBody::from(body);
    Ok(shown)
}

fn without_parameters(uri: &str) -> String {
    let Some((path, query)) = uri.split_once('?') else {
        return uri.to_owned();
    };
    let parameter = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if !OPEN_PARAMETERS.contains(&name) => format!("{name}={HIDDEN}"),
        _ => parameter.to_owned(),
    };
    format!(
        "{path}?{}",
        query
            .split('&')
            .map(parameter)
            .collect::<Vec<_>>()
            .join("&")
    )
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

fn headers(headers: &Headers) -> String {
    let shown = |(name, value): (&str, &str)| match name {
        name if is_secret(name) => format!("{name}: {HIDDEN}"),
        // The target of a redirect can be a signed URL.
        "location" => format!("{name}: {}", without_parameters(value)),
        name => format!("{name}: {value}"),
    };
    headers.iter().map(shown).collect::<Vec<_>>().join("\n")
}

fn without_secrets(body: &[u8]) -> String {
    let Ok(mut document) = serde_json::from_slice(body) else {
        return format!("({} bytes that are not JSON)", body.len());
    };
    redact(&mut document);
    let mut text = document.to_string();
    if text.len() > LONGEST_BODY {
        let end = text.floor_char_boundary(LONGEST_BODY);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if ELIDED_MEMBERS.contains(&name.as_str()) && value.is_string() {
                    *value = format!("({} bytes)", value.as_str().map_or(0, str::len)).into();
                } else if is_secret(name) {
                    *value = HIDDEN.into();
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact),
        // An explanation of a wrong signature repeats the signed headers.
        Value::String(text) if text.to_ascii_lowercase().contains("x-amz-security-token") => {
            let at = text
                .to_ascii_lowercase()
                .find("x-amz-security-token")
                .unwrap_or_default();
            text.truncate(at);
            text.push_str(HIDDEN);
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let body = br#"{"HostIdentifier":"box1","GitHubAccessToken":"hush","a":[{"Payload":"hush hush"}],
            "message":"The Canonical String should have been 'POST\nx-amz-security-token:hush\n'"}"#;
        let shown = without_secrets(body);
        assert!(
            shown.contains("box1") && shown.contains("(9 bytes)") && !shown.contains("hush"),
            "{shown}"
        );
        let uri = "https://h/p?versionId=7&X-Amz-Signature=hush&token=hush&acl";
        assert_eq!(
            without_parameters(uri),
            "https://h/p?versionId=7&X-Amz-Signature=(hidden)&token=(hidden)&acl"
        );
        let mut all = Headers::new();
        for name in [
            "authorization",
            "x-amz-security-token",
            "set-cookie",
            "proxy-authorization",
        ] {
            all.insert(name, "hush");
        }
        all.insert("x-amz-request-id", "R1");
        all.insert("location", "https://codeload/x?token=hush");
        let shown = headers(&all);
        assert!(
            shown.contains("x-amz-request-id: R1") && !shown.contains("hush"),
            "{shown}"
        );
        assert_eq!(without_secrets(b"\xff"), "(1 bytes that are not JSON)");
    }
}
