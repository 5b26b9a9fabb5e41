//! Deployment groups.

use codedeploy_api::codedeploy::*;
use rusqlite::{OptionalExtension, Row, named_params};

use super::applications::{self, Application};
use super::{Context, GROUP, check_resource_tags, configs, new_id, settings};
use crate::deployment;
use crate::error::{ApiError, ErrorName};
use crate::store::Json;

/// A deployment group as it is stored.
#[derive(Debug, Clone)]
pub struct Group {
    pub id: String,
    pub name: String,
    pub settings: DeploymentGroupSettings,
    target_revision: Option<RevisionLocation>,
    last_attempted: Option<String>,
    pub last_successful: Option<String>,
}

impl Group {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Group {
            id: row.get("id")?,
            name: row.get("name")?,
            settings: row.get::<_, Json<_>>("settings")?.0,
            target_revision: row.get::<_, Option<Json<_>>>("target_revision")?.map(|json| json.0),
            last_attempted: row.get("last_attempted")?,
            last_successful: row.get("last_successful")?,
        })
    }

    pub fn config_name(&self) -> &str {
        self.settings.deployment_config_name.as_deref().unwrap_or(configs::DEFAULT)
    }

    /// In place and without traffic control where nothing is said.
    pub fn style(&self) -> DeploymentStyle {
        let given = self.settings.deployment_style.clone().unwrap_or_default();
        DeploymentStyle {
            deployment_type: given.deployment_type.or(Some(DeploymentType::InPlace)),
            deployment_option: given.deployment_option.or(Some(DeploymentOption::WithoutTrafficControl)),
        }
    }

    pub fn auto_rollback(&self) -> AutoRollbackConfiguration {
        let never_set = || AutoRollbackConfiguration { enabled: Some(false), events: None };
        self.settings.auto_rollback_configuration.clone().unwrap_or_else(never_set)
    }

    fn info(self, context: &Context<'_>, application: Application) -> Result<DeploymentGroupInfo, ApiError> {
        let last = |id: &Option<String>| match id {
            Some(id) => deployment::last_info(context, id),
            None => Ok(None),
        };
        let (style, auto_rollback) = (self.style(), self.auto_rollback());
        let config_name = self.config_name().to_owned();
        let (last_successful, last_attempted) = (last(&self.last_successful)?, last(&self.last_attempted)?);
        let settings = self.settings;
        // Filters are echoed in the form they were given; without any, as empty flat lists.
        let flat = |flat: Option<Vec<TagFilter>>, has_set: bool| flat.or((!has_set).then(Vec::new));
        Ok(DeploymentGroupInfo {
            application_name: Some(application.name),
            deployment_group_id: Some(self.id),
            deployment_group_name: Some(self.name),
            deployment_config_name: Some(config_name),
            ec2_tag_filters: flat(settings.ec2_tag_filters, settings.ec2_tag_set.is_some()),
            on_premises_instance_tag_filters: flat(
                settings.on_premises_instance_tag_filters,
                settings.on_premises_tag_set.is_some(),
            ),
            auto_scaling_groups: Some(Vec::new()),
            service_role_arn: settings.service_role_arn,
            target_revision: self.target_revision,
            trigger_configurations: Some(settings.trigger_configurations.unwrap_or_default()),
            alarm_configuration: settings.alarm_configuration,
            auto_rollback_configuration: Some(auto_rollback),
            deployment_style: Some(style),
            outdated_instances_strategy: settings
                .outdated_instances_strategy
                .or(Some(OutdatedInstancesStrategy::Update)),
            blue_green_deployment_configuration: settings.blue_green_deployment_configuration,
            load_balancer_info: settings.load_balancer_info,
            last_successful_deployment: last_successful,
            last_attempted_deployment: last_attempted,
            ec2_tag_set: settings.ec2_tag_set,
            on_premises_tag_set: settings.on_premises_tag_set,
            compute_platform: Some(ComputePlatform::Server),
            ec2_deployment_options: settings.ec2_deployment_options,
            termination_hook_enabled: Some(settings.termination_hook_enabled.unwrap_or(false)),
        })
    }
}

/// The group named by a request.
pub(crate) fn find(
    context: &Context<'_>,
    application: &Application,
    name: Option<String>,
) -> Result<Group, ApiError> {
    let name = GROUP.check(name)?;
    lookup(context, application, &name)?.ok_or_else(|| {
        ErrorName::DeploymentGroupDoesNotExist.because(format!(
            "No Deployment Group found for name: {name} in the application {}",
            application.name
        ))
    })
}

fn lookup(context: &Context<'_>, application: &Application, name: &str) -> Result<Option<Group>, ApiError> {
    let mut statement = context
        .tx
        .prepare_cached("SELECT * FROM deployment_groups WHERE application_id = ?1 AND name = ?2")?;
    Ok(statement.query_row((&application.id, name), Group::read).optional()?)
}

pub(crate) fn by_id(context: &Context<'_>, id: &str) -> Result<Option<Group>, ApiError> {
    let mut statement = context.tx.prepare_cached("SELECT * FROM deployment_groups WHERE id = ?1")?;
    Ok(statement.query_row([id], Group::read).optional()?)
}

fn refuse_taken(context: &Context<'_>, application: &Application, name: &str) -> Result<(), ApiError> {
    match lookup(context, application, name)? {
        None => Ok(()),
        Some(_) => Err(ErrorName::DeploymentGroupAlreadyExists.because(format!(
            "A deployment group already exists with the name {name} in the application {}",
            application.name
        ))),
    }
}

pub fn create(
    context: &Context<'_>,
    input: CreateDeploymentGroupInput,
) -> Result<CreateDeploymentGroupOutput, ApiError> {
    let application_name = super::APPLICATION.check(input.application_name)?;
    let name = GROUP.check(input.deployment_group_name)?;
    if input.settings.service_role_arn.as_deref().unwrap_or_default().is_empty() {
        return Err(ErrorName::RoleRequired.because("The service role ARN is missing."));
    }
    settings::check(&input.settings, &input.settings)?;
    let tags = check_resource_tags(input.tags)?;
    let application = applications::find(context, Some(application_name))?;
    refuse_taken(context, &application, &name)?;
    let count: usize = context.tx.query_row(
        "SELECT count(*) FROM deployment_groups WHERE application_id = ?1",
        [&application.id],
        |row| row.get(0),
    )?;
    if count >= context.quotas.deployment_groups_per_application {
        return Err(ErrorName::DeploymentGroupLimitExceeded.because(format!(
            "The application {} has {count} deployment groups, which is the quota.",
            application.name
        )));
    }
    let id = new_id()?;
    context.tx.execute(
        "INSERT INTO deployment_groups (id, application_id, name, settings, tags)
         VALUES (:id, :application, :name, :settings, :tags)",
        named_params! {
            ":id": id,
            ":application": application.id,
            ":name": name,
            ":settings": Json(input.settings),
            ":tags": Json(tags),
        },
    )?;
    Ok(CreateDeploymentGroupOutput { deployment_group_id: Some(id) })
}

pub fn get(
    context: &Context<'_>,
    input: GetDeploymentGroupInput,
) -> Result<GetDeploymentGroupOutput, ApiError> {
    let application = applications::find(context, input.application_name)?;
    let group = find(context, &application, input.deployment_group_name)?;
    Ok(GetDeploymentGroupOutput { deployment_group_info: Some(group.info(context, application)?) })
}

/// Groups that do not exist are left out, and named in the message.
pub fn batch_get(
    context: &Context<'_>,
    input: BatchGetDeploymentGroupsInput,
) -> Result<BatchGetDeploymentGroupsOutput, ApiError> {
    let application = applications::find(context, input.application_name)?;
    let names = GROUP.check_batch(input.deployment_group_names, ErrorName::BatchLimitExceeded)?;
    let (mut infos, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match lookup(context, &application, &name)? {
            Some(group) => infos.push(group.info(context, application.clone())?),
            None => missing.push(name),
        }
    }
    let error_message = match missing.as_slice() {
        [] => String::new(),
        missing => format!("No Deployment Group found for name: {}", missing.join(", ")),
    };
    Ok(BatchGetDeploymentGroupsOutput {
        deployment_groups_info: Some(infos),
        error_message: Some(error_message),
    })
}

pub fn list(
    context: &Context<'_>,
    input: ListDeploymentGroupsInput,
) -> Result<ListDeploymentGroupsOutput, ApiError> {
    let application = applications::find(context, input.application_name)?;
    let mut statement = context
        .tx
        .prepare_cached("SELECT name FROM deployment_groups WHERE application_id = ?1 ORDER BY name")?;
    let names: Vec<String> =
        statement.query_map([&application.id], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let items = names.into_iter().map(|name| (name.clone(), name));
    let listing = format!("groups{}", application.id);
    let (names, next_token) = context.pages.cut(&listing, input.next_token.as_deref(), items)?;
    Ok(ListDeploymentGroupsOutput {
        application_name: Some(application.name),
        deployment_groups: Some(names),
        next_token,
    })
}

/// A member that is given replaces the stored one as a whole; the others stay. The identifier never changes.
pub fn update(
    context: &Context<'_>,
    input: UpdateDeploymentGroupInput,
) -> Result<UpdateDeploymentGroupOutput, ApiError> {
    let application_name = super::APPLICATION.check(input.application_name)?;
    let current = GROUP.check(input.current_deployment_group_name)?;
    let renamed = input.new_deployment_group_name;
    let renamed = renamed.map(|name| GROUP.check(Some(name))).transpose()?;
    let application = applications::find(context, Some(application_name))?;
    let group = find(context, &application, Some(current))?;
    let complete = replace(group.settings, input.settings.clone());
    settings::check(&input.settings, &complete)?;
    let name = renamed.unwrap_or_else(|| group.name.clone());
    if name != group.name {
        refuse_taken(context, &application, &name)?;
    }
    context.tx.execute(
        "UPDATE deployment_groups SET name = ?2, settings = ?3 WHERE id = ?1",
        (group.id, name, Json(complete)),
    )?;
    Ok(UpdateDeploymentGroupOutput { hooks_not_cleaned_up: Some(Vec::new()) })
}

fn replace(stored: DeploymentGroupSettings, given: DeploymentGroupSettings) -> DeploymentGroupSettings {
    // The two forms of a filter replace each other.
    let ec2_given = given.ec2_tag_filters.is_some() || given.ec2_tag_set.is_some();
    let on_premises_given =
        given.on_premises_instance_tag_filters.is_some() || given.on_premises_tag_set.is_some();
    let keep = |given: bool, stored| if given { None } else { stored };
    DeploymentGroupSettings {
        deployment_config_name: given.deployment_config_name.or(stored.deployment_config_name),
        ec2_tag_filters: given.ec2_tag_filters.or(keep(ec2_given, stored.ec2_tag_filters)),
        on_premises_instance_tag_filters: given
            .on_premises_instance_tag_filters
            .or(keep(on_premises_given, stored.on_premises_instance_tag_filters)),
        auto_scaling_groups: given.auto_scaling_groups.or(stored.auto_scaling_groups),
        service_role_arn: given.service_role_arn.or(stored.service_role_arn),
        trigger_configurations: given.trigger_configurations.or(stored.trigger_configurations),
        alarm_configuration: given.alarm_configuration.or(stored.alarm_configuration),
        auto_rollback_configuration: given.auto_rollback_configuration.or(stored.auto_rollback_configuration),
        outdated_instances_strategy: given.outdated_instances_strategy.or(stored.outdated_instances_strategy),
        deployment_style: given.deployment_style.or(stored.deployment_style),
        blue_green_deployment_configuration: given
            .blue_green_deployment_configuration
            .or(stored.blue_green_deployment_configuration),
        load_balancer_info: given.load_balancer_info.or(stored.load_balancer_info),
        ec2_tag_set: given.ec2_tag_set.or(if ec2_given { None } else { stored.ec2_tag_set }),
        ecs_services: None,
        on_premises_tag_set: given.on_premises_tag_set.or(if on_premises_given {
            None
        } else {
            stored.on_premises_tag_set
        }),
        ec2_deployment_options: given.ec2_deployment_options.or(stored.ec2_deployment_options),
        termination_hook_enabled: given.termination_hook_enabled.or(stored.termination_hook_enabled),
    }
}

/// Deletes a group with its deployments; one that does not exist, or whose application does not, is deleted already.
pub fn delete(
    context: &Context<'_>,
    input: DeleteDeploymentGroupInput,
) -> Result<DeleteDeploymentGroupOutput, ApiError> {
    let application = super::APPLICATION.check(input.application_name)?;
    let name = GROUP.check(input.deployment_group_name)?;
    context.tx.execute(
        "DELETE FROM deployment_groups
         WHERE name = ?2 AND application_id = (SELECT id FROM applications WHERE name = ?1)",
        (application, name),
    )?;
    Ok(DeleteDeploymentGroupOutput { hooks_not_cleaned_up: Some(Vec::new()) })
}
