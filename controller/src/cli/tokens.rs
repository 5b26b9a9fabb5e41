//! The commands about GitHub tokens. A token comes from the standard input, because every process
//! can see arguments.

use std::io::{IsTerminal as _, stdin};
use std::path::Path;

use serde_json::json;

use super::admin::{AdminError, transact};
use super::output;
use crate::registry::tokens::{self, Listed, NewToken, Token, TokenError};
use crate::request::Field as _;
use crate::request::members::TokenName;

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
