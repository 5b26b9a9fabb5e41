//! The record of a group's slots: the deployment whose files each slot has.

use std::io;
use std::path::{Path, PathBuf};

use codedeploy_hooks::slots::SlotName;
use serde::{Deserialize, Serialize};

use crate::bounded_read;

/// The only version of the file so far.
const VERSION: u32 = 1;

/// An Install replaces it in its own transaction, so it always fits to the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The paths of the strategy.
    pub link: PathBuf,
    pub slots: PathBuf,
    /// The folder of the deployment that filled the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blue: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    green: Option<PathBuf>,
    /// Whether the slot was empty when the last Install filled it.
    #[serde(default)]
    pub was_empty: bool,
    /// Whether the last Install found a folder in place of the link, which becomes the slot blue.
    #[serde(default)]
    pub adopts: bool,
}

impl Record {
    pub fn new(link: &Path, slots: &Path) -> Self {
        Self {
            version: VERSION,
            link: link.to_owned(),
            slots: slots.to_owned(),
            blue: None,
            green: None,
            was_empty: false,
            adopts: false,
        }
    }

    /// Reads the record; `None` if the group has none.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match bounded_read::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let record: Self = serde_json::from_slice(&bytes)?;
        if record.version != VERSION {
            let found = record.version;
            return Err(io::Error::other(format!(
                "it has version {found}; this agent reads version {VERSION}"
            )));
        }
        Ok(Some(record))
    }

    /// The text of the file.
    pub fn text(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The folder of the deployment in a slot.
    pub fn tenant(&self, slot: SlotName) -> Option<&Path> {
        match slot {
            SlotName::Blue => self.blue.as_deref(),
            SlotName::Green => self.green.as_deref(),
        }
    }

    /// The slot of a deployment.
    pub fn slot_of(&self, deployment: &Path) -> Option<SlotName> {
        SlotName::BOTH
            .into_iter()
            .find(|slot| self.tenant(*slot) == Some(deployment))
    }

    /// Returns the same record with another deployment in a slot.
    pub fn with(mut self, slot: SlotName, tenant: Option<PathBuf>) -> Self {
        match slot {
            SlotName::Blue => self.blue = tenant,
            SlotName::Green => self.green = tenant,
        }
        self
    }

    pub fn is_vacant(&self) -> bool {
        self.blue.is_none() && self.green.is_none()
    }
}
