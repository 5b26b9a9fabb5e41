//! Deployment groups.

use std::collections::{BTreeMap, BTreeSet};

use codedeploy_api::codedeploy::*;

use super::applications::{self, Application};
use super::{by_name, configs, dangling_references};
use crate::error::{ApiError, ErrorName};
use crate::ids::new_id;
use crate::records::Record;
use crate::request::members::{ApplicationName, GroupName};
use crate::request::{self, GroupSettings, References};
use crate::revision::Revision;
use crate::store::{Json, Row, SqlError, Tx, named};
use crate::transaction::Context;

/// A deployment group as it is stored.
#[derive(Debug, Clone)]
pub struct Group {
    pub id: String,
    pub application_id: String,
    pub name: String,
    pub settings: GroupSettings,
    target_revision: Option<RevisionLocation>,
    last_attempted: Option<String>,
    pub last_successful: Option<String>,
}

impl Group {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(Group {
            id: row.get("id")?,
            application_id: row.get("application_id")?,
            name: row.get("name")?,
            settings: row.get::<Json<_>>("settings")?.0,
            target_revision: row
                .get::<Option<Json<_>>>("target_revision")?
                .map(|json| json.0),
            last_attempted: row.get("last_attempted")?,
            last_successful: row.get("last_successful")?,
        })
    }

    /// The last deployment, however it ended.
    pub(crate) fn last_attempted(&self) -> Option<&str> {
        self.last_attempted.as_deref()
    }

    pub fn config_name(&self) -> &str {
        self.settings.config_name().unwrap_or(configs::DEFAULT)
    }

    fn info(
        self,
        context: &Context<'_>,
        application: Application,
    ) -> Result<DeploymentGroupInfo, ApiError> {
        let last = |id: &Option<String>| match id {
            Some(id) => Record::last_info(context.tx, id),
            None => Ok(None),
        };
        let style = self.settings.style();
        let config_name = self.config_name().to_owned();
        let (last_successful, last_attempted) =
            (last(&self.last_successful)?, last(&self.last_attempted)?);
        let settings = DeploymentGroupSettings::from(self.settings);
        // Filters are returned in the form in which they were set; without any, as empty flat
        // lists.
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
            auto_rollback_configuration: settings.auto_rollback_configuration,
            deployment_style: Some(style.into()),
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

/// Returns the group that a request names.
pub(crate) fn find(
    context: &Context<'_>,
    application: &Application,
    name: &str,
) -> Result<Group, ApiError> {
    context.admit_group(&application.name, name)?;
    lookup(context, application, name)?.ok_or_else(|| does_not_exist(application, name))
}

pub(super) fn does_not_exist(application: &Application, name: &str) -> ApiError {
    ErrorName::DeploymentGroupDoesNotExist.because(format!(
        "No Deployment Group found for name: {name} in the application {}",
        application.name
    ))
}

fn lookup(
    context: &Context<'_>,
    application: &Application,
    name: &str,
) -> Result<Option<Group>, ApiError> {
    Ok(context.tx.query_opt(
        "SELECT * FROM deployment_groups WHERE application_id = ?1 AND name = ?2",
        (&application.id, name),
        Group::read,
    )?)
}

pub(crate) fn by_id(context: &Context<'_>, id: &str) -> Result<Option<Group>, ApiError> {
    Ok(context.tx.query_opt(
        "SELECT * FROM deployment_groups WHERE id = ?1",
        [id],
        Group::read,
    )?)
}

/// Returns the id of the group of this name, if there is one.
pub(crate) fn id_of(
    tx: &Tx<'_>,
    application: &str,
    name: &str,
) -> Result<Option<String>, SqlError> {
    tx.query_opt(
        "SELECT g.id FROM deployment_groups g JOIN applications a ON a.id = g.application_id
         WHERE a.name = ?1 AND g.name = ?2",
        (application, name),
        |row| row.get(0),
    )
}

/// The deployment groups to list: all of them, those of an application, or one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) application: Option<&'a str>,
    pub(crate) group: Option<&'a str>,
}

const AFTER: &str = "SELECT g.*, a.name AS application_name
    FROM applications a CROSS JOIN deployment_groups g
    WHERE g.application_id = a.id AND a.name >= ?1 AND (a.name > ?1 OR g.name > ?2)
    ORDER BY a.name, g.name LIMIT ?3";
const AFTER_IN_APPLICATION: &str = "SELECT g.*, a.name AS application_name
    FROM applications a CROSS JOIN deployment_groups g
    WHERE g.application_id = a.id AND a.name = ?1 AND g.name > ?2 ORDER BY g.name LIMIT ?3";
const ONE: &str = "SELECT g.*, a.name AS application_name
    FROM applications a CROSS JOIN deployment_groups g
    WHERE g.application_id = a.id AND a.name = ?1 AND g.name = ?2";

/// Returns the wanted groups after a pair of names, each with the name of its application, in the
/// order of names.
pub(crate) fn after(
    tx: &Tx<'_>,
    wanted: Wanted<'_>,
    (application, group): (&str, &str),
    most: usize,
) -> Result<Vec<(String, Group)>, SqlError> {
    let read = |row: &Row<'_>| Ok((row.get("application_name")?, Group::read(row)?));
    match (wanted.application, wanted.group) {
        (None, _) => tx.query_all(AFTER, (application, group, most), read),
        (Some(application), None) => {
            tx.query_all(AFTER_IN_APPLICATION, (application, group, most), read)
        }
        (Some(application), Some(group)) => tx.query_all(ONE, (application, group), read),
    }
}

/// Returns the groups that the caller may see, each with the name of its application, in the order
/// of names. The groups outside of a limited key's scopes are not read.
pub(crate) fn visible(context: &Context<'_>) -> Result<Vec<(String, Group)>, SqlError> {
    let all = |wanted| after(context.tx, wanted, ("", ""), usize::MAX >> 1);
    let Some(scopes) = context.scopes() else {
        return all(Wanted::default());
    };
    let mut visible = BTreeMap::new();
    for scope in scopes {
        let wanted = Wanted {
            application: Some(&scope.application),
            group: scope.deployment_group.as_deref(),
        };
        for (application, group) in all(wanted)? {
            visible.insert((application, group.name.clone()), group);
        }
    }
    let pairs = visible.into_iter();
    Ok(pairs
        .map(|((application, _), group)| (application, group))
        .collect())
}

/// Returns the ids of the groups whose deployments a list has: of the named one, or of those that
/// the caller may see. `None` stands for all groups.
pub(crate) fn listed(
    context: &Context<'_>,
    named: Option<&(ApplicationName, GroupName)>,
) -> Result<Option<Vec<String>>, ApiError> {
    if let Some((application, group)) = named {
        let application = applications::find(context, application)?;
        return Ok(Some(vec![find(context, &application, group)?.id]));
    }
    if !context.is_limited() {
        return Ok(None);
    }
    let visible = visible(context)?.into_iter();
    Ok(Some(visible.map(|(_, group)| group.id).collect()))
}

/// Returns the ids of an application's groups.
pub(crate) fn ids_of(tx: &Tx<'_>, application: &str) -> Result<Vec<String>, SqlError> {
    tx.query_all(
        "SELECT g.id FROM deployment_groups g JOIN applications a ON a.id = g.application_id
         WHERE a.name = ?1",
        [application],
        |row| row.get(0),
    )
}

/// Returns all groups as pairs of application and name.
pub(crate) fn names(tx: &Tx<'_>) -> Result<BTreeSet<(String, String)>, SqlError> {
    let names = tx.query_all(
        "SELECT a.name, g.name FROM deployment_groups g JOIN applications a ON a.id = g.application_id",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(names.into_iter().collect())
}

/// Deletes a group without deployments.
pub(crate) fn delete(tx: &Tx<'_>, id: &str) -> Result<(), SqlError> {
    tx.execute("DELETE FROM deployment_groups WHERE id = ?1", [id])
        .map(drop)
}

/// Notes the last deployment of a group, and the revision that its hosts are to have.
pub(crate) fn note_attempt(
    tx: &Tx<'_>,
    id: &str,
    target: Option<&Revision>,
    deployment_id: &str,
) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE deployment_groups SET target_revision = ?2, last_attempted = ?3 WHERE id = ?1",
        (id, target.map(Json), deployment_id),
    )?;
    Ok(())
}

/// Notes the last successful deployment of a group.
pub(crate) fn note_success(tx: &Tx<'_>, id: &str, deployment_id: &str) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE deployment_groups SET last_successful = ?2 WHERE id = ?1",
        (id, deployment_id),
    )?;
    Ok(())
}

fn refuse_taken(
    context: &Context<'_>,
    application: &Application,
    name: &str,
) -> Result<(), ApiError> {
    match lookup(context, application, name)? {
        None => Ok(()),
        Some(_) => Err(ErrorName::DeploymentGroupAlreadyExists.because(format!(
            "A deployment group already exists with the name {name} in the application {}",
            application.name
        ))),
    }
}

/// A topic must be in the region of its triggers.
fn refuse_foreign_topics(
    context: &Context<'_>,
    References { topics, .. }: &References,
) -> Result<(), ApiError> {
    let region = context.partition.region.as_str();
    match topics
        .iter()
        .find(|arn| arn.split(':').nth(3) != Some(region))
    {
        None => Ok(()),
        Some(arn) => Err(ErrorName::InvalidTriggerConfig.because(format!(
            "The target {:?} of a trigger is not valid: it is in another region than {region}.",
            request::members::shorten(arn)
        ))),
    }
}

pub fn create(
    context: &Context<'_>,
    request: request::CreateDeploymentGroup,
) -> Result<CreateDeploymentGroupOutput, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    if let Some(name) = request.settings.config_name() {
        configs::for_server(context, name)?;
    }
    let name = request.deployment_group_name;
    refuse_taken(context, &application, &name)?;
    let count: usize = context.tx.query_one(
        "SELECT count(*) FROM deployment_groups WHERE application_id = ?1",
        [&application.id],
        |row| row.get(0),
    )?;
    if count >= context.quotas.deployment_groups_per_application {
        return Err(ErrorName::DeploymentGroupLimitExceeded.because(format!(
            "The application {} has {count} deployment groups, which is the quota \
             (quotas.deployment_groups_per_application in the controller's configuration).",
            application.name
        )));
    }
    let settings = request.settings.complete()?;
    let references = settings.references();
    refuse_foreign_topics(context, &references)?;
    dangling_references::report(context.known, (&application.name, &name), &references)?;
    let id = new_id()?;
    context.tx.execute(
        "INSERT INTO deployment_groups (id, application_id, name, settings, config_name, tags)
         VALUES (:id, :application, :name, :settings, :config, :tags)",
        named! {
            ":id": id,
            ":application": application.id,
            ":name": &*name,
            ":settings": Json(&settings),
            ":config": settings.config_name(),
            ":tags": Json(request.tags.unwrap_or_default().0),
        },
    )?;
    Ok(CreateDeploymentGroupOutput {
        deployment_group_id: Some(id),
    })
}

pub fn get(
    context: &Context<'_>,
    request: request::GetDeploymentGroup,
) -> Result<GetDeploymentGroupOutput, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let group = find(context, &application, &request.deployment_group_name)?;
    Ok(GetDeploymentGroupOutput {
        deployment_group_info: Some(group.info(context, application)?),
    })
}

/// Groups that do not exist are left out, and named in the message.
pub fn batch_get(
    context: &Context<'_>,
    request: request::BatchGetDeploymentGroups,
) -> Result<BatchGetDeploymentGroupsOutput, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let (mut infos, mut missing) = (Vec::new(), Vec::new());
    for name in request.deployment_group_names.0 {
        context.admit_group(&application.name, &name)?;
        match lookup(context, &application, &name)? {
            Some(group) => infos.push(group.info(context, application.clone())?),
            None => missing.push(String::from(name)),
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
    request: request::ListDeploymentGroups,
) -> Result<ListDeploymentGroupsOutput, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let name = format!("groups of {}", application.id);
    let listing = context.pages.listing(name, request.next_token.as_deref())?;
    let (names, next_token) = listing.query(
        context.tx,
        "SELECT name FROM deployment_groups WHERE application_id = ?1 AND name > ?2 ORDER BY name",
        (&application.id, listing.after_name()),
        |row| Ok(by_name(row)?.filter(|(name, _)| context.sees_group(&application.name, name))),
    )?;
    Ok(ListDeploymentGroupsOutput {
        application_name: Some(application.name),
        deployment_groups: Some(names),
        next_token,
    })
}

/// A member that is set replaces the stored one as a whole; the others stay. The identifier never
/// changes.
pub fn update(
    context: &Context<'_>,
    request: request::UpdateDeploymentGroup,
) -> Result<UpdateDeploymentGroupOutput, ApiError> {
    let application = applications::find(context, &request.application_name)?;
    let group = find(
        context,
        &application,
        &request.current_deployment_group_name,
    )?;
    if let Some(name) = request.settings.config_name() {
        configs::for_server(context, name)?;
    }
    let name = request
        .new_deployment_group_name
        .map_or_else(|| group.name.clone(), String::from);
    if name != group.name {
        refuse_taken(context, &application, &name)?;
    }
    let given = request.settings.references();
    let settings = request.settings.replace(group.settings)?;
    refuse_foreign_topics(context, &settings.references())?;
    dangling_references::report(context.known, (&application.name, &name), &given)?;
    context.tx.execute(
        "UPDATE deployment_groups SET name = ?2, settings = ?3, config_name = ?4 WHERE id = ?1",
        (group.id, name, Json(&settings), settings.config_name()),
    )?;
    Ok(UpdateDeploymentGroupOutput {
        hooks_not_cleaned_up: Some(Vec::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn pages_of_groups_are_read_in_the_order_of_names() {
        for sql in [AFTER, AFTER_IN_APPLICATION, ONE] {
            let way = way_of(sql);
            assert!(
                way.contains("(name") && !way.contains("SCAN") && !way.contains("TEMP B-TREE"),
                "{way}"
            );
        }
    }
}
