//! The rows between a state change and the receivers of its messages.

use std::collections::HashMap;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;

use super::message::{self, Deployment, Notification, NotifiedTarget, State, Undoes};
use crate::config::events::{Events, Receiver};
use crate::error::ApiError;
use crate::records::state_changes::{self, StateChange};
use crate::records::{self, Record, overview};
use crate::registry::groups;
use crate::request::Trigger;
use crate::store::{SqlError, Tx, named};
use crate::transaction::Context;

/// The number of changes that one transaction turns into messages.
const BATCH: usize = 200;

/// A message that was not accepted for this long is dropped.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The delays between attempts start at one second and double each time.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The number of times that a message is sent to a receiver that rejects it; the message need not
/// be the cause.
const MOST_REFUSALS: u32 = 6;

/// The largest number of messages that wait for a receiver, and the number that is kept when there
/// are more.
const MOST: usize = 10_000;
const KEPT: usize = 9_000;

/// A message for one receiver.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub sequence: i64,
    /// Present for messages in SNS's format.
    pub topic: Option<String>,
    pub body: String,
    pub made: Timestamp,
    pub attempts: u32,
    pub due: Timestamp,
}

/// Starts or stops recording changes; drops messages for receivers that are no longer configured.
pub(super) fn listen(context: &Context<'_>, events: &Events) -> Result<(), ApiError> {
    let urls: Vec<&str> = events
        .receivers()
        .map(|receiver| receiver.url.as_str())
        .collect();
    state_changes::listen(context.tx, !urls.is_empty())?;
    let used: Vec<String> =
        context
            .tx
            .query_all("SELECT DISTINCT url FROM messages", (), |row| row.get(0))?;
    for url in used.iter().filter(|url| !urls.contains(&url.as_str())) {
        context
            .tx
            .execute("DELETE FROM messages WHERE url = ?1", [url])?;
    }
    Ok(())
}

/// Turns recorded state changes into messages. Returns whether there may be more.
pub(super) fn compose(context: &Context<'_>, events: &Events) -> Result<bool, ApiError> {
    let changes = state_changes::oldest(context.tx, BATCH)?;
    let mut known = HashMap::new();
    for change in &changes {
        if let (true, Some(host)) = (change.deployment_id.is_empty(), &change.target) {
            let body = message::of_host(context.partition, change, host)?;
            for Receiver { url, .. } in &events.webhooks {
                send(context, url, None, &body)?;
            }
            continue;
        }
        match notification(context, &mut known, change) {
            Ok(Some(notification)) => address(context, events, &notification)?,
            Ok(None) => {}
            // An unreadable record must not hold back the messages of other deployments.
            Err(error) => {
                let deployment_id = &change.deployment_id;
                tracing::error!(deployment_id, %error, "a change cannot be told of");
            }
        }
    }
    if let Some(last) = changes.last() {
        state_changes::drop_until(context.tx, last.sequence)?;
        for receiver in events.receivers() {
            bound(context.tx, receiver)?;
        }
    }
    Ok(changes.len() == BATCH)
}

/// Drops the oldest messages for a receiver that accepts none.
fn bound(tx: &Tx<'_>, receiver: &Receiver) -> Result<(), SqlError> {
    let waiting: usize = tx.query_one(
        "SELECT count(*) FROM messages WHERE url = ?1",
        [&receiver.url],
        |row| row.get(0),
    )?;
    if waiting > MOST {
        let dropped = tx.execute(
            "DELETE FROM messages WHERE url = ?1 AND sequence <= (
                 SELECT sequence FROM messages WHERE url = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2)",
            (&receiver.url, KEPT),
        )?;
        let receiver = crate::outgoing::place(&receiver.url);
        tracing::error!(
            receiver,
            dropped,
            "the oldest messages were dropped: too many wait for their receiver"
        );
    }
    Ok(())
}

/// Returns the notification of a state change; `None` for a deployment that is gone: its group was
/// deleted, and earlier changes were reported then.
fn notification(
    context: &Context<'_>,
    known: &mut HashMap<String, Deployment>,
    change: &StateChange,
) -> Result<Option<Notification>, ApiError> {
    let id = &change.deployment_id;
    if !known.contains_key(id) {
        known.extend(deployment(context, id)?.map(|found| (id.clone(), found)));
    }
    let (Some(deployment), Some(state)) = (known.get(id), State::of(&change.status)) else {
        return Ok(None);
    };
    let mut deployment = deployment.clone();
    let target = match &change.target {
        Some(target) => {
            // A host that left the deployment is reported without its lifecycle events.
            let found = records::Target::named(context.tx, id, &target.id)?;
            let events = found.map(|found| found.state.events).unwrap_or_default();
            Some(NotifiedTarget {
                id: target.id.clone(),
                arn: target.arn.clone(),
                events,
            })
        }
        None => None,
    };
    // It is reported as it was then, even if it has continued since.
    if target.is_none() && state == State::Start {
        deployment.completed = None;
        deployment.overview = None;
        deployment.error = None;
    }
    Ok(Some(Notification {
        id: crate::ids::new_id()?,
        time: change.time,
        state,
        target,
        deployment,
    }))
}

fn deployment(context: &Context<'_>, id: &str) -> Result<Option<Deployment>, ApiError> {
    let Some(record) = Record::load(context.tx, id)? else {
        return Ok(None);
    };
    let overview = match record.progress.started() {
        Some(_) => Some(overview(context.tx, id)?),
        None => None,
    };
    Ok(Some(Deployment {
        created: record.created,
        completed: record.progress.completed(),
        overview,
        error: record.error().cloned(),
        undoes: record.rolls_back().map(|id| {
            let message = record
                .relations
                .rollback
                .and_then(|rollback| rollback.rollback_message);
            Undoes { id, message }
        }),
        id: record.id,
        application: record.application_name,
        group: record.group_name,
        group_id: record.group_id,
    }))
}

/// Stores the messages of a notification for all its receivers.
fn address(
    context: &Context<'_>,
    events: &Events,
    notification: &Notification,
) -> Result<(), ApiError> {
    let body = notification.event_bridge(context.partition);
    for Receiver { url, .. } in &events.webhooks {
        send(context, url, None, &body)?;
    }
    let types = notification.trigger_events();
    let group = groups::by_id(context, &notification.deployment.group_id)?;
    for Trigger {
        name,
        topic,
        events: wanted,
    } in group.iter().flat_map(|group| group.settings.triggers())
    {
        let Some(Receiver { url, .. }) = events.topics.get(topic) else {
            continue;
        };
        // The start of a rollback has two types, but is one message.
        if wanted.iter().any(|event| types.contains(&event.as_str())) {
            send(
                context,
                url,
                Some(topic),
                &notification.sns(context.partition, topic, name),
            )?;
        }
    }
    Ok(())
}

fn send(context: &Context<'_>, url: &str, topic: Option<&str>, body: &str) -> Result<(), ApiError> {
    context.tx.execute(
        "INSERT INTO messages (url, topic, body, made, due) VALUES (:url, :topic, :body, :now, :now)",
        named! {":url": url, ":topic": topic, ":body": body, ":now": context.now},
    )?;
    Ok(())
}

/// Returns the oldest message for a receiver: later ones wait for it, so that they arrive in order.
pub(super) fn first(context: &Context<'_>, url: &str) -> Result<Option<Message>, ApiError> {
    let message = context.tx.query_opt(
        "SELECT * FROM messages WHERE url = ?1 ORDER BY sequence LIMIT 1",
        [url],
        |row| {
            Ok(Message {
                sequence: row.get("sequence")?,
                topic: row.get("topic")?,
                body: row.get("body")?,
                made: row.get("made")?,
                attempts: row.get("attempts")?,
                due: row.get("due")?,
            })
        },
    )?;
    Ok(message)
}

/// Returns the number of messages that wait for each receiver, and the time of the oldest.
pub(crate) fn waiting(tx: &Tx<'_>) -> Result<Vec<(String, i64, Timestamp)>, SqlError> {
    tx.query_all(
        "SELECT url, count(*), min(made) FROM messages GROUP BY url",
        (),
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
}

/// The next step after an attempt to deliver a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Done,
    GiveUp,
    Again(Timestamp),
}

/// The reaction of a receiver to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reception {
    Taken,
    /// It rejects the message, and will again.
    Refused,
    /// It cannot accept any, or does not let us in, for now.
    Away,
}

impl Reception {
    pub(super) fn of(status: u16) -> Self {
        match status {
            200..=299 => Reception::Taken,
            // Not let in, not there yet, too slow, too early, too much: somebody can fix these.
            401 | 403 | 404 | 408 | 425 | 429 => Reception::Away,
            400..=499 => Reception::Refused,
            _ => Reception::Away,
        }
    }
}

impl Message {
    /// Whether it can be sent: also if the clock was set back and its time is farther away than any
    /// pause.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.due <= now || self.due > now + LONGEST_PAUSE
    }

    /// The next step after an attempt.
    pub(super) fn next(&self, reception: Reception, now: Timestamp) -> Next {
        let pause = Duration::from_secs(1) * 2u32.saturating_pow(self.attempts.min(10));
        match reception {
            Reception::Taken => Next::Done,
            Reception::Refused if self.attempts + 1 >= MOST_REFUSALS => Next::GiveUp,
            _ if now.since(self.made) > GIVE_UP_AFTER => Next::GiveUp,
            _ => Next::Again(now + pause.min(LONGEST_PAUSE)),
        }
    }
}

pub(super) fn settle(context: &Context<'_>, sequence: i64, next: Next) -> Result<(), ApiError> {
    match next {
        Next::Done | Next::GiveUp => context
            .tx
            .execute("DELETE FROM messages WHERE sequence = ?1", [sequence])?,
        Next::Again(due) => context.tx.execute(
            "UPDATE messages SET attempts = attempts + 1, due = ?2 WHERE sequence = ?1",
            (sequence, due),
        )?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_repeated_ever_more_seldom_for_a_day() {
        let made = Timestamp::from_millis(1_000_000);
        let message = |attempts| Message {
            sequence: 1,
            topic: None,
            body: String::new(),
            made,
            attempts,
            due: made,
        };
        let (taken, away) = (Reception::of(204), Reception::of(503));
        assert_eq!(message(0).next(taken, made), Next::Done);
        assert_eq!(
            message(0).next(away, made),
            Next::Again(made + Duration::from_secs(1))
        );
        assert_eq!(
            message(3).next(away, made),
            Next::Again(made + Duration::from_secs(8))
        );
        assert_eq!(
            message(900).next(away, made),
            Next::Again(made + LONGEST_PAUSE)
        );
        let late = made + GIVE_UP_AFTER + Duration::from_secs(1);
        assert_eq!(message(900).next(away, late), Next::GiveUp);
        assert_eq!(message(900).next(taken, late), Next::Done);
        // A rejected message is not retried for a day while others wait behind it.
        assert_eq!(
            message(4).next(Reception::of(422), made),
            Next::Again(made + Duration::from_secs(16))
        );
        assert_eq!(message(5).next(Reception::of(422), made), Next::GiveUp);
        assert_eq!(
            message(5).next(Reception::of(429), made),
            Next::Again(made + Duration::from_secs(32))
        );
        // The clock was set back.
        assert!(
            !Message {
                due: made + LONGEST_PAUSE,
                ..message(9)
            }
            .is_due(made)
        );
        assert!(
            Message {
                due: made + LONGEST_PAUSE * 2,
                ..message(9)
            }
            .is_due(made)
        );
    }

    #[test]
    fn the_newest_messages_are_kept_for_a_receiver_that_takes_none() {
        let store = crate::store::Store::in_memory().unwrap();
        let receiver = |url: &str| Receiver {
            url: url.into(),
            authorization: None,
        };
        let send = "INSERT INTO messages (url, body, made, due)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
            SELECT ?1, i, 0, 0 FROM n";
        let waiting = "SELECT count(*), min(CAST(body AS INTEGER)), max(CAST(body AS INTEGER)) FROM messages WHERE url = ?1";
        let found = store.transact_blocking(move |tx| {
            let kept = |url: &str, number: usize| -> Result<(usize, usize, usize), SqlError> {
                tx.execute(send, (url, number))?;
                bound(tx, &receiver(url))?;
                tx.query_one(waiting, [url], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
            };
            let both = (kept("http://few", MOST)?, kept("http://many", MOST + 1)?);
            Ok::<_, crate::error::ApiError>(both)
        });
        let expected = ((MOST, 1, MOST), (KEPT, MOST + 2 - KEPT, MOST + 1));
        assert_eq!(found.unwrap(), expected);
    }
}
