//! Symbolic links: of a revision, of an operator, and on the paths of clean-up.

use codedeploy_api::specification::FileExistsBehavior;

use super::bed::{Bed, conflicts, link, tree, write};

#[test]
fn links_are_copied_verbatim_whatever_they_lead_to() {
    let bed = Bed::new();
    bed.revision(&[("lib/real", "x")]);
    for (target, path) in [
        ("lib/real", "to-file"),
        ("lib", "to-folder"),
        ("/etc/passwd", "absolute"),
        ("nowhere", "dangling"),
        ("loop-b", "loop-a"),
        ("loop-a", "loop-b"),
        (".", "self"),
        ("../../../..", "lib/up"),
    ] {
        link(target, &bed.archive(path));
    }
    bed.install_all("app").unwrap();
    assert_eq!(
        tree(&bed.host("app")).keys().collect::<Vec<_>>(),
        tree(&bed.archive("")).keys().collect::<Vec<_>>()
    );
    let expected = [
        "app/",
        "app/absolute -> /etc/passwd",
        "app/dangling -> nowhere",
        "app/lib/",
        "app/lib/real x",
        "app/lib/up -> ../../../..",
        "app/loop-a -> loop-b",
        "app/loop-b -> loop-a",
        "app/self -> .",
        "app/to-file -> lib/real",
        "app/to-folder -> lib",
    ];
    assert_eq!(bed.listing(), expected);
    bed.install_all("app").unwrap();
    assert_eq!(
        bed.listing(),
        expected,
        "links of the last version are removed, not what they lead to"
    );
}

#[test]
fn a_link_to_a_folder_that_is_not_copied_along_is_expanded() {
    let bed = Bed::new();
    bed.revision(&[
        ("app/main", "m"),
        ("shared/lib/l", "l"),
        ("shared/top", "t"),
    ]);
    link("../shared", &bed.archive("app/shared"));
    link("lib", &bed.archive("shared/inner"));
    link("../app", &bed.archive("shared/back"));
    link("../shared/top", &bed.archive("app/to-file"));
    bed.install(&bed.appspec(&[("app", "srv")])).unwrap();
    let expected = [
        "srv/",
        "srv/main m",
        "srv/shared/",
        "srv/shared/back -> ../app",
        "srv/shared/inner -> lib",
        "srv/shared/lib/",
        "srv/shared/lib/l l",
        "srv/shared/top t",
        "srv/to-file -> ../shared/top",
    ];
    assert_eq!(bed.listing(), expected);
}

#[test]
fn a_mapping_of_a_link_to_a_folder_means_the_folder() {
    let bed = Bed::new();
    bed.revision(&[("releases/2/x", "x")]);
    link("releases/2", &bed.archive("current"));
    bed.install(&bed.appspec(&[("current", "srv")])).unwrap();
    assert_eq!(bed.listing(), ["srv/", "srv/x x"]);
}

#[test]
fn an_operators_link_on_the_way_to_a_destination_is_followed() {
    let bed = Bed::new();
    std::fs::create_dir(bed.host("data")).unwrap();
    link("data", &bed.host("www"));
    bed.revision(&[("x", "1")]);
    bed.install_all("www/app").unwrap();
    assert_eq!(
        bed.listing(),
        ["data/", "data/app/", "data/app/x 1", "www -> data"]
    );
    assert_eq!(
        bed.cleanup(),
        ["www/app", "www/app/x"],
        "as the AppSpec writes them"
    );
    bed.revision(&[("y", "2")]);
    bed.install_all("www/app").unwrap();
    assert_eq!(
        bed.listing(),
        ["data/", "data/app/", "data/app/y 2", "www -> data"]
    );
}

#[test]
fn what_an_official_agent_installed_through_an_operators_link_is_cleaned_up() {
    let bed = Bed::new();
    write(&bed.host("data/app/x"), "1");
    link("data", &bed.host("www"));
    let line = |path| bed.host(path).display().to_string();
    write(
        &bed.records.cleanup,
        &format!("{}\n{}\n", line("www/app"), line("www/app/x")),
    );
    bed.revision(&[("x", "2")]);
    bed.install_all("www/app").unwrap();
    assert_eq!(
        bed.listing(),
        ["data/", "data/app/", "data/app/x 2", "www -> data"]
    );
}

#[test]
fn clean_up_through_a_link_removes_nothing_outside() {
    for by_official_agent in [false, true] {
        let bed = Bed::new();
        bed.revision(&[("data/x", "1"), ("a", "1")]);
        bed.install_all("app").unwrap();
        if by_official_agent {
            std::fs::remove_file(&bed.records.instructions).unwrap();
        }
        std::fs::remove_dir_all(bed.host("app/data")).unwrap();
        write(&bed.host("operator/x"), "precious");
        link("../operator", &bed.host("app/data"));
        bed.revision(&[("b", "2")]);
        let summary = bed.install_all("app").unwrap();
        assert_eq!(
            bed.listing(),
            ["app/", "app/b 2", "operator/", "operator/x precious"],
            "the link was listed itself"
        );
        assert_eq!(summary.warnings.len(), 1, "{:?}", summary.warnings);
    }
}

#[test]
fn a_link_in_place_of_a_file_is_replaced_or_kept_but_not_followed() {
    for (behavior, listing) in [
        (
            FileExistsBehavior::Overwrite,
            ["app/", "app/conf new", "precious old"],
        ),
        (
            FileExistsBehavior::Retain,
            ["app/", "app/conf -> ../precious", "precious old"],
        ),
    ] {
        let mut bed = Bed::new();
        bed.behavior = behavior;
        write(&bed.host("precious"), "old");
        link("../precious", &bed.host("app/conf"));
        bed.revision(&[("conf", "new")]);
        bed.install_all("app").unwrap();
        assert_eq!(bed.listing(), listing);
    }
}

#[test]
fn a_link_of_the_last_version_may_become_a_folder() {
    let bed = Bed::new();
    bed.revision(&[("real/x", "1")]);
    link("real", &bed.archive("sub"));
    bed.install_all("app").unwrap();
    bed.revision(&[("sub/x", "2")]);
    bed.install_all("app").unwrap();
    assert_eq!(bed.listing(), ["app/", "app/sub/", "app/sub/x 2"]);
}

#[test]
fn a_source_behind_a_link_of_the_revision_is_refused_by_name() {
    let bed = Bed::new();
    bed.revision(&[("real/x", "1")]);
    link("real", &bed.archive("sub"));
    let found = conflicts(bed.install(&bed.appspec(&[("sub/x", "app")])));
    assert!(
        found[0].to_string().contains("sub is a symbolic link"),
        "{}",
        found[0]
    );
}

#[test]
fn clean_up_does_not_follow_a_destination_that_became_a_link() {
    for (by_official_agent, folder_of_install) in [(false, true), (false, false), (true, true)] {
        let bed = Bed::new();
        if !folder_of_install {
            std::fs::create_dir(bed.host("app")).unwrap();
        }
        bed.revision(&[("x", "1")]);
        bed.install_all("app").unwrap();
        if by_official_agent {
            std::fs::remove_file(&bed.records.instructions).unwrap();
        }
        std::fs::remove_dir_all(bed.host("app")).unwrap();
        write(&bed.host("operator/x"), "precious");
        link("operator", &bed.host("app"));
        bed.revision(&[("y", "2")]);
        bed.install_all("app").unwrap();
        let text = std::fs::read_to_string(bed.host("operator/x")).unwrap();
        assert_eq!(text, "precious", "{by_official_agent} {folder_of_install}");
    }
}

#[test]
fn a_release_stays_when_the_link_to_it_is_turned() {
    let bed = Bed::new();
    let turn = |release: &str| {
        std::fs::create_dir_all(bed.host(release)).unwrap();
        let _ = std::fs::remove_file(bed.host("current"));
        link(release, &bed.host("current"));
    };
    turn("r1");
    bed.revision(&[("v", "1"), ("sub/x", "1")]);
    bed.install_all("current").unwrap();
    assert_eq!(
        bed.cleanup(),
        ["current/sub", "current/sub/x", "current/v"],
        "as official agents write them"
    );
    turn("r2");
    bed.revision(&[("v", "2")]);
    bed.install_all("current").unwrap();
    let expected = [
        "current -> r2",
        "r1/",
        "r1/sub/",
        "r1/sub/x 1",
        "r1/v 1",
        "r2/",
        "r2/v 2",
    ];
    assert_eq!(bed.listing(), expected, "the release before is whole");
    // Back to the first target: the files that were deployed there do not conflict.
    turn("r1");
    std::fs::remove_dir_all(bed.host("r2")).unwrap();
    bed.revision(&[("w", "3")]);
    bed.install_all("current").unwrap();
    assert_eq!(
        bed.listing(),
        ["current -> r1", "r1/", "r1/sub/", "r1/sub/x 1", "r1/w 3"]
    );
    bed.restore().unwrap();
    assert_eq!(
        bed.listing(),
        ["current -> r1", "r1/", "r1/sub/", "r1/sub/x 1", "r1/v 1"]
    );
}

#[test]
fn what_was_installed_through_a_link_is_taken_back_where_it_was() {
    let bed = Bed::new();
    std::fs::create_dir(bed.host("data")).unwrap();
    link("data", &bed.host("www"));
    bed.revision(&[("app/x", "1"), ("app/y", "1")]);
    bed.install_all("www").unwrap();
    write(&bed.host("data/app/of-operator"), "mine");
    bed.restore().unwrap();
    assert_eq!(
        bed.listing(),
        [
            "data/",
            "data/app/",
            "data/app/of-operator mine",
            "www -> data"
        ]
    );
}

/// A link of user 4321 in a folder of that user; it leads to a folder of user `owner`.
fn planted(bed: &Bed, owner: u32) {
    for (path, uid) in [("home", 4321), ("target", owner)] {
        std::fs::create_dir(bed.host(path)).unwrap();
        std::os::unix::fs::chown(bed.host(path), Some(uid), Some(uid)).unwrap();
    }
    write(&bed.host("target/existing"), "theirs");
    link("../target", &bed.host("home/app"));
    std::os::unix::fs::lchown(bed.host("home/app"), Some(4321), Some(4321)).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_link_that_a_stranger_planted_is_not_followed_which_needs_root() {
    for (owner, destination, on_the_way) in [
        (0, "home/app", None),
        (0, "home/app/conf.d", None),
        (1234, "home/app", None),
        (0, "mine/app", Some("../home/app")),
        (0, "mine/app", Some("../home/app/../target/.")),
        (0, "mine/app/x/y", Some("../home/app")),
    ] {
        let bed = Bed::new();
        planted(&bed, owner);
        on_the_way
            .into_iter()
            .for_each(|target| link(target, &bed.host("mine/app")));
        bed.revision(&[("x", "1")]);
        let before = bed.tree();
        let found = conflicts(bed.install_all(destination));
        let text = found[0].to_string();
        let link = bed.host("home/app").display().to_string();
        assert!(text.contains(&link) && text.contains("uid 4321"), "{text}");
        assert!(text.contains(&format!("uid {owner}")), "{text}");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(bed.tree(), before);
    }
}

#[test]
#[ignore = "needs root"]
fn a_link_of_its_targets_owner_or_of_root_is_followed_which_needs_root() {
    let bed = Bed::new();
    planted(&bed, 4321);
    bed.revision(&[("x", "1")]);
    bed.install_all("home/app").unwrap();
    assert!(bed.host("target/x").exists());
    let bed = Bed::new();
    planted(&bed, 1234);
    std::os::unix::fs::lchown(bed.host("home/app"), Some(0), Some(0)).unwrap();
    bed.revision(&[("x", "1")]);
    bed.install_all("home/app").unwrap();
    assert!(bed.host("target/x").exists());
}

#[test]
#[ignore = "needs root"]
fn clean_up_does_not_go_through_a_planted_link_which_needs_root() {
    let bed = Bed::new();
    planted(&bed, 0);
    let line = |path: &str| format!("{}\n", bed.host(path).display());
    write(&bed.records.cleanup, &line("home/app/existing"));
    bed.revision(&[("x", "1")]);
    conflicts(bed.install_all("home/app"));
    let summary = bed.install_all("elsewhere").unwrap();
    assert!(bed.host("target/existing").exists());
    assert!(
        summary.warnings[0].contains("home/app is a symbolic link"),
        "{:?}",
        summary.warnings
    );
}

#[test]
fn an_existing_file_gets_permissions_only_without_links_on_the_way() {
    let bed = Bed::new();
    write(&bed.host("data/conf"), "operator's");
    link("data", &bed.host("www"));
    bed.revision(&[("x", "1")]);
    let mut appspec = bed.all_to("app");
    let mut permission = bed.permission("www/conf");
    permission.mode = codedeploy_hooks::appspec::Mode::new(0o600);
    appspec.permissions = vec![permission];
    let text = conflicts(bed.install(&appspec))[0].to_string();
    let link = bed.host("www").display().to_string();
    assert!(
        text.contains(&format!("{link} is a symbolic link of ")),
        "{text}"
    );
    appspec.permissions[0].object = bed.host_path("data/conf");
    bed.install(&appspec).unwrap();
    assert_eq!(super::bed::mode(&bed.host("data/conf")), 0o600);
}
