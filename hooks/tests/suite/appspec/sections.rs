//! AppSpec files as users write them, and the findings about them.

use std::path::Path;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::appspec::{NamePattern, Pattern, Principal};

use super::reading::{HEAD, clean, problem, read, refused, told, with_permission, with_script};

#[test]
fn every_problem_of_a_file_is_told_at_once_with_its_place() {
    let invalid = refused(include_str!("broken.yml"));
    let warnings = told(&invalid.warnings).join("\n");
    insta::assert_snapshot!(format!("{invalid}\n\nwarnings:\n{warnings}"));
}

#[test]
fn the_message_for_one_wrong_value_has_line_column_path_what_was_found_and_what_is_allowed() {
    assert_eq!(
        problem(with_permission("mode: 0o644")),
        "line 5, column 11: permissions[0].mode: found \"0o644\"; \
         expected 1 to 4 octal digits, such as 644 or \"0644\"; write 644"
    );
}

#[test]
fn the_examples_of_the_aws_documentation_mean_what_it_says() {
    let web = clean(include_str!("aws-in-place.yml"));
    assert_eq!(web.files.len(), 2);
    assert_eq!(
        web.files[0].source.as_path(),
        Path::new("Config/config.txt")
    );
    assert_eq!(
        web.files[1].destination.as_path(),
        Path::new("/webapps/myApp")
    );
    let events: Vec<&str> = web.hooks.iter().map(|(event, _)| event.name()).collect();
    assert_eq!(
        events,
        [
            "BeforeInstall",
            "AfterInstall",
            "ApplicationStart",
            "ValidateService"
        ]
    );
    let validate = &web.scripts(&LifecycleEvent::ValidateService)[0];
    assert_eq!(validate.timeout, Duration::from_secs(3600));
    assert_eq!(validate.runas.as_deref(), Some("codedeployuser"));

    let (appspec, warnings) = read(include_str!("aws-permissions.yml"));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings
            .iter()
            .all(|warning| warning.contains("excepts nothing")),
        "{warnings:?}"
    );
    let permissions = appspec.permissions;
    assert_eq!(permissions.len(), 4);
    let [text_files, folders, folder, pages] = permissions.as_slice() else {
        panic!("{permissions:#?}");
    };
    assert_eq!(text_files.pattern, Pattern::Name(NamePattern::new("*.txt")));
    assert_eq!(text_files.except, [NamePattern::new("my-file-3.txt")]);
    assert_eq!(text_files.mode.unwrap().bits(), 0o444);
    assert!(text_files.applies_to.files && !text_files.applies_to.directories);
    assert_eq!(folders.mode.unwrap().bits(), 0o555);
    assert!(!folders.applies_to.files && folders.applies_to.directories);
    assert_eq!(folder.mode.unwrap().bits(), 0o4755);
    assert!(folder.applies_to.files && folder.applies_to.directories);
    assert_eq!(pages.owner, Some(Principal::Name("bob".to_owned())));
    assert_eq!(pages.acl.as_ref().unwrap().entries.len(), 3);
    let context = pages.context.as_ref().unwrap();
    assert_eq!(context.user.as_deref(), Some("unconfined_u"));
    assert_eq!(context.kind, "httpd_sys_content_t");
    assert_eq!(context.range.as_deref(), Some("s0"));
}

#[test]
fn version_is_the_number_zero() {
    for version in [
        "0.0",
        "0",
        "0.00",
        "-0.0",
        "+0",
        ".0",
        "0x0",
        "0_0.0",
        "!!float 0",
    ] {
        clean(format!("version: {version}\nos: linux\n"));
    }
    for version in [
        "\"0.0\"",
        "'0.0'",
        "0.1",
        "1.0",
        "~",
        "v0.0",
        "[0.0]",
        "!!str 0.0",
        "0.0.0",
    ] {
        let problem = problem(format!("version: {version}\nos: linux\n"));
        assert!(
            problem.contains("line 1, column 10: version: found "),
            "{problem}"
        );
        assert!(problem.contains("the number 0.0"), "{problem}");
    }
    assert_eq!(
        problem("os: linux\n"),
        "line 1, column 1: version: missing; expected the number 0.0, the only version there is"
    );
}

#[test]
fn os_is_linux() {
    clean("version: 0.0\nos: 'linux'\n");
    for (os, hint) in [
        ("windows", "cannot be deployed to this host"),
        ("Linux", "in lower case"),
        ("macos", "expected \"linux\""),
        ("", "found nothing"),
    ] {
        let problem = problem(format!("version: 0.0\nos: {os}\n"));
        assert!(
            problem.starts_with("line 2, column ") && problem.contains(hint),
            "{problem}"
        );
    }
    let lambda = problem("version: 0.0\nResources: []\n");
    assert!(
        lambda.contains("os: missing") && lambda.contains("AWS Lambda"),
        "{lambda}"
    );
}

#[test]
fn a_file_with_nothing_in_it_says_what_is_needed() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "~"] {
        let problem = problem(text);
        assert!(
            problem.contains("the file is empty; expected at least \"version: 0.0\""),
            "{problem}"
        );
    }
    assert!(problem("- version: 0.0\n").contains("found a list"));
    assert!(problem("version 0.0").contains("found \"version 0.0\""));
}

#[test]
fn sections_with_nothing_after_them_are_empty() {
    for nothing in ["", "~", "null"] {
        clean(format!("{HEAD}hooks:\n  ApplicationStart: {nothing}\n"));
        let appspec = clean(format!(
            "{HEAD}files: {nothing}\npermissions: {nothing}\nhooks: {nothing}\nfile_exists_behavior: {nothing}\n"
        ));
        assert!(
            appspec.files.is_empty() && appspec.permissions.is_empty() && appspec.hooks.is_empty()
        );
        assert_eq!(appspec.file_exists_behavior, None);
    }
    let appspec = clean(format!("{HEAD}hooks:\n  ApplicationStart:\n"));
    assert_eq!(appspec.scripts(&LifecycleEvent::ApplicationStart), []);
    for nothing in ["{}", "[]", "no", "\"\""] {
        let (appspec, warnings) = read(format!(
            "{HEAD}files: {nothing}\npermissions: {nothing}\nhooks: {nothing}\n"
        ));
        assert!(
            appspec.files.is_empty() && appspec.permissions.is_empty() && appspec.hooks.is_empty()
        );
        assert!(
            !warnings.is_empty()
                && warnings
                    .iter()
                    .all(|warning| warning.contains("counts as absent")),
            "{warnings:?}"
        );
        let (appspec, _) = read(format!("{HEAD}hooks:\n  ApplicationStart: {nothing}\n"));
        assert_eq!(appspec.scripts(&LifecycleEvent::ApplicationStart), []);
    }
    for section in ["files", "permissions"] {
        assert!(problem(format!("{HEAD}{section}: {{a: b}}\n")).contains("expected a list"));
    }
    assert!(
        problem(format!("{HEAD}hooks: [a]\n")).contains("found a list; expected lifecycle events")
    );
}

#[test]
fn files_have_a_source_in_the_revision_and_an_absolute_destination() {
    let file = |source: &str, destination: &str| {
        format!("{HEAD}files:\n  - source: {source}\n    destination: {destination}\n")
    };
    for (source, path) in [
        ("/", ""),
        ("/web", "web"),
        ("./web/", "web"),
        ("2024", "2024"),
        (".", ""),
    ] {
        let appspec = clean(file(source, "/srv//app/"));
        assert_eq!(appspec.files[0].source.as_path(), Path::new(path));
        assert_eq!(
            appspec.files[0].destination.as_path(),
            Path::new("/srv/app")
        );
    }
    for (source, destination, path, to, hint) in [
        (
            "web/../static",
            "/srv/app",
            "static",
            "/srv/app",
            "files[0].source: found \"web/../static\", which contains '..'",
        ),
        (
            "web",
            "/srv/web/../app",
            "web",
            "/srv/app",
            "files[0].destination: found \"/srv/web/../app\", which contains '..'",
        ),
        ("web", "/../srv", "web", "/srv", "which contains '..'"),
        ("\"\"", "/srv", "", "/srv", "means all of the revision"),
        (
            "[]",
            "/srv",
            "",
            "/srv",
            "found a list, which counts as the path \"\"",
        ),
        (
            "[web, static]",
            "/srv",
            "web/static",
            "/srv",
            "which counts as the path \"web/static\"",
        ),
        (
            "web",
            "[/srv, app]",
            "web",
            "/srv/app",
            "which counts as the path \"/srv/app\"",
        ),
        (
            "web",
            "'/srv/my app '",
            "web",
            "/srv/my app ",
            "begins or ends with a blank",
        ),
        (
            "' web'",
            "/srv",
            " web",
            "/srv",
            "begins or ends with a blank",
        ),
    ] {
        let (appspec, warnings) = read(file(source, destination));
        assert_eq!(appspec.files[0].source.as_path(), Path::new(path));
        assert_eq!(appspec.files[0].destination.as_path(), Path::new(to));
        assert!(
            warnings.iter().any(|warning| warning.contains(hint)),
            "{warnings:?}"
        );
    }
    clean(file("web", "/dev/shm/app"));
    let block = clean(format!(
        "{HEAD}files:\n  - source: |\n      web\n    destination: /srv\n"
    ));
    assert_eq!(block.files[0].source.as_path(), Path::new("web"));
    for (source, destination, path, what) in [
        (
            "a/../../b",
            "/srv",
            "files[0].source",
            "leads out of the revision with '..'",
        ),
        ("", "/srv", "files[0].source", "found nothing"),
        ("[[a]]", "/srv", "files[0].source", "found a list"),
        ("{a: b}", "/srv", "files[0].source", "found a mapping"),
        (
            "a",
            "srv/app",
            "files[0].destination",
            "which is not absolute; write the whole path on the host (\"/srv/app\", when what AWS",
        ),
        (
            "a",
            "~/app",
            "files[0].destination",
            "~ is not expanded to a home folder",
        ),
        (
            "a",
            "$HOME/app",
            "files[0].destination",
            "variables are not replaced",
        ),
        (
            "a",
            "'{{ target }}'",
            "files[0].destination",
            "variables are not replaced",
        ),
        (
            "a",
            "c:\\deploy",
            "files[0].destination",
            "a path of Windows",
        ),
        (
            "a",
            "\\\\server\\share",
            "files[0].destination",
            "a path of Windows",
        ),
        (
            "a",
            "\"\"",
            "files[0].destination",
            "expected a folder on the host",
        ),
        (
            "a",
            "/proc/1/cwd",
            "files[0].destination",
            "is in /proc, where the kernel makes the files",
        ),
        ("a", "/sys", "files[0].destination", "is in /sys"),
        ("a", "/srv/../dev/app", "files[0].destination", "is in /dev"),
        (
            "a/../..",
            "/srv",
            "files[0].source",
            "leads out of the revision",
        ),
        ("a", "", "files[0].destination", "found nothing"),
    ] {
        let problem = problem(file(source, destination));
        assert!(
            problem.contains(path) && problem.contains(what),
            "{problem}"
        );
    }
}

#[test]
fn paths_that_cannot_exist_are_refused_at_once() {
    let file = |source: &str, destination: &str| {
        format!("{HEAD}files:\n  - source: {source}\n    destination: {destination}\n")
    };
    let (long, deep) = ("/x".repeat(20_000), "/x".repeat(1000));
    let object = format!("{HEAD}permissions:\n  - object: {long}\n    mode: 644\n");
    for (text, place, words) in [
        (
            file("a", &long),
            "line 5, column 18: files[0].destination: ",
            "has 40000 bytes; a path must not have more than 4095",
        ),
        (
            file("a", &deep),
            "line 5, column 18: files[0].destination: ",
            "is 1000 folders deep; a path must not be deeper than 256",
        ),
        (
            file(&deep, "/srv"),
            "line 4, column 13: files[0].source: ",
            "is 1000 folders deep",
        ),
        (
            object,
            "line 4, column 13: permissions[0].object: ",
            "has 40000 bytes",
        ),
    ] {
        let problem = problem(text);
        assert!(
            problem.starts_with(place) && problem.contains(words) && problem.len() < 300,
            "{problem}"
        );
    }
    clean(file("a", &"/x".repeat(256)));
}

#[test]
fn file_exists_behavior_is_read_in_any_case() {
    for (text, behavior) in [
        ("DISALLOW", FileExistsBehavior::Disallow),
        ("overwrite", FileExistsBehavior::Overwrite),
        ("Retain", FileExistsBehavior::Retain),
    ] {
        let appspec = clean(format!("{HEAD}file_exists_behavior: {text}\n"));
        assert_eq!(appspec.file_exists_behavior, Some(behavior));
    }
    assert!(
        problem(format!("{HEAD}file_exists_behavior: KEEP\n"))
            .ends_with("DISALLOW, OVERWRITE or RETAIN")
    );
}

#[test]
fn unknown_keys_are_ignored_with_a_warning_that_says_what_may_be_meant() {
    for (text, hint) in [
        (
            format!("{HEAD}hook: {{}}\n"),
            "line 3, column 1: hook: unknown key, ignored; did you mean \"hooks\"?",
        ),
        (
            format!("{HEAD}author: me\n"),
            "known here: version, os, files,",
        ),
        (
            format!("{HEAD}ApplicationStart: []\n"),
            "a lifecycle event belongs below 'hooks'",
        ),
        (
            with_permission("onwer: a"),
            "permissions[0].onwer: unknown key, ignored; did you mean \"owner\"?",
        ),
        (with_script("timout: 3"), "did you mean \"timeout\"?"),
        (with_script("hooks: 3"), "belongs at the top level"),
    ] {
        let (_, warnings) = read(text);
        assert!(
            warnings.len() == 1 && warnings[0].contains(hint),
            "{warnings:?}"
        );
    }
}

#[test]
fn a_key_written_twice_is_an_error_at_the_top_and_the_last_counts_elsewhere() {
    assert_eq!(
        problem(format!("{HEAD}hooks:\nfiles:\nhooks:\n")),
        "line 5, column 1: hooks: the key stands in line 3 already; write it once, with everything below it (AWS's agents \
         take only the last)"
    );
    let (appspec, warnings) = read(format!(
        "{HEAD}hooks:\n  ApplicationStop:\n    - location: a.sh\n  ApplicationStop:\n    - location: b.sh\n"
    ));
    assert_eq!(appspec.hooks.len(), 1);
    assert_eq!(appspec.hooks[0].1[0].location.as_path(), Path::new("b.sh"));
    assert!(
        warnings[0].starts_with(
            "line 6, column 3: hooks.ApplicationStop: the key stands in line 4 already"
        )
    );
    let (_, warnings) = read(with_script("timeout: 3\n      location: b.sh"));
    assert!(
        warnings[0].contains("if two entries are meant, begin the second with '-'"),
        "{warnings:?}"
    );
}
