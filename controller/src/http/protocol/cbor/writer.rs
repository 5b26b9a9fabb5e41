//! Writes shapes as items: maps, lists, texts, numbers, booleans and times, of which all shapes
//! consist.

use codedeploy_api::codedeploy::Timestamp;
use minicbor::Encoder;
use serde::Serializer;
use serde::ser::{Error as _, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct};

use super::{Error, time_tag};

pub(super) struct Writer(Encoder<Vec<u8>>);

impl Default for Writer {
    fn default() -> Self {
        Writer(Encoder::new(Vec::new()))
    }
}

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_writer()
    }
}

/// No shape of the API consists of this.
fn foreign<T>(what: &str) -> Result<T, Error> {
    Err(Error::custom(format_args!(
        "{what} has no form in RPC v2 CBOR"
    )))
}

/// Writers of scalars: serde's method, its type, and the encoder's method.
macro_rules! scalars {
    ($($name:ident($type:ty) => $item:ident,)*) => {$(
        fn $name(self, value: $type) -> Result<(), Error> {
            self.0.$item(value.into())?;
            Ok(())
        }
    )*};
}

impl<'a> Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    scalars! {
        serialize_bool(bool) => bool,
        serialize_i8(i8) => i64,
        serialize_i16(i16) => i64,
        serialize_i32(i32) => i64,
        serialize_i64(i64) => i64,
        serialize_u8(u8) => u64,
        serialize_u16(u16) => u64,
        serialize_u32(u32) => u64,
        serialize_u64(u64) => u64,
        serialize_f32(f32) => f64,
        serialize_f64(f64) => f64,
        serialize_str(&str) => str,
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.0.bytes(value)?;
        Ok(())
    }

    /// Absent members are not written; other absent values have no form.
    fn serialize_none(self) -> Result<(), Error> {
        self.0.null()?;
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        if name == Timestamp::TYPE {
            self.0.tag(time_tag())?;
        }
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items<'a>, Error> {
        match length {
            Some(length) => self.0.array(length as u64)?,
            None => self.0.begin_array()?,
        };
        Ok(Items {
            writer: self,
            open: length.is_none(),
        })
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Items<'a>, Error> {
        match length {
            Some(length) => self.0.map(length as u64)?,
            None => self.0.begin_map()?,
        };
        Ok(Items {
            writer: self,
            open: length.is_none(),
        })
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Items<'a>, Error> {
        self.serialize_map(Some(length))
    }

    fn serialize_unit(self) -> Result<(), Error> {
        foreign("nothing")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), Error> {
        foreign(name)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Error> {
        foreign(name)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        foreign(name)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        foreign("a tuple")
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        foreign(name)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        foreign(name)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        foreign(name)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// A list or a map that is being written.
pub(super) struct Items<'a> {
    writer: &'a mut Writer,
    /// Its length was unknown, so a break ends it.
    open: bool,
}

impl Items<'_> {
    fn close(self) -> Result<(), Error> {
        if self.open {
            self.writer.0.end()?;
        }
        Ok(())
    }
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

impl SerializeMap for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        key.serialize(&mut *self.writer)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

impl SerializeStruct for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        name.serialize(&mut *self.writer)?;
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}
