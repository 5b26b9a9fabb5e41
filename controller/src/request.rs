//! The requirements of operations for their input, as tables: each request lists its members in the
//! order of AWS's model, with the type that defines the check of each.
//!
//! Only [`Request::check`] makes a request: it first looks for all missing members and then checks
//! the format of each, with AWS's errors. The operation checks everything that depends on other
//! members or on stored data. The requests are in one file per subject; [`members`] has the types
//! of shared members.

mod controller;
mod deployments;
mod fleet;
pub mod members;
mod options;
mod registry;
mod revisions;
mod settings;
mod subject;
mod tags;

pub use controller::*;
pub use deployments::*;
pub use fleet::*;
pub use registry::*;
pub use settings::{GroupSettings, Settings};
pub(crate) use settings::{References, Trigger};
pub use subject::Subject;
pub use tags::*;

use crate::error::{ApiError, ErrorName};

/// The checked input of an operation.
pub trait Request: Sized {
    /// The shape on the wire.
    type Input: serde::de::DeserializeOwned;

    fn check(input: Self::Input) -> Result<Self, ApiError>;

    /// The names in the request, unless the log reports it in another way, or not at all.
    fn subject(&self) -> Option<Subject> {
        None
    }

    /// The names in the request, for the record of the change.
    fn recorded(&self) -> Subject {
        self.subject().unwrap_or_default()
    }
}

/// A member of a request after its check.
pub trait Member: Sized {
    /// Its form on the wire.
    type Raw;

    /// Its name in messages.
    const WHAT: &'static str = "value";

    /// The error if this required member is missing.
    fn missing() -> ApiError {
        ErrorName::InvalidInput.because("A required member is missing.")
    }

    /// Whether a value counts as set; an empty text or list does not.
    fn is_given(_: &Self::Raw) -> bool {
        true
    }

    fn check(raw: Self::Raw) -> Result<Self, ApiError>;
}

/// A member with its presence rule: a [`Member`] is required, an `Option` of one is not.
pub trait Field: Sized {
    type Raw;

    /// Rejects the absence of a required member.
    fn demand(raw: &Option<Self::Raw>) -> Result<(), ApiError>;

    fn read(raw: Option<Self::Raw>) -> Result<Self, ApiError>;
}

impl<M: Member> Field for M {
    type Raw = M::Raw;

    fn demand(raw: &Option<M::Raw>) -> Result<(), ApiError> {
        if raw.as_ref().is_some_and(M::is_given) {
            Ok(())
        } else {
            Err(M::missing())
        }
    }

    fn read(raw: Option<M::Raw>) -> Result<Self, ApiError> {
        Self::demand(&raw)?;
        raw.map_or_else(|| Err(M::missing()), M::check)
    }
}

impl<M: Member> Field for Option<M> {
    type Raw = M::Raw;

    fn demand(_: &Option<M::Raw>) -> Result<(), ApiError> {
        Ok(())
    }

    fn read(raw: Option<M::Raw>) -> Result<Self, ApiError> {
        raw.map(M::check).transpose()
    }
}

/// Requests: `name(shape on the wire) { member: its type after the check, }`.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident($input:ident) { $($member:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $(pub $member: $type,)*
        }

        impl $crate::request::Request for $name {
            type Input = $input;

            fn check(input: Self::Input) -> Result<Self, $crate::error::ApiError> {
                $(<$type as $crate::request::Field>::demand(&input.$member)?;)*
                Ok($name { $($member: $crate::request::Field::read(input.$member)?,)* })
            }

            #[allow(unused_mut, reason = "some requests name nothing")]
            fn subject(&self) -> Option<$crate::request::Subject> {
                let mut subject = $crate::request::Subject::default();
                $($crate::request::subject::name!(subject, $member, self.$member);)*
                Some(subject)
            }
        }
    )*};
}

use requests;
