//! A web site: servers that a fleet's agents deploy, behind a real HAProxy.

use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::types::{
    BlueGreenDeploymentConfiguration, BlueInstanceTerminationOption, DeploymentOption,
    DeploymentReadyAction, DeploymentReadyOption, DeploymentStyle, DeploymentType, Ec2TagFilter,
    GreenFleetProvisioningAction, GreenFleetProvisioningOption, InstanceAction, LoadBalancerInfo,
    TargetGroupInfo, TargetInstances,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::balancer::{BACKEND, Balancer, Clients, Server, free_port, request, socket};
use crate::fleet::{APPLICATION, Fleet, GROUP};
use crate::host::Host;
use crate::scripts::Scripted;
use crate::wait;

/// Responds slowly, so that there are always requests under way; a request for `/held` waits while
/// the host has a file `held`.
const SERVER: &str = r#"import os, sys, time, http.server
page, port, host = sys.argv[1].encode(), int(sys.argv[2]), sys.argv[3]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.05)
        while self.path == "/held" and os.path.exists(host + "/held"):
            time.sleep(0.05)
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", port), Handler).serve_forever()
"#;

/// Kills it at once: requests under way fail.
const STOP: &str =
    "[ -f $host/pid ] || exit 0\nkill -KILL $(cat $host/pid) 2>/dev/null\nrm $host/pid\n";
const START: &str = "[ ! -f $host/pid ] || exit 1\n\
                     setsid python3 $here/server.py $(cat $here/name) $(cat $host/port) $host </dev/null >/dev/null 2>&1 &\n\
                     echo $! > $host/pid\n";
const VALIDATE: &str = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do\n  \
                        python3 -c \"import urllib.request; urllib.request.urlopen('http://127.0.0.1:$(cat $host/port)/page')\" 2>/dev/null && exit 0\n  \
                        sleep 0.2\ndone\nexit 1\n";

/// The tag of replacement instances.
const GREEN: (&str, &str) = ("fleet", "green");

/// Original instances `box1`, `box2` … with traffic, and replacement instances `green1` … without.
#[derive(Debug)]
pub struct Site {
    // Dropped first, because it ends processes that run in the fleet's folder.
    _servers: Servers,
    pub balancer: Balancer,
    pub fleet: Fleet,
}

/// The waits of a blue/green deployment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waits {
    /// Wait for somebody to let the traffic move.
    pub ready: bool,
    /// The minutes before the original instances are deregistered; `None` keeps them.
    pub termination: Option<i32>,
}

/// Ends the web servers that are left on hosts.
#[derive(Debug)]
struct Servers(Vec<PathBuf>);

impl Drop for Servers {
    fn drop(&mut self) {
        for file in &self.0 {
            let pid = std::fs::read_to_string(file)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

impl Site {
    /// Starts it without any web server, with `more` settings of the controller.
    pub async fn start(blue: usize, green: usize, more: &str) -> Self {
        let mut fleet = Fleet::start_with(blue, "", |folder| settings(folder) + more).await;
        for number in 1..=green {
            let (key, value) = GREEN;
            fleet
                .add(&format!("green{number}"), &format!("{key}={value}"))
                .await;
        }
        let servers: Vec<_> = fleet
            .hosts
            .iter()
            .enumerate()
            .map(|(index, host)| server(host, index < blue))
            .collect();
        let balancer = Balancer::start(&fleet.path(""), &servers).await;
        let files = fleet
            .hosts
            .iter()
            .map(|host| host.folder.join("pid"))
            .collect();
        Self {
            _servers: Servers(files),
            balancer,
            fleet,
        }
    }

    /// The host with this name.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn host(&self, name: &str) -> &Host {
        self.fleet
            .hosts
            .iter()
            .find(|host| host.name == name)
            .expect("a host of the site")
    }

    /// Sets the group to deploy in place, with each host out of rotation meanwhile.
    pub async fn deploys_in_place(&self) {
        self.deploys(DeploymentType::InPlace, None).await;
    }

    /// Sets the group to deploy to the replacement instances.
    pub async fn deploys_blue_green(&self, waits: Waits) {
        let ready = if waits.ready {
            DeploymentReadyOption::builder()
                .action_on_timeout(DeploymentReadyAction::StopDeployment)
                .wait_time_in_minutes(5)
        } else {
            DeploymentReadyOption::builder()
                .action_on_timeout(DeploymentReadyAction::ContinueDeployment)
        };
        let blue = match waits.termination {
            Some(minutes) => BlueInstanceTerminationOption::builder()
                .action(InstanceAction::Terminate)
                .termination_wait_time_in_minutes(minutes),
            None => BlueInstanceTerminationOption::builder().action(InstanceAction::KeepAlive),
        };
        let green = GreenFleetProvisioningOption::builder()
            .action(GreenFleetProvisioningAction::DiscoverExisting);
        let configuration = BlueGreenDeploymentConfiguration::builder()
            .deployment_ready_option(ready.build())
            .terminate_blue_instances_on_deployment_success(blue.build())
            .green_fleet_provisioning_option(green.build());
        self.deploys(DeploymentType::BlueGreen, Some(configuration.build()))
            .await;
    }

    async fn deploys(&self, kind: DeploymentType, more: Option<BlueGreenDeploymentConfiguration>) {
        let style = DeploymentStyle::builder()
            .deployment_type(kind)
            .deployment_option(DeploymentOption::WithTrafficControl);
        let group = TargetGroupInfo::builder().name("shop-web").build();
        self.fleet
            .service
            .client
            .update_deployment_group()
            .application_name(APPLICATION)
            .current_deployment_group_name(GROUP)
            .deployment_config_name("CodeDeployDefault.OneAtATime")
            .deployment_style(style.build())
            .load_balancer_info(
                LoadBalancerInfo::builder()
                    .target_group_info_list(group)
                    .build(),
            )
            .set_blue_green_deployment_configuration(more)
            .send()
            .await
            .unwrap_or_else(|error| panic!("{}", error.into_service_error()));
    }

    /// Deploys servers of `page` in place, and waits for their success.
    pub async fn deploy(&self, page: &str) -> String {
        let id = self.create(page).await;
        let deployed = self.fleet.outcome(&id).await;
        assert_eq!(deployed.status(), "Succeeded", "{:#?}", deployed.events);
        id
    }

    /// Creates a deployment in place of servers of `page`.
    pub async fn create(&self, page: &str) -> String {
        self.fleet.create(push(&self.fleet, page).await).await
    }

    /// Creates a deployment of servers of `page` to the replacement instances.
    pub async fn create_green(&self, page: &str) -> String {
        let (key, value) = GREEN;
        let tag = Ec2TagFilter::builder().key(key).value(value).build();
        self.fleet
            .service
            .client
            .create_deployment()
            .application_name(APPLICATION)
            .deployment_group_name(GROUP)
            .revision(push(&self.fleet, page).await)
            .target_instances(TargetInstances::builder().tag_filters(tag).build())
            .send()
            .await
            .unwrap_or_else(|error| panic!("{}", error.into_service_error()))
            .deployment_id
            .expect("a deployment has an id")
    }

    /// Starts clients, and waits until they have got responses.
    pub async fn visit(&self) -> Clients {
        wait::until("the site answers", async || {
            request(self.balancer.address).await
        })
        .await;
        let clients = Clients::start(self.balancer.address, 4);
        clients.pages().await;
        clients
    }

    pub async fn stop(self) {
        let Self {
            _servers,
            balancer,
            fleet,
        } = self;
        drop((_servers, balancer));
        fleet.stop().await;
    }
}

async fn push(fleet: &Fleet, page: &str) -> aws_sdk_codedeploy::types::RevisionLocation {
    let server = Scripted::new(page).with("server.py", SERVER);
    let server = server
        .does("ApplicationStop", STOP)
        .does("ApplicationStart", START);
    server.does("ValidateService", VALIDATE).push(fleet).await
}

fn settings(folder: &Path) -> String {
    let socket = socket(folder).display().to_string();
    format!(
        "load_balancers:\n  shop-web:\n    haproxy: {{socket: {socket}, backend: {BACKEND}, drain: 20}}\n"
    )
}

/// Gives the host its port.
fn server(host: &Host, enabled: bool) -> Server {
    let port = free_port();
    std::fs::write(host.folder.join("port"), port.to_string()).expect("the file can be written");
    Server {
        name: host.name.clone(),
        port,
        enabled,
    }
}
