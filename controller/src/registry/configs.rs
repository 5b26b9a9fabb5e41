//! Deployment configurations: those that operators make, and the [predefined](self::predefined)
//! ones.

mod predefined;

use codedeploy_api::codedeploy::*;
use codedeploy_planner::health::MinimumHealthy;

use crate::error::{ApiError, ErrorName};
use crate::ids::new_id;
use crate::request;
use crate::store::{Json, Row, SqlError, named};
use crate::transaction::Context;

/// The configuration of a group that names none.
pub(crate) const DEFAULT: &str = predefined::ONE_AT_A_TIME;

/// A configuration that an operator made.
struct Custom {
    id: String,
    name: String,
    created: Timestamp,
    minimum: MinimumHealthy,
    zonal: Option<ZonalConfig>,
}

impl Custom {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(Custom {
            id: row.get("id")?,
            name: row.get("name")?,
            created: row.get("created")?,
            minimum: row.get::<Json<_>>("minimum")?.0,
            zonal: row.get::<Option<Json<_>>>("zonal")?.map(|json| json.0),
        })
    }

    fn info(self) -> DeploymentConfigInfo {
        DeploymentConfigInfo {
            deployment_config_id: Some(self.id),
            deployment_config_name: Some(self.name),
            minimum_healthy_hosts: Some(present(self.minimum)),
            create_time: Some(self.created),
            compute_platform: Some(ComputePlatform::Server),
            traffic_routing_config: None,
            zonal_config: self.zonal,
        }
    }
}

/// The minimum in the form for clients.
fn present(minimum: MinimumHealthy) -> MinimumHealthyHosts {
    let (kind, value) = match minimum {
        MinimumHealthy::HostCount(count) => (MinimumHealthyHostsType::HostCount, i64::from(count)),
        MinimumHealthy::FleetPercent(percent) => {
            (MinimumHealthyHostsType::FleetPercent, i64::from(percent))
        }
        MinimumHealthy::HalfAtATime => (MinimumHealthyHostsType::FleetPercent, 50),
        // AWS reports a type that is missing from its model's enumerations.
        MinimumHealthy::OneAtATime => {
            (MinimumHealthyHostsType::Other("MOST_CONCURRENCY".into()), 1)
        }
    };
    MinimumHealthyHosts {
        kind: Some(kind),
        value: Some(value),
    }
}

fn lookup(context: &Context<'_>, name: &str) -> Result<Option<Custom>, ApiError> {
    Ok(context.tx.query_opt(
        "SELECT * FROM deployment_configs WHERE name = ?1",
        [name],
        Custom::read,
    )?)
}

fn does_not_exist(name: &str) -> ApiError {
    ErrorName::DeploymentConfigDoesNotExist.because(format!(
        "No deployment configuration found for name: {name}"
    ))
}

fn minimum_healthy(context: &Context<'_>, name: &str) -> Result<MinimumHealthy, ApiError> {
    if let Some(minimum) = predefined::minimum(name) {
        return Ok(minimum);
    }
    Ok(lookup(context, name)?
        .ok_or_else(|| does_not_exist(name))?
        .minimum)
}

/// Returns the minimum that a group's or a deployment's configuration requires. Configurations of
/// other platforms are rejected.
pub(crate) fn for_server(context: &Context<'_>, name: &str) -> Result<MinimumHealthy, ApiError> {
    match predefined::platform(name) {
        None | Some(ComputePlatform::Server) => minimum_healthy(context, name),
        Some(platform) => Err(ErrorName::InvalidInput.because(format!(
            "The deployment configuration {name} is for the compute platform {platform}, not for Server."
        ))),
    }
}

pub fn create(
    context: &Context<'_>,
    request: request::CreateDeploymentConfig,
) -> Result<CreateDeploymentConfigOutput, ApiError> {
    let name = request.deployment_config_name.0;
    if lookup(context, &name)?.is_some() {
        return Err(ErrorName::DeploymentConfigAlreadyExists.because(format!(
            "A deployment configuration already exists with the name: {name}"
        )));
    }
    let count: usize =
        context
            .tx
            .query_one("SELECT count(*) FROM deployment_configs", (), |row| {
                row.get(0)
            })?;
    if count >= context.quotas.deployment_configs {
        return Err(ErrorName::DeploymentConfigLimitExceeded.because(format!(
            "There are {count} custom deployment configurations, which is the quota \
                 (quotas.deployment_configs in the controller's configuration)."
        )));
    }
    let id = new_id()?;
    context.tx.execute(
        "INSERT INTO deployment_configs (name, id, created, minimum, zonal, tags)
         VALUES (:name, :id, :created, :minimum, :zonal, '[]')",
        named! {
            ":name": &*name,
            ":id": id,
            ":created": context.now,
            ":minimum": Json(request.minimum_healthy_hosts),
            ":zonal": request.zonal_config.map(Json),
        },
    )?;
    Ok(CreateDeploymentConfigOutput {
        deployment_config_id: Some(id),
    })
}

pub fn get(
    context: &Context<'_>,
    request: request::GetDeploymentConfig,
) -> Result<GetDeploymentConfigOutput, ApiError> {
    let name = request.deployment_config_name;
    let info = match predefined::info(&name) {
        Some(info) => info,
        None => lookup(context, &name)?
            .ok_or_else(|| does_not_exist(&name))?
            .info(),
    };
    Ok(GetDeploymentConfigOutput {
        deployment_config_info: Some(info),
    })
}

/// Lists the predefined ones and the others, by name.
pub fn list(
    context: &Context<'_>,
    request: request::ListDeploymentConfigs,
) -> Result<ListDeploymentConfigsOutput, ApiError> {
    let listing = context
        .pages
        .listing("configs", request.next_token.as_deref())?;
    let after = listing.after_name();
    // At most the quota.
    let mut names = context.tx.query_all(
        "SELECT name FROM deployment_configs WHERE name > ?1 ORDER BY name",
        [&after],
        |row| Ok((row.get(0)?, row.get(0)?)),
    )?;
    names.extend(
        predefined::names()
            .filter(|name| *name > after)
            .map(|name| (name.clone(), name)),
    );
    names.sort_unstable();
    let (names, next_token) = listing.page(names.into_iter().map(Ok::<_, ApiError>))?;
    Ok(ListDeploymentConfigsOutput {
        deployment_configs_list: Some(names),
        next_token,
    })
}

/// Deletes a configuration that no group uses; a missing one counts as deleted.
pub fn delete(
    context: &Context<'_>,
    request: request::DeleteDeploymentConfig,
) -> Result<Nothing, ApiError> {
    let name = request.deployment_config_name;
    if predefined::platform(&name).is_some() {
        return Err(ErrorName::InvalidOperation.because(format!(
            "The deployment configuration {name} is predefined and cannot be deleted."
        )));
    }
    let user: Option<String> = context.tx.query_opt(
        "SELECT g.name || ' of the application ' || a.name
         FROM deployment_groups g JOIN applications a ON a.id = g.application_id
         WHERE g.config_name = ?1 LIMIT 1",
        [&*name],
        |row| row.get(0),
    )?;
    if let Some(user) = user {
        return Err(ErrorName::DeploymentConfigInUse.because(format!(
            "The deployment configuration {name} is in use by the deployment group {user}."
        )));
    }
    context
        .tx
        .execute("DELETE FROM deployment_configs WHERE name = ?1", [&*name])?;
    Ok(Nothing {})
}
