//! Installs across several file systems, also full and read-only ones. All of these tests need
//! root.

use std::error::Error as _;
use std::path::Path;

use codedeploy_hooks::install::{self, Conflict};

use super::bed::{Bed, conflicts, mode, owner, root, tree, write};

/// Runs `test` on a thread with mounts of its own, which end with it.
fn with_mounts(test: impl FnOnce() + Send + 'static) {
    assert!(root(), "mounts of its own need root");
    std::thread::spawn(|| {
        private_mounts();
        test();
    })
    .join()
    .unwrap();
}

#[allow(
    unsafe_code,
    reason = "mount namespaces have no safe interface here; the strings end in NUL"
)]
fn private_mounts() {
    let private = libc::MS_REC | libc::MS_PRIVATE;
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        assert_eq!(
            libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                private,
                std::ptr::null()
            ),
            0
        );
    }
}

/// A small file system.
fn mount(at: &Path, options: &std::ffi::CStr) {
    mount_as(c"tmpfs", 0, at, options);
}

#[allow(
    unsafe_code,
    reason = "mounting has no safe interface here; the strings end in NUL"
)]
fn mount_as(kind: &std::ffi::CStr, flags: libc::c_ulong, at: &Path, options: &std::ffi::CStr) {
    use std::os::unix::ffi::OsStrExt as _;
    std::fs::create_dir_all(at).unwrap();
    let at = std::ffi::CString::new(at.as_os_str().as_bytes()).unwrap();
    let mounted = unsafe {
        libc::mount(
            c"none".as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
}

/// Bind-mounts `at` on itself, with `flags`.
#[allow(
    unsafe_code,
    reason = "mounting has no safe interface here; the strings end in NUL"
)]
fn bind(at: &Path, flags: libc::c_ulong) {
    use std::os::unix::ffi::OsStrExt as _;
    std::fs::create_dir_all(at).unwrap();
    let at = std::ffi::CString::new(at.as_os_str().as_bytes()).unwrap();
    for flags in [libc::MS_BIND, libc::MS_BIND | libc::MS_REMOUNT | flags] {
        let none = std::ptr::null();
        let mounted = unsafe { libc::mount(at.as_ptr(), at.as_ptr(), none, flags, none.cast()) };
        assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    }
}

/// The outermost hidden names below the host folder that keep something.
fn kept(bed: &Bed) -> Vec<std::path::PathBuf> {
    let temporary = |name: &std::ffi::OsStr| name.to_str().unwrap().starts_with(".codedeploy-");
    let mut kept: Vec<_> = tree(&bed.host("")).into_keys().collect();
    kept.retain(|path| {
        path.iter().filter(|name| temporary(name)).count() == 1
            && temporary(path.file_name().unwrap_or_default())
    });
    kept
}

/// Installs the next version, `d-N`, with one file in each of `folders`; odd versions have one
/// more.
fn deploy(bed: &mut Bed, number: usize, folders: &[&str]) {
    bed.deployment = format!("d-{number}");
    std::fs::create_dir_all(bed.deployment()).unwrap();
    let text = number.to_string();
    let mut files = vec![("web/version", text.as_str())];
    files.extend((number % 2 == 1).then_some(("web/secret", "secret")));
    bed.revision(&files);
    let mappings: Vec<(&str, &str)> = folders.iter().map(|folder| ("web", *folder)).collect();
    bed.install(&bed.appspec(&mappings)).unwrap();
}

/// The files that an operator sees; files for a rollback stay on their file system, under a hidden
/// name.
fn visible(bed: &Bed) -> Vec<String> {
    bed.listing()
        .into_iter()
        .filter(|line| !line.contains(".codedeploy-"))
        .collect()
}

#[test]
#[ignore = "needs root"]
fn a_disk_without_room_is_found_before_anything_changes() {
    with_mounts(|| {
        let bed = Bed::new();
        mount(&bed.host(""), c"size=256k");
        bed.revision(&[("a", "1")]);
        bed.install_all("app").unwrap();
        let large = "x".repeat(100 * 1024);
        bed.revision(&[
            ("a", "2"),
            ("sub/x", &large),
            ("sub/y", &large),
            ("sub/z", &large),
        ]);
        let before = bed.tree();
        let found = conflicts(bed.install_all("app"));
        assert!(matches!(&found[..], [Conflict::NoRoom { .. }]), "{found:?}");
        assert!(
            found[0].to_string().contains("has room for 2"),
            "{}",
            found[0]
        );
        assert_eq!(bed.tree(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn a_disk_without_inodes_is_found_before_anything_changes() {
    with_mounts(|| {
        let bed = Bed::new();
        mount(&bed.host(""), c"nr_inodes=8");
        let files: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        bed.revision(
            &files
                .iter()
                .map(|name| (name.as_str(), ""))
                .collect::<Vec<_>>(),
        );
        let found = conflicts(bed.install_all("app"));
        assert!(
            matches!(&found[..], [Conflict::NoInodes { needed: 11, .. }]),
            "{found:?}"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_is_full_all_of_a_sudden_leaves_everything_as_it_was() {
    with_mounts(|| {
        let bed = Bed::new();
        mount(&bed.host(""), c"size=256k");
        bed.revision(&[("a", "1"), ("sub/x", "1")]);
        bed.install_all("app").unwrap();
        let large = "x".repeat(100 * 1024);
        bed.revision(&[("a", "2"), ("sub/x", &large)]);
        let plan = bed.plan(&bed.all_to("app")).unwrap();
        write(&bed.host("other"), &"x".repeat(190 * 1024));
        let before = bed.tree();
        let error = install::install(plan, &bed.turn()).unwrap_err();
        let step = error.source().unwrap();
        assert!(
            step.source().unwrap().to_string().contains("No space left"),
            "{step}"
        );
        assert_eq!(bed.tree(), before);
        bed.revision(&[("a", "2")]);
        bed.install_all("app").unwrap();
        std::fs::remove_file(bed.host("other")).unwrap();
        assert_eq!(visible(&bed), ["app/", "app/a 2"]);
    });
}

#[test]
#[ignore = "needs root"]
fn where_there_is_no_room_for_a_way_back_the_last_one_is_given_up() {
    with_mounts(|| {
        let mut bed = Bed::new();
        mount(&bed.host(""), c"size=300k");
        let large = "x".repeat(120 * 1024);
        for version in ["d-1", "d-2", "d-3", "d-4"] {
            bed.deployment = version.into();
            std::fs::create_dir_all(bed.deployment()).unwrap();
            bed.revision(&[("large", &large), ("version", version)]);
            // Two versions fit, three do not.
            bed.install_all("app").unwrap();
            assert_eq!(
                visible(&bed).last().unwrap(),
                &format!("app/version {version}")
            );
        }
        bed.restore().unwrap();
        assert_eq!(visible(&bed).last().unwrap(), "app/version d-3");
    });
}

#[test]
#[ignore = "needs root"]
fn a_read_only_mount_is_found_before_anything_changes() {
    with_mounts(|| {
        let bed = Bed::new();
        mount(&bed.host("app"), c"");
        bed.revision(&[("a", "1"), ("b", "1")]);
        bed.install(&bed.appspec(&[("a", "app"), ("b", "other")]))
            .unwrap();
        mount_as(
            c"tmpfs",
            libc::MS_REMOUNT | libc::MS_RDONLY,
            &bed.host("app"),
            c"",
        );
        let same = bed.install(&bed.appspec(&[("a", "app"), ("b", "other")]));
        assert_eq!(
            same.unwrap().unchanged,
            3,
            "nothing has to be written there"
        );
        let before = bed.tree();
        write(&bed.archive("a"), "2");
        let found = conflicts(bed.install(&bed.appspec(&[("a", "app"), ("b", "other")])));
        assert_eq!(
            found,
            [Conflict::ReadOnly {
                path: bed.host("app")
            }]
        );
        let found = conflicts(bed.install(&bed.appspec(&[("b", "other")])));
        assert_eq!(
            found,
            [Conflict::ReadOnly {
                path: bed.host("app")
            }],
            "what is there must go"
        );
        assert_eq!(bed.tree(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn destinations_on_file_systems_of_their_own_change_and_come_back_together() {
    with_mounts(|| {
        let mut bed = Bed::new();
        mount(&bed.host("srv"), c"");
        mount(&bed.host("var/lib"), c"");
        let appspec = bed.appspec(&[
            ("web", "srv/web"),
            ("data", "var/lib/data"),
            ("conf", "etc"),
        ]);
        bed.revision(&[("web/index", "1"), ("data/x", "1"), ("conf", "1")]);
        bed.install(&appspec).unwrap();
        let before = bed.tree();
        bed.deployment = "d-2".into();
        std::fs::create_dir_all(bed.deployment()).unwrap();
        bed.revision(&[("web/index", "2"), ("data/y", "2"), ("conf", "2")]);
        bed.install(&appspec).unwrap();
        let expected = [
            "etc/",
            "etc/conf 2",
            "srv/",
            "srv/web/",
            "srv/web/index 2",
            "var/",
            "var/lib/",
            "var/lib/data/",
            "var/lib/data/y 2",
        ];
        assert_eq!(visible(&bed), expected);
        bed.restore().unwrap();
        let mut after = bed.tree();
        after.retain(|path, _| !path.to_str().unwrap().contains(".codedeploy-"));
        assert_eq!(after, before);
        install::forget(&bed.deployment()).unwrap();
        assert_eq!(bed.tree(), before, "nothing is left on other file systems");
    });
}

#[test]
#[ignore = "needs root"]
fn a_mount_point_below_an_installed_folder_stays() {
    with_mounts(|| {
        let bed = Bed::new();
        bed.revision(&[("data/.keep", ""), ("x", "1")]);
        bed.install_all("app").unwrap();
        mount(&bed.host("app/data"), c"");
        bed.revision(&[("x", "2"), ("data/new", "2")]);
        bed.install_all("app").unwrap();
        assert_eq!(
            bed.listing(),
            ["app/", "app/data/", "app/data/new 2", "app/x 2"]
        );
    });
}

#[test]
#[ignore = "needs root"]
fn what_is_kept_on_another_file_system_is_nobody_elses_to_read_and_goes_when_its_time_is_over() {
    with_mounts(|| {
        // A docroot that is itself a mount, and two in one mount.
        let folders = ["docroot", "srv/a", "srv/deep/b"];
        let mut bed = Bed::new();
        mount(&bed.host("docroot"), c"mode=755");
        mount(&bed.host("srv"), c"mode=755");
        deploy(&mut bed, 1, &folders);
        let before = bed.tree();
        deploy(&mut bed, 2, &folders);
        let second = kept(&bed);
        assert_eq!(
            second
                .iter()
                .map(|kept| kept.parent().unwrap().to_str().unwrap())
                .collect::<Vec<_>>(),
            ["docroot", "srv"]
        );
        for folder in &second {
            assert_eq!(
                (
                    mode(&bed.host("").join(folder)),
                    owner(&bed.host("").join(folder))
                ),
                (0o700, (0, 0))
            );
        }
        bed.restore().unwrap();
        let mut after = bed.tree();
        after.retain(|path, _| !path.to_str().unwrap().contains(".codedeploy-"));
        assert_eq!(after, before);
        install::forget(&bed.deployment()).unwrap();
        assert_eq!(bed.tree(), before);

        deploy(&mut bed, 3, &folders);
        let third = kept(&bed);
        deploy(&mut bed, 4, &folders);
        let fourth = kept(&bed);
        assert_eq!((third.len(), fourth.len()), (2, 2));
        assert!(
            third.iter().all(|kept| !fourth.contains(kept)),
            "{third:?}, {fourth:?}"
        );

        // Another agent took over, and removed old deployments with their records.
        std::fs::remove_dir_all(bed.deployment()).unwrap();
        deploy(&mut bed, 5, &folders);
        let fifth = kept(&bed);
        assert!(
            fifth.len() == 2 && fourth.iter().all(|kept| !fifth.contains(kept)),
            "{fourth:?}, {fifth:?}"
        );
        bed.restore().unwrap();
        assert!(visible(&bed).contains(&"docroot/version 4".into()));
    });
}

#[test]
#[ignore = "needs root"]
fn what_is_kept_stays_on_its_mount_and_is_known_by_its_group() {
    with_mounts(|| {
        let mut bed = Bed::new();
        // The root of the file system is read-only, except for one folder; another folder is on the
        // file system of the deployment's folder, but on a separate mount.
        mount(&bed.host("data"), c"mode=755");
        std::fs::create_dir(bed.host("data/www")).unwrap();
        bind(&bed.host("data/www"), 0);
        bind(&bed.host("data"), libc::MS_RDONLY);
        bind(&bed.host("data/www"), 0);
        bind(&bed.host("same"), 0);
        let folders = ["data/www", "same/app"];
        deploy(&mut bed, 1, &folders);
        deploy(&mut bed, 2, &folders);
        let places: Vec<_> = kept(&bed)
            .iter()
            .map(|kept| kept.parent().unwrap().display().to_string())
            .collect();
        assert_eq!(places, ["data/www", "same"]);

        let own = kept(&bed);
        let mut other = Bed::at(bed.root.path());
        other.records.pointer = other
            .records
            .pointer
            .with_file_name("other_last_successful_install");
        other.records.cleanup = other.records.cleanup.with_file_name("other-cleanup");
        other.records.instructions = other
            .records
            .instructions
            .with_file_name("other-install.json");
        for number in [11, 12, 13] {
            deploy(&mut other, number, &["data/www/other"]);
        }
        assert!(
            own.iter().all(|kept| bed.host("").join(kept).exists()),
            "another group's are not touched"
        );
        bed.restore().unwrap();
        assert!(
            visible(&bed).contains(&"data/www/secret secret".into()),
            "{:?}",
            visible(&bed)
        );
    });
}

#[test]
#[ignore = "needs root"]
fn what_an_earlier_version_kept_beside_its_place_comes_back_and_goes() {
    with_mounts(|| {
        for restored in [true, false] {
            let mut bed = Bed::new();
            mount(&bed.host("srv"), c"mode=755");
            deploy(&mut bed, 1, &["srv/a"]);
            write(&bed.host("srv/a/mine"), "operator's");
            let before = visible(&bed);
            deploy(&mut bed, 2, &["srv/a"]);
            let folder = bed.host("").join(&kept(&bed)[0]);
            for entry in std::fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap();
                std::fs::rename(entry.path(), bed.host("srv/a").join(entry.file_name())).unwrap();
            }
            std::fs::remove_dir(&folder).unwrap();
            let record = bed.deployment().join("undo.json");
            std::fs::write(
                &record,
                super::journals::of_version_1(&std::fs::read(&record).unwrap()),
            )
            .unwrap();
            assert_eq!(kept(&bed).len(), 2);
            if restored {
                bed.restore().unwrap();
                assert_eq!(visible(&bed), before);
                install::forget(&bed.deployment()).unwrap();
                assert_eq!(bed.listing(), before);
            } else {
                let loose = kept(&bed);
                deploy(&mut bed, 3, &["srv/a"]);
                assert!(
                    kept(&bed).iter().all(|kept| !loose.contains(kept)),
                    "{:?}",
                    kept(&bed)
                );
            }
        }
    });
}
