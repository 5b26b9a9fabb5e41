//! Entries of an access control list, in the form of `setfacl`.

use std::collections::HashSet;

use super::fields::{Place, Report, quoted};
use super::values::parse_principal;
use super::{Acl, AclEntry, AclTag};

const FORM: &str =
    "[default:]user|group|mask|other:name:rwx, such as \"u:mary:rw\" or \"d:g:staff:r-x\"";

/// Reads the value of `acls`. An entry with a problem goes into the report only.
pub(super) fn acl(place: &Place<'_>, report: &mut Report) -> Acl {
    if let Some((text, _)) = place.scalar() {
        let found = quoted(text);
        place.problem(
            report,
            format_args!("found {found}; expected a list of ACL entries; write acls: [{found}]"),
        );
        return Acl {
            entries: Vec::new(),
        };
    }
    let mut entries = Vec::new();
    let mut concerned = HashSet::new();
    for item in place.items(report, "a list of ACL entries") {
        let Some(text) = item.text(report, format_args!("an ACL entry in quotes: {FORM}")) else {
            continue;
        };
        if text.ends_with(':') {
            item.warning(
                report,
                format_args!(
                    "found {} without permissions, which means ---; write that",
                    quoted(text)
                ),
            );
        }
        match entry(text) {
            Ok(entry) if concerned.insert((entry.default, entry.tag.clone())) => {
                entries.push(entry)
            }
            Ok(_) => item.problem(
                report,
                format_args!(
                    "found {}; an earlier entry of this list is already for the same one",
                    quoted(text)
                ),
            ),
            Err(wrong) => item.problem(report, format_args!("found {}; {wrong}", quoted(text))),
        }
    }
    Acl { entries }
}

/// Reads `[default:]tag:name:perms`. Without a tag the entry is for a user; a mask has no name.
fn entry(text: &str) -> Result<AclEntry, String> {
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let (default, parts) = match parts.as_slice() {
        ["d" | "default", rest @ ..] if rest.len() >= 2 => (true, rest),
        all => (false, all),
    };
    let (tag, name, perms) = match parts {
        [tag, name, perms] => (*tag, *name, *perms),
        [tag @ ("m" | "mask" | "o" | "other"), perms] => (*tag, "", *perms),
        ["u" | "user" | "g" | "group", _] => return Err(format!("expected {FORM}")),
        [name, perms] => ("user", *name, *perms),
        _ => return Err(format!("expected {FORM}")),
    };
    let tag = match (tag, name) {
        ("u" | "user", "") => AclTag::Owner,
        ("u" | "user", name) => AclTag::User(parse_principal(name)?),
        ("g" | "group", "") => AclTag::OwningGroup,
        ("g" | "group", name) => AclTag::Group(parse_principal(name)?),
        ("m" | "mask", "") => AclTag::Mask,
        ("o" | "other", "") => AclTag::Other,
        ("m" | "mask" | "o" | "other", _) => {
            let without_name = quoted(&format!("{tag}::{perms}"));
            return Err(format!("{tag:?} takes no name; write {without_name}"));
        }
        _ => {
            return Err(format!(
                "{} is no kind of entry; expected {FORM}",
                quoted(tag)
            ));
        }
    };
    if !default && matches!(tag, AclTag::Owner | AclTag::OwningGroup | AclTag::Other) {
        return Err(
            "the entries of owner, owning group and others are those of the mode; use \"mode\""
                .to_owned(),
        );
    }
    Ok(AclEntry {
        default,
        tag,
        perms: permission_bits(perms)?,
    })
}

fn permission_bits(text: &str) -> Result<u8, String> {
    if let [digit @ b'0'..=b'7'] = text.as_bytes() {
        return Ok(digit - b'0');
    }
    let bits = text.chars().try_fold(0, |bits, letter| match letter {
        'r' => Some(bits | 4),
        'w' => Some(bits | 2),
        'x' => Some(bits | 1),
        '-' => Some(bits),
        _ => None,
    });
    bits.ok_or_else(|| {
        format!(
            "its permissions are {}; expected letters of \"rwx-\" or one octal digit; write --- for none",
            quoted(text)
        )
    })
}
