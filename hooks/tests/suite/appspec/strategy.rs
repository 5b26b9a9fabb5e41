//! The key `strategy`: blue/green on one host.

use std::path::Path;
use std::time::Duration;

use codedeploy_hooks::appspec::strategy::{Keep, Strategy};
use codedeploy_hooks::appspec::{AppSpec, parse};
use codedeploy_hooks::slots::SlotName;

use super::reading::{HEAD, clean, problem, read};

const FILES: &str = "files:\n  - source: /\n    destination: /srv/app\n";

/// A revision for /srv/app whose strategy has `lines`.
fn with_strategy(lines: &str) -> String {
    format!("{HEAD}{FILES}strategy:\n  type: blue_green\n  link: /srv/app\n{lines}")
}

fn strategy(lines: &str) -> Strategy {
    clean(with_strategy(lines)).strategy.unwrap()
}

#[test]
fn a_strategy_has_a_link_two_slots_and_sensible_defaults() {
    let least = strategy("");
    assert_eq!(
        least.folder(SlotName::Blue),
        Path::new("/srv/app.slots/blue")
    );
    assert_eq!((least.keep, least.ports), (Keep::Both, None));
    assert_eq!(least.drain, Duration::from_secs(10));
    assert!(least.units.is_empty());
    let all = strategy(
        "  slots: /data/slots\n  keep: 1\n  ports: [8001, 8002]\n  drain: 0\n  units: [shop@.service]\n",
    );
    assert_eq!(all.keep, Keep::Serving);
    assert_eq!(all.drain, Duration::ZERO);
    assert_eq!(all.units[0].of(SlotName::Green), "shop@green.service");
    let side = all.side(SlotName::Green);
    assert_eq!(side.folder, Path::new("/data/slots/green"));
    assert_eq!(side.port, Some(8002));
    assert_eq!(clean(format!("{HEAD}strategy:\n")).strategy, None);
}

#[test]
fn a_wrong_value_is_told_with_its_place_and_what_is_allowed() {
    let tops = [
        (
            "strategy: blue_green\n",
            "line 6, column 11: strategy: found \"blue_green\"; expected a mapping, such as \"type: blue_green\" with \"link: /srv/app\" in the next line",
        ),
        (
            "strategy:\n  link: /srv/app\n",
            "line 7, column 3: strategy.type: missing; expected blue_green, the only type there is",
        ),
        (
            "strategy:\n  type: canary\n  link: /srv/app\n",
            "line 7, column 9: strategy.type: found \"canary\"; expected blue_green, the only type there is",
        ),
        (
            "strategy:\n  type: blue_green\n",
            "line 7, column 3: strategy.link: missing; expected the path that users of the files know, such as /srv/app",
        ),
        (
            "strategy:\n  type: blue_green\n  link: srv/app\n",
            "line 8, column 9: strategy.link: found \"srv/app\", which is not absolute; write the whole path on the host, beginning with '/'",
        ),
        (
            "strategy:\n  type: blue_green\n  link: /\n",
            "line 8, column 9: strategy.link: found \"/\"; expected the path of a link, such as /srv/app",
        ),
    ];
    for (text, message) in tops {
        assert_eq!(problem(format!("{HEAD}{FILES}{text}")), message);
    }
    for (line, message) in [
        (
            "slots: /srv/app/slots",
            "strategy.slots: the slots \"/srv/app/slots\" and the link \"/srv/app\" lie in each other; choose a folder beside the link, such as /srv/app.slots",
        ),
        (
            "keep: 3",
            "strategy.keep: found \"3\"; expected 2, so that a rollback is the switch back, or 1, so that the old slot is emptied",
        ),
        (
            "ports: 8001",
            "strategy.ports: found \"8001\"; expected two different ports, such as [8001, 8002]",
        ),
        (
            "ports: [8001]",
            "strategy.ports: found 1 ports; expected two different ports, such as [8001, 8002]",
        ),
        (
            "ports: [8001, 8001]",
            "strategy.ports: found the same port twice; expected two different ports, such as [8001, 8002]",
        ),
        (
            "ports: [8001, 80020]",
            "strategy.ports[1]: found \"80020\"; expected a port from 1 to 65535",
        ),
        (
            "drain: 10s",
            "strategy.drain: found \"10s\"; expected a whole number of seconds from 0 to 3600, such as 10",
        ),
        (
            "units: [shop.service]",
            "strategy.units[0]: found \"shop.service\"; expected the name of a template unit, such as shop@.service",
        ),
        (
            "units: ['../x@.service']",
            "strategy.units[0]: found \"../x@.service\"; expected the name of a template unit, such as shop@.service",
        ),
    ] {
        let problem = problem(with_strategy(&format!("  {line}\n")));
        assert!(problem.starts_with("line 9, column "), "{problem}");
        assert_eq!(problem.split_once(": ").unwrap().1, message);
    }
}

#[test]
fn files_that_would_bypass_the_slots_are_refused() {
    for (destination, message) in [
        (
            "/srv",
            "the destination \"/srv\" of \"files\" contains the link; give files for \"/srv/app\" and files for other folders entries of their own",
        ),
        (
            "/srv/app.slots/blue",
            "the destination \"/srv/app.slots/blue\" of \"files\" is in the slots; write a destination below \"/srv/app\", which leads to the right slot",
        ),
    ] {
        let more = format!("{FILES}  - source: etc\n    destination: {destination}\n");
        let text = format!("{HEAD}{more}strategy:\n  type: blue_green\n  link: /srv/app\n");
        assert!(problem(&text).ends_with(message), "{}", problem(&text));
    }
    let (_, warnings) = read(format!(
        "{HEAD}strategy:\n  type: blue_green\n  link: /srv/app\n"
    ));
    assert!(
        warnings[0].contains("so both slots stay empty"),
        "{warnings:?}"
    );
}

#[test]
fn unknown_keys_of_a_strategy_are_ignored_with_a_warning() {
    let (appspec, warnings) = read(with_strategy("  prots: [1, 2]\n  os: linux\n"));
    assert_eq!(appspec.strategy.unwrap().ports, None);
    assert!(
        warnings[0].ends_with("did you mean \"ports\"?"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].contains("belongs at the top level"),
        "{warnings:?}"
    );
}

#[test]
fn a_checker_is_told_what_aws_agents_make_of_the_file() {
    let parsed = parse(with_strategy("  ports: [8001, 8002]\n").as_bytes()).unwrap();
    let [note] = &parsed.notes[..] else {
        panic!("{:?}", parsed.notes)
    };
    let note = note.to_string();
    assert!(
        note.starts_with("line 7, column 3: strategy: AWS's agents ignore this key"),
        "{note}"
    );
    assert!(
        note.contains("${SLOT_DIR:-/srv/app} and ${SLOT_PORT:-8001}"),
        "{note}"
    );
}

#[test]
fn only_what_is_below_the_link_moves_to_a_slot() {
    let appspec: AppSpec = clean(format!(
        "{HEAD}files:\n  - {{source: web, destination: /srv/app}}\n  - {{source: a, destination: /srv/app/a}}\n  \
         - {{source: etc, destination: /etc/app}}\n  - {{source: b, destination: /srv/application}}\n\
         permissions:\n  - {{object: /srv/app/a, mode: 600}}\n\
         strategy: {{type: blue_green, link: /srv/app}}\n"
    ));
    let strategy = appspec.strategy.clone().unwrap();
    let moved = appspec.in_slot(&strategy, &strategy.folder(SlotName::Blue));
    let destinations: Vec<_> = moved
        .files
        .iter()
        .map(|file| file.destination.as_path().to_str().unwrap())
        .collect();
    assert_eq!(
        destinations,
        [
            "/srv/app.slots/blue",
            "/srv/app.slots/blue/a",
            "/etc/app",
            "/srv/application"
        ]
    );
    let object = moved.permissions[0].object.as_path();
    assert_eq!(object, Path::new("/srv/app.slots/blue/a"));
}
