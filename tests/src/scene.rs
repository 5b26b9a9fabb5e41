//! A small fleet in telling states for the web console: one deployment runs, one failed, one went
//! well, and one group has none.

use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::types::{BundleType, DeploymentStatus, TagFilter, TagFilterType};
use futures_util::future::join_all;

use crate::bucket::Bucket;
use crate::bundle;
use crate::host::Host;
use crate::programs::{Programs, Running};
use crate::service::{SETTINGS, Service, revision};
use crate::wait;

/// The hosts, each with its tag.
const HOSTS: &[(&str, &str)] = &[
    ("web1", "role=web"),
    ("web2", "role=web"),
    ("web3", "role=web"),
    ("web4", "role=web"),
    ("api1", "role=api"),
    ("api2", "role=api"),
    ("blog1", "role=blog"),
    ("blog2", "role=blog"),
];

/// The output of the script that fails.
const FAILURE: &str = "\
echo 'Migrating the database of the blog'\n\
echo '  0041_add_slug .............. done'\n\
echo '  0042_unique_slug ...........' >&2\n\
echo 'ERROR:  could not create unique index \"posts_slug_key\"' >&2\n\
echo 'DETAIL:  Key (slug)=(hello-world) is duplicated.' >&2\n\
exit 3\n";

/// The fleet.
#[derive(Debug)]
pub struct Scene {
    pub service: Service,
    pub hosts: Vec<Host>,
    /// The deployment that runs until [`Scene::release`].
    pub running: String,
    /// The deployment that failed.
    pub failed: String,
    bucket: Bucket,
    agents: Vec<Running>,
    folder: PathBuf,
}

impl Scene {
    /// Starts everything in a folder.
    pub async fn start(programs: &Programs, folder: &Path) -> Self {
        let data = folder.join("controller");
        std::fs::create_dir_all(&data).expect("the folder can be made");
        // Nobody listens at this address, so that an alarm is unknown.
        let settings = "console: {}\nquotas: {targets_per_deployment: 10000}\nalarms:\n  checkout-errors:\n    webhook: {url: 'http://127.0.0.1:9/'}\n";
        std::fs::write(data.join(SETTINGS), settings).expect("the settings can be written");
        let service = Service::start(programs, &data).await;
        let registered = HOSTS.iter().map(|(name, tag)| {
            let place = folder.join(name);
            let service = &service;
            async move { Host::register(programs, service, name, tag, &place).await }
        });
        let hosts: Vec<Host> = join_all(registered).await;
        // It is registered, and its agent was never started.
        Host::register(
            programs,
            &service,
            "spare1",
            "role=spare",
            &folder.join("spare1"),
        )
        .await;
        let keys = hosts.iter().map(|host| host.keys.clone());
        let keys: Vec<_> = keys.chain([service.operator.clone()]).collect();
        let bucket = Bucket::embedded(&folder.join("s3"), "revisions", &keys)
            .await
            .expect("an S3 server");
        for host in &hosts {
            host.configure(&bucket, "");
        }
        let agents = hosts.iter().map(Host::start_agent).collect();
        let mut scene = Self {
            service,
            hosts,
            running: String::new(),
            failed: String::new(),
            bucket,
            agents,
            folder: folder.into(),
        };
        scene.play().await;
        scene
    }

    /// The deployments before the present.
    async fn play(&mut self) {
        for (application, groups) in [
            ("blog", &[("site", "blog", "OneAtATime")][..]),
            (
                "shop",
                &[
                    ("api", "api", "AllAtOnce"),
                    ("staging", "staging", "AllAtOnce"),
                    ("web", "web", "HalfAtATime"),
                ][..],
            ),
        ] {
            self.application(application).await;
            for (group, tag, config) in groups {
                self.group(application, group, tag, config).await;
            }
        }
        let first = [
            ("blog", "site", "blog/2.0.tgz"),
            ("shop", "api", "shop/api-6.tgz"),
            ("shop", "web", "shop/web-11.tgz"),
        ];
        let first = first.map(async |(application, group, key)| {
            self.push(key, "", "").await;
            let id = self.deploy(application, group, key).await;
            self.ended(&id).await
        });
        join_all(first).await;
        self.push("shop/api-7.tgz", "", "").await;
        self.push("blog/2.1.tgz", "", FAILURE).await;
        self.hold();
        let hold = self.folder.join("hold");
        let waiting = format!("while [ -e '{}' ]; do sleep 0.05; done\n", hold.display());
        self.push("shop/web-12.tgz", &waiting, "").await;
        let better = self.deploy("shop", "api", "shop/api-7.tgz").await;
        self.failed = self.deploy("blog", "site", "blog/2.1.tgz").await;
        self.running = self.deploy("shop", "web", "shop/web-12.tgz").await;
        self.ended(&better).await;
        assert_eq!(self.ended(&self.failed).await, DeploymentStatus::Failed);
        wait::until("two hosts are held", async || {
            let busy = self.service.deployment(&self.running).await;
            let busy = busy
                .deployment_overview
                .map_or(0, |counts| counts.in_progress);
            (busy == 2).then_some(()).ok_or(busy)
        })
        .await;
    }

    pub async fn application(&self, name: &str) {
        let client = &self.service.client;
        let made = client.create_application().application_name(name);
        made.send().await.expect("a new application");
    }

    pub async fn group(&self, application: &str, group: &str, tag: &str, config: &str) {
        let filter = TagFilter::builder()
            .key("role")
            .value(tag)
            .r#type(TagFilterType::KeyAndValue)
            .build();
        let client = &self.service.client;
        let made = client
            .create_deployment_group()
            .application_name(application)
            .deployment_group_name(group)
            .service_role_arn("arn:aws:iam::123456789012:role/codedeploy")
            .deployment_config_name(format!("CodeDeployDefault.{config}"))
            .on_premises_instance_tag_filters(filter);
        made.send().await.expect("a new group");
    }

    /// Uploads a revision whose scripts for ApplicationStart and AfterInstall run these commands.
    pub async fn push(&self, key: &str, start: &str, migrate: &str) {
        let source = tempfile::tempdir().expect("a temporary folder");
        let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: scripts/migrate.sh\n      timeout: 300\n  \
                       ApplicationStart:\n    - location: scripts/start.sh\n      timeout: 300\n  \
                       ValidateService:\n    - location: scripts/validate.sh\n      timeout: 300\n";
        let script = |commands: &str| format!("#!/bin/sh\n{commands}");
        bundle::write(
            source.path(),
            &[
                ("appspec.yml", appspec),
                ("scripts/migrate.sh", &script(migrate)),
                ("scripts/start.sh", &script(start)),
                ("scripts/validate.sh", &script("echo ok\n")),
            ],
        );
        self.bucket.put(key, bundle::tgz(source.path())).await;
    }

    /// Creates a deployment with a description.
    pub async fn deploy_saying(
        &self,
        description: &str,
        application: &str,
        group: &str,
        key: &str,
    ) -> String {
        let object = self.bucket.object(key).await;
        let created = self
            .service
            .client
            .create_deployment()
            .application_name(application)
            .deployment_group_name(group)
            .revision(revision(&self.bucket, &object, BundleType::from("tgz")))
            .description(description);
        let created = created.send().await.expect("a new deployment");
        created.deployment_id.expect("its id")
    }

    pub async fn deploy(&self, application: &str, group: &str, key: &str) -> String {
        let object = self.bucket.object(key).await;
        let location = revision(&self.bucket, &object, BundleType::from("tgz"));
        self.service.deploy(application, group, location).await
    }

    /// Waits for the end of a deployment.
    pub async fn ended(&self, id: &str) -> DeploymentStatus {
        wait::until("the deployment ends", async || {
            let info = self.service.deployment(id).await;
            match (info.complete_time, info.status) {
                (Some(_), Some(status)) => Ok(status),
                (_, status) => Err(status),
            }
        })
        .await
    }

    /// Makes deployments of `shop/web-12.tgz` wait on their hosts.
    pub fn hold(&self) {
        std::fs::write(self.folder.join("hold"), "").expect("the file can be written");
    }

    /// Lets the running deployment continue.
    pub fn release(&self) {
        std::fs::remove_file(self.folder.join("hold")).expect("it is held");
    }

    /// The last deployment of a group.
    pub async fn last(&self, application: &str, group: &str) -> String {
        let client = &self.service.client;
        let listed = client
            .list_deployments()
            .application_name(application)
            .deployment_group_name(group);
        let listed = listed.send().await.expect("the deployments");
        let first = listed.deployments.unwrap_or_default().into_iter().next();
        first.expect("a deployment")
    }

    pub async fn stop(self) {
        for agent in self.agents {
            agent.stop().await;
        }
        self.service.stop().await;
        self.bucket.stop().await;
    }
}
