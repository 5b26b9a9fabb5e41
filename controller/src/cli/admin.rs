//! The commands on the data directory, for a running or a stopped service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use serde_json::json;

use super::data_dir::DataDir;
use super::hosts::HostError;
use super::output::{self, OutputError};
use super::table::{table, when};
use crate::config::{ConfigError, Partition};
use crate::credentials::{self, AccessKey, Listed, Role, Scope};
use crate::error::ApiError;
use crate::identity::Identity;
use crate::keys::{Key, KeyError, Keys};
use crate::new_file::{NewFile, NewFileError};
use crate::privileges::PrivilegesError;
use crate::registry::tokens::TokenError;
use crate::registry::{applications, audit, groups, partition};
use crate::request::Field as _;
use crate::request::members::{ApplicationName, GroupName};
use crate::server::Announcement;
use crate::service::{Lock, OpenError, database, must_exist, open_store, prepare};
use crate::signing::{Signer, SigningError};
use crate::store::backup::{self, Backup, BackupError, Restored, Revocations};
use crate::store::{SqlError, StoreError, Tx};
use crate::tls::Authority;
use crate::vault::{Vault, VaultError};

#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database refused a statement")]
    Database(#[from] SqlError),
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
    #[error("the web console is for the roles operator and read-only")]
    HostInConsole,
    #[error(
        "the web console is off: add `console: {{}}` to the configuration file, restart the service, and try again"
    )]
    NoConsole,
    #[error("a key of role host has no scope: it is for its host")]
    HostScope,
    #[error("--group is for one --application: make a key for each, or name whole applications")]
    GroupScope,
    #[error("no active access key {0:?}")]
    NoSuchKey(String),
    #[error(
        "--next is for the signer: only its key can be announced, as hosts can accept two of them"
    )]
    NotAnnounced,
    #[error(
        "there is no authority in {}: it is made when the service first runs with tls.self_signed: true", .0.display()
    )]
    NoAuthority(PathBuf),
    #[error(transparent)]
    Print(#[from] OutputError),
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    #[error(transparent)]
    Output(#[from] NewFileError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the standard input is a terminal, where a token would be visible: expected `codedeploy-controller github-token add … < FILE`"
    )]
    TokenOnTerminal,
}

/// Reads `90s`, `30m`, `12h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is not a duration: expected a number and s, m, h or d, such as 12h");
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

/// The partition of a data directory's resources; for a directory of an earlier version, the one
/// that its service last used.
fn partition(tx: &Tx<'_>, data_dir: &Path) -> Result<Partition, AdminError> {
    if let Some(own) = partition::of(tx)? {
        return Ok(own);
    }
    let said = match Announcement::read(data_dir) {
        Some(service) => Partition::new(Some(service.region), Some(service.account_id)),
        None => Partition::new(None, None),
    };
    Ok(said.map_err(ConfigError::of)?)
}

/// The context of a command: one transaction on a data directory, and its settings.
pub(super) struct Work<'a> {
    pub(super) tx: &'a Tx<'a>,
    pub(super) now: Timestamp,
    pub(super) partition: &'a Partition,
    pub(super) vault: &'a Vault,
}

impl Work<'_> {
    /// Records a change for the service's log.
    pub(super) fn note(&self, command: &str, resource: &str) -> Result<(), SqlError> {
        audit::note(self.tx, self.now, command, resource)
    }
}

/// Runs `work` as a whole or not at all.
pub(super) fn transact<T: Send + 'static>(
    data_dir: &Path,
    work: impl FnOnce(&Work<'_>) -> Result<T, AdminError> + Send + 'static,
) -> Result<T, AdminError> {
    must_exist(data_dir)?;
    let store = open_store(data_dir)?;
    let vault = Vault::open(&Keys::of(data_dir, &store))?;
    let folder = data_dir.to_owned();
    store.transact_blocking(move |tx| {
        let partition = partition(tx, &folder)?;
        work(&Work {
            tx,
            now: Timestamp::now(),
            partition: &partition,
            vault: &vault,
        })
    })
}

/// An access key to make.
pub(super) struct NewKey {
    pub(super) role: Role,
    pub(super) user_arn: Option<String>,
    pub(super) lifetime: Option<Duration>,
    pub(super) scopes: Vec<Scope>,
}

/// Returns the scopes of a key for applications, or for groups of one application.
pub(super) fn scopes(
    role: Role,
    applications: Vec<String>,
    groups: Vec<String>,
) -> Result<Vec<Scope>, AdminError> {
    if role == Role::Host && !applications.is_empty() {
        return Err(AdminError::HostScope);
    }
    let applications: Vec<String> = applications
        .into_iter()
        .map(|name| ApplicationName::read(Some(name)).map(Into::into))
        .collect::<Result<_, _>>()?;
    let [application] = applications.as_slice() else {
        if !groups.is_empty() {
            return Err(AdminError::GroupScope);
        }
        let whole = |application| Scope {
            application,
            deployment_group: None,
        };
        return Ok(applications.into_iter().map(whole).collect());
    };
    if groups.is_empty() {
        return Ok(vec![Scope {
            application: application.clone(),
            deployment_group: None,
        }]);
    }
    let scope = |name| {
        Ok(Scope {
            application: application.clone(),
            deployment_group: Some(GroupName::read(Some(name))?.into()),
        })
    };
    groups.into_iter().map(scope).collect()
}

pub(super) fn create_credentials(
    data_dir: &Path,
    new: NewKey,
    json: bool,
) -> Result<(), AdminError> {
    let NewKey {
        role,
        user_arn,
        lifetime,
        scopes,
    } = new;
    let unknown = transact(data_dir, move |work| {
        let account_id = &work.partition.account_id;
        let unknown = unknown(work.tx, &scopes)?;
        let arn = match (user_arn, role) {
            (Some(arn), _)
                if Identity::user(&arn)
                    .or_else(|| Identity::session(&arn))
                    .is_some() =>
            {
                arn
            }
            (Some(arn), _) => return Err(AdminError::Arn(arn)),
            (None, Role::Host) => return Err(AdminError::HostArn),
            (None, Role::Operator) => format!("arn:aws:iam::{account_id}:user/operator"),
            (None, Role::ReadOnly) => format!("arn:aws:iam::{account_id}:user/read-only"),
        };
        let new = credentials::NewKey {
            role,
            arn: arn.clone(),
            lifetime,
            scopes,
            subject: None,
        };
        let key = credentials::create(work.tx, work.vault, new)?;
        work.note(
            "credentials create",
            &format!("{} of {arn}", key.access_key_id),
        )?;
        if json {
            output::hand_over(json!(key))
        } else {
            output::hand_over(as_text(&key))
        }?;
        Ok(unknown)
    })?;
    for what in unknown {
        output::advise(format_args!("warning: there is no {what} yet"));
    }
    Ok(())
}

/// Returns the applications and groups of scopes that do not exist: names of the future, or
/// mistakes.
fn unknown(tx: &Tx<'_>, scopes: &[Scope]) -> Result<Vec<String>, SqlError> {
    let mut unknown = Vec::new();
    for scope in scopes {
        let name = &scope.application;
        if !applications::exists(tx, name)? {
            unknown.push(format!("application {name}"));
        } else if let Some(group) = &scope.deployment_group
            && groups::id_of(tx, name, group)?.is_none()
        {
            unknown.push(format!("deployment group {group} of {name}"));
        }
    }
    unknown.dedup();
    Ok(unknown)
}

fn as_text(key: &AccessKey) -> String {
    let AccessKey {
        arn,
        access_key_id,
        secret_access_key,
        ..
    } = key;
    let token = key
        .session_token
        .as_ref()
        .map(|token| format!("aws_session_token = {token}\n"));
    format!(
        "# Access key for {arn}; the secret is not shown again.\naws_access_key_id = {access_key_id}\n\
         aws_secret_access_key = {secret_access_key}\n{}",
        token.unwrap_or_default()
    )
}

/// Without `all`, unusable keys are left out.
pub(super) fn list_credentials(data_dir: &Path, all: bool, json: bool) -> Result<(), AdminError> {
    let mut keys = transact(data_dir, |work| Ok(credentials::list(work.tx)?))?;
    let now = Timestamp::now();
    keys.retain(|key| all || key.state(now) == "active");
    if json {
        return Ok(output::show(json!(keys))?);
    }
    let row = |key: &Listed| {
        let (created, expires) = (when(Some(key.created)), when(key.expires));
        let (id, role, arn) = (key.access_key_id.clone(), key.role.clone(), key.arn.clone());
        let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
        let scopes = if scopes.is_empty() {
            "all".to_owned()
        } else {
            scopes.join(" ")
        };
        let state = key.state(now).to_owned();
        [id, state, role, created, expires, arn, scopes]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    Ok(output::show(table(
        [
            "ACCESS KEY ID",
            "STATE",
            "ROLE",
            "CREATED",
            "EXPIRES",
            "ARN",
            "SCOPE",
        ],
        &rows,
    ))?)
}

pub(super) fn revoke_credentials(data_dir: &Path, access_key_id: String) -> Result<(), AdminError> {
    let id = access_key_id.clone();
    transact(data_dir, move |work| {
        if !credentials::revoke(work.tx, &id)? {
            return Err(AdminError::NoSuchKey(id));
        }
        Ok(work.note("credentials revoke", &id)?)
    })?;
    output::remark(format_args!(
        "{access_key_id} is revoked: the service rejects it from now on"
    ));
    Ok(())
}

pub(super) fn show_signer(data_dir: &Path) -> Result<(), AdminError> {
    must_exist(data_dir)?;
    let keys = Keys::of(data_dir, &open_store(data_dir)?);
    let signer = Signer::open(&keys)?;
    let (certificate, pin) = (signer.certificate_pem()?, signer.pin()?);
    let Some(next) = Signer::announced(&keys)? else {
        return Ok(output::show(format_args!(
            "{certificate}deployment_signer_pin: {pin}"
        ))?);
    };
    let next = next.pin()?;
    Ok(output::show(format_args!(
        "{certificate}deployment_signer_pin: [\"{pin}\", \"{next}\"]"
    ))?)
}

/// Announces the next signing key, so that hosts can accept it before it signs.
pub(super) fn announce_key(data_dir: &Path, key: Key) -> Result<(), AdminError> {
    if key != Key::Signer {
        return Err(AdminError::NotAnnounced);
    }
    must_exist(data_dir)?;
    let store = open_store(data_dir)?;
    let keys = Keys::of(data_dir, &store);
    let is_new = !keys.has(Key::NextSigner);
    let (present, next) = (Signer::open(&keys)?.pin()?, Signer::announce(&keys)?.pin()?);
    if is_new {
        let what = format!("signer: {next} is announced");
        store.transact_blocking(move |tx| {
            audit::note(tx, Timestamp::now(), "replace-key", &what).map_err(AdminError::Database)
        })?;
    }
    output::show(format_args!(
        "deployment_signer_pin: [\"{present}\", \"{next}\"]"
    ))?;
    output::advise(
        "Put this line into codedeployagent.yml on every host and restart the agents; `host list` shows which hosts accept \
         the next key. Then stop the service, and `codedeploy-controller replace-key signer` makes it the one that signs.",
    );
    Ok(())
}

pub(super) fn show_certificate(data_dir: &Path) -> Result<(), AdminError> {
    must_exist(data_dir)?;
    let authority = Authority::certificate_pem(data_dir);
    Ok(output::show(authority.ok_or_else(|| {
        AdminError::NoAuthority(data_dir.to_owned())
    })?)?)
}

/// Retires a key that is lost, so that a new one can be made.
pub(super) fn replace_key(data_dir: &Path, key: Key) -> Result<(), AdminError> {
    must_exist(data_dir)?;
    let store = open_store(data_dir)?;
    let _lock = Lock::take(data_dir)?;
    let keys = Keys::of(data_dir, &store);
    let promotes = key == Key::Signer && keys.has(Key::NextSigner);
    let replaced = if promotes {
        keys.promote_next_signer()
    } else {
        keys.replace(key)
    };
    for path in replaced? {
        output::remark(format_args!("The old file is kept as {}", path.display()));
    }
    match key {
        Key::Master => {
            let keys = store.transact_blocking(|tx| {
                audit::note(
                    tx,
                    Timestamp::now(),
                    "replace-key",
                    "master: every access key is revoked",
                )?;
                Ok::<_, AdminError>(credentials::revoke_all(tx)?)
            })?;
            output::remark(format_args!(
                "The secrets that it encrypted are lost: {keys} access keys are revoked. Make new ones (credentials \
                 create; host remove and host add), and store GitHub tokens again (github-token add --replace)."
            ));
        }
        Key::Signer if promotes => output::remark(
            "The announced key signs from the next start on. Hosts that accept it continue as before; remove the old digest \
             from their deployment_signer_pin when all of them do.",
        ),
        Key::Signer | Key::NextSigner => output::remark(
            "The next start makes a new key. Agents that pin the old key reject every deployment until their \
             deployment_signer_pin is the value that `codedeploy-controller signer` shows.",
        ),
        Key::Authority => output::remark(
            "The next start makes a new key. Hosts and clients trust the service again once they have the certificate that \
             `codedeploy-controller certificate` shows.",
        ),
    }
    Ok(())
}

pub(super) fn back_up(data: &DataDir, file: &Path) -> Result<(), AdminError> {
    let copy = NewFile::create(file.to_owned())?;
    data.visit(|data_dir| backup::backup(&database(data_dir), &copy.to_write()))??;
    copy.keep()?;
    output::remark(format_args!(
        "{} has the database. Not included: the key files in {} (master.key, signer-key.der, tls-authority-key.der) and the \
         S3 revisions. Copy them separately",
        file.display(),
        data.path().display()
    ));
    Ok(())
}

pub(super) fn restore(data: &DataDir, file: &Path) -> Result<(), AdminError> {
    // A file in the data directory is read as the directory's owner.
    let copy = if data.holds(file) {
        data.visit(|_| Backup::open(file))?
    } else {
        Backup::open(file)
    }?;
    let data_dir = data.enter()?;
    prepare(data_dir)?;
    let _lock = Lock::take(data_dir)?;
    let Restored { kept, revocations } = copy.restore(&database(data_dir))?;
    if let Some(kept) = kept {
        output::remark(format_args!(
            "The replaced database is kept as {}",
            kept.display()
        ));
    }
    match revocations {
        Revocations::Kept { keys: 0, hosts: 0 } => {}
        Revocations::Kept { keys, hosts } => output::remark(format_args!(
            "Still revoked or removed, although the backup is older: {keys} access keys, {hosts} hosts."
        )),
        Revocations::Unknown { good } if good.is_empty() => {}
        Revocations::Unknown { good } => output::remark(format_args!(
            "The replaced database is missing or unreadable, so later revocations and removals are unknown. These \
             access keys are valid now; revoke those that should not be (credentials revoke, host remove):\n{}",
            good.join("\n")
        )),
    }
    Ok(())
}
