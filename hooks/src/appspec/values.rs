//! Values that several sections use: principals and paths.

use super::fields::{Place, Report, quoted};
use super::raw::Value;
use super::{ArchivePath, PathError, Principal};

/// Reads a user or group; digits are an id.
pub(super) fn parse_principal(text: &str) -> Result<Principal, &'static str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // chown(2) reads the largest id as "do not change".
        let id = text.parse().ok().filter(|id| *id < u32::MAX);
        return id
            .map(Principal::Id)
            .ok_or("expected a numeric id below 4294967295");
    }
    let impossible = |c: char| c == ':' || c.is_control();
    if text.is_empty() || text.starts_with('-') || text.contains(impossible) {
        return Err("expected a name (without ':', and not beginning with '-') or a numeric id");
    }
    Ok(Principal::Name(text.to_owned()))
}

/// Whether a mapping has a key.
pub(super) fn has_key(place: &Place<'_>, name: &str) -> bool {
    let Value::Mapping(pairs) = &place.node.value else {
        return false;
    };
    pairs.iter().any(|(key, _)| key.is_text(name))
}

/// A path inside the revision.
pub(super) fn archive_path(
    place: &Place<'_>,
    report: &mut Report,
    text: &str,
) -> Option<ArchivePath> {
    let path = ArchivePath::new(text);
    if path.is_ok() {
        note_parents(place, report, text);
    }
    path.map_err(|wrong| wrong_path(place, report, text, wrong))
        .ok()
}

/// Accepts a path with `..`, with a warning: readers of the file should not have to resolve it.
pub(super) fn note_parents(place: &Place<'_>, report: &mut Report, text: &str) {
    if text.split('/').any(|name| name == "..") {
        place.warning(
            report,
            format_args!(
                "found {}, which contains '..'; write the path that is meant",
                quoted(text)
            ),
        );
    }
}

pub(super) fn wrong_path(place: &Place<'_>, report: &mut Report, text: &str, wrong: PathError) {
    place.problem(
        report,
        format_args!("found {}, which {wrong}", quoted(text)),
    );
}
