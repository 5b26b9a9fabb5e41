//! The host that an operator finds after a successful Install was taken back.

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::install::{self, InstallError, RestoreError};

use super::bed::{Bed, chmod, mode, write};
use super::scene::{Scene, second_version};

/// A host with version 1, and version 2 over it.
fn two_versions(first: &[(&str, &str)], second: &[(&str, &str)]) -> Bed {
    let mut bed = Bed::new();
    bed.revision(first);
    bed.install_all("app").unwrap();
    bed.deployment = "d-2".into();
    std::fs::create_dir_all(bed.deployment()).unwrap();
    bed.revision(second);
    bed.install_all("app").unwrap();
    bed
}

#[test]
fn everything_is_exactly_as_before_the_install_and_it_can_be_installed_again() {
    let scene = Scene::new();
    for _ in 0..2 {
        scene.bed.install(&second_version(&scene.bed)).unwrap();
        assert_eq!(scene.differences(&scene.new), [] as [&str; 0]);
        assert!(install::can_restore(&scene.bed.deployment()).unwrap());
        let restored = scene.bed.restore().unwrap();
        assert_eq!(restored.summary.warnings, [] as [&str; 0]);
        assert_eq!(scene.differences(&scene.old), [] as [&str; 0]);
        scene.assert_clean();
        assert!(!install::can_restore(&scene.bed.deployment()).unwrap());
    }
}

#[test]
fn a_first_install_leaves_nothing_when_it_is_taken_back() {
    let bed = Bed::new();
    bed.revision(&[("a", "1"), ("sub/x", "1")]);
    let before = bed.tree();
    bed.install_all("srv/app").unwrap();
    let summary = bed.restore().unwrap().summary;
    assert_eq!(bed.tree(), before);
    assert_eq!(
        (summary.created, summary.replaced, summary.removed),
        (0, 0, 4),
        "the folder and three records"
    );
}

#[test]
fn what_came_after_the_install_stays_in_its_place() {
    let bed = two_versions(
        &[("a", "1"), ("lib/x", "1"), ("old/y", "1")],
        &[("a", "2"), ("lib/x", "2"), ("new/z", "2")],
    );
    write(&bed.host("app/log/today"), "written by the application");
    write(&bed.host("app/lib/cache"), "written by the application");
    let inode = |path: &str| {
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(bed.host(path)).unwrap())
    };
    let cache = inode("app/lib/cache");
    let restored = bed.restore().unwrap();
    assert_eq!(restored.summary.warnings, [] as [&str; 0]);
    let expected = [
        "app/",
        "app/a 1",
        "app/lib/",
        "app/lib/cache written by the application",
        "app/lib/x 1",
        "app/log/",
        "app/log/today written by the application",
        "app/old/",
        "app/old/y 1",
    ];
    assert_eq!(bed.listing(), expected);
    assert_eq!(inode("app/lib/cache"), cache, "it was not even moved");
}

#[test]
fn a_folder_that_stays_gets_its_mode_back() {
    let mut bed = Bed::new();
    bed.revision(&[("x", "1")]);
    bed.install_all("app").unwrap();
    chmod(&bed.host("app"), 0o750);
    bed.deployment = "d-2".into();
    std::fs::create_dir_all(bed.deployment()).unwrap();
    bed.revision(&[("x", "2")]);
    bed.install_all("app").unwrap();
    assert_eq!(mode(&bed.host("app")), 0o755);
    write(&bed.host("app/log"), "new");
    bed.restore().unwrap();
    assert_eq!(
        (bed.listing(), mode(&bed.host("app"))),
        (
            vec!["app/".into(), "app/log new".into(), "app/x 1".into()],
            0o750
        )
    );
}

#[test]
fn what_was_changed_since_the_install_is_kept_and_named() {
    let bed = two_versions(
        &[("a", "1"), ("b", "1"), ("c", "1")],
        &[("a", "2"), ("b", "2"), ("c", "2")],
    );
    write(&bed.host("app/a"), "edited in place");
    write(&bed.host("app/b.new"), "saved by an editor");
    std::fs::rename(bed.host("app/b.new"), bed.host("app/b")).unwrap();
    std::fs::remove_file(bed.host("app/c")).unwrap();
    let warnings = bed.restore().unwrap().summary.warnings;
    assert_eq!(bed.listing(), ["app/", "app/a 1", "app/b 1", "app/c 1"]);
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    for (warning, name, text) in [
        (&warnings[0], "a", "edited in place"),
        (&warnings[1], "b", "saved by an editor"),
    ] {
        assert!(
            warning.contains(&format!("app/{name} was changed since the Install")),
            "{warning}"
        );
        let kept = warning.rsplit(' ').next().unwrap();
        assert_eq!(std::fs::read_to_string(kept).unwrap(), text, "{warning}");
    }
    install::forget(&bed.deployment()).unwrap();
    let left: Vec<_> = std::fs::read_dir(bed.deployment()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn files_of_others_are_set_aside_where_a_file_must_come_back() {
    let bed = two_versions(&[("a", "1")], &[("a/x", "2")]);
    write(&bed.host("app/a/mine"), "operator's");
    let warnings = bed.restore().unwrap().summary.warnings;
    assert_eq!(bed.listing(), ["app/", "app/a 1"]);
    let kept = warnings[0]
        .split(" kept as ")
        .nth(1)
        .unwrap()
        .split(", because")
        .next()
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(kept).unwrap(),
        "operator's",
        "{warnings:?}"
    );
}

#[test]
fn only_the_last_install_of_the_group_can_be_taken_back_and_once() {
    let mut bed = two_versions(&[("a", "1")], &[("a", "2")]);
    let nothing_kept = |bed: &Bed| matches!(bed.restore(), Err(RestoreError::NothingKept { .. }));
    bed.deployment = "d-1".into();
    assert!(
        nothing_kept(&bed),
        "the second Install gave up what the first had kept"
    );
    bed.deployment = "d-2".into();
    std::fs::write(
        &bed.records.pointer,
        bed.root.path().join("deployments/d-1").to_str().unwrap(),
    )
    .unwrap();
    let error = bed.restore().unwrap_err();
    assert!(
        matches!(error, RestoreError::NotInstalled { .. }),
        "{error}"
    );
    std::fs::write(&bed.records.pointer, bed.deployment().to_str().unwrap()).unwrap();
    bed.restore().unwrap();
    assert!(nothing_kept(&bed));
    assert_eq!(bed.listing(), ["app/", "app/a 1"]);
}

#[test]
fn nothing_changes_when_what_was_kept_is_gone() {
    let bed = two_versions(&[("a", "1")], &[("a", "2")]);
    std::fs::remove_dir_all(bed.deployment().join("displaced")).unwrap();
    let before = bed.tree();
    let error = bed.restore().unwrap_err();
    assert!(matches!(error, RestoreError::Lost(_)), "{error}");
    assert_eq!(bed.tree(), before);
}

#[test]
#[ignore = "needs root"]
fn an_obstacle_on_the_way_back_leaves_the_install_as_it_is_which_needs_immutable_files() {
    let bed = two_versions(&[("a", "1"), ("z", "1")], &[("a", "2"), ("z", "2")]);
    let pointer = bed.records.pointer.clone();
    assert!(chattr("+i", &pointer), "chattr makes a file immutable");
    let before = bed.tree();
    let result = bed.restore();
    assert!(chattr("-i", &pointer));
    assert!(
        matches!(
            result,
            Err(RestoreError::Failed(InstallError::Failed { .. }))
        ),
        "{result:?}"
    );
    assert_eq!(bed.tree(), before);
    bed.restore().unwrap();
    assert_eq!(bed.listing(), ["app/", "app/a 1", "app/z 1"]);
}

#[allow(
    clippy::disallowed_methods,
    reason = "only a tool of the system sets the flag"
)]
fn chattr(flag: &str, path: &std::path::Path) -> bool {
    let status = std::process::Command::new("chattr")
        .arg(flag)
        .arg(path)
        .status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn the_files_of_an_operator_that_overwrite_replaced_come_back() {
    let mut bed = Bed::new();
    bed.behavior = FileExistsBehavior::Overwrite;
    write(&bed.host("app/config"), "operator's");
    chmod(&bed.host("app/config"), 0o600);
    let before = bed.tree();
    bed.revision(&[("config", "revision's"), ("x", "1")]);
    bed.install_all("app").unwrap();
    bed.restore().unwrap();
    assert_eq!(bed.tree(), before);
}
