//! Reads structures from objects only. Derived code alone would also accept a list of values, in
//! the order in which the members are declared.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A type that is read from an object; [`objects`] implements it.
pub(crate) trait Object<'de>: Sized {
    fn from_members<D: Deserializer<'de>>(members: D) -> Result<Self, D::Error>;
}

/// Reads an object and rejects any other form.
pub(crate) fn read<'de, T: Object<'de>, D: Deserializer<'de>>(object: D) -> Result<T, D::Error> {
    struct Reader<T>(PhantomData<T>);

    impl<'de, T: Object<'de>> Visitor<'de> for Reader<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::from_members(MapAccessDeserializer::new(members))
        }
    }

    object.deserialize_map(Reader(PhantomData))
}

/// Lets structures that derive `Serialize` and `Deserialize` with `#[serde(remote = "Self")]` be
/// read from objects only.
macro_rules! objects {
    ($($name:ident)*) => {$(
        impl<'de> $crate::object::Object<'de> for $name {
            fn from_members<D: serde::Deserializer<'de>>(members: D) -> Result<Self, D::Error> {
                $name::deserialize(members)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(object: D) -> Result<Self, D::Error> {
                $crate::object::read(object)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $name::serialize(self, serializer)
            }
        }
    )*};
}

pub(crate) use objects;

/// Null counts as absent, as everywhere in the protocols.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}
