//! What operators declare: applications, revisions, deployment groups and configurations, on-premises instances.
//!
//! Every operation is a function of one transaction; it checks its input in the order required members, syntax,
//! existence, uniqueness, cross-field rules, and names a refusal as AWS does.

pub mod applications;
pub mod configs;
pub mod groups;
pub mod instances;
pub mod revisions;
pub(crate) mod settings;

use codedeploy_api::codedeploy::{Tag, Timestamp};
use rusqlite::Transaction;

use crate::config::{Partition, Quotas, Timers};
use crate::error::{ApiError, ErrorName};
use crate::page::Pages;
use crate::traffic::Balancers;

/// A transaction and what every operation needs beside its input.
#[derive(Debug)]
pub struct Context<'a> {
    pub tx: &'a Transaction<'a>,
    pub now: Timestamp,
    pub partition: &'a Partition,
    pub quotas: &'a Quotas,
    pub timers: &'a Timers,
    pub balancers: &'a Balancers,
    pub pages: &'a Pages,
}

/// Most names or ids in one batch.
pub(crate) const BATCH: usize = 100;

/// Most characters of a description.
const MAX_DESCRIPTION: usize = 256;

/// What makes up a name and its two refusals.
pub(crate) struct Naming {
    what: &'static str,
    required: ErrorName,
    invalid: ErrorName,
}

pub(crate) const APPLICATION: Naming = Naming {
    what: "application name",
    required: ErrorName::ApplicationNameRequired,
    invalid: ErrorName::InvalidApplicationName,
};
pub(crate) const GROUP: Naming = Naming {
    what: "deployment group name",
    required: ErrorName::DeploymentGroupNameRequired,
    invalid: ErrorName::InvalidDeploymentGroupName,
};
pub(crate) const CONFIG: Naming = Naming {
    what: "deployment configuration name",
    required: ErrorName::DeploymentConfigNameRequired,
    invalid: ErrorName::InvalidDeploymentConfigName,
};
pub(crate) const INSTANCE: Naming = Naming {
    what: "instance name",
    required: ErrorName::InstanceNameRequired,
    invalid: ErrorName::InvalidInstanceName,
};

impl Naming {
    /// The name, present and of the right form.
    pub(crate) fn check(&self, name: Option<String>) -> Result<String, ApiError> {
        let name = name
            .filter(|name| !name.is_empty())
            .ok_or_else(|| self.required.because(format!("The {} is missing.", self.what)))?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        if name.chars().count() > 100 || !name.chars().all(allowed) {
            return Err(self.invalid.because(format!(
                "The {} {:?} is not valid: expected 1 to 100 letters, digits and the characters + = , . @ _ -",
                self.what,
                shorten(&name)
            )));
        }
        Ok(name)
    }

    /// A batch of names; none is a missing name.
    pub(crate) fn check_batch(
        &self,
        names: Option<Vec<String>>,
        limit: ErrorName,
    ) -> Result<Vec<String>, ApiError> {
        let names = names.unwrap_or_default();
        if names.is_empty() {
            return Err(self.required.because(format!("At least one {} is needed.", self.what)));
        }
        if names.len() > BATCH {
            return Err(limit.because(format!(
                "{} {}s were given; at most {BATCH} can be given at once.",
                names.len(),
                self.what
            )));
        }
        names.into_iter().map(|name| self.check(Some(name))).collect()
    }
}

/// A client's text for a message or a log: never long, never more than one line once quoted.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

pub(crate) fn check_description(description: &Option<String>) -> Result<(), ApiError> {
    match description {
        Some(text) if text.chars().count() > MAX_DESCRIPTION => {
            Err(ErrorName::DescriptionTooLong.because(format!(
                "The description has {} characters; at most {MAX_DESCRIPTION} are allowed.",
                text.chars().count()
            )))
        }
        _ => Ok(()),
    }
}

/// Tags of a resource: complete, within their lengths, each key once.
pub(crate) fn check_resource_tags(tags: Option<Vec<Tag>>) -> Result<Vec<Tag>, ApiError> {
    let tags = tags.unwrap_or_default();
    check_tags(&tags, ErrorName::InvalidTagsToAdd)?;
    if tags.len() > 50 {
        return Err(ErrorName::InvalidTagsToAdd.because("A resource can have at most 50 tags."));
    }
    Ok(tags)
}

fn check_tags(tags: &[Tag], refusal: ErrorName) -> Result<(), ApiError> {
    let mut keys = std::collections::BTreeSet::new();
    for tag in tags {
        let key = tag.key.as_deref().unwrap_or_default();
        if key.is_empty() || key.chars().count() > 128 {
            return Err(refusal.because("A tag key must have 1 to 128 characters."));
        }
        if tag.value.as_deref().unwrap_or_default().chars().count() > 256 {
            return Err(refusal
                .because(format!("The value of the tag {:?} has more than 256 characters.", shorten(key))));
        }
        if !keys.insert(key) {
            return Err(refusal.because(format!("The tag key {:?} is given twice.", shorten(key))));
        }
    }
    Ok(())
}

/// A random UUID (RFC 9562, version 4), as AWS writes identifiers of resources.
pub(crate) fn new_id() -> Result<String, ApiError> {
    let bits = u128::from_be_bytes(crate::vault::random()?);
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// `length` random characters of `alphabet`, which has at most 256 of them.
pub(crate) fn random_text(alphabet: &[u8], length: usize) -> Result<String, ApiError> {
    let mut text = String::with_capacity(length);
    // Bytes beyond the last whole multiple would make the first characters likelier.
    let usable = 256 - 256 % alphabet.len();
    while text.len() < length {
        let bytes: [u8; 32] = crate::vault::random()?;
        let chosen = bytes
            .into_iter()
            .filter(|byte| usize::from(*byte) < usable)
            .filter_map(|byte| alphabet.get(usize::from(byte) % alphabet.len()));
        text.extend(chosen.map(|byte| char::from(*byte)).take(length - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_the_forms_of_aws() {
        let id = new_id().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!("89ab".contains(char::from(id.as_bytes()[19])));
        let text = random_text(b"ABC", 100).unwrap();
        assert!(text.len() == 100 && text.bytes().all(|b| b"ABC".contains(&b)));
    }

    #[test]
    fn names() {
        assert!(APPLICATION.check(Some("shop+=,.@_-1".into())).is_ok());
        let refused = |name: Option<&str>| APPLICATION.check(name.map(Into::into)).unwrap_err().name;
        assert_eq!(refused(None), ErrorName::ApplicationNameRequired);
        assert_eq!(refused(Some("")), ErrorName::ApplicationNameRequired);
        assert_eq!(refused(Some("bad name")), ErrorName::InvalidApplicationName);
        assert_eq!(refused(Some(&"x".repeat(101))), ErrorName::InvalidApplicationName);
    }
}
