//! AssumeRoleWithWebIdentity of STS: a temporary access key for the bearer of an identity token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_support::timestamp::rfc3339;
use time::OffsetDateTime;

use super::super::Origin;
use super::{escape, parameter, result};
use crate::config::identity_providers::{AssumableRole, Provider, is_role_name};
use crate::credentials::{self, AccessKey, NewKey};
use crate::error::{ApiError, ErrorName};
use crate::registry::audit::Change;
use crate::request::members::shorten;
use crate::service::Service;
use crate::web_identity::{Identity, Token, TokenError};

pub(super) const OPERATION: &str = "AssumeRoleWithWebIdentity";

/// The lifetimes that a key may have, in seconds; the longest is the default.
const LIFETIME: std::ops::RangeInclusive<u64> = 900..=3600;

/// A client that asks for less than the role's rights must not get all of them. The members of a
/// list follow its name.
const UNSUPPORTED: [&str; 3] = ["Policy", "PolicyArns", "ProviderId"];

/// A request, whose form is checked.
struct Request {
    /// The name in the ARN of the role.
    role: String,
    role_arn: String,
    session: String,
    lifetime: Duration,
    token: Token,
}

/// A new key.
pub(super) struct Assumed {
    pub(super) key: AccessKey,
    identity: Identity,
    issuer: String,
}

pub(super) async fn assume(
    service: &Arc<Service>,
    form: &[u8],
    origin: Origin,
) -> Result<Assumed, ApiError> {
    let account = &service.settings.partition.account_id;
    let request = Request::read(form, account)?;
    let provider = service.identity_providers.provider_of(&request.token)?;
    let settings = &provider.settings;
    let now = Timestamp::now();
    let verified = provider.verify(&service.outgoing, &request.token, &settings.audiences, now);
    let identity = verified.await?;
    let role = permitted(settings, &request, &identity)?;
    let new = NewKey {
        role: role.role,
        arn: format!(
            "arn:aws:sts::{account}:assumed-role/{}/{}",
            request.role, request.session
        ),
        lifetime: Some(request.lifetime),
        scopes: role.scopes.clone(),
        subject: Some(identity.subject.clone()),
    };
    let names = BTreeMap::from([
        ("roleArn".to_owned(), request.role_arn),
        ("identityProvider".to_owned(), settings.name.clone()),
        ("subject".to_owned(), shorten_subject(&identity.subject)),
    ]);
    let made = service.transact(move |service, context| {
        credentials::make_room(context.tx, context.now)?;
        let key = credentials::create(context.tx, &service.vault, new)?;
        let change = Change {
            who: &key.arn,
            access_key_id: Some(&key.access_key_id),
            operation: OPERATION,
            names: &names,
            address: origin.address.as_deref(),
            request_id: Some(&origin.request_id),
            source: None,
        };
        change.record(context.tx, context.now)?;
        Ok(key)
    });
    let key = made.await?;
    tracing::info!(
        by = key.arn,
        key = key.access_key_id,
        subject = shorten_subject(&identity.subject),
        identity_provider = settings.name,
        "a role was assumed"
    );
    Ok(Assumed {
        key,
        identity,
        issuer: settings.issuer.clone(),
    })
}

/// Returns the requested role, if the token may assume it. Whether the role exists is told to
/// nobody else: tokens of a public issuer are for anyone.
fn permitted<'a>(
    provider: &'a Provider,
    request: &Request,
    identity: &Identity,
) -> Result<&'a AssumableRole, ApiError> {
    let role = provider.roles.get(&request.role);
    let reason = match role.map(|role| (role, role.mismatch(&identity.claims))) {
        Some((role, None)) => return Ok(role),
        Some((_, Some(claim))) => format!("its claim {claim} does not match"),
        None => "the identity provider has no such role".to_owned(),
    };
    tracing::info!(
        role = request.role,
        identity_provider = provider.name,
        subject = shorten_subject(&identity.subject),
        reason,
        "a token may not assume the role"
    );
    Err(ErrorName::AccessDenied.because(format!(
        "Not authorized to perform sts:{OPERATION}: the token of {:?} may not assume the role {}. Compare its claims with \
         identity_providers; the controller's log has the reason.",
        shorten_subject(&identity.subject),
        request.role
    )))
}

/// A subject for a log or a record: an issuer may choose a long one.
pub(crate) fn shorten_subject(subject: &str) -> String {
    subject.chars().take(300).collect()
}

impl Request {
    fn read(form: &[u8], account: &str) -> Result<Self, ApiError> {
        let invalid = |what: String| ErrorName::ValidationError.because(what);
        let mut names = form_urlencoded::parse(form).map(|(name, _)| name);
        if let Some(name) = names.find(|name| {
            let list = name.split_once('.').map_or(&**name, |(list, _)| list);
            UNSUPPORTED.contains(&list)
        }) {
            let name = shorten(&name);
            return Err(invalid(format!(
                "This controller's STS has no {name}: leave it out, and limit the role in identity_providers."
            )));
        }
        let required = |name: &str| {
            parameter(form, name)
                .ok_or_else(|| invalid(format!("The parameter {name} is missing.")))
        };
        let role_arn = required("RoleArn")?;
        let role = role_name(&role_arn, account).map(str::to_owned);
        let role = role.ok_or_else(|| {
            invalid(format!(
                "RoleArn is {:?}: expected arn:aws:iam::{account}:role/NAME.",
                shorten(&role_arn)
            ))
        })?;
        let session = required("RoleSessionName")?;
        if session.len() < 2 || !is_role_name(&session) {
            return Err(invalid(format!(
                "RoleSessionName is {:?}: expected 2 to 64 letters, digits and the characters +=,.@_-.",
                shorten(&session)
            )));
        }
        let seconds = match parameter(form, "DurationSeconds") {
            None => *LIFETIME.end(),
            Some(text) => text
                .parse()
                .ok()
                .filter(|seconds| LIFETIME.contains(seconds))
                .ok_or_else(|| {
                    invalid(format!(
                        "DurationSeconds is {:?}: expected a number from 900 to 3600.",
                        shorten(&text)
                    ))
                })?,
        };
        Ok(Request {
            role,
            role_arn,
            session,
            lifetime: Duration::from_secs(seconds),
            token: Token::read(&required("WebIdentityToken")?)?,
        })
    }
}

/// The name of a role of this account.
fn role_name<'a>(arn: &'a str, account: &str) -> Option<&'a str> {
    let (partition, rest) = arn.strip_prefix("arn:")?.split_once(":iam::")?;
    let name = rest
        .strip_prefix(account)?
        .strip_prefix(":role/")
        .filter(|name| is_role_name(name))?;
    matches!(partition, "aws" | "aws-cn" | "aws-us-gov").then_some(name)
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let name = match error {
            TokenError::Expired => ErrorName::ExpiredIdentityToken,
            TokenError::Keys(_) => ErrorName::IdentityProviderCommunication,
            _ => ErrorName::InvalidIdentityToken,
        };
        name.because(error.to_string())
    }
}

impl Assumed {
    /// The response, in XML.
    pub(super) fn document(&self, request_id: &str) -> String {
        let AccessKey {
            access_key_id,
            secret_access_key,
            session_token,
            arn,
            expires,
            ..
        } = &self.key;
        let session = arn.rsplit('/').next().unwrap_or_default();
        let expires = expires.map_or(0, Timestamp::millis);
        let expires = rfc3339(OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(expires / 1000));
        let content = format!(
            "<SubjectFromWebIdentityToken>{}</SubjectFromWebIdentityToken><Audience>{}</Audience><AssumedRoleUser><Arn>{}</Arn>\
             <AssumedRoleId>{access_key_id}:{}</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>{access_key_id}\
             </AccessKeyId><SecretAccessKey>{secret_access_key}</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>\
             {expires}</Expiration></Credentials><Provider>{}</Provider>",
            escape(&self.identity.subject),
            escape(&self.identity.audience),
            escape(arn),
            escape(session),
            session_token.as_deref().unwrap_or_default(),
            escape(&self.issuer),
        );
        result(OPERATION, &content, request_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_one_of_the_controllers_account() {
        let name = |arn: &str| role_name(arn, "123456789012").map(str::to_owned);
        assert_eq!(
            name("arn:aws:iam::123456789012:role/deploy"),
            Some("deploy".into())
        );
        for arn in [
            "arn:aws:iam::123456789013:role/deploy",
            "arn:aws:iam::123456789012:user/deploy",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/path/deploy",
            "arn:bws:iam::123456789012:role/deploy",
            "deploy",
        ] {
            assert_eq!(name(arn), None, "{arn}");
        }
    }
}
