//! The environment of the process, as a value.

use std::ffi::OsString;

/// The relevant part of the process environment, read once at start.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self {
            variables: variables.into_iter().collect(),
        }
    }

    /// The value of `name`, if it is set, not empty, and text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .find(|(key, _)| key == name)?
            .1
            .to_str()
            .filter(|value| !value.is_empty())
    }

    pub fn variables(&self) -> &[(OsString, OsString)] {
        &self.variables
    }
}
