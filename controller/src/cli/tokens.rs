//! The commands about GitHub tokens. A token comes from the standard input, because every process
//! can see arguments.

use std::io::{IsTerminal as _, stdin};
use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use super::admin::{AdminError, transact};
use super::data_dir::DataDir;
use super::{help, output};
use crate::registry::tokens::{self, Listed, NewToken, Token, TokenError};
use crate::request::Field as _;
use crate::request::members::TokenName;

#[derive(Debug, Subcommand)]
pub(super) enum GithubToken {
    /// Store the token from the standard input, and link applications to it.
    #[command(after_help = help::ADD_TOKEN)]
    Add {
        #[command(flatten)]
        data: DataDir,
        /// The token's name.
        name: String,
        /// The GitHub account of the token.
        #[arg(long)]
        account: String,
        /// An application to link to it; can be given more than once.
        #[arg(long = "application", value_name = "APPLICATION")]
        applications: Vec<String>,
        /// Replace the token of this name; applications that are linked to it stay linked.
        #[arg(long)]
        replace: bool,
    },
    /// List the tokens and the applications that are linked to them, without their secrets.
    #[command(after_help = help::LIST_TOKENS)]
    List {
        #[command(flatten)]
        data: DataDir,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Link applications to a token, replacing any other link.
    #[command(after_help = help::LINK)]
    Link {
        #[command(flatten)]
        data: DataDir,
        /// The token's name.
        name: String,
        /// The applications' names.
        #[arg(required = true, value_name = "APPLICATION")]
        applications: Vec<String>,
    },
    /// Remove the links between applications and their token.
    #[command(after_help = help::UNLINK)]
    Unlink {
        #[command(flatten)]
        data: DataDir,
        /// The applications' names.
        #[arg(required = true, value_name = "APPLICATION")]
        applications: Vec<String>,
    },
    /// Delete a token and the links to it.
    #[command(after_help = help::REMOVE_TOKEN)]
    Remove {
        #[command(flatten)]
        data: DataDir,
        /// The token's name.
        name: String,
    },
}

pub(super) fn add(
    data_dir: &Path,
    name: String,
    account: String,
    applications: Vec<String>,
    replace: bool,
) -> Result<(), AdminError> {
    let name = TokenName::read(Some(name))?;
    if stdin().is_terminal() {
        return Err(AdminError::TokenOnTerminal);
    }
    let token = Token::read(stdin().lock())?;
    let new = NewToken {
        name,
        account,
        token,
        applications,
        replace,
    };
    transact(data_dir, move |work| {
        tokens::add(work.tx, work.vault, &new)?;
        Ok(work.note("github-token add", &new.name)?)
    })
}

pub(super) fn list(data_dir: &Path, json: bool) -> Result<(), AdminError> {
    let tokens = transact(data_dir, |work| Ok(tokens::all(work.tx)?))?;
    if json {
        return Ok(output::show(json!(tokens))?);
    }
    let line = |token: &Listed| {
        let applications = match token.applications.as_slice() {
            [] => "no application is linked to it".to_owned(),
            names => names.join(" "),
        };
        format!("{}  {}  {applications}\n", token.name, token.account)
    };
    Ok(output::show(tokens.iter().map(line).collect::<String>())?)
}

pub(super) fn link(
    data_dir: &Path,
    name: String,
    applications: Vec<String>,
) -> Result<(), AdminError> {
    transact(data_dir, move |work| {
        tokens::link(work.tx, &name, &applications)?;
        Ok(work.note(
            "github-token link",
            &format!("{name} to {}", applications.join(", ")),
        )?)
    })
}

pub(super) fn unlink(data_dir: &Path, applications: Vec<String>) -> Result<(), AdminError> {
    transact(data_dir, move |work| {
        tokens::unlink(work.tx, &applications)?;
        Ok(work.note("github-token unlink", &applications.join(", "))?)
    })
}

pub(super) fn remove(data_dir: &Path, name: String) -> Result<(), AdminError> {
    transact(data_dir, move |work| {
        if !tokens::remove(work.tx, &name)? {
            return Err(TokenError::Unknown(name).into());
        }
        Ok(work.note("github-token remove", &name)?)
    })
}
