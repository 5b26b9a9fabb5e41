//! Reads shapes from items.

use std::borrow::Cow;

use codedeploy_api::codedeploy::Timestamp;
use minicbor::Decoder;
use minicbor::data::Type;
use serde::de::{
    DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserializer, forward_to_deserialize_any};

use super::{Error, time_tag};

/// The deepest nesting of lists, maps and tags, as in `serde_json`. Shapes have fewer than ten
/// levels.
const MAX_DEPTH: usize = 128;

/// The largest number of items in a list or a map: an item of one byte may become a shape of
/// hundreds. Operations accept far fewer.
const MAX_ITEMS: usize = 65_536;

pub(super) struct Reader<'de> {
    items: Decoder<'de>,
    depth: usize,
}

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Reader {
            items: Decoder::new(bytes),
            depth: 0,
        }
    }

    pub(super) fn position(&self) -> usize {
        self.items.position()
    }

    /// Checks that nothing follows.
    pub(super) fn end(&self) -> Result<(), Error> {
        if self.position() == self.items.input().len() {
            Ok(())
        } else {
            Err(Error::custom("there is more than one item"))
        }
    }

    /// Enters an item, until [`leave`](Self::leave).
    fn enter(&mut self) -> Result<(), Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::custom(format_args!(
                "there are more than {MAX_DEPTH} items in each other"
            )));
        }
        self.depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }

    fn text(&mut self) -> Result<Cow<'de, str>, Error> {
        match self.items.datatype()? {
            Type::StringIndef => Ok(Cow::Owned(
                self.items.str_iter()?.collect::<Result<_, _>>()?,
            )),
            _ => Ok(Cow::Borrowed(self.items.str()?)),
        }
    }

    /// A number without a fraction may have the form of an integer.
    fn number(&mut self) -> Result<f64, Error> {
        match self.items.datatype()? {
            Type::F16 | Type::F32 | Type::F64 => Ok(self.items.f64()?),
            _ => Ok(self.items.i64()? as f64),
        }
    }

    fn skip_byte(&mut self) {
        self.items.set_position(self.position() + 1);
    }
}

/// Readers of scalars: serde's method, the item, and serde's visitor method.
macro_rules! scalars {
    ($($($name:ident)* => $item:ident, $visit:ident;)*) => {$($(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.items.$item()?)
        }
    )*)*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    scalars! {
        deserialize_bool => bool, visit_bool;
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 => i64, visit_i64;
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 => u64, visit_u64;
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.number()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(&self.text()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let length = self.items.array()?;
        self.enter()?;
        let list = visitor.visit_seq(Items::new(self, length))?;
        self.leave();
        Ok(list)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let length = self.items.map()?;
        self.enter()?;
        let map = visitor.visit_map(Items::new(self, length))?;
        self.leave();
        Ok(map)
    }

    /// A structure is a map, never an array of its members.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    /// Reads a value without an expected type: unknown members, and members of a shape that is part
    /// of another.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.items.datatype()? {
            Type::Bool => self.deserialize_bool(visitor),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.deserialize_u64(visitor),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => self.deserialize_i64(visitor),
            Type::F16 | Type::F32 | Type::F64 => self.deserialize_f64(visitor),
            Type::String | Type::StringIndef => self.deserialize_str(visitor),
            Type::Array | Type::ArrayIndef => self.deserialize_seq(visitor),
            Type::Map | Type::MapIndef => self.deserialize_map(visitor),
            Type::Null | Type::Undefined => {
                self.skip_byte();
                visitor.visit_unit()
            }
            // A tagged item is not equal to the item alone.
            Type::Tag => {
                self.items.tag()?;
                self.enter()?;
                let tagged = visitor.visit_newtype_struct(&mut *self)?;
                self.leave();
                Ok(tagged)
            }
            // No shape consists of these.
            Type::Bytes | Type::BytesIndef | Type::Int | Type::Simple => {
                self.items.skip()?;
                visitor.visit_newtype_struct(().into_deserializer())
            }
            found @ (Type::Break | Type::Unknown(_)) => Err(unexpected(found, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.items.datatype()? {
            Type::Null | Type::Undefined => {
                self.skip_byte();
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == Timestamp::TYPE {
            match self.items.datatype()? {
                Type::Tag if self.items.probe().tag()? == time_tag() => self.items.tag()?,
                found => return Err(unexpected(found, &visitor)),
            };
        }
        visitor.visit_newtype_struct(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum ignored_any
    }
}

/// The error if the next item is not one that `visitor` expects.
fn unexpected<'v, V: Visitor<'v>>(found: Type, visitor: &V) -> Error {
    Error::invalid_type(Unexpected::Other(&format!("CBOR {found}")), visitor)
}

/// The items of a list or a map.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    /// Absent: a break ends them.
    length: Option<u64>,
    taken: usize,
}

impl<'a, 'de> Items<'a, 'de> {
    fn new(reader: &'a mut Reader<'de>, length: Option<u64>) -> Self {
        Items {
            reader,
            length,
            taken: 0,
        }
    }

    fn is_over(&mut self) -> Result<bool, Error> {
        match &mut self.length {
            Some(0) => return Ok(true),
            Some(left) => *left -= 1,
            None if self.reader.items.datatype()? == Type::Break => {
                self.reader.skip_byte();
                return Ok(true);
            }
            None => {}
        }
        self.taken += 1;
        if self.taken > MAX_ITEMS {
            return Err(Error::custom(format_args!(
                "there are more than {MAX_ITEMS} items in a list or a map"
            )));
        }
        Ok(false)
    }

    fn next<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.is_over()? {
            Ok(None)
        } else {
            seed.deserialize(&mut *self.reader).map(Some)
        }
    }
}

// Neither has a `size_hint`, because a claimed length must not allocate memory.
impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.next(seed)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.next(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
}
