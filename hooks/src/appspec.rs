//! The AppSpec file, valid by construction: only [`parse`] makes an [`AppSpec`] (spec: AppSpec file
//! and Install).
//!
//! [`raw`] turns text, after [`relaxed`] has repaired what only YAML 1.1 allows, into a small tree
//! that keeps positions; [`fields`] reads values from it or reports what is wrong with them,
//! [`scalar`] reads numbers and booleans; [`validate`] turns the tree into these types and collects
//! every problem on the way; [`hooks`] and [`permissions`] hold the rules of these sections,
//! [`strategy`] those of blue/green on one host,
//! [`acl`] those of access control lists, [`path`] those of paths. [`lint`] compares a valid file
//! with the unpacked revision and finds entries that cannot work; [`hints`] suggests what a missing
//! path may have meant.

mod acl;
mod fields;
mod hints;
mod hooks;
mod lint;
mod path;
mod permissions;
mod raw;
mod relaxed;
mod scalar;
pub mod strategy;
mod validate;
mod values;

use std::ffi::OsStr;
use std::fmt;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_api::specification::FileExistsBehavior;

use codedeploy_support::plain::harmless;
pub use fields::closest;
pub use hints::{exists, missing_script, missing_source};
pub use hooks::closest_event;
pub(crate) use path::kernel_folder;
pub use path::{ArchivePath, HostPath, MAX_FOLDERS, MAX_PATH_BYTES, PathError, check_length};
pub use strategy::Strategy;

/// The largest AppSpec file that is read, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The timeout of a script that sets none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);

/// The contents of an AppSpec file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSpec {
    pub files: Vec<FileMapping>,
    /// Overrides the deployment's own option.
    pub file_exists_behavior: Option<FileExistsBehavior>,
    pub permissions: Vec<Permission>,
    /// In the order of the file; each event appears once.
    pub hooks: Vec<(LifecycleEvent, Vec<Script>)>,
    /// Keys below `hooks` that cannot be the name of a lifecycle event, such as `After Install`;
    /// their scripts never run.
    pub unknown_hooks: Vec<String>,
    /// Blue/green on this host; without it, revisions are deployed in place.
    pub strategy: Option<Strategy>,
}

impl AppSpec {
    /// The scripts of `event`, in order; empty when it has none.
    pub fn scripts(&self, event: &LifecycleEvent) -> &[Script] {
        self.hooks
            .iter()
            .find(|(name, _)| name == event)
            .map_or(&[], |(_, scripts)| scripts)
    }
}

/// One entry of `files`: a file or folder of the revision, and the host folder that it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMapping {
    pub source: ArchivePath,
    pub destination: HostPath,
}

/// One script of a lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub location: ArchivePath,
    /// More than zero.
    pub timeout: Duration,
    pub runas: Option<String>,
    pub sudo: bool,
}

/// One entry of `permissions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    pub object: HostPath,
    pub pattern: Pattern,
    pub except: Vec<NamePattern>,
    pub owner: Option<Principal>,
    pub group: Option<Principal>,
    pub mode: Option<Mode>,
    pub acl: Option<Acl>,
    pub context: Option<SelinuxContext>,
    pub applies_to: AppliesTo,
}

/// The paths below `object` that a permission applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `**`: everything below, at any depth.
    Everything,
    /// A name pattern, compared with direct children only.
    Name(NamePattern),
}

/// A file name in which `*` matches any characters; everything else is literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

/// The kinds of object that a permission applies to; at least one is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliesTo {
    pub files: bool,
    pub directories: bool,
}

/// A user or group, by name or by number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    Name(String),
    Id(u32),
}

/// Permission bits, at most `0o7777`, and the number of digits that they are written with.
#[derive(Clone, Copy)]
pub struct Mode {
    bits: u32,
    digits: usize,
}

/// The named entries of an access control list; the base entries come from the file's mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    pub entries: Vec<AclEntry>,
}

/// One entry, written as `[default:]tag:name:perms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclEntry {
    /// An entry that new files below a directory inherit.
    pub default: bool,
    pub tag: AclTag,
    /// `rwx` as the bits 4, 2, 1.
    pub perms: u8,
}

/// The user or group that an [`AclEntry`] is for. An unnamed entry of the access ACL is rejected:
/// the mode sets those.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AclTag {
    /// Only in default entries.
    Owner,
    User(Principal),
    /// Only in default entries.
    OwningGroup,
    Group(Principal),
    Mask,
    /// Only in default entries.
    Other,
}

/// The arguments of `semanage fcontext`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelinuxContext {
    pub user: Option<String>,
    pub kind: String,
    /// As written, checked: `sN[-sN][:cN[.cN][,…]]`.
    pub range: Option<String>,
}

/// A position in the file; line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One problem or warning about an AppSpec file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub position: Option<Position>,
    /// The path inside the document, such as `permissions[1].mode`; empty for the document itself.
    pub path: String,
    /// The finding, the values that are allowed, and a hint where one helps.
    pub message: String,
}

/// An AppSpec, with warnings about its file.
#[derive(Debug, Clone)]
pub struct Parsed {
    pub appspec: AppSpec,
    pub warnings: Vec<Finding>,
    /// Facts about a file that is right, for those who check it.
    pub notes: Vec<Finding>,
    /// For each permission, the number of its entry in the file.
    entries: Vec<usize>,
    text: Vec<u8>,
}

/// All problems of an AppSpec file, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub problems: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// Reads an AppSpec file and reports all problems, not only the first.
pub fn parse(text: &[u8]) -> Result<Parsed, Invalid> {
    validate::appspec(text, false)
}

/// Reads the AppSpec file of a revision that was deployed before, possibly by another agent. A
/// mistake that an agent accepted then is read in the same way again, with a warning.
pub fn parse_earlier(text: &[u8]) -> Result<Parsed, Invalid> {
    validate::appspec(text, true)
}

/// Returns the scripts of `event` in the AppSpec file of an earlier revision, with every finding
/// for which the file would be rejected today. Nothing else in the file matters. Entries that
/// cannot be read as scripts are left out.
pub fn scripts_of_earlier(text: &[u8], event: &LifecycleEvent) -> (Vec<Script>, Vec<Finding>) {
    let problems = parse(text)
        .err()
        .map(|invalid| invalid.problems)
        .unwrap_or_default();
    let scripts = raw::read(text).map(|document| hooks::scripts_of_earlier(&document.root, event));
    (scripts.unwrap_or_default(), problems)
}

/// Returns the position of the value at `path`, such as `hooks.BeforeInstall[0].location`; without
/// such a value, the position of the nearest one around it. For findings about the entries of a
/// valid file.
pub fn position(text: &[u8], path: &str) -> Option<Position> {
    let document = raw::read(text).ok()?;
    Some(document.root.at(path).position)
}

impl Mode {
    pub fn new(bits: u32) -> Option<Self> {
        (bits <= 0o7777).then_some(Self { bits, digits: 3 })
    }

    /// Reads 1 to 4 octal digits.
    pub fn read(text: &str) -> Option<Self> {
        let is_octal = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let bits = u32::from_str_radix(text, 8)
            .ok()
            .filter(|_| is_octal && text.len() <= 4)?;
        Some(Self {
            bits,
            digits: text.len(),
        })
    }

    pub fn bits(self) -> u32 {
        self.bits
    }

    /// The digits as the AppSpec writes them, zero-padded to three.
    pub fn written(self) -> String {
        format!("{:0digits$o}", self.bits, digits = self.digits.max(3))
    }
}

impl PartialEq for Mode {
    fn eq(&self, other: &Self) -> bool {
        self.bits == other.bits
    }
}

impl Eq for Mode {}

impl NamePattern {
    pub fn new(text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        // Several stars match the same as one.
        let mut last = None;
        text.retain(|c| last.replace(c) != Some('*') || c != '*');
        Self(text)
    }

    /// Returns the only name that matches, if there is only one.
    pub(crate) fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// The cost of a comparison with `name`, counted in comparisons of short names.
    pub(crate) fn cost(&self, name: &OsStr) -> usize {
        1 + name.len() * self.0.len().min(name.len()) / 64
    }

    /// Whether the whole `name` matches.
    pub fn matches(&self, name: &OsStr) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_encoded_bytes());
        let (mut p, mut n) = (0, 0);
        // The last `*` passed, and how far the name had been read there: the point to retry from.
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = Some((p + 1, n));
                    p += 1;
                }
                Some(byte) if *byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => {
                    let Some((after_star, taken)) = retry else {
                        return false;
                    };
                    retry = Some((after_star, taken + 1));
                    p = after_star;
                    n = taken + 1;
                }
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.bits)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", harmless(&self.path))?;
        }
        f.write_str(&harmless(&self.message))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_name_pattern_matches_any_characters_and_nothing_else_is_special() {
        let cases = [
            ("*.tmp", "a.tmp", true),
            ("*.tmp", "a.tmp.bak", false),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a?c", "abc", false),
            ("[a]", "a", false),
            ("*a", "aaa", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(
                NamePattern::new(pattern).matches(OsStr::new(name)),
                expected,
                "{pattern} on {name}"
            );
        }
    }
}
