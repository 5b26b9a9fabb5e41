//! On-premises instances and their tags.

use codedeploy_api::codedeploy::*;
use rusqlite::{OptionalExtension, Row, named_params};

use super::{Context, INSTANCE, check_tags, random_text, shorten};
use crate::error::{ApiError, ErrorName};
use crate::fleet::TagTest;
use crate::store::Json;

/// Most tags of one instance.
const MAX_TAGS: usize = 10;

/// The IAM identity of a host: what its access keys stand for, and what its agent polls with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    User(String),
    Session(String),
}

impl Identity {
    /// Reads `arn:aws:iam::<account>:user/<path and name>`.
    pub fn user(arn: &str) -> Option<Self> {
        let name = resource(arn, "iam")?.strip_prefix("user/")?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "/+=,.@_-".contains(c);
        let complete = !name.is_empty() && !name.ends_with('/') && name.chars().all(allowed);
        complete.then(|| Identity::User(arn.to_owned()))
    }

    /// Reads `arn:aws:sts::<account>:assumed-role/<role>/<session>`.
    pub fn session(arn: &str) -> Option<Self> {
        let (role, session) = resource(arn, "sts")?.strip_prefix("assumed-role/")?.split_once('/')?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        let named = |text: &str| !text.is_empty() && text.chars().all(allowed);
        (named(role) && named(session)).then(|| Identity::Session(arn.to_owned()))
    }

    pub fn arn(&self) -> &str {
        let (Identity::User(arn) | Identity::Session(arn)) = self;
        arn
    }
}

/// The resource part of an ARN of a global service.
fn resource<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    let head = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let account = parts.next()?;
    let known = matches!(head.1, "aws" | "aws-cn" | "aws-us-gov");
    let digits = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (head.0 == "arn" && known && head.2 == service && head.3.is_empty() && digits && arn.len() <= 1024)
        .then(|| parts.next())
        .flatten()
}

struct Instance {
    name: String,
    arn: String,
    principal: String,
    registered: Timestamp,
    deregistered: Option<Timestamp>,
    tags: Vec<Tag>,
}

impl Instance {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Instance {
            name: row.get("name")?,
            arn: row.get("arn")?,
            principal: row.get("principal")?,
            registered: Timestamp::from_millis(row.get("registered")?),
            deregistered: row.get::<_, Option<i64>>("deregistered")?.map(Timestamp::from_millis),
            tags: row.get::<_, Json<_>>("tags")?.0,
        })
    }

    fn info(self) -> InstanceInfo {
        let session = Identity::session(&self.principal).is_some();
        let (iam_session_arn, iam_user_arn) =
            if session { (Some(self.principal), None) } else { (None, Some(self.principal)) };
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

/// The instance registered under a name now, else the one deregistered last.
fn lookup(context: &Context<'_>, name: &str) -> Result<Option<Instance>, ApiError> {
    let mut statement = context.tx.prepare_cached(
        "SELECT * FROM instances WHERE name = ?1 ORDER BY deregistered IS NULL DESC, registered DESC LIMIT 1",
    )?;
    Ok(statement.query_row([name], Instance::read).optional()?)
}

fn registered(context: &Context<'_>, name: &str) -> Result<Instance, ApiError> {
    lookup(context, name)?
        .filter(|instance| instance.deregistered.is_none())
        .ok_or_else(|| not_registered(name))
}

fn not_registered(name: &str) -> ApiError {
    ErrorName::InstanceNotRegistered.because(format!("The on-premises instance {name} is not registered."))
}

pub fn register(context: &Context<'_>, input: RegisterOnPremisesInstanceInput) -> Result<Nothing, ApiError> {
    let name = INSTANCE.check(input.instance_name)?;
    let given = |arn: Option<String>| arn.filter(|arn| !arn.is_empty());
    let identity = match (&given(input.iam_user_arn), &given(input.iam_session_arn)) {
        (None, None) => {
            return Err(ErrorName::IamArnRequired.because("Give an IAM user ARN or an IAM session ARN."));
        }
        (Some(_), Some(_)) => {
            return Err(ErrorName::MultipleIamArnsProvided
                .because("Give an IAM user ARN or an IAM session ARN, not both."));
        }
        (Some(arn), None) => Identity::user(arn).ok_or_else(|| {
            ErrorName::InvalidIamUserArn.because(format!(
                "{:?} is not an IAM user ARN such as arn:aws:iam::123456789012:user/name.",
                shorten(arn)
            ))
        })?,
        (None, Some(arn)) => Identity::session(arn).ok_or_else(|| {
            ErrorName::InvalidIamSessionArn.because(format!(
                "{:?} is not a session ARN such as arn:aws:sts::123456789012:assumed-role/role/session.",
                shorten(arn)
            ))
        })?,
    };
    enroll(context, &name, &identity, &[])?;
    Ok(Nothing {})
}

/// Registers an instance whose name and identity are checked.
pub fn enroll(context: &Context<'_>, name: &str, identity: &Identity, tags: &[Tag]) -> Result<(), ApiError> {
    if name.starts_with("i-") {
        return Err(ErrorName::InvalidInstanceName
            .because("The name of an on-premises instance must not start with i-, as EC2 instance ids do."));
    }
    if registered(context, name).is_ok() {
        return Err(ErrorName::InstanceNameAlreadyRegistered
            .because(format!("The on-premises instance name {name} is already registered.")));
    }
    if let Some(other) = crate::fleet::instance_of_host(context.tx, identity.arn())? {
        let taken = match identity {
            Identity::User(_) => ErrorName::IamUserArnAlreadyRegistered,
            Identity::Session(_) => ErrorName::IamSessionArnAlreadyRegistered,
        };
        return Err(taken.because(format!(
            "The ARN is already registered with the on-premises instance {other}. Please use a different IAM user or \
             session ARN."
        )));
    }
    let suffix = random_text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 10)?;
    let (region, account) = (&context.partition.region, &context.partition.account_id);
    context.tx.execute(
        "INSERT INTO instances (arn, name, principal, registered, tags)
         VALUES (:arn, :name, :principal, :now, :tags)",
        named_params! {
            ":arn": format!("arn:aws:codedeploy:{region}:{account}:instance/{name}_{suffix}"),
            ":name": name,
            ":principal": identity.arn(),
            ":now": context.now.millis(),
            ":tags": Json(merge(Vec::new(), tags)?),
        },
    )?;
    Ok(())
}

/// Deregisters an instance; one that is not registered is deregistered already.
pub fn deregister(
    context: &Context<'_>,
    input: DeregisterOnPremisesInstanceInput,
) -> Result<Nothing, ApiError> {
    let name = INSTANCE.check(input.instance_name)?;
    context.tx.execute(
        "UPDATE instances SET deregistered = ?2, tags = '[]' WHERE name = ?1 AND deregistered IS NULL",
        (name, context.now.millis()),
    )?;
    Ok(Nothing {})
}

/// The principal of an instance that is registered.
pub fn identity_of(context: &Context<'_>, name: &str) -> Result<Option<String>, ApiError> {
    let found = lookup(context, name)?.filter(|instance| instance.deregistered.is_none());
    Ok(found.map(|instance| instance.principal))
}

pub fn get(
    context: &Context<'_>,
    input: GetOnPremisesInstanceInput,
) -> Result<GetOnPremisesInstanceOutput, ApiError> {
    let name = INSTANCE.check(input.instance_name)?;
    let instance = lookup(context, &name)?.ok_or_else(|| not_registered(&name))?;
    Ok(GetOnPremisesInstanceOutput { instance_info: Some(instance.info()) })
}

/// Names that were never registered are left out.
pub fn batch_get(
    context: &Context<'_>,
    input: BatchGetOnPremisesInstancesInput,
) -> Result<BatchGetOnPremisesInstancesOutput, ApiError> {
    let mut infos = Vec::new();
    for name in INSTANCE.check_batch(input.instance_names, ErrorName::BatchLimitExceeded)? {
        infos.extend(lookup(context, &name)?.map(Instance::info));
    }
    Ok(BatchGetOnPremisesInstancesOutput { instance_infos: Some(infos) })
}

pub fn list(
    context: &Context<'_>,
    input: ListOnPremisesInstancesInput,
) -> Result<ListOnPremisesInstancesOutput, ApiError> {
    let status = match &input.registration_status {
        Some(RegistrationStatus::Other(text)) => {
            return Err(ErrorName::InvalidRegistrationStatus.because(format!(
                "The registration status {:?} is not Registered or Deregistered.",
                shorten(text)
            )));
        }
        status => status,
    };
    let filters = input.tag_filters.as_deref().unwrap_or_default();
    let tests = filters
        .iter()
        .map(TagTest::read)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|invalid| ErrorName::InvalidTagFilter.because(invalid.to_string()))?;
    // A name that was used before is judged by its present instance.
    let mut statement = context.tx.prepare_cached("SELECT DISTINCT name FROM instances ORDER BY name")?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut items = Vec::new();
    for name in names {
        let Some(instance) = lookup(context, &name)? else {
            continue;
        };
        let wanted = match status {
            Some(RegistrationStatus::Registered) => instance.deregistered.is_none(),
            Some(RegistrationStatus::Deregistered) => instance.deregistered.is_some(),
            _ => true,
        };
        if wanted && (tests.is_empty() || tests.iter().any(|test| test.matches(&instance.tags))) {
            items.push((name.clone(), name));
        }
    }
    let listing = format!("instances{status:?}{tests:?}");
    let (names, next_token) = context.pages.cut(&listing, input.next_token.as_deref(), items)?;
    Ok(ListOnPremisesInstancesOutput { instance_names: Some(names), next_token })
}

pub fn add_tags(
    context: &Context<'_>,
    input: AddTagsToOnPremisesInstancesInput,
) -> Result<Nothing, ApiError> {
    change_tags(context, input.tags, input.instance_names, merge)
}

/// Removes the tags whose key and value match; a tag given with a key alone goes by its key.
pub fn remove_tags(
    context: &Context<'_>,
    input: RemoveTagsFromOnPremisesInstancesInput,
) -> Result<Nothing, ApiError> {
    change_tags(context, input.tags, input.instance_names, |mut present, tags| {
        present.retain(|tag| {
            !tags.iter().any(|gone| gone.key == tag.key && (gone.value.is_none() || gone.value == tag.value))
        });
        Ok(present)
    })
}

fn change_tags(
    context: &Context<'_>,
    tags: Option<Vec<Tag>>,
    names: Option<Vec<String>>,
    change: impl Fn(Vec<Tag>, &[Tag]) -> Result<Vec<Tag>, ApiError>,
) -> Result<Nothing, ApiError> {
    let tags = tags.unwrap_or_default();
    if tags.is_empty() {
        return Err(ErrorName::TagRequired.because("At least one tag is needed."));
    }
    let names = INSTANCE.check_batch(names, ErrorName::InstanceLimitExceeded)?;
    check_tags(&tags, ErrorName::InvalidTag)?;
    for name in names {
        let instance = registered(context, &name)?;
        let tags = change(instance.tags, &tags)?;
        context
            .tx
            .prepare_cached("UPDATE instances SET tags = ?2 WHERE arn = ?1")?
            .execute((instance.arn, Json(tags)))?;
    }
    Ok(Nothing {})
}

/// Tags with others added; an equal key gets the new value.
fn merge(mut present: Vec<Tag>, added: &[Tag]) -> Result<Vec<Tag>, ApiError> {
    check_tags(added, ErrorName::InvalidTag)?;
    for tag in added {
        let value = Some(tag.value.clone().unwrap_or_default());
        match present.iter_mut().find(|present| present.key == tag.key) {
            Some(same) => same.value = value,
            None => present.push(Tag { key: tag.key.clone(), value }),
        }
    }
    if present.len() > MAX_TAGS {
        return Err(ErrorName::TagLimitExceeded.because(format!(
            "The on-premises instance would have {} tags; at most {MAX_TAGS} are allowed.",
            present.len()
        )));
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        assert!(Identity::user("arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1").is_some());
        assert!(Identity::session("arn:aws-cn:sts::123456789012:assumed-role/role/box1").is_some());
        for arn in [
            "arn:aws:iam::1234:user/box1",
            "arn:aws:iam::123456789012:role/box1",
            "arn:aws:iam::123456789012:user/",
            "arn:aws:iam:us-east-1:123456789012:user/a",
            "arn:aws:iam::123456789012:user/a b",
            "box1",
        ] {
            assert_eq!(Identity::user(arn), None, "{arn}");
            assert_eq!(Identity::session(arn), None, "{arn}");
        }
    }
}
