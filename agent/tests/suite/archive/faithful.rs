//! Honest bundles are unpacked unchanged, as `tar -xp` and `unzip` would do it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use codedeploy_agent::revision::archive::{BundleType, Limits, Unpacked};
use rustix::fs::{Timespec, Timestamps};

use super::bundle::{Host, Tar, Zip, gzip, picture, tar_of, zip_of};

#[allow(
    clippy::disallowed_methods,
    reason = "GNU tar is what this is compared with"
)]
fn tar(arguments: &[&str], folder: &Path) {
    let status = Command::new("tar")
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "tar {arguments:?}");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Makes a tree with everything that a tar can contain and a revision may contain.
fn make_tree(tree: &Path) {
    fs::create_dir_all(tree.join("bin/.hidden")).unwrap();
    fs::create_dir_all(tree.join("sealed/inner")).unwrap();
    fs::create_dir(tree.join("shared")).unwrap();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    fs::create_dir(tree.join("d".repeat(120))).unwrap();
    for (name, content) in [
        ("bin/run", vec![b'#'; 300_000]),
        ("bin/.hidden/umlaut-ä-\u{1f980}", b"crab".to_vec()),
        ("sealed/inner/file", Vec::new()),
        (&long, b"long".to_vec()),
        ("new\nline \\ back", b"x".to_vec()),
    ] {
        fs::write(tree.join(name), content).unwrap();
    }
    fs::hard_link(tree.join("bin/run"), tree.join("hard")).unwrap();
    symlink("/absolute/nowhere", tree.join("bin/python")).unwrap();
    symlink("../../../../etc", tree.join("sealed/up")).unwrap();
    symlink("x".repeat(300), tree.join("long-target")).unwrap();
    symlink("sealed", tree.join("to-folder")).unwrap();
    let me = nix::unistd::geteuid();
    if me.is_root() {
        std::os::unix::fs::lchown(tree.join("bin/run"), Some(12_345), Some(54_321)).unwrap();
        std::os::unix::fs::lchown(tree.join("bin/python"), Some(12_345), Some(1)).unwrap();
        std::os::unix::fs::lchown(tree.join("shared"), Some(1), Some(12_345)).unwrap();
    }
    chmod(&tree.join("bin/run"), 0o4755);
    chmod(&tree.join("sealed/inner/file"), 0o400);
    chmod(&tree.join("shared"), 0o3777);
    chmod(&tree.join("sealed/inner"), 0o555);
    chmod(&tree.join("sealed"), 0o500);
    let time = Timespec {
        tv_sec: 1_234_567_890,
        tv_nsec: 123_456_789,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    for name in ["bin/run", "sealed", "bin", "to-folder"] {
        rustix::fs::utimensat(
            rustix::fs::CWD,
            tree.join(name),
            &times,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
    }
}

#[test]
fn tars_of_every_format_come_out_as_gnu_tar_unpacks_them() {
    let work = tempfile::tempdir().unwrap();
    let tree = work.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    for (number, arguments) in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=gnu", "-z"],
        &["--format=pax", "-z"],
    ]
    .iter()
    .enumerate()
    {
        let theirs = work.path().join(format!("theirs-{number}"));
        fs::create_dir(&theirs).unwrap();
        let archive = work.path().join("archive");
        let archive = archive.to_str().unwrap();
        tar(
            &[
                arguments,
                &["-cf", archive, "-C", tree.to_str().unwrap(), "."][..],
            ]
            .concat(),
            work.path(),
        );
        tar(&["-xpf", archive], &theirs);
        let kind = if arguments.contains(&"-z") {
            BundleType::Tgz
        } else {
            BundleType::Tar
        };
        let host = Host::new();
        host.unpack(kind, &fs::read(archive).unwrap(), &Limits::default())
            .unwrap();
        let (ours, expected) = (picture(&host.out()), picture(&theirs));
        for (path, node) in &expected {
            assert_eq!(
                ours.get(path),
                Some(node),
                "{arguments:?}: {}",
                path.display()
            );
        }
        assert_eq!(ours.len(), expected.len());
        assert!(ours.len() > 15);
        for sealed in [host.out().join("sealed"), theirs.join("sealed")] {
            chmod(&sealed, 0o700);
            chmod(&sealed.join("inner"), 0o700);
        }
    }
    chmod(&tree.join("sealed"), 0o700);
    chmod(&tree.join("sealed/inner"), 0o700);
}

#[test]
#[ignore = "needs root"]
fn owners_go_by_name_where_the_host_knows_it() {
    let member = |path: &str, user: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_path(path).unwrap();
        header.set_username(user).unwrap();
        header.set_uid(4242);
        header.set_gid(4343);
        header.set_mode(0o600);
        header.set_size(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let bundle = [
        member("named", "root"),
        member("numbered", "no-such-user-here"),
        vec![0; 1024],
    ]
    .concat();
    let host = Host::new();
    host.unpack(BundleType::Tar, &bundle, &Limits::default())
        .unwrap();
    let owners: Vec<_> = picture(&host.out())
        .values()
        .map(|node| node.owner)
        .collect();
    assert_eq!(owners, [(0, 4343), (4242, 4343)]);

    let host = Host::new();
    let limits = Limits {
        ignore_ownership: true,
        ..Limits::default()
    };
    host.unpack(BundleType::Tar, &bundle, &limits).unwrap();
    let mine = (0, nix::unistd::getegid().as_raw());
    assert!(picture(&host.out()).values().all(|node| node.owner == mine));
}

#[test]
fn a_later_file_replaces_an_earlier_one_and_leaves_its_other_name_alone() {
    let host = Host::new();
    let bundle = tar_of(&[
        Tar::file("a", "first"),
        Tar::hard_link("b", "a"),
        Tar::file("./a", "second"),
        Tar::symlink("l", "one"),
        Tar::symlink("l", "two"),
        Tar::folder("d").mode(0o700),
        Tar::folder("d/").mode(0o750),
    ]);
    host.unpack(BundleType::Tar, &bundle, &Limits::default())
        .unwrap();
    let nodes = picture(&host.out());
    let content = |name: &str| String::from_utf8(nodes[Path::new(name)].content.clone()).unwrap();
    assert_eq!(
        [content("a"), content("b"), content("l")],
        ["second", "first", "two"]
    );
    assert_eq!(nodes[Path::new("d")].mode & 0o7777, 0o750);
}

#[test]
fn pax_records_gzip_members_and_old_headers_are_read() {
    let tar = tar_of(&[
        Tar::pax(b'g', &[("comment", b"0123456789abcdef")]),
        Tar::pax(
            b'x',
            &[
                ("SCHILY.xattr.user.x", b"a\nb=c\n\0"),
                ("path", b"name\nwith newline"),
                ("mtime", b"-1.5"),
            ],
        ),
        Tar::file("short", "x"),
        Tar {
            kind: 0,
            ..Tar::file("old", "y")
        },
        Tar {
            kind: 0,
            mode: 0o711,
            ..Tar::file("old-folder/", "")
        },
        Tar {
            kind: b'7',
            ..Tar::file("contiguous", "z")
        },
        Tar::file(b"not-\xff-utf8", "raw"),
    ]);
    let (front, back) = tar.split_at(700);
    let members = [gzip(front), gzip(back)].concat();
    for kind in [BundleType::Tgz, BundleType::Tar] {
        let host = Host::new();
        let unpacked = host.unpack(kind, &members, &Limits::default()).unwrap();
        assert_eq!(
            unpacked,
            Unpacked {
                entries: 5,
                bytes: 6
            }
        );
        let nodes = picture(&host.out());
        assert_eq!(
            nodes[Path::new("name\nwith newline")].modified,
            (-2, 500_000_000)
        );
        assert_eq!(nodes[Path::new("old-folder")].mode, 0o040_711);
        let raw: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"not-\xff-utf8");
        assert_eq!(nodes[Path::new(raw)].content, b"raw");
    }
}

#[test]
fn the_root_entry_and_the_umask_change_nothing() {
    // A thread with its own umask, which other tests do not share.
    let own_umask = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        unpack_implied_folders();
    };
    std::thread::spawn(own_umask).join().unwrap();
}

fn unpack_implied_folders() {
    let host = Host::new();
    chmod(&host.out(), 0o755);
    let bundle = tar_of(&[
        Tar::folder("./").mode(0o700),
        Tar::file("./implied/file", "x").mode(0o666),
    ]);
    host.unpack(BundleType::Tar, &bundle, &Limits::default())
        .unwrap();
    assert_eq!(
        fs::metadata(host.out()).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    let modes: Vec<_> = picture(&host.out())
        .values()
        .map(|node| node.mode & 0o7777)
        .collect();
    assert_eq!(modes, [0o755, 0o666]);
}

#[test]
fn zips_keep_modes_links_and_times() {
    let timestamp = [b"UT\x05\0\x03".as_slice(), &1_500_000_000_u32.to_le_bytes()].concat();
    let host = Host::new();
    let entries = [
        Zip::new("bin/", 0o040_550, ""),
        Zip {
            extra: timestamp,
            ..Zip::new("bin/run", 0o104_755, "#!")
        },
        Zip::symlink("bin/python", "/usr/bin/python3"),
        Zip {
            method: 0,
            ..Zip::new("plain", 0, "stored")
        },
        Zip::new("private", 0o100_000, ""),
        Zip {
            system: 0,
            mode: 0,
            dos_attributes: 1,
            ..Zip::file("read-only", "x")
        },
        Zip {
            system: 0,
            mode: 0,
            ..Zip::file("windows\\path\\file", "w")
        },
        Zip {
            system: 0,
            mode: 0,
            ..Zip::file("windows\\empty\\", "")
        },
        Zip::file("./literal\\back\\", "u"),
        Zip::file(b"not-\xff-utf8", "raw"),
    ];
    let unpacked = host
        .unpack(BundleType::Zip, &zip_of(&entries), &Limits::default())
        .unwrap();
    assert_eq!(
        unpacked,
        Unpacked {
            entries: 10,
            bytes: 14
        }
    );
    let nodes = picture(&host.out());
    let modes: Vec<_> = nodes
        .iter()
        .map(|(path, node)| (path.as_os_str().as_encoded_bytes(), node.mode))
        .collect();
    assert_eq!(
        modes,
        [
            (&b"bin"[..], 0o040_550),
            (b"bin/python", 0o120_777),
            (b"bin/run", 0o100_755),
            (b"literal\\back\\", 0o100_644),
            (b"not-\xff-utf8", 0o100_644),
            (b"plain", 0o100_000),
            (b"private", 0o100_000),
            (b"read-only", 0o100_444),
            (b"windows", 0o040_755),
            (b"windows/empty", 0o040_755),
            (b"windows/path", 0o040_755),
            (b"windows/path/file", 0o100_644),
        ]
    );
    assert_eq!(nodes[Path::new("bin/python")].content, b"/usr/bin/python3");
    assert_eq!(nodes[Path::new("bin/run")].modified.0, 1_500_000_000);
    // 2025-01-01 12:00:00
    assert_eq!(nodes[Path::new("plain")].modified.0, 1_735_732_800);
    chmod(&host.out().join("bin"), 0o700);
}

#[test]
fn a_folder_may_be_listed_twice_in_a_zip() {
    let host = Host::new();
    let entries = [
        Zip::new("META-INF/", 0o040_700, ""),
        Zip::file("META-INF/a", "x"),
        Zip::new("META-INF/", 0o040_750, ""),
    ];
    host.unpack(BundleType::Zip, &zip_of(&entries), &Limits::default())
        .unwrap();
    assert_eq!(picture(&host.out())[Path::new("META-INF")].mode, 0o040_750);
}

#[test]
fn many_files_of_a_zip_all_arrive() {
    let entries: Vec<_> = (0..1000)
        .map(|number| {
            Zip::file(
                format!("dir-{}/file-{number}", number % 7),
                format!("{number}").repeat(number % 50),
            )
        })
        .collect();
    let host = Host::new();
    host.unpack(BundleType::Zip, &zip_of(&entries), &Limits::default())
        .unwrap();
    for entry in &entries {
        let name = std::str::from_utf8(&entry.name).unwrap();
        assert_eq!(fs::read(host.out().join(name)).unwrap(), entry.data);
    }
}

#[test]
fn the_position_of_the_bundle_does_not_matter_and_is_kept() {
    use std::io::{Seek, SeekFrom};
    let host = Host::new();
    fs::write(host.path("bundle"), tar_of(&[Tar::file("a", "x")])).unwrap();
    let mut bundle = fs::File::open(host.path("bundle")).unwrap();
    bundle.seek(SeekFrom::Start(7)).unwrap();
    let limits = Limits::default();
    codedeploy_agent::revision::archive::unpack(
        &bundle.try_clone().unwrap().into(),
        BundleType::Tar,
        &host.out(),
        &limits,
    )
    .unwrap();
    assert_eq!(bundle.stream_position().unwrap(), 7);
}
