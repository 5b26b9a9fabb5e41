//! Symbolic links: those of a revision, those of an operator, and those that stand where clean-up goes.

use codedeploy_api::specification::FileExistsBehavior;

use crate::bed::{Bed, conflicts, link, tree, write};

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
    assert_eq!(bed.listing(), expected, "links of the last version are removed, not what they lead to");
}

#[test]
fn a_link_to_a_folder_that_is_not_copied_along_is_expanded() {
    let bed = Bed::new();
    bed.revision(&[("app/main", "m"), ("shared/lib/l", "l"), ("shared/top", "t")]);
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
    assert_eq!(bed.listing(), ["data/", "data/app/", "data/app/x 1", "www -> data"]);
    assert_eq!(bed.cleanup(), ["data/app", "data/app/x"]);
    bed.revision(&[("y", "2")]);
    bed.install_all("www/app").unwrap();
    assert_eq!(bed.listing(), ["data/", "data/app/", "data/app/y 2", "www -> data"]);
}

#[test]
fn what_an_official_agent_installed_through_an_operators_link_is_cleaned_up() {
    let bed = Bed::new();
    write(&bed.host("data/app/x"), "1");
    link("data", &bed.host("www"));
    let line = |path| bed.host(path).display().to_string();
    write(&bed.records.cleanup, &format!("{}\n{}\n", line("www/app"), line("www/app/x")));
    bed.revision(&[("x", "2")]);
    bed.install_all("www/app").unwrap();
    assert_eq!(bed.listing(), ["data/", "data/app/", "data/app/x 2", "www -> data"]);
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
        (FileExistsBehavior::Overwrite, ["app/", "app/conf new", "precious old"]),
        (FileExistsBehavior::Retain, ["app/", "app/conf -> ../precious", "precious old"]),
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
    assert!(found[0].to_string().contains("sub is a symbolic link"), "{}", found[0]);
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
