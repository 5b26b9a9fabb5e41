//! Hostile entries are rejected by name, and nothing outside the target changes.

use std::fs;

use codedeploy_agent::revision::archive::{BundleType, Limits};

use proptest::prelude::*;

use super::bundle::{Host, Tar, Zip, gzip, picture, tar_of, zip_of};

/// Unpacks and expects a rejection that names `entry` and `reason`.
fn assert_refused(kind: BundleType, bundle: &[u8], entry: &str, reason: &str) {
    let host = Host::new();
    let error = host
        .unpack(kind, bundle, &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("entry {entry:?} ")),
        "{error}\nshould name {entry:?}"
    );
    assert!(error.contains(reason), "{error}\nshould say {reason:?}");
    for (path, node) in picture(&host.out()) {
        assert_ne!(
            node.mode & 0o170_000,
            0o120_000,
            "{} was linked before the bundle was refused",
            path.display()
        );
    }
}

#[test]
fn hostile_tars() {
    let outside = "would land outside the revision";
    let absolute = std::env::temp_dir().join("codedeploy-canary");
    let absolute = absolute.to_str().unwrap();
    let file = |name: &str| Tar::file(name, "x");
    let link = || Tar::symlink("link", "../canary");
    let sparse = |size: &str, map: &str| {
        Tar::pax(
            b'x',
            &[
                ("GNU.sparse.size", size.as_bytes()),
                ("GNU.sparse.map", map.as_bytes()),
            ],
        )
    };
    let cases: Vec<(Vec<Tar>, &str, &str)> = vec![
        (vec![file(absolute)], absolute, outside),
        (vec![file("../canary/file")], "../canary/file", outside),
        (
            vec![file("a/../../canary/file")],
            "a/../../canary/file",
            outside,
        ),
        (vec![file("..")], "..", outside),
        (vec![Tar::folder("../made")], "../made", outside),
        (vec![Tar::symlink("../made", "x")], "../made", outside),
        (
            vec![Tar::pax(b'x', &[("path", b"../canary/file")]), file("good")],
            "../canary/file",
            outside,
        ),
        (
            vec![
                Tar {
                    data: b"../canary/file\0".into(),
                    ..Tar::new(b'L', "././@LongLink")
                },
                file("good"),
            ],
            "../canary/file",
            outside,
        ),
        (
            vec![Tar::pax(b'x', &[("path", b"a\0b")]), file("good")],
            "a\0b",
            "NUL",
        ),
        (vec![file("")], "", "has no name"),
        (vec![file("./")], "./", "carries 1 bytes"),
        (
            vec![Tar::symlink("./", "../canary")],
            ".",
            "a folder of that name",
        ),
        // Through a link, in both orders, at any depth, and by a folder or another link.
        (
            vec![link(), file("link/file")],
            "link/file",
            "goes through \"link\"",
        ),
        (
            vec![file("link/file"), link()],
            "link",
            "a folder of that name",
        ),
        (
            vec![link(), file("./link//deep/er/file")],
            "link/deep/er/file",
            "goes through \"link\"",
        ),
        (
            vec![link(), Tar::folder("link/")],
            "link",
            "a symbolic link of that name",
        ),
        (
            vec![link(), Tar::folder("link/sub")],
            "link/sub",
            "goes through \"link\"",
        ),
        (
            vec![link(), Tar::symlink("link/file", "x")],
            "link/file",
            "goes through \"link\"",
        ),
        (
            vec![link(), file("link")],
            "link",
            "a symbolic link of that name",
        ),
        (vec![file("link"), link()], "link", "a file of that name"),
        (
            vec![
                Tar::symlink("a", "b"),
                Tar::symlink("b", "../canary"),
                file("a/file"),
            ],
            "a/file",
            "goes through \"a\"",
        ),
        (
            vec![Tar::symlink("l", "."), file("l/a")],
            "l/a",
            "goes through \"l\"",
        ),
        // Hard links.
        (
            vec![Tar::hard_link("hard", "../canary/file")],
            "hard",
            "lies outside the revision",
        ),
        (
            vec![Tar::hard_link("hard", "/etc/passwd")],
            "hard",
            "lies outside the revision",
        ),
        (
            vec![Tar::hard_link("hard", "later"), file("later")],
            "hard",
            "has not made before",
        ),
        (
            vec![Tar::folder("a"), Tar::hard_link("hard", "a")],
            "hard",
            "is not a file",
        ),
        (
            vec![link(), Tar::hard_link("hard", "link"), file("hard/x")],
            "hard/x",
            "goes through \"hard\"",
        ),
        (
            vec![link(), Tar::hard_link("hard", "link"), file("hard")],
            "hard",
            "a symbolic link of that name",
        ),
        (
            vec![file("hard"), link(), Tar::hard_link("hard", "link")],
            "hard",
            "a file of that name",
        ),
        (
            vec![link(), Tar::hard_link("hard", "link/file")],
            "hard",
            "symbolic link of the bundle",
        ),
        (
            vec![link(), file("a"), Tar::hard_link("link/hard", "a")],
            "link/hard",
            "goes through \"link\"",
        ),
        (
            vec![Tar::hard_link("hard", "")],
            "hard",
            "is no possible path",
        ),
        // Types.
        (vec![Tar::new(b'3', "null")], "null", "a character device"),
        (vec![Tar::new(b'4', "disk")], "disk", "a block device"),
        (vec![Tar::new(b'6', "pipe")], "pipe", "a FIFO"),
        (
            vec![Tar {
                data: b"x".into(),
                ..Tar::new(b'S', "holes")
            }],
            "holes",
            "its map of holes",
        ),
        (
            vec![Tar::pax(b'x', &[("GNU.sparse.major", b"1")]), file("holes")],
            "holes",
            "its map of holes",
        ),
        (
            vec![sparse("5", "0,2"), file("holes"), file("x")],
            "holes",
            "its map of holes contradicts",
        ),
        (
            vec![sparse("5", "0,1,0,0"), file("holes")],
            "holes",
            "its map of holes contradicts",
        ),
        (
            vec![sparse("5", "9,1"), file("holes")],
            "holes",
            "its map of holes contradicts",
        ),
        (
            vec![sparse("5", "18446744073709551615,1"), file("holes")],
            "holes",
            "its map of holes contradicts",
        ),
        (
            vec![sparse("5", "0"), file("holes")],
            "holes",
            "its map of holes contradicts",
        ),
        (
            vec![
                Tar::pax(b'x', &[("GNU.sparse.name", b"../canary/file")]),
                file("a"),
            ],
            "../canary/file",
            "map of holes",
        ),
        (
            vec![Tar::new(b'M', "half")],
            "half",
            "continues a file from another volume",
        ),
        (
            vec![Tar::pax(b'g', &[("GNU.volume.offset", b"7")]), file("half")],
            "PaxHeaders/records",
            "another volume",
        ),
        // Clashes and malformed entries.
        (
            vec![file("a"), file("a/b")],
            "a/b",
            "under a name that the bundle also gives to a file",
        ),
        (vec![file("a/b"), file("a")], "a", "a folder of that name"),
        (
            vec![file("a"), Tar::folder("a")],
            "a",
            "a file of that name",
        ),
        (vec![Tar::symlink("empty", "")], "empty", "target is empty"),
        (
            vec![Tar {
                data: b"x".into(),
                ..Tar::symlink("fat", "t")
            }],
            "fat",
            "carries 1 bytes",
        ),
        (
            vec![Tar::pax(b'g', &[("path", b"../x")]), file("a")],
            "PaxHeaders/records",
            "global pax records",
        ),
        (
            vec![
                Tar {
                    data: b"12 path=a\n".into(),
                    ..Tar::new(b'x', "records")
                },
                file("a"),
            ],
            "records",
            "malformed",
        ),
    ];
    for (members, entry, reason) in cases {
        let bundle = tar_of(&members);
        assert_refused(BundleType::Tar, &bundle, entry, reason);
        assert_refused(BundleType::Tgz, &gzip(&bundle), entry, reason);
    }
    assert!(!fs::exists(absolute).unwrap());
}

#[test]
fn hostile_zips() {
    let outside = "would land outside the revision";
    let file = |name: &str| Zip::file(name, "x");
    let dos = |name: &str| Zip {
        system: 0,
        mode: 0,
        ..Zip::file(name, "x")
    };
    let link = || Zip::symlink("link", "../canary");
    let cases: Vec<(Vec<Zip>, &str, &str)> = vec![
        (
            vec![file("/tmp/codedeploy-canary")],
            "/tmp/codedeploy-canary",
            outside,
        ),
        (vec![file("../canary/file")], "../canary/file", outside),
        (
            vec![file("a/../../canary/file")],
            "a/../../canary/file",
            outside,
        ),
        (vec![dos("..\\canary\\file")], "..\\canary\\file", outside),
        (vec![dos("\\canary\\file")], "\\canary\\file", outside),
        (vec![dos("C:\\canary")], "C:\\canary", outside),
        (vec![file("a\0b")], "a\0b", "NUL"),
        (vec![file("")], "", "has no name"),
        (vec![file(".")], ".", "has no name"),
        (
            vec![link(), file("link/file")],
            "link/file",
            "goes through \"link\"",
        ),
        (
            vec![file("link/file"), link()],
            "link/file",
            "goes through \"link\"",
        ),
        (
            vec![link(), Zip::new("link/sub/", 0o040_755, "")],
            "link/sub",
            "goes through \"link\"",
        ),
        (
            vec![link(), file("./link")],
            "./link",
            "a symbolic link of that name",
        ),
        (
            vec![
                Zip {
                    system: 0,
                    ..link()
                },
                file("link/file"),
            ],
            "link/file",
            "goes through \"link\"",
        ),
        (vec![Zip::new("pipe", 0o010_644, "")], "pipe", "a FIFO"),
        (
            vec![Zip::new("socket", 0o140_644, "")],
            "socket",
            "a socket",
        ),
        (
            vec![Zip::new("null", 0o020_644, "")],
            "null",
            "a character device",
        ),
        (
            vec![Zip::new("disk", 0o060_644, "")],
            "disk",
            "a block device",
        ),
        (vec![Zip::new("odd", 0o150_644, "")], "odd", "is of type"),
        (
            vec![Zip::symlink("link/", "x")],
            "link/",
            "ends like a folder's",
        ),
        (vec![Zip::symlink("link", "")], "link", "target is empty"),
        (vec![Zip::symlink("link", "a\0b")], "link", "NUL"),
        (
            vec![Zip::new("folder/", 0o040_755, "x")],
            "folder/",
            "carries 1 bytes",
        ),
        (vec![file("a"), file("a/b")], "a", "a folder of that name"),
        (
            vec![Zip {
                flags: 1,
                ..file("secret")
            }],
            "secret",
            "encrypted",
        ),
        (
            vec![Zip {
                method: 14,
                ..file("packed")
            }],
            "packed",
            "compressed with LZMA; build",
        ),
        (
            vec![Zip {
                method: 6,
                ..file("packed")
            }],
            "packed",
            "compressed with implode; build",
        ),
        (
            vec![Zip {
                flags: 0x20,
                ..file("packed")
            }],
            "packed",
            "patch data",
        ),
        (vec![file("a"), file("a")], "a", "a file of that name"),
        (vec![file("a"), file("./a")], "./a", "a file of that name"),
        (
            vec![file("a"), Zip::symlink("a", "/etc/hostname")],
            "a",
            "a file of that name",
        ),
        (
            vec![Zip {
                extra: unicode_path("a", "../canary/file"),
                ..file("a")
            }],
            "a",
            "another name in UTF-8",
        ),
        (
            vec![Zip {
                extra: unicode_path("\u{81}", "../canary/file"),
                ..file("\u{81}")
            }],
            "\u{81}",
            outside,
        ),
        // A good entry before and after does not help.
        (
            vec![file("a"), file("../canary/b"), file("c")],
            "../canary/b",
            outside,
        ),
    ];
    for (entries, entry, reason) in cases {
        assert_refused(BundleType::Zip, &zip_of(&entries), entry, reason);
    }
}

/// The extra field with a UTF-8 name.
fn unicode_path(name: &str, unicode: &str) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(name.as_bytes());
    let value = [&[1][..], &crc.sum().to_le_bytes(), unicode.as_bytes()].concat();
    [b"up", &(value.len() as u16).to_le_bytes()[..], &value].concat()
}

#[test]
fn a_zip_is_judged_whole_before_anything_is_written() {
    let host = Host::new();
    let bundle = zip_of(&[Zip::file("good", "x"), Zip::file("../bad", "x")]);
    host.unpack(BundleType::Zip, &bundle, &Limits::default())
        .unwrap_err();
    assert!(picture(&host.out()).is_empty());
}

#[test]
fn a_folder_that_is_not_empty_is_no_target() {
    let host = Host::new();
    std::os::unix::fs::symlink("../canary", host.out().join("link")).unwrap();
    let bundle = tar_of(&[Tar::file("link/file", "x")]);
    let error = host
        .unpack(BundleType::Tar, &bundle, &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not empty"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever bytes change, an archive is unpacked or rejected; nothing outside changes and
    /// nothing panics.
    #[test]
    fn mutated_bundles_stay_inside(
        zip in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let (kind, mut bundle) = if zip {
            (BundleType::Zip, zip_of(&[Zip::file("dir/a", "x"), Zip::symlink("link", "../canary"), Zip::file("b", "y")]))
        } else {
            let pax = Tar::pax(b'x', &[("path", b"dir/renamed"), ("size", b"1")]);
            let members = [pax, Tar::file("a", "x"), Tar::symlink("link", "../canary"), Tar::hard_link("hard", "dir/renamed")];
            (BundleType::Tar, tar_of(&members))
        };
        for (place, byte) in changes {
            let place = place.index(bundle.len());
            bundle[place] = byte;
        }
        if !zip {
            mend_checksums(&mut bundle);
        }
        let host = Host::new();
        let limits = Limits { max_extracted_bytes: Some(1 << 20), ..Limits::default() };
        let _ = host.unpack(kind, &bundle, &limits);
    }
}

/// Corrects the checksums of changed headers, so that their contents are examined.
fn mend_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}
