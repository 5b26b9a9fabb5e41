//! Makes text from a bundle, a script, a service or a command line plain, so that no terminal acts
//! on it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes every character of `text` that a terminal acts on, or that would make it look like
/// another line.
pub fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, is_hostile)
}

/// The same for a text of several lines: line breaks stay.
pub fn harmless_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_hostile(c))
}

/// The same for a document for a browser: line breaks and tabs stay.
pub fn harmless_document(text: &str) -> Cow<'_, str> {
    escaped(text, |c| !matches!(c, '\n' | '\t') && is_hostile(c))
}

/// The same for a JSON document, which keeps its meaning.
pub fn harmless_json(document: &str) -> Cow<'_, str> {
    let hostile = |c| c != '\n' && is_hostile(c);
    if !document.contains(hostile) {
        return Cow::Borrowed(document);
    }
    let mut plain = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        // They occur only inside strings, and each is one UTF-16 unit.
        if hostile(c) {
            let _ = write!(plain, "\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// Control characters of both sets, line separators, and marks that reorder text.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

fn escaped(text: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hostile) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hostile(c) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_upon_is_left() {
        let hostile = "a\u{1b}[2J\u{7}\t\r\nb\u{9b}31m\u{7f}\u{202e}\u{2066}\u{61c}ü";
        let plain = r"a\u{1b}[2J\u{7}\t\r\nb\u{9b}31m\u{7f}\u{202e}\u{2066}\u{61c}ü";
        assert_eq!(harmless(hostile), plain);
        assert_eq!(harmless_lines(hostile), plain.replace("\\nb", "\nb"));
        assert!(matches!(harmless("grün → 🦀"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_json_document_means_the_same() {
        let text: String = (0..0x3000).filter_map(char::from_u32).collect();
        let document = serde_json::to_string_pretty(&[&text]).unwrap();
        let plain = harmless_json(&document);
        assert!(!plain.contains(|c| c != '\n' && is_hostile(c)));
        assert_eq!(serde_json::from_str::<Vec<String>>(&plain).unwrap(), [text]);
    }
}
