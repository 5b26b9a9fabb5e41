//! Logging in at an identity provider: the browser goes there and returns.
//!
//! Between both, the browser alone keeps the attempt, in a cookie. The session's cookie is strict, so
//! a browser that comes from the provider's site does not send it with the redirection that gave it:
//! a page that loads the next one itself ends the login.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::response::{Refused, html, see_other};
use super::super::visit::{Cookie, again};
use super::super::{Console, FRONT, session};
use super::{Begun, Login, client, is_own, record, wait};
use crate::credentials::{self, NewKey};
use crate::error::{ApiError, ErrorName};
use crate::http::Origin;
use crate::service::Service;
use crate::transaction::Context;
use crate::web_identity::{Attempt, CodeFlow, LoginError, Person};

/// The path that leads to the provider, and the one to which it returns.
pub(in super::super) const BEGIN: &str = "/console/login/provider";
pub(in super::super) const RETURN: &str = "/console/login/return";

/// The time that a user has at the provider.
const AT_PROVIDER: Duration = Duration::from_secs(10 * 60);

/// The longest subject that is kept, in characters.
const LONGEST_SUBJECT: usize = 300;

/// The content of the cookie of an attempt.
struct Kept {
    secret: String,
    /// The page to show after the login.
    next: String,
}

impl Kept {
    fn read(cookie: &str) -> Option<Self> {
        let (secret, next) = cookie.split_once('.')?;
        let next = URL_SAFE_NO_PAD.decode(next).ok()?;
        let next = String::from_utf8(next).ok().filter(|next| is_own(next));
        Some(Kept {
            secret: secret.to_owned(),
            next: next.unwrap_or_else(|| FRONT.to_owned()),
        })
    }

    fn write(&self) -> String {
        format!("{}.{}", self.secret, URL_SAFE_NO_PAD.encode(&self.next))
    }
}

fn parameters(uri: &Uri) -> BTreeMap<String, String> {
    let query = uri.query().unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).into_owned().collect()
}

/// Leads to the provider.
pub(in super::super) async fn begin(
    State(console): State<Arc<Console>>,
    uri: Uri,
) -> Result<Response<Body>, Refused> {
    let flow = flow(&console)?;
    let next = parameters(&uri).remove("next").filter(|next| is_own(next));
    let kept = Kept {
        secret: session::new_token().map_err(|error| super::broken(&error))?,
        next: next.unwrap_or_else(|| FRONT.to_owned()),
    };
    let back = format!("{}{RETURN}", console.url);
    let begun = flow.begin(&console.service.outgoing, Attempt(&kept.secret), &back);
    match begun.await {
        Ok(address) => {
            let mut response = see_other(&address);
            let cookie = console.set_cookie(Cookie::Login, &kept.write(), AT_PROVIDER);
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            Ok(response)
        }
        Err(error) => Ok(refuse(&console, &error, &kept.next)),
    }
}

/// Ends the login of a browser that returns from the provider.
pub(in super::super) async fn finish(
    State(console): State<Arc<Console>>,
    request: Request,
) -> Result<Response<Body>, Refused> {
    let flow = flow(&console)?;
    let client = client(&request);
    // The failures of those before count.
    let _turn = console.finishing.acquire().await;
    if let Some(refusal) = wait(&console, client) {
        return Ok(refusal);
    }
    let origin = Origin::of_console(request.extensions());
    let answer = parameters(request.uri());
    let kept = console.cookie(Cookie::Login, request.headers());
    let Some(kept) = kept.as_deref().and_then(Kept::read) else {
        return Ok(refuse(&console, &LoginError::State, FRONT));
    };
    let service = &console.service;
    let back = format!("{}{RETURN}", console.url);
    let others = (&service.identity_providers, &service.outgoing);
    let finished = flow.finish(others, Attempt(&kept.secret), &back, &answer);
    let person = match finished.await {
        Ok(person) => person,
        Err(error) => {
            if error.counts() {
                console.logins.failed(client, Instant::now());
            }
            return Ok(refuse(&console, &error, &kept.next));
        }
    };
    let begun = log_in(&console, flow.provider(), person, origin).await;
    let begun = begun.map_err(|error| super::broken(&error))?;
    let mut response = again(&kept.next);
    let headers = response.headers_mut();
    for cookie in [
        console.set_cookie(Cookie::Session, &begun.token, begun.lasts),
        console.set_cookie(Cookie::Login, "", Duration::ZERO),
    ] {
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn flow(console: &Console) -> Result<&CodeFlow, Refused> {
    console.service.login.as_ref().ok_or_else(|| {
        super::super::response::refuse_nobody(
            StatusCode::NOT_FOUND,
            "This console has no login at an identity provider: console.login is not set.",
        )
    })
}

/// Begins a session with a key of its own, which has the rights of the person's role.
async fn log_in(
    console: &Console,
    provider: &str,
    person: Person,
    origin: Origin,
) -> Result<Begun, ApiError> {
    let lasts = console.session;
    let account = &console.service.settings.partition.account_id;
    let (role, name) = (&person.role, &person.name);
    let new = NewKey {
        role: person.rights.role,
        arn: format!("arn:aws:sts::{account}:assumed-role/{role}/{name}"),
        lifetime: Some(lasts),
        scopes: person.rights.scopes,
        subject: Some(person.subject.chars().take(LONGEST_SUBJECT).collect()),
    };
    let names = BTreeMap::from([
        ("identityProvider".to_owned(), provider.to_owned()),
        ("role".to_owned(), person.role),
    ]);
    let begun = console
        .service
        .transact(move |service: &Service, context: &Context<'_>| {
            credentials::make_room(context.tx, context.now)?;
            let (tx, now) = (context.tx, context.now);
            let begun = session::begin_with_own_key(tx, &service.vault, now, new, lasts)?;
            let Some((token, principal)) = begun else {
                return Err(ErrorName::InternalFailure.because("The session ended at once."));
            };
            record(context, origin, principal, &names)?;
            Ok(token)
        });
    let token = begun.await?;
    Ok(Begun { token, lasts })
}

/// The page of the login with the reason of a failure.
fn refuse(console: &Console, error: &LoginError, next: &str) -> Response<Body> {
    let mut message = error.to_string();
    if matches!(error, LoginError::State) {
        message.push_str(&format!(
            " It may have begun more than ten minutes ago, or at another address than {}. Log in again.",
            console.url
        ));
    }
    tracing::info!(reason = message, "login refused");
    let fields = BTreeMap::from([("next".to_owned(), next.to_owned())]);
    let status = match error.is_outage() {
        true => StatusCode::BAD_GATEWAY,
        false => StatusCode::FORBIDDEN,
    };
    let mut response = html(status, &Login::new(console, &fields, Some(message.clone())));
    let name = match error.is_outage() {
        true => ErrorName::IdentityProviderCommunication,
        false => ErrorName::UnrecognizedClient,
    };
    crate::http::refused(&mut response, &name.because(message));
    response
}
