//! Bundles of other tools: everything that GNU tar and unzip accept, and that leads nowhere
//! outside, is unpacked the same way.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use codedeploy_agent::revision::archive::{BundleType, Limits, StreamProblem, UnpackError};

use super::bundle::{Host, Tar, Zip, gzip, picture, tar_of, zip_of};

#[allow(
    clippy::disallowed_methods,
    reason = "other tools make what is unpacked here"
)]
fn run(program: &str, arguments: &[&str], folder: &Path) {
    let mut command = Command::new(program);
    let status = command
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .status();
    let status =
        status.unwrap_or_else(|error| panic!("{program} (tests/tools.sh installs it): {error}"));
    assert!(status.success(), "{program} {arguments:?}");
}

/// The output of `program` for `input`.
#[allow(
    clippy::disallowed_methods,
    reason = "other tools make what is unpacked here"
)]
fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("in"), input).unwrap();
    let output = Command::new(program)
        .args(arguments)
        .stdin(File::open(work.path().join("in")).unwrap())
        .output()
        .unwrap_or_else(|error| panic!("{program} (tests/tools.sh installs it): {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Unpacks and compares the result with GNU tar's.
fn assert_as_gnu_tar(kind: BundleType, archive: &Path) -> Host {
    let theirs = tempfile::tempdir().unwrap();
    run("tar", &["-xpf", archive.to_str().unwrap()], theirs.path());
    let host = Host::new();
    host.unpack(kind, &fs::read(archive).unwrap(), &Limits::default())
        .unwrap();
    assert_eq!(
        picture(&host.out()),
        picture(theirs.path()),
        "{}",
        archive.display()
    );
    host
}

fn sparse_file(path: &Path, size: u64, pieces: &[u64]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for at in pieces {
        file.write_all_at(format!("piece at {at}").as_bytes(), *at)
            .unwrap();
    }
}

#[test]
fn files_with_holes_keep_their_bytes_and_their_holes_in_every_notation() {
    let work = tempfile::tempdir().unwrap();
    let tree = work.path().join("tree");
    fs::create_dir(&tree).unwrap();
    sparse_file(&tree.join("few"), 1 << 20, &[500_000]);
    sparse_file(&tree.join("none"), 1 << 20, &[]);
    sparse_file(&tree.join("at-the-end"), 1 << 20, &[0, (1 << 20) - 20]);
    // More segments than fit into a header, into a header plus one further block, and into one
    // block of a decimal map.
    let many: Vec<u64> = (0..300).map(|piece| piece * 65_536 + 4096).collect();
    sparse_file(&tree.join("many"), 300 * 65_536, &many);
    let long = "a-name-that-no-header-holds-".repeat(7);
    sparse_file(&tree.join(&long), 1 << 20, &[4096]);
    fs::write(tree.join("plain"), "without holes").unwrap();
    for (number, format) in [
        &["--format=oldgnu"][..],
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ]
    .iter()
    .enumerate()
    {
        let archive = work.path().join(format!("{number}.tar"));
        let arguments = [
            "--sparse",
            "--hole-detection=raw",
            "-C",
            tree.to_str().unwrap(),
            "-cf",
        ];
        run(
            "tar",
            &[format, &arguments[..], &[archive.to_str().unwrap(), "."]].concat(),
            work.path(),
        );
        let host = assert_as_gnu_tar(BundleType::Tar, &archive);
        let blocks = fs::metadata(host.out().join("many")).unwrap().blocks();
        assert!(
            blocks * 512 < 300 * 65_536 / 2,
            "{format:?} left {blocks} blocks"
        );
    }
}

#[test]
fn holes_count_as_if_they_were_written() {
    let work = tempfile::tempdir().unwrap();
    fs::create_dir(work.path().join("tree")).unwrap();
    sparse_file(&work.path().join("tree/holes"), 10 << 20, &[5 << 20]);
    run(
        "tar",
        &[
            "--sparse",
            "--format=posix",
            "-cf",
            "a.tar",
            "-C",
            "tree",
            "holes",
        ],
        work.path(),
    );
    let bundle = fs::read(work.path().join("a.tar")).unwrap();
    assert!(bundle.len() < 100_000);
    let unpack = |most| {
        let limits = Limits {
            max_extracted_bytes: Some(most),
            ..Limits::default()
        };
        Host::new().unpack(BundleType::Tar, &bundle, &limits)
    };
    assert_eq!(unpack(10 << 20).unwrap().bytes, 10 << 20);
    let error = unpack((10 << 20) - 1).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");
}

#[test]
fn labels_dumps_and_unknown_types_come_out_as_gnu_tar_leaves_them() {
    let work = tempfile::tempdir().unwrap();
    fs::create_dir_all(work.path().join("tree/web/sub")).unwrap();
    fs::write(work.path().join("tree/web/i"), "1").unwrap();
    for (name, arguments) in [
        ("label-gnu", &["--format=gnu", "-V", "release 1.2"][..]),
        ("label-pax", &["--format=posix", "-V", "release 1.2"]),
        ("dump-gnu", &["--format=gnu", "--listed-incremental=snap-1"]),
        (
            "dump-pax",
            &["--format=posix", "--listed-incremental=snap-2"],
        ),
        ("global", &["--format=posix", "--pax-option=mtime=1000000"]),
        ("v7", &["--format=v7"]),
        ("ustar", &["--format=ustar"]),
    ] {
        let archive = work.path().join(name);
        let rest = ["-cf", archive.to_str().unwrap(), "-C", "tree", "web"];
        run("tar", &[arguments, &rest[..]].concat(), work.path());
        assert_as_gnu_tar(BundleType::Tar, &archive);
    }
    let archive = work.path().join("odd");
    let members = [
        Tar {
            data: b"unknown".into(),
            ..Tar::new(b'Z', "what")
        },
        Tar {
            data: b"an ACL of Solaris".into(),
            ..Tar::new(b'A', "a")
        },
        Tar::file("a", "2"),
        Tar {
            data: b"old\0name\0".into(),
            ..Tar::new(b'L', "././@LongLink")
        },
        Tar::pax(b'x', &[("path", b"pax")]),
        Tar::file("short", "3"),
        Tar::pax(b'x', &[("path", b"pax-first")]),
        Tar {
            data: b"gnu\0".into(),
            ..Tar::new(b'L', "././@LongLink")
        },
        Tar::file("short", "4"),
        Tar {
            data: b"first\0second\0".into(),
            ..Tar::new(b'L', "././@LongLink")
        },
        Tar::file("short", "5"),
        Tar::pax(b'X', &[("path", b"sun")]),
        Tar::file("short", "6"),
    ];
    fs::write(&archive, tar_of(&members)).unwrap();
    let host = assert_as_gnu_tar(BundleType::Tar, &archive);
    assert_eq!(fs::read(host.out().join("pax")).unwrap(), b"3");
    assert_eq!(fs::read(host.out().join("pax-first")).unwrap(), b"4");
}

#[test]
fn a_hard_link_of_a_symbolic_link_is_a_second_name_of_it() {
    let work = tempfile::tempdir().unwrap();
    let members = [
        Tar::folder("web"),
        Tar::symlink("web/current", "i"),
        Tar::hard_link("web/a", "web/current"),
        Tar::hard_link("web/z", "web/a"),
        Tar::hard_link("web/z", "web/z"),
        Tar::file("web/i", "1"),
    ];
    let archive = work.path().join("links.tar");
    fs::write(&archive, tar_of(&members)).unwrap();
    let host = Host::new();
    host.unpack(
        BundleType::Tar,
        &fs::read(&archive).unwrap(),
        &Limits::default(),
    )
    .unwrap();
    for name in ["current", "a", "z"] {
        assert_eq!(
            fs::read_link(host.out().join("web").join(name)).unwrap(),
            Path::new("i")
        );
    }
    assert_eq!(
        fs::symlink_metadata(host.out().join("web/z"))
            .unwrap()
            .nlink(),
        3
    );
}

#[test]
fn sizes_of_folders_and_hard_links_that_no_content_follows_are_not_looked_for() {
    let work = tempfile::tempdir().unwrap();
    let with_size = |member: Tar, size: u64| {
        let bytes = member.bytes();
        let mut header = tar::Header::from_byte_slice(&bytes).clone();
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let bundle = [
        with_size(Tar::folder("d"), 4096),
        Tar::file("d/a", "1").bytes(),
        with_size(Tar::hard_link("b", "d/a"), 1),
        Tar::file("c", "3").bytes(),
        vec![0; 1024],
    ]
    .concat();
    let archive = work.path().join("sizes.tar");
    fs::write(&archive, bundle).unwrap();
    assert_as_gnu_tar(BundleType::Tar, &archive);
}

#[test]
fn every_compression_is_found_by_its_magic_in_one_stream_or_several() {
    let tar = tar_of(&[Tar::file("a", vec![b'a'; 400_000]), Tar::file("b", "b")]);
    let (front, back) = tar.split_at(200_123);
    for (program, arguments) in [
        ("gzip", &["-c"][..]),
        ("bzip2", &["-c"]),
        ("xz", &["-c"]),
        ("xz", &["-c", "-9", "--check=sha256"]),
        ("xz", &["-c", "--block-size=100000", "--check=none"]),
        ("xz", &["-c", "--x86", "--delta=dist=4", "--lzma2"]),
        ("zstd", &["-c"]),
        ("zstd", &["-c", "-19", "--long=27"]),
        ("zstd", &["-c", "--no-check"]),
    ] {
        let whole = filter(program, arguments, &tar);
        let two = [
            filter(program, arguments, front),
            filter(program, arguments, back),
        ]
        .concat();
        let padded = [whole.clone(), vec![0; 10_240]].concat();
        for bundle in [&whole, &two, &padded] {
            for kind in [BundleType::Tar, BundleType::Tgz] {
                let host = Host::new();
                let unpacked = host.unpack(kind, bundle, &Limits::default());
                assert_eq!(
                    unpacked
                        .unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
                        .bytes,
                    400_001
                );
            }
        }
        let behind = [whole.clone(), b"\0\0junk".to_vec()].concat();
        let error = Host::new()
            .unpack(BundleType::Tar, &behind, &Limits::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!(
                "other bytes than zeros behind its {program} stream"
            )),
            "{error}"
        );
        for length in (0..whole.len())
            .step_by(whole.len().div_ceil(40))
            .chain([whole.len() - 1])
        {
            Host::new()
                .unpack(BundleType::Tar, &whole[..length], &Limits::default())
                .unwrap_err();
        }
        let half = &whole[..whole.len() / 2];
        let error = Host::new()
            .unpack(BundleType::Tar, half, &Limits::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("truncated"), "{program}: {error}");
    }
    let frames = [
        b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec(),
        filter("zstd", &["-c"], &tar),
    ]
    .concat();
    Host::new()
        .unpack(BundleType::Tar, &frames, &Limits::default())
        .unwrap();
}

#[test]
fn a_stream_that_needs_too_much_memory_is_refused() {
    let tar = tar_of(&[Tar::file("a", "a")]);
    // A frame with a window of 1 GiB, and nothing in it.
    let frame = b"\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00".to_vec();
    for (program, bundle) in [
        ("xz", filter("xz", &["-c", "--lzma2=dict=512MiB"], &tar)),
        ("zstd", frame),
    ] {
        let error = Host::new()
            .unpack(BundleType::Tar, &bundle, &Limits::default())
            .unwrap_err();
        assert!(
            matches!(error, UnpackError::Stream(StreamProblem::Window(name)) if name == program),
            "{error}"
        );
        assert!(error.to_string().contains("more than 128 MiB"), "{error}");
    }
}

#[test]
fn what_is_no_bundle_is_named_for_what_it_is() {
    let tar = tar_of(&[Tar::file("a", "a")]);
    let zip = zip_of(&[Zip::file("a", "a")]);
    for (kind, bundle, said) in [
        (
            BundleType::Tar,
            &b"LZIP\x01\x0c"[..],
            "compressed with lzip, which is not supported",
        ),
        (
            BundleType::Tgz,
            b"\x04\x22\x4d\x18\x64",
            "compressed with lz4",
        ),
        (BundleType::Tar, b"7z\xbc\xaf\x27\x1c\0", "a 7z archive"),
        (
            BundleType::Tar,
            b"<html>Please log in</html>",
            "an HTML or XML document",
        ),
        (
            BundleType::Zip,
            b"<html>Please log in</html>",
            "an HTML or XML document",
        ),
        (BundleType::Tar, b"", "it is empty"),
        (BundleType::Zip, b"", "it is empty"),
        (BundleType::Tar, &zip, "a zip; correct the bundle type"),
        (BundleType::Zip, &gzip(&tar), "compressed with gzip"),
        (BundleType::Tgz, &tar, "a tar without compression"),
    ] {
        let error = Host::new()
            .unpack(kind, bundle, &Limits::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(said) && error.contains(&format!("cannot be read as {kind}")),
            "{error}"
        );
    }
}

#[test]
fn an_archive_that_was_never_closed_is_whole_when_its_compression_is() {
    let open = Tar::file("a", "a").bytes();
    let stream = |bundle: &[u8]| Host::new().unpack(BundleType::Tgz, bundle, &Limits::default());
    assert_eq!(stream(&gzip(&open)).unwrap().entries, 1);
    assert_eq!(
        stream(&gzip(&[&open[..], &[0; 512]].concat()))
            .unwrap()
            .entries,
        1
    );
    let error = stream(&gzip(&open[..open.len() - 100]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("truncated: it ends after entry \"a\""),
        "{error}"
    );
    let behind = [
        tar_of(&[Tar::file("a", "a")]),
        b"\n-- signature --\n".repeat(300),
    ]
    .concat();
    for bundle in [behind.clone(), gzip(&behind)] {
        assert_eq!(
            Host::new()
                .unpack(BundleType::Tar, &bundle, &Limits::default())
                .unwrap()
                .entries,
            1
        );
    }
}

#[test]
fn archives_of_bsdtar_come_out_as_gnu_tar_unpacks_them() {
    let work = tempfile::tempdir().unwrap();
    fs::create_dir_all(work.path().join("tree/web")).unwrap();
    sparse_file(
        &work.path().join("tree/web/holes"),
        8 << 20,
        &[1 << 20, 6 << 20],
    );
    fs::write(work.path().join("tree/web").join("ü".repeat(90)), "long").unwrap();
    std::os::unix::fs::symlink("holes", work.path().join("tree/web/link")).unwrap();
    for format in ["pax", "rpax", "gnutar"] {
        let archive = work.path().join(format);
        let arguments = [
            "--format",
            format,
            "-cf",
            archive.to_str().unwrap(),
            "-C",
            "tree",
            "web",
        ];
        run("bsdtar", &arguments, work.path());
        assert_as_gnu_tar(BundleType::Tar, &archive);
    }
}

/// Zips the folder `web` onto a pipe, so that the sizes follow the data. Not every release of
/// Info-ZIP's zip can do that with links and stored files.
const PIPED: &str = r#"
import os, sys, zipfile
with zipfile.ZipFile(sys.stdout.buffer, "w", getattr(zipfile, sys.argv[1])) as archive:
    for name in sorted(os.listdir("web")):
        path = os.path.join("web", name)
        if os.path.islink(path):
            link = zipfile.ZipInfo(path)
            link.create_system, link.external_attr = 3, 0o120777 << 16
            archive.writestr(link, os.readlink(path))
        else:
            archive.write(path)
"#;

#[test]
fn zips_with_other_methods_and_shapes_come_out_as_unzip_unpacks_them() {
    let work = tempfile::tempdir().unwrap();
    fs::create_dir_all(work.path().join("tree/web")).unwrap();
    let text: String = (0..60_000).map(|line| format!("line {line}\n")).collect();
    fs::write(work.path().join("tree/web/text"), &text).unwrap();
    fs::write(work.path().join("tree/web/small"), "small").unwrap();
    fs::write(work.path().join("tree/web/empty"), "").unwrap();
    std::os::unix::fs::symlink("text", work.path().join("tree/web/link")).unwrap();
    let tree = work.path().join("tree");
    let zip = |name: &str, arguments: &[&str]| {
        let archive = work.path().join(name);
        run(
            "zip",
            &[&["-qry"], arguments, &[archive.to_str().unwrap(), "web"]].concat(),
            &tree,
        );
        fs::read(archive).unwrap()
    };
    let piped = |method: &str| {
        run(
            "sh",
            &[
                "-c",
                "python3 -c \"$0\" \"$1\" | cat >../piped.zip",
                PIPED,
                method,
            ],
            &tree,
        );
        fs::read(work.path().join("piped.zip")).unwrap()
    };
    let plain = zip("plain.zip", &[]);
    run(
        "sh",
        &[
            "-c",
            "(echo '#!/bin/sh'; cat plain.zip) >stub.zip; cp stub.zip adjusted.zip",
        ],
        work.path(),
    );
    run("sh", &["-c", "zip -qA adjusted.zip"], work.path());
    run(
        "sh",
        &[
            "-c",
            "cp plain.zip comment.zip; echo 'made by CI' | zip -qz comment.zip",
        ],
        work.path(),
    );
    let read = |name: &str| fs::read(work.path().join(name)).unwrap();
    let bundles = [
        ("plain", plain.clone()),
        ("stored", zip("stored.zip", &["-0"])),
        ("bzip2", zip("bzip2.zip", &["-Z", "bzip2"])),
        ("64 bits", zip("wide.zip", &["-fz"])),
        ("data descriptors", piped("ZIP_DEFLATED")),
        ("stored, descriptors", piped("ZIP_STORED")),
        ("stub", read("stub.zip")),
        ("stub, adjusted", read("adjusted.zip")),
        ("comment", read("comment.zip")),
        ("zeros behind", [plain.clone(), vec![0; 1000]].concat()),
        ("newline behind", [plain, b"\n".to_vec()].concat()),
    ];
    for (name, bundle) in bundles {
        let host = Host::new();
        let unpacked = host.unpack(BundleType::Zip, &bundle, &Limits::default());
        unpacked.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            fs::read_to_string(host.out().join("web/text")).unwrap(),
            text,
            "{name}"
        );
        assert_eq!(
            fs::read_link(host.out().join("web/link")).unwrap(),
            Path::new("text"),
            "{name}"
        );
        assert_eq!(
            fs::read(host.out().join("web/empty")).unwrap(),
            b"",
            "{name}"
        );
    }
}

#[test]
fn a_zip_may_use_deflate64() {
    // One stored block, which has the same form in Deflate64 and in Deflate.
    let data = b"stored by Deflate64";
    let length = data.len() as u16;
    let mut packed = vec![1];
    packed.write_all(&length.to_le_bytes()).unwrap();
    packed.write_all(&(!length).to_le_bytes()).unwrap();
    packed.extend_from_slice(data);
    let host = Host::new();
    let entry = Zip {
        method: 9,
        packed: Some(packed),
        ..Zip::file("a", data)
    };
    host.unpack(BundleType::Zip, &zip_of(&[entry]), &Limits::default())
        .unwrap();
    assert_eq!(fs::read(host.out().join("a")).unwrap(), data);
}
