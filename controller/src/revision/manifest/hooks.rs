//! The hooks in the text of an AppSpec file.
//!
//! An alias repeats a part of the document for the price of a few bytes. The memory of all parts is
//! counted while they are read, because the YAML library limits only the number of aliases.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The memory that a document may take with all its repetitions, in bytes.
const MAX_MEMORY: usize = 32 * 1024 * 1024;

/// A script of a lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Hook {
    pub(crate) location: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runas: Option<String>,
}

/// The scripts by their lifecycle events.
pub(crate) type Hooks = BTreeMap<String, Vec<Hook>>;

/// Reads the hooks of an AppSpec file.
pub(super) fn read(text: &[u8]) -> Result<Hooks, String> {
    let left = Cell::new(MAX_MEMORY);
    let document = Seed(&left)
        .deserialize(serde_yaml::Deserializer::from_slice(text))
        .map_err(|error| error.to_string())?;
    let mut hooks = Hooks::new();
    for (event, scripts) in document.member("hooks").map_or(&[][..], Node::members) {
        let script = |script: &Node| {
            let member = |name: &str| script.member(name)?.text().map(str::to_owned);
            Hook {
                location: member("location").unwrap_or_default(),
                timeout: member("timeout"),
                runas: member("runas"),
            }
        };
        let scripts: Vec<Hook> = scripts.elements().iter().map(script).collect();
        if let (Some(event), false) = (event.text(), scripts.is_empty()) {
            hooks.insert(event.to_owned(), scripts);
        }
    }
    Ok(hooks)
}

/// A part of the document.
enum Node {
    /// A text or a number.
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Other,
}

impl Node {
    fn text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    fn elements(&self) -> &[Node] {
        match self {
            Node::List(list) => list,
            _ => &[],
        }
    }

    fn members(&self) -> &[(Node, Node)] {
        match self {
            Node::Map(members) => members,
            _ => &[],
        }
    }

    fn member(&self, name: &str) -> Option<&Node> {
        let mut members = self.members().iter();
        let found = members.find(|(key, _)| key.text() == Some(name));
        found.map(|(_, value)| value)
    }
}

/// Reads a part, while memory is left.
struct Seed<'a>(&'a Cell<usize>);

impl Seed<'_> {
    fn take<E: Error>(&self, text: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(size_of::<Node>() + text);
        let left = left.ok_or_else(|| E::custom("its aliases repeat too much"))?;
        self.0.set(left);
        Ok(())
    }

    fn text<E: Error>(&self, text: String) -> Result<Node, E> {
        self.take(text.len())?;
        Ok(Node::Text(text))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a list or a mapping")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        self.take(text.len())?;
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Node, E> {
        self.text(number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Node, E> {
        self.text(number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node, E> {
        self.text(number.to_string())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        self.visit_unit()
    }

    /// The value of an empty document.
    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.take(0)?;
        Ok(Node::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        self.take(0)?;
        let mut elements = Vec::new();
        while let Some(element) = list.next_element_seed(Seed(self.0))? {
            elements.push(element);
        }
        Ok(Node::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        self.take(0)?;
        let mut members = Vec::new();
        while let Some(member) = map.next_entry_seed(Seed(self.0), Seed(self.0))? {
            members.push(member);
        }
        Ok(Node::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_texts_numbers_and_aliases_of_them() {
        let text = "x: &owner app\nhooks:\n  BeforeInstall: []\n  AfterInstall:\n  - {location: a.sh, timeout: 30, runas: *owner}\n  \
                    - {location: 7, timeout: true}\n  ApplicationStop:\n";
        let hooks = read(text.as_bytes()).unwrap();
        let hook = |location: &str, timeout: Option<&str>, runas: Option<&str>| Hook {
            location: location.into(),
            timeout: timeout.map(str::to_owned),
            runas: runas.map(str::to_owned),
        };
        let expected = vec![hook("a.sh", Some("30"), Some("app")), hook("7", None, None)];
        assert_eq!(hooks, Hooks::from([("AfterInstall".into(), expected)]));
        for none in ["", "a", "hooks:", "hooks: [a]", "{}"] {
            assert_eq!(read(none.as_bytes()), Ok(Hooks::new()), "{none}");
        }
        assert!(read(b"hooks: [").is_err());
    }

    #[test]
    fn aliases_that_repeat_too_much_are_an_error() {
        let long = "x".repeat(100_000);
        let many = vec!["*a"; 10_000].join(", ");
        for text in [
            format!("a: &a {long}\nhooks: [{many}]"),
            format!("a: &a [{}]\nhooks: [{many}]", vec!["x"; 10_000].join(", ")),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains("repeat too much"), "{error}");
        }
    }
}
