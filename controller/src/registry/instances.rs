//! On-premises instances and their tags.

use codedeploy_api::codedeploy::*;
use serde::Serialize;

use crate::config::Partition;
use crate::error::{ApiError, ErrorName};
use crate::fleet::SILENCE;
use crate::identity::Identity;
use crate::ids::random_text;
use crate::records::health;
use crate::request::members::InstanceName;
use crate::request::{self, NewInstanceName, check_tags};
use crate::store::{Json, Row, SqlError, Tx, named};
use crate::transaction::Context;

/// The number of tags of one instance.
const MAX_TAGS: usize = 10;

pub(crate) struct Instance {
    name: String,
    arn: String,
    pub(crate) principal: String,
    registered: Timestamp,
    deregistered: Option<Timestamp>,
    tags: Vec<Tag>,
}

impl Instance {
    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(Instance {
            name: row.get("name")?,
            arn: row.get("arn")?,
            principal: row.get("principal")?,
            registered: row.get("registered")?,
            deregistered: row.get("deregistered")?,
            tags: row.get::<Json<_>>("tags")?.0,
        })
    }

    fn info(self) -> InstanceInfo {
        let session = Identity::session(&self.principal).is_some();
        let (iam_session_arn, iam_user_arn) = if session {
            (Some(self.principal), None)
        } else {
            (None, Some(self.principal))
        };
        InstanceInfo {
            instance_name: Some(self.name),
            iam_session_arn,
            iam_user_arn,
            instance_arn: Some(self.arn),
            register_time: Some(self.registered),
            deregister_time: self.deregistered,
            tags: Some(self.tags),
        }
    }
}

const BY_NAME: &str = "SELECT * FROM instances WHERE name > ?1
     ORDER BY name, deregistered IS NULL DESC, registered DESC, sequence DESC";

/// Returns the instance that is registered under a name, or else the one that was deregistered
/// last.
fn lookup(tx: &Tx<'_>, name: &str) -> Result<Option<Instance>, ApiError> {
    Ok(tx.query_opt(
        "SELECT * FROM instances WHERE name = ?1
         ORDER BY deregistered IS NULL DESC, registered DESC, sequence DESC LIMIT 1",
        [name],
        Instance::read,
    )?)
}

pub(crate) fn registered(tx: &Tx<'_>, name: &str) -> Result<Option<Instance>, ApiError> {
    Ok(lookup(tx, name)?.filter(|instance| instance.deregistered.is_none()))
}

/// Deregisters the instance of this name, if there is one.
pub(crate) fn note_deregistered(tx: &Tx<'_>, name: &str, now: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE instances SET deregistered = ?2, tags = '[]' WHERE name = ?1 AND deregistered IS NULL",
        (name, now),
    )?;
    Ok(())
}

pub(crate) fn not_registered(name: &str) -> ApiError {
    ErrorName::InstanceNotRegistered.because(format!(
        "The on-premises instance {name} is not registered."
    ))
}

pub fn register(
    context: &Context<'_>,
    request: request::RegisterOnPremisesInstance,
) -> Result<Nothing, ApiError> {
    let (tx, partition, now) = (context.tx, context.partition, context.now);
    enroll(
        tx,
        partition,
        now,
        &request.instance_name,
        &request.identity,
        &[],
    )?;
    Ok(Nothing {})
}

/// Registers an instance with a checked name and identity.
pub fn enroll(
    tx: &Tx<'_>,
    partition: &Partition,
    now: Timestamp,
    name: &NewInstanceName,
    identity: &Identity,
    tags: &[Tag],
) -> Result<(), ApiError> {
    let name: &str = name;
    if registered(tx, name)?.is_some() {
        return Err(ErrorName::InstanceNameAlreadyRegistered.because(format!(
            "The on-premises instance name {name} is already registered."
        )));
    }
    if let Some(other) = crate::fleet::instance_of_host(tx, identity.arn())? {
        let taken = match identity {
            Identity::User(_) => ErrorName::IamUserArnAlreadyRegistered,
            Identity::Session(_) => ErrorName::IamSessionArnAlreadyRegistered,
        };
        return Err(taken.because(format!(
            "The ARN is already registered with the on-premises instance {other}. Please use a different IAM user or \
             session ARN."
        )));
    }
    let suffix = random_text(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        10,
    )?;
    let (region, account) = (&partition.region, &partition.account_id);
    tx.execute(
        "INSERT INTO instances (arn, name, principal, registered, tags)
         VALUES (:arn, :name, :principal, :now, :tags)",
        named! {
            ":arn": format!("arn:aws:codedeploy:{region}:{account}:instance/{name}_{suffix}"),
            ":name": name,
            ":principal": identity.arn(),
            ":now": now,
            ":tags": Json(merge(name, Vec::new(), tags)?),
        },
    )?;
    // The state that deployments left on an earlier host of this name says nothing about this one.
    health::forget(tx, name)?;
    Ok(())
}

/// A registered instance, with facts about its agent.
#[derive(Debug, Serialize)]
pub struct HostReport {
    pub name: String,
    pub arn: String,
    pub tags: Vec<Tag>,
    /// The time of its agent's last call, to the minute. Seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The signers that its agent accepts: digests of keys, `any`, or `authority`. AWS's agents do
    /// not send them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_signers: Option<String>,
}

impl HostReport {
    /// `polling`, `silent`, or `never seen`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match self.last_seen {
            Some(seen) if seen + SILENCE >= now => "polling",
            Some(_) => "silent",
            None => "never seen",
        }
    }
}

/// Returns the registered instances, by name.
pub fn hosts(tx: &Tx<'_>) -> Result<Vec<HostReport>, SqlError> {
    tx.query_all(
        "SELECT name, principal, tags, last_seen, agent_version, accepted_signers FROM instances
         WHERE deregistered IS NULL ORDER BY name",
        (),
        |row| {
            Ok(HostReport {
                name: row.get("name")?,
                arn: row.get("principal")?,
                tags: row.get::<Json<_>>("tags")?.0,
                last_seen: row.get("last_seen")?,
                agent_version: row.get("agent_version")?,
                accepted_signers: row.get("accepted_signers")?,
            })
        },
    )
}

pub fn get(
    context: &Context<'_>,
    request: request::GetOnPremisesInstance,
) -> Result<GetOnPremisesInstanceOutput, ApiError> {
    let name = request.instance_name;
    let instance = lookup(context.tx, &name)?.ok_or_else(|| not_registered(&name))?;
    Ok(GetOnPremisesInstanceOutput {
        instance_info: Some(instance.info()),
    })
}

/// Names that were never registered are left out.
pub fn batch_get(
    context: &Context<'_>,
    request: request::BatchGetOnPremisesInstances,
) -> Result<BatchGetOnPremisesInstancesOutput, ApiError> {
    let mut infos = Vec::new();
    for name in request.instance_names.0 {
        infos.extend(lookup(context.tx, &name)?.map(Instance::info));
    }
    Ok(BatchGetOnPremisesInstancesOutput {
        instance_infos: Some(infos),
    })
}

/// The present instance counts for a name that was used before.
pub fn list(
    context: &Context<'_>,
    request: request::ListOnPremisesInstances,
) -> Result<ListOnPremisesInstancesOutput, ApiError> {
    let status = request.registration_status;
    let tests = request.tag_filters.unwrap_or_default().0;
    let wanted = |instance: &Instance| {
        let of_status = match status {
            Some(RegistrationStatus::Registered) => instance.deregistered.is_none(),
            Some(RegistrationStatus::Deregistered) => instance.deregistered.is_some(),
            _ => true,
        };
        of_status && (tests.is_empty() || tests.iter().any(|test| test.matches(&instance.tags)))
    };
    let name = format!("instances {status:?} {tests:?}");
    let listing = context.pages.listing(name, request.next_token.as_deref())?;
    let mut previous = None;
    let (names, next_token) =
        listing.query(context.tx, BY_NAME, [listing.after_name()], |row| {
            let instance = Instance::read(row)?;
            if previous.as_ref() == Some(&instance.name) {
                return Ok(None);
            }
            previous = Some(instance.name.clone());
            Ok(wanted(&instance).then(|| (instance.name.clone(), instance.name)))
        })?;
    Ok(ListOnPremisesInstancesOutput {
        instance_names: Some(names),
        next_token,
    })
}

pub fn add_tags(
    context: &Context<'_>,
    request: request::AddTagsToOnPremisesInstances,
) -> Result<Nothing, ApiError> {
    change_tags(context, &request.instance_names.0, |name, present| {
        merge(name, present, &request.tags.0)
    })
}

/// Removes the tags whose key and value match; a tag without a value matches by its key.
pub fn remove_tags(
    context: &Context<'_>,
    request: request::RemoveTagsFromOnPremisesInstances,
) -> Result<Nothing, ApiError> {
    let removed = |tag: &Tag| {
        let mut tags = request.tags.0.iter();
        tags.any(|gone| gone.key == tag.key && (gone.value.is_none() || gone.value == tag.value))
    };
    change_tags(context, &request.instance_names.0, |_, mut present| {
        present.retain(|tag| !removed(tag));
        Ok(present)
    })
}

fn change_tags(
    context: &Context<'_>,
    names: &[InstanceName],
    change: impl Fn(&str, Vec<Tag>) -> Result<Vec<Tag>, ApiError>,
) -> Result<Nothing, ApiError> {
    for name in names {
        let instance = registered(context.tx, name)?.ok_or_else(|| not_registered(name))?;
        let tags = change(name, instance.tags)?;
        context.tx.execute(
            "UPDATE instances SET tags = ?2 WHERE arn = ?1",
            (instance.arn, Json(tags)),
        )?;
    }
    Ok(Nothing {})
}

/// Adds tags; an equal key gets the new value.
fn merge(name: &str, mut present: Vec<Tag>, added: &[Tag]) -> Result<Vec<Tag>, ApiError> {
    check_tags(added, ErrorName::InvalidTag)?;
    for tag in added {
        let value = Some(tag.value.clone().unwrap_or_default());
        match present.iter_mut().find(|present| present.key == tag.key) {
            Some(same) => same.value = value,
            None => present.push(Tag {
                key: tag.key.clone(),
                value,
            }),
        }
    }
    if present.len() > MAX_TAGS {
        return Err(ErrorName::TagLimitExceeded.because(format!(
            "The on-premises instance {name} would have {} tags; at most {MAX_TAGS} are allowed.",
            present.len()
        )));
    }
    Ok(present)
}
