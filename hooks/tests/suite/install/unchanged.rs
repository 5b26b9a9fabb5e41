//! Files that are on the host already, as planned: they stay in place, and the way back keeps only
//! what changed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::appspec::{Acl, AclEntry, AclTag, Mode, Principal};
use codedeploy_hooks::install::{InstallError, PathChange, Summary};

use super::bed::{Bed, chmod, tree, write};

const FIRST: [(&str, &str); 8] = [
    ("lib/a", "same"),
    ("lib/b", "same"),
    ("lib/d", "same"),
    ("lib/e", "same"),
    ("lib/f", "same"),
    ("lib/g", "same"),
    ("lib/c", "one"),
    ("lib/gone", "one"),
];
const SECOND: [(&str, &str); 8] = [
    ("lib/a", "same"),
    ("lib/b", "same"),
    ("lib/d", "same"),
    ("lib/e", "same"),
    ("lib/f", "same"),
    ("lib/g", "same"),
    ("lib/c", "two"),
    ("lib/new", "two"),
];

/// A host with the first version, and the revision of the second.
fn first_version() -> Bed {
    let mut bed = Bed::new();
    bed.revision(&FIRST);
    bed.install_all("app").unwrap();
    next(&mut bed, &SECOND);
    bed
}

/// Begins another deployment with another revision.
fn next(bed: &mut Bed, files: &[(&str, &str)]) {
    let number: u32 = bed.deployment["d-".len()..].parse().unwrap();
    bed.deployment = format!("d-{}", number + 1);
    fs::create_dir_all(bed.deployment()).unwrap();
    bed.revision(files);
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn set_modified(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn numbers(summary: &Summary) -> [usize; 4] {
    let Summary {
        created,
        replaced,
        removed,
        unchanged,
        ..
    } = summary;
    [*created, *replaced, *removed, *unchanged]
}

/// The contents of everything that is kept for a way back.
fn kept(bed: &Bed) -> Vec<String> {
    let folder = bed.deployment().join("displaced");
    let mut kept: Vec<String> = tree(&folder)
        .into_values()
        .filter_map(|seen| match seen.what {
            super::bed::What::File(text) => Some(String::from_utf8(text).unwrap()),
            _ => None,
        })
        .filter(|text| text.len() < 10)
        .collect();
    kept.sort();
    kept
}

#[test]
fn a_file_that_is_as_planned_stays_in_place_and_gets_the_planned_time() {
    let bed = first_version();
    set_modified(&bed.host("app/lib/a"), 1_000_000_000);
    set_modified(&bed.archive("lib/a"), 1_100_000_000);
    let before = bed.tree();
    let inodes = ["app/lib", "app/lib/a", "app/lib/b"].map(|path| inode(&bed.host(path)));
    let plan = bed.plan(&bed.all_to("app")).unwrap();
    let unchanged: Vec<_> = plan
        .changes()
        .filter(|change| matches!(change, PathChange::Unchanged(_)))
        .map(|change| change.path().to_owned())
        .collect();
    let names = ["a", "b", "d", "e", "f", "g"].map(|name| bed.host("app/lib").join(name));
    let expected = [&["app", "app/lib"].map(|path| bed.host(path)), &names[..]].concat();
    assert_eq!(unchanged, expected);
    let summary = bed.install_all("app").unwrap();
    assert_eq!(numbers(&summary), [1, 1, 1, 8]);
    let now = ["app/lib", "app/lib/a", "app/lib/b"].map(|path| inode(&bed.host(path)));
    assert_eq!(now, inodes);
    assert_eq!(
        fs::metadata(bed.host("app/lib/a")).unwrap().mtime(),
        1_100_000_000
    );
    let names = ["a", "b", "c", "d", "e", "f", "g", "new"].map(|name| format!("app/lib/{name}"));
    let lines = [&["app".to_owned(), "app/lib".to_owned()], &names[..]].concat();
    assert_eq!(bed.cleanup(), lines, "the next Install removes them all");
    assert_eq!(kept(&bed), ["one", "one"]);
    assert_eq!(bed.restore().unwrap().summary.warnings, [] as [&str; 0]);
    let times_of_records = |mut tree: super::bed::Tree| {
        tree.retain(|path, _| !path.starts_with("records"));
        tree
    };
    assert_eq!(times_of_records(bed.tree()), times_of_records(before));
    assert_eq!(inode(&bed.host("app/lib/a")), inodes[1]);
}

#[test]
fn the_same_revision_again_changes_nothing_but_the_records() {
    let mut bed = first_version();
    bed.install_all("app").unwrap();
    let before = tree(&bed.host(""));
    let times = fs::metadata(bed.archive("lib/a"))
        .unwrap()
        .modified()
        .unwrap();
    next(&mut bed, &SECOND);
    for (name, _) in SECOND {
        let file = fs::File::open(bed.archive(name)).unwrap();
        let there = fs::metadata(bed.host("app").join(name)).unwrap();
        file.set_modified(there.modified().unwrap()).unwrap();
    }
    assert_ne!(times, SystemTime::UNIX_EPOCH);
    let summary = bed.install_all("app").unwrap();
    assert_eq!(numbers(&summary), [0, 0, 0, 10]);
    assert_eq!(tree(&bed.host("")), before);
    assert_eq!(kept(&bed), [] as [&str; 0]);
}

#[test]
fn a_change_by_hand_is_found_by_content_and_not_by_date() {
    let bed = first_version();
    let path = bed.host("app/lib/a");
    let times = fs::metadata(&path).unwrap();
    fs::write(&path, "hand").unwrap();
    fs::File::open(&path)
        .unwrap()
        .set_modified(times.modified().unwrap())
        .unwrap();
    let summary = bed.install_all("app").unwrap();
    assert_eq!(numbers(&summary), [1, 2, 1, 7]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "same");
    assert_eq!(kept(&bed), ["hand", "one", "one"]);
    bed.restore().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "hand");
}

#[test]
fn a_file_with_another_mode_or_name_or_attribute_is_replaced() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("mode", |path| chmod(path, 0o600)),
        ("hard link", |path| {
            fs::hard_link(path, path.with_file_name("../../second")).unwrap();
        }),
        ("attribute", |path| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(path, "user.mine", b"1", flags).unwrap();
        }),
    ];
    for (what, change) in changes {
        let bed = first_version();
        let path = bed.host("app/lib/a");
        change(&path);
        let (before, tree) = (inode(&path), bed.tree());
        let summary = bed.install_all("app").unwrap();
        assert_ne!(inode(&path), before, "{what}");
        assert_eq!(numbers(&summary)[1], 2, "{what}");
        bed.restore().unwrap();
        assert_eq!(inode(&path), before, "{what}");
        assert_eq!(
            bed.tree()[Path::new("app/lib/a")],
            tree[Path::new("app/lib/a")]
        );
    }
}

#[test]
fn a_folder_that_is_not_as_planned_is_made_anew_with_all_that_is_in_it() {
    let bed = first_version();
    chmod(&bed.host("app/lib"), 0o750);
    let before = inode(&bed.host("app/lib/a"));
    let summary = bed.install_all("app").unwrap();
    assert_ne!(inode(&bed.host("app/lib/a")), before);
    assert_eq!(super::bed::mode(&bed.host("app/lib")), 0o755);
    assert_eq!(numbers(&summary)[3], 0);
    bed.restore().unwrap();
    assert_eq!(super::bed::mode(&bed.host("app/lib")), 0o750);
    assert_eq!(inode(&bed.host("app/lib/a")), before);
}

#[test]
fn a_folder_of_which_little_stays_is_made_anew() {
    let mut bed = Bed::new();
    let text = |version: &'static str| move |name: &'static str| (name, version);
    let names = ["x/a", "x/b", "x/c", "x/d"];
    bed.revision(&[&names.map(text("1"))[..], &[("x/same", "1")]].concat());
    bed.install_all("app").unwrap();
    next(
        &mut bed,
        &[&names.map(text("2"))[..], &[("x/same", "1")]].concat(),
    );
    let summary = bed.install_all("app").unwrap();
    assert_eq!(numbers(&summary), [0, 7, 0, 0]);
    assert_eq!(
        fs::read_dir(bed.deployment().join("displaced"))
            .unwrap()
            .count(),
        4
    );
}

#[test]
fn permissions_of_the_appspec_count() {
    let mut bed = first_version();
    let mut appspec = bed.all_to("app");
    let mut files = bed.permission("app/lib");
    files.mode = Mode::new(0o640);
    files.applies_to.directories = false;
    files.acl = Some(Acl {
        entries: vec![AclEntry {
            default: false,
            tag: AclTag::User(Principal::Id(4321)),
            perms: 6,
        }],
    });
    appspec.permissions.push(files);
    let summary = bed.install(&appspec).unwrap();
    assert_eq!(numbers(&summary)[3], 0, "each gets another mode");
    next(&mut bed, &SECOND);
    let summary = bed.install(&appspec).unwrap();
    assert_eq!(numbers(&summary), [0, 0, 0, 10]);
    next(&mut bed, &SECOND);
    appspec.permissions[0].acl = None;
    let summary = bed.install(&appspec).unwrap();
    assert_eq!(numbers(&summary)[3], 0, "no file keeps a list");
    next(&mut bed, &SECOND);
    appspec.permissions[0].mode = Mode::new(0o644);
    appspec.permissions[0].acl = Some(Acl {
        entries: vec![AclEntry {
            default: false,
            tag: AclTag::Other,
            perms: 0,
        }],
    });
    bed.install(&appspec).unwrap();
    let summary = bed.install(&appspec).unwrap();
    assert_eq!(
        numbers(&summary)[3],
        10,
        "a list that is no more than a mode"
    );
}

#[test]
fn the_file_of_an_operator_that_overwrite_would_replace_stays_if_it_is_the_same() {
    let mut bed = Bed::new();
    bed.behavior = FileExistsBehavior::Overwrite;
    write(&bed.host("app/config"), "same");
    bed.revision(&[("config", "same"), ("x", "1")]);
    let before = inode(&bed.host("app/config"));
    let summary = bed.install_all("app").unwrap();
    assert_eq!(numbers(&summary), [1, 0, 0, 1]);
    assert_eq!(inode(&bed.host("app/config")), before);
    bed.restore().unwrap();
    assert_eq!(bed.listing(), ["app/", "app/config same"]);
}

#[test]
fn a_change_after_the_plan_was_made_ends_the_install_and_nothing_is_changed() {
    type Change = fn(&Path);
    let changes: [Change; 3] = [
        |path| fs::write(path, "hand").unwrap(),
        |path| chmod(path, 0o600),
        |path| fs::remove_file(path).unwrap(),
    ];
    for change in changes {
        let bed = first_version();
        let turn = bed.turn();
        let plan = bed.plan(&bed.all_to("app")).unwrap();
        change(&bed.host("app/lib/b"));
        let before = bed.tree();
        let result = codedeploy_hooks::install::install(plan, &turn);
        assert!(
            matches!(result, Err(InstallError::Failed { .. })),
            "{result:?}"
        );
        assert_eq!(bed.tree(), before);
        drop(turn);
        bed.install_all("app").unwrap();
    }
}

#[test]
fn what_was_changed_or_removed_since_comes_back_from_the_revision() {
    let bed = first_version();
    let before = tree(&bed.host(""));
    bed.install_all("app").unwrap();
    write(&bed.host("app/lib/a"), "hand");
    fs::remove_file(bed.host("app/lib/b")).unwrap();
    let warnings = bed.restore().unwrap().summary.warnings;
    assert_eq!(tree(&bed.host("")), before);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let name = bed.host("app/lib/a").display().to_string();
    assert!(
        warnings[0].starts_with(&format!("{name} was changed since")),
        "{warnings:?}"
    );
    let place = warnings[0].rsplit(' ').next().unwrap();
    assert_eq!(fs::read_to_string(place).unwrap(), "hand");
}

#[test]
fn other_access_and_times_since_are_taken_back() {
    let bed = first_version();
    let before = tree(&bed.host(""));
    bed.install_all("app").unwrap();
    let there = [inode(&bed.host("app/lib/a")), inode(&bed.host("app/lib"))];
    chmod(&bed.host("app/lib/a"), 0o777);
    chmod(&bed.host("app/lib"), 0o700);
    set_modified(&bed.host("app/lib/b"), 1);
    bed.restore().unwrap();
    assert_eq!(tree(&bed.host("")), before);
    assert_eq!(
        [inode(&bed.host("app/lib/a")), inode(&bed.host("app/lib"))],
        there
    );
}

#[test]
fn a_folder_that_was_removed_since_comes_back_with_its_contents() {
    let bed = first_version();
    let before = tree(&bed.host(""));
    bed.install_all("app").unwrap();
    fs::remove_dir_all(bed.host("app")).unwrap();
    bed.restore().unwrap();
    assert_eq!(tree(&bed.host("")), before);
}

#[test]
fn a_change_of_the_revision_as_well_is_told_and_the_rest_comes_back() {
    let bed = first_version();
    bed.install_all("app").unwrap();
    write(&bed.host("app/lib/a"), "hand");
    write(&bed.archive("lib/a"), "hand, too");
    let warnings = bed.restore().unwrap().summary.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("stays"), "{warnings:?}");
    let expected = [
        "app/",
        "app/lib/",
        "app/lib/a hand",
        "app/lib/b same",
        "app/lib/c one",
        "app/lib/d same",
        "app/lib/e same",
        "app/lib/f same",
        "app/lib/g same",
        "app/lib/gone one",
    ];
    assert_eq!(bed.listing(), expected);
}

#[test]
fn a_folder_that_passes_a_list_or_its_group_on_is_made_anew() {
    let bed = first_version();
    let mode = fs::Permissions::from_mode(0o2755);
    fs::set_permissions(bed.host("app/lib"), mode).unwrap();
    let before = inode(&bed.host("app/lib/a"));
    bed.install_all("app").unwrap();
    assert_ne!(inode(&bed.host("app/lib/a")), before);
}
