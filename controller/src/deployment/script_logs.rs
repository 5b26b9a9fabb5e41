//! The script output of commands: which the service asks for, receives from hosts, and shows.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use codedeploy_api::codedeploy::{Diagnostics, Timestamp};
use codedeploy_api::command::{
    MAX_DIAGNOSTICS_PAYLOAD, MAX_SCRIPT_LOG, PutHostCommandLogInput, SCRIPT_LOG_PART,
    WantedScriptLog,
};
use codedeploy_api::controller::{GetScriptLogOutput, ScriptLogState};
use codedeploy_planner::event_state::EventState;
use flate2::read::MultiGzDecoder;

use super::queries::find;
use crate::config::script_logs::{Keep, ScriptLogs};
use crate::error::{ApiError, ErrorName};
use crate::records::command::Command;
use crate::records::script_log::{self, ScriptLog};
use crate::records::{Record, Target};
use crate::request;
use crate::request::members::shorten;
use crate::transaction::Context;

/// Returns the limits of the script log that is wanted of a command that has ended; `None` if none
/// is.
pub fn wanted(
    context: &Context<'_>,
    settings: &ScriptLogs,
    host: &str,
    id: &str,
) -> Result<Option<WantedScriptLog>, ApiError> {
    let Some(command) = Command::of_host(context.tx, host, id)? else {
        return Ok(None);
    };
    if !is_kept(context, settings, &command)? {
        return Ok(None);
    }
    let log = ScriptLog::at(context.tx, script_log::place(&command))?;
    if log.is_some_and(|log| log.missing == 0) {
        return Ok(None);
    }
    let max_bytes = settings
        .max_bytes
        .min(room(context, settings, &command.deployment_id)?);
    // A smaller log adds nothing to the diagnostics.
    let is_worth_it = max_bytes >= MAX_DIAGNOSTICS_PAYLOAD;
    Ok(is_worth_it.then_some(WantedScriptLog { max_bytes }))
}

/// The number of logs that one transaction deletes.
const DELETED: usize = 20;

/// The number of deployments that it looks at.
const LOOKED_AT: usize = 50;

/// Deletes logs of deployments that ended before a time, beginning after the id `after`. Returns
/// their number, and the id to continue after if there are more.
pub fn prune(
    context: &Context<'_>,
    before: Timestamp,
    after: &str,
) -> Result<(usize, Option<String>), ApiError> {
    let mut deleted = 0;
    let mut last = after.to_owned();
    for _ in 0..LOOKED_AT {
        let Some(id) = ScriptLog::deployment_after(context.tx, &last)? else {
            return Ok((deleted, None));
        };
        let record = Record::load(context.tx, &id)?;
        let ended = record.and_then(|record| record.progress.completed());
        if ended.is_some_and(|ended| ended < before) {
            deleted += ScriptLog::delete(context.tx, &id, DELETED - deleted)?;
            if deleted == DELETED {
                return Ok((deleted, Some(last)));
            }
        }
        last = id;
    }
    Ok((deleted, Some(last)))
}

/// The number of bytes that the logs of a deployment may still take.
fn room(context: &Context<'_>, settings: &ScriptLogs, id: &str) -> Result<usize, ApiError> {
    let taken = ScriptLog::bytes_of(context.tx, id)?;
    Ok(settings.max_bytes_per_deployment.saturating_sub(taken))
}

/// Whether the settings ask for the log of a command, as it has ended.
fn is_kept(
    context: &Context<'_>,
    settings: &ScriptLogs,
    command: &Command,
) -> Result<bool, ApiError> {
    if settings.keep == Keep::None {
        return Ok(false);
    }
    let target = Target::at(context.tx, &command.deployment_id, command.target)?;
    let event = target
        .as_ref()
        .and_then(|target| target.state.events.get(command.event));
    Ok(event.is_some_and(|event| match event.state {
        EventState::Failed { .. } => true,
        EventState::Succeeded { .. } => settings.keep == Keep::All,
        _ => false,
    }))
}

/// A part of the script log of a command, checked.
#[derive(Debug, Clone)]
pub struct Part {
    command: String,
    /// The size of the whole log.
    bytes: usize,
    part: usize,
    /// Compressed with gzip.
    content: Vec<u8>,
}

fn refused(reason: String) -> ApiError {
    ErrorName::Client.because(reason)
}

impl Part {
    /// Checks a part as far as that is possible without the database: its size is the one that its
    /// position demands.
    pub fn read(input: PutHostCommandLogInput) -> Result<Self, ApiError> {
        let PutHostCommandLogInput {
            host_command_identifier: command,
            bytes,
            part,
            content,
        } = input;
        if bytes == 0 || bytes > MAX_SCRIPT_LOG {
            return Err(refused(format!(
                "The script log has {bytes} bytes; expected 1 to {MAX_SCRIPT_LOG}."
            )));
        }
        let content = STANDARD
            .decode(&content)
            .map_err(|error| refused(format!("Content is not in Base64: {error}.")))?;
        let size = unpacked(&content, SCRIPT_LOG_PART)
            .map_err(|error| refused(format!("Content is not compressed with gzip: {error}.")))?
            .len();
        let begin = part.saturating_mul(SCRIPT_LOG_PART);
        let expected = bytes.saturating_sub(begin).min(SCRIPT_LOG_PART);
        if size != expected || expected == 0 {
            return Err(refused(format!(
                "Part {part} of a script log of {bytes} bytes has {size} bytes; expected {expected}."
            )));
        }
        Ok(Self {
            command,
            bytes,
            part,
            content,
        })
    }
}

/// Stores a part of the script log of a command. Hosts send parts again after a break.
pub fn put(
    context: &Context<'_>,
    settings: &ScriptLogs,
    host: &str,
    part: &Part,
) -> Result<(), ApiError> {
    let id = shorten(&part.command);
    let Some(command) = Command::of_host(context.tx, host, &part.command)? else {
        return Err(refused(format!("{id:?} is not a command of this host.")));
    };
    if part.bytes > settings.max_bytes || !is_kept(context, settings, &command)? {
        return Err(refused(format!("The script log of {id:?} is not wanted.")));
    }
    let place = script_log::place(&command);
    match ScriptLog::at(context.tx, place)? {
        Some(log) if log.bytes == part.bytes => {}
        other => {
            let before = other.map_or(0, |log| log.bytes);
            let room = room(context, settings, &command.deployment_id)?;
            if part.bytes > room.saturating_add(before) {
                return Err(refused(format!(
                    "The script logs of the deployment {} would take more than {} bytes.",
                    command.deployment_id, settings.max_bytes_per_deployment
                )));
            }
            let log = ScriptLog {
                bytes: part.bytes,
                missing: part.bytes.div_ceil(SCRIPT_LOG_PART),
            };
            ScriptLog::reserve(context.tx, place, log)?;
        }
    }
    Ok(ScriptLog::add(context.tx, place, part.part, &part.content)?)
}

/// Unpacks at most `most` bytes; one more shows that there were more.
fn unpacked(content: &[u8], most: usize) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut decoder = MultiGzDecoder::new(content).take(most as u64 + 1);
    decoder.read_to_end(&mut text)?;
    Ok(text)
}

/// Returns the script output of an event on a host: by default of the event that failed, else of
/// the last one that has output.
pub fn get(
    context: &Context<'_>,
    request: request::GetScriptLog,
) -> Result<GetScriptLogOutput, ApiError> {
    let record = find(context, &request.deployment_id)?;
    let name = &*request.instance_name;
    let target = Target::named(context.tx, &record.id, name)?.ok_or_else(|| {
        ErrorName::DeploymentTargetDoesNotExist.because(format!(
            "The deployment {} has no instance {name:?}.",
            record.id
        ))
    })?;
    let Some(position) = event(&record, &target, request.lifecycle_event_name.as_deref())? else {
        return Ok(output(&target, None));
    };
    let shown = output(&target, Some(position));
    let log_state = state(context, &target, position)?;
    let log = if log_state == ScriptLogState::Whole {
        let place = (record.id.as_str(), target.position, position);
        let text = whole(context, place).map_err(|error| {
            ErrorName::DamagedRecord.because(format!("The script log is damaged: {error}."))
        })?;
        Some(text)
    } else {
        shown.log
    };
    Ok(GetScriptLogOutput {
        log,
        log_state: Some(log_state),
        ..shown
    })
}

/// Returns the part of an event's output that is there.
pub(super) fn state(
    context: &Context<'_>,
    target: &Target,
    event: usize,
) -> Result<ScriptLogState, ApiError> {
    let place = (target.deployment_id.as_str(), target.position, event);
    let log = ScriptLog::at(context.tx, place)?;
    if log.is_some_and(|log| log.missing == 0) {
        return Ok(ScriptLogState::Whole);
    }
    Ok(output(target, Some(event))
        .log_state
        .unwrap_or(ScriptLogState::None))
}

fn whole(context: &Context<'_>, place: script_log::Place<'_>) -> Result<String, std::io::Error> {
    let mut text = Vec::new();
    for part in ScriptLog::parts(context.tx, place).map_err(std::io::Error::other)? {
        text.extend(unpacked(&part, SCRIPT_LOG_PART)?);
    }
    Ok(String::from_utf8(text)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Returns the position of an event of a target: of the named one, or else the one that failed, or
/// the last one with output.
fn event(record: &Record, target: &Target, name: Option<&str>) -> Result<Option<usize>, ApiError> {
    let events = &target.state.events;
    if let Some(name) = name {
        let position = events.iter().position(|event| event.name.name() == name);
        return position.map(Some).ok_or_else(|| {
            ErrorName::InvalidInput.because(format!(
                "The deployment {} has no lifecycle event {:?}.",
                target.deployment_id,
                shorten(name)
            ))
        });
    }
    let failed = super::status::deployments::failed_event(record, target);
    let last = || {
        events.iter().rposition(|event| {
            event
                .state
                .diagnostics()
                .is_some_and(|found| tail(found).is_some())
        })
    };
    Ok(failed.or_else(last))
}

fn tail(diagnostics: &Diagnostics) -> Option<String> {
    diagnostics.log_tail.clone().filter(|tail| !tail.is_empty())
}

/// The output of an event as its diagnostics have it.
fn output(target: &Target, event: Option<usize>) -> GetScriptLogOutput {
    let event = event.and_then(|event| target.state.events.get(event));
    let diagnostics = event.and_then(|event| event.state.diagnostics());
    let log = diagnostics.and_then(tail);
    let log_state = match &log {
        Some(_) => ScriptLogState::LastLines,
        None => ScriptLogState::None,
    };
    GetScriptLogOutput {
        deployment_id: Some(target.deployment_id.clone()),
        instance_name: Some(target.member.name.clone()),
        lifecycle_event_name: event.map(|event| event.name.name().to_owned()),
        script_name: diagnostics
            .and_then(|found| found.script_name.clone())
            .filter(|name| !name.is_empty()),
        log,
        log_state: Some(log_state),
    }
}
