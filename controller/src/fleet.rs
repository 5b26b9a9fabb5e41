//! The hosts of a deployment group: tag filters, and the registered instances that match them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use codedeploy_api::codedeploy::{Tag, TagFilter, TagFilterType, Timestamp};

use crate::store::{Json, SqlError, Tx, named};

/// A filter whose type and halves are consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagTest {
    Key(String),
    Value(String),
    Both { key: String, value: String },
}

/// The longest key of a tag, and its longest value, in characters.
pub const MAX_KEY: usize = 128;
pub const MAX_VALUE: usize = 256;

/// The reason why a filter is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    #[error("The type {0:?} of a tag filter is not one of KEY_ONLY, VALUE_ONLY and KEY_AND_VALUE.")]
    UnknownType(String),
    #[error("The tag filter with the key {0:?} is of type KEY_ONLY, which takes no value.")]
    ValueNotAllowed(String),
    #[error("The tag filter with the key {0:?} is of type VALUE_ONLY, which takes no key.")]
    KeyNotAllowed(String),
    #[error("A tag filter of type {0} has no {1}.")]
    Missing(&'static str, &'static str),
    #[error("A tag filter has neither a key nor a value: give one of them or both.")]
    Empty,
    #[error("The key {0:?} of a tag filter has more than {most} characters, as no tag's has.", most = MAX_KEY)]
    LongKey(String),
    #[error("The value of the tag filter with the key {0:?} has more than {most} characters, as no tag's has.", most = MAX_VALUE)]
    LongValue(String),
}

impl std::fmt::Display for TagTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TagTest::Key(key) => write!(f, "{key}=*"),
            TagTest::Value(value) => write!(f, "*={value}"),
            TagTest::Both { key, value } => write!(f, "{key}={value}"),
        }
    }
}

/// The filter that people write as `KEY=VALUE`, or as `KEY` for any value.
pub(crate) fn tag_filter(text: &str) -> TagFilter {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    TagFilter {
        key: Some(key.to_owned()),
        value,
        kind: None,
    }
}

impl TagTest {
    /// If the type is omitted, it is inferred from the halves that are set. Some clients send an
    /// empty text for an omitted half.
    pub fn read(filter: &TagFilter) -> Result<TagTest, InvalidFilter> {
        let half = |half: &Option<String>| half.clone().filter(|text| !text.is_empty());
        let shown = || {
            filter
                .key
                .iter()
                .flat_map(|key| key.chars())
                .take(100)
                .collect()
        };
        let length = |half: &Option<String>| half.iter().flat_map(|text| text.chars()).count();
        if length(&filter.key) > MAX_KEY {
            return Err(InvalidFilter::LongKey(shown()));
        }
        if length(&filter.value) > MAX_VALUE {
            return Err(InvalidFilter::LongValue(shown()));
        }
        match (&filter.kind, half(&filter.key), half(&filter.value)) {
            (None | Some(TagFilterType::KeyAndValue), Some(key), Some(value)) => {
                Ok(TagTest::Both { key, value })
            }
            (None | Some(TagFilterType::KeyOnly), Some(key), None) => Ok(TagTest::Key(key)),
            (None | Some(TagFilterType::ValueOnly), None, Some(value)) => Ok(TagTest::Value(value)),
            (None, None, None) => Err(InvalidFilter::Empty),
            (Some(TagFilterType::KeyOnly), _, Some(_)) => {
                Err(InvalidFilter::ValueNotAllowed(shown()))
            }
            (Some(TagFilterType::ValueOnly), Some(_), _) => {
                Err(InvalidFilter::KeyNotAllowed(shown()))
            }
            (Some(TagFilterType::KeyOnly), None, None) => {
                Err(InvalidFilter::Missing("KEY_ONLY", "key"))
            }
            (Some(TagFilterType::ValueOnly), None, None) => {
                Err(InvalidFilter::Missing("VALUE_ONLY", "value"))
            }
            // A tag may have an empty value.
            (Some(TagFilterType::KeyAndValue), Some(key), None) => Ok(TagTest::Both {
                key,
                value: String::new(),
            }),
            (Some(TagFilterType::KeyAndValue), None, _) => {
                Err(InvalidFilter::Missing("KEY_AND_VALUE", "key"))
            }
            (Some(TagFilterType::Other(text)), ..) => {
                Err(InvalidFilter::UnknownType(text.chars().take(100).collect()))
            }
        }
    }

    /// The type of an equivalent filter.
    pub fn kind(&self) -> TagFilterType {
        match self {
            TagTest::Key(_) => TagFilterType::KeyOnly,
            TagTest::Value(_) => TagFilterType::ValueOnly,
            TagTest::Both { .. } => TagFilterType::KeyAndValue,
        }
    }

    pub fn matches(&self, tags: &[Tag]) -> bool {
        let has = |key: Option<&String>, value: Option<&String>| {
            tags.iter().any(|tag| {
                key.is_none_or(|key| tag.key.as_ref() == Some(key))
                    && value.is_none_or(|value| tag.value.as_deref().unwrap_or_default() == value)
            })
        };
        match self {
            TagTest::Key(key) => has(Some(key), None),
            TagTest::Value(value) => has(None, Some(value)),
            TagTest::Both { key, value } => has(Some(key), Some(value)),
        }
    }
}

/// The registered instances of a deployment group: those of its EC2 filters and those of its
/// on-premises filters.
///
/// AWS looks the former up in EC2. Here all hosts are registered, and both kinds of filters test
/// the tags of all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    any_of: Vec<AllOf>,
}

/// Filters of one kind, in the two forms in which they can be set.
#[derive(Debug, Clone, Copy)]
pub struct Filters<'a> {
    pub flat: &'a [TagFilter],
    pub set: &'a [Vec<TagFilter>],
}

/// Matches if a test in every list matches; without a list, matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AllOf(Vec<Vec<TagTest>>);

impl AllOf {
    /// A filter that is no longer valid matches nothing.
    fn of(&Filters { flat, set }: &Filters<'_>) -> Self {
        let tests = |filters: &[TagFilter]| {
            filters
                .iter()
                .filter_map(|f| TagTest::read(f).ok())
                .collect()
        };
        let flat = Some(flat).filter(|list| !list.is_empty());
        AllOf(
            flat.into_iter()
                .chain(set.iter().map(Vec::as_slice))
                .map(tests)
                .collect(),
        )
    }

    fn includes(&self, tags: &[Tag]) -> bool {
        !self.0.is_empty()
            && self
                .0
                .iter()
                .all(|list| list.iter().any(|test| test.matches(tags)))
    }
}

impl Membership {
    /// The instances that match the filters of any kind.
    pub fn of_any(kinds: &[Filters<'_>]) -> Self {
        Membership {
            any_of: kinds.iter().map(AllOf::of).collect(),
        }
    }

    pub fn includes(&self, tags: &[Tag]) -> bool {
        self.any_of.iter().any(|form| form.includes(tags))
    }
}

/// A registered on-premises instance in a deployment's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub arn: String,
    /// The identifier that its agent polls with.
    pub host: String,
}

/// Returns the registered instances of a membership that are not drained, by name.
pub fn members(tx: &Tx<'_>, membership: &Membership) -> Result<Vec<Member>, SqlError> {
    let sql = "SELECT name, arn, principal, tags FROM instances
        WHERE deregistered IS NULL AND drained IS NULL ORDER BY name";
    let mut members = Vec::new();
    tx.query_while(sql, (), |row| {
        let Json(tags) = row.get::<Json<Vec<Tag>>>("tags")?;
        if membership.includes(&tags) {
            members.push(Member {
                name: row.get("name")?,
                arn: row.get("arn")?,
                host: row.get("principal")?,
            });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(members)
}

/// Returns the drained instances of any of the memberships, by name.
pub fn drained(tx: &Tx<'_>, memberships: &[Membership]) -> Result<Vec<String>, SqlError> {
    let sql = "SELECT name, tags FROM instances
        WHERE deregistered IS NULL AND drained IS NOT NULL ORDER BY name";
    let mut names = Vec::new();
    tx.query_while(sql, (), |row| {
        let Json(tags) = row.get::<Json<Vec<Tag>>>("tags")?;
        if memberships
            .iter()
            .any(|membership| membership.includes(&tags))
        {
            names.push(row.get("name")?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(names)
}

/// The longest silence of an agent that works: it polls without a pause, and its polls are noted
/// once a minute.
pub const SILENCE: Duration = Duration::from_secs(180);

/// A registered instance in a count.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) name: String,
    /// The number of its list of tags in [`Census::tags`].
    pub(crate) tags: usize,
    pub(crate) is_silent: bool,
    pub(crate) is_drained: bool,
}

/// All registered instances by name. Most have the same tags as others, so that a group tests few
/// lists.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) instances: Vec<Counted>,
    pub(crate) tags: Vec<Vec<Tag>>,
}

impl Census {
    pub(crate) fn take(tx: &Tx<'_>, now: Timestamp) -> Result<Census, SqlError> {
        let sql = "SELECT name, tags, last_seen, drained FROM instances WHERE deregistered IS NULL ORDER BY name";
        let (mut census, mut numbers) = (Census::default(), HashMap::<String, usize>::new());
        tx.query_while(sql, (), |row| {
            let known = row.text(1, |text| numbers.get(text).copied())?;
            let tags = match known {
                Some(number) => number,
                None => {
                    let Json(tags) = row.get(1)?;
                    census.tags.push(tags);
                    numbers.insert(row.get(1)?, census.tags.len() - 1);
                    census.tags.len() - 1
                }
            };
            let seen: Option<Timestamp> = row.get(2)?;
            census.instances.push(Counted {
                name: row.get(0)?,
                tags,
                is_silent: seen.is_none_or(|seen| seen + SILENCE < now),
                is_drained: row.get::<Option<Timestamp>>(3)?.is_some(),
            });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(census)
    }

    /// Returns the instances of a membership, by name.
    pub(crate) fn members(&self, membership: &Membership) -> Vec<&Counted> {
        let matching: Vec<bool> = self
            .tags
            .iter()
            .map(|tags| membership.includes(tags))
            .collect();
        self.instances
            .iter()
            .filter(|instance| matching.get(instance.tags) == Some(&true))
            .collect()
    }
}

/// Returns the name of the registered instance that polls with `host`.
pub fn instance_of_host(tx: &Tx<'_>, host: &str) -> Result<Option<String>, SqlError> {
    tx.query_opt(
        "SELECT name FROM instances WHERE principal = ?1 AND deregistered IS NULL",
        [host],
        |row| row.get(0),
    )
}

/// The facts that an agent sends with its calls.
#[derive(Debug, Clone, Default)]
pub struct Agent {
    pub version: Option<String>,
    /// Whether it says that it has a command that updates it.
    pub updates: bool,
    /// The signers that it accepts; AWS's agents do not send them, nor does the first call of this
    /// project's agent.
    pub accepted_signers: Option<String>,
}

impl Agent {
    /// Whether it has a command that updates it; `None` for an agent that has not said so either
    /// way: each that says what it accepts says this, too.
    pub fn can_update(&self) -> Option<bool> {
        self.accepted_signers.as_ref().map(|_| self.updates)
    }
}

/// The noted facts about a registered host.
#[derive(Debug)]
pub struct Noted {
    last_seen: Option<Timestamp>,
    version: Option<String>,
    accepted_signers: Option<String>,
    can_update: Option<bool>,
}

impl Noted {
    /// The time for which a host counts as just seen, so that idle polls need no write.
    const JUST: Duration = Duration::from_secs(60);

    /// Whether a call at `now` is to be noted.
    pub fn is_news(&self, agent: &Agent, now: Timestamp) -> bool {
        let differs = |said: &Option<String>, noted| said.is_some() && said != noted;
        self.last_seen.is_none_or(|seen| seen + Self::JUST <= now)
            || differs(&agent.version, &self.version)
            || differs(&agent.accepted_signers, &self.accepted_signers)
            || (agent.can_update().is_some() && agent.can_update() != self.can_update)
    }
}

/// Returns the registered host that an access key is for, if the key is neither revoked nor expired.
pub fn host_of_key(
    tx: &Tx<'_>,
    access_key_id: &str,
    now: Timestamp,
) -> Result<Option<Noted>, SqlError> {
    tx.query_opt(
        "SELECT i.last_seen, i.agent_version, i.accepted_signers, i.can_update
         FROM credentials c JOIN instances i ON i.principal = c.arn AND i.deregistered IS NULL
         WHERE c.access_key_id = ?1 AND c.revoked IS NULL AND (c.expires IS NULL OR c.expires > ?2)",
        (access_key_id, now),
        |row| {
            Ok(Noted {
                last_seen: row.get(0)?,
                version: row.get(1)?,
                accepted_signers: row.get(2)?,
                can_update: row.get(3)?,
            })
        },
    )
}

/// Records that a host called.
pub fn seen(tx: &Tx<'_>, host: &str, agent: &Agent, now: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE instances SET last_seen = :now, agent_version = coalesce(:version, agent_version),
             accepted_signers = coalesce(:signers, accepted_signers), can_update = coalesce(:updates, can_update)
         WHERE principal = :host AND deregistered IS NULL",
        named! {
            ":now": now,
            ":version": agent.version,
            ":signers": agent.accepted_signers,
            ":updates": agent.can_update(),
            ":host": host,
        },
    )?;
    Ok(())
}

/// The registered hosts, by the time of their last call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// They called since a time.
    pub polling: i64,
    pub silent: i64,
    pub never_seen: i64,
}

/// Counts the registered hosts that have called since a time, and the others.
pub fn presence(tx: &Tx<'_>, since: Timestamp) -> Result<Presence, SqlError> {
    tx.query_one(
        "SELECT count(*), count(last_seen), count(CASE WHEN last_seen > ?1 THEN 1 END)
         FROM instances WHERE deregistered IS NULL",
        [since],
        |row| {
            let (all, seen, polling): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Presence {
                polling,
                silent: seen - polling,
                never_seen: all - seen,
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> Result<TagTest, InvalidFilter> {
        TagTest::read(&serde_json::from_str(json).unwrap())
    }

    fn tags(pairs: &[(&str, &str)]) -> Vec<Tag> {
        pairs
            .iter()
            .map(|(key, value)| Tag {
                key: Some((*key).into()),
                value: Some((*value).into()),
            })
            .collect()
    }

    #[test]
    fn filters_and_what_they_match() {
        let host = tags(&[("env", "prod"), ("tier", "web")]);
        for (json, expected) in [
            (
                r#"{"Key":"env","Value":"prod","Type":"KEY_AND_VALUE"}"#,
                true,
            ),
            (
                r#"{"Key":"env","Value":"web","Type":"KEY_AND_VALUE"}"#,
                false,
            ),
            (r#"{"Key":"env","Value":"PROD"}"#, false),
            (r#"{"Key":"tier","Value":"","Type":"KEY_ONLY"}"#, true),
            (r#"{"Value":"web","Type":"VALUE_ONLY"}"#, true),
            (r#"{"Key":"none"}"#, false),
        ] {
            assert_eq!(filter(json).unwrap().matches(&host), expected, "{json}");
        }
        for json in [
            r#"{"Key":"a","Value":"b","Type":"KEY_ONLY"}"#,
            r#"{"Key":"a","Value":"b","Type":"VALUE_ONLY"}"#,
            r#"{"Key":"a","Type":"SOME"}"#,
            r#"{"Type":"KEY_ONLY"}"#,
            "{}",
        ] {
            assert!(filter(json).is_err(), "{json}");
        }
    }
}
