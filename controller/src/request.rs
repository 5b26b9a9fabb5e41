//! What operations demand of their input, as tables: each request lists its members in the order of AWS's model, with the
//! type that says what is checked of each.
//!
//! A request is only made by [`Request::check`], which looks first for all members that must be there and then at the
//! form of each, and names a refusal as AWS does. What depends on other members or on what is stored is left to the
//! operation. The requests are in one file per subject; [`members`] has the types that their members share.

mod deployments;
mod fleet;
pub mod members;
mod options;
mod registry;
mod revisions;
mod settings;
mod subject;
mod tags;

pub use deployments::*;
pub use fleet::*;
pub use registry::*;
pub use settings::{GroupSettings, Settings};
pub(crate) use settings::{References, Trigger};
pub use subject::Subject;
pub use tags::*;

use crate::error::{ApiError, ErrorName};

/// The input of an operation, checked.
pub trait Request: Sized {
    /// The shape that crosses the wire.
    type Input: serde::de::DeserializeOwned;

    fn check(input: Self::Input) -> Result<Self, ApiError>;

    /// The names that it gives, unless the log tells of it in another way, or not at all.
    fn subject(&self) -> Option<Subject> {
        None
    }
}

/// What a member of a request is once it was checked.
pub trait Member: Sized {
    /// Its form on the wire.
    type Raw;

    /// What it is called in messages.
    const WHAT: &'static str = "value";

    /// The refusal of a request that does not give this member and must.
    fn missing() -> ApiError {
        ErrorName::InvalidInput.because("A required member is missing.")
    }

    /// Whether a value says anything; a text or a list that is empty does not.
    fn is_given(_: &Self::Raw) -> bool {
        true
    }

    fn check(raw: Self::Raw) -> Result<Self, ApiError>;
}

/// A member together with whether it must be there: a [`Member`] must, an `Option` of one need not.
pub trait Field: Sized {
    type Raw;

    /// Refuses the absence of a member that must be there.
    fn demand(raw: &Option<Self::Raw>) -> Result<(), ApiError>;

    fn read(raw: Option<Self::Raw>) -> Result<Self, ApiError>;
}

impl<M: Member> Field for M {
    type Raw = M::Raw;

    fn demand(raw: &Option<M::Raw>) -> Result<(), ApiError> {
        if raw.as_ref().is_some_and(M::is_given) { Ok(()) } else { Err(M::missing()) }
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

/// Requests: `name(shape on the wire) { member: what it is once checked, }`.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident($input:ident) { $($member:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $(pub $member: $type,)*
        }

        impl $crate::request::Request for $name {
            type Input = codedeploy_api::codedeploy::$input;

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
