//! The web console: pages for operators, rendered here. Each shows what the operations of the APIs
//! return, for the same rights, and its forms call them.
//!
//! A request passes these stages:
//!
//! 1. [`visit`] finds the session of its cookie in the database ([`session`]), and with it the
//!    access key that the user acts as. Without a session, it leads to [`login`].
//! 2. A [`Page`](page::Page) reads everything that it shows in one read transaction, as the caller
//!    of the operations that it names, and renders its template in it.
//! 3. [`page`] makes the [`response`]: HTML, the page's document (`?format=json`), or a stream of the
//!    parts that change (`?format=live`, [`live`]).
//! 4. A form is a [`Posted`](visit::Posted): its origin and its token are checked, and it performs
//!    an operation, which checks the rights again and records the change.
//!
//! # How to add a page
//!
//! A page is a struct, a template and a route:
//!
//! ```text
//! #[derive(Template)]
//! #[template(path = "audit.html")]                 // begins with {% extends "layout.html" %}
//! pub(super) struct AuditPage {
//!     frame: Frame,                                // the layout shows it
//!     found: ListAuditEntriesOutput,
//! }
//!
//! impl Page for AuditPage {
//!     type Document = ListAuditEntriesOutput;      // what ?format=json returns
//!     const NAME: &'static str = "Audit";          // in the metrics
//!     const OPERATIONS: &'static [&'static str] = &["ListAuditEntries"];
//!
//!     fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
//!         let input = ListAuditEntriesInput { next_token: asked.get("next"), ..Default::default() };
//!         let found = audit::list(context, Request::check(input)?)?;
//!         Ok(AuditPage { frame: asked.frame("Audit", ["codedeploy-controller audit".to_owned()]), found })
//!     }
//!
//!     fn document(&self) -> &Self::Document { &self.found }
//! }
//!
//! .route("/console/audit", page::<AuditPage>())    // in router(), and in frame::PAGES for the navigation
//! ```
//!
//! `asked.get("name")` has the parameters of the path and of the query. A template shows a form only
//! if `asked.may("StopDeployment")`; the form posts `frame.csrf()` in the field `csrf`. Times are
//! [`When`](view::When), states are [`Chip`](view::Chip): both words and colour. Elements between
//! `<!--live:ID-->` and `<!--/live-->`, alone in an element with the id `ID`, change while the page
//! is open, if its frame is [`live`](frame::Frame::live). History is not drawn in the colours of the
//! present: its chips are [`Tone::Past`](view::Tone::Past).
//!
//! Texts of others need no care in templates: they are escaped, and [`response`] removes control
//! characters and marks that reorder text from every page and document.

mod assets;
mod audit;
mod board;
mod comparison;
mod deploy;
mod deployment;
mod deployments;
mod failure;
mod frame;
mod group;
mod host;
mod hosts;
mod inbox;
mod live;
mod login;
mod matrix;
mod page;
mod response;
mod rollback;
pub(crate) mod session;
mod settings;
mod target;
mod throttle;
mod view;
mod visit;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use axum::middleware::map_response;
use axum::routing::{get, post};
use tokio::sync::{Mutex, Semaphore};

use crate::config::Tls;
use crate::http::Kind;
use crate::service::Service;
use login::by_provider;
use page::page;
use throttle::Throttle;
use visit::Visit;

/// The path of the first page.
const FRONT: &str = "/console/";

/// The path of the login.
const LOGIN: &str = "/console/login";

/// The largest number of pages that are live at a time; others stay as they were loaded.
const MOST_LIVE: usize = 64;

/// The number of logins at a provider that end at the same time.
const MOST_FINISHING: usize = 8;

/// The state of the console.
#[derive(Debug)]
struct Console {
    service: Arc<Service>,
    /// The time after which users must log in again.
    session: Duration,
    /// The URL for browsers, without a path.
    url: String,
    /// Whether browsers reach it by TLS only.
    is_secure: bool,
    logins: Throttle,
    /// Those who return from the identity provider take turns.
    finishing: Semaphore,
    live: Arc<Semaphore>,
    /// Live pages are rendered one after the other, so that they leave time for other requests.
    rendering: Mutex<()>,
    /// Bundles are compared one after the other.
    comparing: Arc<Mutex<()>>,
}

/// The console of a service with a URL for browsers, if it is on.
pub(crate) fn router(service: &Arc<Service>, url: String) -> Option<Router> {
    let settings = &service.settings;
    let session = settings.console.as_ref()?.session;
    let by_proxy = settings.endpoint.as_ref().is_some_and(|url| url.is_tls());
    let console = Arc::new(Console {
        service: Arc::clone(service),
        session,
        url,
        is_secure: by_proxy || settings.tls != Tls::Off,
        logins: Throttle::default(),
        finishing: Semaphore::new(MOST_FINISHING),
        live: Arc::new(Semaphore::new(MOST_LIVE)),
        rendering: Mutex::default(),
        comparing: Arc::default(),
    });
    let front = get(async || response::see_other(FRONT));
    let router = Router::new()
        .route("/", front.clone())
        .route("/console", front)
        .route(FRONT, page::<matrix::Matrix>())
        .route("/console/deployments", page::<deployments::Deployments>())
        .route(
            "/console/deployments/{id}",
            page::<deployment::Deployment>(),
        )
        .route("/console/deployments/{id}/stop", post(deployment::stop))
        .route(
            "/console/deployments/{id}/continue",
            post(deployment::proceed),
        )
        .route(
            "/console/deployments/{id}/hosts/{host}",
            page::<target::TargetPage>(),
        )
        .route(
            "/console/groups/{application}/{group}/deploy",
            page::<deploy::Deploy>().post(deploy::deploy),
        )
        .route("/console/inbox", page::<inbox::Inbox>())
        .route("/console/hosts", page::<hosts::Hosts>())
        .route("/console/hosts/{name}", page::<host::HostPage>())
        .route("/console/audit", page::<audit::Audit>())
        .route(
            "/console/groups/{application}/{group}",
            page::<group::GroupPage>(),
        )
        .route(
            "/console/groups/{application}/{group}/rollback",
            page::<rollback::Rollback>().post(rollback::roll_back),
        )
        .route(LOGIN, get(login::form).post(login::log_in))
        .route(by_provider::BEGIN, get(by_provider::begin))
        .route(by_provider::RETURN, get(by_provider::finish))
        .route("/console/logout", post(login::log_out))
        .route("/console/assets/{name}", get(assets::get))
        .fallback(async |visit: Visit| visit.nowhere())
        .layer(map_response(protected))
        .with_state(console);
    Some(router)
}

/// Everything that a page loads is from here, and nothing is inside of it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Adds the headers that limit what a browser does with a response.
async fn protected(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Without a referrer, browsers would hide the origin of forms, too.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if response.extensions().get::<Kind>().is_none() {
        response.extensions_mut().insert(kind("other"));
    }
    response
}

/// The kind of a response, for the metrics.
fn kind(page: &'static str) -> Kind {
    Kind {
        api: "console",
        operation: page.into(),
    }
}
