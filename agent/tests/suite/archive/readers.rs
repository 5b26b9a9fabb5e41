//! Zips that two readers would interpret differently are rejected: the listing of a scanner equals
//! the installed files.

use codedeploy_agent::revision::archive::{BundleType, Limits};

use super::bundle::{Host, Zip, picture, zip_of};

const END: usize = 22;

fn two() -> Vec<u8> {
    zip_of(&[Zip::file("one", "1"), Zip::file("two", "2")])
}

fn assert_refused(bundle: &[u8], said: &str) {
    let host = Host::new();
    let error = host
        .unpack(BundleType::Zip, bundle, &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains(said), "{error}\nshould say {said:?}");
    assert!(picture(&host.out()).is_empty(), "{error}");
}

/// Adds to a number of the end record.
fn with_end(at: usize, add: i64) -> Vec<u8> {
    let mut bundle = two();
    let at = bundle.len() - END + at;
    let value = i64::from(bundle[at]) + add;
    bundle[at] = u8::try_from(value).unwrap();
    bundle
}

fn position(bundle: &[u8], what: &[u8], nth: usize) -> usize {
    let mut found = bundle
        .windows(what.len())
        .enumerate()
        .filter(|(_, window)| *window == what);
    found.nth(nth).unwrap().0
}

#[test]
fn the_end_record_agrees_with_the_directory() {
    assert_refused(
        &with_end(10, -1),
        "as many entries as the end record counts",
    );
    assert_refused(&with_end(10, 1), "as many entries as the end record counts");
    assert_refused(
        &with_end(12, -10),
        "its size does not agree with its entries",
    );
    assert_refused(&with_end(12, 10), "its size");
    assert_refused(&with_end(16, -10), "no header where the directory says");
    assert_refused(
        &with_end(16, 10),
        "larger than what is in front of the end record",
    );
    assert_refused(&with_end(4, 1), "one of several volumes");
}

#[test]
fn the_headers_of_an_entry_agree_with_the_directory() {
    for (at, what) in [
        (30, "another name"),
        (8, "another method"),
        (14, "another size or checksum"),
    ] {
        let mut bundle = two();
        bundle[at] ^= 1;
        assert_refused(
            &bundle,
            "entry \"one\" is not the same to every reader: its own header ",
        );
        assert_refused(&bundle, what);
    }
    for at in [18, 22] {
        let mut bundle = two();
        bundle[at] ^= 1;
        assert_refused(&bundle, "its own header names another size or checksum");
    }
    // A data descriptor is one of the headers.
    let described = zip_of(&[Zip {
        flags: 8,
        ..Zip::file("one", "1")
    }]);
    Host::new()
        .unpack(BundleType::Zip, &described, &Limits::default())
        .unwrap();
    let mut open = described;
    open[14..26].fill(0);
    assert_refused(&open, "what describes its content behind it");
}

#[test]
fn nothing_beside_the_entries_looks_like_one() {
    let hidden = Zip::file("hidden", "x");
    let other = zip_of(std::slice::from_ref(&hidden));
    assert_refused(
        &[two(), other.clone()].concat(),
        "what another reader would take for one",
    );
    assert_refused(
        &[&other[..other.len() - END], &two()].concat(),
        "what another reader would take for one",
    );
    let behind = [two(), other[..40].to_vec()].concat();
    assert_refused(&behind, "what another reader would take for entries");

    // An entry missing from the directory, between two that it lists.
    let three = zip_of(&[Zip::file("one", "1"), hidden, Zip::file("two", "2")]);
    let start = position(&three, b"PK\x01\x02", 1);
    let end = position(&three, b"PK\x01\x02", 2);
    let mut bundle = [&three[..start], &three[end..]].concat();
    let record = bundle.len() - END;
    for at in [8, 10] {
        bundle[record + at] -= 1;
    }
    bundle[record + 12] -= u8::try_from(end - start).unwrap();
    assert_refused(&bundle, "what another reader would take for one");
}

#[test]
fn no_two_entries_share_bytes() {
    let mut bundle = two();
    let first = position(&bundle, b"PK\x01\x02", 0);
    let second = position(&bundle, b"PK\x01\x02", 1);
    let entry = bundle[first..second].to_vec();
    let end = bundle.len() - END;
    // Both entries are the first one; only the name differs.
    bundle.splice(second..end, entry);
    assert_refused(&bundle, "of that name");
}

#[test]
fn content_holds_nothing_behind_its_end() {
    let mut packed = vec![1, 1, 0, 0xfe, 0xff, b'x'];
    packed.extend_from_slice(b"behind");
    let host = Host::new();
    let bundle = zip_of(&[Zip {
        packed: Some(packed),
        ..Zip::file("a", "x")
    }]);
    let error = host
        .unpack(BundleType::Zip, &bundle, &Limits::default())
        .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("bytes follow its compressed content"),
        "{error}: {source}"
    );
}
