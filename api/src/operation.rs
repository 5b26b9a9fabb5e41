//! Operations of AWS JSON 1.1, as their callers see them.

use serde::{Deserialize, Serialize};

/// An operation that an agent calls: its name, input and output.
pub trait Operation: Serialize {
    const NAME: &'static str;
    /// Whether the service may send a response without a body, because the output is empty.
    const MAY_BE_EMPTY: bool = false;
    type Output: for<'de> Deserialize<'de> + Send + 'static;
}

macro_rules! operations {
    ($($name:literal: $input:ty => $output:ty $(, $may_be_empty:ident)?;)*) => {
        $(impl $crate::operation::Operation for $input {
            const NAME: &'static str = $name;
            $(const MAY_BE_EMPTY: bool = stringify!($may_be_empty).len() > 0;)?
            type Output = $output;
        })*
    };
}

pub(crate) use operations;
