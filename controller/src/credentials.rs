//! Access keys: the callers of each API; the administrator of the data directory makes and revokes
//! them.

pub mod unlocked;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use codedeploy_api::codedeploy::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorName};
use crate::ids::random_text;
use crate::store::{Json, SqlError, Tx, named};
use crate::vault::{Vault, VaultError};

/// The role of an access key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The public API.
    Operator,
    /// The operations of the public API that change nothing.
    ReadOnly,
    /// The agents' API, as the host with the key's ARN.
    Host,
}

impl Role {
    pub fn text(self) -> &'static str {
        match self {
            Role::Operator => "operator",
            Role::ReadOnly => "read-only",
            Role::Host => "host",
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        [Role::Operator, Role::ReadOnly, Role::Host]
            .into_iter()
            .find(|role| role.text() == text)
    }
}

/// A part of the fleet that an access key is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub application: String,
    /// All groups of the application if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_group: Option<String>,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.deployment_group {
            Some(group) => write!(f, "{}/{group}", self.application),
            None => f.write_str(&self.application),
        }
    }
}

/// The parts of the fleet that an access key is for: all of it, or those in a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Option<Vec<Scope>>);

impl Scopes {
    /// An empty list stands for the whole fleet.
    pub fn of(list: Vec<Scope>) -> Self {
        Scopes(Some(list).filter(|list| !list.is_empty()))
    }

    /// Whether the key is not for the whole fleet.
    pub fn are_limited(&self) -> bool {
        self.0.is_some()
    }

    /// The parts, unless they are the whole fleet.
    pub fn list(&self) -> Option<&[Scope]> {
        self.0.as_deref()
    }

    fn any(&self, is: impl Fn(&Scope) -> bool) -> bool {
        self.0.as_ref().is_none_or(|list| list.iter().any(is))
    }

    /// Whether the key is for an application, or for a group of it.
    pub fn have_application(&self, name: &str) -> bool {
        self.any(|scope| scope.application == name)
    }

    pub fn have_group(&self, application: &str, name: &str) -> bool {
        self.any(|scope| {
            let group = scope.deployment_group.as_deref();
            scope.application == application && group.is_none_or(|group| group == name)
        })
    }
}

/// The verified signer of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub access_key_id: String,
    pub role: Role,
    pub arn: String,
    pub scopes: Scopes,
    /// The subject of the identity token that the key was made for, if there was one.
    pub subject: Option<String>,
}

/// An access key to make.
#[derive(Debug)]
pub struct NewKey {
    pub role: Role,
    pub arn: String,
    /// That of a temporary key, which has a session token.
    pub lifetime: Option<Duration>,
    /// The parts of the fleet that it is for; empty for the whole fleet.
    pub scopes: Vec<Scope>,
    /// The subject of the identity token that it is made for, if there is one.
    pub subject: Option<String>,
}

/// A new access key. Its secrets are shown once.
#[derive(Debug, Serialize)]
pub struct AccessKey {
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Required in every request with a temporary key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    pub role: Role,
    pub arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The parts of the fleet that it is for; empty for the whole fleet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
}

/// An access key in a list.
#[derive(Debug, Serialize)]
pub struct Listed {
    pub access_key_id: String,
    pub role: String,
    pub arn: String,
    /// Seconds since the epoch.
    pub created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// The subject of the identity token that it was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The parts of the fleet that it is for; empty for the whole fleet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
}

impl Listed {
    /// `active`, `expired` or `revoked`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        if self.revoked.is_some() {
            "revoked"
        } else if self.expires.is_some_and(|expires| expires <= now) {
            "expired"
        } else {
            "active"
        }
    }
}

/// An access key that is not revoked, as stored.
#[derive(Debug)]
pub struct StoredKey {
    principal: Arc<Principal>,
    secret: Vec<u8>,
    token: Option<Vec<u8>>,
    expires: Option<Timestamp>,
}

impl StoredKey {
    /// Decrypts the secret that requests are signed with.
    pub fn secret(&self, vault: &Vault) -> Result<String, VaultError> {
        vault.unseal(&self.principal.access_key_id, &self.secret)
    }

    /// Returns its owner, if the session token of a signed request is the key's, and the key has
    /// not expired.
    pub fn admit(&self, token: Option<&str>, now: Timestamp) -> Result<Arc<Principal>, ApiError> {
        let matches = match (&self.token, token) {
            (None, None) => true,
            (Some(kept), Some(given)) => {
                let given = digest::digest(&digest::SHA256, given.as_bytes());
                constant_time::verify_slices_are_equal(kept, given.as_ref()).is_ok()
            }
            _ => false,
        };
        if !matches {
            return Err(ErrorName::UnrecognizedClient.because(
                "The security token included in the request is invalid: temporary access keys need the token that \
                 was made with them, others must be sent without one.",
            ));
        }
        match self.expires {
            Some(expires) if expires <= now => Err(ErrorName::ExpiredToken
                .because("The security token included in the request is expired.")),
            _ => Ok(Arc::clone(&self.principal)),
        }
    }

    /// Returns its owner if it has not expired, for a session that the key was shown for.
    pub fn owner(self, now: Timestamp) -> Option<Principal> {
        let has_expired = self.expires.is_some_and(|expires| expires <= now);
        (!has_expired).then(|| Arc::unwrap_or_clone(self.principal))
    }

    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Whether `secret` is the key's.
    pub fn has_secret(&self, vault: &Vault, secret: &str) -> Result<bool, VaultError> {
        let kept = self.secret(vault)?;
        let [kept, given] =
            [kept.as_str(), secret].map(|text| digest::digest(&digest::SHA256, text.as_bytes()));
        Ok(constant_time::verify_slices_are_equal(kept.as_ref(), given.as_ref()).is_ok())
    }
}

/// The path in the ARNs of keys that commands make for themselves on the controller's own host.
pub const LOCAL: &str = "local/";

/// Deletes an access key for good.
pub fn delete(tx: &Tx<'_>, access_key_id: &str) -> Result<(), SqlError> {
    let sql = "DELETE FROM credentials WHERE access_key_id = ?1";
    tx.execute(sql, [access_key_id]).map(drop)
}

/// Deletes the expired keys of commands that were interrupted.
pub fn delete_expired_local(tx: &Tx<'_>, now: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "DELETE FROM credentials WHERE expires <= ?1 AND arn LIKE ?2",
        (now, format!("%:user/{LOCAL}%")),
    )?;
    Ok(())
}

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The time for which expired keys of assumed roles are kept: their users get the right error.
const EXPIRED: Duration = Duration::from_secs(24 * 3600);

/// The number of such keys that one transaction deletes.
const MOST_DELETED: usize = 100;

/// The most keys of assumed roles at a time.
const MOST_SESSIONS: i64 = 10_000;

/// Deletes old keys of assumed roles, a few at a time, and rejects another one if there are too many.
pub fn make_room(tx: &Tx<'_>, now: Timestamp) -> Result<(), ApiError> {
    let age = i64::try_from(EXPIRED.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(now.millis().saturating_sub(age));
    tx.execute(
        "DELETE FROM credentials WHERE access_key_id IN (
            SELECT access_key_id FROM credentials WHERE subject IS NOT NULL AND expires <= ?1 LIMIT ?2)",
        (before, MOST_DELETED),
    )?;
    let sql = "SELECT count(*) FROM credentials WHERE subject IS NOT NULL AND expires > ?1";
    let sessions: Option<i64> = tx.query_opt(sql, [now], |row| row.get(0))?;
    if sessions.unwrap_or(0) >= MOST_SESSIONS {
        return Err(ErrorName::Throttling.because(format!(
            "There are {MOST_SESSIONS} temporary keys of assumed roles: try again when some have expired."
        )));
    }
    Ok(())
}

/// Makes an access key.
pub fn create(tx: &Tx<'_>, vault: &Vault, new: NewKey) -> Result<AccessKey, ApiError> {
    let NewKey {
        role,
        arn,
        lifetime,
        scopes,
        subject,
    } = new;
    let now = Timestamp::now();
    let prefix = if lifetime.is_some() { "ASIA" } else { "AKIA" };
    let key = AccessKey {
        access_key_id: format!(
            "{prefix}{}",
            random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)?
        ),
        secret_access_key: random_text(LETTERS, 40)?,
        session_token: lifetime.map(|_| random_text(LETTERS, 100)).transpose()?,
        role,
        arn,
        expires: lifetime.map(|lifetime| now + lifetime),
        scopes,
    };
    let token = key
        .session_token
        .as_ref()
        .map(|token| digest::digest(&digest::SHA256, token.as_bytes()));
    tx.execute(
        "INSERT INTO credentials (access_key_id, secret, role, arn, created, token, expires, scopes, subject)
         VALUES (:id, :secret, :role, :arn, :now, :token, :expires, :scopes, :subject)",
        named! {
            ":id": key.access_key_id,
            ":secret": vault.seal(&key.access_key_id, &key.secret_access_key)?,
            ":role": role.text(),
            ":arn": key.arn,
            ":now": now,
            ":token": token.as_ref().map(AsRef::<[u8]>::as_ref),
            ":expires": key.expires,
            ":scopes": (!key.scopes.is_empty()).then_some(Json(&key.scopes)),
            ":subject": subject,
        },
    )?;
    Ok(key)
}

/// Returns the access key with an id, unless it is revoked.
pub fn find(tx: &Tx<'_>, access_key_id: &str) -> Result<Option<StoredKey>, SqlError> {
    let kept = tx.query_opt(
        "SELECT * FROM credentials WHERE access_key_id = ?1 AND revoked IS NULL",
        [access_key_id],
        |row| {
            let (role, arn): (String, String) = (row.get("role")?, row.get("arn")?);
            let (secret, token) = (row.get("secret")?, row.get("token")?);
            let (expires, subject) = (row.get("expires")?, row.get("subject")?);
            let scopes: Option<Json<Vec<Scope>>> = row.get("scopes")?;
            let scopes = Scopes(scopes.map(|Json(list)| list));
            let access_key_id = access_key_id.to_owned();
            // A role of a newer version gives no access.
            let principal = Role::read(&role).map(|role| Principal {
                access_key_id,
                role,
                arn,
                scopes,
                subject,
            });
            Ok(principal.map(|principal| StoredKey {
                principal: Arc::new(principal),
                secret,
                token,
                expires,
            }))
        },
    )?;
    Ok(kept.flatten())
}

/// Whether requests of a principal would still be accepted, some time after one was.
pub fn is_good(tx: &Tx<'_>, principal: &Principal, now: Timestamp) -> Result<bool, SqlError> {
    tx.exists(
        "SELECT 1 FROM credentials
         WHERE access_key_id = ?1 AND revoked IS NULL AND (expires IS NULL OR expires > ?2)",
        (&principal.access_key_id, now),
    )
}

pub fn list(tx: &Tx<'_>) -> Result<Vec<Listed>, SqlError> {
    tx.query_all(
        "SELECT * FROM credentials ORDER BY created, access_key_id",
        (),
        |row| {
            Ok(Listed {
                access_key_id: row.get("access_key_id")?,
                role: row.get("role")?,
                arn: row.get("arn")?,
                created: row.get("created")?,
                expires: row.get("expires")?,
                revoked: row.get("revoked")?,
                subject: row.get("subject")?,
                scopes: row
                    .get::<Option<Json<_>>>("scopes")?
                    .map_or(Vec::new(), |Json(list)| list),
            })
        },
    )
}

/// Returns the number of access keys that expire between two times, by role. Those of assumed roles
/// are made to expire.
pub fn expiring(
    tx: &Tx<'_>,
    after: Timestamp,
    until: Timestamp,
) -> Result<Vec<(Role, i64)>, SqlError> {
    let by_role = tx.query_all(
        "SELECT role, count(*) FROM credentials
         WHERE revoked IS NULL AND subject IS NULL AND expires > ?1 AND expires <= ?2 GROUP BY role",
        (after, until),
        |row| {
            let role: String = row.get(0)?;
            Ok((Role::read(&role), row.get(1)?))
        },
    )?;
    let known = |(role, number): (Option<Role>, i64)| Some((role?, number));
    Ok(by_role.into_iter().filter_map(known).collect())
}

/// An access key that expires soon.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Expiring {
    pub(crate) access_key_id: String,
    pub(crate) role: String,
    pub(crate) arn: String,
    pub(crate) expires: Timestamp,
}

/// Returns the access keys that expire within a time, the first ones first. Keys that were made for
/// less than that time are sessions, which nobody has to renew.
pub(crate) fn expiring_soon(
    tx: &Tx<'_>,
    now: Timestamp,
    within: Duration,
    most: usize,
) -> Result<Vec<Expiring>, SqlError> {
    let millis = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
    tx.query_all(
        "SELECT access_key_id, role, arn, expires FROM credentials
         WHERE revoked IS NULL AND expires > ?1 AND expires <= ?2 AND expires - created > ?3
         ORDER BY expires LIMIT ?4",
        (now, now + within, millis, most),
        |row| {
            Ok(Expiring {
                access_key_id: row.get(0)?,
                role: row.get(1)?,
                arn: row.get(2)?,
                expires: row.get(3)?,
            })
        },
    )
}

/// Revokes every access key of role host for an ARN.
pub fn revoke_host(tx: &Tx<'_>, arn: &str) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE credentials SET revoked = ?3 WHERE arn = ?1 AND role = ?2 AND revoked IS NULL",
        (arn, Role::Host.text(), Timestamp::now()),
    )?;
    Ok(())
}

/// Revokes every access key; returns their number.
pub fn revoke_all(tx: &Tx<'_>) -> Result<usize, SqlError> {
    tx.execute(
        "UPDATE credentials SET revoked = ?1 WHERE revoked IS NULL",
        [Timestamp::now()],
    )
}

/// Revokes an access key at once; returns false if there is none to revoke.
pub fn revoke(tx: &Tx<'_>, access_key_id: &str) -> Result<bool, SqlError> {
    let revoked = tx.execute(
        "UPDATE credentials SET revoked = ?2 WHERE access_key_id = ?1 AND revoked IS NULL",
        (access_key_id, Timestamp::now()),
    )?;
    Ok(revoked > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_an_application_or_one_of_its_groups() {
        let scope = |application: &str, group: Option<&str>| Scope {
            application: application.into(),
            deployment_group: group.map(str::to_owned),
        };
        let scopes = Scopes::of(vec![scope("shop", Some("web")), scope("blog", None)]);
        assert!(scopes.are_limited() && !Scopes::of(Vec::new()).are_limited());
        assert!(scopes.have_application("shop") && scopes.have_application("blog"));
        assert!(scopes.have_group("shop", "web") && scopes.have_group("blog", "any"));
        assert!(!scopes.have_group("shop", "api") && !scopes.have_application("wiki"));
        assert!(Scopes::default().have_group("any", "any"));
        // A list that became empty by damage gives no access.
        assert!(!Scopes(Some(Vec::new())).have_application("shop"));
    }
}
