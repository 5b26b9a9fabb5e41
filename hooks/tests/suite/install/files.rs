//! The files that an operator finds on the host after an Install, and after a rejected or failed
//! one.

use std::path::Path;

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::install::PathChange;

use super::bed::{Bed, What, chmod, mode, owner, root, tree, write};

#[test]
fn a_first_install_brings_files_with_their_mode_owner_and_times_and_makes_folders() {
    let bed = Bed::new();
    bed.revision(&[("index.html", "hello"), ("bin/run", "#!/bin/sh\n")]);
    chmod(&bed.archive("bin/run"), 0o750);
    chmod(&bed.archive("bin"), 0o700);
    if root() {
        std::os::unix::fs::chown(bed.archive("index.html"), Some(1234), Some(2345)).unwrap();
    }
    let summary = bed.install_all("srv/app").unwrap();
    assert_eq!(
        bed.listing(),
        [
            "srv/",
            "srv/app/",
            "srv/app/bin/",
            "srv/app/bin/run #!/bin/sh\n",
            "srv/app/index.html hello"
        ]
    );
    for (path, seen) in tree(&bed.archive("")) {
        let there = &tree(&bed.host("srv/app"))[&path];
        match seen.what {
            What::Folder => assert_eq!(there.mode, 0o755, "{path:?}: folders are made fresh"),
            _ => assert_eq!(there, &seen, "{path:?}"),
        }
    }
    assert_eq!(
        bed.cleanup(),
        [
            "srv",
            "srv/app",
            "srv/app/bin",
            "srv/app/bin/run",
            "srv/app/index.html"
        ]
    );
    assert_eq!(
        (summary.created, summary.replaced, summary.removed),
        (5, 0, 0)
    );
    assert_eq!(mode(&bed.records.cleanup), 0o644, "as open as its folder");
}

#[test]
fn the_next_version_removes_what_the_last_one_brought_and_nothing_else() {
    let bed = Bed::new();
    bed.revision(&[("a", "1"), ("old/x", "1"), ("shared/x", "1")]);
    bed.install_all("app").unwrap();
    write(&bed.host("app/shared/of-operator"), "mine");
    write(&bed.host("app/log"), "mine");
    bed.revision(&[("a", "2"), ("new/y", "2")]);
    let plan = bed.plan(&bed.all_to("app")).unwrap();
    let named = |change: PathChange| match change {
        PathChange::Created(path) => {
            format!("+{}", path.strip_prefix(bed.host("")).unwrap().display())
        }
        PathChange::Replaced(path) => {
            format!("~{}", path.strip_prefix(bed.host("")).unwrap().display())
        }
        PathChange::Removed(path) => {
            format!("-{}", path.strip_prefix(bed.host("")).unwrap().display())
        }
        PathChange::Kept(path) | PathChange::Unchanged(path) => {
            format!("={}", path.strip_prefix(bed.host("")).unwrap().display())
        }
    };
    let changes: Vec<String> = plan.changes().map(named).collect();
    assert_eq!(
        changes,
        [
            "~app/a",
            "+app/new",
            "+app/new/y",
            "-app/shared/x",
            "-app/old/x",
            "-app/old"
        ]
    );
    bed.install_all("app").unwrap();
    let expected = [
        "app/",
        "app/a 2",
        "app/log mine",
        "app/new/",
        "app/new/y 2",
        "app/shared/",
        "app/shared/of-operator mine",
    ];
    assert_eq!(bed.listing(), expected);
    assert_eq!(bed.cleanup(), ["app/a", "app/new", "app/new/y"]);
    bed.revision(&[]);
    bed.install_all("elsewhere").unwrap();
    assert_eq!(
        bed.listing(),
        [
            "app/",
            "app/log mine",
            "app/shared/",
            "app/shared/of-operator mine",
            "elsewhere/"
        ]
    );
}

#[test]
fn a_folder_that_becomes_empty_is_made_fresh() {
    let bed = Bed::new();
    bed.revision(&[("x", "1")]);
    bed.install_all("app").unwrap();
    chmod(&bed.host("app"), 0o700);
    bed.revision(&[("x", "2")]);
    bed.install_all("app").unwrap();
    assert_eq!(bed.listing(), ["app/", "app/x 2"]);
    assert_eq!(mode(&bed.host("app")), 0o755);
}

#[test]
fn kinds_may_change_between_versions() {
    let bed = Bed::new();
    bed.revision(&[("a", "file"), ("b/c", "in folder")]);
    bed.install_all("app").unwrap();
    write(&bed.host("app/keep"), "");
    bed.revision(&[("a/c", "in folder"), ("b", "file")]);
    bed.install_all("app").unwrap();
    assert_eq!(
        bed.listing(),
        [
            "app/",
            "app/a/",
            "app/a/c in folder",
            "app/b file",
            "app/keep "
        ]
    );
}

#[test]
fn existing_files_are_kept_or_replaced_as_asked_and_belong_accordingly() {
    for behavior in [FileExistsBehavior::Retain, FileExistsBehavior::Overwrite] {
        let mut bed = Bed::new();
        bed.behavior = behavior;
        write(&bed.host("app/config"), "operator's");
        bed.revision(&[("config", "revision's"), ("x", "1")]);
        let summary = bed.install_all("app").unwrap();
        let retained = behavior == FileExistsBehavior::Retain;
        let text = if retained { "operator's" } else { "revision's" };
        assert_eq!(
            bed.listing(),
            ["app/", &format!("app/config {text}"), "app/x 1"]
        );
        assert_eq!(
            (summary.kept, summary.replaced),
            if retained { (1, 0) } else { (0, 1) }
        );
        bed.revision(&[]);
        bed.install_all("app").unwrap();
        assert_eq!(
            bed.listing(),
            if retained {
                vec!["app/", "app/config operator's"]
            } else {
                vec!["app/"]
            }
        );
    }
}

#[test]
fn a_folder_where_a_file_would_go_is_kept_too() {
    let mut bed = Bed::new();
    bed.behavior = FileExistsBehavior::Retain;
    write(&bed.host("app/config/of-operator"), "mine");
    std::os::unix::fs::symlink("config", bed.host("app/alias")).unwrap();
    bed.revision(&[
        ("config", "revision's"),
        ("alias", "revision's"),
        ("x", "1"),
    ]);
    let summary = bed.install_all("app").unwrap();
    assert_eq!(
        bed.listing(),
        [
            "app/",
            "app/alias -> config",
            "app/config/",
            "app/config/of-operator mine",
            "app/x 1"
        ]
    );
    assert_eq!(summary.kept, 2);
}

#[test]
fn the_appspec_decides_about_existing_files_before_the_deployment_does() {
    let mut bed = Bed::new();
    write(&bed.host("app/config"), "operator's");
    bed.revision(&[("config", "revision's")]);
    let mut appspec = bed.all_to("app");
    appspec.file_exists_behavior = Some(FileExistsBehavior::Retain);
    bed.behavior = FileExistsBehavior::Overwrite;
    bed.install(&appspec).unwrap();
    assert_eq!(bed.listing(), ["app/", "app/config operator's"]);
}

#[test]
fn files_and_folders_are_mapped_side_by_side() {
    let bed = Bed::new();
    bed.revision(&[
        ("conf/app.ini", "c"),
        ("web/index", "i"),
        ("web/css/a", "a"),
    ]);
    bed.install(&bed.appspec(&[
        ("conf/app.ini", "etc"),
        ("/web", "www"),
        ("web/css/a", "www/css/extra"),
    ]))
    .unwrap();
    let expected = [
        "etc/",
        "etc/app.ini c",
        "www/",
        "www/css/",
        "www/css/a a",
        "www/css/extra/",
        "www/css/extra/a a",
        "www/index i",
    ];
    assert_eq!(bed.listing(), expected);
}

#[test]
fn records_of_an_official_agent_are_understood() {
    let bed = Bed::new();
    for path in ["app/a", "app/sub/b", "app/unfinished"] {
        write(&bed.host(path), "old");
    }
    let host = bed.host("").display().to_string();
    let host = host.trim_end_matches('/');
    write(
        &bed.records.cleanup,
        &format!(
            "{host}/app\n{host}/app/a\n{host}/app/gone\n{host}/app/sub\n{host}/app/sub/b\n{host}/app/unfin"
        ),
    );
    let instructions = format!(
        r#"{{"instructions":[{{"type":"mkdir","directory":"{host}/app"}},{{"type":"copy","source":"/x/a","destination":"{host}/app/a"}},{{"type":"chmod","mode":"0644","file":"{host}/app/a"}},{{"type":"chown","owner":"root","group":null,"file":"{host}/app/a"}},{{"type":"setfacl","acl":["u:mary:rw"],"file":"{host}/app/a"}},{{"type":"semanage","context":{{"user":null,"role":null,"type":"t","range":"s0"}},"file":"{host}/app/a"}}]}}"#
    );
    write(&bed.records.instructions, &instructions);
    bed.revision(&[("new", "1")]);
    let summary = bed.install_all("app").unwrap();
    assert_eq!(bed.listing(), ["app/", "app/new 1", "app/unfinished old"]);
    assert_eq!(summary.warnings, [] as [&str; 0]);
}

#[test]
fn corrupt_records_are_set_aside_with_a_warning() {
    let bed = Bed::new();
    write(&bed.host("app/a"), "old");
    write(
        &bed.records.cleanup,
        &format!("{}\nrubbish\n/a/../b\n", bed.host("app/a").display()),
    );
    write(&bed.records.instructions, "{\"instruc");
    bed.revision(&[("a", "new")]);
    let summary = bed.install_all("app").unwrap();
    assert_eq!(summary.warnings.len(), 2, "{:#?}", summary.warnings);
    let lines = "2 of its lines are no absolute paths, the first of them line 2 (\"rubbish\")";
    assert!(
        summary
            .warnings
            .iter()
            .any(|warning| warning.contains(lines)),
        "{:#?}",
        summary.warnings
    );
    assert_eq!(bed.listing(), ["app/", "app/a new"]);
    let kept = std::fs::read_dir(bed.root.path().join("records")).unwrap();
    let kept = kept.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .contains(".corrupt-")
    });
    assert_eq!(kept.count(), 2);
}

#[test]
fn noise_in_place_of_the_records_is_one_warning_each_and_removes_nothing() {
    let bed = Bed::new();
    // Lines of every length and byte, including absolute paths that are too long for any host.
    let noise: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let path = |length: usize| [b"/", "n".repeat(length).as_bytes(), b"\n"].concat();
    let noise = [
        path(300),
        path(5000),
        "/deep".repeat(1000).into_bytes(),
        b"\n".to_vec(),
        noise,
    ]
    .concat();
    std::fs::write(&bed.records.cleanup, &noise).unwrap();
    std::fs::write(&bed.records.instructions, &noise).unwrap();
    write(&bed.host("mine"), "operator's");
    bed.revision(&[("a", "new")]);
    let summary = bed.install_all("app").unwrap();
    assert_eq!(summary.warnings.len(), 2, "{:#?}", summary.warnings);
    assert!(
        summary.warnings.iter().all(|warning| warning.len() < 1000),
        "{:#?}",
        summary.warnings
    );
    assert_eq!(bed.listing(), ["app/", "app/a new", "mine operator's"]);
}

#[test]
fn the_record_of_what_was_done_has_the_official_form() {
    let bed = Bed::new();
    bed.revision(&[("a", "1")]);
    let mut appspec = bed.all_to("app");
    let mut permission = bed.permission("app/a");
    for (written, recorded) in [
        ("644", "644"),
        ("0644", "0644"),
        ("40", "040"),
        ("4755", "4755"),
    ] {
        permission.mode = codedeploy_hooks::appspec::Mode::read(written);
        appspec.permissions = vec![permission.clone()];
        bed.install(&appspec).unwrap();
        let text = std::fs::read_to_string(&bed.records.instructions).unwrap();
        let text = text.replace(bed.root.path().to_str().unwrap(), "");
        let mkdir = r#"{"type":"mkdir","directory":"/host/app"}"#;
        let copy = r#"{"type":"copy","source":"/archive/a","destination":"/host/app/a"}"#;
        let chmod = format!(r#"{{"type":"chmod","mode":"{recorded}","file":"/host/app/a"}}"#);
        assert_eq!(
            text,
            format!(r#"{{"version":2,"instructions":[{mkdir},{copy},{chmod}]}}"#)
        );
    }
}

#[test]
fn a_copy_that_may_not_keep_its_owner_belongs_to_who_copies() {
    let bed = Bed::new();
    bed.revision(&[("a", "1")]);
    bed.install_all("app").unwrap();
    assert_eq!(
        owner(&bed.host("app/a")),
        (
            nix::unistd::geteuid().as_raw(),
            owner(Path::new(&bed.archive("a"))).1
        )
    );
}

#[test]
fn replacing_a_file_leaves_nothing_beside_it() {
    let bed = Bed::new();
    let path = bed.host("state");
    codedeploy_hooks::fs::replace_file(&path, b"one", 0o640).unwrap();
    codedeploy_hooks::fs::replace_file(&path, b"two", 0o600).unwrap();
    assert_eq!(
        (bed.listing(), mode(&path)),
        (vec!["state two".to_owned()], 0o600)
    );
    std::fs::create_dir(bed.host("folder")).unwrap();
    codedeploy_hooks::fs::replace_file(&bed.host("folder"), b"x", 0o600).unwrap_err();
    assert_eq!(bed.listing(), ["folder/", "state two"]);
}
