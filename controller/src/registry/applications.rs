//! Applications.

use codedeploy_api::codedeploy::*;

use super::by_name;
use crate::error::{ApiError, ErrorName};
use crate::ids::new_id;
use crate::request;
use crate::store::{Json, Row, SqlError, Tx, named};
use crate::transaction::Context;

/// An application as it is stored.
#[derive(Debug, Clone)]
pub struct Application {
    pub id: String,
    pub name: String,
    created: Timestamp,
    /// The account of the linked GitHub token.
    github_account: Option<String>,
}

impl Application {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(Application {
            id: row.get("id")?,
            name: row.get("name")?,
            created: row.get("created")?,
            github_account: row.get("github_account")?,
        })
    }

    fn info(self) -> ApplicationInfo {
        ApplicationInfo {
            application_id: Some(self.id),
            application_name: Some(self.name),
            create_time: Some(self.created),
            linked_to_git_hub: Some(self.github_account.is_some()),
            git_hub_account_name: self.github_account,
            compute_platform: Some(ComputePlatform::Server),
        }
    }
}

/// Returns the application that a request names.
pub(crate) fn find(context: &Context<'_>, name: &str) -> Result<Application, ApiError> {
    context.admit_application(name)?;
    lookup(context, name)?.ok_or_else(|| does_not_exist(name))
}

pub(super) fn does_not_exist(name: &str) -> ApiError {
    ErrorName::ApplicationDoesNotExist.because(format!("No application found for name: {name}"))
}

fn lookup(context: &Context<'_>, name: &str) -> Result<Option<Application>, ApiError> {
    Ok(context.tx.query_opt(
        "SELECT a.id, a.name, a.created, t.account AS github_account
         FROM applications a LEFT JOIN github_tokens t ON t.name = a.github_token
         WHERE a.name = ?1",
        [name],
        Application::read,
    )?)
}

pub(crate) fn exists(tx: &Tx<'_>, name: &str) -> Result<bool, SqlError> {
    tx.exists("SELECT 1 FROM applications WHERE name = ?1", [name])
}

fn refuse_taken(context: &Context<'_>, name: &str) -> Result<(), ApiError> {
    match lookup(context, name)? {
        None => Ok(()),
        Some(_) => Err(ErrorName::ApplicationAlreadyExists.because(format!(
            "An application already exists with the name: {name}"
        ))),
    }
}

pub fn create(
    context: &Context<'_>,
    request: request::CreateApplication,
) -> Result<CreateApplicationOutput, ApiError> {
    refuse_taken(context, &request.application_name)?;
    let count: usize = context
        .tx
        .query_one("SELECT count(*) FROM applications", (), |row| row.get(0))?;
    if count >= context.quotas.applications {
        return Err(ErrorName::ApplicationLimitExceeded
            .because(format!("There are {count} applications, which is the quota (quotas.applications in the controller's configuration).")));
    }
    let id = new_id()?;
    context.tx.execute(
        "INSERT INTO applications (id, name, created, tags) VALUES (:id, :name, :created, :tags)",
        named! {
            ":id": id,
            ":name": &*request.application_name,
            ":created": context.now,
            ":tags": Json(request.tags.unwrap_or_default().0),
        },
    )?;
    Ok(CreateApplicationOutput {
        application_id: Some(id),
    })
}

pub fn get(
    context: &Context<'_>,
    request: request::GetApplication,
) -> Result<GetApplicationOutput, ApiError> {
    Ok(GetApplicationOutput {
        application: Some(find(context, &request.application_name)?.info()),
    })
}

pub fn list(
    context: &Context<'_>,
    request: request::ListApplications,
) -> Result<ListApplicationsOutput, ApiError> {
    let listing = context
        .pages
        .listing("applications", request.next_token.as_deref())?;
    let (applications, next_token) = listing.query(
        context.tx,
        "SELECT name FROM applications WHERE name > ?1 ORDER BY name",
        [listing.after_name()],
        |row| Ok(by_name(row)?.filter(|(name, _)| context.sees_application(name))),
    )?;
    Ok(ListApplicationsOutput {
        applications: Some(applications),
        next_token,
    })
}

pub fn batch_get(
    context: &Context<'_>,
    request: request::BatchGetApplications,
) -> Result<BatchGetApplicationsOutput, ApiError> {
    let names = request.application_names.0.iter();
    let applications = names
        .map(|name| find(context, name).map(Application::info))
        .collect::<Result<_, _>>()?;
    Ok(BatchGetApplicationsOutput {
        applications_info: Some(applications),
    })
}

/// Renames an application; its identifier and its objects stay.
pub fn update(
    context: &Context<'_>,
    request: request::UpdateApplication,
) -> Result<Nothing, ApiError> {
    let application = find(context, &request.application_name)?;
    let renamed = request.new_application_name;
    if *renamed != application.name {
        refuse_taken(context, &renamed)?;
    }
    context.tx.execute(
        "UPDATE applications SET name = ?2 WHERE id = ?1",
        (application.id, &*renamed),
    )?;
    Ok(Nothing {})
}

/// Deletes an application without groups, with its revisions.
pub(crate) fn delete(tx: &Tx<'_>, name: &str) -> Result<(), SqlError> {
    tx.execute("DELETE FROM applications WHERE name = ?1", [name])
        .map(drop)
}
