//! Damaged and truncated bundles fail; none is reported as unpacked when it is incomplete.

use codedeploy_agent::revision::archive::{BundleType, Limits};

use super::bundle::{Host, Tar, Zip, gzip, tar_of, zip_of};

fn fails(kind: BundleType, bundle: &[u8]) -> String {
    Host::new()
        .unpack(kind, bundle, &Limits::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_bundle_cut_anywhere_fails() {
    let tar = tar_of(&[
        Tar::folder("d"),
        Tar::file("d/a", [b'a'; 700]),
        Tar::symlink("l", "d"),
        Tar::file("b", "b"),
    ]);
    let content = tar.len() - 1024;
    for length in (0..content).step_by(64).chain([content, content + 511]) {
        fails(BundleType::Tar, &tar[..length]);
    }
    let tgz = gzip(&tar);
    for length in 0..tgz.len() {
        fails(BundleType::Tgz, &tgz[..length]);
    }
    let zip = zip_of(&[Zip::file("a", [b'a'; 700]), Zip::file("b", "b")]);
    for length in 0..zip.len() {
        fails(BundleType::Zip, &zip[..length]);
    }
}

#[test]
fn the_message_tells_where_a_tar_ended() {
    let tar = tar_of(&[Tar::file("first", "1"), Tar::file("second", [b'2'; 2000])]);
    assert!(
        fails(BundleType::Tar, &tar[..1024]).contains("truncated: it ends after entry \"first\"")
    );
    let cut = fails(BundleType::Tar, &tar[..1600]);
    assert!(
        cut.contains("entry \"second\" declares 2000 bytes and holds 64"),
        "{cut}"
    );
}

#[test]
fn flipped_bits_fail() {
    let tar = tar_of(&[Tar::file("name", "content")]);
    for position in [0, 100, 124, 150, 257] {
        let mut broken = tar.clone();
        broken[position] ^= 1;
        fails(BundleType::Tar, &broken);
    }
    let mut tgz = gzip(&tar);
    let checksum = tgz.len() - 6;
    tgz[checksum] ^= 1;
    fails(BundleType::Tgz, &tgz);
    let mut zip = zip_of(&[Zip {
        method: 0,
        ..Zip::file("name", "content")
    }]);
    let content = zip
        .windows(7)
        .position(|window| window == b"content")
        .unwrap();
    zip[content] ^= 1;
    assert!(fails(BundleType::Zip, &zip).contains("entry \"name\" cannot be read"));
}

#[test]
fn data_behind_the_end_marker_is_not_dropped_silently() {
    let mut twice = tar_of(&[Tar::file("a", "")]);
    twice.extend(tar_of(&[Tar::file("b", "")]));
    assert!(
        fails(BundleType::Tar, &twice)
            .contains("holds data after its end marker, after entry \"a\"")
    );
    assert!(fails(BundleType::Tgz, &gzip(&twice)).contains("after its end marker"));
    let endless = [tar_of(&[Tar::file("a", "")]), vec![0; 65 << 20]].concat();
    assert!(fails(BundleType::Tgz, &gzip(&endless)).contains("after its end marker"));
    let mut garbage = gzip(&tar_of(&[Tar::file("a", "")]));
    garbage.extend_from_slice(b"garbage");
    fails(BundleType::Tgz, &garbage);
}

#[test]
fn the_wrong_type_is_said_to_be_wrong() {
    let tar = tar_of(&[Tar::file("a", "")]);
    let zip = zip_of(&[Zip::file("a", "")]);
    assert!(fails(BundleType::Tgz, &tar).contains("cannot be read as tgz"));
    assert!(fails(BundleType::Tgz, &zip).contains("cannot be read as tgz"));
    assert!(fails(BundleType::Zip, &tar).contains("cannot be read as zip"));
    fails(BundleType::Tar, &zip);
    assert_eq!("tgz".parse::<BundleType>().unwrap(), BundleType::Tgz);
    let error = "rar".parse::<BundleType>().unwrap_err().to_string();
    assert!(error.contains("expected tar, tgz or zip"), "{error}");
}
