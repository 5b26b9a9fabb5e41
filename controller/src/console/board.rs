//! The hosts of a deployment: a square for each, and a table of some.

use std::fmt::Write as _;

use codedeploy_api::codedeploy::{TargetLabel, TargetStatus};
use codedeploy_planner::deployment_state::{DeploymentState, Stage};
use codedeploy_planner::plan::Class;
use codedeploy_planner::strategy::Strategy;

use super::view::{Bar, Chip, Tone, When, deployment_path, in_stage, target_path};
use super::visit::Asked;
use crate::error::ApiError;
use crate::records::squares::{self, Square};
use crate::records::{Record, Target};
use crate::transaction::Context;
use crate::words;

/// The largest number of hosts whose squares are links with names.
pub(super) const NAMED: usize = 600;

/// The largest number of waves that are shown as such.
const WAVES: usize = 40;

/// The number of squares in a row of a large board.
const COLUMNS: usize = 100;

/// The number of hosts in a table.
const ROWS: usize = 50;

/// Hosts that begin together.
pub(super) struct Wave {
    pub(super) title: String,
    pub(super) counts: String,
    /// Squares with names, of a small fleet.
    pub(super) squares: Vec<Named>,
    /// The drawing of a large one.
    pub(super) drawing: Option<Drawing>,
}

/// A square with a name.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) href: String,
    pub(super) state: Chip,
}

/// Squares as lines of dashes, one path for each tone: thousands of squares take few bytes.
pub(super) struct Drawing {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) paths: Vec<(Tone, String)>,
}

/// The state of a square.
fn chip(class: Class) -> Chip {
    let (tone, word) = match class {
        Class::Waiting => (Tone::Calm, "waits"),
        Class::Offered => (Tone::Busy, "command offered"),
        Class::Performing => (Tone::Busy, "in progress"),
        Class::Succeeded => (Tone::Good, "done"),
        Class::Failed => (Tone::Bad, "failed"),
        Class::Skipped => (Tone::Past, "skipped"),
    };
    Chip::new(tone, word)
}

/// The stage by which squares are judged.
fn stage(record: &Record) -> Stage {
    match record.progress {
        DeploymentState::InProgress { stage, .. } => stage,
        DeploymentState::Ready { .. } | DeploymentState::Created => Stage::Deploy,
        DeploymentState::Ended { .. } => Stage::Block,
    }
}

/// The hosts by their state, as one bar.
pub(super) fn bar(all: &[Square], record: &Record) -> Bar {
    let stage = stage(record);
    let number = |tone: Tone| {
        let tones = all.iter().map(|square| chip(in_stage(square, stage)).tone);
        tones.filter(|found| *found == tone).count()
    };
    Bar::new(
        &[Tone::Good, Tone::Busy, Tone::Bad, Tone::Calm, Tone::Past]
            .map(|tone| (tone, number(tone))),
    )
}

/// The hosts in the order of attempt: by fleet, and in a fleet by the number that may be in progress
/// at a time.
pub(super) fn waves(all: &[Square], record: &Record) -> Vec<Wave> {
    let stage = stage(record);
    let mut waves = Vec::new();
    let fleets: &[Option<TargetLabel>] = match record.rules.strategy {
        Strategy::InPlace | Strategy::InPlaceBehindLoadBalancer => &[None],
        _ => &[Some(TargetLabel::Green), Some(TargetLabel::Blue)],
    };
    for label in fleets {
        let fleet: Vec<&Square> = all.iter().filter(|square| square.label == *label).collect();
        let name = match label {
            None => "Hosts",
            Some(TargetLabel::Green) => "Replacement instances (green)",
            Some(_) => "Original instances (blue)",
        };
        let deploys = *label == record.rules.strategy.fleet(Stage::Deploy);
        let budget = record.rules.minimum_healthy.budget(fleet.len()).ok();
        let size = budget
            .filter(|_| deploys)
            .map_or(fleet.len(), |budget| budget.parallel);
        let number = fleet.len().div_ceil(size.max(1));
        if size > 1 && (2..=WAVES).contains(&number) {
            for (place, wave) in fleet.chunks(size.max(1)).enumerate() {
                let title = format!("{name}: wave {} of {number}", place + 1);
                waves.push(Wave::new(title, wave, all.len(), record, stage));
            }
        } else if !fleet.is_empty() {
            let title = match size {
                size if size < fleet.len() => {
                    format!("{name}, {} at a time", words::number(size, "host", "hosts"))
                }
                _ => format!("{name}, all at once"),
            };
            let title = if deploys { title } else { name.to_owned() };
            waves.push(Wave::new(title, &fleet, all.len(), record, stage));
        }
    }
    waves
}

impl Wave {
    fn new(title: String, wave: &[&Square], all: usize, record: &Record, stage: Stage) -> Self {
        let classes: Vec<Class> = wave.iter().map(|square| in_stage(square, stage)).collect();
        let is_small = all <= NAMED;
        let named = wave.iter().zip(&classes).map(|(square, class)| Named {
            href: target_path(&record.id, &square.name),
            name: square.name.clone(),
            state: chip(*class),
        });
        Wave {
            title,
            counts: counts(&classes),
            squares: if is_small {
                named.collect()
            } else {
                Vec::new()
            },
            drawing: (!is_small).then(|| Drawing::of(&classes)),
        }
    }
}

/// `3 done, 1 failed, 6 wait`.
fn counts(classes: &[Class]) -> String {
    let number = |wanted: &[Class]| {
        classes
            .iter()
            .filter(|class| wanted.contains(class))
            .count()
    };
    let said = [
        (number(&[Class::Succeeded]), "done"),
        (number(&[Class::Failed]), "failed"),
        (number(&[Class::Offered, Class::Performing]), "in progress"),
        (number(&[Class::Waiting]), "waiting"),
        (number(&[Class::Skipped]), "skipped"),
    ];
    let said = said.iter().filter(|(number, _)| *number > 0);
    let said: Vec<String> = said
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
    said.join(", ")
}

impl Drawing {
    fn of(classes: &[Class]) -> Self {
        let mut paths: Vec<(Tone, String)> = Vec::new();
        for (row, classes) in classes.chunks(COLUMNS).enumerate() {
            let mut start = 0;
            for run in classes.chunk_by(|one, other| chip(*one).tone == chip(*other).tone) {
                let tone = run.first().map_or(Tone::Calm, |class| chip(*class).tone);
                let place = match paths.iter().position(|(known, _)| *known == tone) {
                    Some(place) => place,
                    None => {
                        paths.push((tone, String::new()));
                        paths.len() - 1
                    }
                };
                if let Some((_, path)) = paths.get_mut(place) {
                    // Writing to a text does not fail.
                    let _ = write!(path, "M{start} {row}.5h{}", run.len());
                }
                start += run.len();
            }
        }
        Drawing {
            columns: COLUMNS.min(classes.len()),
            rows: classes.len().div_ceil(COLUMNS),
            paths,
        }
    }
}

/// A table of hosts with a state, or of all.
pub(super) struct Hosts {
    pub(super) rows: Vec<Row>,
    pub(super) filters: Vec<Filter>,
    /// The address of the next ones.
    pub(super) next: Option<String>,
}

/// A link to the hosts with a state.
pub(super) struct Filter {
    pub(super) href: String,
    pub(super) label: &'static str,
    pub(super) is_current: bool,
}

/// A host.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) href: String,
    pub(super) state: Chip,
    pub(super) event: Option<String>,
    pub(super) updated: When,
}

const FILTERS: [(&str, &str, Option<[Class; 2]>); 5] = [
    ("", "All", None),
    ("failed", "Failed", Some([Class::Failed, Class::Failed])),
    (
        "busy",
        "In progress",
        Some([Class::Offered, Class::Performing]),
    ),
    ("waiting", "Waiting", Some([Class::Waiting, Class::Skipped])),
    ("done", "Done", Some([Class::Succeeded, Class::Succeeded])),
];

impl Hosts {
    pub(super) fn read(
        context: &Context<'_>,
        asked: &Asked,
        record: &Record,
    ) -> Result<Hosts, ApiError> {
        let wanted = asked.get("state").unwrap_or_default();
        let found = FILTERS.iter().find(|(name, ..)| *name == wanted);
        let (wanted, _, classes) = found.copied().unwrap_or(FILTERS[0]);
        let from = asked.get("from").and_then(|from| from.parse().ok());
        let found = squares::page(context.tx, &record.id, classes, from.unwrap_or(0), ROWS + 1)?;
        let path = deployment_path(&record.id);
        let href = |state: &str| match state {
            "" => format!("{path}#hosts"),
            state => format!("{path}?state={state}#hosts"),
        };
        let next = found
            .get(ROWS)
            .map(|next| format!("{path}?state={wanted}&from={}#hosts", next.position));
        Ok(Hosts {
            rows: found
                .iter()
                .take(ROWS)
                .map(|target| row(context, record, target))
                .collect(),
            filters: FILTERS
                .iter()
                .map(|(state, label, _)| Filter {
                    href: href(state),
                    label,
                    is_current: *state == wanted,
                })
                .collect(),
            next,
        })
    }
}

fn row(context: &Context<'_>, record: &Record, target: &Target) -> Row {
    let class = Class::of(&target.state, &record.rules);
    let events = &target.state.events;
    let event = match target.status {
        TargetStatus::Failed => {
            crate::deployment::status::deployments::failed_event(record, target)
                .and_then(|place| events.get(place))
        }
        _ => target.state.running(&record.rules),
    };
    Row {
        name: target.member.name.clone(),
        href: target_path(&record.id, &target.member.name),
        state: chip(class),
        event: event.map(|event| event.name.name().to_owned()),
        updated: When::new(target.updated, context.now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_squares_take_few_bytes() {
        let class = |number: usize| match number {
            0..6000 => Class::Succeeded,
            number if number % 7 == 0 => Class::Failed,
            6000..6500 => Class::Performing,
            _ => Class::Waiting,
        };
        let classes: Vec<Class> = (0..10_000).map(class).collect();
        let drawing = Drawing::of(&classes);
        assert_eq!(
            (drawing.columns, drawing.rows, drawing.paths.len()),
            (100, 100, 4)
        );
        let bytes: usize = drawing.paths.iter().map(|(_, path)| path.len()).sum();
        assert!(bytes < 60_000, "{bytes}");
        assert!(drawing.paths[0].1.starts_with("M0 0.5h100M0 1.5h100"));
        assert_eq!(counts(&classes[5998..6002]), "2 done, 2 in progress");
    }
}
