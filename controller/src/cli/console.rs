//! The login link of the web console.

use super::admin::{AdminError, transact};
use super::data_dir::DataDir;
use super::output;
use crate::console::session::{self, Rights};
use crate::credentials::{LOCAL, Role, Scope};
use crate::identity::Identity;
use crate::server::Announcement;

/// Prints a link that logs in once.
pub(super) fn offer(
    data: &DataDir,
    role: Role,
    user_arn: Option<String>,
    scopes: Vec<Scope>,
) -> Result<(), AdminError> {
    if role == Role::Host {
        return Err(AdminError::HostInConsole);
    }
    // Root acts as the owner of the directory after this.
    let name = super::operate::login_name();
    let data_dir = data.enter()?;
    let service = Announcement::read(data_dir).filter(|service| service.has_console);
    let service = service.ok_or(AdminError::NoConsole)?;
    let url = service.url();
    transact(data_dir, move |work| {
        let arn = match user_arn {
            None => format!(
                "arn:aws:iam::{}:user/{LOCAL}{name}",
                work.partition.account_id
            ),
            Some(arn) if Identity::user(&arn).is_some() => arn,
            Some(arn) => return Err(AdminError::Arn(arn)),
        };
        let rights = Rights { role, arn, scopes };
        let token = session::offer(work.tx, work.now, &rights)?;
        work.note("console", &format!("login link for {}", rights.arn))?;
        Ok(output::hand_over(format!(
            "{url}/console/login?link={token}"
        ))?)
    })
}
