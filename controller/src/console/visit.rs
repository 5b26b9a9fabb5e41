//! A request of a logged-in user, and a form that such a user sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use codedeploy_api::codedeploy::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::comparison::Comparison;
use super::frame::{Frame, User};
use super::response::{Refused, explain, html, json, refuse_nobody, see_other, status, title};
use super::session;
use super::view::segment;
use super::{Console, LOGIN};
use crate::alarms;
use crate::credentials::Principal;
use crate::error::{ApiError, ErrorName};
use crate::http::unauthenticated::Slot;
use crate::http::{Origin, operator};
use crate::objects::Objects;
use crate::transaction::Context;
use crate::words;

/// The largest form, in bytes.
const MAX_FORM: usize = 64 * 1024;

/// A cookie of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    Session,
    /// That of a browser that is at an identity provider, from whose site it returns.
    Login,
}

impl Cookie {
    fn name(self) -> &'static str {
        match self {
            Cookie::Session => "codedeploy-console",
            Cookie::Login => "codedeploy-login",
        }
    }

    fn same_site(self) -> &'static str {
        match self {
            Cookie::Session => "Strict",
            Cookie::Login => "Lax",
        }
    }
}

/// The form of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Json,
    /// A stream of the parts that change.
    Live,
}

/// The question that a page answers: its parameters, and who asks.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    path: String,
    query: String,
    /// Those of the query, and those of the path, which take precedence.
    parameters: BTreeMap<String, String>,
    principal: Principal,
    csrf: String,
    objects: Option<Arc<Objects>>,
    /// The answers of others than the database, for pages that ask them.
    pub(super) outside: Outside,
}

/// The state of things that are not in the database.
#[derive(Debug, Clone, Default)]
pub(super) struct Outside {
    pub(super) alarms: Vec<alarms::Shown>,
    /// The end of the service's certificate.
    pub(super) certificate_expires: Option<Timestamp>,
    /// The differences of two bundles.
    pub(super) comparison: Option<Arc<Comparison>>,
}

impl Asked {
    /// A parameter of the path or the query, unless it is empty.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let value = self.parameters.get(name)?;
        (!value.is_empty()).then(|| value.clone())
    }

    /// The controller's own folder of revisions, if it has one.
    pub(super) fn objects(&self) -> Option<&Objects> {
        self.objects.as_deref()
    }

    /// Whether the user sees only a part of the fleet.
    pub(super) fn is_limited(&self) -> bool {
        self.principal.scopes.are_limited()
    }

    /// The page at the beginning of its list, with the same other parameters.
    pub(super) fn first(&self) -> String {
        match self.query_without("next") {
            query if query.is_empty() => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    /// The page at another place of its list, with the same other parameters.
    pub(super) fn next(&self, token: Option<&str>) -> Option<String> {
        let token = token?;
        let query = self.query_without("next");
        let mark = if query.is_empty() { "" } else { "&" };
        Some(format!(
            "{}?{query}{mark}next={}",
            self.path,
            segment(token)
        ))
    }

    /// Whether the user may call an operation.
    pub(super) fn may(&self, operation: &str) -> bool {
        operator::authorise(&self.principal, operation).is_ok()
    }

    /// The frame of the page with a title, and with the commands that show the same.
    pub(super) fn frame(
        &self,
        title: impl Into<String>,
        commands: impl IntoIterator<Item = String>,
    ) -> Frame {
        let query = self.query_without("format");
        let json = match query.is_empty() {
            true => format!("{}?format=json", self.path),
            false => format!("{}?{query}&format=json", self.path),
        };
        Frame {
            title: title.into(),
            user: Some(User {
                name: words::who(&self.principal.arn),
                role: self.principal.role.text(),
                is_limited: self.is_limited(),
                csrf: self.csrf.clone(),
            }),
            path: self.path.clone(),
            json,
            commands: commands.into_iter().collect(),
            live: false,
        }
    }

    fn query_without(&self, name: &str) -> String {
        let pairs = form_urlencoded::parse(self.query.as_bytes());
        let kept = pairs.filter(|(key, _)| key != name);
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .finish()
    }

    fn format(&self) -> Format {
        match self.parameters.get("format").map(String::as_str) {
            Some("json") => Format::Json,
            Some("live") => Format::Live,
            _ => Format::Html,
        }
    }
}

/// A request with a session.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    pub(super) console: Arc<Console>,
    pub(super) asked: Asked,
    pub(super) format: Format,
    /// The parts that a live page has, with their versions.
    pub(super) have: String,
    /// The token of the session.
    pub(super) token: String,
    origin: Origin,
}

impl Visit {
    /// Runs `work` in a read transaction, as the caller of all `operations`.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        operations: &[&str],
        work: impl Fn(&Context<'_>, &Asked) -> Result<T, ApiError> + Send + Sync + 'static,
    ) -> Result<T, ApiError> {
        let asked = self.asked.clone();
        operator::query(
            &self.console.service,
            self.caller(),
            operations,
            move |context| work(context, &asked),
        )
        .await
    }

    /// Performs an operation of the API; it is recorded as one of the console.
    pub(super) async fn perform<O: DeserializeOwned>(
        &self,
        operation: &str,
        input: &impl Serialize,
    ) -> Result<O, Refused> {
        let done = operator::perform(&self.console.service, self.caller(), operation, input).await;
        done.map_err(|error| self.refuse(&error))
    }

    fn caller(&self) -> (Principal, Origin) {
        (self.asked.principal.clone(), self.origin.clone())
    }

    /// Whether the session has not ended.
    pub(super) async fn is_still_good(&self) -> bool {
        let session = find(&self.console, &self.token).await;
        session.is_ok_and(|session| session.is_some())
    }

    /// Responds with an error.
    pub(super) fn refuse(&self, error: &ApiError) -> Refused {
        tracing::info!(error = %error.name, reason = error.message, "request refused");
        let status = status(error);
        let mut response = match self.format {
            Format::Html => {
                let frame = self.asked.frame(title(status), []);
                explain(frame, status, &error.message)
            }
            Format::Json | Format::Live => json(status, &error.body()),
        };
        crate::http::refused(&mut response, error);
        response.into()
    }

    /// Responds that there is no such page.
    pub(super) fn nowhere(&self) -> Response<Body> {
        let status = StatusCode::NOT_FOUND;
        let message = format!("The console has no page {}.", self.asked.path);
        explain(self.asked.frame(title(status), []), status, &message)
    }
}

async fn find(console: &Console, token: &str) -> Result<Option<Principal>, ApiError> {
    let token = token.to_owned();
    console
        .service
        .read(move |_, context| Ok(session::find(context.tx, context.now, &token)?))
        .await
}

impl FromRequestParts<Arc<Console>> for Visit {
    type Rejection = Refused;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Refused> {
        let query = parts.uri.query().unwrap_or_default();
        let mut parameters: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        if let Ok(in_path) = RawPathParams::from_request_parts(parts, console).await {
            let in_path = in_path.iter();
            parameters.extend(in_path.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let token = console.cookie(Cookie::Session, &parts.headers);
        let principal = match &token {
            Some(token) => find(console, token).await,
            None => Ok(None),
        };
        let principal = principal.map_err(|error| refuse_nobody(status(&error), &error.message))?;
        let Some((token, principal)) = token.zip(principal) else {
            return Err(lead_to_login(parts, &parameters).into());
        };
        if let Some(slot) = parts.extensions.get::<Arc<Slot>>() {
            slot.authenticated();
        }
        tracing::Span::current().record("by", &principal.arn);
        let given = parts.headers.get("last-event-id");
        let given = given
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let have = given.or_else(|| parameters.get("have").cloned());
        let asked = Asked {
            path: parts.uri.path().to_owned(),
            query,
            parameters,
            principal,
            csrf: csrf(&token),
            objects: console.service.objects.clone(),
            outside: Outside::default(),
        };
        Ok(Visit {
            console: Arc::clone(console),
            format: asked.format(),
            asked,
            have: have.unwrap_or_default(),
            origin: Origin::of_console(&parts.extensions),
            token,
        })
    }
}

/// The token that forms of a session contain. It shows that the form is from a page of this
/// session, and tells nothing about the session's own token.
fn csrf(token: &str) -> String {
    let text = format!("form of {token}");
    hex::encode(digest(&SHA256, text.as_bytes()))
}

#[derive(Template)]
#[template(path = "again.html")]
struct Again {
    frame: Frame,
    href: String,
}

/// A page that loads another one of the console: as the browser comes from here then, it sends
/// strict cookies.
pub(super) fn again(href: &str) -> Response<Body> {
    let again = Again {
        frame: Frame::of_nobody("One moment"),
        href: href.to_owned(),
    };
    html(StatusCode::OK, &again)
}

/// Leads to the login and back.
fn lead_to_login(parts: &Parts, parameters: &BTreeMap<String, String>) -> Response<Body> {
    if matches!(
        parameters.get("format").map(String::as_str),
        Some("json" | "live")
    ) {
        let error = ErrorName::MissingAuthenticationToken
            .because("The session is over, or there was none: log in at /console/login.");
        return json(StatusCode::UNAUTHORIZED, &error.body());
    }
    let here = parts
        .uri
        .path_and_query()
        .map_or(super::FRONT, |here| here.as_str());
    // A browser that follows a link of another site sends no strict cookie. It does so if the page
    // that it finds loads itself again.
    let from_elsewhere = parts
        .headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site");
    if from_elsewhere && parts.method == Method::GET {
        return again(here);
    }
    if here == super::FRONT {
        return see_other(LOGIN);
    }
    see_other(&format!("{}?next={}", LOGIN, segment(here)))
}

impl Console {
    /// The name of a cookie. Browsers take the prefix only with TLS, and then no other site can set
    /// such a cookie.
    fn cookie_name(&self, cookie: Cookie) -> String {
        let prefix = if self.is_secure { "__Host-" } else { "" };
        format!("{prefix}{}", cookie.name())
    }

    /// The value of a cookie in a request.
    pub(super) fn cookie(&self, cookie: Cookie, headers: &HeaderMap) -> Option<String> {
        let name = self.cookie_name(cookie);
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok());
        cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }

    /// A cookie that a browser keeps for a time; an empty one is deleted.
    pub(super) fn set_cookie(&self, cookie: Cookie, value: &str, lasts: Duration) -> HeaderValue {
        let (name, same_site) = (self.cookie_name(cookie), cookie.same_site());
        let secure = if self.is_secure { "; Secure" } else { "" };
        let seconds = lasts.as_secs();
        let cookie = format!(
            "{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}"
        );
        HeaderValue::try_from(cookie).unwrap_or(HeaderValue::from_static(""))
    }

    /// Checks that a form was sent by a page of this service.
    pub(super) fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let origin: Option<Uri> = text(header::ORIGIN).and_then(|origin| origin.parse().ok());
        let from = origin.as_ref().and_then(Uri::authority);
        let host = text(header::HOST);
        let endpoint = self.service.settings.endpoint.as_ref();
        let endpoint: Option<Uri> = endpoint.and_then(|endpoint| endpoint.url().parse().ok());
        let own = endpoint.as_ref().and_then(Uri::authority);
        let is_own = from.is_some_and(|from| {
            host.is_some_and(|host| from.as_str().eq_ignore_ascii_case(host)) || Some(from) == own
        });
        // Who can change plain http on the way can make a page of this host.
        let scheme = origin.as_ref().and_then(Uri::scheme_str);
        if is_own && (!self.is_secure || scheme == Some("https")) {
            return Ok(());
        }
        Err(refuse_nobody(
            StatusCode::FORBIDDEN,
            "The form does not come from a page of this console: its Origin is another one, or missing. Behind a proxy, set \
             endpoint in the controller's configuration to the URL that browsers use.",
        ))
    }

    /// Reads the fields of a form.
    pub(super) async fn fields(
        &self,
        request: Request,
    ) -> Result<BTreeMap<String, String>, Refused> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(refuse_nobody(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The request has no form: expected application/x-www-form-urlencoded.",
            ));
        }
        let timeout = self.service.settings.timers.request;
        let body = tokio::time::timeout(timeout, to_bytes(request.into_body(), MAX_FORM)).await;
        let body: Bytes = match body {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => {
                return Err(refuse_nobody(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "The form could not be read; it may have 64 KiB.",
                ));
            }
            Err(_) => {
                let message = "The form did not arrive in time.";
                return Err(refuse_nobody(StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        Ok(form_urlencoded::parse(&body).into_owned().collect())
    }
}

/// A form of a logged-in user, from a page of the same session.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) visit: Visit,
    fields: BTreeMap<String, String>,
}

impl Posted {
    /// A field, unless it is empty.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let value = self.fields.get(name)?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }
}

impl FromRequest<Arc<Console>> for Posted {
    type Rejection = Refused;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Refused> {
        console.check_origin(request.headers())?;
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, console).await?;
        let fields = console.fields(Request::from_parts(parts, body)).await?;
        let given = fields.get("csrf").map(String::as_bytes).unwrap_or_default();
        if verify_slices_are_equal(given, visit.asked.csrf.as_bytes()).is_err() {
            let frame = visit.asked.frame(title(StatusCode::FORBIDDEN), []);
            let message =
                "The form is not from this session. Load the page again, and send its form.";
            return Err(explain(frame, StatusCode::FORBIDDEN, message).into());
        }
        Ok(Posted { visit, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_forms_is_not_that_of_the_session() {
        assert_eq!(csrf("a"), csrf("a"));
        assert_ne!(csrf("a"), csrf("b"));
        assert!(!csrf("token").contains("token"));
    }
}
