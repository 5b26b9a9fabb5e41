//! The `hooks` section.

use std::path::Path;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{parse_earlier, scripts_of_earlier};

use super::reading::{HEAD, clean, problem, read, refused, script, with_script};

#[test]
fn timeouts_are_whole_seconds() {
    assert_eq!(script("sudo: false").timeout, Duration::from_secs(3600));
    for (text, seconds) in [
        ("300", 300),
        ("\"300\"", 300),
        ("1", 1),
        ("~", 3600),
        ("3600", 3600),
    ] {
        assert_eq!(
            script(&format!("timeout: {text}")).timeout,
            Duration::from_secs(seconds),
            "{text}"
        );
    }
    let (appspec, warnings) = read(with_script("timeout: 4294967295"));
    let timeout = appspec.scripts(&LifecycleEvent::ApplicationStart)[0].timeout;
    assert_eq!(timeout, Duration::from_secs(4_294_967_295));
    assert!(
        warnings[0].contains("add up to 4294967295 seconds"),
        "{warnings:?}"
    );
    for (text, seconds) in [
        ("300.0", 300),
        ("\"300.0\"", 300),
        ("300.", 300),
        ("3.0e+2", 300),
        ("1_000", 1000),
        ("\"1_000\"", 1000),
        ("1,000", 1000),
        ("+300", 300),
        ("0300", 192),
        ("\"0300\"", 300),
        ("08", 8),
        ("0x12C", 300),
        ("0b101", 5),
        ("0:05:00", 300),
        ("300s", 300),
        ("300 seconds", 300),
        ("no", 3600),
        ("4294967296", u32::MAX.into()),
        (
            "99999999999999999999999999999999999999999999",
            u32::MAX.into(),
        ),
    ] {
        let (appspec, warnings) = read(with_script(&format!("timeout: {text}")));
        let timeout = appspec.scripts(&LifecycleEvent::ApplicationStart)[0].timeout;
        assert_eq!(timeout, Duration::from_secs(seconds), "{text}");
        assert!(
            warnings[0].contains(&format!("{seconds} seconds")),
            "{warnings:?}"
        );
    }
    for (text, hint) in [
        (
            "5m",
            "which AWS's agents read as 5 seconds; expected a whole number of seconds greater than 0, such as 300; write 300",
        ),
        (
            "2 hours",
            "read as 2 seconds; expected a whole number of seconds greater than 0, such as 300; write 7200",
        ),
        ("0", "without the key the timeout is 3600 seconds"),
        ("-1", "greater than 0"),
        ("1.5", "read as 1 seconds"),
        ("300.5", "read as 300 seconds"),
        ("\"1,000\"", "read as 1 seconds"),
        ("3e2", "read as 3 seconds"),
        ("\"0x12C\"", "a whole number of seconds"),
        ("0.5", "a whole number of seconds"),
        (".inf", "a whole number of seconds"),
        ("yes", "a whole number of seconds"),
        ("2024-01-31", "a whole number of seconds"),
        ("soon", "a whole number of seconds"),
        ("\"\"", "a whole number of seconds"),
        ("[1]", "found a list"),
    ] {
        let problem = problem(with_script(&format!("timeout: {text}")));
        assert!(
            problem.starts_with("line 6, column 16: hooks.ApplicationStart[0].timeout: "),
            "{problem}"
        );
        assert!(problem.contains(hint), "{problem}");
    }
}

#[test]
fn timeouts_that_aws_would_not_wait_for_are_warned_about() {
    let hook = |timeouts: &[&str]| {
        let script = |text: &&str| format!("    - location: a.sh\n      {text}\n");
        format!(
            "{HEAD}hooks:\n  AfterInstall:\n{}",
            timeouts.iter().map(script).collect::<String>()
        )
    };
    let (_, warnings) = read(hook(&["timeout: 1800", "timeout: 1801", "sudo: false"]));
    assert_eq!(
        warnings,
        [
            "line 4, column 3: hooks.AfterInstall: the timeouts of its scripts add up to 3601 seconds; AWS CodeDeploy \
          ends a lifecycle event after 3600"
        ]
    );
    // The default timeout does not count as asking for two hours.
    clean(hook(&[
        "timeout: 1800",
        "timeout: 1800",
        "sudo: false",
        "sudo: false",
    ]));
}

#[test]
fn sudo_is_a_boolean_of_yaml_1_1() {
    for (text, sudo) in [
        ("true", true),
        ("yes", true),
        ("On", true),
        ("YES", true),
        ("false", false),
        ("no", false),
        ("off", false),
        ("", false),
    ] {
        assert_eq!(script(&format!("sudo: {text}")).sudo, sudo, "{text}");
    }
    for text in [
        "\"true\"", "'yes'", "1", "y", "maybe", "\"\"", "[]", "{a: b}",
    ] {
        let (appspec, warnings) = read(with_script(&format!("sudo: {text}")));
        assert!(
            appspec.scripts(&LifecycleEvent::ApplicationStart)[0].sudo,
            "{text}"
        );
        assert!(
            warnings
                .iter()
                .all(|warning| warning.contains("counts as true"))
                && warnings.len() == 1
        );
    }
    for text in ["'false'", "'no'", "'OFF'", "n", "0", "\"0\""] {
        let problem = problem(with_script(&format!("sudo: {text}")));
        assert!(
            problem.contains("which AWS's agents read as true; expected true or false"),
            "{problem}"
        );
    }
}

#[test]
fn runas_is_a_user_name() {
    for (text, user) in [
        ("www", Some("www")),
        ("1000", Some("1000")),
        ("2024-01-31", Some("2024-01-31")),
        ("", None),
    ] {
        assert_eq!(script(&format!("runas: {text}")).runas.as_deref(), user);
    }
    for text in ["\"\"", "' '"] {
        let (appspec, warnings) = read(with_script(&format!("runas: {text}")));
        assert_eq!(
            appspec.scripts(&LifecycleEvent::ApplicationStart)[0].runas,
            None
        );
        assert!(warnings[0].contains("names no user"), "{warnings:?}");
    }
    let problem = problem(with_script("runas: [www]"));
    assert!(problem.contains("expected the name of a user"), "{problem}");
}

#[test]
fn scripts_are_lists_of_entries_with_a_location() {
    let hook = |text: &str| format!("{HEAD}hooks:\n  ApplicationStop:\n{text}\n");
    let appspec = clean(hook("    - location: /bin/a.sh\n    - location: ' b.sh '"));
    let scripts = appspec.scripts(&LifecycleEvent::ApplicationStop);
    let paths: Vec<&Path> = scripts
        .iter()
        .map(|script| script.location.as_path())
        .collect();
    assert_eq!(paths, [Path::new("bin/a.sh"), Path::new("b.sh")]);
    for (text, hint) in [
        (
            "    location: a.sh",
            "expected a list of scripts, each beginning with \"- location: \"",
        ),
        (
            "    - a.sh",
            "ApplicationStop[0]: found \"a.sh\"; expected a script, such as \"- location:",
        ),
        ("    - timeout: 3", "ApplicationStop[0].location: missing"),
        (
            "    - location:",
            "ApplicationStop[0].location: found nothing",
        ),
        (
            "    - location: /",
            "ApplicationStop[0].location: found \"/\"",
        ),
        (
            "    - location: ../a",
            "leads out of the revision with '..'",
        ),
        ("    -", "ApplicationStop[0]: found nothing"),
    ] {
        let problem = problem(hook(text));
        assert!(problem.contains(hint), "{problem}");
    }
}

#[test]
fn events_beyond_the_hooks_are_kept_for_the_deployment_to_judge() {
    let hook = |name: &str| format!("{HEAD}hooks:\n  {name}:\n    - location: a.sh\n");
    let appspec = clean(hook("WarmUp"));
    assert_eq!(appspec.hooks[0].0, "WarmUp".parse().unwrap());
    assert_eq!(appspec.hooks[0].1.len(), 1);
    for (name, hint) in [
        (
            "BlockTraffic",
            "these scripts never run: BlockTraffic is performed by the service; use BeforeBlockTraffic",
        ),
        (
            "AllowTraffic",
            "use BeforeAllowTraffic or AfterAllowTraffic",
        ),
        (
            "DownloadBundle",
            "performed by the agent; use BeforeInstall",
        ),
        ("Install", "use BeforeInstall or AfterInstall"),
        ("AfterInstal", "did you mean AfterInstall?"),
        ("applicationstart", "did you mean ApplicationStart?"),
    ] {
        let (appspec, warnings) = read(hook(name));
        assert_eq!(appspec.hooks[0].0.name(), name);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("line 4, column 3: hooks.") && warnings[0].contains(hint),
            "{warnings:?}"
        );
    }
    for (name, hint) in [
        (
            "after install",
            "so its scripts never run; did you mean AfterInstall?",
        ),
        ("\" AfterInstall \"", "did you mean AfterInstall?"),
        ("After_Install:", "did you mean AfterInstall?"),
        (
            "Deploy, now",
            "not a lifecycle event, so its scripts never run",
        ),
        ("~", "not a lifecycle event"),
        ("\"\"", "not a lifecycle event"),
    ] {
        let (appspec, warnings) = read(hook(name));
        assert!(
            appspec.hooks.is_empty() && appspec.unknown_hooks.len() == 1,
            "{appspec:?}"
        );
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("line 4, column 3: hooks.") && warnings[0].contains(hint),
            "{warnings:?}"
        );
    }
    assert!(
        problem(format!("{HEAD}hooks:\n  After Install:\n    - a.sh\n"))
            .contains("expected a script")
    );
}

#[test]
fn of_an_earlier_file_only_the_scripts_of_the_event_matter() {
    let stop = "  ApplicationStop:\n    - location: stop.sh\n      timeout: 5m\n      sudo: 'no'\n    - nonsense\n    - location: b.sh\n      runas: [www]\n    \
                - location: ../out.sh\n    - location: last.sh\n";
    for (text, problems) in [
        (format!("hooks:\n{stop}"), 7),
        (
            format!(
                "version: '0.0'\nos: windows\nfiles: nothing\npermissions: [a]\nhooks:\n  Install: 3\n{stop}"
            ),
            10,
        ),
        (
            format!("{HEAD}hooks:\n  ApplicationStop: []\nfiles:\nhooks:\n{stop}"),
            6,
        ),
    ] {
        let (scripts, found) =
            scripts_of_earlier(text.as_bytes(), &LifecycleEvent::ApplicationStop);
        let locations: Vec<&Path> = scripts
            .iter()
            .map(|script| script.location.as_path())
            .collect();
        assert_eq!(
            locations,
            [Path::new("stop.sh"), Path::new("last.sh")],
            "{text}"
        );
        assert_eq!(
            (scripts[0].timeout, scripts[0].sudo),
            (Duration::from_secs(300), true)
        );
        assert_eq!(found.len(), problems, "{found:#?}");
        assert!(
            scripts_of_earlier(text.as_bytes(), &LifecycleEvent::AfterInstall)
                .0
                .is_empty()
        );
    }
    for text in [
        "",
        "[",
        "- a",
        "hooks",
        "hooks: []",
        "hooks: {ApplicationStop: {a: b}}",
    ] {
        let (scripts, found) =
            scripts_of_earlier(text.as_bytes(), &LifecycleEvent::ApplicationStop);
        assert!(scripts.is_empty() && !found.is_empty(), "{text}");
    }
    assert_eq!(
        scripts_of_earlier(
            with_script("").as_bytes(),
            &LifecycleEvent::ApplicationStart
        )
        .1,
        []
    );
}

#[test]
fn an_earlier_file_is_read_as_the_official_agents_read_it() {
    let text = format!(
        "{HEAD}files:\n  - source: a\n    destination: srv/app\nhooks:\n  AfterInstall: []\nhooks:\n  AfterInstall:\n    - location: a.sh\n      \
         timeout: 300.5\n"
    );
    assert_eq!(refused(&text).problems.len(), 3);
    let parsed = parse_earlier(text.as_bytes()).unwrap();
    assert_eq!(
        parsed.appspec.files[0].destination.as_path(),
        Path::new("/srv/app")
    );
    assert_eq!(
        parsed.appspec.scripts(&LifecycleEvent::AfterInstall)[0].timeout,
        Duration::from_secs(300)
    );
    assert_eq!(parsed.warnings.len(), 3);
}
