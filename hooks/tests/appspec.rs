//! What users write in AppSpec files, and what they are told about it.

use std::path::Path;
use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::appspec::{
    AclEntry, AclTag, AppSpec, Invalid, MAX_BYTES, NamePattern, Pattern, Permission, Position, Principal,
    Script, parse,
};
use proptest::prelude::*;

const HEAD: &str = "version: 0.0\nos: linux\n";

fn told(findings: &[codedeploy_hooks::appspec::Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// The AppSpec of a file that is right, and its warnings.
#[track_caller]
fn read(text: impl AsRef<[u8]>) -> (AppSpec, Vec<String>) {
    match parse(text.as_ref()) {
        Ok(parsed) => (parsed.appspec, told(&parsed.warnings)),
        Err(invalid) => panic!("{}\n{invalid}", String::from_utf8_lossy(text.as_ref())),
    }
}

/// The AppSpec of a file about which there is nothing to say.
#[track_caller]
fn clean(text: impl AsRef<[u8]>) -> AppSpec {
    let (appspec, warnings) = read(&text);
    assert_eq!(
        warnings,
        Vec::<String>::new(),
        "{}",
        String::from_utf8_lossy(text.as_ref())
    );
    appspec
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>) -> Invalid {
    match parse(text.as_ref()) {
        Ok(parsed) => panic!("{}\n{:?}", String::from_utf8_lossy(text.as_ref()), parsed.appspec),
        Err(invalid) => {
            assert!(!invalid.problems.is_empty());
            invalid
        }
    }
}

/// The only problem of a file.
#[track_caller]
fn problem(text: impl AsRef<[u8]>) -> String {
    let problems = told(&refused(text).problems);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

/// A permission for `/srv/app` with `line` in it.
fn with_permission(line: &str) -> String {
    format!("{HEAD}permissions:\n  - object: /srv/app\n    {line}\n")
}

fn with_script(line: &str) -> String {
    format!("{HEAD}hooks:\n  ApplicationStart:\n    - location: start.sh\n      {line}\n")
}

#[track_caller]
fn permission(line: &str) -> Permission {
    clean(with_permission(line)).permissions.remove(0)
}

#[track_caller]
fn script(line: &str) -> Script {
    clean(with_script(line)).scripts(&LifecycleEvent::ApplicationStart)[0].clone()
}

#[test]
fn every_problem_of_a_file_is_told_at_once_with_its_place() {
    let invalid = refused(include_str!("appspec/broken.yml"));
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
fn the_examples_of_the_aws_documentation_have_nothing_to_warn_about() {
    let web = clean(include_str!("appspec/aws-in-place.yml"));
    assert_eq!(web.files.len(), 2);
    assert_eq!(web.files[0].source.as_path(), Path::new("Config/config.txt"));
    assert_eq!(web.files[1].destination.as_path(), Path::new("/webapps/myApp"));
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

    let permissions = clean(include_str!("appspec/aws-permissions.yml")).permissions;
    assert_eq!(permissions.len(), 4);
    assert_eq!(
        permissions[0].except,
        [NamePattern::new("/tmp/webapp/src/x".rsplit('/').next().unwrap())]
    );
    assert_eq!(permissions[0].mode.unwrap().bits(), 0o644);
    assert!(permissions[0].applies_to.files && !permissions[0].applies_to.directories);
    assert_eq!(permissions[1].mode.unwrap().bits(), 0o4755);
    assert_eq!(permissions[1].acl.as_ref().unwrap().entries.len(), 2);
    let context = permissions[1].context.as_ref().unwrap();
    assert_eq!(context.user.as_deref(), Some("unconfined_u"));
    assert_eq!(context.kind, "httpd_sys_content_t");
    assert_eq!(context.range.as_deref(), Some("s0"));
}

#[test]
fn version_is_the_number_zero() {
    for version in ["0.0", "0", "0.00"] {
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
        let appspec = clean(format!(
            "{HEAD}files: {nothing}\npermissions: {nothing}\nhooks: {nothing}\nfile_exists_behavior: {nothing}\n"
        ));
        assert!(appspec.files.is_empty() && appspec.permissions.is_empty() && appspec.hooks.is_empty());
        assert_eq!(appspec.file_exists_behavior, None);
    }
    let appspec = clean(format!("{HEAD}hooks:\n  ApplicationStart:\n"));
    assert_eq!(appspec.scripts(&LifecycleEvent::ApplicationStart), []);
    for section in ["files", "permissions"] {
        assert!(problem(format!("{HEAD}{section}: {{a: b}}\n")).contains("expected a list"));
    }
    assert!(problem(format!("{HEAD}hooks: [a]\n")).contains("found a list; expected lifecycle events"));
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
        assert_eq!(appspec.files[0].destination.as_path(), Path::new("/srv/app"));
    }
    for (source, destination, path, what) in [
        ("a/../../b", "/srv", "files[0].source", "contains '..'"),
        ("\"\"", "/srv", "files[0].source", "or / for all of it"),
        ("", "/srv", "files[0].source", "found nothing"),
        ("[a]", "/srv", "files[0].source", "found a list"),
        ("a", "srv", "files[0].destination", "is not absolute"),
        ("a", "/srv/../etc", "files[0].destination", "contains '..'"),
        ("a", "", "files[0].destination", "found nothing"),
    ] {
        let problem = problem(file(source, destination));
        assert!(problem.contains(path) && problem.contains(what), "{problem}");
    }
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
        problem(format!("{HEAD}file_exists_behavior: KEEP\n")).ends_with("DISALLOW, OVERWRITE or RETAIN")
    );
}

#[test]
fn modes_are_octal_however_they_are_written() {
    for (text, bits) in [
        ("644", 0o644),
        ("0644", 0o644),
        ("\"0644\"", 0o644),
        ("'4755'", 0o4755),
        ("4755", 0o4755),
        ("7", 0o7),
        ("0", 0),
        ("!!int 0755", 0o755),
    ] {
        assert_eq!(
            permission(&format!("mode: {text}")).mode.unwrap().bits(),
            bits,
            "{text}"
        );
    }
    for (text, hint) in [
        ("0o644", "; write 644"),
        ("00644", "; write 644"),
        ("888", "1 to 4 octal digits"),
        ("649", "1 to 4 octal digits"),
        ("77777", "1 to 4 octal digits"),
        ("-644", "1 to 4 octal digits"),
        ("u+x", "r is 4"),
        ("rw-r--r--", "r is 4"),
        ("6.44", "1 to 4 octal digits"),
        ("[644]", "found a list"),
        ("\"\"", "1 to 4 octal digits"),
    ] {
        let problem = problem(with_permission(&format!("mode: {text}")));
        assert!(
            problem.starts_with("line 5, column 11: permissions[0].mode: found "),
            "{problem}"
        );
        assert!(problem.contains(hint), "{problem}");
    }
    assert_eq!(permission("mode: ~").mode, None);
}

#[test]
fn owner_and_group_are_names_or_numeric_ids() {
    for (text, principal) in [
        ("www", Principal::Name("www".to_owned())),
        ("1000", Principal::Id(1000)),
        ("\"1000\"", Principal::Id(1000)),
        ("yes", Principal::Name("yes".to_owned())),
        (
            "'EXAMPLE\\web admins'",
            Principal::Name("EXAMPLE\\web admins".to_owned()),
        ),
    ] {
        assert_eq!(
            permission(&format!("owner: {text}")).owner,
            Some(principal.clone()),
            "{text}"
        );
        assert_eq!(
            permission(&format!("group: {text}")).group,
            Some(principal),
            "{text}"
        );
    }
    for (text, hint) in [
        ("www:web", "write owner: \"www\" and group: \"web\""),
        ("4294967295", "below 4294967295"),
        ("-x", "not beginning with '-'"),
        ("\"\"", "a name or a numeric id"),
        ("{a: b}", "found a mapping"),
    ] {
        let problem = problem(with_permission(&format!("owner: {text}")));
        assert!(problem.contains(hint), "{problem}");
    }
}

#[test]
fn patterns_and_types_say_which_paths_are_meant() {
    assert_eq!(permission("mode: 644").pattern, Pattern::Everything);
    assert_eq!(permission("pattern: \"**\"").pattern, Pattern::Everything);
    assert_eq!(
        permission("pattern: '*.sh'").pattern,
        Pattern::Name(NamePattern::new("*.sh"))
    );
    assert_eq!(
        permission("except: [a, '*.b']").except,
        [NamePattern::new("a"), NamePattern::new("*.b")]
    );
    assert_eq!(permission("except:").except, []);
    for (text, files, directories) in [
        ("mode: 1", true, true),
        ("type:", true, true),
        ("type: [file]", true, false),
        ("type: [directory, directory]", false, true),
        ("type:\n      - file\n      - directory", true, true),
    ] {
        let applies_to = permission(text).applies_to;
        assert_eq!(
            (applies_to.files, applies_to.directories),
            (files, directories),
            "{text}"
        );
    }
    for (line, hint) in [
        ("pattern: **", "needs quotes"),
        ("pattern: *.sh", "needs quotes"),
        ("pattern: [a]", "found a list"),
        ("except: \"*.x\"", "write except: [\"*.x\"]"),
        ("except: [[a]]", "permissions[0].except[0]: found a list"),
        ("type: file", "write type: [file]"),
        ("type: []", "found an empty list"),
        (
            "type: [files]",
            "permissions[0].type[0]: found \"files\"; expected file or directory",
        ),
    ] {
        let problem = problem(with_permission(line));
        assert!(problem.contains(hint), "{problem}");
    }
    let (_, warnings) = read(with_permission("pattern: bin/*.sh"));
    assert!(
        warnings[0].contains("\"bin/*.sh\" matches nothing"),
        "{warnings:?}"
    );
}

#[test]
fn acl_entries_are_those_that_setfacl_takes_beyond_the_mode() {
    let mary = || Principal::Name("mary".to_owned());
    for (text, default, tag, perms) in [
        ("u:mary:rw", false, AclTag::User(mary()), 6),
        ("user:mary:r-x", false, AclTag::User(mary()), 5),
        ("mary:rwx", false, AclTag::User(mary()), 7),
        ("u:1000:7", false, AclTag::User(Principal::Id(1000)), 7),
        ("g:mary:---", false, AclTag::Group(mary()), 0),
        ("group:mary:0", false, AclTag::Group(mary()), 0),
        ("m::rw", false, AclTag::Mask, 6),
        ("mask:rw-", false, AclTag::Mask, 6),
        ("d:u:mary:rw", true, AclTag::User(mary()), 6),
        ("d:mary:rw", true, AclTag::User(mary()), 6),
        ("default:u::rwx", true, AclTag::Owner, 7),
        ("d:g::rx", true, AclTag::OwningGroup, 5),
        ("d:m::r", true, AclTag::Mask, 4),
        ("d:other::-", true, AclTag::Other, 0),
    ] {
        let acl = permission(&format!("acls: [\"{text}\"]")).acl.unwrap();
        assert_eq!(acl.entries, [AclEntry { default, tag, perms }], "{text}");
    }
    for (text, hint) in [
        ("u::rw", "use \"mode\""),
        ("g::r", "use \"mode\""),
        ("o::r", "use \"mode\""),
        ("other:r", "use \"mode\""),
        ("u:rw", "expected [default:]"),
        ("m:mary:rw", "write \"m::rw\""),
        ("d:o:mary:rw", "takes no name"),
        ("x:mary:rw", "is no kind of entry"),
        (":mary:rw", "is no kind of entry"),
        ("u:mary:8", "one octal digit"),
        ("u:mary:rwX", "letters of \"rwx-\""),
        ("u:mary:", "write --- for none"),
        ("mary", "expected [default:]"),
        ("e:u:mary:rw", "expected [default:]"),
        ("d:d:u:mary:rw", "expected [default:]"),
        ("u:4294967295:r", "numeric id below"),
    ] {
        let problem = problem(with_permission(&format!("acls: [\"{text}\"]")));
        assert!(
            problem.contains("line 5, column 12: permissions[0].acls[0]: found "),
            "{problem}"
        );
        assert!(problem.contains(hint), "{problem}");
    }
    let twice = problem(with_permission("acls: ['u:mary:r', 'd:u:mary:r', 'user:mary:w']"));
    assert!(
        twice.contains("acls[2]") && twice.contains("about the same already"),
        "{twice}"
    );
    let text = problem(with_permission("acls: u:mary:rw"));
    assert!(
        text.ends_with("expected a list of ACL entries; write acls: [\"u:mary:rw\"]"),
        "{text}"
    );
    assert_eq!(permission("acls:").acl, None);
}

#[test]
fn selinux_contexts_name_the_user_as_the_documentation_or_as_the_official_agent() {
    for line in [
        "context: {user: unconfined_u, type: a_t, range: s0}",
        "context: {name: unconfined_u, type: a_t, range: s0}",
        "context: {name: unconfined_u, user: unconfined_u, type: a_t, range: s0}",
    ] {
        let context = permission(line).context.unwrap();
        assert_eq!(context.user.as_deref(), Some("unconfined_u"));
        assert_eq!(
            (context.kind.as_str(), context.range.as_deref()),
            ("a_t", Some("s0"))
        );
    }
    assert_eq!(permission("context: {type: a_t}").context.unwrap().user, None);
    for (context, hint) in [
        ("{user: a_u}", "context.type: missing"),
        ("{type: }", "context.type: found nothing"),
        ("{type: a_t, role: object_r}", "context.role: SELinux roles"),
        (
            "{type: a_t, user: a_u, name: b_u}",
            "both keys name the SELinux user",
        ),
        ("{type: -a}", "an SELinux name"),
        ("{type: 'a b'}", "an SELinux name"),
        ("a_t", "expected an SELinux context"),
    ] {
        let problem = problem(with_permission(&format!("context: {context}")));
        assert!(problem.contains(hint), "{problem}");
    }
}

#[test]
fn selinux_ranges_are_checked() {
    for range in [
        "s0",
        "s0-s3",
        "s0-s0",
        "s0:c0",
        "s0-s3:c0.c5,c7",
        "s15:c1023",
        "s0:c0.c1023",
        "s0:c3.c3,c2",
    ] {
        let context = permission(&format!("context: {{type: a_t, range: '{range}'}}"))
            .context
            .unwrap();
        assert_eq!(context.range.as_deref(), Some(range));
    }
    for (range, hint) in [
        ("s3-s0", "s3 is above s0"),
        ("s0:c5.c1", "c5 is above c1"),
        ("s0:c1024", "c1023 is the last"),
        ("s0:c0.c4000000000", "c1023 is the last"),
        ("s0:c1,c1", "c1 stands there twice"),
        ("s0:c0.c5,c3", "c3 stands there twice"),
        ("s0:", "\"\" is not 'c' and a number"),
        ("s0:c1,", "\"\" is not 'c' and a number"),
        ("s", "\"s\" is not 's' and a number"),
        ("s+1", "\"s+1\" is not 's' and a number"),
        ("s0-s1-s2", "\"s1-s2\" is not 's' and a number"),
        ("c0", "\"c0\" is not 's' and a number"),
    ] {
        let problem = problem(with_permission(&format!(
            "context: {{type: a_t, range: '{range}'}}"
        )));
        assert!(problem.contains(hint), "{problem}");
    }
}

#[test]
fn timeouts_are_whole_seconds() {
    assert_eq!(script("sudo: false").timeout, Duration::from_secs(3600));
    for (text, seconds) in [
        ("300", 300),
        ("\"300\"", 300),
        ("1", 1),
        ("~", 3600),
        ("4294967295", 4_294_967_295),
    ] {
        assert_eq!(
            script(&format!("timeout: {text}")).timeout,
            Duration::from_secs(seconds),
            "{text}"
        );
    }
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
        assert!(
            problem.starts_with("line 6, column 16: hooks.ApplicationStart[0].timeout: "),
            "{problem}"
        );
        assert!(problem.contains(hint), "{problem}");
    }
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
    for text in ["\"true\"", "'no'", "1", "y", "maybe", "[]"] {
        let problem = problem(with_script(&format!("sudo: {text}")));
        assert!(problem.contains("expected true or false"), "{problem}");
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
    for text in ["\"\"", "' '", "[www]"] {
        let problem = problem(with_script(&format!("runas: {text}")));
        assert!(problem.contains("expected the name of a user"), "{problem}");
    }
}

#[test]
fn scripts_are_lists_of_entries_with_a_location() {
    let hook = |text: &str| format!("{HEAD}hooks:\n  ApplicationStop:\n{text}\n");
    let appspec = clean(hook("    - location: /bin/a.sh\n    - location: ' b.sh '"));
    let scripts = appspec.scripts(&LifecycleEvent::ApplicationStop);
    let paths: Vec<&Path> = scripts.iter().map(|script| script.location.as_path()).collect();
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
        ("    - location:", "ApplicationStop[0].location: found nothing"),
        ("    - location: /", "ApplicationStop[0].location: found \"/\""),
        ("    - location: ../a", "contains '..'"),
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
    assert!(
        problem.ends_with("the name of a lifecycle event, such as BeforeInstall"),
        "{problem}"
    );
}

#[test]
fn unknown_keys_are_ignored_with_a_warning_that_says_what_may_be_meant() {
    for (text, hint) in [
        (
            format!("{HEAD}hook: {{}}\n"),
            "line 3, column 1: hook: unknown key, ignored; did you mean \"hooks\"?",
        ),
        (format!("{HEAD}author: me\n"), "known here: version, os, files,"),
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
        assert!(warnings.len() == 1 && warnings[0].contains(hint), "{warnings:?}");
    }
}

#[test]
fn a_key_written_twice_is_an_error_at_the_top_and_the_last_counts_elsewhere() {
    assert_eq!(
        problem(format!("{HEAD}hooks:\nfiles:\nhooks:\n")),
        "line 5, column 1: hooks: the key stands in line 3 already; write it once, with everything below it"
    );
    let (appspec, warnings) = read(format!(
        "{HEAD}hooks:\n  ApplicationStop:\n    - location: a.sh\n  ApplicationStop:\n    - location: b.sh\n"
    ));
    assert_eq!(appspec.hooks.len(), 1);
    assert_eq!(appspec.hooks[0].1[0].location.as_path(), Path::new("b.sh"));
    assert!(
        warnings[0].starts_with("line 6, column 3: hooks.ApplicationStop: the key stands in line 4 already")
    );
    let (_, warnings) = read(with_script("timeout: 3\n      location: b.sh"));
    assert!(
        warnings[0].contains("if two entries are meant, begin the second with '-'"),
        "{warnings:?}"
    );
}

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
    let wrong = problem(with_script("<<: text"));
    assert!(
        wrong.contains("merges something that is not a mapping"),
        "{wrong}"
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
    assert!(warnings[0].starts_with("line 3, column 1: a second document begins here and is ignored"));
    let (_, warnings) = read(with_script("runas: !Ref User"));
    assert!(
        warnings[0].contains("the tag \"!Ref\" is ignored"),
        "{warnings:?}"
    );
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
            problem.starts_with(place) && problem.contains("is not valid YAML: "),
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
    assert!(invalid.to_string().contains("found the byte 0xE9"), "{invalid}");
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
    let long = problem(with_script(&format!("sudo: {}", "x".repeat(10_000))));
    assert!(long.len() < 300, "{long}");
    let escape = problem(with_script("sudo: \"\\e[2J\""));
    assert!(!escape.contains('\u{1b}'), "{escape:?}");
    let (_, warnings) = read(format!("{HEAD}\"a\\e[2J{}\": 1\n", "y".repeat(900)));
    assert!(
        warnings[0].len() < 400 && !warnings[0].contains('\u{1b}'),
        "{warnings:?}"
    );
}

/// A well-formed file, to be mangled.
const WHOLE: &str = include_str!("appspec/aws-permissions.yml");

/// Whatever is given, there is an answer, and one that can be printed.
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
            assert!(invalid.problems.is_sorted_by_key(|problem| problem.position));
            assert!(!invalid.to_string().contains('\u{1b}'));
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
