//! Traffic: real web servers, deployed by real agents, behind a real HAProxy, under requests that must not fail.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests fail where they cannot go on")]

use std::path::Path;

use aws_sdk_codedeploy::types::{
    BlueGreenDeploymentConfiguration, BlueInstanceTerminationOption, DeploymentOption, DeploymentReadyAction,
    DeploymentReadyOption, DeploymentStatus, DeploymentStyle, DeploymentType, Ec2TagFilter,
    GreenFleetProvisioningAction, GreenFleetProvisioningOption, InstanceAction, LoadBalancerInfo,
    RevisionLocation, TargetGroupInfo, TargetInstances,
};
use codedeploy_tests::balancer::{self, BACKEND, Balancer, Clients, Server, free_port, request, socket};
use codedeploy_tests::fleet::{APPLICATION, Fleet, GROUP};
use codedeploy_tests::host::Host;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::wait;

/// Answers slowly, so that there are always requests under way.
const SERVER: &str = r#"import sys, time, http.server
page, port = sys.argv[1].encode(), int(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
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

/// Each host's folder is above its agent's, with the port that its server listens on.
const HOST: &str = "here=$(cd \"$(dirname \"$0\")\" && pwd)\nhost=${here%%/deployment-root/*}\n";

/// Kills it without mercy: what is under way fails.
const STOP: &str = "[ -f $host/pid ] || exit 0\nkill -KILL $(cat $host/pid) 2>/dev/null\nrm $host/pid\n";
const START: &str = "setsid python3 $here/server.py $(cat $here/page) $(cat $host/port) </dev/null >/dev/null 2>&1 &\necho $! > $host/pid\n";
const VALIDATE: &str = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do\n  python3 -c \"import urllib.request; urllib.request.urlopen('http://127.0.0.1:$(cat $host/port)/page')\" 2>/dev/null && exit 0\n  sleep 0.2\ndone\nexit 1\n";

async fn push(fleet: &Fleet, page: &str) -> RevisionLocation {
    let script = |text: &str| format!("#!/bin/sh\n{HOST}{text}");
    let appspec = "version: 0.0\nos: linux\nhooks:\n  ApplicationStop:\n    - location: stop.sh\n  ApplicationStart:\n    \
                   - location: start.sh\n  ValidateService:\n    - location: validate.sh\n";
    let (stop, start, validate) = (script(STOP), script(START), script(VALIDATE));
    let files = [
        ("appspec.yml", appspec),
        ("page", page),
        ("server.py", SERVER),
        ("stop.sh", &stop),
        ("start.sh", &start),
        ("validate.sh", &validate),
    ];
    fleet.push(&files).await
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
    std::fs::write(host.folder.join("port"), port.to_string()).unwrap();
    Server { name: host.name.clone(), port, enabled }
}

/// Ends the web servers that hosts have left.
struct Leftovers(Vec<std::path::PathBuf>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for file in &self.0 {
            let pid = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i32>().ok());
            if let Some(pid) = pid {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }
}

fn leftovers<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Leftovers {
    Leftovers(hosts.into_iter().map(|host| host.folder.join("pid")).collect())
}

async fn with_traffic_control(
    fleet: &Fleet,
    kind: DeploymentType,
    more: Option<BlueGreenDeploymentConfiguration>,
) {
    let group = TargetGroupInfo::builder().name("shop-web").build();
    fleet
        .service
        .client
        .update_deployment_group()
        .application_name(APPLICATION)
        .current_deployment_group_name(GROUP)
        .deployment_config_name("CodeDeployDefault.OneAtATime")
        .deployment_style(
            DeploymentStyle::builder()
                .deployment_type(kind)
                .deployment_option(DeploymentOption::WithTrafficControl)
                .build(),
        )
        .load_balancer_info(LoadBalancerInfo::builder().target_group_info_list(group).build())
        .set_blue_green_deployment_configuration(more)
        .send()
        .await
        .unwrap_or_else(|error| panic!("{}", error.into_service_error()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_behind_a_load_balancer_no_request_fails() {
    let fleet = Fleet::start_with(2, "", settings).await;
    let servers: Vec<_> = fleet.hosts.iter().map(|host| server(host, true)).collect();
    let leftovers = leftovers(&fleet.hosts);
    let balancer = Balancer::start(&fleet.path(""), &servers).await;
    with_traffic_control(&fleet, DeploymentType::InPlace, None).await;
    let first = fleet.outcome(&fleet.create(push(&fleet, "one").await).await).await;
    assert_eq!(first.status(), "Succeeded", "{:#?}", first.events);
    let clients = Clients::start(balancer.address, 4);
    wait::until("clients are answered", async || {
        let tally = clients.tally();
        if tally.answers.values().sum::<usize>() > 20 { Ok(()) } else { Err(format!("{tally:?}")) }
    })
    .await;
    let second = fleet.outcome(&fleet.create(push(&fleet, "two").await).await).await;
    let before = clients.tally();
    wait::until("the new revision answers", async || {
        let answers = clients.tally().answers.get("two").copied().unwrap_or(0);
        if answers > before.answers.get("two").copied().unwrap_or(0) + 20 { Ok(()) } else { Err(answers) }
    })
    .await;
    let tally = clients.stop().await;
    assert_eq!(second.status(), "Succeeded", "{:#?}", second.events);
    let names: Vec<_> = second.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names[..4], ["BeforeBlockTraffic", "BlockTraffic", "AfterBlockTraffic", "ApplicationStop"]);
    assert_eq!(names[10..], ["BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic"]);
    assert_eq!(tally.failures, Vec::<String>::new(), "{:?}", tally.answers);
    assert!(tally.answers["one"] > 20 && tally.answers["two"] > 20, "{:?}", tally.answers);
    assert_eq!(request(balancer.address).await.as_deref(), Ok("two"));
    drop(leftovers);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blue_green_moves_the_traffic_and_no_request_fails() {
    let fleet = Fleet::start_with(1, "", settings).await;
    let programs = Programs::built();
    let place = fleet.path("green");
    let green = Host::register(&programs, &fleet.service, "green1", "fleet=green", &place).await;
    green.configure(&fleet.bucket, "");
    let agent = green.start_agent();
    let servers = [server(&fleet.hosts[0], true), server(&green, false)];
    let leftovers = leftovers(fleet.hosts.iter().chain([&green]));
    let balancer = Balancer::start(&fleet.path(""), &servers).await;
    let first = fleet.outcome(&fleet.create(push(&fleet, "blue").await).await).await;
    assert_eq!(first.status(), "Succeeded", "{:#?}", first.events);

    let configuration = BlueGreenDeploymentConfiguration::builder()
        .deployment_ready_option(
            DeploymentReadyOption::builder()
                .action_on_timeout(DeploymentReadyAction::StopDeployment)
                .wait_time_in_minutes(5)
                .build(),
        )
        .terminate_blue_instances_on_deployment_success(
            BlueInstanceTerminationOption::builder().action(InstanceAction::KeepAlive).build(),
        )
        .green_fleet_provisioning_option(
            GreenFleetProvisioningOption::builder()
                .action(GreenFleetProvisioningAction::DiscoverExisting)
                .build(),
        )
        .build();
    with_traffic_control(&fleet, DeploymentType::BlueGreen, Some(configuration)).await;
    wait::until("the original instance serves", async || balancer::request(balancer.address).await).await;
    let clients = Clients::start(balancer.address, 4);
    let tag = Ec2TagFilter::builder().key("fleet").value("green").build();
    let created = fleet
        .service
        .client
        .create_deployment()
        .application_name(APPLICATION)
        .deployment_group_name(GROUP)
        .revision(push(&fleet, "green").await)
        .target_instances(TargetInstances::builder().tag_filters(tag).build())
        .send()
        .await
        .unwrap_or_else(|error| panic!("{}", error.into_service_error()));
    let id = created.deployment_id.unwrap();
    wait::until("the replacement instance is ready", async || {
        let status = fleet.service.deployment(&id).await.status;
        if status == Some(DeploymentStatus::Ready) { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(!clients.tally().answers.contains_key("green"), "traffic moved before it was asked to");
    fleet.service.client.continue_deployment().deployment_id(&id).send().await.unwrap();
    let mut events = Vec::new();
    let info = fleet.service.follow(&id, "box1", |event| events.push(event.name.clone())).await;
    assert_eq!(info.status, Some(DeploymentStatus::Succeeded), "{info:#?}");
    assert_eq!(events, ["BeforeBlockTraffic", "BlockTraffic", "AfterBlockTraffic"]);
    let of_green: Vec<_> =
        fleet.service.events(&id, "green1").await.into_iter().map(|event| event.name).collect();
    assert_eq!(of_green.len(), 10, "{of_green:?}");
    let moved = clients.tally();
    wait::until("the replacement instance answers", async || {
        let answers = clients.tally().answers.get("green").copied().unwrap_or(0);
        if answers > moved.answers.get("green").copied().unwrap_or(0) + 10 { Ok(()) } else { Err(answers) }
    })
    .await;
    let tally = clients.stop().await;
    assert_eq!(tally.failures, Vec::<String>::new(), "{:?}", tally.answers);
    assert!(tally.answers["blue"] > 0 && tally.answers["green"] > 0, "{:?}", tally.answers);
    assert_eq!(request(balancer.address).await.as_deref(), Ok("green"));
    drop(leftovers);
    agent.stop().await;
    fleet.stop().await;
}
