//! The `hooks` section: the scripts of each lifecycle event.

use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;

use super::fields::{Entry, Fields, Place, Repeated, Report, closest, quoted};
use super::raw::{Node, Value};
use super::scalar::{self, Number};
use super::values::{archive_path, has_key};
use super::{DEFAULT_TIMEOUT, Script};

/// The way in which official agents read a hook that is written twice.
const LAST_HOOK: Repeated = Repeated::LastCounts("put all scripts of the event below one key");

/// The keys below `hooks`.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    pub(super) hooks: Vec<(LifecycleEvent, Vec<Script>)>,
    /// Keys that cannot be the name of a lifecycle event.
    pub(super) unknown_hooks: Vec<String>,
}

pub(super) fn hooks(top: &Fields<'_>, report: &mut Report) -> Hooks {
    let expected =
        "lifecycle events, such as \"ApplicationStart:\" with a list of scripts below it";
    let mut read = Hooks::default();
    let Some(section) = top
        .get("hooks")
        .filter(|section| !section.is_nothing_but_mapping(report))
    else {
        return read;
    };
    for entry in section
        .entries(report, LAST_HOOK, expected)
        .into_iter()
        .flatten()
    {
        let scripts = scripts(&entry, report);
        match entry.key.parse() {
            Ok(event) => {
                note_event(&entry, &event, report);
                read.hooks.push((event, scripts));
            }
            Err(_) => {
                entry.warning(report, never_run(entry.key));
                read.unknown_hooks.push(entry.key.to_owned());
            }
        }
    }
    read
}

/// Returns the scripts of `event`; nothing else in the file matters. Entries that cannot be read as
/// scripts are left out.
pub(super) fn scripts_of_earlier(root: &Node, event: &LifecycleEvent) -> Vec<Script> {
    let value = |node: &Node, name: &str| match &node.value {
        Value::Mapping(pairs) => pairs
            .iter()
            .rev()
            .find(|(key, _)| key.is_text(name))
            .map(|(_, value)| value.clone()),
        Value::Scalar { .. } | Value::Sequence(_) => None,
    };
    let Some(list) = value(root, "hooks").and_then(|hooks| value(&hooks, event.name())) else {
        return Vec::new();
    };
    let mut report = Report {
        earlier: true,
        ..Report::default()
    };
    let mut scripts = Vec::new();
    for item in Place::root(&list).items(&mut report, "") {
        report.problems.clear();
        scripts.extend(script(item, &mut report).filter(|_| report.problems.is_empty()));
    }
    scripts
}

fn scripts(entry: &Entry<'_>, report: &mut Report) -> Vec<Script> {
    let items = entry.value.items(
        report,
        "a list of scripts, each beginning with \"- location: \"",
    );
    let mut named = Duration::ZERO;
    let mut scripts = Vec::new();
    for item in items {
        let names_timeout = has_key(&item, "timeout");
        let Some(script) = script(item, report) else {
            continue;
        };
        if names_timeout {
            named = named.saturating_add(script.timeout);
        }
        scripts.push(script);
    }
    if named > DEFAULT_TIMEOUT {
        entry.warning(
            report,
            format_args!(
                "the timeouts of its scripts add up to {} seconds; AWS CodeDeploy ends a lifecycle event after {}",
                named.as_secs(),
                DEFAULT_TIMEOUT.as_secs()
            ),
        );
    }
    scripts
}

fn note_event(entry: &Entry<'_>, event: &LifecycleEvent, report: &mut Report) {
    match event {
        LifecycleEvent::BlockTraffic | LifecycleEvent::AllowTraffic => entry.warning(
            report,
            format_args!(
                "these scripts never run: {event} is performed by the service; use Before{event} or After{event}"
            ),
        ),
        LifecycleEvent::DownloadBundle => entry.warning(
            report,
            "these scripts never run: DownloadBundle is performed by the agent; use BeforeInstall",
        ),
        LifecycleEvent::Install => entry.warning(
            report,
            "these scripts never run: Install is performed by the agent; use BeforeInstall or AfterInstall",
        ),
        LifecycleEvent::Custom(_) if closest_event(entry.key).is_some() => {
            entry.warning(report, never_run(entry.key));
        }
        _ => {}
    }
}

/// The warning for a name that is no lifecycle event, so that its scripts never run.
fn never_run(name: &str) -> String {
    match closest_event(name) {
        Some(meant) => format!("not a standard lifecycle event, so its scripts never run; did you mean {meant}?"),
        None => "not a lifecycle event, so its scripts never run; remove it, or name an event such as ApplicationStart".into(),
    }
}

/// Returns the lifecycle event with AppSpec scripts that `name` most likely means; blanks in it do
/// not matter.
pub fn closest_event(name: &str) -> Option<LifecycleEvent> {
    let name: String = name
        .chars()
        .take(128)
        .filter(|c| !c.is_whitespace())
        .collect();
    let hooks: Vec<LifecycleEvent> = LifecycleEvent::standard()
        .filter(LifecycleEvent::is_hook)
        .collect();
    closest(&name, hooks.iter().map(LifecycleEvent::name))?
        .parse()
        .ok()
}

fn script(item: Place<'_>, report: &mut Report) -> Option<Script> {
    let fields = item.fields(
        report,
        &["location", "timeout", "runas", "sudo"],
        Repeated::IN_ENTRY,
        "a script, such as \"- location: scripts/start.sh\"",
    )?;
    let of_location = "a script of the revision, such as scripts/start.sh";
    let location = fields
        .require(report, "location", of_location)
        .and_then(|place| {
            let text = place.text(report, of_location)?;
            let path = archive_path(place, report, text)?;
            if path.is_root() {
                place.unexpected(report, of_location);
                return None;
            }
            Some(path)
        });
    let timeout = fields.get("timeout").map(|place| timeout(place, report));
    let runas = fields.get("runas").and_then(|place| runas(place, report));
    let sudo = fields.get("sudo").map(|place| sudo(place, report));
    Some(Script {
        location: location?,
        timeout: timeout.unwrap_or(Some(DEFAULT_TIMEOUT))?,
        runas,
        sudo: sudo.unwrap_or(Some(false))?,
    })
}

fn runas(place: &Place<'_>, report: &mut Report) -> Option<String> {
    if place
        .scalar()
        .is_some_and(|(text, _)| text.trim().is_empty())
    {
        place.warning(
            report,
            "names no user; the script runs as the agent's user, as it does without the key",
        );
        return None;
    }
    place.text(report, "the name of a user").map(str::to_owned)
}

/// Reads whole seconds, as the official agents do. More than a [`u32`] holds would overflow the
/// clocks that they are added to.
pub(super) fn timeout(place: &Place<'_>, report: &mut Report) -> Option<Duration> {
    let expected = "a whole number of seconds greater than 0, such as 300";
    if place.is_false() {
        let default = DEFAULT_TIMEOUT.as_secs();
        place.warning(
            report,
            format_args!(
                "found {}, which means the default of {default} seconds",
                place.found()
            ),
        );
        return Some(DEFAULT_TIMEOUT);
    }
    let Some((text, plain)) = place.scalar() else {
        place.unexpected(report, expected);
        return None;
    };
    let text = text.trim();
    let number = if plain { scalar::number(text) } else { None };
    let (leading, rest) = scalar::leading_number(text);
    let whole = match number {
        Some(Number::Whole(whole)) => Some(whole),
        Some(Number::Fraction) => None,
        None => is_decoration(rest).then_some(leading),
    };
    match whole {
        Some(whole) if whole > 0 => Some(seconds(place, report, text, whole)),
        Some(0) if leading == 0 && rest.is_empty() => {
            let default = DEFAULT_TIMEOUT.as_secs();
            place.unexpected(
                report,
                format_args!("{expected}; without the key the timeout is {default} seconds"),
            );
            None
        }
        _ => not_whole(place, report, text, leading),
    }
}

/// Whether the text behind the digits of a number leaves its meaning unchanged.
fn is_decoration(rest: &str) -> bool {
    let fraction = rest
        .strip_prefix('.')
        .is_some_and(|zeros| zeros.bytes().all(|byte| byte == b'0'));
    fraction
        || matches!(
            rest.trim(),
            "" | "s" | "sec" | "secs" | "second" | "seconds"
        )
}

fn seconds(place: &Place<'_>, report: &mut Report, text: &str, whole: i128) -> Duration {
    let seconds = u32::try_from(whole).unwrap_or(u32::MAX);
    if text != seconds.to_string() {
        place.warning(
            report,
            format_args!(
                "found {}, which means {seconds} seconds; write {seconds}",
                quoted(text)
            ),
        );
    }
    Duration::from_secs(seconds.into())
}

/// Reports a text that is no whole number, and how the official agents read it.
fn not_whole(
    place: &Place<'_>,
    report: &mut Report,
    text: &str,
    leading: i128,
) -> Option<Duration> {
    let expected = "a whole number of seconds greater than 0, such as 300";
    let meant = with_unit(text);
    let hint = meant.map_or(String::new(), |seconds| format!("; write {seconds}"));
    let found = quoted(text);
    let Some(leading) = u32::try_from(leading).ok().filter(|leading| *leading > 0) else {
        place.problem(
            report,
            format_args!("found {found}; expected {expected}{hint}"),
        );
        return None;
    };
    let message = format!(
        "found {found}, which AWS's agents read as {leading} seconds; expected {expected}{hint}"
    );
    let reading = Duration::from_secs(meant.unwrap_or(leading).into());
    place.misleads(report, message, reading)
}

/// Converts a text such as `5m` into seconds.
fn with_unit(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let factor = match unit.trim() {
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        _ => return None,
    };
    number
        .parse::<u32>()
        .ok()?
        .checked_mul(factor)
        .filter(|seconds| *seconds > 0)
}

/// Whether a script runs through sudo. The official agents read every value as true, except an
/// unquoted false.
fn sudo(place: &Place<'_>, report: &mut Report) -> Option<bool> {
    let Some((text, plain)) = place.scalar() else {
        place.warning(
            report,
            format_args!("found {}, which counts as true; write true", place.found()),
        );
        return Some(true);
    };
    if let Some(value) = scalar::boolean(text).filter(|_| plain) {
        return Some(value);
    }
    let found = quoted(text);
    let says_no = ["false", "no", "off", "n", "f", "0"]
        .iter()
        .any(|no| text.trim().eq_ignore_ascii_case(no));
    if says_no {
        let message = format!(
            "found {found}, which AWS's agents read as true; expected true or false, without quotes"
        );
        return place.misleads(report, message, true);
    }
    place.warning(
        report,
        format_args!("found {found}, which counts as true; write true, without quotes"),
    );
    Some(true)
}
