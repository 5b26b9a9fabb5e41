//! Script output beyond the last lines: sent to a service that poses as this project's controller and
//! asks for it, through breaks and restarts, and to no other service.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::stub::{COMPLETE, Fault, LOG, POLL, Request};
use codedeploy_tests::wait;
use flate2::read::GzDecoder;

const APPSPEC: &str =
    "version: 0.0\nos: linux\nhooks:\n  BeforeInstall:\n    - location: hook.sh\n";

/// Deploys a revision whose script prints `lines` lines and fails; returns the identifier of its
/// command.
async fn fail(host: &Lone, id: &str, lines: usize) -> String {
    let script = format!("#!/bin/sh\nseq -f 'line %06.0f of the output' 1 {lines}\nexit 3\n");
    let files = [("appspec.yml", APPSPEC), ("hook.sh", script.as_str())];
    host.deployment("web", id, &files);
    host.perform(id, "DownloadBundle").await;
    let command = host.command(id, "BeforeInstall");
    let ended = host.stub.taken(&command).await;
    assert_eq!(ended.error_code, 4, "{ended:?}");
    command
}

fn text(request: &Request) -> String {
    let content = request.body["Content"].as_str().unwrap();
    let content = STANDARD.decode(content).unwrap();
    let mut text = String::new();
    GzDecoder::new(content.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// Waits until no log waits on the host.
async fn nothing_waits(host: &Lone) {
    wait::until("the host has sent the log", async || {
        let waiting = host.records("script-logs");
        if waiting.is_empty() {
            Ok(())
        } else {
            Err(waiting)
        }
    })
    .await;
}

/// Waits for two more polls: whatever the agent does after an outcome, it has begun by then.
async fn two_polls(host: &Lone) {
    let polls = host.stub.requests(POLL).len();
    host.stub.requested(POLL, polls + 2).await;
}

#[tokio::test]
async fn a_service_of_aws_is_offered_no_log() {
    let host = Lone::start("").await;
    fail(&host, "d-1", 9000).await;
    two_polls(&host).await;
    // Without the controller's header, even a response that asks is not one of the controller's.
    host.stub.ask_for_script_logs(1 << 20);
    fail(&host, "d-2", 9000).await;
    two_polls(&host).await;
    assert_eq!(host.stub.requests(LOG).len(), 0);
    assert!(host.records("script-logs").is_empty());
}

#[tokio::test]
async fn a_log_is_sent_in_parts_and_neither_a_break_nor_a_restart_loses_it() {
    let mut host = Lone::start("").await;
    host.stub.pose_as_controller();
    host.stub.ask_for_script_logs(1 << 20);
    host.stub
        .fail(LOG, &Fault::Error(503, "ServiceUnavailable"), 1);
    host.stub.fail(LOG, &Fault::Reset, 1);
    let command = fail(&host, "d-1", 9000).await;
    // The outcome does not wait for the log.
    assert_eq!(host.stub.requests(COMPLETE).len(), 2);
    host.stub.requested(LOG, 1).await;
    host.kill_and_restart().await;
    nothing_waits(&host).await;
    let requests = host.stub.requests(LOG);
    let [.., first, last] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!(first.body["HostCommandIdentifier"], command);
    assert_eq!(
        (&first.body["Part"], &last.body["Part"]),
        (&0.into(), &1.into())
    );
    let whole = text(first) + &text(last);
    assert_eq!(whole.len(), first.body["Bytes"].as_u64().unwrap() as usize);
    assert_eq!(text(first).len(), 256 * 1024);
    assert!(
        whole.contains("LifecycleEvent - BeforeInstall\n"),
        "{whole}"
    );
    let output = whole.lines().filter(|line| line.contains("[stdout]line "));
    assert_eq!(output.count(), 9000);

    // The outcome contains all of a short output.
    host.stub.forget();
    fail(&host, "d-2", 10).await;
    nothing_waits(&host).await;
    two_polls(&host).await;
    assert_eq!(host.stub.requests(LOG).len(), 0);
}

#[tokio::test]
async fn a_long_log_loses_its_middle_and_a_rejected_one_is_dropped() {
    let host = Lone::start("report_log_bytes: 64KiB\n").await;
    host.stub.pose_as_controller();
    host.stub.ask_for_script_logs(1 << 20);
    fail(&host, "d-1", 9000).await;
    let sent = text(&host.stub.requested(LOG, 1).await);
    assert!(
        sent.len() <= 64 * 1024 && sent.len() > 60 * 1024,
        "{}",
        sent.len()
    );
    assert!(
        sent.contains("line 000001 of") && sent.contains("line 009000 of"),
        "{sent}"
    );
    let cut: Vec<&str> = sent.lines().filter(|line| line.starts_with('…')).collect();
    assert_eq!(cut.len(), 1, "{sent}");
    assert!(
        cut[0].contains("bytes are left out here") && cut[0].contains("d-1"),
        "{cut:?}"
    );

    nothing_waits(&host).await;
    host.stub.forget();
    host.stub
        .fail(LOG, &Fault::Error(400, "ClientException"), 9);
    fail(&host, "d-2", 9000).await;
    host.stub.requested(LOG, 1).await;
    nothing_waits(&host).await;
    assert_eq!(host.stub.requests(LOG).len(), 1);
}

#[tokio::test]
async fn a_host_can_keep_its_logs_to_itself_and_a_stop_does_not_wait_for_one() {
    let host = Lone::start("report_log_bytes: none\n").await;
    host.stub.pose_as_controller();
    host.stub.ask_for_script_logs(1 << 20);
    fail(&host, "d-1", 9000).await;
    two_polls(&host).await;
    assert_eq!(host.stub.requests(LOG).len(), 0);

    let host = Lone::prepared("", Duration::from_secs(60), |_, _| {}).await;
    host.stub.pose_as_controller();
    host.stub.ask_for_script_logs(1 << 20);
    host.stub.fail(LOG, &Fault::Hang, 1);
    fail(&host, "d-1", 9000).await;
    host.stub.requested(LOG, 1).await;
    assert!(host.agent.stop().await.success());
}
