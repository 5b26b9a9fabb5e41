//! Reads shapes from items. What is read is led by the shape; the depth of shapes bounds the recursion.

use codedeploy_api::codedeploy::Timestamp;
use minicbor::Decoder;
use minicbor::data::Type;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::{Error, time_tag};

/// Most items of a list or a map: an item of one byte may become a shape of hundreds. Operations take far fewer.
const MAX_ITEMS: usize = 65_536;

pub(super) struct Reader<'de>(Decoder<'de>);

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Reader(Decoder::new(bytes))
    }

    pub(super) fn position(&self) -> usize {
        self.0.position()
    }

    /// Nothing comes after what was read.
    pub(super) fn end(&self) -> Result<(), Error> {
        if self.position() == self.0.input().len() {
            Ok(())
        } else {
            Err(Error::custom("there is more than one item"))
        }
    }

    /// The next item is not what `visitor` expects.
    fn refuse<'v, V: Visitor<'v>>(&self, found: Type, visitor: &V) -> Error {
        Error::invalid_type(Unexpected::Other(&format!("CBOR {found}")), visitor)
    }

    fn byte(&mut self) {
        self.0.set_position(self.position() + 1);
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.datatype()? {
            Type::Bool => visitor.visit_bool(self.0.bool()?),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => visitor.visit_u64(self.0.u64()?),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => visitor.visit_i64(self.0.i64()?),
            Type::F16 | Type::F32 | Type::F64 => visitor.visit_f64(self.0.f64()?),
            Type::String => visitor.visit_borrowed_str(self.0.str()?),
            Type::StringIndef => visitor.visit_string(self.0.str_iter()?.collect::<Result<_, _>>()?),
            Type::Array | Type::ArrayIndef => {
                let length = self.0.array()?;
                visitor.visit_seq(Items::new(self, length))
            }
            Type::Map | Type::MapIndef => {
                let length = self.0.map()?;
                visitor.visit_map(Items::new(self, length))
            }
            other => Err(self.refuse(other, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.datatype()? {
            Type::Null | Type::Undefined => {
                self.byte();
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
            match self.0.datatype()? {
                Type::Tag if self.0.probe().tag()? == time_tag() => self.0.tag()?,
                other => return Err(self.refuse(other, &visitor)),
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
        match self.0.datatype()? {
            Type::Map | Type::MapIndef => self.deserialize_any(visitor),
            other => Err(self.refuse(other, &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.datatype()? {
            // The end of what holds it, where an item should be.
            Type::Break => return Err(self.refuse(Type::Break, &visitor)),
            _ => self.0.skip()?,
        }
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier
    }
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
            None if self.reader.0.datatype()? == Type::Break => {
                self.reader.byte();
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
