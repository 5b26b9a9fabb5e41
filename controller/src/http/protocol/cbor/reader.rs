//! Reads shapes from items.

use codedeploy_api::codedeploy::Timestamp;
use minicbor::Decoder;
use minicbor::data::Type;
use serde::de::{
    DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserializer, forward_to_deserialize_any};

use super::{Error, time_tag};

/// Most lists, maps and tags in each other, as many as `serde_json` takes. Shapes have fewer than ten.
const MAX_DEPTH: usize = 128;

/// Most items of a list or a map: an item of one byte may become a shape of hundreds. Operations take far fewer.
const MAX_ITEMS: usize = 65_536;

pub(super) struct Reader<'de> {
    items: Decoder<'de>,
    depth: usize,
}

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Reader { items: Decoder::new(bytes), depth: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.items.position()
    }

    /// Nothing comes after what was read.
    pub(super) fn end(&self) -> Result<(), Error> {
        if self.position() == self.items.input().len() {
            Ok(())
        } else {
            Err(Error::custom("there is more than one item"))
        }
    }

    /// Reads what is within an item.
    fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::custom(format_args!("there are more than {MAX_DEPTH} items in each other")));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn skip_byte(&mut self) {
        self.items.set_position(self.position() + 1);
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.items.datatype()? {
            Type::Bool => visitor.visit_bool(self.items.bool()?),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => visitor.visit_u64(self.items.u64()?),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => visitor.visit_i64(self.items.i64()?),
            Type::F16 | Type::F32 | Type::F64 => visitor.visit_f64(self.items.f64()?),
            Type::String => visitor.visit_borrowed_str(self.items.str()?),
            Type::StringIndef => visitor.visit_string(self.items.str_iter()?.collect::<Result<_, _>>()?),
            Type::Array | Type::ArrayIndef => {
                let length = self.items.array()?;
                self.within(|reader| visitor.visit_seq(Items::new(reader, length)))
            }
            Type::Map | Type::MapIndef => {
                let length = self.items.map()?;
                self.within(|reader| visitor.visit_map(Items::new(reader, length)))
            }
            Type::Null | Type::Undefined => {
                self.skip_byte();
                visitor.visit_unit()
            }
            // What a tag makes of an item is a value of its own, which the item alone is not.
            Type::Tag => {
                self.items.tag()?;
                self.within(|reader| visitor.visit_newtype_struct(reader))
            }
            // No shape is made of these; a member that nobody knows may be.
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

    /// A structure is a map; an array of its members is none.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.items.datatype()? {
            Type::Map | Type::MapIndef => self.deserialize_any(visitor),
            found => Err(unexpected(found, &visitor)),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// The next item is not one that `visitor` expects.
fn unexpected<'v, V: Visitor<'v>>(found: Type, visitor: &V) -> Error {
    Error::invalid_type(Unexpected::Other(&format!("CBOR {found}")), visitor)
}

/// The items of a list or a map, as they come.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    /// Absent: a break ends them.
    length: Option<u64>,
    taken: usize,
}

impl<'a, 'de> Items<'a, 'de> {
    fn new(reader: &'a mut Reader<'de>, length: Option<u64>) -> Self {
        Items { reader, length, taken: 0 }
    }

    fn next<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        match &mut self.length {
            Some(0) => return Ok(None),
            Some(left) => *left -= 1,
            None if self.reader.items.datatype()? == Type::Break => {
                self.reader.skip_byte();
                return Ok(None);
            }
            None => {}
        }
        if self.taken == MAX_ITEMS {
            return Err(Error::custom(format_args!(
                "there are more than {MAX_ITEMS} items in a list or a map"
            )));
        }
        self.taken += 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

// Neither has a `size_hint`: a length that is claimed is no reason to make room.
impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next(seed)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
}
