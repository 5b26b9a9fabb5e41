//! A service, a bucket and hosts with running agents, in one temporary folder: the start of most
//! end-to-end tests.

use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::types::{
    AutoRollbackConfiguration, AutoRollbackEvent, BundleType, DeploymentCreator,
    DeploymentGroupInfo, DeploymentInfo, RevisionLocation,
};

use crate::bucket::Bucket;
use crate::bundle;
use crate::host::Host;
use crate::programs::{Programs, Running};
use crate::service::{EndedEvent, SETTINGS, Service, revision};

/// The application and the group that a fleet has from the start; the group is every host of the
/// fleet.
pub const APPLICATION: &str = "shop";
pub const GROUP: &str = "web";
const TAG: (&str, &str) = ("env", "test");

/// The result of a deployment on one host, as the service reports it.
#[derive(Debug)]
pub struct Deployed {
    pub id: String,
    pub info: DeploymentInfo,
    pub events: Vec<EndedEvent>,
}

/// Hosts named `box1`, `box2` …
#[derive(Debug)]
pub struct Fleet {
    pub service: Service,
    pub bucket: Bucket,
    pub hosts: Vec<Host>,
    pub agents: Vec<Running>,
    folder: tempfile::TempDir,
}

impl Deployed {
    pub fn status(&self) -> &str {
        self.info
            .status
            .as_ref()
            .map_or("", |status| status.as_str())
    }

    /// `<event> <status>` of every event that has ended.
    pub fn event_statuses(&self) -> Vec<String> {
        self.events
            .iter()
            .map(|event| format!("{} {}", event.name, event.status.as_str()))
            .collect()
    }

    /// The event that failed.
    ///
    /// # Panics
    ///
    /// If none did.
    pub fn failed_event(&self) -> &EndedEvent {
        let failed = self
            .events
            .iter()
            .find(|event| event.status.as_str() == "Failed");
        failed.unwrap_or_else(|| panic!("nothing failed: {:#?}", self.event_statuses()))
    }
}

impl Fleet {
    /// Starts `hosts` agents with `more` lines in their configuration.
    pub async fn start(hosts: usize, more: &str) -> Self {
        Self::start_with(hosts, more, |_| String::new()).await
    }

    /// The same with settings of the controller, which may use the fleet's folder.
    pub async fn start_with(
        hosts: usize,
        more: &str,
        settings: impl FnOnce(&Path) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let programs = Programs::built();
        let data = folder.path().join("controller");
        std::fs::create_dir_all(&data).expect("the folder can be made");
        let settings = settings(folder.path());
        if !settings.is_empty() {
            std::fs::write(data.join(SETTINGS), settings).expect("the file can be written");
        }
        let service = Service::start(&programs, &data).await;
        let bucket = Bucket::versioned(folder.path(), "revisions").await;
        let (key, value) = TAG;
        let mut registered = Vec::new();
        for number in 1..=hosts {
            let name = format!("box{number}");
            let place = folder.path().join(&name);
            let host = Host::register(
                &programs,
                &service,
                &name,
                &format!("{key}={value}"),
                &place,
            )
            .await;
            host.configure(&bucket, more);
            registered.push(host);
        }
        service.create_group(APPLICATION, GROUP, TAG).await;
        let agents = registered.iter().map(Host::start_agent).collect();
        Self {
            service,
            bucket,
            hosts: registered,
            agents,
            folder,
        }
    }

    /// Adds a host with `tag` and a running agent.
    pub async fn add(&mut self, name: &str, tag: &str) {
        let place = self.path(name);
        let host = Host::register(&Programs::built(), &self.service, name, tag, &place).await;
        host.configure(&self.bucket, "");
        self.agents.push(host.start_agent());
        self.hosts.push(host);
    }

    /// A path below the fleet's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Uploads a revision of these files as a zip.
    pub async fn push(&self, files: &[(&str, &str)]) -> RevisionLocation {
        let source = tempfile::tempdir().expect("a temporary folder");
        bundle::write(source.path(), files);
        let object = self.bucket.put("app.zip", bundle::zip(source.path())).await;
        revision(&self.bucket, &object, BundleType::Zip)
    }

    pub async fn create(&self, revision: RevisionLocation) -> String {
        self.service.deploy(APPLICATION, GROUP, revision).await
    }

    /// Waits for the end of a deployment and returns its result on `box1`.
    pub async fn outcome(&self, id: &str) -> Deployed {
        let mut events = Vec::new();
        let info = self
            .service
            .follow(id, "box1", |event| events.push(event.clone()))
            .await;
        Deployed {
            id: id.into(),
            info,
            events,
        }
    }

    /// Pushes, deploys and waits for the end.
    pub async fn deploy(&self, files: &[(&str, &str)]) -> Deployed {
        let id = self.create(self.push(files).await).await;
        self.outcome(&id).await
    }

    /// Sets the events after which the group rolls back.
    pub async fn roll_back_on(&self, events: &[AutoRollbackEvent]) {
        let rollback = AutoRollbackConfiguration::builder()
            .enabled(true)
            .set_events(Some(events.to_vec()));
        self.service
            .client
            .update_deployment_group()
            .application_name(APPLICATION)
            .current_deployment_group_name(GROUP)
            .auto_rollback_configuration(rollback.build())
            .send()
            .await
            .unwrap_or_else(|error| panic!("{}", error.into_service_error()));
    }

    /// Returns the id of the deployment that rolls back `id`, which has ended.
    ///
    /// # Panics
    ///
    /// If there is none, or the two do not refer to each other.
    pub async fn rollback_of(&self, id: &str) -> String {
        let undone = self.service.deployment(id).await.rollback_info;
        let undone = undone.unwrap_or_else(|| panic!("{id} was not rolled back"));
        let by = undone
            .rollback_deployment_id
            .clone()
            .unwrap_or_else(|| panic!("by nothing: {undone:?}"));
        let rollback = self.service.deployment(&by).await;
        assert_eq!(
            rollback.creator,
            Some(DeploymentCreator::CodeDeployRollback)
        );
        let of = rollback.rollback_info.expect("a rollback says of what");
        assert_eq!(of.rollback_triggering_deployment_id.as_deref(), Some(id));
        let message = format!("Deployment {by} is triggered to roll back deployment {id}.");
        assert_eq!(undone.rollback_message.as_deref(), Some(message.as_str()));
        assert_eq!(of.rollback_message.as_deref(), Some(message.as_str()));
        by
    }

    /// The service's record of the group.
    pub async fn group(&self) -> DeploymentGroupInfo {
        let asked = self
            .service
            .client
            .get_deployment_group()
            .application_name(APPLICATION);
        let answer = asked
            .deployment_group_name(GROUP)
            .send()
            .await
            .expect("the group exists");
        answer.deployment_group_info.expect("the answer holds it")
    }

    /// The number of deployments that the group has had.
    pub async fn deployments(&self) -> usize {
        let asked = self
            .service
            .client
            .list_deployments()
            .application_name(APPLICATION);
        let answer = asked
            .deployment_group_name(GROUP)
            .send()
            .await
            .expect("the group exists");
        answer.deployments().len()
    }

    /// Stops everything; the agents must exit successfully.
    pub async fn stop(self) {
        for (agent, host) in self.agents.into_iter().zip(&self.hosts) {
            let status = agent.stop().await;
            assert!(
                status.success(),
                "the agent of {} ended with {status}",
                host.name
            );
        }
        self.service.stop().await;
        self.bucket.stop().await;
    }
}
