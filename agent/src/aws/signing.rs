//! Signs requests with SigV4 and the agent's only source of credentials.

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::auth::{SigV4OperationSigningConfig, SigningOptions};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::identity::SharedIdentityResolver;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::config_bag::Layer;
use aws_types::SigningName;
use aws_types::region::{Region, SigningRegion};

use super::credentials::Credentials;

/// A service as signatures name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) service: &'static str,
    pub(crate) region: String,
    pub(crate) paths: Paths,
}

/// The form in which paths are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paths {
    /// Normalised, and encoded once more.
    Encoded,
    /// As they are sent: keys of objects may contain `//` and `..`.
    AsSent,
}

/// The part of an operation that signs its requests.
pub(crate) fn signing(credentials: &Credentials, scope: &Scope) -> StaticRuntimePlugin {
    let mut options = SigningOptions::default();
    options.double_uri_encode = scope.paths == Paths::Encoded;
    options.normalize_uri_path = scope.paths == Paths::Encoded;
    options.content_sha256_header = true;
    let mut layer = Layer::new("signing");
    layer.store_put(SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(Region::new(scope.region.clone()))),
        region_set: None,
        name: Some(SigningName::from_static(scope.service)),
        signing_options: options,
    });
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    let mut components = RuntimeComponentsBuilder::new("signing");
    components.push_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()));
    components.set_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(
        StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]),
    )));
    let provider = SharedCredentialsProvider::new(credentials.clone());
    components.set_identity_resolver(SCHEME_ID, SharedIdentityResolver::new(provider));
    // The credentials manage their expiry themselves.
    components.set_identity_cache(Some(IdentityCache::no_cache()));
    StaticRuntimePlugin::new()
        .with_config(layer.freeze())
        .with_runtime_components(components)
}
