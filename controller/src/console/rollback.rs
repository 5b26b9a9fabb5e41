//! Going back to the revision before: what would happen, and a button.

use askama::Template;
use axum::body::Body;
use axum::http::Response;
use codedeploy_api::controller::{RollBackDeploymentGroupInput, RollBackDeploymentGroupOutput};

use super::frame::Frame;
use super::page::Page;
use super::response::{Refused, see_other};
use super::view::{deployment_path, group_path};
use super::visit::{Asked, Posted};
use crate::deployment::reversal;
use crate::error::ApiError;
use crate::registry::{applications, groups};
use crate::request::{self, Request as _};
use crate::transaction::Context;
use crate::words;

/// The page with the button.
#[derive(Template)]
#[template(path = "rollback.html")]
pub(super) struct Rollback {
    frame: Frame,
    application: String,
    group: String,
    found: RollBackDeploymentGroupOutput,
    revision: String,
    present: Option<String>,
    good: String,
}

fn input(asked: impl Fn(&str) -> Option<String>) -> RollBackDeploymentGroupInput {
    RollBackDeploymentGroupInput {
        application_name: asked("application"),
        deployment_group_name: asked("group"),
        description: None,
    }
}

impl Page for Rollback {
    type Document = RollBackDeploymentGroupOutput;
    const NAME: &'static str = "Rollback";
    const OPERATIONS: &'static [&'static str] = &["RollBackDeploymentGroup"];

    fn read(context: &Context<'_>, asked: &Asked) -> Result<Self, ApiError> {
        let wanted = request::RollBackDeploymentGroup::check(input(|name| asked.get(name)))?;
        let application = applications::find(context, &wanted.application_name)?;
        let group = groups::find(context, &application, &wanted.deployment_group_name)?;
        let reversal = reversal::find(context, &group)?;
        let present = crate::records::Record::load(context.tx, &reversal.takes_back)?;
        let present = present.and_then(|record| record.revision().cloned());
        let command = format!(
            "codedeploy-controller rollback {} {} --wait",
            words::argument(&application.name),
            words::argument(&group.name)
        );
        let found = RollBackDeploymentGroupOutput {
            deployment_id: None,
            revision: Some(reversal.revision.into()),
            rolls_back: Some(reversal.takes_back),
        };
        Ok(Rollback {
            frame: asked.frame("Go back", [command]),
            application: application.name,
            group: group.name,
            revision: words::revision(found.revision.as_ref()),
            present: present.map(|revision| words::revision(Some(&revision.into()))),
            good: reversal.good,
            found,
        })
    }

    fn document(&self) -> &RollBackDeploymentGroupOutput {
        &self.found
    }
}

impl Rollback {
    fn action(&self) -> String {
        format!("{}/rollback", group_path(&self.application, &self.group))
    }
}

pub(super) async fn roll_back(posted: Posted) -> Result<Response<Body>, Refused> {
    let visit = &posted.visit;
    let input = RollBackDeploymentGroupInput {
        description: posted.get("description"),
        ..input(|name| visit.asked.get(name))
    };
    let done: RollBackDeploymentGroupOutput =
        visit.perform("RollBackDeploymentGroup", &input).await?;
    Ok(see_other(&deployment_path(
        &done.deployment_id.unwrap_or_default(),
    )))
}
