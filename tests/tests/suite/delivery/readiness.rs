//! The time at which an agent reports readiness: when it has reached the service, which answers a
//! poll or holds it open.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use codedeploy_tests::programs::Programs;
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::stub::{Fault, POLL};
use codedeploy_tests::wait;

/// Receives the messages for systemd.
struct Systemd(UnixDatagram);

impl Systemd {
    /// For the agent of a host whose service holds empty polls open for longer than a test takes,
    /// with `fault` at all polls, if any.
    async fn of_agent(fault: Option<&Fault>) -> (Self, Lone) {
        let mut socket = None;
        let host = Lone::prepared("", Duration::from_secs(3600), |root, stub| {
            let bound = UnixDatagram::bind(root.parent().unwrap().join(Lone::NOTIFY)).unwrap();
            bound.set_nonblocking(true).unwrap();
            socket = Some(bound);
            fault
                .into_iter()
                .for_each(|fault| stub.fail(POLL, fault, 100));
        })
        .await;
        (Self(socket.unwrap()), host)
    }

    /// The messages since the last call, one per line.
    fn told(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let messages = std::iter::from_fn(|| {
            self.0
                .recv(&mut buffer)
                .ok()
                .map(|length| buffer[..length].to_vec())
        });
        messages
            .flat_map(|it| {
                String::from_utf8(it)
                    .unwrap()
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    async fn until(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        wait::until(&format!("systemd is told {line}"), async || {
            all.extend(self.told());
            if all.iter().any(|told| told.starts_with(line)) {
                Ok(())
            } else {
                Err(all.clone())
            }
        })
        .await;
        all
    }
}

#[tokio::test]
async fn a_first_poll_that_the_service_holds_open_does_not_hold_up_readiness() {
    let (systemd, host) = Systemd::of_agent(None).await;
    let told = systemd.until("READY=1").await;
    assert!(
        told.contains(&"STATUS=waiting for deployments".to_owned()),
        "{told:?}"
    );
    assert_eq!(host.stub.requests(POLL).len(), 1, "the poll is still open");
    let configuration = host.path("agent.yml");
    let words = [
        "status",
        "--json",
        "--config-file",
        configuration.to_str().unwrap(),
    ];
    let status = Programs::built().agent.output(words).await.stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["agent"]["activity"], "waiting");
    // It is also an ordinary poll.
    host.deployment("g1", "d-1", &[("appspec.yml", "version: 0.0\nos: linux\n")]);
    assert_eq!(
        host.perform("d-1", "DownloadBundle").await.status,
        "Succeeded"
    );
    assert!(host.agent.stop().await.success());
}

#[tokio::test]
async fn an_agent_that_the_service_refuses_is_not_ready_until_it_is_accepted() {
    let refusal = Fault::Error(400, "AccessDeniedException");
    let (systemd, host) = Systemd::of_agent(Some(&refusal)).await;
    let told = systemd.until("STATUS=cannot poll for commands").await;
    assert!(!told.contains(&"READY=1".to_owned()), "{told:?}");
    host.stub.recover();
    systemd.until("READY=1").await;
    assert!(host.agent.stop().await.success());
}

#[tokio::test]
async fn an_agent_whose_service_cannot_be_reached_is_not_ready() {
    let (systemd, host) = Systemd::of_agent(Some(&Fault::Reset)).await;
    host.stub.requested(POLL, 2).await;
    let told = systemd.until("STATUS=cannot poll for commands").await;
    assert!(!told.contains(&"READY=1".to_owned()), "{told:?}");
    assert!(host.agent.stop().await.success());
}
