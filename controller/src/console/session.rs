//! Login links and sessions, in the database, so that they outlive a restart. A token is random,
//! known to its browser only, and kept as its digest.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use codedeploy_api::codedeploy::Timestamp;

use crate::credentials::{self, NewKey, Principal, Role, Scope};
use crate::error::{ApiError, ErrorName};
use crate::ids::random_text;
use crate::store::{Json, SqlError, Tx, named};
use crate::vault::Vault;

/// The time for which a login link can be used.
pub(crate) const LINK: Duration = Duration::from_secs(10 * 60);

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// 256 bits.
const LENGTH: usize = 43;

/// The most sessions of one user. Whoever may log in must not be able to use up the keys of all.
const MOST: usize = 100;

/// The rights of a login link.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    pub(crate) role: Role,
    pub(crate) arn: String,
    /// Empty for the whole fleet.
    pub(crate) scopes: Vec<Scope>,
}

fn kept(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

/// Makes a link that can be used once, and returns its token.
pub(crate) fn offer(tx: &Tx<'_>, now: Timestamp, rights: &Rights) -> Result<String, ApiError> {
    let token = new_token()?;
    tx.execute(
        "INSERT INTO console_links (token, role, arn, scopes, expires)
         VALUES (:token, :role, :arn, :scopes, :expires)",
        named! {
            ":token": kept(&token),
            ":role": rights.role.text(),
            ":arn": rights.arn,
            ":scopes": Json(&rights.scopes),
            ":expires": now + LINK,
        },
    )?;
    Ok(token)
}

/// Uses a link up, and begins a session with an access key of its own. Returns the session's token,
/// or `None` if the link was used or has expired.
pub(super) fn redeem(
    tx: &Tx<'_>,
    vault: &Vault,
    now: Timestamp,
    link: &str,
    lasts: Duration,
) -> Result<Option<(String, Principal)>, ApiError> {
    let found = tx.query_all(
        "DELETE FROM console_links WHERE token = ?1 RETURNING role, arn, scopes, expires",
        [kept(link)],
        |row| {
            let (role, expires): (String, Timestamp) = (row.get("role")?, row.get("expires")?);
            let Json(scopes) = row.get("scopes")?;
            Ok((
                Role::read(&role),
                row.get::<String>("arn")?,
                scopes,
                expires,
            ))
        },
    )?;
    let Some((Some(role), arn, scopes, expires)) = found.into_iter().next() else {
        return Ok(None);
    };
    if expires <= now || role == Role::Host {
        return Ok(None);
    }
    let new = NewKey {
        role,
        arn,
        lifetime: Some(lasts),
        scopes,
        subject: None,
    };
    begin_with_own_key(tx, vault, now, new, lasts)
}

/// Begins a session with an access key of its own, which ends with it. Returns the session's token.
pub(super) fn begin_with_own_key(
    tx: &Tx<'_>,
    vault: &Vault,
    now: Timestamp,
    new: NewKey,
    lasts: Duration,
) -> Result<Option<(String, Principal)>, ApiError> {
    let key = credentials::create(tx, vault, new)
        .map_err(|error| ErrorName::InternalFailure.because(error.to_string()))?;
    let token = begin(tx, now, &key.access_key_id, lasts, true)?;
    let principal = find(tx, now, &token)?;
    Ok(principal.map(|principal| (token, principal)))
}

/// A token that nobody can guess.
pub(super) fn new_token() -> Result<String, ApiError> {
    random_text(LETTERS, LENGTH)
}

/// Begins a session that acts with an access key, and returns its token.
pub(super) fn begin(
    tx: &Tx<'_>,
    now: Timestamp,
    access_key_id: &str,
    lasts: Duration,
    own_key: bool,
) -> Result<String, ApiError> {
    forget_expired(tx, now)?;
    let token = new_token()?;
    tx.execute(
        "INSERT INTO console_sessions (token, access_key_id, own_key, expires)
         VALUES (:token, :key, :own, :expires)",
        named! {
            ":token": kept(&token),
            ":key": access_key_id,
            ":own": own_key,
            ":expires": now + lasts,
        },
    )?;
    end_oldest(tx, access_key_id, &token)?;
    Ok(token)
}

/// Ends the oldest sessions of the user of an access key, except a new one, if there are too many.
fn end_oldest(tx: &Tx<'_>, access_key_id: &str, new: &str) -> Result<(), SqlError> {
    let oldest = tx.query_all(
        "SELECT console_sessions.token FROM console_sessions JOIN credentials USING (access_key_id)
         WHERE arn = (SELECT arn FROM credentials WHERE access_key_id = :key) AND console_sessions.token <> :new
         ORDER BY console_sessions.expires DESC LIMIT -1 OFFSET :others",
        named! { ":key": access_key_id, ":new": kept(new), ":others": MOST - 1 },
        |row| row.get::<Vec<u8>>(0),
    )?;
    oldest.iter().try_for_each(|token| end_kept(tx, token))
}

/// Returns the owner of the session of a token, unless it or its access key has expired or was revoked.
pub(super) fn find(
    tx: &Tx<'_>,
    now: Timestamp,
    token: &str,
) -> Result<Option<Principal>, SqlError> {
    let found = tx.query_opt(
        "SELECT access_key_id FROM console_sessions WHERE token = ?1 AND expires > ?2",
        (kept(token), now),
        |row| row.get::<String>(0),
    )?;
    let Some(access_key_id) = found else {
        return Ok(None);
    };
    let key = credentials::find(tx, &access_key_id)?;
    let principal = key.and_then(|key| key.owner(now));
    Ok(principal.filter(|principal| principal.role != Role::Host))
}

/// Ends a session, and its access key if it was made for it.
pub(super) fn end(tx: &Tx<'_>, token: &str) -> Result<(), SqlError> {
    end_kept(tx, &kept(token))
}

fn end_kept(tx: &Tx<'_>, kept: &[u8]) -> Result<(), SqlError> {
    tx.execute(
        "DELETE FROM credentials WHERE access_key_id IN
             (SELECT access_key_id FROM console_sessions WHERE token = ?1 AND own_key = 1)",
        [kept],
    )?;
    let sql = "DELETE FROM console_sessions WHERE token = ?1";
    tx.execute(sql, [kept]).map(drop)
}

fn forget_expired(tx: &Tx<'_>, now: Timestamp) -> Result<(), SqlError> {
    tx.execute("DELETE FROM console_links WHERE expires <= ?1", [now])?;
    // Their keys have expired, too.
    tx.execute(
        "DELETE FROM credentials WHERE access_key_id IN
             (SELECT access_key_id FROM console_sessions WHERE own_key = 1 AND expires <= ?1)",
        [now],
    )?;
    tx.execute("DELETE FROM console_sessions WHERE expires <= ?1", [now])?;
    credentials::delete_expired_local(tx, now)
}
