//! Every input gets a result.

use codedeploy_hooks::appspec::parse;
use proptest::prelude::*;

use super::reading::{HEAD, with_permission, with_script};

/// A well-formed file, to be mangled.
const WHOLE: &str = include_str!("aws-permissions.yml");

/// Reads any input; the result must be printable.
fn answered(bytes: &[u8]) {
    match parse(bytes) {
        Ok(parsed) => assert!(
            parsed
                .warnings
                .iter()
                .all(|warning| !warning.to_string().is_empty())
        ),
        Err(invalid) => {
            assert!(!invalid.problems.is_empty());
            assert!(
                invalid
                    .problems
                    .is_sorted_by_key(|problem| problem.position)
            );
            let printed = invalid.to_string();
            assert!(
                !printed.contains(|c: char| c.is_control() && c != '\n'),
                "{printed:?}"
            );
            assert_eq!(
                printed.lines().count(),
                invalid.problems.len(),
                "{printed:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        answered(&bytes);
    }

    #[test]
    fn any_text_of_yaml_characters_has_an_answer(
        text in "([-?:,\\[\\]{}#&*!|>'\"%@` \t\n0a~<\u{e9}\u{feff}]|<<: |- |a: |&a |\\*a |---\n|version: 0.0\n|os: linux\n){0,200}"
    ) {
        answered(text.as_bytes());
    }

    #[test]
    fn a_mangled_file_has_an_answer(
        cuts in proptest::collection::vec((0..WHOLE.len(), 0..40usize, "[-:\\[{}*&!~ \n\"a0]{0,6}"), 1..8)
    ) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        for (at, length, text) in cuts {
            let start = at.min(bytes.len());
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, text.bytes());
        }
        answered(&bytes);
    }

    #[test]
    fn any_value_at_any_key_has_an_answer(
        key in "(version|os|files|permissions|hooks|object|mode|acls|context|range|type|except|timeout|sudo|location)",
        value in "\\PC{0,40}",
    ) {
        let quoted = serde_json::to_string(&value).unwrap();
        for text in [value, quoted] {
            answered(format!("{HEAD}{key}: {text}\n").as_bytes());
            answered(with_permission(&format!("{key}: {text}")).as_bytes());
            answered(with_permission(&format!("context: {{type: a, {key}: {text}}}")).as_bytes());
            answered(with_permission(&format!("acls: [{text}]")).as_bytes());
            answered(with_script(&format!("{key}: {text}")).as_bytes());
        }
    }
}
