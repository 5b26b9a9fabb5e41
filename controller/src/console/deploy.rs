//! Deploying: a form, and a preview of what it would do before the button.

use askama::Template;
use axum::body::Body;
use axum::http::Response;
use codedeploy_api::codedeploy::{
    ApplicationRevisionSortBy, CreateDeploymentInput, CreateDeploymentOutput, FileExistsBehavior,
    ListApplicationRevisionsInput, ListDeploymentConfigsInput, RevisionLocation, SortOrder,
    TagFilter, TagFilterType, TargetInstances, Timestamp,
};
use codedeploy_planner::deployment_state::Stage;
use serde::Serialize;

use super::frame::Frame;
use super::page::Page;
use super::response::{Refused, see_other};
use super::view::{When, deployment_path, group_path};
use super::visit::{Asked, Posted};
use crate::deployment::preview::{Planned, Preview, preview};
use crate::error::ApiError;
use crate::options::Style;
use crate::registry::{applications, configs, groups, revisions};
use crate::request::{self, Request as _};
use crate::revision::address;
use crate::transaction::Context;
use crate::words;

/// The number of revisions to choose from.
const REVISIONS: usize = 12;

/// The number of waves that a preview lists.
const WAVES: usize = 20;

/// The number of hosts of a wave, and of silent hosts, that a preview names.
const NAMES: usize = 24;

/// The form and the preview.
#[derive(Template)]
#[template(path = "deploy.html")]
pub(super) struct Deploy {
    frame: Frame,
    document: Document,
    path: String,
    application: String,
    group: String,
    present: Option<String>,
    fields: Fields,
    revisions: Vec<Choice>,
    /// The address that is not among them.
    other: String,
    configs: Vec<Choice>,
    group_config: String,
    behaviors: Vec<Choice>,
    is_blue_green: bool,
    effect: Option<Effect>,
    /// The reason why there is no preview.
    refusal: Option<String>,
}

/// A value to choose.
struct Choice {
    value: String,
    label: String,
    is_chosen: bool,
}

/// The fields of the form.
#[derive(Debug, Default)]
struct Fields {
    /// The address of the revision.
    revision: String,
    config: String,
    description: String,
    behavior: String,
    outdated_only: bool,
    tag_key: String,
    tag_value: String,
}

/// What the deployment would do.
struct Effect {
    /// The address of the revision, with the version that would be deployed.
    revision: String,
    shown: String,
    version: Option<String>,
    since: Option<When>,
    is_present: bool,
    minimum: String,
    hosts: usize,
    waves: Vec<Wave>,
    more_waves: usize,
    silent: Vec<String>,
    more_silent: usize,
    stop: Option<String>,
}

/// Hosts that may be in progress at a time.
struct Wave {
    title: String,
    names: String,
}

/// The preview for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    application_name: String,
    deployment_group_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<RevisionLocation>,
    /// In the order of attempt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instances: Vec<Instance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    instance_name: String,
    silent: bool,
}

impl Fields {
    fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| get(name).unwrap_or_default().trim().to_owned();
        let other = text("other");
        Fields {
            revision: if other.is_empty() {
                text("revision")
            } else {
                other
            },
            config: text("config"),
            description: text("description"),
            behavior: text("behavior"),
            outdated_only: get("outdated").is_some(),
            tag_key: text("key"),
            tag_value: text("value"),
        }
    }

    fn input(
        &self,
        application: &str,
        group: &str,
        revision: RevisionLocation,
    ) -> CreateDeploymentInput {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let filter = given(&self.tag_key).map(|key| TagFilter {
            key: Some(key),
            value: given(&self.tag_value),
            kind: Some(match self.tag_value.is_empty() {
                true => TagFilterType::KeyOnly,
                false => TagFilterType::KeyAndValue,
            }),
        });
        CreateDeploymentInput {
            application_name: Some(application.to_owned()),
            deployment_group_name: Some(group.to_owned()),
            revision: Some(revision),
            deployment_config_name: given(&self.config),
            description: given(&self.description),
            file_exists_behavior: given(&self.behavior).map(FileExistsBehavior::from),
            update_outdated_instances_only: self.outdated_only.then_some(true),
            target_instances: filter.map(|filter| TargetInstances {
                tag_filters: Some(vec![filter]),
                ..TargetInstances::default()
            }),
            ..CreateDeploymentInput::default()
        }
    }
}

impl Page for Deploy {
    type Document = Document;
    const NAME: &'static str = "Deploy";
    const OPERATIONS: &'static [&'static str] = &[
        "CreateDeployment",
        "ListApplicationRevisions",
        "ListDeploymentConfigs",
    ];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let wanted = request::GetDeploymentGroup::check(
            codedeploy_api::codedeploy::GetDeploymentGroupInput {
                application_name: asked.get("application"),
                deployment_group_name: asked.get("group"),
            },
        )?;
        let application = applications::find(context, &wanted.application_name)?;
        let group = groups::find(context, &application, &wanted.deployment_group_name)?;
        let fields = Fields::read(|name| asked.get(name));
        let present = match &group.last_successful {
            Some(id) => crate::records::Record::load(context.tx, id)?,
            None => None,
        };
        let present: Option<RevisionLocation> = present
            .and_then(|record| record.revision().cloned())
            .map(Into::into);
        let revisions = choices(context, &application.name, &fields.revision)?;
        let mut page = Deploy {
            frame: asked.frame(
                format!("Deploy to {} · {}", application.name, group.name),
                [format!(
                    "codedeploy-controller deploy {} {} FOLDER --wait",
                    words::argument(&application.name),
                    words::argument(&group.name)
                )],
            ),
            document: Document {
                application_name: application.name.clone(),
                deployment_group_name: group.name.clone(),
                revision: None,
                instances: Vec::new(),
                refusal: None,
            },
            path: format!("{}/deploy", group_path(&application.name, &group.name)),
            present: present
                .as_ref()
                .map(|present| words::revision(Some(present))),
            other: match revisions.iter().any(|choice| choice.is_chosen) {
                true => String::new(),
                false => fields.revision.clone(),
            },
            revisions,
            configs: config_choices(context, &fields.config)?,
            group_config: group.config_name().to_owned(),
            behaviors: behaviors(&fields.behavior),
            is_blue_green: group.settings.style() == Style::BlueGreen,
            application: application.name,
            group: group.name,
            effect: None,
            refusal: None,
            fields,
        };
        if !page.fields.revision.is_empty() {
            page.look_ahead(context, asked, present.as_ref());
        }
        Ok(page)
    }

    fn document(&self) -> &Document {
        &self.document
    }
}

impl Deploy {
    /// Adds the preview, or the reason why there is none.
    fn look_ahead(
        &mut self,
        context: &Context<'_>,
        asked: &Asked,
        present: Option<&RevisionLocation>,
    ) {
        let Some(mut revision) = address::read(&self.fields.revision) else {
            self.refuse(
                "This is no revision: expected s3://bucket/key, or account/repository@commit of GitHub.",
            );
            return;
        };
        let since = pin(asked, &self.application, &mut revision, context.now);
        let input = self
            .fields
            .input(&self.application, &self.group, revision.clone());
        self.frame.commands = commands(&self.application, &self.group, &input);
        let looked =
            request::CreateDeployment::check(input).and_then(|wanted| preview(context, wanted));
        match looked {
            Ok(preview) => {
                self.document.instances = preview.targets.iter().map(instance).collect();
                self.effect = Some(effect(&preview, &revision, since, present));
                self.document.revision = Some(revision);
            }
            Err(error) => self.refuse(&error.message),
        }
    }

    fn refuse(&mut self, reason: &str) {
        self.refusal = Some(reason.to_owned());
        self.document.refusal = Some(reason.to_owned());
    }
}

fn instance(target: &Planned) -> Instance {
    Instance {
        instance_name: target.name.clone(),
        silent: target.is_silent,
    }
}

/// Adds the newest version of an object in a bucket of this controller to its address, so that all
/// hosts get the one that was previewed. Returns the time of that version.
fn pin(
    asked: &Asked,
    application: &str,
    revision: &mut RevisionLocation,
    now: Timestamp,
) -> Option<When> {
    let object = revision.s3_location.as_mut()?;
    let (bucket, key) = (object.bucket.clone()?, object.key.clone()?);
    // A limited key has the objects of its applications.
    if asked.is_limited() && !key.starts_with(&format!("{application}/")) {
        return None;
    }
    let (found, _) = asked
        .objects()?
        .find(&bucket, &key, object.version.as_deref())
        .ok()?;
    if object.version.is_none() && object.e_tag.is_none() && found.id != "null" {
        object.version = Some(found.id.clone());
        object.e_tag = Some(found.etag.clone());
    }
    Some(When::new(found.modified, now))
}

fn effect(
    preview: &Preview,
    revision: &RevisionLocation,
    since: Option<When>,
    present: Option<&RevisionLocation>,
) -> Effect {
    let waves = waves(preview);
    let silent: Vec<String> = preview
        .targets
        .iter()
        .filter(|target| target.is_silent)
        .map(|target| target.name.clone())
        .collect();
    let targets = preview.targets.len();
    let minimum = preview.record.rules.minimum_healthy.budget(targets);
    Effect {
        revision: address::write(revision).unwrap_or_default(),
        shown: words::revision(Some(revision)),
        version: revision
            .s3_location
            .as_ref()
            .and_then(|object| object.version.clone()),
        since,
        is_present: present == Some(revision),
        minimum: match minimum {
            Ok(budget) if targets > 0 => format!(
                "{} at a time; {} of {targets} must stay healthy",
                words::number(budget.parallel, "host", "hosts"),
                targets - budget.unavailable
            ),
            _ => String::new(),
        },
        hosts: targets,
        more_waves: waves.len().saturating_sub(WAVES),
        waves: waves.into_iter().take(WAVES).collect(),
        more_silent: silent.len().saturating_sub(NAMES),
        silent: silent.into_iter().take(NAMES).collect(),
        stop: preview.stop.clone(),
    }
}

/// The hosts of each fleet in the order of attempt, by the number that may be in progress at a time.
fn waves(preview: &Preview) -> Vec<Wave> {
    let rules = &preview.record.rules;
    let first = rules.strategy.fleet(Stage::Deploy);
    let fleet: Vec<&Planned> = preview
        .targets
        .iter()
        .filter(|target| first.is_none() || target.label == first)
        .collect();
    let size = rules.minimum_healthy.budget(fleet.len());
    let size = size.map_or(fleet.len(), |budget| budget.parallel).max(1);
    let number = fleet.len().div_ceil(size);
    let waves = fleet.chunks(size).enumerate().map(|(place, wave)| {
        let names: Vec<&str> = wave
            .iter()
            .take(NAMES)
            .map(|target| target.name.as_str())
            .collect();
        let more = match wave.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Wave {
            title: format!(
                "{} of {number}: {}",
                place + 1,
                words::number(wave.len(), "host", "hosts")
            ),
            names: format!("{}{more}", names.join(", ")),
        }
    });
    waves.collect()
}

/// The revisions of an application, the last registered first.
fn choices(
    context: &Context<'_>,
    application: &str,
    chosen: &str,
) -> Result<Vec<Choice>, ApiError> {
    let input = ListApplicationRevisionsInput {
        application_name: Some(application.to_owned()),
        sort_by: Some(ApplicationRevisionSortBy::RegisterTime),
        sort_order: Some(SortOrder::Descending),
        ..ListApplicationRevisionsInput::default()
    };
    let found = revisions::list(context, request::ListApplicationRevisions::check(input)?)?;
    let found = found.revisions.unwrap_or_default();
    let choices = found.iter().filter_map(|revision| {
        let value = address::write(revision)?;
        Some(Choice {
            label: words::revision(Some(revision)),
            is_chosen: value == chosen,
            value,
        })
    });
    Ok(choices.take(REVISIONS).collect())
}

fn config_choices(context: &Context<'_>, chosen: &str) -> Result<Vec<Choice>, ApiError> {
    let input = ListDeploymentConfigsInput::default();
    let found = configs::list(context, request::ListDeploymentConfigs::check(input)?)?;
    let names = found.deployment_configs_list.unwrap_or_default();
    // Those of other compute platforms deploy to no host.
    let names = names
        .into_iter()
        .filter(|name| configs::for_server(context, name).is_ok());
    Ok(names.map(|name| choice(name, chosen)).collect())
}

fn behaviors(chosen: &str) -> Vec<Choice> {
    let names = FileExistsBehavior::KNOWN.iter();
    names
        .map(|name| choice((*name).to_owned(), chosen))
        .collect()
}

fn choice(name: String, chosen: &str) -> Choice {
    Choice {
        is_chosen: name == chosen,
        label: name.clone(),
        value: name,
    }
}

/// The commands that make the same deployment.
fn commands(application: &str, group: &str, input: &CreateDeploymentInput) -> Vec<String> {
    let revision = input.revision.clone().unwrap_or_default();
    let (application, group) = (words::argument(application), words::argument(group));
    let mut aws = format!(
        "aws deploy create-deployment --application-name {application} --deployment-group-name {group}"
    );
    if let Some(object) = &revision.s3_location {
        let kind = object
            .bundle_type
            .as_ref()
            .map(|kind| kind.as_str().to_owned());
        let members = [
            ("bucket", object.bucket.clone()),
            ("key", object.key.clone()),
            ("bundleType", kind),
            ("version", object.version.clone()),
            ("eTag", object.e_tag.clone()),
        ];
        let members = members
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let members = members.collect::<Vec<_>>().join(",");
        aws += &format!(" --s3-location {}", words::argument(&members));
    }
    if let Some(commit) = &revision.git_hub_location {
        let location = format!(
            "repository={},commitId={}",
            commit.repository.as_deref().unwrap_or_default(),
            commit.commit_id.as_deref().unwrap_or_default()
        );
        aws += &format!(" --github-location {}", words::argument(&location));
    }
    let mut own = revision.s3_location.as_ref().and_then(|_| {
        let revision = address::write(&revision)?;
        Some(format!(
            "codedeploy-controller deploy {application} {group} {}",
            words::argument(&revision)
        ))
    });
    let mut both = |of_aws: &str, of_own: &str, value: Option<&str>| {
        let value = value
            .map(|value| format!(" {}", words::argument(value)))
            .unwrap_or_default();
        aws += &format!(" --{of_aws}{value}");
        if let Some(own) = &mut own {
            *own += &format!(" --{of_own}{value}");
        }
    };
    if let Some(config) = &input.deployment_config_name {
        both("deployment-config-name", "config", Some(config));
    }
    if let Some(description) = &input.description {
        both("description", "description", Some(description));
    }
    if let Some(behavior) = &input.file_exists_behavior {
        both(
            "file-exists-behavior",
            "file-exists-behavior",
            Some(behavior.as_str()),
        );
    }
    if input.update_outdated_instances_only == Some(true) {
        both("update-outdated-instances-only", "outdated-only", None);
    }
    if let Some(instances) = &input.target_instances {
        let json = serde_json::to_string(instances).unwrap_or_default();
        aws += &format!(" --target-instances {}", words::argument(&json));
        own = None;
    }
    own.map(|own| own + " --wait")
        .into_iter()
        .chain([aws])
        .collect()
}

pub(super) async fn deploy(posted: Posted) -> Result<Response<Body>, Refused> {
    let visit = &posted.visit;
    let fields = Fields::read(|name| posted.get(name));
    let name = |name: &str| visit.asked.get(name).unwrap_or_default();
    let revision = address::read(&fields.revision).unwrap_or_default();
    let input = fields.input(&name("application"), &name("group"), revision);
    let done: CreateDeploymentOutput = visit.perform("CreateDeployment", &input).await?;
    Ok(see_other(&deployment_path(
        &done.deployment_id.unwrap_or_default(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_make_the_same_deployment() {
        let fields = Fields {
            config: "CodeDeployDefault.OneAtATime".into(),
            description: "it's new".into(),
            outdated_only: true,
            ..Fields::default()
        };
        let revision = address::read("s3://b/shop/2.tgz?versionId=v1").unwrap();
        let input = fields.input("shop", "web", revision);
        assert_eq!(
            commands("shop", "web", &input),
            [
                r"codedeploy-controller deploy shop web 's3://b/shop/2.tgz?versionId=v1' --config CodeDeployDefault.OneAtATime --description 'it'\''s new' --outdated-only --wait",
                r"aws deploy create-deployment --application-name shop --deployment-group-name web --s3-location bucket=b,key=shop/2.tgz,bundleType=tgz,version=v1 --deployment-config-name CodeDeployDefault.OneAtATime --description 'it'\''s new' --update-outdated-instances-only",
            ]
        );
    }
}
