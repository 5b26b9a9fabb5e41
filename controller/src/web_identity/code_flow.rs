//! Logging in at an issuer with a browser: the authorization code flow (OpenID Connect Core, 3.1), in
//! which the code is of use only to the one who asked for it (PKCE, RFC 7636).
//!
//! 1. [`CodeFlow::begin`] returns the address at the issuer that the browser has to visit.
//! 2. The issuer sends the browser back with a code; [`CodeFlow::finish`] exchanges it for a token,
//!    verifies that, and finds the role of the person.
//!
//! An [`Attempt`] ties both together. It is kept by the browser alone, so that strangers who begin
//! logins leave nothing here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::{Method, Request, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use codedeploy_api::codedeploy::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::discovery::{Discovery, Endpoints, MAX_ANSWER};
use super::{Identity, IdentityProviders, Token, TokenError};
use crate::config::console::{ConsoleError, Login};
use crate::config::events::Secret;
use crate::config::identity_providers::{AssumableRole, is_role_name, is_unverified};
use crate::error::chain;
use crate::outgoing::{Answer, Outgoing, OutgoingError, place};

/// The timeout of a request to the issuer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An issuer at which people log in.
#[derive(Debug)]
pub struct CodeFlow {
    settings: Login,
    secret: Option<Secret>,
    discovery: Discovery,
}

/// The answer of a token endpoint.
#[derive(Debug, Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// One login of one browser, as the secret that only this browser has. Everything that the issuer
/// sees of it is derived.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a>(pub &'a str);

/// Somebody who logged in.
#[derive(Debug)]
pub struct Person {
    /// The e-mail address or the subject, as the name of a session.
    pub name: String,
    pub subject: String,
    /// The name of the role.
    pub role: String,
    pub rights: AssumableRole,
}

/// The reason why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("The identity provider cannot be used now: {0}.")]
    Away(String),
    #[error(
        "This answer of the identity provider belongs to another login than the one that this browser began last."
    )]
    State,
    #[error("The answer is of another identity provider than the one that was asked.")]
    Issuer,
    #[error("The identity provider refused the login: {0}.")]
    Refused(String),
    #[error("The identity provider did not accept the code of this login: {0}.")]
    Code(String),
    #[error("The identity provider's token is not accepted. {0}")]
    Token(#[from] TokenError),
    #[error("The identity provider's token belongs to another login.")]
    Nonce,
    #[error(
        "{0} may not use this console: the claims of the identity provider's token match no role of console.login.roles. The \
         controller's log names them."
    )]
    NoRole(String),
}

impl LoginError {
    /// Whether it counts as a failed login of a client: it has cost the issuer something. Strangers
    /// can lead a browser here with an answer of their own, which costs nothing.
    pub fn counts(&self) -> bool {
        !self.is_outage() && !matches!(self, LoginError::State)
    }

    /// Whether somebody else than the one who logs in is the cause.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            LoginError::Away(_) | LoginError::Token(TokenError::Keys(_))
        )
    }
}

impl Attempt<'_> {
    fn derive(self, purpose: &str) -> String {
        let text = format!("{purpose} of {}", self.0);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
    }

    fn state(self) -> String {
        self.derive("state")
    }

    fn nonce(self) -> String {
        self.derive("nonce")
    }

    fn verifier(self) -> String {
        self.derive("verifier")
    }

    fn challenge(self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier().as_bytes()))
    }
}

fn is_same(given: Option<&str>, expected: &str) -> bool {
    given
        .is_some_and(|given| verify_slices_are_equal(given.as_bytes(), expected.as_bytes()).is_ok())
}

impl CodeFlow {
    /// Reads the client's secret; the issuer is asked when somebody logs in.
    pub fn open(settings: &Login) -> Result<Self, ConsoleError> {
        Ok(CodeFlow {
            secret: settings.secret()?,
            discovery: Discovery::of(&settings.issuer),
            settings: settings.clone(),
        })
    }

    /// The name of the issuer in the settings.
    pub fn provider(&self) -> &str {
        &self.settings.provider
    }

    /// The address at the issuer that a browser visits to log in; it returns to `back`.
    pub async fn begin(
        &self,
        outgoing: &Arc<Outgoing>,
        attempt: Attempt<'_>,
        back: &str,
    ) -> Result<String, LoginError> {
        let endpoints = self.discovery.endpoints(outgoing).await;
        let endpoint = endpoints.map_err(LoginError::Away)?.authorization;
        let mark = if endpoint.contains('?') { '&' } else { '?' };
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", back)
            .append_pair("scope", &self.settings.scopes)
            .append_pair("state", &attempt.state())
            .append_pair("nonce", &attempt.nonce())
            .append_pair("code_challenge", &attempt.challenge())
            .append_pair("code_challenge_method", "S256")
            .finish();
        Ok(format!("{endpoint}{mark}{query}"))
    }

    /// Ends a login with what the issuer sent the browser back with.
    pub async fn finish(
        &self,
        (providers, outgoing): (&IdentityProviders, &Arc<Outgoing>),
        attempt: Attempt<'_>,
        back: &str,
        answer: &BTreeMap<String, String>,
    ) -> Result<Person, LoginError> {
        let given = |name: &str| answer.get(name).map(String::as_str);
        // Before anything else is believed: others can send a browser here, too.
        if !is_same(given("state"), &attempt.state()) {
            return Err(LoginError::State);
        }
        if given("iss").is_some_and(|issuer| issuer != self.settings.issuer) {
            return Err(LoginError::Issuer);
        }
        if let Some(error) = given("error") {
            return Err(LoginError::Refused(said(error, given("error_description"))));
        }
        let code = given("code").ok_or_else(|| LoginError::Code("it is missing".into()))?;
        let token = self.exchange(outgoing, attempt, back, code).await?;
        let token = Token::read(&token)?;
        let provider = providers.provider_of(&token)?;
        if provider.settings.name != self.settings.provider {
            return Err(LoginError::Issuer);
        }
        let audience = [self.settings.client_id.clone()];
        let verified = provider.verify(outgoing, &token, &audience, Timestamp::now());
        let identity = verified.await?;
        self.is_for_this_login(&identity, attempt)?;
        self.person(identity, &provider.settings.roles)
    }

    /// Checks the claims that only tokens of logins have.
    fn is_for_this_login(
        &self,
        identity: &Identity,
        attempt: Attempt<'_>,
    ) -> Result<(), LoginError> {
        let text = |claim: &str| identity.claims.get(claim).and_then(Value::as_str);
        if !is_same(text("nonce"), &attempt.nonce()) {
            return Err(LoginError::Nonce);
        }
        // A token for several clients names the one that it was made for.
        let is_shared = identity
            .claims
            .get("aud")
            .and_then(Value::as_array)
            .is_some_and(|audiences| audiences.len() > 1);
        match text("azp") {
            Some(client) if client == self.settings.client_id => Ok(()),
            Some(client) => Err(TokenError::Audience(client.chars().take(200).collect()).into()),
            None if is_shared => Err(TokenError::Claim("azp").into()),
            None => Ok(()),
        }
    }

    fn person(
        &self,
        identity: Identity,
        roles: &BTreeMap<String, AssumableRole>,
    ) -> Result<Person, LoginError> {
        let name = name(&identity);
        for role in &self.settings.roles {
            let Some(rights) = roles.get(role) else {
                continue;
            };
            let Some(claim) = rights.mismatch(&identity.claims) else {
                return Ok(Person {
                    name,
                    subject: identity.subject,
                    role: role.clone(),
                    rights: rights.clone(),
                });
            };
            tracing::info!(
                role,
                identity_provider = self.settings.provider,
                name,
                claim,
                "the claim does not match that of the role"
            );
        }
        Err(LoginError::NoRole(name))
    }

    /// Exchanges a code for a token.
    async fn exchange(
        &self,
        outgoing: &Arc<Outgoing>,
        attempt: Attempt<'_>,
        back: &str,
        code: &str,
    ) -> Result<String, LoginError> {
        let endpoints = self.discovery.endpoints(outgoing).await;
        let endpoints = endpoints.map_err(LoginError::Away)?;
        let url = endpoints.token.as_str();
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", back),
            ("code_verifier", &attempt.verifier()),
        ];
        let request = self.request(&endpoints, &fields);
        let sent = outgoing.send_at_most((TIMEOUT, MAX_ANSWER), url, request);
        let Answer { status, body, .. } = sent.await.map_err(away)?;
        let said_nothing = || LoginError::Away(format!("{} answered {status}", place(url)));
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| said_nothing())?;
        match (status, answer.id_token, answer.error) {
            (200, Some(token), _) => Ok(token),
            (200, None, _) => Err(LoginError::Away(format!(
                "{} answered without an id_token",
                place(url)
            ))),
            (400..500, _, Some(error)) => {
                let error = said(&error, answer.error_description.as_deref());
                tracing::warn!(error, "the identity provider did not accept a code");
                Err(LoginError::Code(error))
            }
            _ => Err(said_nothing()),
        }
    }

    /// A request of this client for a token.
    fn request(
        &self,
        endpoints: &Endpoints,
        fields: &[(&str, &str)],
    ) -> Result<Request<Body>, axum::http::Error> {
        let client = self.settings.client_id.as_str();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&endpoints.token)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        match &self.secret {
            Some(Secret(secret)) if !endpoints.secret_in_form => {
                request = request.header(header::AUTHORIZATION, basic(client, secret));
            }
            Some(Secret(secret)) => {
                form.append_pair("client_id", client)
                    .append_pair("client_secret", secret);
            }
            None => {
                form.append_pair("client_id", client);
            }
        }
        request.body(Body::from(form.finish()))
    }
}

fn away(error: OutgoingError) -> LoginError {
    LoginError::Away(chain(&error))
}

/// The credentials of a client, as OAuth 2.0 encodes them (RFC 6749, 2.3.1).
fn basic(client: &str, secret: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client), encoded(secret));
    format!("Basic {}", STANDARD.encode(pair))
}

/// An error of the issuer, never long.
fn said(error: &str, description: Option<&str>) -> String {
    let short = |text: &str| {
        let text: String = text.chars().take(300).collect();
        text.trim().trim_end_matches('.').to_owned()
    };
    match description.map(short).filter(|text| !text.is_empty()) {
        Some(description) => format!("{} ({description})", short(error)),
        None => short(error),
    }
}

/// The e-mail address of a person unless the issuer knows that it may be another one's, else the
/// subject; a digest of a subject that cannot be in an ARN.
fn name(identity: &Identity) -> String {
    let email = identity.claims.get("email").and_then(Value::as_str);
    let email = email.filter(|_| !is_unverified(&identity.claims));
    let subject = Some(identity.subject.as_str());
    let mut names = [email, subject].into_iter().flatten();
    let fits = |name: &&str| name.len() >= 2 && is_role_name(name);
    names.find(fits).map_or_else(
        || {
            let digest = digest(&SHA256, identity.subject.as_bytes());
            format!("sha256-{}", hex::encode(&digest.as_ref()[..16]))
        },
        str::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(claims: &Value) -> String {
        name(&Identity {
            subject: claims["sub"].as_str().unwrap().to_owned(),
            audience: String::new(),
            claims: claims.as_object().unwrap().clone(),
        })
    }

    #[test]
    fn a_person_has_a_name_that_others_cannot_choose() {
        let email = "alice@acme.example";
        for (claims, expected) in [
            (json!({"sub": "7", "email": email}), email),
            (
                json!({"sub": "u-7", "email": email, "email_verified": false}),
                "u-7",
            ),
            (json!({"sub": "u-7", "email": "a b@acme"}), "u-7"),
            (json!({"sub": "u-7", "email": 7}), "u-7"),
        ] {
            assert_eq!(of(&claims), expected, "{claims}");
        }
        let (one, other) = (
            of(&json!({"sub": "auth0|7"})),
            of(&json!({"sub": "auth0|8"})),
        );
        assert!(
            one.starts_with("sha256-") && is_role_name(&one) && one != other,
            "{one}"
        );
    }

    #[test]
    fn the_steps_of_an_attempt_have_nothing_in_common() {
        let attempt = Attempt("secret");
        let parts = [
            attempt.state(),
            attempt.nonce(),
            attempt.verifier(),
            attempt.challenge(),
        ];
        let different: std::collections::BTreeSet<_> = parts.iter().collect();
        assert_eq!(different.len(), 4);
        assert!(
            parts
                .iter()
                .all(|part| part.len() == 43 && !part.contains("secret"))
        );
        assert_ne!(attempt.state(), Attempt("other").state());
    }

    #[test]
    fn a_clients_name_and_secret_are_encoded_before_they_are_joined() {
        assert_eq!(
            basic("a:b", "c d"),
            format!("Basic {}", STANDARD.encode("a%3Ab:c+d"))
        );
    }
}
