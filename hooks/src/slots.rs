//! The two slots of a blue/green deployment on one host: their names, and the place of one.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One of the two slots. Its name is also that of its folder below `slots`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotName {
    Blue,
    Green,
}

/// A slot as scripts and traffic providers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    pub name: SlotName,
    /// The folder with the slot's files.
    pub folder: PathBuf,
    /// Absent if the strategy has no ports.
    pub port: Option<u16>,
}

impl SlotName {
    pub const BOTH: [Self; 2] = [Self::Blue, Self::Green];

    pub fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
