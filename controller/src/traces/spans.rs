//! The spans of a deployment, in the JSON format of the OpenTelemetry protocol: ids in hexadecimal
//! digits, times in nanoseconds as texts.

use codedeploy_api::codedeploy::{DeploymentStatus, Timestamp};
use codedeploy_api::diagnostics::{ErrorCode, ScriptRun};
use codedeploy_api::trace::TraceParent;
use codedeploy_planner::event_state::EventState;
use codedeploy_planner::target_state::Event;
use serde_json::{Value, json};

use crate::deployment::trace;
use crate::error::ApiError;
use crate::records::{Record, Target, script_runs};
use crate::transaction::Context;

/// The number of targets in one request; each has about 15 spans.
const TARGETS: usize = 100;

/// The part of a deployment's trace that comes next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position(usize);

/// A part of a trace.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) spans: Vec<Value>,
    pub(super) next: Option<Position>,
}

/// Returns a part of a deployment's trace; the first one has its root. A deployment that was
/// deleted has no spans.
pub(super) fn part(
    context: &Context<'_>,
    id: &str,
    Position(from): Position,
) -> Result<Part, ApiError> {
    let mut spans = Vec::new();
    let Some(record) = Record::load(context.tx, id)? else {
        return Ok(Part { spans, next: None });
    };
    let root = trace::of_deployment(context.partition, id);
    if from == 0 {
        spans.push(deployment(context, &record, root));
    }
    let targets = Target::load_some(context.tx, id, from, TARGETS)?;
    for target in &targets {
        let scripts = script_runs::of_target(context.tx, id, target.position)?;
        host(&mut spans, root, target, &scripts);
    }
    let next = (targets.len() == TARGETS).then_some(Position(from + TARGETS));
    Ok(Part { spans, next })
}

/// The request with spans.
pub(super) fn document(spans: &[Value]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        ("service.name", "codedeploy-controller"),
        ("service.version", version),
    ];
    let resource = resource.map(|(key, value)| attribute(key, value));
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{
            "scope": {"name": "codedeploy-controller", "version": version},
            "spans": spans,
        }],
    }]})
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// How the work of a span ended.
enum Ending<'a> {
    Succeeded,
    Failed(&'a str),
    /// It was neither.
    Unset,
}

struct Span<'a> {
    id: TraceParent,
    parent: Option<TraceParent>,
    name: &'a str,
    start: Timestamp,
    end: Timestamp,
    attributes: Vec<Value>,
    ending: Ending<'a>,
}

impl Span<'_> {
    fn json(&self) -> Value {
        let nanoseconds = |time: Timestamp| format!("{}", i128::from(time.millis()) * 1_000_000);
        let status = match self.ending {
            Ending::Unset => json!({}),
            Ending::Succeeded => json!({"code": 1}),
            Ending::Failed(message) => json!({"code": 2, "message": message}),
        };
        let mut span = json!({
            "traceId": self.id.trace_id(),
            "spanId": self.id.span_id(),
            "name": self.name,
            "kind": 1,
            "startTimeUnixNano": nanoseconds(self.start),
            "endTimeUnixNano": nanoseconds(self.end.max(self.start)),
            "attributes": self.attributes,
            "status": status,
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = parent.span_id().into();
        }
        span
    }
}

/// The root of the trace. That of a rollback has a link to the deployment that it undoes.
fn deployment(context: &Context<'_>, record: &Record, id: TraceParent) -> Value {
    let status = record.progress.status();
    let message = record
        .error()
        .and_then(|error| error.message.clone())
        .unwrap_or_default();
    let name = format!("{}/{}", record.application_name, record.group_name);
    let mut attributes = vec![
        attribute("deployment.id", &record.id),
        attribute("deployment.name", &name),
        attribute("deployment.status", status_word(&status)),
        attribute("codedeploy.application", &record.application_name),
        attribute("codedeploy.deployment_group", &record.group_name),
    ];
    if let Some(revision) = record.revision() {
        attributes.push(attribute("codedeploy.revision", &revision.to_string()));
    }
    if let Some(by) = &record.created_by {
        attributes.push(attribute("codedeploy.created_by", by));
    }
    let ending = match status {
        DeploymentStatus::Succeeded => Ending::Succeeded,
        _ => Ending::Failed(&message),
    };
    let span = Span {
        id,
        parent: None,
        name: "deployment",
        start: record.created,
        end: record.progress.completed().unwrap_or(context.now),
        attributes,
        ending,
    };
    let mut span = span.json();
    let undoes = record
        .rolls_back()
        .or_else(|| record.relations.takes_back.clone());
    if let Some(undone) = undoes {
        let undone = trace::of_deployment(context.partition, &undone);
        span["links"] = json!([{"traceId": undone.trace_id(), "spanId": undone.span_id()}]);
    }
    span
}

/// The value of `deployment.status` in OpenTelemetry's conventions, which know two.
fn status_word(status: &DeploymentStatus) -> &'static str {
    match status {
        DeploymentStatus::Succeeded => "succeeded",
        _ => "failed",
    }
}

/// Adds the spans of a host that got a command.
fn host(
    spans: &mut Vec<Value>,
    root: TraceParent,
    target: &Target,
    scripts: &[(usize, Vec<ScriptRun>)],
) {
    let name = target.member.name.as_str();
    let id = trace::of_host(root, name);
    let performed = |(position, event)| {
        period(event).map(|(start, end)| Performed {
            position,
            event,
            start,
            end,
        })
    };
    let events = target.state.events.iter().enumerate();
    let events: Vec<Performed<'_>> = events.filter_map(performed).collect();
    let start = events.iter().map(|event| event.start).min();
    let end = events.iter().map(|event| event.end).max();
    let Some((start, end)) = start.zip(end) else {
        return;
    };
    let failed = events
        .iter()
        .find_map(|performed| match ending(&performed.event.state) {
            Ending::Failed(_) => Some(format!("{} failed", performed.event.name)),
            Ending::Succeeded | Ending::Unset => None,
        });
    let span = Span {
        id,
        parent: Some(root),
        name: "host",
        start,
        end,
        attributes: vec![
            attribute("host.name", name),
            attribute("codedeploy.instance_arn", &target.member.arn),
        ],
        ending: match &failed {
            Some(message) => Ending::Failed(message),
            None => Ending::Succeeded,
        },
    };
    spans.push(span.json());
    for performed in events {
        let position = performed.position;
        let scripts = scripts.iter().find(|(of, _)| *of == position);
        let scripts = scripts.map_or(&[][..], |(_, scripts)| scripts.as_slice());
        performed.spans(spans, id, name, scripts);
    }
}

/// An event that a host performed.
struct Performed<'a> {
    position: usize,
    event: &'a Event,
    start: Timestamp,
    end: Timestamp,
}

impl Performed<'_> {
    /// Adds the spans of the event and of its scripts.
    fn spans(
        &self,
        spans: &mut Vec<Value>,
        host: TraceParent,
        host_name: &str,
        scripts: &[ScriptRun],
    ) {
        let name = self.event.name.name();
        let id = host.child(name);
        let mut attributes = vec![
            attribute("codedeploy.lifecycle_event", name),
            attribute("host.name", host_name),
        ];
        let diagnostics = self.event.state.diagnostics();
        if let Some(code) = diagnostics.and_then(|diagnostics| diagnostics.error_code.as_ref()) {
            attributes.push(attribute("codedeploy.error_code", code.as_str()));
        }
        let span = Span {
            id,
            parent: Some(host),
            name,
            start: self.start,
            end: self.end,
            attributes,
            ending: ending(&self.event.state),
        };
        spans.push(span.json());
        for (position, script) in scripts.iter().enumerate() {
            let failure = diagnostics.and_then(|diagnostics| diagnostics.message.as_deref());
            let span = Span {
                id: id.child(&position.to_string()),
                parent: Some(id),
                name: &script.location,
                start: script.started,
                end: script.ended,
                attributes: vec![
                    attribute("codedeploy.script", &script.location),
                    attribute("codedeploy.lifecycle_event", name),
                    attribute("host.name", host_name),
                ],
                ending: if script.error_code == ErrorCode::Success {
                    Ending::Succeeded
                } else {
                    Ending::Failed(failure.unwrap_or_default())
                },
            };
            spans.push(span.json());
        }
    }
}

/// The time in which an event was performed, if it was.
fn period(event: &Event) -> Option<(Timestamp, Timestamp)> {
    match &event.state {
        EventState::Succeeded { started, ended, .. } => Some((*started, *ended)),
        EventState::Failed { started, ended, .. } => Some(((*started)?, *ended)),
        EventState::Pending
        | EventState::Queued { .. }
        | EventState::Leased { .. }
        | EventState::Acknowledged { .. }
        | EventState::Skipped { .. } => None,
    }
}

fn ending(state: &EventState) -> Ending<'_> {
    match state {
        EventState::Succeeded { .. } => Ending::Succeeded,
        EventState::Failed { diagnostics, .. } => {
            Ending::Failed(diagnostics.message.as_deref().unwrap_or_default())
        }
        _ => Ending::Unset,
    }
}
