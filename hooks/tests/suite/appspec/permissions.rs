//! The `permissions` section.

use codedeploy_hooks::appspec::{AclEntry, AclTag, NamePattern, Pattern, Principal};

use super::reading::{HEAD, permission, problem, read, with_permission};

#[test]
fn modes_are_octal_however_they_are_written() {
    for (text, bits) in [
        ("644", 0o644),
        ("\"0644\"", 0o644),
        ("'4755'", 0o4755),
        ("4755", 0o4755),
        ("7", 0o7),
        ("0", 0),
        ("00", 0),
        ("07", 0o7),
    ] {
        assert_eq!(
            permission(&format!("mode: {text}")).mode.unwrap().bits(),
            bits,
            "{text}"
        );
    }
    for (text, bits, hint) in [
        (
            "0644",
            0o644,
            "AWS's agents read it as the number 420; write 644",
        ),
        ("00644", 0o644, "the number 420; write 644"),
        ("!!int 0755", 0o755, "the number 493; write 755"),
        ("+644", 0o644, "which is the number 644; write 644"),
        ("1_755", 0o1755, "which is the number 1755"),
        ("0x1ed2", 0, ""),
        ("0x284", 0o644, "which is the number 644"),
        ("0b1010000100", 0o644, "which is the number 644"),
    ] {
        let text = with_permission(&format!("mode: {text}"));
        if hint.is_empty() {
            assert!(problem(text).contains("1 to 4 octal digits"));
            continue;
        }
        let (appspec, warnings) = read(&text);
        assert_eq!(appspec.permissions[0].mode.unwrap().bits(), bits, "{text}");
        assert!(warnings[0].contains(hint), "{warnings:?}");
    }
    for (text, hint) in [
        ("0o644", "; write 644"),
        ("\"00644\"", "; write 644"),
        ("077777", "1 to 4 octal digits"),
        ("755.0", "1 to 4 octal digits"),
        ("888", "1 to 4 octal digits"),
        ("649", "1 to 4 octal digits"),
        ("77777", "1 to 4 octal digits"),
        ("-644", "1 to 4 octal digits"),
        ("u+x", "r is 4"),
        ("rw-r--r--", "r is 4"),
        ("6.44", "1 to 4 octal digits"),
        ("[644]", "found a list"),
        (
            "\"\"",
            "which AWS's agents read as 000; expected 1 to 4 octal digits",
        ),
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
fn an_entry_that_can_apply_to_nothing_is_ignored_with_a_warning() {
    let object =
        |object: &str| format!("{HEAD}permissions:\n  - object: {object}\n    mode: 644\n");
    for text in [
        "scripts/",
        "lib",
        ".",
        "../x",
        "~/app",
        "$HOME/app",
        "'c:\\app'",
        "[/srv]",
        "{a: b}",
        "42",
    ] {
        let (appspec, warnings) = read(object(text));
        assert!(appspec.permissions.is_empty(), "{text}");
        let expected = "line 4, column 13: permissions[0].object: applies to nothing: found ";
        assert!(
            warnings.len() == 1 && warnings[0].starts_with(expected),
            "{warnings:?}"
        );
    }
    let (appspec, warnings) = read(object("/srv/app/../web"));
    assert_eq!(
        appspec.permissions[0].object.as_path(),
        std::path::Path::new("/srv/web")
    );
    assert!(warnings[0].contains("contains '..'"), "{warnings:?}");
    for line in ["pattern: \"\"", "type: []", "type: {}"] {
        let (appspec, warnings) = read(with_permission(line));
        assert!(
            appspec.permissions.is_empty() && warnings.len() == 1,
            "{line}: {warnings:?}"
        );
    }
    for text in ["\"\"", "\"/\\0\""] {
        problem(object(text));
    }
    // Mistakes beside the object are still reported.
    assert!(problem(object("lib\n    owner: 'a:b'")).contains("permissions[0].owner"));
}

#[test]
fn a_no_without_quotes_is_nothing() {
    for line in [
        "owner: no",
        "group: off",
        "pattern: false",
        "except: no",
        "except: {}",
        "except: \"\"",
        "type: no",
    ] {
        let (appspec, warnings) = read(with_permission(line));
        let permission = &appspec.permissions[0];
        assert_eq!(
            (permission.owner.clone(), permission.group.clone()),
            (None, None)
        );
        assert_eq!(
            (&permission.pattern, permission.except.len()),
            (&Pattern::Everything, 0)
        );
        assert!(permission.applies_to.files && permission.applies_to.directories);
        assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
    }
    assert_eq!(
        permission("owner: 'no'").owner,
        Some(Principal::Name("no".to_owned()))
    );
}

#[test]
fn names_with_a_slash_match_nothing_and_the_warning_says_what_to_write() {
    for (line, hint) in [
        (
            "pattern: '**/*.sh'",
            "write an entry for each folder, with pattern: \"*.sh\"",
        ),
        (
            "pattern: sub/x.txt",
            "write object: \"/srv/app/sub\" with pattern: \"x.txt\"",
        ),
        (
            "except: [bin/console]",
            "permissions[0].except[0]: \"bin/console\" excepts nothing",
        ),
        (
            "except: ['', a]",
            "permissions[0].except[0]: found an empty text",
        ),
    ] {
        let (_, warnings) = read(with_permission(line));
        assert!(
            warnings.len() == 1 && warnings[0].contains(hint),
            "{warnings:?}"
        );
    }
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
        ("type: file", "such as type: [file]"),
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
        assert_eq!(
            acl.entries,
            [AclEntry {
                default,
                tag,
                perms
            }],
            "{text}"
        );
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
    let (appspec, warnings) = read(with_permission("acls: ['u:mary:']"));
    assert_eq!(
        appspec.permissions[0].acl.as_ref().unwrap().entries[0].perms,
        0
    );
    assert!(warnings[0].contains("which means ---"), "{warnings:?}");
    assert_eq!(permission("acls: []").acl.unwrap().entries, []);
    let twice = problem(with_permission(
        "acls: ['u:mary:r', 'd:u:mary:r', 'user:mary:w']",
    ));
    assert!(
        twice.contains("acls[2]") && twice.contains("already for the same one"),
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
    assert_eq!(
        permission("context: {type: a_t}").context.unwrap().user,
        None
    );
    let (appspec, warnings) = read(with_permission(
        "context: {type: a_t, user: a_u, name: b_u}",
    ));
    assert_eq!(
        appspec.permissions[0]
            .context
            .as_ref()
            .unwrap()
            .user
            .as_deref(),
        Some("b_u")
    );
    assert!(
        warnings[0].contains("both keys name the SELinux user"),
        "{warnings:?}"
    );
    for (context, hint) in [
        ("{user: a_u}", "context.type: missing"),
        ("{type: }", "context.type: found nothing"),
        ("{type: a_t, role: object_r}", "context.role: SELinux roles"),
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
    let (appspec, warnings) = read(with_permission("context: {type: a_t, range: 's0:c1,'}"));
    assert_eq!(
        appspec.permissions[0]
            .context
            .as_ref()
            .unwrap()
            .range
            .as_deref(),
        Some("s0:c1")
    );
    assert!(warnings[0].contains("write \"s0:c1\""), "{warnings:?}");
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
        ("s0:c2000", "c2000 does not exist"),
        ("s0:c1,c1", "c1 stands there twice"),
        ("s0:c0.c5,c3", "c3 stands there twice"),
        ("s0:", "\"\" is not 'c' and a number"),
        ("s0:c1,,", "\"\" is not 'c' and a number"),
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
