//! Misbehaving dependencies of the controller: monitoring and load balancers that are slow,
//! unreachable or wrong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::{
    Alarm, AlarmConfiguration, DeploymentOption, DeploymentStatus, DeploymentStyle, DeploymentType,
    ErrorCode, LoadBalancerInfo, TagFilter, TagFilterType, TargetGroupInfo,
};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Controller, command, eventually, shop, text};

/// An HTTP server on loopback.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A real HAProxy with one server, which takes sessions and never ends them.
struct Haproxy {
    folder: tempfile::TempDir,
    address: SocketAddr,
    child: std::process::Child,
}

impl Haproxy {
    async fn start() -> Haproxy {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, free) = (
            server.local_addr().unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = server.accept().await {
                held.push(stream);
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let address = free.local_addr().unwrap();
        let config = format!(
            "global\n  stats socket {}/sock mode 600 level admin\ndefaults\n  mode tcp\n  timeout connect 2s\n  \
             timeout client 60s\n  timeout server 60s\nfrontend in\n  bind {address}\n  default_backend web\n\
             backend web\n  server box1 {port} check inter 50 fall 1 rise 1\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("cfg"), config).unwrap();
        let child = Haproxy::spawn(folder.path());
        Haproxy {
            folder,
            address,
            child,
        }
    }

    fn spawn(folder: &std::path::Path) -> std::process::Child {
        // Debian installs it in a folder that is not in everyone's PATH.
        let packaged = std::path::Path::new("/usr/sbin/haproxy");
        let mut haproxy = command(if packaged.exists() {
            "/usr/sbin/haproxy"
        } else {
            "haproxy"
        });
        haproxy.arg("-db").arg("-f").arg(folder.join("cfg"));
        haproxy
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("haproxy is installed; tests/tools.sh installs it")
    }

    fn config(&self) -> String {
        let socket = self.folder.path().join("sock");
        format!(
            "timers: {{poll: 5}}\nload_balancers:\n  lb: {{haproxy: {{socket: {}, backend: web, drain: 60}}}}\n",
            socket.display()
        )
    }

    /// The status of the server and its sessions, once HAProxy responds.
    async fn server(&self) -> (String, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let ask = async || {
            let mut stream =
                tokio::net::UnixStream::connect(self.folder.path().join("sock")).await?;
            stream.write_all(b"show stat web 4 -1\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        let answer = eventually("HAProxy", async || {
            ask().await.ok().filter(|answer| answer.len() > 1)
        })
        .await;
        let line = |number: usize| {
            answer
                .lines()
                .nth(number)
                .unwrap()
                .trim_start_matches("# ")
                .split(',')
        };
        let of = |name: &str| {
            line(0)
                .zip(line(1))
                .find(|(column, _)| *column == name)
                .unwrap()
                .1
                .to_owned()
        };
        (of("status"), of("scur"))
    }

    async fn until(&self, status: &str, sessions: &str) {
        eventually(status, async || {
            let (found, number) = self.server().await;
            (found.starts_with(status) && number == sessions).then_some(())
        })
        .await;
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Deploys behind the load balancer `lb`.
async fn deploy_behind(client: &Client) -> String {
    let group = TargetGroupInfo::builder().name("lb").build();
    let style = DeploymentStyle::builder()
        .deployment_type(DeploymentType::InPlace)
        .deployment_option(DeploymentOption::WithTrafficControl);
    let update = client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web");
    update
        .deployment_style(style.build())
        .load_balancer_info(
            LoadBalancerInfo::builder()
                .target_group_info_list(group)
                .build(),
        )
        .send()
        .await
        .unwrap();
    deploy_to(client, "web").await
}

#[tokio::test]
async fn an_haproxy_that_is_started_anew_is_told_again() {
    let mut haproxy = Haproxy::start().await;
    let (_controller, client, agent) = shop::one_host(&haproxy.config()).await;
    haproxy.until("UP", "0").await;
    let session = tokio::net::TcpStream::connect(haproxy.address)
        .await
        .unwrap();
    haproxy.until("UP", "1").await;
    let id = deploy_behind(&client).await;
    agent.run_to("BeforeBlockTraffic").await;
    haproxy.until("DRAIN", "1").await;
    // It loses its state, and the session.
    haproxy.child.kill().unwrap();
    haproxy.child.wait().unwrap();
    haproxy.child = Haproxy::spawn(haproxy.folder.path());
    agent.run_to("AfterBlockTraffic").await;
    assert_eq!(haproxy.server().await, ("DRAIN".to_owned(), "0".to_owned()));
    agent.run_to("AfterAllowTraffic").await;
    assert_eq!(haproxy.server().await.0, "UP");
    assert_eq!(
        shop::ended(&client, &id).await.status(),
        Some(&DeploymentStatus::Succeeded)
    );
    drop(session);
}

/// A load balancer's webhook that responds to a call by its number; returns its address and its
/// callers.
async fn webhook(
    answer: impl Fn(usize) -> (StatusCode, &'static str) + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&calls);
    let take = move |body: axum::body::Bytes| {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let mut noted = noted.lock().unwrap();
        noted.push(text(&body, "deploymentId"));
        let answer = answer(noted.len());
        async move { answer }
    };
    (
        serve(Router::new().route("/hidden", post(take))).await,
        calls,
    )
}

fn with_webhook(timers: &str, address: SocketAddr) -> String {
    format!(
        "timers: {{poll: 5{timers}}}\n\
         load_balancers:\n  lb: {{webhook: {{url: 'http://{address}/hidden?token=SECRET'}}}}\n"
    )
}

#[tokio::test]
async fn a_slow_load_balancer_is_no_silent_agent_and_a_refusal_tells_no_secret() {
    let (address, _) = webhook(|call| match call {
        1..=3 => (StatusCode::ACCEPTED, "wait"),
        4 => (StatusCode::OK, "done"),
        _ => (StatusCode::FORBIDDEN, "SECRET"),
    })
    .await;
    let (_controller, client, agent) = shop::one_host(&with_webhook(", run: 1", address)).await;
    let id = deploy_behind(&client).await;
    agent.run_to("BeforeAllowTraffic").await;
    assert_eq!(
        shop::ended(&client, &id).await.status(),
        Some(&DeploymentStatus::Failed)
    );
    let target = shop::target(&client, &id, "box1").await;
    assert_eq!(shop::letters(&target), "SSSSSSSSSSSFS");
    let message = target.lifecycle_events()[11]
        .diagnostics()
        .unwrap()
        .message()
        .unwrap();
    assert!(
        message.contains("\"lb\"") && message.contains("403"),
        "{message}"
    );
    assert!(
        !message.contains("SECRET") && !message.contains("hidden"),
        "{message}"
    );
}

#[tokio::test]
async fn a_change_of_traffic_ends_with_its_deployment() {
    let (address, calls) = webhook(|_| (StatusCode::ACCEPTED, "wait")).await;
    let (_controller, client, agent) = shop::one_host(&with_webhook("", address)).await;
    let gone = deploy_behind(&client).await;
    agent.run_to("BeforeBlockTraffic").await;
    eventually("the first call", async || {
        calls.lock().unwrap().first().cloned()
    })
    .await;
    let delete = client
        .delete_deployment_group()
        .application_name("shop")
        .deployment_group_name("web");
    delete.send().await.unwrap();
    open_group(&client, "web", "prod").await;
    let id = deploy_behind(&client).await;
    agent.run_to("BeforeBlockTraffic").await;
    let others = async || {
        let calls = calls.lock().unwrap().clone();
        (calls.iter().filter(|call| **call == id).count() >= 3).then_some(calls)
    };
    let calls = eventually("the calls of the deployment that is there", others).await;
    let last = calls.iter().rposition(|call| *call == gone).unwrap();
    assert!(calls[..last].iter().all(|call| *call == gone), "{calls:?}");
}

/// Sets an alarm for the group.
async fn watch(client: &Client, group: &str, alarm: &str, ignore_failure: bool) {
    client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name(group)
        .alarm_configuration(
            AlarmConfiguration::builder()
                .enabled(true)
                .ignore_poll_alarm_failure(ignore_failure)
                .alarms(Alarm::builder().name(alarm).build())
                .build(),
        )
        .send()
        .await
        .unwrap();
}

/// Creates a group besides `web`, with the hosts that have this tag.
async fn open_group(client: &Client, name: &str, env: &str) {
    client
        .create_deployment_group()
        .application_name("shop")
        .deployment_group_name(name)
        .service_role_arn("arn:aws:iam::123456789012:role/cd")
        .deployment_config_name("CodeDeployDefault.AllAtOnce")
        .on_premises_instance_tag_filters(
            TagFilter::builder()
                .key("env")
                .value(env)
                .r#type(TagFilterType::KeyAndValue)
                .build(),
        )
        .send()
        .await
        .unwrap();
}

async fn deploy_to(client: &Client, group: &str) -> String {
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name(group);
    let output = request
        .revision(shop::revision("app.zip"))
        .send()
        .await
        .unwrap();
    output.deployment_id().unwrap().to_owned()
}

#[tokio::test]
async fn an_alarm_that_nobody_answers_for_holds_up_no_other_deployment() {
    // Accepts connections, and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = silent.local_addr().unwrap();
    let alarm = serve(Router::new().route("/", get(|| async { r#"{"state": "ALARM"}"# }))).await;
    let mut controller = Controller::start(&format!(
        "timers: {{alarms: 0.05}}\nalarms:\n  silent: {{webhook: {{url: 'http://{silent_at}/'}}}}\n  \
         fires: {{webhook: {{url: 'http://{alarm}/'}}}}\n"
    ));
    let client = controller.client("operator");
    controller.host("box1", &["env=prod"]);
    controller.host("box2", &["env=test"]);
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;
    open_group(&client, "test", "test").await;
    watch(&client, "web", "silent", true).await;
    watch(&client, "test", "fires", true).await;
    let waits = deploy_to(&client, "web").await;
    // The first request is in progress.
    let _held = silent.accept().await.unwrap();
    let stopped = deploy_to(&client, "test").await;
    let info = shop::ended(&client, &stopped).await;
    assert_eq!(
        info.error_information().unwrap().code(),
        Some(&ErrorCode::AlarmActive)
    );
    assert_eq!(
        shop::info(&client, &waits).await.status(),
        Some(&DeploymentStatus::Created)
    );
    let took = tokio::task::spawn_blocking(move || controller.terminate())
        .await
        .unwrap();
    assert!(took.as_secs() < 4, "it waited for the answer: {took:?}");
}

#[tokio::test]
async fn what_users_read_of_an_alarm_has_no_secret_of_its_address_or_answer() {
    let refuses = serve(Router::new().route(
        "/hidden",
        get(|| async { (StatusCode::FORBIDDEN, "SECRET") }),
    ))
    .await;
    let (_controller, client, _agent) = shop::one_host(&format!(
        "alarms:\n  refused: {{webhook: {{url: 'http://{refuses}/hidden?token=SECRET'}}}}\n"
    ))
    .await;
    watch(&client, "web", "refused", false).await;
    let id = deploy_to(&client, "web").await;
    let info = shop::ended(&client, &id).await;
    let message = info.error_information().unwrap().message().unwrap();
    assert!(
        message.contains("refused") && message.contains("403"),
        "{message}"
    );
    assert!(
        message.contains(&refuses.to_string()) && !message.contains("hidden"),
        "{message}"
    );
    assert!(!message.contains("SECRET"), "{message}");
}
