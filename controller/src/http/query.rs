//! AWS's query protocol: operations as forms, responses in XML. Of its services, only two operations
//! of STS are available: GetCallerIdentity, the first call of many clients, and
//! AssumeRoleWithWebIdentity; everything else is rejected in a format that clients read.

mod assume_role;

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};

use super::unauthenticated::Slot;
use super::{Claimed, Kind, Origin, RequestId, header_text, receive, sigv4};
use crate::credentials::Principal;
use crate::error::{ApiError, ErrorName};
use crate::request::members::shorten;
use crate::service::Service;
use assume_role::Assumed;

const STS: &str = "sts";
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const FORM: &str = "application/x-www-form-urlencoded";

/// The largest body of an unsigned request, in bytes: a token and a few short parameters.
const MAX_UNSIGNED: usize = 64 * 1024;

/// The region that signatures for global services use.
const GLOBAL: &str = "us-east-1";

/// Whether a request uses this protocol: a form, or a query with an action.
pub(super) fn is_query(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let media_type = header_text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let in_query = || {
        uri.query()
            .is_some_and(|query| parameter(query.as_bytes(), "Action").is_some())
    };
    let form = *method == Method::POST && media_type.eq_ignore_ascii_case(FORM);
    uri.path() == "/" && !headers.contains_key("x-amz-target") && (form || in_query())
}

fn parameter(form: &[u8], wanted: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(form);
    pairs
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.into_owned())
}

pub(super) async fn call(service: &Arc<Service>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let request_id = head
        .extensions
        .get::<RequestId>()
        .map(|RequestId(id)| id.clone())
        .unwrap_or_default();
    match answer(service, &head, body).await {
        Ok(answer) => {
            let (operation, document) = match answer {
                Answer::Identity(principal) => {
                    (GET_CALLER_IDENTITY, identity(&principal, &request_id))
                }
                Answer::Assumed(assumed) => (assume_role::OPERATION, assumed.document(&request_id)),
            };
            let mut response = xml(StatusCode::OK, document);
            response.extensions_mut().insert(Kind {
                api: STS,
                operation: operation.into(),
            });
            response
        }
        Err(error) => {
            let (status, code) = code(&error);
            tracing::info!(error = code, reason = error.message, "request refused");
            if sigv4::claimed_service(&head.headers) == Some("ec2") {
                return xml(status, ec2_refusal(&code, &error.message, &request_id));
            }
            let mut response = refusal(status, &code, &error.message, &request_id);
            super::refused(&mut response, &error);
            response
        }
    }
}

const GET_CALLER_IDENTITY: &str = "GetCallerIdentity";

enum Answer {
    Identity(Principal),
    Assumed(Box<Assumed>),
}

/// Handles the operations of STS. GetCallerIdentity requires only a valid key, and no role; the
/// other one is not signed, and its token is what it requires.
async fn answer(service: &Arc<Service>, head: &Parts, body: Body) -> Result<Answer, ApiError> {
    if !head.headers.contains_key(header::AUTHORIZATION) {
        return answer_unsigned(service, head, body).await;
    }
    // No body is read for an unavailable service.
    if let Some(other) = sigv4::claimed_service(&head.headers).filter(|service| *service != STS) {
        return Err(ErrorName::InvalidOperation.because(no_service(other)));
    }
    let claimed = Claimed::find(service, head).await?;
    let own = service.settings.partition.region.as_str();
    let region = if claimed.region() == GLOBAL {
        GLOBAL
    } else {
        own
    };
    claimed.is_for(region, &[STS])?;
    let body = receive(body, service.settings.timers.request).await?;
    let principal = claimed.verify(service, head, &body)?;
    if let Some(slot) = head.extensions.get::<Arc<Slot>>() {
        slot.authenticated();
    }
    tracing::Span::current().record("by", &principal.arn);
    let action = parameter(&body, "Action")
        .or_else(|| parameter(head.uri.query().unwrap_or_default().as_bytes(), "Action"))
        .unwrap_or_default();
    tracing::Span::current().record("operation", shorten(&action));
    match action.as_str() {
        GET_CALLER_IDENTITY => Ok(Answer::Identity(Arc::unwrap_or_clone(principal))),
        assume_role::OPERATION => assume(service, head, &body).await,
        _ => Err(ErrorName::InvalidOperation.because(format!(
            "This controller's STS has only GetCallerIdentity and AssumeRoleWithWebIdentity, not {:?}. \
             `codedeploy-controller credentials create --expires-in 12h` makes temporary keys.",
            shorten(&action)
        ))),
    }
}

async fn answer_unsigned(
    service: &Arc<Service>,
    head: &Parts,
    body: Body,
) -> Result<Answer, ApiError> {
    if head.method == Method::POST && !service.identity_providers.is_empty() {
        let timeout = service.settings.timers.request;
        let form = super::receive_at_most(MAX_UNSIGNED, body, timeout).await?;
        if parameter(&form, "Action").as_deref() == Some(assume_role::OPERATION) {
            return assume(service, head, &form).await;
        }
    }
    Err(ErrorName::MissingAuthenticationToken.because(
        "The request is not signed: it has no Authorization header. Only AssumeRoleWithWebIdentity is accepted so, if \
         identity_providers are configured.",
    ))
}

async fn assume(service: &Arc<Service>, head: &Parts, form: &[u8]) -> Result<Answer, ApiError> {
    tracing::Span::current().record("operation", assume_role::OPERATION);
    let assumed = assume_role::assume(service, form, Origin::of(&head.extensions)).await?;
    if let Some(slot) = head.extensions.get::<Arc<Slot>>() {
        slot.authenticated();
    }
    tracing::Span::current().record("by", &assumed.key.arn);
    Ok(Answer::Assumed(Box::new(assumed)))
}

/// The message about a service that is not available here.
pub(super) fn no_service(service: &str) -> String {
    format!(
        "This controller has no service {:?}, only CodeDeploy, and two operations of STS. For AWS's other services, set \
         AWS_ENDPOINT_URL_CODEDEPLOY in place of AWS_ENDPOINT_URL.",
        shorten(service)
    )
}

/// The status and the code of an error, in this protocol.
fn code(error: &ApiError) -> (StatusCode, String) {
    let forbidden = |code: &str| (StatusCode::FORBIDDEN, code.to_owned());
    match error.name {
        ErrorName::UnrecognizedClient => forbidden("InvalidClientTokenId"),
        ErrorName::InvalidSignature => forbidden("SignatureDoesNotMatch"),
        ErrorName::ExpiredToken => forbidden("ExpiredToken"),
        ErrorName::MissingAuthenticationToken => forbidden("MissingAuthenticationToken"),
        ErrorName::AccessDenied => forbidden("AccessDenied"),
        ErrorName::InvalidOperation => (StatusCode::BAD_REQUEST, "InvalidAction".to_owned()),
        ErrorName::ExpiredIdentityToken => {
            (StatusCode::BAD_REQUEST, "ExpiredTokenException".to_owned())
        }
        ErrorName::IdentityProviderCommunication => {
            (StatusCode::BAD_REQUEST, "IDPCommunicationError".to_owned())
        }
        other => {
            let status =
                StatusCode::from_u16(other.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (
                status,
                other.text().trim_end_matches("Exception").to_owned(),
            )
        }
    }
}

fn identity(principal: &Principal, request_id: &str) -> String {
    let arn = &principal.arn;
    let account = arn.split(':').nth(4).unwrap_or_default();
    // For a session, AWS appends the session's name after a colon.
    let session = arn
        .contains(":assumed-role/")
        .then(|| arn.rsplit('/').next())
        .flatten();
    let user_id = match session {
        Some(session) => format!("{}:{session}", principal.access_key_id),
        None => principal.access_key_id.clone(),
    };
    let content = format!(
        "<Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account>",
        escape(arn),
        escape(&user_id),
        escape(account),
    );
    result(GET_CALLER_IDENTITY, &content, request_id)
}

/// The response of an operation, around the members of its result.
fn result(operation: &str, content: &str, request_id: &str) -> String {
    format!(
        "<{operation}Response xmlns=\"{NAMESPACE}\"><{operation}Result>{content}</{operation}Result><ResponseMetadata>\
         <RequestId>{}</RequestId></ResponseMetadata></{operation}Response>",
        escape(request_id)
    )
}

pub(super) fn refusal(
    status: StatusCode,
    code: &str,
    message: &str,
    request_id: &str,
) -> Response<Body> {
    let fault = if status.is_server_error() {
        "Receiver"
    } else {
        "Sender"
    };
    let error = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type><Code>{}</Code><Message>{}</Message></Error>\
         <RequestId>{}</RequestId></ErrorResponse>",
        escape(code),
        escape(message),
        escape(request_id)
    );
    xml(status, error)
}

/// EC2 has its own format.
fn ec2_refusal(code: &str, message: &str, request_id: &str) -> String {
    format!(
        "<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>{}</RequestID></Response>",
        escape(code),
        escape(message),
        escape(request_id)
    )
}

fn xml(status: StatusCode, document: String) -> Response<Body> {
    let mut response = Response::new(Body::from(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{document}"
    )));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

/// Escapes a text for XML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => escaped.extend(c.escape_default()),
            c => escaped.push(c),
        }
    }
    escaped
}
