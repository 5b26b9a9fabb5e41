//! The tree into an [`AppSpec`], every problem collected on the way.

use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_api::specification::FileExistsBehavior;

use super::fields::{Entry, Fields, Place, Repeated, Report, TOP_LEVEL, closest, quoted};
use super::raw::{self, Value};
use super::{
    AppSpec, ArchivePath, DEFAULT_TIMEOUT, FileMapping, HostPath, Invalid, Parsed, PathError, Script,
    permissions,
};

/// As the official agents read a hook that is written twice.
const LAST_HOOK: Repeated = Repeated::LastCounts("put all scripts of the event below one key");

pub(super) fn appspec(text: &[u8]) -> Result<Parsed, Invalid> {
    let mut report = Report::default();
    let appspec = match raw::read(text) {
        Ok(document) => {
            report.warnings.extend(document.warnings);
            document_root(Place::root(&document.root), &mut report)
        }
        Err(finding) => {
            report.problems.push(finding);
            None
        }
    };
    report.finish(appspec)
}

fn document_root(root: Place<'_>, report: &mut Report) -> Option<AppSpec> {
    if root.node.is_null() {
        root.problem(report, "the file is empty; expected at least \"version: 0.0\" and \"os: linux\"");
        return None;
    }
    let for_aws_itself = has_key(&root, "Resources");
    let top = root.fields(
        report,
        &TOP_LEVEL,
        Repeated::Refused,
        "keys such as \"version: 0.0\" and \"os: linux\"",
    )?;
    version(&top, report);
    if for_aws_itself && top.get("os").is_none() {
        let hint = "\"os: linux\" (with \"Resources\", the file seems meant for AWS Lambda or Amazon ECS, not for a host)";
        top.require(report, "os", hint);
    } else {
        os(&top, report);
    }
    Some(AppSpec {
        files: files(&top, report),
        file_exists_behavior: file_exists_behavior(&top, report),
        permissions: permissions::permissions(&top, report),
        hooks: hooks(&top, report),
    })
}

fn has_key(place: &Place<'_>, name: &str) -> bool {
    let Value::Mapping(pairs) = &place.node.value else {
        return false;
    };
    pairs.iter().any(|(key, _)| matches!(&key.value, Value::Scalar { text, .. } if text == name))
}

fn version(top: &Fields<'_>, report: &mut Report) {
    let expected = "the number 0.0, the only version there is";
    let Some(place) = top.require(report, "version", expected) else {
        return;
    };
    match place.scalar() {
        Some((text, true)) if text.parse() == Ok(0.0_f64) => {}
        Some((text, false)) if text.trim() == "0.0" => {
            place.problem(report, "found the text \"0.0\"; expected the number 0.0, without quotes");
        }
        _ => place.unexpected(report, expected),
    }
}

fn os(top: &Fields<'_>, report: &mut Report) {
    let Some(place) = top.require(report, "os", "\"linux\"") else {
        return;
    };
    match place.scalar() {
        Some(("linux", _)) => {}
        Some((text, _)) if text.eq_ignore_ascii_case("windows") => {
            place.unexpected(
                report,
                "\"linux\"; this revision is meant for Windows and cannot be deployed to this host",
            );
        }
        Some((text, _)) if text.trim().eq_ignore_ascii_case("linux") => {
            place.unexpected(report, "\"linux\", in lower case");
        }
        _ => place.unexpected(report, "\"linux\""),
    }
}

fn file_exists_behavior(top: &Fields<'_>, report: &mut Report) -> Option<FileExistsBehavior> {
    let place = top.get("file_exists_behavior")?;
    let behavior = place.scalar().and_then(|(text, _)| text.trim().parse().ok());
    if behavior.is_none() {
        place.unexpected(report, "DISALLOW, OVERWRITE or RETAIN");
    }
    behavior
}

fn files(top: &Fields<'_>, report: &mut Report) -> Vec<FileMapping> {
    let expected = "a list of entries, each with \"source\" and \"destination\"";
    let Some(section) = top.get("files") else {
        return Vec::new();
    };
    let entries = section.items(report, expected);
    entries.into_iter().filter_map(|entry| file(entry, report)).collect()
}

fn file(entry: Place<'_>, report: &mut Report) -> Option<FileMapping> {
    let entry = entry.fields(
        report,
        &["source", "destination"],
        Repeated::IN_ENTRY,
        "\"source\" and \"destination\", such as \"- source: /\" with \"destination: /srv/app\" below it",
    )?;
    let of_source = "a file or folder of the revision, or / for all of it";
    let of_destination = "a folder on the host, such as /srv/app";
    let source = entry.require(report, "source", of_source);
    let source = source.and_then(|place| archive_path(place, report, of_source));
    let destination = entry.require(report, "destination", of_destination);
    let destination = destination.and_then(|place| host_path(place, report, of_destination));
    Some(FileMapping { source: source?, destination: destination? })
}

fn archive_path(place: &Place<'_>, report: &mut Report, expected: &str) -> Option<ArchivePath> {
    let text = place.text(report, expected)?;
    let path = ArchivePath::new(text);
    path.map_err(|wrong| wrong_path(place, report, text, wrong)).ok()
}

pub(super) fn host_path(place: &Place<'_>, report: &mut Report, expected: &str) -> Option<HostPath> {
    let text = place.text(report, expected)?;
    let path = HostPath::new(text);
    path.map_err(|wrong| wrong_path(place, report, text, wrong)).ok()
}

fn wrong_path(place: &Place<'_>, report: &mut Report, text: &str, wrong: PathError) {
    place.problem(report, format_args!("found {}, which {wrong}", quoted(text)));
}

fn hooks(top: &Fields<'_>, report: &mut Report) -> Vec<(LifecycleEvent, Vec<Script>)> {
    let expected = "lifecycle events, such as \"ApplicationStart:\" with a list of scripts below it";
    let Some(section) = top.get("hooks") else {
        return Vec::new();
    };
    let entries = section.entries(report, LAST_HOOK, expected);
    let events = entries.into_iter().flatten();
    events.filter_map(|entry| hook(&entry, report)).collect()
}

fn hook(entry: &Entry<'_>, report: &mut Report) -> Option<(LifecycleEvent, Vec<Script>)> {
    let event: LifecycleEvent = match entry.key.parse() {
        Ok(event) => event,
        Err(_) if entry.key == "<<" => {
            entry.problem(report, "merges something that is not a mapping; expected an alias of a mapping");
            return None;
        }
        Err(_) => {
            let found = quoted(entry.key);
            let example = closest_hook(entry.key).unwrap_or(LifecycleEvent::ApplicationStart);
            entry.problem(
                report,
                format_args!("found {found}; expected the name of a lifecycle event, such as {example}"),
            );
            return None;
        }
    };
    note_event(entry, &event, report);
    let items = entry.value.items(report, "a list of scripts, each beginning with \"- location: \"");
    let mut named = Duration::ZERO;
    let mut scripts = Vec::new();
    for item in items {
        let names_timeout = has_key(&item, "timeout");
        let Some(script) = script(item, report) else { continue };
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
    Some((event, scripts))
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
        LifecycleEvent::Custom(_) => {
            if let Some(meant) = closest_hook(entry.key) {
                entry.warning(report, format_args!("not a standard lifecycle event; did you mean {meant}?"));
            }
        }
        _ => {}
    }
}

fn closest_hook(name: &str) -> Option<LifecycleEvent> {
    let hooks: Vec<LifecycleEvent> = LifecycleEvent::standard().filter(LifecycleEvent::is_hook).collect();
    closest(name, hooks.iter().map(LifecycleEvent::name))?.parse().ok()
}

fn script(item: Place<'_>, report: &mut Report) -> Option<Script> {
    let fields = item.fields(
        report,
        &["location", "timeout", "runas", "sudo"],
        Repeated::IN_ENTRY,
        "a script, such as \"- location: scripts/start.sh\"",
    )?;
    let of_location = "a script of the revision, such as scripts/start.sh";
    let location = fields.require(report, "location", of_location).and_then(|place| {
        let path = archive_path(place, report, of_location)?;
        if path.is_root() {
            place.unexpected(report, of_location);
        }
        Some(path)
    });
    let timeout = fields.get("timeout").map(|place| timeout(place, report));
    let runas = fields.get("runas").and_then(|place| runas(place, report));
    let sudo = fields.get("sudo").map(|place| boolean(place, report));
    Some(Script {
        location: location?,
        timeout: timeout.unwrap_or(Some(DEFAULT_TIMEOUT))?,
        runas,
        sudo: sudo.unwrap_or(Some(false))?,
    })
}

fn runas(place: &Place<'_>, report: &mut Report) -> Option<String> {
    if place.scalar().is_some_and(|(text, _)| text.trim().is_empty()) {
        place.warning(report, "names no user; the script runs as the agent's user, as without the key");
        return None;
    }
    place.text(report, "the name of a user").map(str::to_owned)
}

/// Whole seconds. More than [`u32`] holds would overflow the clocks that they are added to.
fn timeout(place: &Place<'_>, report: &mut Report) -> Option<Duration> {
    let expected = "a whole number of seconds greater than 0, such as 300";
    let text = place.scalar().map(|(text, _)| text.trim()).unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(0) => place.unexpected(
            report,
            format_args!("{expected}; without the key the timeout is {} seconds", DEFAULT_TIMEOUT.as_secs()),
        ),
        Ok(_) if is_number && text.starts_with('0') => place.unexpected(
            report,
            format_args!("{expected}, without leading zeros, which would make it an octal number"),
        ),
        Ok(seconds) if is_number => return Some(Duration::from_secs(seconds.into())),
        Err(_) if is_number => {
            place.unexpected(report, format_args!("a number of seconds up to {}", u32::MAX));
        }
        _ => match with_unit(text) {
            Some(seconds) => place.unexpected(report, format_args!("{expected}; write {seconds}")),
            None => place.unexpected(report, expected),
        },
    }
    None
}

/// The seconds that a text such as `5m` means.
fn with_unit(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let factor = match unit.trim() {
        "s" | "sec" | "seconds" => 1,
        "m" | "min" | "minutes" => 60,
        "h" | "hours" => 3600,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(factor).filter(|seconds| *seconds > 0)
}

/// A boolean as YAML 1.1 writes it.
fn boolean(place: &Place<'_>, report: &mut Report) -> Option<bool> {
    let Some((text, plain)) = place.scalar() else {
        place.unexpected(report, "true or false");
        return None;
    };
    let value = match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    };
    match value {
        // Official agent 1.8.1 takes any text for true.
        Some(true) if !plain => {
            place.warning(
                report,
                format_args!(
                    "found the text {}, which is taken for true; write it without quotes",
                    quoted(text)
                ),
            );
            value
        }
        Some(false) if !plain => {
            place.problem(
                report,
                format_args!("found the text {}; expected true or false, without quotes", quoted(text)),
            );
            None
        }
        None => {
            place.unexpected(report, "true or false");
            None
        }
        value => value,
    }
}
