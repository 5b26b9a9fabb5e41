//! The slots of all deployment groups, for people and programs.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use codedeploy_hooks::slots::SlotName;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::placed::record;
use super::switch;
use crate::deployment::installed::Installed;
use crate::deployment_root::{DeploymentFolder, Pointer, Store, StoreError};
use crate::path_component::PathComponent;
use crate::slots::link;
use codedeploy_api::chain::Chain;

/// The slots of one deployment group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupSlots {
    pub deployment_group_id: String,
    pub deployment_group: String,
    pub link: PathBuf,
    /// The slot that serves; absent if none does.
    pub serves: Option<SlotName>,
    /// The time of the last switch.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    pub blue: Contents,
    pub green: Contents,
    /// Whether a switch has begun and not ended.
    pub switching: bool,
    /// The reason why the link cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The contents of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Contents {
    Empty,
    /// Files that no deployment of this agent put there with a strategy.
    Other,
    /// Files of a deployment that serves, or served.
    Deployment {
        deployment_id: String,
    },
    /// Files of a deployment that never served.
    Prepared {
        deployment_id: String,
    },
}

impl fmt::Display for GroupSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deployment group {}: ", self.deployment_group)?;
        let link = self.link.display();
        match (self.serves, &self.problem) {
            (_, Some(problem)) => f.write_str(problem)?,
            (None, None) => write!(f, "no slot serves at {link}")?,
            (Some(slot), None) => {
                write!(f, "{link} is the slot {slot}")?;
                let since = self.since.and_then(|since| since.format(&Rfc3339).ok());
                since.map_or(Ok(()), |since| write!(f, " since {since}"))?;
            }
        }
        write!(f, "; blue {}, green {}", self.blue, self.green)?;
        if self.switching {
            f.write_str("; a switch has begun and not ended")?;
        }
        Ok(())
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Other => f.write_str("has files of no deployment with slots"),
            Self::Deployment { deployment_id } => write!(f, "has {deployment_id}"),
            Self::Prepared { deployment_id } => {
                write!(f, "has {deployment_id}, which has not served yet")
            }
        }
    }
}

/// Looks at the slots of all groups. Blocks.
pub fn all(store: &Store) -> Result<Vec<GroupSlots>, StoreError> {
    let groups = store.slot_groups()?.recorded;
    Ok(groups
        .iter()
        .filter_map(|group| look(store, group))
        .collect())
}

fn in_seconds(time: SystemTime) -> OffsetDateTime {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time)
}

fn look(store: &Store, group: &PathComponent) -> Option<GroupSlots> {
    let record = record(store, group).ok().flatten()?;
    let layout = link::layout(&record.link, &record.slots);
    let last = store.pointed(group, Pointer::LastSuccessful);
    let name = last
        .as_ref()
        .and_then(|folder| Some(Installed::read(folder).ok()?.about.deployment_group));
    let serves = layout.as_ref().ok().and_then(|layout| layout.serving());
    if record.is_vacant() && serves.is_none() {
        return None;
    }
    let contents = |slot: SlotName| {
        let folder = record.slots.join(slot.name());
        let tenant = record
            .tenant(slot)
            .map(|path| DeploymentFolder::at(path.to_owned()));
        match tenant {
            _ if link::is_empty(&folder).unwrap_or(true) => Contents::Empty,
            None => Contents::Other,
            Some(tenant) if serves != Some(slot) && last.as_ref() == Some(&tenant) => {
                Contents::Prepared {
                    deployment_id: tenant.id(),
                }
            }
            Some(tenant) => Contents::Deployment {
                deployment_id: tenant.id(),
            },
        }
    };
    let since = std::fs::symlink_metadata(&record.link)
        .and_then(|metadata| metadata.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH);
    Some(GroupSlots {
        deployment_group_id: group.to_string(),
        deployment_group: name.unwrap_or_else(|| group.to_string()),
        serves,
        since: serves.map(|_| in_seconds(since)),
        blue: contents(SlotName::Blue),
        green: contents(SlotName::Green),
        switching: switch::is_unfinished(store, group),
        problem: layout.err().map(|error| Chain(&error).to_string()),
        link: record.link,
    })
}
