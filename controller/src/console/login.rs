//! Logging in: by a link of `codedeploy-controller console`, with an access key, or at an identity
//! provider.

pub(super) mod by_provider;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use askama::Template;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use codedeploy_api::codedeploy::Timestamp;

use super::frame::Frame;
use super::response::{Refused, html, refuse_nobody, see_other, status};
use super::session;
use super::view::segment;
use super::visit::{Cookie, Posted};
use super::{Console, FRONT, LOGIN};
use crate::credentials::{self, Principal, Role};
use crate::error::{ApiError, ErrorName};
use crate::http::Origin;
use crate::http::connections::Client;
use crate::registry::audit;
use crate::service::Service;
use crate::transaction::Context;

/// The longest field of the form, in bytes.
const LONGEST: usize = 4096;

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    frame: Frame,
    /// The token of a link.
    link: Option<String>,
    /// The page to show after the login.
    next: String,
    /// The identity provider, and the address that leads to it.
    provider: Option<(String, String)>,
    error: Option<String>,
}

impl Login {
    fn new(console: &Console, fields: &BTreeMap<String, String>, error: Option<String>) -> Self {
        let next = fields.get("next").filter(|next| is_own(next));
        let provider = console.service.login.as_ref().map(|flow| {
            let href = match next {
                Some(next) => format!("{}?next={}", by_provider::BEGIN, segment(next)),
                None => by_provider::BEGIN.to_owned(),
            };
            (flow.provider().to_owned(), href)
        });
        Login {
            provider,
            frame: Frame::of_nobody("Log in"),
            link: fields.get("link").filter(|_| error.is_none()).cloned(),
            next: next.cloned().unwrap_or_default(),
            error,
        }
    }
}

/// Whether a text is the address of a page of the console, and not one that logs in once more.
fn is_own(text: &str) -> bool {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    text.starts_with(FRONT)
        && !text.starts_with(LOGIN)
        && text.len() <= 2048
        && plain
        && !text.contains("//")
}

/// The page with the form. It does not use a link up: programs that preview addresses load it, too.
pub(super) async fn form(State(console): State<Arc<Console>>, uri: Uri) -> Response<Body> {
    let query = uri.query().unwrap_or_default();
    let fields = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    html(StatusCode::OK, &Login::new(&console, &fields, None))
}

/// A login that failed.
enum Failure {
    /// The link or the key is wrong.
    Wrong(&'static str),
    Error(ApiError),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure::Error(error)
    }
}

/// A session that began.
struct Begun {
    token: String,
    lasts: Duration,
}

pub(super) async fn log_in(
    State(console): State<Arc<Console>>,
    request: Request,
) -> Result<Response<Body>, Refused> {
    console.check_origin(request.headers())?;
    let origin = Origin::of_console(request.extensions());
    let client = client(&request);
    if let Some(refusal) = wait(&console, client) {
        return Ok(refusal);
    }
    let fields = console.fields(request).await?;
    let begun = match fields.get("link") {
        Some(link) => by_link(&console, link, origin).await,
        None => by_key(&console, &fields, origin).await,
    };
    let error = match begun {
        Ok(begun) => {
            let next = fields.get("next").filter(|next| is_own(next));
            let mut response = see_other(next.map_or(FRONT, String::as_str));
            let cookie = console.set_cookie(Cookie::Session, &begun.token, begun.lasts);
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            return Ok(response);
        }
        Err(Failure::Error(error)) => return Err(broken(&error)),
        Err(Failure::Wrong(error)) => error,
    };
    console.logins.failed(client, Instant::now());
    tracing::info!(reason = error, "login refused");
    let login = Login::new(&console, &fields, Some(error.to_owned()));
    let mut response = html(StatusCode::FORBIDDEN, &login);
    let name = ErrorName::UnrecognizedClient;
    crate::http::refused(&mut response, &name.because(error));
    Ok(response)
}

fn broken(error: &ApiError) -> Refused {
    refuse_nobody(status(error), &error.message)
}

/// The address of the client, or of a proxy in front.
fn client(request: &Request) -> IpAddr {
    let client = request.extensions().get::<Client>();
    client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Client(client)| {
        client.ip()
    })
}

/// The response to a client that failed too often.
fn wait(console: &Console, client: IpAddr) -> Option<Response<Body>> {
    let wait = console.logins.wait(client, Instant::now())?;
    let message = format!(
        "Too many logins from this address failed. Try again in {}.",
        crate::words::span(wait + Duration::from_secs(1))
    );
    let mut response = refuse_nobody(StatusCode::TOO_MANY_REQUESTS, &message).into_response();
    let seconds = HeaderValue::from(wait.as_secs() + 1);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    Some(response)
}

const USED: &str = "The link was used before, or its ten minutes are over. Make another one: codedeploy-controller console";
const WRONG: &str = "The access key id and the secret do not belong together, or the key is revoked or has expired.";
const HOST: &str = "This is the key of a host. Log in with one of role operator or read-only.";
const EMPTY: &str = "Give the id of an access key and its secret.";

async fn by_link(console: &Console, link: &str, origin: Origin) -> Result<Begun, Failure> {
    let (link, lasts) = (
        link.get(..LONGEST).unwrap_or(link).to_owned(),
        console.session,
    );
    let begun = console
        .service
        .transact(move |service: &Service, context: &Context<'_>| {
            let begun = session::redeem(context.tx, &service.vault, context.now, &link, lasts)?;
            if let Some((_, principal)) = &begun {
                record(context, origin, principal.clone(), &BTreeMap::new())?;
            }
            Ok(begun)
        });
    match begun.await? {
        Some((token, _)) => Ok(Begun { token, lasts }),
        None => Err(Failure::Wrong(USED)),
    }
}

async fn by_key(
    console: &Console,
    fields: &BTreeMap<String, String>,
    origin: Origin,
) -> Result<Begun, Failure> {
    let field = |name: &str| {
        let value = fields.get(name)?.trim();
        (!value.is_empty() && value.len() <= LONGEST).then(|| value.to_owned())
    };
    let (Some(id), Some(secret)) = (field("access_key_id"), field("secret_access_key")) else {
        return Err(Failure::Wrong(EMPTY));
    };
    let token = field("session_token");
    let found = console.service.read(move |service, context| {
        let Some(key) = credentials::find(context.tx, &id)? else {
            return Ok(None);
        };
        if !key.has_secret(&service.vault, &secret)? {
            return Ok(None);
        }
        let expires = key.expires();
        let principal = key.admit(token.as_deref(), Timestamp::now()).ok();
        Ok(principal.map(|principal| (principal, expires)))
    });
    let (principal, expires) = found.await?.ok_or(Failure::Wrong(WRONG))?;
    if principal.role == Role::Host {
        return Err(Failure::Wrong(HOST));
    }
    let rest = expires.map(|expires| expires.since(Timestamp::now()));
    let lasts = rest.map_or(console.session, |rest| rest.min(console.session));
    let begun = console.service.transact(move |_, context: &Context<'_>| {
        let id = &principal.access_key_id;
        let token = session::begin(context.tx, context.now, id, lasts, false)?;
        record(
            context,
            origin,
            Arc::unwrap_or_clone(principal),
            &BTreeMap::new(),
        )?;
        Ok(token)
    });
    let token = begun.await?;
    Ok(Begun { token, lasts })
}

/// Records a login.
fn record(
    context: &Context<'_>,
    origin: Origin,
    principal: Principal,
    names: &BTreeMap<String, String>,
) -> Result<(), ApiError> {
    let caller = origin.caller(principal);
    let (tx, now) = (context.tx, context.now);
    Ok(audit::record(tx, now, &caller, "ConsoleLogin", names)?)
}

pub(super) async fn log_out(posted: Posted) -> Result<Response<Body>, Refused> {
    let (visit, token) = (&posted.visit, posted.visit.token.clone());
    let service = &visit.console.service;
    let ended = service.transact(move |_, context| Ok(session::end(context.tx, &token)?));
    ended.await.map_err(|error| visit.refuse(&error))?;
    let mut response = see_other(LOGIN);
    let cookie = visit
        .console
        .set_cookie(Cookie::Session, "", Duration::ZERO);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_pages_of_the_console_alone() {
        for own in ["/console/", "/console/deployments/d-1?format=json"] {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "",
            "/",
            "//evil.example",
            "/console//evil.example",
            "/console/login/provider",
            "/console/\\evil",
            "https://evil.example/console/",
            "/console/\r\nx",
        ] {
            assert!(!is_own(other), "{other}");
        }
    }
}
