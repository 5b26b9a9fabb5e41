//! The subject of a request: the names in it, for the log line about a change.

use std::collections::BTreeMap;

/// The names in a request.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    pub(super) application: Option<String>,
    pub(super) deployment_group: Option<String>,
    pub(super) deployment_config: Option<String>,
    pub(super) deployment_id: Option<String>,
    pub(super) agent_update_id: Option<String>,
    pub(super) instances: Vec<String>,
    /// Tag filters.
    pub(super) tags: Option<String>,
    pub(super) token: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) new_name: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) reason: Option<String>,
}

impl Subject {
    /// The names by their kinds, for the record of the change.
    pub fn names(&self) -> BTreeMap<String, String> {
        let instances = (!self.instances.is_empty()).then(|| self.instances.join(", "));
        let names = [
            ("application", self.application.clone()),
            ("deploymentGroup", self.deployment_group.clone()),
            ("deploymentConfig", self.deployment_config.clone()),
            ("deploymentId", self.deployment_id.clone()),
            ("agentUpdateId", self.agent_update_id.clone()),
            ("instances", instances),
            ("tags", self.tags.clone()),
            ("token", self.token.clone()),
            ("resource", self.resource.clone()),
            ("newName", self.new_name.clone()),
            ("revision", self.revision.clone()),
            ("reason", self.reason.clone()),
        ];
        names
            .into_iter()
            .filter_map(|(kind, name)| Some((kind.to_owned(), name?)))
            .collect()
    }

    /// Logs that a request changed it.
    pub fn log(&self) {
        tracing::info!(
            application = self.application,
            deployment_group = self.deployment_group,
            deployment_config = self.deployment_config,
            deployment_id = self.deployment_id,
            agent_update_id = self.agent_update_id,
            instances = self.instances.join(", "),
            tags = self.tags,
            token = self.token,
            resource = self.resource,
            new_name = self.new_name,
            "changed by a request"
        );
    }
}

/// Records a member in a subject, if it is a name.
macro_rules! name {
    ($subject:ident, application_name, $value:expr) => {
        $subject.application = Some($value.to_string());
    };
    ($subject:ident, deployment_group_name, $value:expr) => {
        $subject.deployment_group = Some($value.to_string());
    };
    ($subject:ident, deployment_config_name, $value:expr) => {
        $subject.deployment_config = Some($value.to_string());
    };
    ($subject:ident, deployment_id, $value:expr) => {
        $subject.deployment_id = Some($value.to_string());
    };
    ($subject:ident, agent_update_id, $value:expr) => {
        $subject.agent_update_id = Some($value.to_string());
    };
    ($subject:ident, instance_name, $value:expr) => {
        $subject.instances.push($value.to_string());
    };
    ($subject:ident, instance_names, $value:expr) => {
        $subject
            .instances
            .extend($value.0.iter().map(ToString::to_string));
    };
    ($subject:ident, token_name, $value:expr) => {
        $subject.token = Some($value.to_string());
    };
    ($subject:ident, resource_arn, $value:expr) => {
        $subject.resource = Some($value.text.clone());
    };
    ($subject:ident, reason, $value:expr) => {
        $subject.reason = $value.as_ref().map(|reason| reason.0.clone());
    };
    ($subject:ident, new_application_name, $value:expr) => {
        $subject.new_name = Some($value.to_string());
    };
    ($subject:ident, $other:ident, $value:expr) => {};
}

pub(super) use name;
