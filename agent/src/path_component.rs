//! A name from outside that is safe as a file or folder name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An identifier that is safe as a file or folder name, and in a line of text: not empty, `.` or
/// `..`, no slash, no control character.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathComponent(String);

impl PathComponent {
    pub fn new(text: &str) -> Option<Self> {
        let unsafe_char =
            |c: char| c == '/' || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let unsafe_text =
            matches!(text, "" | "." | "..") || text.contains(unsafe_char) || text.len() > 200;
        (!unsafe_text).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PathComponent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or_else(|| format!("{text:?} cannot be the name of a file or folder"))
    }
}

impl From<PathComponent> for String {
    fn from(component: PathComponent) -> Self {
        component.0
    }
}

impl fmt::Display for PathComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
