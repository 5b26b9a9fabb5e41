//! Entries that the operator forbids, and bundles that would fill the disk.

use std::io::Write;

use codedeploy_agent::revision::archive::{BundleType, Limits, UnpackError};

use super::bundle::{Host, Tar, Zip, gzip, picture, tar_of, zip_of};

fn at_most(bytes: u64) -> Limits {
    Limits {
        max_extracted_bytes: Some(bytes),
        ..Limits::default()
    }
}

fn written(host: &Host) -> u64 {
    picture(&host.out())
        .values()
        .map(|node| node.content.len() as u64)
        .sum()
}

#[test]
fn the_limit_holds_for_the_whole_bundle_and_to_the_byte() {
    let tar = tar_of(&[Tar::file("a", [b'a'; 600]), Tar::file("b", [b'b'; 400])]);
    let zip = zip_of(&[Zip::file("a", [b'a'; 600]), Zip::file("b", [b'b'; 400])]);
    for (kind, bundle) in [
        (BundleType::Tar, &tar),
        (BundleType::Tgz, &gzip(&tar)),
        (BundleType::Zip, &zip),
    ] {
        assert_eq!(
            Host::new()
                .unpack(kind, bundle, &at_most(1000))
                .unwrap()
                .bytes,
            1000
        );
        let host = Host::new();
        let error = host.unpack(kind, bundle, &at_most(999)).unwrap_err();
        assert!(
            matches!(
                error,
                UnpackError::TooLarge {
                    needed: 1000,
                    limit: 999,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().starts_with("entry \"b\" "), "{error}");
    }
}

#[test]
fn a_bomb_stops_at_the_limit_and_before_it_writes_when_it_admits_its_size() {
    const GIB: u64 = 1 << 30;
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(GIB);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.write_all(&[0; 1024]).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 8 << 20);
    let host = Host::new();
    let error = host
        .unpack(BundleType::Tgz, &bomb, &at_most(10 << 20))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("entry \"zeros\" ") && error.contains("archive_max_extraction_size"),
        "{error}"
    );
    assert_eq!(written(&host), 0);
}

#[test]
fn a_zip_that_understates_a_size_writes_no_more_than_it_declared() {
    let host = Host::new();
    let bundle = zip_of(&[Zip {
        size: Some(10),
        ..Zip::file("liar", vec![0; 4 << 20])
    }]);
    let error = host
        .unpack(BundleType::Zip, &bundle, &at_most(1 << 20))
        .unwrap_err()
        .to_string();
    assert!(error.contains("entry \"liar\" "), "{error}");
    assert!(written(&host) <= 10);
}

#[test]
fn more_than_the_disk_has_is_refused_before_anything_is_written() {
    let host = Host::new();
    let mut header = tar::Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 60);
    header.set_cksum();
    let error = host
        .unpack(BundleType::Tar, header.as_bytes(), &Limits::default())
        .unwrap_err();
    assert!(
        matches!(error, UnpackError::NoSpace { needed, .. } if needed == 1 << 60),
        "{error}"
    );
    assert!(picture(&host.out()).is_empty());

    let huge: Vec<_> = (0..40_000)
        .map(|i| Zip {
            size: Some(u32::MAX - 1),
            ..Zip::file(i.to_string(), "")
        })
        .collect();
    let error = host
        .unpack(BundleType::Zip, &zip_of(&huge), &Limits::default())
        .unwrap_err();
    assert!(matches!(error, UnpackError::NoSpace { .. }), "{error}");
    assert!(picture(&host.out()).is_empty());
}

#[test]
fn a_name_record_of_any_size_is_not_read_into_memory() {
    let mut long = Tar::new(b'L', "././@LongLink");
    long.data = vec![b'x'; (1 << 20) + 1];
    let error = Host::new()
        .unpack(
            BundleType::Tar,
            &tar_of(&[long, Tar::file("a", "")]),
            &Limits::default(),
        )
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("entry \"././@LongLink\" ") && error.contains("larger than 1 MiB"),
        "{error}"
    );
}

#[test]
fn names_that_wait_for_the_end_do_not_fill_the_memory() {
    let target = vec![b'x'; 4000];
    let members = (0..17_000).flat_map(|number| {
        let record = Tar {
            data: target.clone(),
            ..Tar::new(b'K', "././@LongLink")
        };
        [record, Tar::symlink(format!("link-{number}"), "x")]
    });
    let bundle = tar_of(&members.collect::<Vec<_>>());
    let error = Host::new()
        .unpack(BundleType::Tar, &bundle, &Limits::default())
        .unwrap_err();
    assert!(matches!(error, UnpackError::TooManyNames { .. }), "{error}");
}

#[test]
fn links_can_be_forbidden() {
    let limits = Limits {
        reject_symlinks: true,
        ..Limits::default()
    };
    let tar = tar_of(&[Tar::symlink("venv/bin/python", "/usr/bin/python3")]);
    let zip = zip_of(&[Zip::symlink("venv/bin/python", "/usr/bin/python3")]);
    for (kind, bundle) in [(BundleType::Tar, tar), (BundleType::Zip, zip)] {
        let error = Host::new()
            .unpack(kind, &bundle, &limits)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(
                "\"venv/bin/python\" is a symbolic link, which reject_symlinks_in_bundle"
            ),
            "{error}"
        );
        Host::new()
            .unpack(kind, &bundle, &Limits::default())
            .unwrap();
    }
}

#[test]
fn unsafe_permissions_can_be_forbidden() {
    let limits = Limits {
        reject_unsafe_permissions: true,
        ..Limits::default()
    };
    let refused = [
        Tar::file("f", "").mode(0o4755),
        Tar::file("f", "").mode(0o2755),
        Tar::file("f", "").mode(0o666),
        Tar::folder("f").mode(0o777),
        Tar::folder("f").mode(0o2755),
    ];
    for member in refused {
        let error = Host::new()
            .unpack(BundleType::Tar, &tar_of(&[member]), &limits)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("reject_unsafe_permissions_in_bundle"),
            "{error}"
        );
    }
    let fine = [
        Tar::file("f", "").mode(0o775),
        Tar::folder("shared").mode(0o1777),
        Tar::symlink("l", "f").mode(0o777),
    ];
    Host::new()
        .unpack(BundleType::Tar, &tar_of(&fine), &limits)
        .unwrap();
}

#[test]
fn without_its_owner_a_file_loses_its_set_id_bits() {
    let limits = Limits {
        ignore_ownership: true,
        ..Limits::default()
    };
    let host = Host::new();
    let mine = Tar::file("mine", "").mode(0o6755);
    let theirs = Tar {
        owner: (54_321, 54_321),
        ..Tar::file("theirs", "").mode(0o6755)
    };
    host.unpack(BundleType::Tar, &tar_of(&[mine, theirs]), &limits)
        .unwrap();
    let nodes = picture(&host.out());
    let modes: Vec<_> = nodes
        .values()
        .map(|node| (node.mode & 0o7777, node.owner.0))
        .collect();
    let me = nix::unistd::geteuid().as_raw();
    assert_eq!(modes, [(0o6755, me), (0o755, me)]);
}
