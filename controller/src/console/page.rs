//! From a page to its response: HTML, JSON, or a stream of its parts.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::{MethodRouter, get};
use serde::Serialize;

use super::response::{HTML, JSON, text, with_kind, written};
use super::visit::{Asked, Format, Outside, Visit};
use super::{Console, live};
use crate::error::ApiError;
use crate::transaction::Context;

/// A page of the console.
pub(super) trait Page: Template + Sized + Send + 'static {
    /// The content for programs.
    type Document: Serialize;

    /// Its name in the metrics.
    const NAME: &'static str;

    /// The operations whose answers it shows: whoever may not call one of them does not see it.
    const OPERATIONS: &'static [&'static str];

    /// Reads everything that it shows.
    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError>;

    fn document(&self) -> &Self::Document;

    /// Asks others than the database, before the page is read.
    fn ask(_: &Visit) -> impl Future<Output = Outside> + Send {
        std::future::ready(Outside::default())
    }
}

/// The route of a page.
pub(super) fn page<P: Page>() -> MethodRouter<Arc<Console>> {
    get(async |visit: Visit| {
        let mut response = answer::<P>(visit).await;
        response.extensions_mut().insert(super::kind(P::NAME));
        response
    })
}

async fn answer<P: Page>(mut visit: Visit) -> Response<Body> {
    if visit.format != Format::Live {
        visit.asked.outside = P::ask(&visit).await;
    }
    let read = match visit.format {
        Format::Live => return live::stream::<P>(visit),
        // A page is rendered where it is read, beside other requests.
        Format::Html => visit.read(P::OPERATIONS, |context, asked| {
            rendered::<P>(context, asked)
        }),
        Format::Json => {
            let written = visit
                .read(P::OPERATIONS, |context, asked| {
                    written(P::read(context, asked)?.document())
                })
                .await;
            return match written {
                Ok(text) => with_kind(StatusCode::OK, JSON, text),
                Err(error) => visit.refuse(&error).into_response(),
            };
        }
    };
    match read.await {
        Ok(text) => with_kind(StatusCode::OK, HTML, live::marked(text)),
        Err(error) => visit.refuse(&error).into_response(),
    }
}

/// The text of a page, which no browser mistakes for another.
pub(super) fn rendered<P: Page>(context: &Context<'_>, asked: &Asked) -> Result<String, ApiError> {
    text(&P::read(context, asked)?)
}
