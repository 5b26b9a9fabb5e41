//! A deployment group on an in-memory database: the real decisions, hosts that a test controls, and
//! a simulated clock.

use std::sync::LazyLock;
use std::time::Duration;

use codedeploy_api::codedeploy::{DeploymentInfo, ErrorCode, Timestamp};
use codedeploy_api::command::PostHostRollbackInput;
use codedeploy_controller::config::known_names::KnownNames;
use codedeploy_controller::config::load_balancers::Balancers;
use codedeploy_controller::config::{Partition, Quotas};
use codedeploy_controller::deployment::commands::{self, Offer};
use codedeploy_controller::deployment::{
    create, decide, drain, intervene, queries, removal, targets, traffic,
};
use codedeploy_controller::error::ApiError;
use codedeploy_controller::identity::Identity;
use codedeploy_controller::keys::Keys;
use codedeploy_controller::pagination::Pages;
use codedeploy_controller::records::unfinished;
use codedeploy_controller::registry::{applications, configs, groups, instances};
use codedeploy_controller::request::{Field as _, NewInstanceName, Request};
use codedeploy_controller::store::Store;
use codedeploy_controller::transaction::Context;
use codedeploy_controller::vault::Vault;
use codedeploy_planner::Timers;
use serde_json::{Value, json};

/// Required by transactions, but unused here.
static VAULT: LazyLock<Vault> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    Vault::open(&Keys::of(folder.path(), &Store::in_memory().unwrap())).unwrap()
});

/// The way in which a host handles its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    Good,
    /// Does not poll.
    Silent,
    /// Acknowledges commands, and completes none.
    Holds,
    /// The event fails.
    Fails(&'static str),
}

struct Host {
    name: String,
    identifier: String,
    conduct: Conduct,
    /// Commands that it acknowledged and did not complete.
    held: Vec<String>,
}

pub(crate) struct Fleet {
    store: Store,
    now: Timestamp,
    hosts: Vec<Host>,
    /// The events that were performed since the last read, as "box1 Install".
    performed: Vec<String>,
}

/// A request as a client sends it.
pub(crate) fn request<R: Request>(input: Value) -> Result<R, ApiError> {
    R::check(serde_json::from_value(input).unwrap())
}

/// Adds the members of one object to another.
pub(crate) fn with(mut value: Value, members: Value) -> Value {
    let members = members.as_object().unwrap().clone();
    value.as_object_mut().unwrap().extend(members);
    value
}

fn in_fleet(fleet: &str) -> Value {
    json!([{"Key": "fleet", "Value": fleet, "Type": "KEY_AND_VALUE"}])
}

impl Fleet {
    /// The group `web` of the hosts in the fleet `blue`, in place and one at a time, unless
    /// `settings` override that.
    pub(crate) fn new(settings: Value) -> Fleet {
        let mut fleet = Fleet {
            store: Store::in_memory().unwrap(),
            now: Timestamp::from_millis(1_800_000_000_000),
            hosts: Vec::new(),
            performed: Vec::new(),
        };
        let settings = with(
            json!({"applicationName": "shop", "deploymentGroupName": "web",
                   "serviceRoleArn": "arn:aws:iam::123456789012:role/cd",
                   "deploymentConfigName": "CodeDeployDefault.AllAtOnce",
                   "onPremisesInstanceTagFilters": in_fleet("blue")}),
            settings,
        );
        fleet.transact(move |context| {
            applications::create(context, request(json!({"applicationName": "shop"}))?)?;
            groups::create(context, request(settings)?)
        });
        fleet
    }

    /// A blue/green group with hosts called `blue1`, `green1` and so on, that rolls back failures
    /// and stops.
    pub(crate) fn blue_green(blue: usize, green: usize, settings: Value) -> Fleet {
        let mut fleet = Fleet::new(with(
            json!({
                "deploymentStyle": {"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
                "loadBalancerInfo": {"targetGroupInfoList": [{"name": "lb"}]},
                "blueGreenDeploymentConfiguration": reroutes("KEEP_ALIVE"),
                "autoRollbackConfiguration": {"enabled": true,
                    "events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_REQUEST"]},
            }),
            settings,
        ));
        for (colour, number) in [("blue", blue), ("green", green)] {
            for index in 1..=number {
                fleet.enroll(&format!("{colour}{index}"), colour);
            }
        }
        fleet
    }

    /// A deployment configuration; its minimum is `{"type": …, "value": …}`.
    pub(crate) fn configure(&mut self, name: &str, minimum: Value) {
        let input = json!({"deploymentConfigName": name, "minimumHealthyHosts": minimum});
        self.transact(move |context| configs::create(context, request(input)?));
    }

    pub(crate) fn update(&mut self, settings: Value) {
        let name = json!({"applicationName": "shop", "currentDeploymentGroupName": "web"});
        let input = with(name, settings);
        self.transact(move |context| groups::update(context, request(input)?));
    }

    /// Changes the group to the hosts of another fleet.
    pub(crate) fn serve_from(&mut self, colour: &str) {
        self.update(json!({"onPremisesInstanceTagFilters": in_fleet(colour)}));
    }

    pub(crate) fn enroll(&mut self, name: &str, colour: &str) {
        let identifier = format!("arn:aws:iam::123456789012:user/{name}");
        if self.hosts.iter().all(|host| host.name != name) {
            let host = Host {
                name: name.into(),
                identifier: identifier.clone(),
                conduct: Conduct::Good,
                held: Vec::new(),
            };
            self.hosts.push(host);
        }
        let (name, colour) = (name.to_owned(), colour.to_owned());
        self.transact(move |context| {
            let tags = json!([{"Key": "fleet", "Value": colour}, {"Key": "name", "Value": name}]);
            let tags: Vec<_> = serde_json::from_value(tags).unwrap();
            let identity = Identity::User(identifier);
            let name = NewInstanceName::read(Some(name))?;
            instances::enroll(
                context.tx,
                context.partition,
                context.now,
                &name,
                &identity,
                &tags,
            )
        });
    }

    pub(crate) fn deregister(&mut self, name: &str) {
        let input = json!({"instanceName": name});
        self.transact(move |context| removal::deregister(context, request(input)?));
    }

    pub(crate) fn drain(&mut self, name: &str) {
        let input = json!({"instanceName": name});
        self.transact(move |context| drain::drain(context, request(input)?));
    }

    pub(crate) fn undrain(&mut self, name: &str) {
        let input = json!({"instanceName": name});
        self.transact(move |context| drain::undrain(context, request(input)?));
    }

    pub(crate) fn is_registered(&mut self, name: &str) -> bool {
        let input = json!({"instanceName": name});
        let found = self.transact(move |context| instances::get(context, request(input)?));
        found.instance_info.unwrap().deregister_time.is_none()
    }

    /// Sets the host's conduct; a host that becomes good completes its held commands.
    pub(crate) fn let_host(&mut self, name: &str, conduct: Conduct) {
        self.hosts
            .iter_mut()
            .find(|host| host.name == name)
            .unwrap()
            .conduct = conduct;
    }

    fn attempt<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Context<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let now = self.now;
        self.store.transact_blocking(move |tx| {
            let balancers: Balancers =
                serde_json::from_value(json!({"lb": {"webhook": {"url": "http://[::1]/"}}}))
                    .unwrap();
            work(&Context {
                tx,
                now,
                partition: &Partition::new(None, None).unwrap(),
                quotas: &Quotas::default(),
                timers: &Timers::default(),
                balancers: &balancers,
                known: &KnownNames::default(),
                pages: &Pages::new(VAULT.page_key().unwrap()),
                vault: &VAULT,
                caller: None,
            })
        })
    }

    fn transact<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Context<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> T {
        self.attempt(work).unwrap()
    }

    /// Creates a deployment of a revision; in a blue/green group, to the other fleet.
    pub(crate) fn create(&mut self, key: &str, members: Value) -> String {
        let input = with(
            json!({"applicationName": "shop", "deploymentGroupName": "web",
                   "revision": {"revisionType": "S3",
                                "s3Location": {"bucket": "b", "key": key, "bundleType": "zip"}}}),
            members,
        );
        self.transact(move |context| create::create(context, request(input)?))
            .0
            .deployment_id
            .unwrap()
    }

    /// Creates a blue/green deployment to a fleet.
    pub(crate) fn create_to(&mut self, colour: &str, key: &str) -> String {
        self.create(
            key,
            json!({"targetInstances": {"tagFilters": in_fleet(colour)}}),
        )
    }

    pub(crate) fn stop(&mut self, id: &str) {
        let input = json!({"deploymentId": id});
        self.transact(move |context| intervene::stop(context, request(input)?));
    }

    /// Lets a waiting deployment continue.
    pub(crate) fn proceed(&mut self, id: &str, wait: &str) -> Result<(), ApiError> {
        let input = json!({"deploymentId": id, "deploymentWaitType": wait});
        self.attempt(move |context| intervene::proceed(context, request(input)?).map(|_| ()))
    }

    /// Decides about everything once; returns whether anything changed.
    pub(crate) fn decide(&mut self) -> bool {
        let changes: usize = self.transact(|context| {
            let mut changes = 0;
            for id in unfinished::all(context.tx)? {
                changes += decide::decide(context, &id)?.changes().len();
            }
            Ok(changes)
        });
        changes > 0
    }

    /// Lets everything happen that can happen now.
    pub(crate) fn settle(&mut self) {
        loop {
            let before = self.performed.len();
            let decided = self.decide();
            self.move_traffic();
            self.hosts_act();
            if !decided && self.performed.len() == before {
                return;
            }
        }
    }

    fn move_traffic(&mut self) {
        for job in self.transact(|context| traffic::take(context, 0)).jobs {
            self.performed
                .push(format!("{} {:?}Traffic", job.instance, job.direction));
            let traffic::Work::Event { command, .. } = job.work else {
                panic!("a job of no deployment");
            };
            self.transact(move |context| traffic::complete(context, &command, Ok(String::new())));
        }
    }

    /// Lets every host do what it can do now.
    pub(crate) fn hosts_act(&mut self) {
        for index in 0..self.hosts.len() {
            match self.hosts[index].conduct {
                Conduct::Silent => {}
                Conduct::Holds => self.take_commands(index),
                Conduct::Good | Conduct::Fails(_) => {
                    self.complete_held(index);
                    self.take_commands(index);
                }
            }
        }
    }

    fn take_commands(&mut self, index: usize) {
        loop {
            let host = self.hosts[index].identifier.clone();
            let command = self.transact(move |context| match commands::lease(context, &host)?.0 {
                Offer::Command(command) => {
                    commands::acknowledge(context, &host, &command.host_command_identifier, None)?;
                    Ok(Some(command))
                }
                Offer::Nothing { .. } => Ok(None),
            });
            let Some(command) = command else {
                return;
            };
            let host = &mut self.hosts[index];
            self.performed
                .push(format!("{} {}", host.name, command.command_name));
            host.held.push(command.host_command_identifier);
            if host.conduct != Conduct::Holds {
                self.complete_held(index);
            }
        }
    }

    fn complete_held(&mut self, index: usize) {
        let Host {
            identifier,
            conduct,
            held,
            ..
        } = &mut self.hosts[index];
        let (identifier, conduct) = (identifier.clone(), *conduct);
        for id in std::mem::take(held) {
            // A command's identifier contains the name of its event.
            let fails =
                matches!(conduct, Conduct::Fails(event) if id.contains(&format!(".{event}.")));
            let host = identifier.clone();
            self.transact(move |context| commands::complete(context, &host, &id, !fails, None));
        }
    }

    /// A host completes what it has acknowledged.
    pub(crate) fn complete(&mut self, name: &str) {
        let index = self
            .hosts
            .iter()
            .position(|host| host.name == name)
            .unwrap();
        self.complete_held(index);
    }

    /// An operator takes a deployment back on a host, which has the files of `previous` then.
    pub(crate) fn take_back(&mut self, name: &str, id: &str, previous: Option<&str>) {
        let host = self
            .hosts
            .iter()
            .find(|host| host.name == name)
            .unwrap()
            .identifier
            .clone();
        let told = PostHostRollbackInput {
            host_identifier: host.clone(),
            deployment_id: id.into(),
            previous_deployment_id: previous.map(str::to_owned),
            rolled_back_at: None,
            message: "taken back".into(),
        };
        self.transact(move |context| commands::rolled_back(context, &host, &told));
    }

    pub(crate) fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Lets time pass until nothing is in progress.
    pub(crate) fn finish(&mut self) {
        for _ in 0..10_000 {
            self.settle();
            let sql = "SELECT count(*) FROM deployments WHERE status IN ('Created', 'InProgress', 'Ready')";
            let active: i64 =
                self.transact(move |c| Ok(c.tx.query_one(sql, (), |row| row.get(0))?));
            if active == 0 {
                return;
            }
            self.pass(Duration::from_secs(60));
        }
        panic!("the deployments never end");
    }

    /// Deploys in place, to the end.
    pub(crate) fn deploy(&mut self, key: &str) -> DeploymentInfo {
        let id = self.create(key, json!({}));
        self.finish();
        self.info(&id)
    }

    pub(crate) fn info(&mut self, id: &str) -> DeploymentInfo {
        let input = json!({"deploymentId": id});
        let found = self.transact(move |context| queries::get(context, request(input)?));
        found.deployment_info.unwrap()
    }

    pub(crate) fn status(&mut self, id: &str) -> String {
        self.info(id).status.unwrap().to_string()
    }

    pub(crate) fn error(&mut self, id: &str) -> Option<ErrorCode> {
        self.info(id).error_information.and_then(|error| error.code)
    }

    /// The deployment that rolled another back.
    pub(crate) fn rollback(&mut self, id: &str) -> Option<String> {
        self.info(id)
            .rollback_info
            .and_then(|rollback| rollback.rollback_deployment_id)
    }

    pub(crate) fn rollback_message(&mut self, id: &str) -> String {
        self.info(id)
            .rollback_info
            .and_then(|rollback| rollback.rollback_message)
            .unwrap_or_default()
    }

    /// The targets of a deployment, by their labels.
    pub(crate) fn targets(&mut self, id: &str, labels: &[&str]) -> Vec<String> {
        let filters = if labels.is_empty() {
            json!({})
        } else {
            json!({"ServerInstanceLabel": labels})
        };
        let input = json!({"deploymentId": id, "targetFilters": filters});
        self.transact(move |context| targets::list(context, request(input)?))
            .target_ids
            .unwrap()
    }

    /// The deployment group as clients see it.
    pub(crate) fn group(&mut self) -> codedeploy_api::codedeploy::DeploymentGroupInfo {
        let input = json!({"applicationName": "shop", "deploymentGroupName": "web"});
        let found = self.transact(move |context| groups::get(context, request(input)?));
        found.deployment_group_info.unwrap()
    }

    /// The events that were performed since the last call.
    pub(crate) fn performed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.performed)
    }
}

/// A blue/green configuration that continues at once.
pub(crate) fn reroutes(action: &str) -> Value {
    json!({
        "deploymentReadyOption": {"actionOnTimeout": "CONTINUE_DEPLOYMENT"},
        "terminateBlueInstancesOnDeploymentSuccess": {"action": action, "terminationWaitTimeInMinutes": 60},
        "greenFleetProvisioningOption": {"action": "DISCOVER_EXISTING"},
    })
}

/// The key of a revision in S3.
pub(crate) fn key(revision: Option<&codedeploy_api::codedeploy::RevisionLocation>) -> Option<&str> {
    revision?.s3_location.as_ref()?.key.as_deref()
}
