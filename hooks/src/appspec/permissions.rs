//! The rules of the `permissions` section.

use super::fields::{Fields, Place, Repeated, Report, quoted};
use super::scalar::{self, Number};
use super::values::{note_parents, parse_principal, wrong_path};
use super::{
    AppliesTo, HostPath, Mode, NamePattern, PathError, Pattern, Permission, Principal,
    SelinuxContext, acl,
};

const KEYS: [&str; 9] = [
    "object", "pattern", "except", "owner", "group", "mode", "acls", "context", "type",
];

/// Reads the permissions, each with the number of its entry in the file.
pub(super) fn permissions(top: &Fields<'_>, report: &mut Report) -> Vec<(usize, Permission)> {
    let Some(section) = top.get("permissions") else {
        return Vec::new();
    };
    let entries = section.items(
        report,
        "a list of entries, each beginning with \"- object: \"",
    );
    let entries = entries.into_iter().enumerate();
    entries
        .filter_map(|(index, entry)| Some((index, permission(entry, report)?)))
        .collect()
}

/// Reads one entry; returns `None`, after a finding in the report, for an entry that can apply to
/// nothing. A value with a problem is reported and left out: the result is valid only if there are
/// no problems.
fn permission(entry: Place<'_>, report: &mut Report) -> Option<Permission> {
    let expected = "a permission, such as \"- object: /srv/app\" with \"mode: 644\" below it";
    let fields = entry.fields(report, &KEYS, Repeated::IN_ENTRY, expected)?;
    let of_object = "a file or folder on the host, such as /srv/app";
    let object = fields.require(report, "object", of_object);
    let object = object.and_then(|place| self::object(place, report, of_object));
    let owner = fields
        .get("owner")
        .and_then(|place| principal(place, report));
    let group = fields
        .get("group")
        .and_then(|place| principal(place, report));
    let pattern = fields
        .get("pattern")
        .map(|place| self::pattern(place, report, object.as_ref()));
    let except = fields.get("except").map(|place| except(place, report));
    let mode = fields.get("mode").and_then(|place| mode(place, report));
    let acl = fields.get("acls").map(|place| acl::acl(place, report));
    let context = fields
        .get("context")
        .and_then(|place| context(place, report));
    let applies_to = fields.get("type").map(|place| applies_to(place, report));
    let applies_to = applies_to.unwrap_or(Some(AppliesTo {
        files: true,
        directories: true,
    }))?;
    Some(Permission {
        object: object?,
        pattern: pattern.unwrap_or(Some(Pattern::Everything))?,
        except: except.unwrap_or_default(),
        owner,
        group,
        mode,
        acl,
        context,
        applies_to,
    })
}

fn object(place: &Place<'_>, report: &mut Report, expected: &str) -> Option<HostPath> {
    let Some((text, _)) = place.scalar() else {
        place.warning(
            report,
            format_args!(
                "applies to nothing: found {}; expected {expected}",
                place.found()
            ),
        );
        return None;
    };
    let text = text.trim();
    if text.is_empty() {
        place.unexpected(report, expected);
        return None;
    }
    match HostPath::new(text) {
        Ok(path) => {
            note_parents(place, report, text);
            Some(path)
        }
        Err(PathError::Relative) => {
            place.warning(
                report,
                format_args!(
                    "applies to nothing: found {}, which is not absolute; write the whole path on the host, beginning with '/'",
                    quoted(text)
                ),
            );
            None
        }
        Err(wrong) => {
            wrong_path(place, report, text, wrong);
            None
        }
    }
}

/// Returns `None` for a pattern that matches no name.
fn pattern(place: &Place<'_>, report: &mut Report, object: Option<&HostPath>) -> Option<Pattern> {
    if place.is_false() {
        place.warning(
            report,
            format_args!(
                "found {}, which counts as \"**\"; remove the key",
                place.found()
            ),
        );
        return Some(Pattern::Everything);
    }
    let expected = "\"**\" or a name pattern, such as \"*.sh\"";
    if place
        .scalar()
        .is_some_and(|(text, _)| text.trim().is_empty())
    {
        place.warning(
            report,
            format_args!(
                "found an empty text, which matches nothing; expected {expected}, or no key for everything"
            ),
        );
        return None;
    }
    let text = place.text(report, expected)?;
    if let Some((folder, name)) = text.rsplit_once('/') {
        let instead = match object {
            Some(object) if !folder.contains('*') => {
                let folder = object.as_path().join(folder.trim_matches('/'));
                format!(
                    "write object: {} with pattern: {}",
                    quoted(&folder.to_string_lossy()),
                    quoted(name)
                )
            }
            _ => format!(
                "write an entry for each folder, with pattern: {}",
                quoted(name)
            ),
        };
        place.warning(
            report,
            format_args!(
                "{} matches nothing: a pattern is compared with the names directly below the object, which have no '/'; {instead}",
                quoted(text)
            ),
        );
    }
    Some(match text {
        "**" => Pattern::Everything,
        name => Pattern::Name(NamePattern::new(name)),
    })
}

fn except(place: &Place<'_>, report: &mut Report) -> Vec<NamePattern> {
    if let Some((text, _)) = place.scalar()
        && !place.is_false()
        && !place.is_empty()
    {
        let found = quoted(text);
        place.problem(
            report,
            format_args!(
                "found {found}; expected a list of name patterns; write except: [{found}]"
            ),
        );
        return Vec::new();
    }
    let mut patterns = Vec::new();
    for item in place.items(report, "a list of name patterns, such as [\"*.tmp\"]") {
        let is_empty = item
            .scalar()
            .is_some_and(|(text, _)| text.trim().is_empty());
        if is_empty {
            item.warning(
                report,
                "found an empty text, which matches nothing; remove it",
            );
            continue;
        }
        let Some(text) = item.text(report, "a name pattern, such as \"*.tmp\"") else {
            continue;
        };
        if text.contains('/') {
            item.warning(
                report,
                format_args!(
                    "{} excepts nothing: it is compared with the names directly below the object, which have no '/'; write \
                     entries for the folders beside it instead",
                    quoted(text)
                ),
            );
        }
        patterns.push(NamePattern::new(text));
    }
    patterns
}

fn principal(place: &Place<'_>, report: &mut Report) -> Option<Principal> {
    if place.is_false() {
        let hint = "remove the key, or put a name like that in quotes";
        place.warning(
            report,
            format_args!("found {}, which counts as absent; {hint}", place.found()),
        );
        return None;
    }
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

fn mode(place: &Place<'_>, report: &mut Report) -> Option<Mode> {
    let expected = "1 to 4 octal digits, such as 644 or \"0644\"";
    let (text, plain) = place
        .scalar()
        .map(|(text, plain)| (text.trim(), plain))
        .unwrap_or_default();
    if !plain {
        return Mode::read(text).or_else(|| not_octal(place, report, expected, text));
    }
    // The official agents do not read a fraction of zeros as a mode.
    let number = scalar::number(text).filter(|_| !text.contains('.'));
    if let (Some(digits), Some(Number::Whole(number))) = (scalar::octal_form(text), number) {
        let digits = digits.trim_start_matches('0');
        let bits = Mode::read(if digits.is_empty() { "0" } else { digits });
        if bits.is_some() && number >= 8 {
            place.warning(
                report,
                format_args!(
                    "found {text}, which means {digits}; without quotes AWS's agents read it as the number {number}; write \
                     {digits}"
                ),
            );
        }
        return bits.or_else(|| not_octal(place, report, expected, text));
    }
    let read = match number {
        Some(Number::Whole(number)) => number.to_string(),
        Some(Number::Fraction) | None => text.to_owned(),
    };
    let bits = Mode::read(&read);
    if bits.is_some() && read != text {
        place.warning(
            report,
            format_args!(
                "found {}, which is the number {read}; write {read}",
                quoted(text)
            ),
        );
    }
    bits.or_else(|| not_octal(place, report, expected, text))
}

fn not_octal(place: &Place<'_>, report: &mut Report, expected: &str, text: &str) -> Option<Mode> {
    let digits = text
        .strip_prefix("0o")
        .unwrap_or(text)
        .trim_start_matches('0');
    if Mode::read(digits).is_some() {
        place.unexpected(report, format_args!("{expected}; write {digits}"));
    } else if text.contains(['r', 'w', 'x']) {
        place.unexpected(
            report,
            format_args!("{expected} (r is 4, w is 2, x is 1; for owner, group, others)"),
        );
    } else if text.is_empty() && place.scalar().is_some() {
        place.problem(
            report,
            format_args!(
                "found an empty text, which AWS's agents read as 000; expected {expected}"
            ),
        );
    } else {
        place.unexpected(report, expected);
    }
    None
}

/// Returns `None` for a list that names no kind, so that the permission cannot apply.
fn applies_to(place: &Place<'_>, report: &mut Report) -> Option<AppliesTo> {
    let mut applies_to = AppliesTo {
        files: false,
        directories: false,
    };
    if place.is_false() {
        place.warning(
            report,
            format_args!("found {}, which means both; remove the key", place.found()),
        );
        return Some(AppliesTo {
            files: true,
            directories: true,
        });
    }
    if let Some((text, _)) = place.scalar() {
        let meant = if text == "directory" { text } else { "file" };
        place.unexpected(
            report,
            format_args!("a list of file and directory, such as type: [{meant}]"),
        );
        return None;
    }
    if place.is_empty() {
        place.warning(
            report,
            format_args!(
                "found {}, with which the entry applies to nothing; expected file, directory or both; without the key both \
                 are meant",
                place.found()
            ),
        );
        return None;
    }
    for item in place.items(report, "a list of file and directory, such as [file]") {
        match item.scalar() {
            Some(("file", _)) => applies_to.files = true,
            Some(("directory", _)) => applies_to.directories = true,
            _ => item.unexpected(report, "file or directory"),
        }
    }
    (applies_to.files || applies_to.directories).then_some(applies_to)
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
        let message =
            "SELinux roles of files cannot be set; remove the key (files have the role object_r)";
        role.problem(report, message);
    }
    let user = fields
        .get("user")
        .and_then(|place| identifier(place, report, "unconfined_u"));
    let name = fields
        .get("name")
        .and_then(|place| identifier(place, report, "unconfined_u"));
    if let (Some(user), Some(name), Some(place)) = (&user, &name, fields.get("name"))
        && user != name
    {
        place.warning(
            report,
            format_args!(
                "found {}, but \"user\" says {}; both keys name the SELinux user, and \"name\" counts: write one",
                quoted(name),
                quoted(user)
            ),
        );
    }
    let kind = fields.require(
        report,
        "type",
        "an SELinux type, such as httpd_sys_content_t",
    );
    let kind = kind.and_then(|place| identifier(place, report, "httpd_sys_content_t"));
    let range = fields.get("range").and_then(|place| range(place, report));
    Some(SelinuxContext {
        user: name.or(user),
        kind: kind?,
        range,
    })
}

/// Reads a word that is safe on a command line, because `semanage` receives it.
fn identifier(place: &Place<'_>, report: &mut Report, example: &str) -> Option<String> {
    let expected =
        format!("an SELinux name of letters, digits, '_', '-' and '.', such as {example}");
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
    let mut text = place.text(report, expected)?;
    if let Some(shorter) = text
        .strip_suffix(',')
        .filter(|shorter| check_range(shorter).is_ok())
    {
        place.warning(
            report,
            format_args!(
                "found {}, with nothing behind the last ','; write {}",
                quoted(text),
                quoted(shorter)
            ),
        );
        text = shorter;
    }
    match check_range(text) {
        Ok(()) => Some(text.to_owned()),
        Err(wrong) => {
            place.problem(
                report,
                format_args!("found {}: {wrong}; expected {expected}", quoted(text)),
            );
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
            return Err(format!(
                "category c{high} does not exist, c1023 is the last"
            ));
        };
        if let Some(twice) = range.iter().position(|seen| *seen) {
            return Err(format!(
                "category c{} stands there twice",
                low as usize + twice
            ));
        }
        range.fill(true);
    }
    Ok(())
}

/// Reads `s1` or, with the separator, `s1-s3`.
fn low_and_high(text: &str, separator: char, letter: char) -> Result<(u32, u32), String> {
    let number = |word: &str| {
        let digits = word
            .strip_prefix(letter)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
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
