//! The issuers of identity tokens that the service trusts, and the roles that their tokens assume.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::credentials::{Role, Scope};

/// The audience of tokens for AWS's STS, which CI systems ask for by default.
const DEFAULT_AUDIENCE: &str = "sts.amazonaws.com";

/// An issuer of identity tokens.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The name in the settings.
    pub name: String,
    /// The claim `iss` of its tokens.
    pub issuer: String,
    /// The accepted values of the claim `aud`, at least one.
    pub audiences: Vec<String>,
    pub keys: KeySource,
    /// The roles that its tokens assume, by the names in their ARNs.
    pub roles: BTreeMap<String, AssumableRole>,
}

/// The place of an issuer's public keys, a JSON Web Key Set.
#[derive(Debug, Clone)]
pub enum KeySource {
    Url(String),
    File(PathBuf),
}

/// The rights of a role, and the tokens that may assume it.
#[derive(Debug, Clone)]
pub struct AssumableRole {
    pub role: Role,
    /// The parts of the fleet that it is for; empty for the whole fleet.
    pub scopes: Vec<Scope>,
    /// Every one of these claims must match one of its patterns.
    claims: BTreeMap<String, Vec<Pattern>>,
}

impl AssumableRole {
    /// Returns the first claim that does not match, if there is one. An e-mail address that the
    /// issuer has not verified matches nothing: its user may have chosen it.
    pub fn mismatch<'a>(&'a self, claims: &Map<String, Value>) -> Option<&'a str> {
        if self.claims.contains_key(EMAIL) && is_unverified(claims) {
            return Some(EMAIL_VERIFIED);
        }
        let matches = |(name, patterns): &(&String, &Vec<Pattern>)| {
            claims
                .get(name.as_str())
                .is_some_and(|value| patterns.iter().any(|pattern| pattern.matches_value(value)))
        };
        let mut claims = self.claims.iter();
        claims
            .find(|claim| !matches(claim))
            .map(|(name, _)| name.as_str())
    }
}

const EMAIL: &str = "email";
const EMAIL_VERIFIED: &str = "email_verified";

/// Whether an issuer reports that it has not verified the e-mail address of a user. Some issuers
/// write truth values as texts.
pub(crate) fn is_unverified(claims: &Map<String, Value>) -> bool {
    claims.get(EMAIL_VERIFIED).is_some_and(|value| {
        let is_true = value.as_bool() == Some(true)
            || value
                .as_str()
                .is_some_and(|text| text.eq_ignore_ascii_case("true"));
        !is_true
    })
}

/// A text in which `*` stands for any characters, also none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
struct Pattern(String);

impl Pattern {
    /// Whether it matches a claim: a text, a number, a truth value, or one of a list of them.
    fn matches_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.matches(text),
            Value::Bool(_) | Value::Number(_) => self.matches(&value.to_string()),
            Value::Array(values) => values
                .iter()
                .any(|value| !value.is_array() && self.matches_value(value)),
            Value::Null | Value::Object(_) => false,
        }
    }

    fn matches(&self, text: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = text
            .strip_prefix(start)
            .and_then(|text| text.strip_suffix(end));
        let Some(mut inner) = inner else {
            return false;
        };
        // The first place of each part leaves the most text for the parts after it.
        for part in middle.split('*') {
            match inner.find(part) {
                Some(at) => inner = inner.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }

    /// Whether it matches every text.
    fn is_anything(&self) -> bool {
        self.0.chars().all(|c| c == '*')
    }
}

/// The section of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct FileProviders(BTreeMap<String, FileProvider>);

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "keys such as issuer, jwks_url and roles"
)]
struct FileProvider {
    issuer: String,
    audience: Option<OneOrMore<String>>,
    jwks_url: Option<String>,
    jwks_file: Option<PathBuf>,
    #[serde(default)]
    roles: BTreeMap<String, FileRole>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as role and claims")]
struct FileRole {
    role: Grant,
    claims: BTreeMap<String, OneOrMore<Pattern>>,
    #[serde(default)]
    applications: Vec<String>,
    #[serde(default)]
    deployment_groups: Vec<String>,
}

/// The roles that tokens can be given; hosts have keys of their own.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Grant {
    Operator,
    ReadOnly,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn into_list(self) -> Vec<T> {
        match self {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(list) => list,
        }
    }
}

/// A mistake in these settings.
#[derive(Debug, thiserror::Error)]
pub enum IdentityProvidersError {
    #[error(
        "identity_providers.{provider}.{key} is {url:?}: expected an https:// address, or http:// on a loopback address"
    )]
    Url {
        provider: String,
        key: &'static str,
        url: String,
    },
    #[error("identity_providers.{0} needs one of jwks_url and jwks_file")]
    Keys(String),
    #[error("identity_providers.{provider}.jwks_file is {}: expected an absolute path", path.display())]
    Relative { provider: String, path: PathBuf },
    #[error("identity_providers.{0}.audience is empty: expected the `aud` of its tokens")]
    Audience(String),
    #[error(
        "identity_providers.{first} and .{second} have the same issuer: put their roles below one of them"
    )]
    SameIssuer { first: String, second: String },
    #[error(
        "identity_providers.{provider}.roles has {name:?}: expected 1 to 64 letters, digits and the characters +=,.@_-"
    )]
    Role { provider: String, name: String },
    #[error(
        "identity_providers.{provider}.roles.{role} can be assumed with any token of the issuer: name a claim such as sub: \
         repo:acme/shop:ref:refs/heads/main"
    )]
    Everyone { provider: String, role: String },
    #[error(
        "identity_providers.{provider}.roles.{role} has deployment_groups, which belong to one application: name exactly one \
         in applications"
    )]
    Groups { provider: String, role: String },
}

impl FileProviders {
    pub(super) fn settle(self) -> Result<Vec<Provider>, Vec<IdentityProvidersError>> {
        let mut mistakes = Vec::new();
        let mut providers: Vec<Provider> = Vec::new();
        for (name, provider) in self.0 {
            let same = providers
                .iter()
                .find(|other| other.issuer == provider.issuer);
            if let Some(other) = same {
                mistakes.push(IdentityProvidersError::SameIssuer {
                    first: other.name.clone(),
                    second: name.clone(),
                });
            }
            providers.extend(provider.settle(name, &mut mistakes));
        }
        if mistakes.is_empty() {
            Ok(providers)
        } else {
            Err(mistakes)
        }
    }
}

impl FileProvider {
    fn settle(
        self,
        provider: String,
        mistakes: &mut Vec<IdentityProvidersError>,
    ) -> Option<Provider> {
        if !is_safe(&self.issuer) {
            mistakes.push(IdentityProvidersError::Url {
                provider: provider.clone(),
                key: "issuer",
                url: self.issuer.clone(),
            });
        }
        let audiences = self.audience.map_or_else(
            || vec![DEFAULT_AUDIENCE.to_owned()],
            OneOrMore::<String>::into_list,
        );
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            mistakes.push(IdentityProvidersError::Audience(provider.clone()));
        }
        let keys = match (self.jwks_url, self.jwks_file) {
            (Some(url), None) if is_safe(&url) => Some(KeySource::Url(url)),
            (Some(url), None) => {
                mistakes.push(IdentityProvidersError::Url {
                    provider: provider.clone(),
                    key: "jwks_url",
                    url,
                });
                None
            }
            (None, Some(path)) if path.is_absolute() => Some(KeySource::File(path)),
            (None, Some(path)) => {
                mistakes.push(IdentityProvidersError::Relative {
                    provider: provider.clone(),
                    path,
                });
                None
            }
            (None, None) | (Some(_), Some(_)) => {
                mistakes.push(IdentityProvidersError::Keys(provider.clone()));
                None
            }
        };
        let mut roles = BTreeMap::new();
        for (name, role) in self.roles {
            role.check(&provider, &name, mistakes);
            roles.insert(name, role.settle());
        }
        Some(Provider {
            name: provider,
            issuer: self.issuer,
            audiences,
            keys: keys?,
            roles,
        })
    }
}

impl FileRole {
    fn check(&self, provider: &str, name: &str, mistakes: &mut Vec<IdentityProvidersError>) {
        let (provider, role) = (provider.to_owned(), name.to_owned());
        if !is_role_name(name) {
            mistakes.push(IdentityProvidersError::Role {
                provider: provider.clone(),
                name: role.clone(),
            });
        }
        // Every token that is accepted has the issuer and one of the audiences.
        let narrows = |(name, patterns): (&String, &OneOrMore<Pattern>)| {
            let patterns = patterns.clone().into_list();
            name != "iss" && name != "aud" && !patterns.iter().any(Pattern::is_anything)
        };
        if !self.claims.iter().any(narrows) {
            mistakes.push(IdentityProvidersError::Everyone {
                provider: provider.clone(),
                role: role.clone(),
            });
        }
        if !self.deployment_groups.is_empty() && self.applications.len() != 1 {
            mistakes.push(IdentityProvidersError::Groups { provider, role });
        }
    }

    fn settle(self) -> AssumableRole {
        let groups = self.deployment_groups;
        let scopes = self.applications.into_iter().flat_map(|application| {
            let of = |deployment_group| Scope {
                application: application.clone(),
                deployment_group,
            };
            if groups.is_empty() {
                vec![of(None)]
            } else {
                groups.iter().cloned().map(Some).map(of).collect()
            }
        });
        AssumableRole {
            role: match self.role {
                Grant::Operator => Role::Operator,
                Grant::ReadOnly => Role::ReadOnly,
            },
            scopes: scopes.collect(),
            claims: self
                .claims
                .into_iter()
                .map(|(name, patterns)| (name, patterns.into_list()))
                .collect(),
        }
    }
}

/// Whether a text can be the name of a role in an ARN.
pub(crate) fn is_role_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

/// Whether nobody on the network path can change what is read from this URL.
pub(crate) fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let is_loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => is_loopback,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_everything_else_for_itself() {
        let matches = |pattern: &str, text: &str| Pattern(pattern.into()).matches(text);
        for (pattern, text, expected) in [
            ("repo:acme/shop", "repo:acme/shop", true),
            ("repo:acme/shop", "repo:acme/shop2", false),
            ("repo:acme/shop", "Repo:acme/shop", false),
            ("repo:acme/*", "repo:acme/shop:ref", true),
            ("repo:acme/*", "repo:acme-evil/shop", false),
            ("*:ref:refs/heads/main", "a:ref:refs/heads/main", true),
            ("*:ref:refs/heads/main", "a:ref:refs/heads/main2", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a*ab*b", "ab", false),
            ("*b*b*", "bb", true),
            ("*b*b*", "b", false),
            ("*", "", true),
            ("**", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("a?c", "abc", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn claims_are_texts_numbers_truth_values_and_lists_of_them() {
        let pattern = Pattern("true".into());
        for value in [json!(true), json!("true"), json!(["x", true])] {
            assert!(pattern.matches_value(&value), "{value}");
        }
        for value in [json!(null), json!({"a": "true"}), json!([["true"]])] {
            assert!(!pattern.matches_value(&value), "{value}");
        }
        assert!(Pattern("17".into()).matches_value(&json!(17)));
    }
}
