//! The protocols: find a request's operation, and convert shapes and errors into bytes.
//!
//! The public API has two protocols, AWS JSON 1.1 and RPC v2 CBOR (smithy.io, "Smithy RPC v2 CBOR
//! protocol"); the agents' API has the former. Operations take and return shapes, independent of
//! the protocol.

mod cbor;

use std::borrow::Cow;

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use codedeploy_api::{codedeploy, command, controller};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ErrorName};
use crate::request::members::shorten;

const SMITHY_PROTOCOL: &str = "smithy-protocol";
const RPC_V2_CBOR: &str = "rpc-v2-cbor";
const CBOR_CONTENT_TYPE: &str = "application/cbor";

/// Headers that name the operation, in protocols with a header for it.
const TARGET_HEADERS: [&str; 2] = ["x-amz-target", "x-amzn-target"];

/// The format of a request and its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    AwsJson,
    RpcV2Cbor,
}

/// The API and the operation of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiOperation<'a> {
    /// The public API.
    Operator(&'a str),
    /// The controller's own API, also for operators.
    Controller(&'a str),
    Host(&'a str),
}

impl Protocol {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(SMITHY_PROTOCOL) {
            Some(name) if name == RPC_V2_CBOR => Self::RpcV2Cbor,
            _ => Self::AwsJson,
        }
    }

    /// The text with which a request names its operation.
    pub(super) fn target(self, head: &Parts) -> &str {
        match self {
            Self::AwsJson => {
                super::header_text(&head.headers, TARGET_HEADERS[0]).unwrap_or_default()
            }
            Self::RpcV2Cbor => head.uri.path(),
        }
    }

    pub(super) fn identify(self, head: &Parts) -> Result<ApiOperation<'_>, ApiError> {
        let target = self.target(head);
        match self {
            Self::AwsJson => match target.split_once('.') {
                Some((codedeploy::TARGET_PREFIX, operation)) => Ok(ApiOperation::Operator(operation)),
                Some((controller::TARGET_PREFIX, operation)) => Ok(ApiOperation::Controller(operation)),
                Some((command::TARGET_PREFIX | command::TARGET_PREFIX_SECURE, operation)) => {
                    Ok(ApiOperation::Host(operation))
                }
                _ => Err(ErrorName::UnknownOperation.because(format!(
                    "X-Amz-Target {:?} names no API of this service: expected {}.<Operation> or {}.<Operation>.",
                    shorten(target),
                    codedeploy::TARGET_PREFIX,
                    command::TARGET_PREFIX
                ))),
            },
            Self::RpcV2Cbor => {
                // A signature for one operation must not be used for another.
                if let Some(name) = TARGET_HEADERS.into_iter().find(|name| head.headers.contains_key(*name)) {
                    return Err(ErrorName::UnknownOperation.because(format!(
                        "A request of the protocol {RPC_V2_CBOR} has its operation in the path, and no header {name}."
                    )));
                }
                let operation = (head.method == Method::POST).then(|| operation_in(target)).flatten();
                operation.ok_or_else(|| {
                    ErrorName::UnknownOperation.because(format!(
                        "{} {:?} names no operation of this service: expected POST /service/{}/operation/<Operation>.",
                        head.method,
                        shorten(target),
                        codedeploy::TARGET_PREFIX
                    ))
                })
            }
        }
    }

    /// Returns the body of an error response.
    pub(super) fn refusal(self, error: &ApiError) -> Vec<u8> {
        let mut body = error.body();
        let written = match self {
            Self::AwsJson => serde_json::to_vec(&body).ok(),
            Self::RpcV2Cbor => {
                body.kind = format!("{}#{}", codedeploy::NAMESPACE, body.kind);
                cbor::to_vec(&body).ok()
            }
        };
        written.unwrap_or_default()
    }

    /// Adds the protocol's headers to a response.
    pub(super) fn mark(self, headers: &mut HeaderMap, body: &[u8]) {
        let content_type = match self {
            Self::AwsJson => Some(command::CONTENT_TYPE),
            Self::RpcV2Cbor => {
                headers.insert(SMITHY_PROTOCOL, HeaderValue::from_static(RPC_V2_CBOR));
                // An operation without output has no body, and an empty body is not CBOR.
                (!body.is_empty()).then_some(CBOR_CONTENT_TYPE)
            }
        };
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
    }
}

/// Returns the operation in an RPC v2 path: `/service/<service>/operation/<operation>`. The service
/// may have its namespace, the operation may not.
fn operation_in(path: &str) -> Option<ApiOperation<'_>> {
    let mut segments = path.rsplit('/');
    let operation = segments.next()?;
    let ("operation", service, "service", Some(_)) = (
        segments.next()?,
        segments.next()?,
        segments.next()?,
        segments.next(),
    ) else {
        return None;
    };
    let service = service
        .strip_prefix(codedeploy::NAMESPACE)
        .map_or(Some(service), |name| name.strip_prefix('.'));
    match service {
        Some(codedeploy::TARGET_PREFIX) => Some(ApiOperation::Operator(operation)),
        Some(controller::TARGET_PREFIX) => Some(ApiOperation::Controller(operation)),
        _ => None,
    }
}

/// The body of a request, to be read as an input; its response is written in the same protocol.
#[derive(Debug, Clone)]
pub(super) struct RequestBody {
    protocol: Protocol,
    body: Bytes,
}

impl RequestBody {
    pub(super) fn new(
        protocol: Protocol,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Self, ApiError> {
        let content_type =
            super::header_text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if protocol == Protocol::RpcV2Cbor && !body.is_empty() && media_type != CBOR_CONTENT_TYPE {
            return Err(ErrorName::UnsupportedMediaType.because(format!(
                "The body's Content-Type is {:?}: expected {CBOR_CONTENT_TYPE}.",
                shorten(content_type)
            )));
        }
        Ok(RequestBody { protocol, body })
    }

    /// The input of an operation, for a caller inside this program.
    pub(super) fn of(input: &impl Serialize) -> Result<Self, ApiError> {
        match serde_json::to_vec(input) {
            Ok(body) => Ok(Self::json(body)),
            Err(error) => Err(ErrorName::Serialization.because(error.to_string())),
        }
    }

    /// A body in AWS JSON.
    pub(super) fn json(body: Vec<u8>) -> Self {
        RequestBody {
            protocol: Protocol::AwsJson,
            body: body.into(),
        }
    }

    /// Reads the input of an operation; an empty body is an input without members.
    pub(super) fn read<I: DeserializeOwned>(&self) -> Result<I, ApiError> {
        let read = match self.protocol {
            Protocol::AwsJson => from_json(&self.body),
            Protocol::RpcV2Cbor => {
                let body = if self.body.is_empty() {
                    cbor::EMPTY
                } else {
                    &self.body
                };
                cbor::from_slice(body)
            }
        };
        read.map_err(|error| {
            let error = quoted_in_part(&error);
            ErrorName::Serialization
                .because(format!("The body is not the operation's input: {error}."))
        })
    }

    /// Returns the same body with invalid text repaired. A host's scripts may print any bytes, and
    /// its report matters more than they do.
    pub(super) fn mended(&self) -> Self {
        let body = match String::from_utf8_lossy(&self.body) {
            Cow::Borrowed(_) => self.body.clone(),
            Cow::Owned(text) => text.into(),
        };
        RequestBody {
            protocol: self.protocol,
            body,
        }
    }

    pub(super) fn answer<O: Serialize>(&self, output: &O) -> Result<Vec<u8>, ApiError> {
        match self.protocol {
            Protocol::AwsJson => to_json(output),
            Protocol::RpcV2Cbor => cbor::to_vec(output).map_err(|error| unwritten(&error)),
        }
    }
}

/// The JSON of every protocol: the responses of one, and documents in the responses of all.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| unwritten(&error))
}

fn unwritten(error: &dyn std::error::Error) -> ApiError {
    tracing::error!(error = %error, "an answer could not be written");
    ErrorName::InternalFailure.because("the answer could not be written")
}

fn from_json<I: DeserializeOwned>(body: &[u8]) -> Result<I, String> {
    let body = if body.is_empty() { b"{}" } else { body };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| placed(&error))?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(read)
}

/// Formats an error with its member.
fn placed<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>) -> String {
    let member = error.path().to_string();
    // The whole input, or a place that the reader did not reach.
    if member == "." || member.starts_with('?') {
        return error.inner().to_string();
    }
    format!("{}: {}", shorten(&member), error.inner())
}

/// The number of characters of a client's value in a message.
const QUOTED: usize = 100;

/// Shortens the value that a reader's message quotes: a text between quotation marks, or another
/// value between backquotes.
fn quoted_in_part(said: &str) -> String {
    let quoted = |mark: char| {
        let start = said.find(mark)? + 1;
        let rest = said.get(start..)?;
        let end = match mark {
            '"' => {
                let mut escaped = false;
                rest.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })
            }
            _ => rest.find("`, expected").or_else(|| rest.rfind('`')),
        };
        Some(start..start + end.unwrap_or(rest.len()))
    };
    let first = ['"', '`']
        .into_iter()
        .filter_map(quoted)
        .min_by_key(|range| range.start);
    let text = match first.and_then(|range| {
        Some((
            said.get(..range.start)?,
            said.get(range.clone())?,
            range.end,
        ))
    }) {
        Some((before, value, end)) if value.chars().nth(QUOTED).is_some() => {
            let beginning: String = value.chars().take(QUOTED).collect();
            format!(
                "{before}{beginning}…{}",
                said.get(end..).unwrap_or_default()
            )
        }
        _ => said.to_owned(),
    };
    text.chars().take(10 * QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_quoted_in_part_and_what_follows_it_is_kept() {
        let long = "x".repeat(1_000_000);
        for (said, expected) in [
            (
                format!("a: invalid type: string \"{long}\", expected a sequence"),
                "\", expected a sequence",
            ),
            (
                format!("a: invalid type: string \"\\\"{long}\", expected a map"),
                "\", expected a map",
            ),
            (
                format!("a: invalid type: floating point `{long}`, expected i64"),
                "`, expected i64",
            ),
            (format!("a: invalid type: string \"{long}"), "…"),
        ] {
            let short = quoted_in_part(&said);
            assert!(
                short.len() < 200
                    && short.starts_with("a: invalid type: ")
                    && short.ends_with(expected),
                "{short}"
            );
        }
        let short = r#"a: invalid type: string "x", expected `b` or `c` at line 1 column 3"#;
        assert_eq!(quoted_in_part(short), short);
        assert!(quoted_in_part(&long).len() <= 1000);
    }

    #[test]
    fn the_last_four_segments_of_a_path_name_the_operation() {
        for path in [
            "/service/CodeDeploy_20141006/operation/GetApplication",
            "/a/b/service/CodeDeploy_20141006/operation/GetApplication",
            "/service/com.amazonaws.codedeploy.CodeDeploy_20141006/operation/GetApplication",
        ] {
            assert_eq!(
                operation_in(path),
                Some(ApiOperation::Operator("GetApplication")),
                "{path}"
            );
        }
        for path in [
            "/",
            "service/CodeDeploy_20141006/operation/GetApplication",
            "/service/CodeDeploy_20141006/operation/GetApplication/",
            "/service/CodeDeploy_20141006/operation/GetApplication/x",
            "/service/CodeDeployCommandService_v20141006/operation/PollHostCommand",
            "/service/com.amazonaws.other.CodeDeploy_20141006/operation/GetApplication",
            "/service/com.amazonaws.codedeployCodeDeploy_20141006/operation/GetApplication",
            "/CodeDeploy_20141006/operation/GetApplication",
        ] {
            assert_eq!(operation_in(path), None, "{path}");
        }
    }
}
