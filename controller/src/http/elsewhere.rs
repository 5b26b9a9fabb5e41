//! Requests to the wrong place: an explanation in the format of their client.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use s3s::{S3Error, S3ErrorCode};

use super::protocol::Protocol;
use super::{header_text, query, sigv4};
use crate::error::ErrorName;

/// The response format that a client expects.
enum Form {
    Api(Protocol),
    Query,
    S3,
    /// JSON of a service whose operations are paths.
    Json,
    Text,
}

/// Services whose operations are paths, too, and whose responses have the format of the query
/// protocol.
const IN_XML: [&str; 2] = ["route53", "cloudfront"];

impl Form {
    fn of(head: &Request<Body>) -> Form {
        let headers = head.headers();
        let protocol = Protocol::of(headers);
        if headers.contains_key("x-amz-target") || protocol == Protocol::RpcV2Cbor {
            return Form::Api(protocol);
        }
        if query::is_query(head.method(), head.uri(), headers) {
            return Form::Query;
        }
        match sigv4::claimed_service(headers) {
            Some("s3") => return Form::S3,
            Some(service) if IN_XML.contains(&service) => return Form::Query,
            Some(_) => return Form::Json,
            None => {}
        }
        let scope = header_text(headers, "authorization").unwrap_or_default();
        let signed = |name: &str| head.uri().query().is_some_and(|query| query.contains(name));
        if scope.starts_with("AWS ") || signed("X-Amz-Signature=") {
            return Form::S3;
        }
        Form::Text
    }
}

/// Answers plain http on an endpoint with TLS.
pub(super) fn plain_http() -> Router {
    Router::new().fallback(|request: Request<Body>| async move {
        let message =
            "This port speaks TLS and got plain http: use https:// in the endpoint's URL.";
        let mut response = match Form::of(&request) {
            Form::Api(protocol) => api(protocol, StatusCode::BAD_REQUEST, message),
            Form::Query => query::refusal(StatusCode::BAD_REQUEST, "InvalidRequest", message, ""),
            Form::S3 => s3(S3ErrorCode::InvalidRequest, message),
            Form::Json => json(StatusCode::BAD_REQUEST, message),
            Form::Text => text(StatusCode::BAD_REQUEST, message),
        };
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    })
}

/// Answers requests for objects if none are served.
pub(super) fn no_s3(request: &Request<Body>) -> Response<Body> {
    tracing::info!(
        path = request.uri().path(),
        "a request for S3 was refused: s3 is not set"
    );
    match Form::of(request) {
        Form::Api(protocol) => api(
            protocol,
            StatusCode::NOT_FOUND,
            "The operations of this service are at the path /.",
        ),
        Form::Text if !matches!(*request.method(), Method::GET | Method::HEAD | Method::PUT) => {
            text(
                StatusCode::NOT_FOUND,
                "There is nothing here; the operations of this service are at the path /.",
            )
        }
        Form::Query => query::refusal(
            StatusCode::NOT_FOUND,
            "InvalidAction",
            &no_service(request),
            "",
        ),
        Form::Json => json(StatusCode::NOT_FOUND, &no_service(request)),
        Form::S3 | Form::Text => s3(
            S3ErrorCode::NotImplemented,
            "This controller serves no S3: set s3 in its configuration, or give the client the URL of the store that has the \
             revisions (AWS_ENDPOINT_URL_S3; s3_endpoint_override of an agent).",
        ),
    }
}

/// The message about a service that is not available here.
fn no_service(request: &Request<Body>) -> String {
    query::no_service(sigv4::claimed_service(request.headers()).unwrap_or_default())
}

fn json(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = api(Protocol::AwsJson, status, message);
    // If operations are paths, a header has the name of an error.
    let name = HeaderValue::from_static("UnknownOperationException");
    response.headers_mut().insert("x-amzn-errortype", name);
    response
}

fn api(protocol: Protocol, status: StatusCode, message: &str) -> Response<Body> {
    let body = protocol.refusal(&ErrorName::UnknownOperation.because(message));
    let mut headers = HeaderMap::new();
    protocol.mark(&mut headers, &body);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn s3(code: S3ErrorCode, message: &str) -> Response<Body> {
    let answer = S3Error::with_message(code, message.to_owned()).to_http_response();
    answer.map_or_else(
        |_| text(StatusCode::INTERNAL_SERVER_ERROR, message),
        |response| response.map(Body::new),
    )
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{message}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
