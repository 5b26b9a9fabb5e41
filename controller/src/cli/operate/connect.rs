//! The way to the controller: its URL and an access key. On the controller's own host, the key is
//! made in the data directory for the time of one command, so that whoever may read that directory
//! needs no other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use codedeploy_api::codedeploy::Timestamp;

use super::OperateError;
use super::aws_profile::Profile;
use crate::cli::admin::{AdminError, transact};
use crate::client::{Client, Keys};
use crate::config::DEFAULT_DATA_DIR;
use crate::credentials::{self, NewKey, Role};
use crate::outgoing::Outgoing;
use crate::privileges;
use crate::server::Announcement;
use crate::service::{DATA_DIR_VARIABLE, database};
use crate::tls::Authority;

/// The region of controllers without another one.
const REGION: &str = "us-east-1";
/// The lifetime of a key for one command. A command that takes longer gets another one.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Args)]
pub(in crate::cli) struct Connection {
    /// URL of the controller [default: AWS_ENDPOINT_URL_CODEDEPLOY, AWS_ENDPOINT_URL or the
    /// profile's endpoint_url; else the controller of this host, which needs no key].
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Data directory of the controller of this host; takes precedence over the environment's URL
    /// [default: CODEDEPLOY_CONTROLLER_DATA_DIR or /var/lib/codedeploy-controller].
    #[arg(long, value_name = "FOLDER", conflicts_with = "endpoint")]
    data_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// The rights that a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Reads,
    Changes,
}

impl Access {
    fn role(self) -> Role {
        match self {
            Access::Reads => Role::ReadOnly,
            Access::Changes => Role::Operator,
        }
    }
}

/// A connection to a controller for one command.
pub(super) struct Session {
    client: Client,
    /// The key that was made for this command.
    local: Option<Local>,
}

impl Session {
    /// Whether the key is one for the whole fleet, made for this command.
    pub(super) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Returns the client; its key is good for minutes.
    pub(super) fn client(&mut self) -> Result<&Client, OperateError> {
        if let Some(local) = &mut self.local
            && local.made.elapsed() > LIFETIME / 2
        {
            // The earlier key is deleted with its value.
            let next = Local::make(&local.data_dir, local.access)?;
            self.client = next.client()?;
            *local = next;
        }
        Ok(&self.client)
    }
}

impl Connection {
    #[allow(
        clippy::disallowed_methods,
        reason = "the environment of AWS's clients is read once, here"
    )]
    pub(super) fn open(&self, access: Access) -> Result<Session, OperateError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        if let Some(data_dir) = &self.data_dir {
            return here(data_dir, access);
        }
        let profile = Profile::find(&variable)?;
        let endpoint = self.endpoint.clone().or_else(|| profile.endpoint.clone());
        if let Some(endpoint) = endpoint {
            return there(endpoint, profile);
        }
        let data_dir = variable(DATA_DIR_VARIABLE).unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        here(Path::new(&data_dir), access)
    }
}

/// Connects to a controller anywhere, with a key of the environment.
fn there(endpoint: String, profile: Profile) -> Result<Session, OperateError> {
    let Some(keys) = profile.keys else {
        return Err(OperateError::NoKeys { endpoint });
    };
    let region = profile.region.unwrap_or_else(|| REGION.to_owned());
    let outgoing = Outgoing::open(profile.ca_bundle.as_deref())?;
    Ok(Session {
        client: Client::new(&endpoint, region, keys, outgoing)?,
        local: None,
    })
}

/// Connects to the controller of this host.
fn here(data_dir: &Path, access: Access) -> Result<Session, OperateError> {
    match database(data_dir).try_exists() {
        Ok(true) => {}
        Ok(false) => {
            return Err(OperateError::NoController {
                data_dir: data_dir.to_owned(),
            });
        }
        Err(_) => {
            return Err(OperateError::NotAllowed {
                data_dir: data_dir.to_owned(),
            });
        }
    }
    let local = Local::make(data_dir, access)?;
    Ok(Session {
        client: local.client()?,
        local: Some(local),
    })
}

/// A key in the data directory of a controller. It is deleted with this value.
struct Local {
    data_dir: PathBuf,
    access: Access,
    made: Instant,
    keys: Keys,
}

impl Local {
    fn make(data_dir: &Path, access: Access) -> Result<Self, OperateError> {
        let name = login_name();
        let key = privileges::as_owner(data_dir, move |data_dir| {
            transact(data_dir, move |work| {
                let account_id = &work.partition.account_id;
                let arn = format!(
                    "arn:aws:iam::{account_id}:user/{}{name}",
                    credentials::LOCAL
                );
                credentials::delete_expired_local(work.tx, Timestamp::now())?;
                let new = NewKey {
                    role: access.role(),
                    arn,
                    lifetime: Some(LIFETIME),
                    scopes: Vec::new(),
                    subject: None,
                };
                Ok(credentials::create(work.tx, work.vault, new)?)
            })
        })??;
        Ok(Local {
            data_dir: data_dir.to_owned(),
            access,
            made: Instant::now(),
            keys: Keys {
                access_key_id: key.access_key_id,
                secret_access_key: key.secret_access_key,
                session_token: key.session_token,
            },
        })
    }

    fn client(&self) -> Result<Client, OperateError> {
        let (announcement, authority) = privileges::as_owner(&self.data_dir, |data_dir| {
            (
                Announcement::read(data_dir),
                Authority::certificate_pem(data_dir),
            )
        })?;
        let announcement = announcement.ok_or_else(|| OperateError::NoController {
            data_dir: self.data_dir.clone(),
        })?;
        let own = !announcement.self_signed_for.is_empty();
        let outgoing = match authority.filter(|_| own) {
            Some(pem) => Outgoing::trusting(&pem).map_err(OperateError::Authority)?,
            None => Outgoing::open(None)?,
        };
        Ok(Client::new(
            &announcement.url_here(),
            announcement.region,
            self.keys.clone(),
            outgoing,
        )?)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let id = self.keys.access_key_id.clone();
        let deleted = privileges::as_owner(&self.data_dir, move |data_dir| {
            transact(data_dir, move |work| {
                credentials::delete(work.tx, &id).map_err(AdminError::from)
            })
        });
        // It expires by itself.
        drop(deleted);
    }
}

/// Returns the name of the person at the command line: the user of the login, even after sudo, else
/// the present one.
pub(in crate::cli) fn login_name() -> String {
    let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    let uid = login.trim().parse().ok().filter(|uid| *uid != u32::MAX);
    let uid = uid.unwrap_or_else(|| rustix::process::getuid().as_raw());
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(&users, uid).unwrap_or_else(|| format!("uid-{uid}"))
}

/// Returns the name of a user in the text of `/etc/passwd`, if an ARN can have it.
fn name_of(users: &str, uid: u32) -> Option<String> {
    let names = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, own) = (fields.next()?, fields.nth(1)?);
        (own.parse() == Ok(uid)).then_some(name)
    });
    let fits = |name: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        (1..=64).contains(&name.len()) && name.chars().all(allowed)
    };
    names.into_iter().find(fits).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_the_names_of_the_system() {
        let users = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\na b:x:7:7::/:/bin/sh\n";
        assert_eq!(name_of(users, 1000).as_deref(), Some("alice"));
        assert_eq!(name_of(users, 7), None);
        assert_eq!(name_of(users, 12), None);
    }

    #[test]
    fn the_service_of_this_host_is_called_by_an_address_that_its_certificate_has() {
        for (address, tls, own, endpoint, expected) in [
            (
                "127.0.0.1:7080",
                false,
                false,
                None,
                "http://127.0.0.1:7080",
            ),
            (
                "0.0.0.0:7080",
                false,
                false,
                Some("https://d.example"),
                "http://localhost:7080",
            ),
            (
                "0.0.0.0:7080",
                true,
                true,
                Some("https://d.example"),
                "https://localhost:7080",
            ),
            ("10.0.0.5:7080", true, true, None, "https://10.0.0.5:7080"),
            (
                "0.0.0.0:443",
                true,
                false,
                Some("https://d.example"),
                "https://d.example",
            ),
        ] {
            let announcement = Announcement {
                address: address.parse().unwrap(),
                region: REGION.into(),
                account_id: String::new(),
                endpoint: endpoint.map(str::to_owned),
                self_signed_for: own.then(|| "localhost".to_owned()).into_iter().collect(),
                tls,
                has_s3: false,
                metrics: None,
                has_console: false,
            };
            assert_eq!(announcement.url_here(), expected);
        }
    }
}
