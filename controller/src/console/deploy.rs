//! Deploying: a form, and a preview of what it would do before the button.

mod commands;

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::http::Response;
use codedeploy_api::codedeploy::{
    ApplicationRevisionSortBy, CreateDeploymentInput, CreateDeploymentOutput, FileExistsBehavior,
    GetDeploymentGroupInput, ListApplicationRevisionsInput, ListDeploymentConfigsInput,
    RevisionLocation, SortOrder, TagFilter, TagFilterType, TargetInstances, Timestamp,
};
use codedeploy_planner::deployment_state::Stage;
use serde::Serialize;

use super::comparison::{Comparison, Pair};
use super::frame::Frame;
use super::page::Page;
use super::response::{Refused, see_other};
use super::view::{When, deployment_path, group_path};
use super::visit::{Asked, Outside, Posted, Visit};
use crate::deployment::preview::{Planned, Preview, preview};
use crate::error::ApiError;
use crate::options::Style;
use crate::records::Record;
use crate::registry::applications::Application;
use crate::registry::groups::Group;
use crate::registry::{applications, configs, groups, revisions};
use crate::request::{self, Request as _};
use crate::revision::address;
use crate::transaction::Context;
use crate::words;
use commands::commands;

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
    comparison: Option<Arc<Comparison>>,
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
    /// The difference to the running revision.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    comparison: Option<Comparison>,
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
        let (application, group) = of(context, asked)?;
        let fields = Fields::read(|name| asked.get(name));
        let present = present(context, &group)?;
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
                comparison: None,
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

    /// Compares the bundles.
    async fn ask(visit: &Visit) -> Outside {
        // The page itself reports an error.
        let pair = visit.read(Self::OPERATIONS, pair).await.ok().flatten();
        let comparison = match pair {
            Some(pair) => {
                let prefix = format!("{}/", pair.application);
                let prefix = visit.asked.is_limited().then_some(prefix);
                let objects = visit.console.service.objects.clone();
                let made = Comparison::make(&visit.console, (objects, prefix), pair);
                Some(Arc::new(made.await))
            }
            None => None,
        };
        Outside {
            comparison,
            ..Outside::default()
        }
    }
}

/// The group of the page.
fn of(context: &Context<'_>, asked: &Asked) -> Result<(Application, Group), ApiError> {
    let input = GetDeploymentGroupInput {
        application_name: asked.get("application"),
        deployment_group_name: asked.get("group"),
    };
    let wanted = request::GetDeploymentGroup::check(input)?;
    let application = applications::find(context, &wanted.application_name)?;
    let group = groups::find(context, &application, &wanted.deployment_group_name)?;
    Ok((application, group))
}

/// The revision that a group runs.
fn present(context: &Context<'_>, group: &Group) -> Result<Option<RevisionLocation>, ApiError> {
    let record = match &group.last_successful {
        Some(id) => Record::load(context.tx, id)?,
        None => None,
    };
    let revision = record.and_then(|record| record.revision().cloned());
    Ok(revision.map(Into::into))
}

/// The revisions to compare, if there are two.
fn pair(context: &Context<'_>, asked: &Asked) -> Result<Option<Pair>, ApiError> {
    let (application, group) = of(context, asked)?;
    let application = application.name;
    let running = present(context, &group)?;
    let new = address::read(&Fields::read(|name| asked.get(name)).revision);
    let Some((running, mut new)) = running.zip(new) else {
        return Ok(None);
    };
    pin(asked, &application, &mut new, context.now);
    Ok((running != new).then_some(Pair {
        application,
        running,
        new,
    }))
}

impl Deploy {
    /// The command that compares bundles wherever they are.
    fn diff(&self) -> String {
        format!(
            "codedeploy-controller diff {} {} {}",
            words::argument(&self.application),
            words::argument(&self.group),
            words::argument(&self.fields.revision)
        )
    }

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
                // Another object may have been uploaded meanwhile.
                let comparison = asked.outside.comparison.clone();
                let comparison = comparison
                    .filter(|made| made.of.new == revision && present == Some(&made.of.running));
                self.document.comparison = comparison.as_deref().cloned();
                self.effect = Some(Effect {
                    comparison,
                    ..effect(&preview, &revision, since, present)
                });
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
        comparison: None,
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
