//! The `hooks` section.

use std::path::Path;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;

use crate::support::{HEAD, clean, problem, read, script, with_script};

#[test]
fn timeouts_are_whole_seconds() {
    assert_eq!(script("sudo: false").timeout, Duration::from_secs(3600));
    for (text, seconds) in [("300", 300), ("\"300\"", 300), ("1", 1), ("~", 3600), ("3600", 3600)] {
        assert_eq!(script(&format!("timeout: {text}")).timeout, Duration::from_secs(seconds), "{text}");
    }
    let (appspec, warnings) = read(with_script("timeout: 4294967295"));
    let timeout = appspec.scripts(&LifecycleEvent::ApplicationStart)[0].timeout;
    assert_eq!(timeout, Duration::from_secs(4_294_967_295));
    assert!(warnings[0].contains("add up to 4294967295 seconds"), "{warnings:?}");
    for (text, hint) in [
        ("5m", "such as 300; write 300"),
        ("2 hours", "write 7200"),
        ("0", "without the key the timeout is 3600 seconds"),
        ("-1", "greater than 0"),
        ("1.5", "a whole number of seconds"),
        ("0300", "without leading zeros"),
        ("4294967296", "up to 4294967295"),
        ("99999999999999999999999", "up to 4294967295"),
        ("soon", "a whole number of seconds"),
        ("\"\"", "a whole number of seconds"),
        ("[1]", "found a list"),
    ] {
        let problem = problem(with_script(&format!("timeout: {text}")));
        assert!(problem.starts_with("line 6, column 16: hooks.ApplicationStart[0].timeout: "), "{problem}");
        assert!(problem.contains(hint), "{problem}");
    }
}

#[test]
fn timeouts_that_aws_would_not_wait_for_are_warned_about() {
    let hook = |timeouts: &[&str]| {
        let script = |text: &&str| format!("    - location: a.sh\n      {text}\n");
        format!("{HEAD}hooks:\n  AfterInstall:\n{}", timeouts.iter().map(script).collect::<String>())
    };
    let (_, warnings) = read(hook(&["timeout: 1800", "timeout: 1801", "sudo: false"]));
    assert_eq!(
        warnings,
        [
            "line 4, column 3: hooks.AfterInstall: the timeouts of its scripts add up to 3601 seconds; AWS CodeDeploy \
          ends a lifecycle event after 3600"
        ]
    );
    // Whoever names none has not asked for two hours.
    clean(hook(&["timeout: 1800", "timeout: 1800", "sudo: false", "sudo: false"]));
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
    for text in ["\"true\"", "'yes'"] {
        let (appspec, warnings) = read(with_script(&format!("sudo: {text}")));
        assert!(appspec.scripts(&LifecycleEvent::ApplicationStart)[0].sudo, "{text}");
        assert!(warnings.iter().all(|warning| warning.contains("taken for true")) && warnings.len() == 1);
    }
    for text in ["'false'", "'no'", "1", "y", "maybe", "[]"] {
        let problem = problem(with_script(&format!("sudo: {text}")));
        assert!(problem.contains("expected true or false"), "{problem}");
    }
}

#[test]
fn runas_is_a_user_name() {
    for (text, user) in
        [("www", Some("www")), ("1000", Some("1000")), ("2024-01-31", Some("2024-01-31")), ("", None)]
    {
        assert_eq!(script(&format!("runas: {text}")).runas.as_deref(), user);
    }
    for text in ["\"\"", "' '"] {
        let (appspec, warnings) = read(with_script(&format!("runas: {text}")));
        assert_eq!(appspec.scripts(&LifecycleEvent::ApplicationStart)[0].runas, None);
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
    let paths: Vec<&Path> = scripts.iter().map(|script| script.location.as_path()).collect();
    assert_eq!(paths, [Path::new("bin/a.sh"), Path::new("b.sh")]);
    for (text, hint) in [
        ("    location: a.sh", "expected a list of scripts, each beginning with \"- location: \""),
        ("    - a.sh", "ApplicationStop[0]: found \"a.sh\"; expected a script, such as \"- location:"),
        ("    - timeout: 3", "ApplicationStop[0].location: missing"),
        ("    - location:", "ApplicationStop[0].location: found nothing"),
        ("    - location: /", "ApplicationStop[0].location: found \"/\""),
        ("    - location: ../a", "leads out of the revision with '..'"),
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
        ("AllowTraffic", "use BeforeAllowTraffic or AfterAllowTraffic"),
        ("DownloadBundle", "performed by the agent; use BeforeInstall"),
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
    let problem = problem(hook("before install"));
    assert!(problem.ends_with("the name of a lifecycle event, such as BeforeInstall"), "{problem}");
}
