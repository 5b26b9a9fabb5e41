//! Applications.

use codedeploy_api::codedeploy::*;
use rusqlite::{OptionalExtension, Row, named_params};

use super::{APPLICATION, Context, check_resource_tags, new_id};
use crate::error::{ApiError, ErrorName};
use crate::store::Json;

/// An application as it is stored.
#[derive(Debug, Clone)]
pub struct Application {
    pub id: String,
    pub name: String,
    created: Timestamp,
}

impl Application {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Application {
            id: row.get("id")?,
            name: row.get("name")?,
            created: Timestamp::from_millis(row.get("created")?),
        })
    }

    fn info(self) -> ApplicationInfo {
        ApplicationInfo {
            application_id: Some(self.id),
            application_name: Some(self.name),
            create_time: Some(self.created),
            linked_to_git_hub: Some(false),
            git_hub_account_name: None,
            compute_platform: Some(ComputePlatform::Server),
        }
    }
}

/// The application named by a request.
pub(crate) fn find(context: &Context<'_>, name: Option<String>) -> Result<Application, ApiError> {
    let name = APPLICATION.check(name)?;
    lookup(context, &name)?.ok_or_else(|| {
        ErrorName::ApplicationDoesNotExist.because(format!("No application found for name: {name}"))
    })
}

pub(super) fn lookup(context: &Context<'_>, name: &str) -> Result<Option<Application>, ApiError> {
    let mut statement = context.tx.prepare_cached("SELECT * FROM applications WHERE name = ?1")?;
    Ok(statement.query_row([name], Application::read).optional()?)
}

pub fn create(
    context: &Context<'_>,
    input: CreateApplicationInput,
) -> Result<CreateApplicationOutput, ApiError> {
    let name = APPLICATION.check(input.application_name)?;
    match input.compute_platform {
        None | Some(ComputePlatform::Server) => {}
        Some(platform) => {
            return Err(ErrorName::InvalidComputePlatform.because(format!(
                "The compute platform {:?} is not valid: this service deploys to Server only.",
                super::shorten(platform.as_str())
            )));
        }
    }
    let tags = check_resource_tags(input.tags)?;
    if lookup(context, &name)?.is_some() {
        return Err(already_exists(&name));
    }
    let count: usize = context.tx.query_row("SELECT count(*) FROM applications", [], |row| row.get(0))?;
    if count >= context.quotas.applications {
        return Err(ErrorName::ApplicationLimitExceeded
            .because(format!("There are {count} applications, which is the quota.")));
    }
    let id = new_id()?;
    context.tx.execute(
        "INSERT INTO applications (id, name, created, tags) VALUES (:id, :name, :created, :tags)",
        named_params! {":id": id, ":name": name, ":created": context.now.millis(), ":tags": Json(tags)},
    )?;
    Ok(CreateApplicationOutput { application_id: Some(id) })
}

pub fn get(context: &Context<'_>, input: GetApplicationInput) -> Result<GetApplicationOutput, ApiError> {
    Ok(GetApplicationOutput { application: Some(find(context, input.application_name)?.info()) })
}

pub fn list(context: &Context<'_>, input: ListApplicationsInput) -> Result<ListApplicationsOutput, ApiError> {
    let mut statement = context.tx.prepare_cached("SELECT name FROM applications ORDER BY name")?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let items = names.into_iter().map(|name| (name.clone(), name));
    let (applications, next_token) = context.pages.cut("applications", input.next_token.as_deref(), items)?;
    Ok(ListApplicationsOutput { applications: Some(applications), next_token })
}

pub fn batch_get(
    context: &Context<'_>,
    input: BatchGetApplicationsInput,
) -> Result<BatchGetApplicationsOutput, ApiError> {
    let names = APPLICATION.check_batch(input.application_names, ErrorName::BatchLimitExceeded)?;
    let applications = names
        .into_iter()
        .map(|name| find(context, Some(name)).map(Application::info))
        .collect::<Result<_, _>>()?;
    Ok(BatchGetApplicationsOutput { applications_info: Some(applications) })
}

/// Renames an application; its identifier and all that it owns stay.
pub fn update(context: &Context<'_>, input: UpdateApplicationInput) -> Result<Nothing, ApiError> {
    let name = APPLICATION.check(input.application_name)?;
    let renamed = APPLICATION.check(input.new_application_name)?;
    let application = find(context, Some(name))?;
    if renamed != application.name && lookup(context, &renamed)?.is_some() {
        return Err(already_exists(&renamed));
    }
    context.tx.execute("UPDATE applications SET name = ?2 WHERE id = ?1", (application.id, renamed))?;
    Ok(Nothing {})
}

fn already_exists(name: &str) -> ApiError {
    ErrorName::ApplicationAlreadyExists
        .because(format!("An application already exists with the name: {name}"))
}

/// Deletes an application with its groups, revisions and deployments; one that does not exist is deleted already.
pub fn delete(context: &Context<'_>, input: DeleteApplicationInput) -> Result<Nothing, ApiError> {
    let name = APPLICATION.check(input.application_name)?;
    context.tx.execute("DELETE FROM applications WHERE name = ?1", [name])?;
    Ok(Nothing {})
}
