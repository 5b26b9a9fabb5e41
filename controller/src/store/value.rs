//! The values of statements and rows, independent of the engine: integers, texts and bytes.

use std::borrow::Cow;

use codedeploy_api::codedeploy::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SqlError;

/// A value on its way into a statement or out of a row. It is borrowed if possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    /// Booleans are 0 and 1, times are milliseconds since the epoch.
    Integer(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

/// Converts into a value of a statement.
pub trait ToValue {
    fn to_value(&self) -> Result<Value<'_>, SqlError>;
}

/// Converts from a column.
pub trait FromValue: Sized {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable>;
}

/// The reason why a value does not have the expected type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub(crate) String);

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Integer(_) => "an integer",
            Value::Text(_) => "a text",
            Value::Bytes(_) => "bytes",
        }
    }

    fn unlike(&self, expected: &str) -> Unreadable {
        Unreadable(format!("found {}, expected {expected}", self.kind()))
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        self.as_ref().map_or(Ok(Value::Null), T::to_value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
        if value == Value::Null {
            Ok(None)
        } else {
            T::from_value(value).map(Some)
        }
    }
}

impl ToValue for str {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        Ok(Value::Text(self.into()))
    }
}

impl ToValue for String {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        self.as_str().to_value()
    }
}

impl FromValue for String {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
        match value {
            Value::Text(text) => Ok(text.into_owned()),
            other => Err(other.unlike("a text")),
        }
    }
}

impl ToValue for [u8] {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        Ok(Value::Bytes(self.into()))
    }
}

impl ToValue for Vec<u8> {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        self.as_slice().to_value()
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
        match value {
            Value::Bytes(bytes) => Ok(bytes.into_owned()),
            other => Err(other.unlike("bytes")),
        }
    }
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl ToValue for $integer {
            fn to_value(&self) -> Result<Value<'_>, SqlError> {
                i64::try_from(*self).map(Value::Integer).map_err(|_| SqlError::TooLarge)
            }
        }

        impl FromValue for $integer {
            fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
                match value {
                    Value::Integer(number) => Self::try_from(number)
                        .map_err(|_| Unreadable(format!("the number {number} is out of range"))),
                    other => Err(other.unlike("an integer")),
                }
            }
        }
    )*};
}

integers! { i64 u32 usize }

impl ToValue for bool {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        Ok(Value::Integer((*self).into()))
    }
}

impl FromValue for bool {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
        i64::from_value(value).map(|number| number != 0)
    }
}

impl ToValue for Timestamp {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        Ok(Value::Integer(self.millis()))
    }
}

impl FromValue for Timestamp {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
        i64::from_value(value).map(Timestamp::from_millis)
    }
}

/// A value stored as JSON in a text column.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: Serialize> ToValue for Json<T> {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        serde_json::to_string(&self.0)
            .map(|text| Value::Text(text.into()))
            .map_err(SqlError::Json)
    }
}

impl<T: DeserializeOwned> FromValue for Json<T> {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
        match value {
            Value::Text(text) => serde_json::from_str(&text)
                .map(Json)
                .map_err(|error| Unreadable(error.to_string())),
            other => Err(other.unlike("JSON")),
        }
    }
}
