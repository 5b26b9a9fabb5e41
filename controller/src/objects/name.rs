//! Maps an object's key to a path: readable if possible, and always a folder below its bucket.
//!
//! Each part of the key between slashes is one folder, in which unusual characters are
//! percent-encoded. The last part ends with `%v`, which no encoding produces: an object and a
//! folder of other objects can have the same name.

use std::path::{Component, Path, PathBuf};

/// The longest key, in bytes.
const MAX_KEY: usize = 1024;

/// The longest file name, in bytes.
const MAX_NAME: usize = 255;

const OBJECT: &str = "%v";

/// Returns the folder of a key's versions, relative to its bucket; `None` for an impossible key.
pub(super) fn folder(key: &str) -> Option<PathBuf> {
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(|c| c.is_control()) {
        return None;
    }
    let mut parts: Vec<String> = key.split('/').map(encode).collect();
    parts.last_mut()?.push_str(OBJECT);
    parts
        .iter()
        .all(|part| part.len() <= MAX_NAME)
        .then(|| parts.iter().collect())
}

/// Returns the key of an object's folder; `None` for other folders.
pub(super) fn key(folder: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = folder
        .components()
        .map(|part| {
            if let Component::Normal(name) = part {
                name.to_str()
            } else {
                None
            }
        })
        .collect();
    let (last, parents) = parts.as_deref()?.split_last()?;
    let mut decoded: Vec<String> = parents
        .iter()
        .map(|part| decode(part))
        .collect::<Option<_>>()?;
    decoded.push(decode(last.strip_suffix(OBJECT)?)?);
    Some(decoded.join("/"))
}

fn encode(part: &str) -> String {
    // Keys have no control characters, so this is unambiguous.
    if part.is_empty() {
        return "%00".into();
    }
    let dots = part == "." || part == "..";
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        let plain =
            byte.is_ascii_alphanumeric() || b"-_+=,@~".contains(&byte) || (byte == b'.' && !dots);
        if plain {
            text.push(char::from(byte))
        } else {
            text.push_str(&format!("%{byte:02X}"))
        }
    }
    text
}

fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        match hex::decode(digits).ok()?.first() {
            Some(0) => {}
            Some(byte) => bytes.push(*byte),
            None => return None,
        }
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_keys_are_readable() {
        assert_eq!(
            folder("shop/app-1.2.zip"),
            Some("shop/app-1.2.zip%v".into())
        );
        assert_eq!(folder("a b"), Some("a%20b%v".into()));
        for wrong in [
            "",
            "a\0b",
            "a\nb",
            &"x".repeat(1025),
            &"x".repeat(254),
            &"ä".repeat(100),
        ] {
            assert_eq!(folder(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_object_and_a_folder_of_the_same_name_are_two() {
        assert_eq!(key(Path::new("a")), None);
        assert_ne!(folder("a"), folder("a/"));
        assert_ne!(folder("a//b"), folder("a/b"));
        assert_ne!(folder("a%v"), folder("a"));
    }

    proptest! {
        #[test]
        fn every_key_stays_in_its_bucket_and_is_found_again(wanted in "[a./%v ä\\\\]{1,40}") {
            let path = folder(&wanted).unwrap();
            prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
            prop_assert_eq!(key(&path), Some(wanted));
        }
    }
}
