//! Identity tokens: a CI system or another issuer signs the identity of a job or of a person, and
//! the settings name the issuers that are trusted (OpenID Connect Core, ID Token).
//!
//! 1. [`IdentityProviders::provider_of`] reads a token and finds its issuer in the settings.
//! 2. [`IdentityProvider::verify`] checks its signature with the issuer's keys, its times and its
//!    audience. Its claims are those of an [`Identity`] then.
//!
//! The signature comes first: a claim is compared only once the issuer is known to have written it.
//!
//! People get their tokens by logging in at an issuer: [`CodeFlow`].

mod code_flow;
mod discovery;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod key_set;
mod published_keys;
mod token;

use std::sync::Arc;

use codedeploy_api::codedeploy::Timestamp;
use serde_json::{Map, Value};

use crate::config::identity_providers::Provider;
use crate::error::chain;
use crate::outgoing::Outgoing;
pub use code_flow::{Attempt, CodeFlow, LoginError, Person};
pub use published_keys::KeysError;
use published_keys::PublishedKeys;
pub use token::{Token, TokenError};

/// The issuers in the settings, with their keys.
#[derive(Debug, Default)]
pub struct IdentityProviders(Vec<IdentityProvider>);

/// An issuer whose tokens are accepted.
#[derive(Debug)]
pub struct IdentityProvider {
    pub settings: Provider,
    keys: Arc<PublishedKeys>,
}

/// The verified content of a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    pub subject: String,
    /// The accepted audience.
    pub audience: String,
    pub claims: Map<String, Value>,
}

impl IdentityProviders {
    /// Reads the key files; keys at URLs are fetched when they are needed.
    pub fn open(settings: &[Provider]) -> Result<Self, KeysError> {
        let open = |settings: &Provider| {
            Ok(IdentityProvider {
                keys: Arc::new(PublishedKeys::open(&settings.keys)?),
                settings: settings.clone(),
            })
        };
        settings
            .iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether there is no provider.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The provider that a token claims to be of.
    pub fn provider_of(&self, token: &Token) -> Result<&IdentityProvider, TokenError> {
        let issuer = token.issuer()?;
        self.0
            .iter()
            .find(|provider| provider.settings.issuer == issuer)
            .ok_or_else(|| TokenError::Issuer(issuer.to_owned()))
    }
}

impl IdentityProvider {
    /// Verifies a token of this issuer for one of `audiences`.
    pub async fn verify(
        &self,
        outgoing: &Arc<Outgoing>,
        token: &Token,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Identity, TokenError> {
        let keys = self.keys.current(outgoing).await?;
        match token.verify_signature(&keys) {
            Ok(()) => {}
            Err(TokenError::UnknownKey(_)) => {
                // The issuer may have published a new key.
                let keys = self.keys.newer(outgoing, &keys).await?;
                token.verify_signature(&keys)?;
            }
            Err(error) => return Err(error),
        }
        token.check_times(now)?;
        let audience = token.audience(audiences)?.to_owned();
        Ok(Identity {
            subject: token.subject()?.to_owned(),
            audience,
            claims: token.claims().clone(),
        })
    }
}

impl From<KeysError> for TokenError {
    fn from(error: KeysError) -> Self {
        TokenError::Keys(chain(&error))
    }
}
