//! The commands that work on the data directory, whether the service runs or not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use rusqlite::Transaction;
use serde_json::json;

use super::console::{self, ConsoleError};
use super::hosts::HostError;
use super::table::{table, when};
use crate::config::{ConfigError, Partition, Quotas, Timers};
use crate::credentials::{self, AccessKey, Listed, Role};
use crate::error::ApiError;
use crate::page::Pages;
use crate::registry::Context;
use crate::registry::instances::Identity;
use crate::registry::partition;
use crate::registry::tokens::TokenError;
use crate::server::Announcement;
use crate::service::{Lock, OpenError, database, must_exist, open_store, prepare};
use crate::signing::{Signer, SigningError};
use crate::store::StoreError;
use crate::store::backup::{self, BackupError};
use crate::tls::Authority;
use crate::traffic::Balancers;
use crate::vault::{Vault, VaultError};

#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database refused a statement")]
    Database(#[from] rusqlite::Error),
    #[error("refused")]
    Refused(#[from] ApiError),
    #[error(
        "{0:?} is not an IAM user ARN (arn:aws:iam::<account>:user/<name>) or a session ARN (arn:aws:sts::<account>:assumed-role/<role>/<session>)"
    )]
    Arn(String),
    #[error(
        "a key of role host needs --user-arn, the identity its instance is registered with; `host add` does both"
    )]
    HostArn,
    #[error("there is no access key {0:?} that is not revoked already")]
    NoSuchKey(String),
    #[error(
        "there is no authority in {}: it is made when the service first runs with tls.self_signed: true", .0.display()
    )]
    NoAuthority(PathBuf),
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the standard input is a terminal, where a token would be seen: expected `codedeploy-controller github-token add … < FILE`"
    )]
    TokenOnTerminal,
}

/// Reads `90s`, `30m`, `12h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: expected a number and s, m, h or d, such as 12h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return Err(wrong()),
    };
    let number: u32 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    let duration = Duration::from_secs(u64::from(number) * seconds);
    let longest = Duration::from_secs(366 * 86400);
    if duration.is_zero() || duration > longest {
        return Err(format!("{text:?} is not between 1s and 366d"));
    }
    Ok(duration)
}

/// Where the resources of a data directory are; in one of an earlier version, where its service said last.
fn partition(tx: &Transaction<'_>, data_dir: &Path) -> Result<Partition, AdminError> {
    if let Some(own) = partition::of(tx)? {
        return Ok(own);
    }
    Ok(match Announcement::read(data_dir) {
        Some(service) => Partition::new(Some(service.region), Some(service.account_id)),
        None => Partition::new(None, None),
    }?)
}

/// Runs `work` as one transaction on a data directory, as the operations of its service are run.
pub(super) fn transact<T: Send + 'static>(
    data_dir: &Path,
    work: impl FnOnce(&Context<'_>) -> Result<T, AdminError> + Send + 'static,
) -> Result<T, AdminError> {
    must_exist(data_dir)?;
    let vault = Vault::open(data_dir)?;
    let folder = data_dir.to_owned();
    open_store(data_dir)?.transact_blocking(move |tx| {
        let partition = partition(tx, &folder)?;
        work(&Context {
            tx,
            now: Timestamp::now(),
            partition: &partition,
            quotas: &Quotas::default(),
            timers: &Timers::default(),
            balancers: &Balancers::default(),
            pages: &Pages::new(vault.page_key()),
            vault: &vault,
        })
    })
}

pub(super) fn create_credentials(
    data_dir: &Path,
    role: Role,
    user_arn: Option<String>,
    lifetime: Option<Duration>,
    json: bool,
) -> Result<(), AdminError> {
    transact(data_dir, move |context| {
        let account_id = &context.partition.account_id;
        let arn = match (user_arn, role) {
            (Some(arn), _) if Identity::user(&arn).or_else(|| Identity::session(&arn)).is_some() => arn,
            (Some(arn), _) => return Err(AdminError::Arn(arn)),
            (None, Role::Host) => return Err(AdminError::HostArn),
            (None, Role::Operator) => format!("arn:aws:iam::{account_id}:user/operator"),
            (None, Role::ReadOnly) => format!("arn:aws:iam::{account_id}:user/read-only"),
        };
        let key = credentials::create(context.tx, context.vault, role, &arn, lifetime)?;
        Ok(if json { console::hand_over(json!(key)) } else { console::hand_over(as_text(&key)) }?)
    })
}

fn as_text(key: &AccessKey) -> String {
    let AccessKey { arn, access_key_id, secret_access_key, .. } = key;
    let token = key.session_token.as_ref().map(|token| format!("aws_session_token = {token}\n"));
    format!(
        "# Access key for {arn}; the secret is not shown again.\naws_access_key_id = {access_key_id}\n\
         aws_secret_access_key = {secret_access_key}\n{}",
        token.unwrap_or_default()
    )
}

/// Without `all`, those that nobody can use any more are left out.
pub(super) fn list_credentials(data_dir: &Path, all: bool, json: bool) -> Result<(), AdminError> {
    let mut keys = transact(data_dir, |context| Ok(credentials::list(context.tx)?))?;
    let now = Timestamp::now();
    keys.retain(|key| all || key.state(now) == "active");
    if json {
        return Ok(console::show(json!(keys))?);
    }
    let row = |key: &Listed| {
        let (created, expires) = (when(Some(key.created)), when(key.expires));
        let (id, role, arn) = (key.access_key_id.clone(), key.role.clone(), key.arn.clone());
        [id, key.state(now).to_owned(), role, created, expires, arn]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    Ok(console::show(table(["ACCESS KEY ID", "STATE", "ROLE", "CREATED", "EXPIRES", "ARN"], &rows))?)
}

pub(super) fn revoke_credentials(data_dir: &Path, access_key_id: String) -> Result<(), AdminError> {
    let id = access_key_id.clone();
    let revoked = transact(data_dir, move |context| Ok(credentials::revoke(context.tx, &id)?))?;
    if !revoked {
        return Err(AdminError::NoSuchKey(access_key_id));
    }
    console::remark(format_args!("{access_key_id} is revoked: the service refuses it from now on"));
    Ok(())
}

pub(super) fn show_signer(data_dir: &Path) -> Result<(), AdminError> {
    must_exist(data_dir)?;
    let signer = Signer::open(data_dir)?;
    let (certificate, pin) = (signer.certificate_pem()?, signer.pin()?);
    Ok(console::show(format_args!("{certificate}deployment_signer_pin: {pin}"))?)
}

pub(super) fn show_certificate(data_dir: &Path) -> Result<(), AdminError> {
    must_exist(data_dir)?;
    let authority = Authority::certificate_pem(data_dir);
    Ok(console::show(authority.ok_or_else(|| AdminError::NoAuthority(data_dir.to_owned()))?)?)
}

pub(super) fn back_up(data_dir: &Path, file: &Path) -> Result<(), AdminError> {
    backup::backup(&database(data_dir), file)?;
    console::remark(format_args!(
        "{} has the database. The keys beside it in {} (master.key, signer-key.der, tls-authority-key.der) and the \
         revisions of s3 are not in this file: keep copies of them too",
        file.display(),
        data_dir.display()
    ));
    Ok(())
}

pub(super) fn restore(data_dir: &Path, file: &Path) -> Result<(), AdminError> {
    prepare(data_dir)?;
    let _lock = Lock::take(data_dir)?;
    if let Some(before) = backup::restore(&database(data_dir), file)? {
        console::remark(format_args!("The database that was there is kept as {}", before.display()));
    }
    Ok(())
}
