//! The rules of the `permissions` section.

use super::fields::{Fields, Place, Repeated, Report, quoted};
use super::validate::host_path;
use super::{AppliesTo, Mode, NamePattern, Pattern, Permission, Principal, SelinuxContext, acl};

const KEYS: [&str; 9] = ["object", "pattern", "except", "owner", "group", "mode", "acls", "context", "type"];

pub(super) fn permissions(top: &Fields<'_>, report: &mut Report) -> Vec<Permission> {
    let Some(section) = top.get("permissions") else {
        return Vec::new();
    };
    let entries = section.items(report, "a list of entries, each beginning with \"- object: \"");
    entries.into_iter().filter_map(|entry| permission(entry, report)).collect()
}

/// Reads one entry. What has a problem is in the report and left out here: the result counts only without problems.
fn permission(entry: Place<'_>, report: &mut Report) -> Option<Permission> {
    let expected = "a permission, such as \"- object: /srv/app\" with \"mode: 644\" below it";
    let fields = entry.fields(report, &KEYS, Repeated::IN_ENTRY, expected)?;
    let of_object = "a file or folder on the host, such as /srv/app";
    let object = fields.require(report, "object", of_object);
    let object = object.and_then(|place| host_path(place, report, of_object));
    let owner = fields.get("owner").and_then(|place| principal(place, report));
    let group = fields.get("group").and_then(|place| principal(place, report));
    let pattern = fields.get("pattern").and_then(|place| pattern(place, report));
    let except = fields.get("except").map(|place| except(place, report));
    let mode = fields.get("mode").and_then(|place| mode(place, report));
    let acl = fields.get("acls").map(|place| acl::acl(place, report));
    let context = fields.get("context").and_then(|place| context(place, report));
    let applies_to = fields.get("type").map(|place| applies_to(place, report));
    Some(Permission {
        object: object?,
        pattern: pattern.unwrap_or(Pattern::Everything),
        except: except.unwrap_or_default(),
        owner,
        group,
        mode,
        acl,
        context,
        applies_to: applies_to.unwrap_or(AppliesTo { files: true, directories: true }),
    })
}

fn pattern(place: &Place<'_>, report: &mut Report) -> Option<Pattern> {
    let text = place.text(report, "\"**\" or a name pattern, such as \"*.sh\"")?;
    if text.contains('/') {
        place.warning(
            report,
            format_args!(
                "{} matches nothing: a pattern is compared with the names directly below the object, which have no '/'",
                quoted(text)
            ),
        );
    }
    Some(match text {
        "**" => Pattern::Everything,
        name => Pattern::Name(NamePattern::new(name)),
    })
}

/// Exceptions with a '/' match nothing either, but AWS's own examples have them: no warning.
fn except(place: &Place<'_>, report: &mut Report) -> Vec<NamePattern> {
    if let Some((text, _)) = place.scalar() {
        let found = quoted(text);
        place.problem(
            report,
            format_args!("found {found}; expected a list of name patterns; write except: [{found}]"),
        );
        return Vec::new();
    }
    let items = place.items(report, "a list of name patterns, such as [\"*.tmp\"]");
    items
        .iter()
        .filter_map(|item| item.text(report, "a name pattern, such as \"*.tmp\""))
        .map(NamePattern::new)
        .collect()
}

fn principal(place: &Place<'_>, report: &mut Report) -> Option<Principal> {
    let text = place.text(report, "a name or a numeric id")?;
    let wrong = match parse_principal(text) {
        Ok(principal) => return Some(principal),
        Err(wrong) => wrong,
    };
    if let Some((user, group)) = text.split_once(':') {
        let (user, group) = (quoted(user), quoted(group));
        place.problem(
            report,
            format_args!(
                "found {}; expected one name or numeric id; write owner: {user} and group: {group}",
                quoted(text)
            ),
        );
    } else {
        place.problem(report, format_args!("found {}; {wrong}", quoted(text)));
    }
    None
}

/// Reads a user or group; digits are an id.
pub(super) fn parse_principal(text: &str) -> Result<Principal, &'static str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The last one means "leave as it is" to chown(2).
        let id = text.parse().ok().filter(|id| *id < u32::MAX);
        return id.map(Principal::Id).ok_or("expected a numeric id below 4294967295");
    }
    let impossible = |c: char| c == ':' || c.is_control();
    if text.is_empty() || text.starts_with('-') || text.contains(impossible) {
        return Err("expected a name (without ':', and not beginning with '-') or a numeric id");
    }
    Ok(Principal::Name(text.to_owned()))
}

fn mode(place: &Place<'_>, report: &mut Report) -> Option<Mode> {
    let expected = "1 to 4 octal digits, such as 644 or \"0644\"";
    let text = place.scalar().map(|(text, _)| text.trim()).unwrap_or_default();
    let is_octal = |text: &str| !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    if let Some(mode) = Mode::read(text) {
        return Some(mode);
    }
    let digits = text.strip_prefix("0o").unwrap_or(text).trim_start_matches('0');
    if is_octal(digits) && digits.len() <= 4 {
        place.unexpected(report, format_args!("{expected}; write {digits}"));
    } else if text.contains(['r', 'w', 'x']) {
        place.unexpected(
            report,
            format_args!("{expected} (r is 4, w is 2, x is 1; for owner, group, others)"),
        );
    } else {
        place.unexpected(report, expected);
    }
    None
}

fn applies_to(place: &Place<'_>, report: &mut Report) -> AppliesTo {
    let mut applies_to = AppliesTo { files: false, directories: false };
    if let Some((text, _)) = place.scalar() {
        let meant = if text == "directory" { text } else { "file" };
        place.unexpected(report, format_args!("a list of file and directory, such as type: [{meant}]"));
        return applies_to;
    }
    let problems = report.problems.len();
    for item in place.items(report, "a list of file and directory, such as [file]") {
        match item.scalar() {
            Some(("file", _)) => applies_to.files = true,
            Some(("directory", _)) => applies_to.directories = true,
            _ => item.unexpected(report, "file or directory"),
        }
    }
    if problems == report.problems.len() && !applies_to.files && !applies_to.directories {
        place.problem(
            report,
            "found an empty list; expected file, directory or both; without the key both are meant",
        );
    }
    applies_to
}

fn context(place: &Place<'_>, report: &mut Report) -> Option<SelinuxContext> {
    let expected = "an SELinux context, such as {type: httpd_sys_content_t}";
    let fields = place.fields(
        report,
        &["user", "name", "type", "range", "role"],
        Repeated::LastCounts("write it once"),
        expected,
    )?;
    if let Some(role) = fields.get("role") {
        let message = "SELinux roles of files cannot be set; remove the key (files have the role object_r)";
        role.problem(report, message);
    }
    let user = fields.get("user").and_then(|place| identifier(place, report, "unconfined_u"));
    let name = fields.get("name").and_then(|place| identifier(place, report, "unconfined_u"));
    if let (Some(user), Some(name), Some(place)) = (&user, &name, fields.get("name"))
        && user != name
    {
        place.problem(
            report,
            format_args!(
                "found {}, but \"user\" says {}; both keys name the SELinux user: write one",
                quoted(name),
                quoted(user)
            ),
        );
    }
    let kind = fields.require(report, "type", "an SELinux type, such as httpd_sys_content_t");
    let kind = kind.and_then(|place| identifier(place, report, "httpd_sys_content_t"));
    let range = fields.get("range").and_then(|place| range(place, report));
    Some(SelinuxContext { user: user.or(name), kind: kind?, range })
}

/// A word that can stand on a command line: `semanage` gets it.
fn identifier(place: &Place<'_>, report: &mut Report, example: &str) -> Option<String> {
    let expected = format!("an SELinux name of letters, digits, '_', '-' and '.', such as {example}");
    let text = place.text(report, &expected)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.starts_with(['-', '.']) || !text.chars().all(allowed) {
        place.unexpected(report, expected);
        return None;
    }
    Some(text.to_owned())
}

fn range(place: &Place<'_>, report: &mut Report) -> Option<String> {
    let expected = "an SELinux range sN[-sN][:cN[.cN][,…]], such as \"s0-s3:c0.c5,c7\"";
    let text = place.text(report, expected)?;
    match check_range(text) {
        Ok(()) => Some(text.to_owned()),
        Err(wrong) => {
            place.problem(report, format_args!("found {}: {wrong}; expected {expected}", quoted(text)));
            None
        }
    }
}

fn check_range(text: &str) -> Result<(), String> {
    let (levels, categories) = match text.split_once(':') {
        Some((levels, categories)) => (levels, Some(categories)),
        None => (text, None),
    };
    low_and_high(levels, '-', 's')?;
    let mut seen = [false; 1024];
    for part in categories.into_iter().flat_map(|list| list.split(',')) {
        let (low, high) = low_and_high(part, '.', 'c')?;
        let Some(range) = seen.get_mut(low as usize..=high as usize) else {
            return Err(format!("category c{high} does not exist, c1023 is the last"));
        };
        if let Some(twice) = range.iter().position(|seen| *seen) {
            return Err(format!("category c{} stands there twice", low as usize + twice));
        }
        range.fill(true);
    }
    Ok(())
}

/// Reads `s1` or, with the separator, `s1-s3`.
fn low_and_high(text: &str, separator: char, letter: char) -> Result<(u32, u32), String> {
    let number = |word: &str| {
        let digits =
            word.strip_prefix(letter).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits
            .and_then(|digits| digits.parse::<u32>().ok())
            .ok_or_else(|| format!("{} is not '{letter}' and a number", quoted(word)))
    };
    let Some((low, high)) = text.split_once(separator) else {
        return number(text).map(|only| (only, only));
    };
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(format!("{letter}{low} is above {letter}{high}"));
    }
    Ok((low, high))
}
