//! CBOR (RFC 8949) in RPC v2's form, between shapes and bytes. `minicbor` reads and writes items,
//! serde the shapes; this module maps items to shapes.
//!
//! A structure is a map of its members; a [`Timestamp`](codedeploy_api::codedeploy::Timestamp),
//! recognised by its type, is a number of seconds with tag 1. Lengths are read in definite and
//! indefinite form, and written as definite. A claimed length never allocates memory, and depth and
//! number of items are bounded.

mod reader;
mod writer;

use std::convert::Infallible;

use minicbor::data::{IanaTag, Tag};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A map without members.
pub(super) const EMPTY: &[u8] = &[0xa0];

/// The reason why bytes are not a shape, or a shape has no bytes. It is only displayed; and it is
/// small, because every read may return it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Error(Box<str>);

impl From<minicbor::decode::Error> for Error {
    fn from(error: minicbor::decode::Error) -> Self {
        Error(error.to_string().into())
    }
}

impl From<minicbor::encode::Error<Infallible>> for Error {
    fn from(error: minicbor::encode::Error<Infallible>) -> Self {
        Error(error.to_string().into())
    }
}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(what: T) -> Self {
        Error(what.to_string().into())
    }
}

impl serde::ser::Error for Error {
    fn custom<T: std::fmt::Display>(what: T) -> Self {
        Error(what.to_string().into())
    }
}

/// Reads `bytes`, which must be exactly one item.
pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut reader = reader::Reader::new(bytes);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| super::placed(&error));
    let read = read.and_then(|value| {
        reader
            .end()
            .map(|()| value)
            .map_err(|error| error.to_string())
    });
    read.map_err(|what| format!("{what}, before byte {}", reader.position()))
}

pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut writer = writer::Writer::default();
    value.serialize(&mut writer)?;
    Ok(writer.into_bytes())
}

/// The tag of a time.
fn time_tag() -> Tag {
    IanaTag::Timestamp.into()
}

#[cfg(test)]
mod tests {
    use codedeploy_api::codedeploy::*;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        from_slice(&bytes(text))
    }

    fn revisions() -> ListApplicationRevisionsInput {
        ListApplicationRevisionsInput {
            application_name: Some("shop".into()),
            ..Default::default()
        }
    }

    #[test]
    fn lengths_are_read_in_every_form_of_the_protocol_tests() {
        let name = "6f 6170706c69636174696f6e4e616d65";
        for body in [
            format!("a1 {name} 64 73686f70"),
            format!("bf {name} 64 73686f70 ff"),
            format!("b90001 {name} 7f 62 7368 60 62 6f70 ff"),
            "bf 7f 6b 6170706c69636174696f6e 64 4e616d65 ff 7804 73686f70 ff".into(),
        ] {
            assert_eq!(read(&body), Ok(revisions()), "{body}");
        }
    }

    #[test]
    fn null_absent_and_unknown_members_are_the_same() {
        let name = "6f 6170706c69636174696f6e4e616d65";
        let known = format!("{name} 64 73686f70");
        for unknown in [
            "f6",
            "f7",
            "c1 00",
            "c2 41 01",
            "f9 7e00",
            "40",
            "5f 41 00 ff",
            "9f a0 bf 60 80 ff ff",
            "d9d9f7 f4",
            "e0",
        ] {
            assert_eq!(
                read(&format!("bf {known} 61 78 {unknown} ff")),
                Ok(revisions()),
                "{unknown}"
            );
            assert_eq!(
                read(&format!("a2 61 78 {unknown} {known}")),
                Ok(revisions()),
                "{unknown}"
            );
            let input: CreateDeploymentGroupInput =
                read(&format!("a2 61 78 {unknown} {known}")).unwrap();
            assert_eq!(
                input.application_name,
                revisions().application_name,
                "{unknown}"
            );
        }
        for null in ["f6", "f7"] {
            assert_eq!(
                read(&format!("a1 {name} {null}")),
                Ok(ListApplicationRevisionsInput::default())
            );
        }
    }

    #[test]
    fn a_time_is_a_number_with_tag_1_in_any_width() {
        let range = |time: &str| read::<TimeRange>(&format!("a1 65 7374617274 {time}"));
        for (time, millis) in [
            ("c1 00", 0),
            ("c1 1a 5627e9e8", 1_445_456_360_000),
            ("c1 20", -1000),
            ("c1 f9 3e00", 1500),
            ("c1 fa 3fc00000", 1500),
            ("c1 fb 41d58b1c6f2d9168", 1_445_753_276_712),
            ("d90001 1b 000000005627e9e8", 1_445_456_360_000),
        ] {
            let range = range(time).unwrap_or_else(|error| panic!("{time}: {error}"));
            assert_eq!(range.start, Some(Timestamp::from_millis(millis)), "{time}");
        }
        for wrong in [
            "00",
            "fb 41d58b1c6f2d9168",
            "c0 00",
            "c1 61 30",
            "c1 f6",
            "c1 c1 00",
            "c1 f9 7e00",
            "c1 f9 7c00",
        ] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        assert!(
            read::<MinimumHealthyHosts>("a1 65 76616c7565 c1 01").is_err(),
            "a time is not a count"
        );
    }

    #[test]
    fn shapes_read_back_as_they_were_written() {
        let info = ApplicationInfo {
            application_name: Some("é".repeat(100)),
            create_time: Some(Timestamp::from_millis(1_446_744_188_711)),
            linked_to_git_hub: Some(false),
            ..Default::default()
        };
        let output = BatchGetApplicationsOutput {
            applications_info: Some(vec![info.clone(), info]),
        };
        assert_eq!(
            from_slice::<BatchGetApplicationsOutput>(&to_vec(&output).unwrap()).unwrap(),
            output
        );
        assert_eq!(to_vec(&Empty {}).unwrap(), EMPTY);
        for value in [0, 23, 24, -1, i64::MAX, i64::MIN] {
            let hosts = MinimumHealthyHosts {
                value: Some(value),
                ..Default::default()
            };
            assert_eq!(
                from_slice::<MinimumHealthyHosts>(&to_vec(&hosts).unwrap()).unwrap(),
                hosts
            );
        }
        for millis in 1_795_424_400_000..1_795_424_402_000 {
            let written = to_vec(&Timestamp::from_millis(millis)).unwrap();
            let seconds = f64::from_be_bytes(written[2..].try_into().unwrap());
            assert_eq!(
                (seconds.fract() * 1e9) as i64 / 1_000_000,
                millis % 1000,
                "{seconds}"
            );
            assert_eq!(from_slice::<Timestamp>(&written).unwrap().millis(), millis);
        }
        let time = TimeRange {
            start: Some(Timestamp::from_millis(1500)),
            end: None,
        };
        assert_eq!(
            hex::encode(to_vec(&time).unwrap()),
            "a1657374617274c1fb3ff8000000000000"
        );
    }

    #[test]
    fn what_is_not_the_shape_is_refused_and_nothing_is_believed() {
        let name = "6f 6170706c69636174696f6e4e616d65";
        for body in [
            "".into(),
            "80".into(),
            "81 64 73686f70".into(),
            "f6".into(),
            "c1 a0".into(),
            "a0 a0".into(),
            "bf".into(),
            "bf ff ff".into(),
            "ff".into(),
            "a1 00 00".into(),
            "a1 61 78 ff".into(),
            "bf 61 78 ff".into(),
            "bf 61 78 ff ff".into(),
            format!("a1 {name}"),
            format!("a1 {name} 01"),
            format!("a1 {name} 44 73686f70"),
            format!("a1 {name} c1 64 73686f70"),
            format!("a1 {name} 61 ff"),
            format!("a1 {name} 7f 7f 60 ff ff"),
            format!("a1 {name} 7b ffffffffffffffff"),
            format!("a2 {name} 60 {name} 60"),
            "bb ffffffffffffffff".into(),
            "a1 61 78 9b ffffffffffffffff 00".into(),
            "a1 61 78 1c".into(),
        ] {
            assert!(
                read::<ListApplicationRevisionsInput>(&body).is_err(),
                "{body}"
            );
        }
        let tags = "a1 64 74616773";
        for list in [
            "9b ffffffffffffffff",
            "9b 0000000100000000 a0",
            "81 f6",
            "a0",
            "81 81 60",
        ] {
            assert!(
                read::<CreateApplicationInput>(&format!("{tags} {list}")).is_err(),
                "{list}"
            );
        }
        // A role, in a shape that is part of another.
        for text in [
            "44 73686f70",
            "c1 64 73686f70",
            "e0",
            "3b ffffffffffffffff",
            "01",
        ] {
            let body = format!("a1 6e 73657276696365526f6c6541726e {text}");
            assert!(read::<CreateDeploymentGroupInput>(&body).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = |item: &str, count: usize| format!("a1 61 78 {}", item.repeat(count));
        for item in ["81", "9f", "a1 60", "bf 60", "c1", "81 9f"] {
            assert!(
                read::<CreateApplicationInput>(&deep(item, 200_000)).is_err(),
                "{item}"
            );
            assert!(
                read::<CreateDeploymentGroupInput>(&deep(item, 200_000)).is_err(),
                "{item}"
            );
        }
        assert!(read::<CreateDeploymentGroupInput>(&format!("{} 00", deep("81", 100))).is_ok());
        let many = format!("a1 64 74616773 9f {} ff", "a0".repeat(100_000));
        assert!(
            read::<CreateApplicationInput>(&many)
                .unwrap_err()
                .contains("65536")
        );
    }

    fn group() -> CreateDeploymentGroupInput {
        let filter = TagFilter {
            key: Some("env".into()),
            value: Some("prod".into()),
            ..Default::default()
        };
        let set = OnPremisesTagSet {
            on_premises_tag_set_list: Some(vec![vec![filter.clone()], vec![filter]]),
        };
        let settings = DeploymentGroupSettings {
            on_premises_tag_set: Some(set),
            ..Default::default()
        };
        CreateDeploymentGroupInput {
            application_name: Some("shop".into()),
            settings,
            ..Default::default()
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_reader(
            changes in proptest::collection::vec((proptest::prelude::any::<usize>(), 0u8..), 1..6),
            tail in proptest::collection::vec(0u8.., 0..4),
        ) {
            let mut body = to_vec(&group()).unwrap();
            let length = body.len();
            for (place, byte) in changes {
                body[place % length] = byte;
            }
            body.extend(tail);
            if let Ok(input) = from_slice::<CreateDeploymentGroupInput>(&body) {
                let written = to_vec(&input).unwrap();
                assert_eq!(from_slice::<CreateDeploymentGroupInput>(&written).unwrap(), input);
            }
        }
    }
}
