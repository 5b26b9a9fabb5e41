//! Turns the tree into an [`AppSpec`] and collects every problem on the way.

use std::borrow::Cow;

use codedeploy_api::specification::FileExistsBehavior;

use super::fields::{Fields, Place, Repeated, Report, TOP_LEVEL, quoted};
use super::raw::{self, Value};
use super::scalar::{self, Number};
use super::values::{archive_path, has_key, note_parents, wrong_path};
use super::{
    AppSpec, ArchivePath, FileMapping, HostPath, Invalid, Parsed, PathError, hooks, permissions,
    strategy,
};

/// `earlier` means that the file belongs to a revision that was deployed before.
pub(super) fn appspec(text: &[u8], earlier: bool) -> Result<Parsed, Invalid> {
    let mut report = Report {
        earlier,
        ..Report::default()
    };
    let read = match raw::read(text) {
        Ok(document) => {
            report.warnings.extend(document.warnings);
            document_root(Place::root(&document.root), &mut report)
        }
        Err(finding) => {
            report.problems.push(finding);
            None
        }
    };
    report.finish(read, text)
}

fn document_root(root: Place<'_>, report: &mut Report) -> Option<(AppSpec, Vec<usize>)> {
    if root.node.is_null() {
        root.problem(
            report,
            "the file is empty; expected at least \"version: 0.0\" and \"os: linux\"",
        );
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
    let files = files(&top, report);
    let file_exists_behavior = file_exists_behavior(&top, report);
    let (entries, permissions) = permissions::permissions(&top, report).into_iter().unzip();
    let hooks::Hooks {
        hooks,
        unknown_hooks,
    } = hooks::hooks(&top, report);
    let strategy = strategy::strategy(&top, &files, report);
    Some((
        AppSpec {
            files,
            file_exists_behavior,
            permissions,
            hooks,
            unknown_hooks,
            strategy,
        },
        entries,
    ))
}

fn version(top: &Fields<'_>, report: &mut Report) {
    let expected = "the number 0.0, the only version there is";
    let Some(place) = top.require(report, "version", expected) else {
        return;
    };
    match place.scalar() {
        Some((text, true)) if scalar::number(text) == Some(Number::Whole(0)) => {}
        Some((text, false)) if text.trim() == "0.0" => {
            place.problem(
                report,
                "found the text \"0.0\"; expected the number 0.0, without quotes",
            );
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
    let behavior = place
        .scalar()
        .and_then(|(text, _)| text.trim().parse().ok());
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
    entries
        .into_iter()
        .filter_map(|entry| file(entry, report))
        .collect()
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
    let source = source.and_then(|place| source_path(place, report, of_source));
    let destination = entry.require(report, "destination", of_destination);
    let destination = destination.and_then(|place| destination_path(place, report, of_destination));
    Some(FileMapping {
        source: source?,
        destination: destination?,
    })
}

fn source_path(place: &Place<'_>, report: &mut Report, expected: &str) -> Option<ArchivePath> {
    let text = path_text(place, report, expected)?;
    if text.is_empty() {
        place.warning(
            report,
            "found an empty text, which means all of the revision; write /",
        );
    }
    archive_path(place, report, &text)
}

fn destination_path(place: &Place<'_>, report: &mut Report, expected: &str) -> Option<HostPath> {
    let text = path_text(place, report, expected)?;
    match HostPath::new(&text) {
        Ok(path) => {
            note_parents(place, report, &text);
            let Some(kernel) = path.kernel_folder() else {
                return Some(path);
            };
            let found = quoted(&text);
            let problem = format!(
                "found {found}, which is in {kernel}, where the kernel makes the files; choose another destination"
            );
            place.misleads(report, problem, path)
        }
        Err(PathError::Relative) => {
            let reading = HostPath::new(&format!("/{text}")).ok()?;
            place.misleads(
                report,
                relative(&text, reading.as_path().to_string_lossy()),
                reading,
            )
        }
        Err(wrong) => {
            wrong_path(place, report, &text, wrong);
            None
        }
    }
}

/// Describes a destination that does not begin with '/', and the place where the official agents'
/// daemon, which works in /, puts it.
fn relative(text: &str, reading: Cow<'_, str>) -> String {
    let found = quoted(text);
    if text.starts_with('~') {
        format!(
            "found {found}; ~ is not expanded to a home folder; write the whole path, such as /home/USER/app"
        )
    } else if is_of_windows(text) {
        format!(
            "found {found}, which is a path of Windows; write a path of this host, beginning with '/'"
        )
    } else if text.starts_with(['$', '%', '{']) {
        format!(
            "found {found}; variables are not replaced here; write the whole path, beginning with '/'"
        )
    } else if text.trim().is_empty() {
        format!("found {found}; expected a folder on the host, such as /srv/app")
    } else {
        format!(
            "found {found}, which is not absolute; write the whole path on the host ({}, when what AWS's agent makes of it \
             is meant)",
            quoted(&reading)
        )
    }
}

fn is_of_windows(text: &str) -> bool {
    let has_drive = matches!(text.as_bytes(), [drive, b':', ..] if drive.is_ascii_alphabetic());
    has_drive || text.contains('\\')
}

/// Returns the text of a path as written, including blanks. The official agents join the items of a
/// list.
fn path_text<'t>(place: &Place<'t>, report: &mut Report, expected: &str) -> Option<Cow<'t, str>> {
    if let Some((text, _)) = place.scalar() {
        let text = text.trim_end_matches(['\n', '\r']);
        if text.trim() != text {
            let hint = "begins or ends with a blank, which belongs to the path; remove it unless the name has one";
            place.warning(report, format_args!("found {}, which {hint}", quoted(text)));
        }
        return Some(Cow::Borrowed(text));
    }
    let Value::Sequence(items) = &place.node.value else {
        place.unexpected(report, expected);
        return None;
    };
    let mut names = Vec::new();
    for item in items {
        let Value::Scalar { text, .. } = &item.value else {
            place.unexpected(report, expected);
            return None;
        };
        names.push(text.as_str());
    }
    let joined = names.join("/");
    place.warning(
        report,
        format_args!(
            "found a list, which counts as the path {}; write that",
            quoted(&joined)
        ),
    );
    Some(Cow::Owned(joined))
}
