//! The web console.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::events::Secret;
use super::identity_providers::Provider;

/// The settings of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// The time after which a user must log in again.
    pub session: Duration,
    /// The identity provider at which users log in, if there is one.
    pub login: Option<Login>,
}

/// Logging in at an identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Its name in `identity_providers`.
    pub provider: String,
    /// Its claim `iss`.
    pub issuer: String,
    /// The name of the console at the provider.
    pub client_id: String,
    /// The file of the console's password at the provider, if it has one.
    client_secret_file: Option<PathBuf>,
    /// The scopes to ask for, separated by spaces.
    pub scopes: String,
    /// The roles in the order in which a user's claims are compared with theirs.
    pub roles: Vec<String>,
}

/// The section of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as session_hours, or {}")]
pub(super) struct FileConsole {
    session_hours: Option<f64>,
    login: Option<FileLogin>,
}

#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "keys such as provider, client_id and roles"
)]
struct FileLogin {
    provider: String,
    client_id: String,
    client_secret_file: Option<PathBuf>,
    scopes: Option<Vec<String>>,
    roles: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error("console.session_hours is {0}: expected a number of hours from 0.01 to 720")]
    Session(f64),
    #[error(
        "console.login.provider is {name:?}: expected a name of identity_providers, which has {}",
        listed(known)
    )]
    Provider { name: String, known: Vec<String> },
    #[error("console.login.client_id is {0:?}: expected the name of the console at the provider")]
    Client(String),
    #[error("console.login.client_secret_file is {}: expected an absolute path", .0.display())]
    Relative(PathBuf),
    #[error("cannot read the file of console.login.client_secret_file, {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "the file of console.login.client_secret_file, {}, is empty or has several lines: expected the secret that the \
         provider made for this client", .0.display()
    )]
    Secret(PathBuf),
    #[error(
        "console.login.scopes has {0:?}: expected names such as email or groups, without spaces"
    )]
    Scope(String),
    #[error(
        "console.login.roles is empty: name the roles of identity_providers.{0} that people get"
    )]
    NoRoles(String),
    #[error(
        "console.login.roles has {name:?}: expected a name of identity_providers.{provider}.roles, which has {}",
        listed(known)
    )]
    Role {
        name: String,
        provider: String,
        known: Vec<String>,
    },
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// A working day.
const SESSION_HOURS: f64 = 12.0;

/// The scope that makes a request one of OpenID Connect.
const OPENID: &str = "openid";

/// The longest secret of a client, in bytes.
const MAX_SECRET: u64 = 4096;

impl FileConsole {
    /// The providers are passed if they are known.
    pub(super) fn settle(
        self,
        providers: Option<&[Provider]>,
    ) -> Result<Console, Vec<ConsoleError>> {
        let mut mistakes = Vec::new();
        let hours = self.session_hours.unwrap_or(SESSION_HOURS);
        if !(0.01..=720.0).contains(&hours) {
            mistakes.push(ConsoleError::Session(hours));
        }
        let login = self
            .login
            .and_then(|login| login.settle(providers, &mut mistakes));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Console {
            session: Duration::from_secs_f64(hours * 3600.0),
            login,
        })
    }
}

impl FileLogin {
    fn settle(
        self,
        providers: Option<&[Provider]>,
        mistakes: &mut Vec<ConsoleError>,
    ) -> Option<Login> {
        let is_text = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_text(&self.client_id) {
            mistakes.push(ConsoleError::Client(self.client_id.clone()));
        }
        if let Some(path) = self
            .client_secret_file
            .as_ref()
            .filter(|path| !path.is_absolute())
        {
            mistakes.push(ConsoleError::Relative(path.clone()));
        }
        let scopes = self
            .scopes
            .unwrap_or_else(|| vec!["email".into(), "profile".into()]);
        let wrong = scopes.iter().filter(|scope| !is_text(scope));
        mistakes.extend(wrong.map(|scope| ConsoleError::Scope(scope.clone())));
        let mut asked = vec![OPENID.to_owned()];
        asked.extend(scopes.into_iter().filter(|scope| scope != OPENID));
        if self.roles.is_empty() {
            mistakes.push(ConsoleError::NoRoles(self.provider.clone()));
        }
        let providers = providers?;
        let Some(provider) = providers.iter().find(|one| one.name == self.provider) else {
            mistakes.push(ConsoleError::Provider {
                name: self.provider,
                known: providers.iter().map(|one| one.name.clone()).collect(),
            });
            return None;
        };
        let missing = self
            .roles
            .iter()
            .filter(|name| !provider.roles.contains_key(*name));
        mistakes.extend(missing.map(|name| ConsoleError::Role {
            name: name.clone(),
            provider: provider.name.clone(),
            known: provider.roles.keys().cloned().collect(),
        }));
        Some(Login {
            issuer: provider.issuer.clone(),
            provider: self.provider,
            client_id: self.client_id,
            client_secret_file: self.client_secret_file,
            scopes: asked.join(" "),
            roles: self.roles,
        })
    }
}

impl Login {
    /// The file with the secret, if there is one.
    pub(crate) fn secret_file(&self) -> Option<&Path> {
        self.client_secret_file.as_deref()
    }

    /// Reads the secret, if there is one.
    pub(crate) fn secret(&self) -> Result<Option<Secret>, ConsoleError> {
        self.secret_file().map(read).transpose()
    }
}

fn read(path: &Path) -> Result<Secret, ConsoleError> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET).read_to_string(&mut text))
        .map_err(|source| ConsoleError::Read {
            path: path.to_owned(),
            source,
        })?;
    let secret = text.trim();
    if secret.is_empty() || secret.contains(char::is_control) {
        return Err(ConsoleError::Secret(path.to_owned()));
    }
    Ok(Secret(secret.to_owned()))
}
