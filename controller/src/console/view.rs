//! Values as pages show them: state by word, shape and colour; times as elements that stay true.

use std::fmt;

use askama::filters::HtmlSafe;
use codedeploy_api::codedeploy::{DeploymentStatus, Timestamp};
use codedeploy_planner::deployment_state::Stage;
use codedeploy_planner::plan::Class;
use codedeploy_support::timestamp::rfc3339;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;

use crate::records::squares::Square;
use crate::words;

/// A moment: the time since it or until it in words, and its date.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    time: Timestamp,
    now: Timestamp,
}

impl When {
    pub(super) fn new(time: Timestamp, now: Timestamp) -> Self {
        When { time, now }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(self.time.millis());
        let exact = rfc3339(moment);
        // Milliseconds are noise for people.
        let (seconds, words) = (
            exact.get(..19).unwrap_or_default(),
            match self.time > self.now {
                true => format!("in {}", words::span(self.time.since(self.now))),
                false => format!("{} ago", words::span(self.now.since(self.time))),
            },
        );
        let date = seconds.replace('T', " ");
        write!(
            f,
            "<time datetime=\"{seconds}Z\" title=\"{date} UTC\">{words}</time>"
        )
    }
}

/// It writes digits and words of its own.
impl HtmlSafe for When {}

/// The meaning of a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    /// Something happens now.
    Busy,
    /// Somebody has to do something.
    Waits,
    /// Neither good nor bad.
    Calm,
    /// Something that is over.
    Past,
}

impl Tone {
    /// Its class in the style.
    pub(super) fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Bad => "bad",
            Tone::Busy => "busy",
            Tone::Waits => "waits",
            Tone::Calm => "calm",
            Tone::Past => "past",
        }
    }

    /// Its shape, for those who do not see colours.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Tone::Good => "●",
            Tone::Bad => "▲",
            Tone::Busy => "◐",
            Tone::Waits => "◆",
            Tone::Calm | Tone::Past => "○",
        }
    }
}

/// A state in a word, with a shape and a colour.
#[derive(Debug, Clone)]
pub(super) struct Chip {
    pub(super) tone: Tone,
    pub(super) word: String,
}

impl Chip {
    pub(super) fn new(tone: Tone, word: impl Into<String>) -> Self {
        Chip {
            tone,
            word: word.into(),
        }
    }

    /// The status of a deployment at present.
    pub(super) fn of_status(status: Option<&DeploymentStatus>) -> Self {
        let (tone, word) = match status {
            Some(DeploymentStatus::Succeeded) => (Tone::Good, "Succeeded"),
            Some(DeploymentStatus::Failed) => (Tone::Bad, "Failed"),
            Some(DeploymentStatus::Stopped) => (Tone::Bad, "Stopped"),
            Some(DeploymentStatus::Ready) => (Tone::Waits, "Waits for you"),
            Some(DeploymentStatus::Created | DeploymentStatus::Queued) => (Tone::Busy, "Starting"),
            Some(DeploymentStatus::InProgress) => (Tone::Busy, "Deploying"),
            other => (
                Tone::Calm,
                other.map_or("Unknown", |status| status.as_str()),
            ),
        };
        Chip::new(tone, word)
    }

    /// The same of something that is over.
    pub(super) fn past(self) -> Self {
        Chip {
            tone: Tone::Past,
            ..self
        }
    }
}

/// A bar of parts of a whole, from left to right, each with its tone.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) parts: Vec<BarPart>,
}

#[derive(Debug, Clone)]
pub(super) struct BarPart {
    pub(super) tone: Tone,
    /// In thousandths of the width.
    pub(super) start: usize,
    pub(super) width: usize,
}

/// The width of a part that would be too narrow to be seen.
const NARROWEST: usize = 8;

impl Bar {
    /// Every part that is not empty is visible.
    pub(super) fn new(counts: &[(Tone, usize)]) -> Self {
        let total: usize = counts.iter().map(|(_, count)| count).sum();
        let counts = counts.iter().filter(|(_, count)| *count > 0);
        let mut parts: Vec<BarPart> = counts
            .map(|(tone, count)| BarPart {
                tone: *tone,
                start: 0,
                width: (count * 1000 / total).max(NARROWEST),
            })
            .collect();
        let sum: usize = parts.iter().map(|part| part.width).sum();
        if let Some(widest) = parts.iter_mut().max_by_key(|part| part.width) {
            widest.width = (widest.width + 1000).saturating_sub(sum);
        }
        let mut start = 0;
        for part in &mut parts {
            part.start = start;
            start += part.width;
        }
        Bar { parts }
    }
}

/// Letters, digits and marks that stay in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A text as one segment of a path, or as a value in a query.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The path of a deployment group.
pub(super) fn group_path(application: &str, group: &str) -> String {
    format!(
        "/console/groups/{}/{}",
        segment(application),
        segment(group)
    )
}

/// The path of a deployment.
pub(super) fn deployment_path(id: &str) -> String {
    format!("/console/deployments/{}", segment(id))
}

/// The path of a host in a deployment.
pub(super) fn target_path(deployment: &str, host: &str) -> String {
    format!("{}/hosts/{}", deployment_path(deployment), segment(host))
}

/// The class of a target for a stage: one that waits for a later stage has done this one.
pub(super) fn in_stage(square: &Square, stage: Stage) -> Class {
    match square.class {
        Class::Waiting if square.stage > stage => Class::Succeeded,
        class => class,
    }
}

/// The path of a host.
pub(super) fn host_path(name: &str) -> String {
    format!("/console/hosts/{}", segment(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_element_with_its_date() {
        let moment = Timestamp::from_millis(1_796_115_600_120);
        let later = Timestamp::from_millis(1_796_115_720_000);
        assert_eq!(
            When::new(moment, later).to_string(),
            "<time datetime=\"2026-12-01T09:00:00Z\" title=\"2026-12-01 09:00:00 UTC\">1m ago</time>"
        );
        assert!(When::new(later, moment).to_string().contains(">in 1m<"));
    }

    #[test]
    fn bars_are_whole_and_show_every_part() {
        let bar = Bar::new(&[
            (Tone::Good, 9998),
            (Tone::Bad, 1),
            (Tone::Calm, 1),
            (Tone::Busy, 0),
        ]);
        let widths: Vec<usize> = bar.parts.iter().map(|part| part.width).collect();
        assert_eq!((widths.len(), widths.iter().sum::<usize>()), (3, 1000));
        assert!(Bar::new(&[]).parts.is_empty());
    }
}
