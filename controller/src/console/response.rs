//! Responses: pages, documents, redirections and refusals. No browser mistakes a text in them for
//! another.

use askama::Template;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use codedeploy_support::plain::{harmless_document, harmless_json};
use serde::Serialize;

use super::frame::Frame;
use crate::error::{ApiError, ErrorName};

/// A response in place of the requested one.
#[derive(Debug)]
pub(super) struct Refused(Box<Response<Body>>);

impl From<Response<Body>> for Refused {
    fn from(response: Response<Body>) -> Self {
        Refused(Box::new(response))
    }
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        *self.0
    }
}

/// The text of a page.
pub(super) fn text(template: &impl Template) -> Result<String, ApiError> {
    let text = template
        .render()
        .map_err(|error| ErrorName::InternalFailure.because(error.to_string()))?;
    Ok(harmless_document(&text).into_owned())
}

/// The text of a document.
pub(super) fn written(document: &impl Serialize) -> Result<String, ApiError> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| ErrorName::InternalFailure.because(error.to_string()))?;
    Ok(harmless_json(&text).into_owned() + "\n")
}

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// A response with a page that is no [`Page`].
pub(super) fn html(status: StatusCode, template: &impl Template) -> Response<Body> {
    match text(template) {
        Ok(text) => with_kind(status, HTML, text),
        Err(error) => with_kind(StatusCode::INTERNAL_SERVER_ERROR, HTML, error.message),
    }
}

/// A response with a document.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response<Body> {
    match written(document) {
        Ok(text) => with_kind(status, JSON, text),
        Err(error) => with_kind(StatusCode::INTERNAL_SERVER_ERROR, JSON, error.message),
    }
}

pub(super) fn with_kind(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Returns the status of an error for browsers.
pub(super) fn status(error: &ApiError) -> StatusCode {
    let name = error.name.bare();
    match error.name {
        ErrorName::AccessDenied => StatusCode::FORBIDDEN,
        // There is a page, and nothing that it could do.
        ErrorName::RevisionDoesNotExist => StatusCode::BAD_REQUEST,
        _ if name.ends_with("DoesNotExist") || name.ends_with("NotRegistered") => {
            StatusCode::NOT_FOUND
        }
        other => StatusCode::from_u16(other.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The title of a page with an error.
pub(super) fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::TOO_MANY_REQUESTS => "Too many attempts",
        status if status.is_server_error() => "Something went wrong",
        _ => "Not possible",
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct Explanation<'a> {
    frame: Frame,
    message: &'a str,
}

/// A page with a message.
pub(super) fn explain(frame: Frame, status: StatusCode, message: &str) -> Response<Body> {
    html(status, &Explanation { frame, message })
}

/// A page with a message for somebody without a session.
pub(super) fn refuse_nobody(status: StatusCode, message: &str) -> Refused {
    tracing::info!(%status, reason = message, "request refused");
    explain(Frame::of_nobody(title(status)), status, message).into()
}

/// A redirection to a page, with GET.
pub(super) fn see_other(path: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static(super::FRONT));
    response.headers_mut().insert(header::LOCATION, path);
    response
}
