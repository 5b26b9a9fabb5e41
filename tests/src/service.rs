//! A running controller, and clients for it.

use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_codedeploy::types::{
    BundleType, Diagnostics, LifecycleEventStatus, RevisionLocation, RevisionLocationType,
    S3Location, TagFilter, TagFilterType,
};
use aws_sdk_codedeploy::{Client, types};
use serde_json::Value;

use crate::bucket::{Bucket, Keys, Object, http_client};
use crate::programs::{Programs, Running};
use crate::wait;

/// The region and account of all controllers that are started here.
pub const REGION: &str = "us-east-1";
const ROLE: &str = "arn:aws:iam::123456789012:role/codedeploy";

/// A file in a controller's folder with settings in addition to those of all tests; may be missing.
pub const SETTINGS: &str = "controller.yml";

/// A controller on loopback, with its state in a folder.
#[derive(Debug)]
pub struct Service {
    pub endpoint: String,
    pub data: PathBuf,
    /// Keys of an operator.
    pub operator: Keys,
    pub client: Client,
    programs: Programs,
    running: Running,
}

/// A controller that was killed; its state still exists.
#[derive(Debug)]
pub struct Killed {
    endpoint: String,
    data: PathBuf,
    operator: Keys,
    client: Client,
    programs: Programs,
}

/// One ended lifecycle event of one target.
#[derive(Debug, Clone)]
pub struct EndedEvent {
    pub name: String,
    pub status: LifecycleEventStatus,
    pub seconds: f64,
    pub diagnostics: Option<Diagnostics>,
}

impl Service {
    /// Starts a controller with its state in `data`.
    pub async fn start(programs: &Programs, data: &Path) -> Self {
        std::fs::create_dir_all(data).expect("the folder can be made");
        let running = serve(programs, data, "127.0.0.1:0");
        let endpoint = address(data, &running).await;
        let operator = create_keys(programs, data).await;
        let client = client(&endpoint, &operator);
        Self {
            endpoint,
            data: data.into(),
            operator,
            client,
            programs: programs.clone(),
            running,
        }
    }

    /// Kills it in the middle of its work, and starts it again on the same state and address.
    pub async fn kill_and_restart(self) -> Self {
        self.kill().await.restart().await
    }

    /// Kills it in the middle of its work.
    pub async fn kill(mut self) -> Killed {
        self.running.kill().await;
        let Self {
            endpoint,
            data,
            operator,
            client,
            programs,
            ..
        } = self;
        Killed {
            endpoint,
            data,
            operator,
            client,
            programs,
        }
    }

    pub async fn stop(self) {
        let log = self.running.log.clone();
        let status = self.running.stop().await;
        assert!(
            status.success(),
            "the controller ended with {status}; see {}",
            log.display()
        );
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.running.pid().expect("it runs")
    }

    pub fn log(&self) -> &Path {
        &self.running.log
    }

    /// Makes a link that logs in to the console once.
    pub async fn login_link(&self) -> String {
        self.login_link_with(&[]).await
    }

    /// The same with options.
    pub async fn login_link_with(&self, options: &[&str]) -> String {
        run(
            &self.programs,
            &self.data,
            &[&["console"], options].concat(),
        )
        .await
        .trim()
        .to_owned()
    }

    /// Runs `codedeploy-controller` with a subcommand on this state, and reads the JSON that it
    /// prints.
    pub async fn administer(&self, arguments: &[&str]) -> Value {
        administer(&self.programs, &self.data, arguments).await
    }

    /// Creates an application with one deployment group of the hosts with `tag`.
    pub async fn create_group(&self, application: &str, group: &str, (key, value): (&str, &str)) {
        self.client
            .create_application()
            .application_name(application)
            .send()
            .await
            .expect("a new application");
        let filter = TagFilter::builder()
            .key(key)
            .value(value)
            .r#type(TagFilterType::KeyAndValue)
            .build();
        self.client
            .create_deployment_group()
            .application_name(application)
            .deployment_group_name(group)
            .service_role_arn(ROLE)
            .deployment_config_name("CodeDeployDefault.AllAtOnce")
            .on_premises_instance_tag_filters(filter)
            .send()
            .await
            .expect("a new group");
    }

    /// Creates a deployment of `object` to the group.
    pub async fn deploy(
        &self,
        application: &str,
        group: &str,
        revision: RevisionLocation,
    ) -> String {
        let created = self
            .client
            .create_deployment()
            .application_name(application)
            .deployment_group_name(group)
            .revision(revision)
            .send()
            .await
            .unwrap_or_else(|error| panic!("{}", error.into_service_error()));
        created.deployment_id.expect("a deployment has an id")
    }

    /// Waits until the deployment has ended, and calls `seen` for every event of `target` when it
    /// ends.
    pub async fn follow(
        &self,
        id: &str,
        target: &str,
        mut seen: impl FnMut(&EndedEvent),
    ) -> types::DeploymentInfo {
        let mut told = 0;
        wait::until("the deployment ends", async || {
            let info = self.deployment(id).await;
            let events = self.events(id, target).await;
            for event in &events[told.min(events.len())..] {
                seen(event);
            }
            told = events.len();
            let ended = ["Succeeded", "Failed", "Stopped"];
            let status = info
                .status
                .as_ref()
                .map(types::DeploymentStatus::as_str)
                .unwrap_or_default()
                .to_owned();
            if ended.contains(&status.as_str()) {
                Ok(info)
            } else {
                Err((status, told))
            }
        })
        .await
    }

    pub async fn deployment(&self, id: &str) -> types::DeploymentInfo {
        let answer = self
            .client
            .get_deployment()
            .deployment_id(id)
            .send()
            .await
            .expect("the deployment exists");
        answer.deployment_info.expect("the answer holds it")
    }

    /// The ended events of `target`, in order; empty if the targets are not known yet.
    pub async fn events(&self, id: &str, target: &str) -> Vec<EndedEvent> {
        let seconds =
            |time: Option<aws_smithy_types::DateTime>| time.map(|time| time.as_secs_f64());
        let ended = |event: types::LifecycleEvent| {
            let end = seconds(event.end_time)?;
            Some(EndedEvent {
                name: event.lifecycle_event_name?,
                status: event.status?,
                seconds: end - seconds(event.start_time).unwrap_or(end),
                diagnostics: event.diagnostics,
            })
        };
        self.all_events(id, target)
            .await
            .into_iter()
            .map_while(ended)
            .collect()
    }

    /// Waits until an event of `target` has begun, and has not ended.
    pub async fn until_in_progress(&self, id: &str, target: &str, event: &str) {
        wait::until("the lifecycle event is in progress", async || {
            let events = self.all_events(id, target).await;
            let found = events
                .iter()
                .find(|found| found.lifecycle_event_name() == Some(event));
            let status = found.and_then(types::LifecycleEvent::status);
            if status == Some(&LifecycleEventStatus::InProgress) {
                Ok(())
            } else {
                Err(events)
            }
        })
        .await;
    }

    async fn all_events(&self, id: &str, target: &str) -> Vec<types::LifecycleEvent> {
        let answer = self
            .client
            .get_deployment_target()
            .deployment_id(id)
            .target_id(target)
            .send()
            .await;
        let Ok(answer) = answer else {
            return Vec::new();
        };
        let target = answer
            .deployment_target
            .and_then(|target| target.instance_target)
            .expect("an instance");
        target.lifecycle_events.unwrap_or_default()
    }
}

impl Killed {
    /// Starts it again on the same state and address.
    pub async fn restart(self) -> Service {
        let Self {
            endpoint,
            data,
            operator,
            client,
            programs,
        } = self;
        let running = serve(
            &programs,
            &data,
            endpoint
                .split_once("://")
                .map_or("", |(_, address)| address),
        );
        address(&data, &running).await;
        Service {
            endpoint,
            data,
            operator,
            client,
            programs,
            running,
        }
    }
}

/// The revision location of `object`, in the uploaded version.
pub fn revision(bucket: &Bucket, object: &Object, bundle_type: BundleType) -> RevisionLocation {
    let location = S3Location::builder()
        .bucket(&bucket.name)
        .key(&object.key)
        .bundle_type(bundle_type)
        .e_tag(&object.etag)
        .set_version(object.version.clone())
        .build();
    RevisionLocation::builder()
        .revision_type(RevisionLocationType::S3)
        .s3_location(location)
        .build()
}

/// A client that signs with `keys`.
pub fn client(endpoint: &str, keys: &Keys) -> Client {
    let credentials = Credentials::new(
        &keys.access_key_id,
        &keys.secret_access_key,
        None,
        None,
        "test",
    );
    let config = aws_sdk_codedeploy::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(credentials)
        .http_client(http_client())
        .build();
    Client::from_conf(config)
}

fn serve(programs: &Programs, data: &Path, listen: &str) -> Running {
    // The address of an earlier run must not be mistaken for this one's.
    let _ = std::fs::remove_file(data.join("address"));
    let arguments = |command: &mut tokio::process::Command| {
        command
            .args([
                "serve",
                "--listen",
                listen,
                "--region",
                REGION,
                "--data-dir",
            ])
            .arg(data);
        if data.join(SETTINGS).exists() {
            command.arg("--config-file").arg(data.join(SETTINGS));
        }
    };
    programs
        .controller
        .start(arguments, &data.join("controller.log"))
}

async fn address(data: &Path, running: &Running) -> String {
    let found = wait::until("the controller says where it listens", async || {
        std::fs::read_to_string(data.join("address"))
            .map_err(|error| format!("{error}; log:\n{}", running.output()))
    });
    found.await;
    let announced =
        std::fs::read(data.join("service.json")).expect("it is written before the address");
    let announced: Value = serde_json::from_slice(&announced).expect("it is JSON");
    announced["endpoint"]
        .as_str()
        .expect("it listens on one address")
        .to_owned()
}

async fn create_keys(programs: &Programs, data: &Path) -> Keys {
    let created = administer(
        programs,
        data,
        &["credentials", "create", "--role", "operator", "--json"],
    )
    .await;
    keys(&created)
}

/// Reads the access key in the output of `codedeploy-controller`.
pub fn keys(created: &Value) -> Keys {
    let text = |name: &str| {
        created[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {created}"))
            .to_owned()
    };
    Keys {
        access_key_id: text("access_key_id"),
        secret_access_key: text("secret_access_key"),
    }
}

async fn administer(programs: &Programs, data: &Path, arguments: &[&str]) -> Value {
    let output = run(programs, data, arguments).await;
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output}"))
}

/// Runs `codedeploy-controller` with a subcommand, and returns what it prints.
async fn run(programs: &Programs, data: &Path, arguments: &[&str]) -> String {
    let mut command = programs.controller.command(arguments);
    let output = command
        .arg("--data-dir")
        .arg(data)
        .output()
        .await
        .expect("the controller starts");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
