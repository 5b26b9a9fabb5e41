//! GitHub tokens, with which hosts fetch revisions of linked applications from private
//! repositories.
//!
//! AWS makes them only in its console; here the administrator of the data directory adds them. A
//! token is encrypted before it is stored, and decrypted for one purpose: the specification of a
//! running deployment, for one of its hosts.

use std::fmt;
use std::io::{self, Read};

use codedeploy_api::codedeploy::*;
use serde::Serialize;

use super::by_name;
use crate::error::{ApiError, ErrorName};
use crate::request;
use crate::request::members::TokenName;
use crate::store::{SqlError, Tx, named};
use crate::transaction::Context;
use crate::vault::{Vault, VaultError};

/// The number of tokens, as on AWS.
const MOST: usize = 25;

/// The longest token, in bytes.
const LONGEST: u64 = 4096;

/// A secret that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A token to be stored.
#[derive(Debug)]
pub struct NewToken {
    pub name: TokenName,
    pub account: String,
    pub token: Token,
    /// The names of the applications to link.
    pub applications: Vec<String>,
    /// Replace the token of this name.
    pub replace: bool,
}

/// A token in a list.
#[derive(Debug, Serialize)]
pub struct Listed {
    pub name: String,
    pub account: String,
    /// Seconds since the epoch.
    pub created: Timestamp,
    /// The names of the linked applications.
    pub applications: Vec<String>,
}

/// A stored token.
#[derive(Debug)]
pub(crate) struct StoredToken {
    name: String,
    sealed: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read the token from the standard input")]
    Read(#[source] io::Error),
    #[error(
        "the standard input is empty: expected the token, as in `codedeploy-controller github-token add … < FILE`"
    )]
    Empty,
    #[error(
        "the standard input contains no token: expected one line of at most {LONGEST} letters, digits and signs"
    )]
    NotAToken,
    #[error(
        "{0:?} is not the name of a GitHub account: expected 1 to 39 letters, digits, hyphens and underscores"
    )]
    Account(String),
    #[error(
        "there is a GitHub token {0:?} already: choose another name, or give --replace to replace it"
    )]
    Exists(String),
    #[error(
        "there is no GitHub token {0:?}; `codedeploy-controller github-token list` lists all tokens"
    )]
    Unknown(String),
    #[error("there are already {MOST} GitHub tokens, which is the maximum: remove one first")]
    TooMany,
    #[error(
        "there is no application {0:?}: create it first, or see `aws deploy list-applications`"
    )]
    Application(String),
    #[error("the database refused a statement")]
    Database(#[from] SqlError),
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl Token {
    /// Reads a token to the end; surrounding white space does not count.
    pub fn read(source: impl Read) -> Result<Self, TokenError> {
        let mut bytes = Vec::new();
        source
            .take(LONGEST + 2)
            .read_to_end(&mut bytes)
            .map_err(TokenError::Read)?;
        let token = bytes.trim_ascii();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        // It becomes part of a header.
        let fits = token.len() as u64 <= LONGEST && token.iter().all(u8::is_ascii_graphic);
        let token = std::str::from_utf8(token).ok().filter(|_| fits);
        token
            .map(|token| Token(token.to_owned()))
            .ok_or(TokenError::NotAToken)
    }

    /// The secret, for the one document that contains it.
    pub(crate) fn reveal(self) -> String {
        self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl StoredToken {
    pub(crate) fn open(&self, vault: &Vault) -> Result<Token, VaultError> {
        vault.unseal(&owner(&self.name), &self.sealed).map(Token)
    }
}

/// The owner that a token is encrypted for: it decrypts only under its own name, and no access
/// key's secret decrypts under it.
fn owner(name: &str) -> String {
    format!("GitHub token {name}")
}

/// Stores a token and links applications to it, as a whole or not at all.
pub fn add(tx: &Tx<'_>, vault: &Vault, new: &NewToken) -> Result<(), TokenError> {
    let NewToken {
        name,
        account,
        token,
        applications,
        replace,
    } = new;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=39).contains(&account.len()) || !account.chars().all(allowed) {
        return Err(TokenError::Account(account.clone()));
    }
    let exists = exists(tx, name)?;
    if exists && !replace {
        return Err(TokenError::Exists(name.to_string()));
    }
    let count: usize = tx.query_one("SELECT count(*) FROM github_tokens", (), |row| row.get(0))?;
    if !exists && count >= MOST {
        return Err(TokenError::TooMany);
    }
    tx.execute(
        "INSERT INTO github_tokens (name, account, token, created) VALUES (:name, :account, :token, :now)
         ON CONFLICT (name) DO UPDATE
             SET account = excluded.account, token = excluded.token, created = excluded.created",
        named! {
            ":name": &**name,
            ":account": account,
            ":token": vault.seal(&owner(name), &token.0)?,
            ":now": Timestamp::now(),
        },
    )?;
    link(tx, name, applications)
}

/// Links applications to a token, replacing any other link.
pub fn link(tx: &Tx<'_>, name: &str, applications: &[String]) -> Result<(), TokenError> {
    if !exists(tx, name)? {
        return Err(TokenError::Unknown(name.to_owned()));
    }
    set(tx, Some(name), applications)
}

/// Removes the links between applications and their token.
pub fn unlink(tx: &Tx<'_>, applications: &[String]) -> Result<(), TokenError> {
    set(tx, None, applications)
}

fn set(tx: &Tx<'_>, token: Option<&str>, applications: &[String]) -> Result<(), TokenError> {
    for name in applications {
        if tx.execute(
            "UPDATE applications SET github_token = ?2 WHERE name = ?1",
            (name, token),
        )? == 0
        {
            return Err(TokenError::Application(name.clone()));
        }
    }
    Ok(())
}

/// Deletes a token and the links to it; returns false if there is none.
pub fn remove(tx: &Tx<'_>, name: &str) -> Result<bool, SqlError> {
    Ok(tx.execute("DELETE FROM github_tokens WHERE name = ?1", [name])? > 0)
}

fn exists(tx: &Tx<'_>, name: &str) -> Result<bool, SqlError> {
    tx.exists("SELECT 1 FROM github_tokens WHERE name = ?1", [name])
}

/// Returns every token with its linked applications, by name.
pub fn all(tx: &Tx<'_>) -> Result<Vec<Listed>, SqlError> {
    tx.query_all(
        "SELECT name, account, created FROM github_tokens ORDER BY name",
        (),
        |row| {
            let name: String = row.get(0)?;
            let applications = tx.query_all(
                "SELECT name FROM applications WHERE github_token = ?1 ORDER BY name",
                [&name],
                |row| row.get(0),
            )?;
            let created = row.get(2)?;
            Ok(Listed {
                name,
                account: row.get(1)?,
                created,
                applications,
            })
        },
    )
}

/// Returns the token that the application of a deployment group is linked to.
pub(crate) fn of_group(tx: &Tx<'_>, group_id: &str) -> Result<Option<StoredToken>, SqlError> {
    tx.query_opt(
        "SELECT t.name, t.token FROM deployment_groups g
         JOIN applications a ON a.id = g.application_id
         JOIN github_tokens t ON t.name = a.github_token
         WHERE g.id = ?1",
        [group_id],
        |row| {
            Ok(StoredToken {
                name: row.get(0)?,
                sealed: row.get(1)?,
            })
        },
    )
}

pub fn list(
    context: &Context<'_>,
    request: request::ListGitHubAccountTokenNames,
) -> Result<ListGitHubAccountTokenNamesOutput, ApiError> {
    let listing = context
        .pages
        .listing("tokens", request.next_token.as_deref())?;
    let (names, next_token) = listing.query(
        context.tx,
        "SELECT name FROM github_tokens WHERE name > ?1 ORDER BY name",
        [listing.after_name()],
        by_name,
    )?;
    Ok(ListGitHubAccountTokenNamesOutput {
        token_name_list: Some(names),
        next_token,
    })
}

pub fn delete(
    context: &Context<'_>,
    request: request::DeleteGitHubAccountToken,
) -> Result<DeleteGitHubAccountTokenOutput, ApiError> {
    if !remove(context.tx, &request.token_name)? {
        return Err(ErrorName::GitHubAccountTokenDoesNotExist.because(format!(
            "No GitHub account token found for name: {}",
            request.token_name
        )));
    }
    Ok(DeleteGitHubAccountTokenOutput {
        token_name: Some(request.token_name.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_not_shown() {
        let token = Token::read(&b" ghp_abc \n"[..]).unwrap();
        assert_eq!(token, Token("ghp_abc".into()));
        assert!(!format!("{token:?}").contains("ghp_abc"));
        assert!(matches!(Token::read(&b" \n"[..]), Err(TokenError::Empty)));
        for wrong in [
            &b"ghp_abc\nghp_def"[..],
            b"ghp abc",
            b"ghp_\xff",
            &[b'x'; 5000],
        ] {
            assert!(matches!(Token::read(wrong), Err(TokenError::NotAToken)));
        }
        assert!(Token::read(&[b'x'; 4096][..]).is_ok());
    }
}
