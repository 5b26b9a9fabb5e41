//! Live pages: the parts of a page that change, as events of a stream.
//!
//! A page marks its parts with comments, which no text of others can contain. The stream renders
//! the page again after each change in the service, once a second at most, and sends the parts that
//! differ from those that the browser has.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::page::{self, Page};
use super::response::json;
use super::visit::Visit;
use crate::error::ErrorName;

/// The shortest time between two updates.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest: silence is not announced.
const LOOK: Duration = Duration::from_secs(10);

/// The longest list of versions that a browser sends, in bytes.
const MAX_HAVE: usize = 8 * 1024;

const BEGIN: &str = "<!--live:";
const END: &str = "<!--/live-->";

/// The place in the layout for the versions of the parts.
const VERSIONS: &str = "data-live=\"?\"";

/// A part of a page.
struct Part<'a> {
    id: &'a str,
    content: &'a str,
    version: String,
}

/// The parts of a page, in their order.
fn parts(page: &str) -> Vec<Part<'_>> {
    let pieces = page.split(BEGIN).skip(1);
    let parts = pieces.filter_map(|piece| {
        let (id, rest) = piece.split_once("-->")?;
        let (content, _) = rest.split_once(END)?;
        Some(Part {
            id,
            content,
            version: version(content),
        })
    });
    parts.collect()
}

/// The version of a part. Times since a moment are no change: the browser counts them itself.
fn version(content: &str) -> String {
    let mut text = String::with_capacity(content.len());
    let mut pieces = content.split("<time ");
    text.extend(pieces.next());
    for piece in pieces {
        let (moment, rest) = piece.split_once("</time>").unwrap_or((piece, ""));
        text.extend(moment.split('>').next());
        text += rest;
    }
    let digest = digest(&SHA256, text.as_bytes());
    hex::encode(digest.as_ref().get(..4).unwrap_or_default())
}

/// Adds the versions of its parts to a page.
pub(super) fn marked(page: String) -> String {
    if !page.contains(VERSIONS) {
        return page;
    }
    let found = parts(&page);
    let versions = found
        .iter()
        .map(|part| format!("{}={}", part.id, part.version));
    let versions = versions.collect::<Vec<_>>().join(",");
    page.replacen(VERSIONS, &format!("data-live=\"{versions}\""), 1)
}

/// A stream to one browser.
struct Stream {
    visit: Visit,
    /// The versions of the parts that the browser has.
    known: BTreeMap<String, String>,
    news: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    rendered: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

/// Streams the parts of a page that change.
pub(super) fn stream<P: Page>(visit: Visit) -> Response<Body> {
    let console = &visit.console;
    let Ok(permit) = console.live.clone().try_acquire_owned() else {
        let error = ErrorName::InternalFailure
            .because("Too many pages are live; load this one again to see changes.");
        return json(StatusCode::SERVICE_UNAVAILABLE, &error.body());
    };
    let have = visit.have.get(..MAX_HAVE).unwrap_or(&visit.have);
    let known = have.split(',').filter_map(|part| part.split_once('='));
    let known = known.map(|(id, version)| (id.to_owned(), version.to_owned()));
    let stream = Stream {
        known: known.collect(),
        news: console.service.signals.news.subscribe(),
        stopping: console.service.stopping(),
        rendered: None,
        _permit: permit,
        visit,
    };
    let updates = stream::unfold(stream, async |mut stream| {
        let events = stream.next::<P>().await?;
        Some((
            stream::iter(events.into_iter().map(Ok::<_, Infallible>)),
            stream,
        ))
    });
    Sse::new(updates.flatten())
        .keep_alive(KeepAlive::new())
        .into_response()
}

impl Stream {
    /// Waits for something new, and returns the changed parts; `None` at the end of the session or
    /// of the service.
    async fn next<P: Page>(&mut self) -> Option<Vec<Event>> {
        if let Some(rendered) = self.rendered {
            let next = async {
                // An error means that the service is gone.
                let _ = tokio::time::timeout(LOOK, self.news.changed()).await;
                tokio::time::sleep_until(rendered + PAUSE).await;
            };
            tokio::select! {
                () = next => {}
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            }
        }
        if !self.visit.is_still_good().await {
            return None;
        }
        self.news.mark_unchanged();
        let turn = self.visit.console.rendering.lock().await;
        let page = self.visit.read(P::OPERATIONS, page::rendered::<P>).await;
        drop(turn);
        self.rendered = Some(Instant::now());
        Some(self.changed(&page.ok()?))
    }

    fn changed(&mut self, page: &str) -> Vec<Event> {
        let mut changed = Vec::new();
        for part in parts(page) {
            if self.known.get(part.id) != Some(&part.version) {
                self.known.insert(part.id.to_owned(), part.version);
                changed.push((part.id, part.content));
            }
        }
        let have: Vec<String> = self
            .known
            .iter()
            .map(|(id, version)| format!("{id}={version}"))
            .collect();
        let have = have.join(",");
        let last = changed.len().saturating_sub(1);
        let events = changed
            .into_iter()
            .enumerate()
            .map(|(number, (id, content))| {
                let event = Event::default()
                    .event("part")
                    .data(format!("{id}\n{content}"));
                // A browser that reconnects sends the last id.
                if number == last {
                    event.id(&have)
                } else {
                    event
                }
            });
        events.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_times_are_no_change() {
        let page = |time: &str, word: &str| {
            format!(
                "<main data-live=\"?\"><p id=\"a\"><!--live:a-->{word} <time datetime=\"x\">{time}</time>!<!--/live--></p>\
                 <p id=\"b\"><!--live:b-->same<!--/live--></p></main>"
            )
        };
        let versions = |page: &str| -> Vec<(String, String)> {
            let parts = parts(page).into_iter();
            parts
                .map(|part| (part.id.to_owned(), part.version))
                .collect()
        };
        let before = versions(&page("1s ago", "Deploying"));
        assert_eq!(before.len(), 2);
        assert_eq!(before, versions(&page("9m ago", "Deploying")));
        let after = versions(&page("1s ago", "Failed"));
        assert!(before[0] != after[0] && before[1] == after[1]);
        let marked = marked(page("1s ago", "Failed"));
        assert!(
            marked.contains(&format!("data-live=\"a={},b={}\"", after[0].1, after[1].1)),
            "{marked}"
        );
    }
}
