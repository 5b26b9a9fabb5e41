//! YAML as users write it, and text that is not YAML.

use std::path::Path;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{MAX_BYTES, Position};

use super::reading::{HEAD, clean, problem, read, refused, with_script};

#[test]
fn anchors_aliases_and_merge_keys_mean_what_yaml_says() {
    let appspec = clean(format!(
        "{HEAD}hooks:
  ApplicationStop: &scripts
    - &base
      location: a.sh
      timeout: 10
      runas: www
  ApplicationStart: *scripts
  ValidateService:
    - <<: *base
      timeout: 20
    - timeout: 30
      <<: [{{location: c.sh}}, *base]
"
    ));
    assert_eq!(
        appspec.scripts(&LifecycleEvent::ApplicationStart),
        appspec.scripts(&LifecycleEvent::ApplicationStop)
    );
    let merged = appspec.scripts(&LifecycleEvent::ValidateService);
    assert_eq!(merged[0].timeout, Duration::from_secs(20));
    assert_eq!(merged[0].runas.as_deref(), Some("www"));
    assert_eq!(merged[1].timeout, Duration::from_secs(30));
    assert_eq!(merged[1].location.as_path(), Path::new("c.sh"));
    let (_, warnings) = read(with_script("<<: text"));
    assert!(
        warnings[0].contains("ignored: merges something that is not a mapping"),
        "{warnings:?}"
    );
    let (_, warnings) = read(format!("{HEAD}[a]: b\n"));
    assert!(
        warnings[0].contains("found a list or mapping as the key, ignored"),
        "{warnings:?}"
    );
    let own = problem(format!("{HEAD}files: &own [*own]\n"));
    assert!(own.contains("a value cannot contain itself"), "{own}");
}

#[test]
fn an_alias_bomb_ends_in_an_error() {
    let mut bomb = format!("{HEAD}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..40 {
        let below = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
    }
    let bomb_problem = problem(&bomb);
    assert!(
        bomb_problem.contains("the aliases of this file repeat more than"),
        "{bomb_problem}"
    );

    let merges = (1..40).fold(format!("{HEAD}m0: &m0 {{a: b}}\n"), |text, level| {
        let below = vec![format!("*m{}", level - 1); 10].join(", ");
        format!("{text}m{level}: &m{level}\n  <<: [{below}]\n")
    });
    assert!(problem(merges).contains("the aliases of this file repeat more than"));
}

#[test]
fn deep_nesting_ends_in_an_error_however_it_is_made() {
    let deep = "nested deeper than 64 levels";
    for text in [
        "[".repeat(MAX_BYTES / 2),
        "{a: ".repeat(MAX_BYTES / 8),
        "- ".repeat(MAX_BYTES / 4),
        "? ".repeat(MAX_BYTES / 4),
    ] {
        let problem = problem(text);
        assert!(problem.contains(deep), "{problem}");
    }
    let mut chain = format!("{HEAD}a0: &a0 x\n");
    for level in 1..100 {
        chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(problem(chain).contains(deep));
}

#[test]
fn yaml_as_users_write_it() {
    let with_mark = clean(format!("\u{feff}{HEAD}files:\n"));
    assert!(with_mark.files.is_empty());
    clean("version: 0.0\r\nos: linux\r\nhooks:\r\n  ApplicationStop:\r\n    - location: a.sh\r\n");
    clean("%YAML 1.1\n---\nversion: 0.0\nos: linux\n...\n");
    clean("{\"version\": 0.0, \"os\": \"linux\", \"files\": []}");
    clean(format!(
        "{HEAD}hooks:\n  ApplicationStop:\n  - location: !!str a.sh\n    runas: ! www\n"
    ));
    let (appspec, warnings) = read(format!("{HEAD}---\nversion: 9\n  : : broken ["));
    assert!(appspec.files.is_empty());
    assert!(
        warnings[0].starts_with("line 3, column 1: a second document begins here and is ignored")
    );
    let (_, warnings) = read(with_script("runas: !Ref User"));
    assert!(
        warnings[0].contains("the tag \"!Ref\" is ignored"),
        "{warnings:?}"
    );
}

#[test]
fn tabs_and_brackets_as_yaml_1_1_takes_them() {
    let (appspec, warnings) = read(
        "version:\t0.0\nos: \tlinux\nhooks:\n  ApplicationStop:\n  -\tlocation:\ta.sh\t# stops\n\t\n",
    );
    assert_eq!(
        appspec.scripts(&LifecycleEvent::ApplicationStop)[0]
            .location
            .as_path(),
        Path::new("a.sh")
    );
    assert!(
        warnings[0].starts_with("line 1, column 10: found a tab in front of the value"),
        "{warnings:?}"
    );
    let text =
        "hooks: {\n  \"ApplicationStop\": [\n{\"location\": \"a.sh\",\n\"timeout\": 5m}\n]\n}\n";
    let wrong = problem(format!("{HEAD}{text}"));
    assert!(
        wrong.starts_with("line 6, column 12: hooks.ApplicationStop[0].timeout"),
        "{wrong}"
    );
    let (appspec, warnings) = read(format!("{HEAD}{}", text.replace("5m", "5")));
    assert_eq!(
        appspec.scripts(&LifecycleEvent::ApplicationStop)[0].timeout,
        Duration::from_secs(5)
    );
    assert!(
        warnings.iter().all(|warning| warning.contains("indent it")),
        "{warnings:?}"
    );
    let lines = format!("{HEAD}a:\n  b: [\n{}]\n", "c,\n".repeat(5000));
    assert!(problem(lines).contains("invalid indentation"));
}

#[test]
fn text_that_is_no_yaml_says_where_and_what_to_do() {
    for (text, place, hint) in [
        (
            format!("{HEAD}files:\n\t- source: a\n"),
            "line 4",
            "spaces instead of tabs",
        ),
        (
            format!("{HEAD}a: b: c\n"),
            "line 3",
            "put a text that contains ': ' in quotes",
        ),
        (
            format!("{HEAD}a: \"open\n"),
            "line ",
            "a quote that was opened is never closed",
        ),
        (
            format!("{HEAD}a: [b\nc: d\n"),
            "line ",
            "check that every '[' and '{' is closed",
        ),
        (format!("{HEAD}a: @b\n"), "line 3", "in quotes"),
        (
            format!("{HEAD}a: \"C:\\windows\"\n"),
            "line 3",
            "a backslash begins an escape",
        ),
        (format!("{HEAD}garbage\n"), "line ", "check the indentation"),
    ] {
        let problem = problem(&text);
        assert!(
            problem.starts_with(place) && problem.contains(": not valid YAML: "),
            "{problem}"
        );
        assert!(problem.contains(hint), "{problem}");
    }
}

#[test]
fn what_is_no_text_is_refused_by_its_line() {
    let invalid = refused(b"version: 0.0\nos: linux\n# caf\xE9\n");
    assert_eq!(
        invalid.problems[0].position,
        Some(Position { line: 3, column: 6 })
    );
    assert!(
        invalid.to_string().contains("found the byte 0xE9"),
        "{invalid}"
    );
    let umlauts = refused(b"# \xC3\xA4\xC3\xB6 \xFF\n");
    assert_eq!(
        umlauts.problems[0].position,
        Some(Position { line: 1, column: 6 })
    );
    assert!(problem(b"\xFF\xFEv\0e\0").contains("UTF-16"));
    assert_eq!(
        refused("version: 0.0\nos: linux\n\0files: [").problems[0].position,
        Some(Position { line: 3, column: 1 })
    );
}

#[test]
fn a_file_larger_than_a_mebibyte_is_not_read() {
    let fill = |size: usize| format!("{HEAD}#{}", "x".repeat(size - HEAD.len() - 1));
    clean(fill(MAX_BYTES));
    assert_eq!(
        problem(fill(MAX_BYTES + 1)),
        "the file has 1048577 bytes; an AppSpec file must not have more than 1048576"
    );
}

#[test]
fn what_is_repeated_from_the_file_is_short_and_cannot_steer_a_terminal() {
    let long = problem(with_script(&format!("timeout: {}", "x".repeat(10_000))));
    assert!(long.len() < 300, "{long}");
    let escape = problem(with_script("timeout: \"\\e[2J\""));
    assert!(!escape.contains('\u{1b}'), "{escape:?}");
    let (_, warnings) = read(format!("{HEAD}\"a\\e[2J{}\": 1\n", "y".repeat(900)));
    assert!(
        warnings[0].len() < 400 && !warnings[0].contains('\u{1b}'),
        "{warnings:?}"
    );
}
