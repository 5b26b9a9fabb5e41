//! Access keys: who may call which API, made and revoked by the administrator of the data directory.

use codedeploy_api::codedeploy::Timestamp;
use rusqlite::{OptionalExtension, Transaction, named_params};
use serde::Serialize;

use crate::error::ApiError;
use crate::registry::random_text;
use crate::vault::Vault;

/// What an access key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The public API.
    Operator,
    /// The operations of the public API that change nothing.
    ReadOnly,
    /// The agents' API, as the one host whose ARN the key has.
    Host,
}

impl Role {
    fn text(self) -> &'static str {
        match self {
            Role::Operator => "operator",
            Role::ReadOnly => "read-only",
            Role::Host => "host",
        }
    }

    fn read(text: &str) -> Option<Self> {
        [Role::Operator, Role::ReadOnly, Role::Host].into_iter().find(|role| role.text() == text)
    }
}

/// Whose request it is, once its signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub access_key_id: String,
    pub role: Role,
    pub arn: String,
}

/// A new access key. The secret is shown once.
#[derive(Debug, Serialize)]
pub struct AccessKey {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub role: Role,
    pub arn: String,
}

/// An access key as it is listed.
#[derive(Debug, Serialize)]
pub struct Listed {
    pub access_key_id: String,
    pub role: String,
    pub arn: String,
    /// Seconds since the epoch.
    pub created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

/// Makes an access key.
pub fn create(tx: &Transaction<'_>, vault: &Vault, role: Role, arn: &str) -> Result<AccessKey, ApiError> {
    let key = AccessKey {
        access_key_id: format!("AKIA{}", random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)?),
        secret_access_key: random_text(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            40,
        )?,
        role,
        arn: arn.to_owned(),
    };
    tx.execute(
        "INSERT INTO credentials (access_key_id, secret, role, arn, created) VALUES (:id, :secret, :role, :arn, :now)",
        named_params! {
            ":id": key.access_key_id,
            ":secret": vault.seal(&key.access_key_id, &key.secret_access_key)?,
            ":role": role.text(),
            ":arn": arn,
            ":now": Timestamp::now().millis(),
        },
    )?;
    Ok(key)
}

/// The owner of an access key that is not revoked, and its sealed secret.
pub fn find(tx: &Transaction<'_>, access_key_id: &str) -> rusqlite::Result<Option<(Principal, Vec<u8>)>> {
    let row = tx
        .prepare_cached(
            "SELECT role, arn, secret FROM credentials WHERE access_key_id = ?1 AND revoked IS NULL",
        )?
        .query_row([access_key_id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    Ok(row.and_then(|(role, arn, secret)| {
        let principal = Principal { access_key_id: access_key_id.to_owned(), role: Role::read(&role)?, arn };
        Some((principal, secret))
    }))
}

pub fn list(tx: &Transaction<'_>) -> rusqlite::Result<Vec<Listed>> {
    tx.prepare_cached("SELECT access_key_id, role, arn, created, revoked FROM credentials ORDER BY created")?
        .query_map([], |row| {
            Ok(Listed {
                access_key_id: row.get(0)?,
                role: row.get(1)?,
                arn: row.get(2)?,
                created: Timestamp::from_millis(row.get(3)?),
                revoked: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
            })
        })?
        .collect()
}

/// Revokes every access key of role host that stands for an ARN.
pub fn revoke_host(tx: &Transaction<'_>, arn: &str) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE credentials SET revoked = ?3 WHERE arn = ?1 AND role = ?2 AND revoked IS NULL",
        (arn, Role::Host.text(), Timestamp::now().millis()),
    )?;
    Ok(())
}

/// Revokes an access key at once; false when there is none to revoke.
pub fn revoke(tx: &Transaction<'_>, access_key_id: &str) -> rusqlite::Result<bool> {
    let revoked = tx.execute(
        "UPDATE credentials SET revoked = ?2 WHERE access_key_id = ?1 AND revoked IS NULL",
        (access_key_id, Timestamp::now().millis()),
    )?;
    Ok(revoked > 0)
}
