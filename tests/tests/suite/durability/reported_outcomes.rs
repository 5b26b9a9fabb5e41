//! The reports of an agent that is killed at the worst moments while the service fails: one outcome
//! per command, and no script runs twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use codedeploy_tests::cases::side_by_side;
use codedeploy_tests::s3_stub::{Reply, S3Stub};
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::stub::{ACKNOWLEDGE, COMPLETE, Completion, Fault, POLL, SPECIFICATION};
use codedeploy_tests::wait;
use serde_json::{Value, json};

const HOOK: &str = "BeforeInstall";

/// Defines a deployment with only this script.
fn known(host: &Lone, id: &str, script: &str) {
    let appspec = format!("version: 0.0\nos: linux\nhooks:\n  {HOOK}:\n    - location: hook.sh\n");
    host.deployment(
        "web",
        id,
        &[
            ("appspec.yml", &appspec),
            ("hook.sh", &format!("#!/bin/sh\n{script}")),
        ],
    );
}

/// Defines a deployment whose script records each run, and has the host download it.
async fn counting(host: &Lone, id: &str) -> PathBuf {
    let runs = host.path(&format!("runs-{id}"));
    known(host, id, &format!("echo run >> {}\n", runs.display()));
    succeeded(&host.perform(id, "DownloadBundle").await);
    runs
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

fn succeeded(completion: &Completion) {
    assert_eq!(
        (completion.status.as_str(), completion.error_code),
        ("Succeeded", 0),
        "{completion:?}"
    );
}

async fn until_logged(host: &Lone, words: &str) {
    wait::until(words, async || {
        host.log().contains(words).then_some(()).ok_or(host.log())
    })
    .await;
}

/// A fault of the service at one of its calls.
#[derive(Debug, Clone)]
enum Trouble {
    Answers(Fault),
    Vanishes,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Killed {
    During,
    After,
}

#[tokio::test]
async fn a_service_in_trouble_and_an_agent_that_is_killed_lose_nothing_and_repeat_nothing() {
    let troubles = [
        Trouble::Answers(Fault::Error(500, "ServerException")),
        Trouble::Answers(Fault::Hang),
        Trouble::Answers(Fault::Reset),
        Trouble::Answers(Fault::LostAnswer),
        Trouble::Vanishes,
    ];
    let mut cases = Vec::new();
    for call in [POLL, SPECIFICATION, ACKNOWLEDGE, COMPLETE] {
        for trouble in troubles.clone() {
            cases.push(async move {
                let mut host = Lone::start("http_read_timeout: 5\n").await;
                host.stub.refuse_duplicates();
                for (id, killed) in [("d-1", Killed::During), ("d-2", Killed::After)] {
                    trouble_and_kill(&mut host, id, call, &trouble, killed).await;
                }
            });
        }
    }
    side_by_side(cases).await;
}

async fn trouble_and_kill(
    host: &mut Lone,
    id: &str,
    call: &'static str,
    trouble: &Trouble,
    killed: Killed,
) {
    let runs = counting(host, id).await;
    let case = format!("{trouble:?} at {call}, killed {killed:?}");
    let fault = match trouble {
        Trouble::Answers(fault) => fault.clone(),
        Trouble::Vanishes => Fault::Hang,
    };
    let asked = host.stub.requests(call).len();
    host.stub.fail(call, &fault, 1);
    let command = if call == POLL {
        // A poll that was already held open would take it.
        host.stub.requested(call, asked + 1).await;
        host.command(id, HOOK)
    } else {
        let command = host.command(id, HOOK);
        host.stub.requested(call, asked + 1).await;
        command
    };
    if matches!(trouble, Trouble::Vanishes) {
        host.stub.vanish();
    }
    // A call that was answered when it was repeated may have let the script begin before the kill.
    let mut begun = false;
    if killed == Killed::During {
        host.agent.kill().await;
        let record = fs::read(host.record("in-progress", &command)).unwrap_or_default();
        let record: Value = serde_json::from_slice(&record).unwrap_or_default();
        begun = call != COMPLETE && !record["begun"].is_null();
    }
    host.stub.recover();
    if matches!(trouble, Trouble::Vanishes) {
        host.stub.come_back().await;
    }
    // The service redelivers only commands that the agent never had.
    if call == POLL && matches!(fault, Fault::LostAnswer) {
        host.command(id, HOOK);
    }
    if killed == Killed::During {
        host.restart();
    }
    let outcome = host.stub.taken(&command).await;
    let expected = if begun {
        ("Failed", 7)
    } else {
        ("Succeeded", 0)
    };
    assert_eq!(
        (outcome.status.as_str(), outcome.error_code),
        expected,
        "{case}: {outcome:?}"
    );
    if killed == Killed::After {
        host.kill_and_restart().await;
    }
    // It arrives late, and once more: it is answered, but does not run.
    let told = host.stub.completions(&command).len();
    host.command(id, HOOK);
    host.stub.completed(&command, told + 1).await;
    wait::until("nothing waits", async || {
        let left = [host.records("in-progress"), host.records("outbox")].concat();
        let deliveries = host.stub.deliveries();
        if left.is_empty() && deliveries == 0 {
            Ok(())
        } else {
            Err((left, deliveries))
        }
    })
    .await;
    assert_eq!(host.stub.accepted(&command).len(), 1, "{case}");
    let ran = lines(&runs);
    assert!(ran == 1 || (begun && ran == 0), "{case}: {ran}");
}

#[tokio::test]
async fn an_outcome_survives_the_agent_and_holds_nobody_up() {
    let mut host = Lone::start("").await;
    let runs = counting(&host, "d-1").await;
    host.stub
        .fail(COMPLETE, &Fault::Error(500, "ServerException"), 1000);
    let first = host.command("d-1", HOOK);
    host.stub.completed(&first, 1).await;
    let [record] = &host.records("outbox")[..] else {
        panic!("one outcome waits")
    };
    let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(
        record["completion"]["HostCommandIdentifier"],
        first.as_str()
    );
    assert_eq!(record["lifecycle_event"], HOOK);

    // The next command of the group does not wait for the service.
    known(&host, "d-2", "");
    let second = host.command("d-2", "DownloadBundle");
    host.stub.completed(&second, 1).await;
    let status = host.ask(&["status", "--json"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["agent"]["outbox"]["waiting"], 2, "{status:#}");
    assert!(
        status["agent"]["outbox"]["last_error"]["message"]
            .as_str()
            .unwrap()
            .contains("ServerException")
    );
    let words = host.ask(&["status"]).await;
    let words = String::from_utf8(words.stderr).unwrap();
    assert!(
        words.starts_with("2 outcomes have not been reported to the service, the oldest since 20"),
        "{words}"
    );

    host.agent.kill().await;
    let stopped = host.ask(&["status", "--json"]).await;
    let stopped: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert_eq!(stopped["outbox"]["waiting"], 2, "{stopped:#}");
    host.restart();
    host.stub.recover();
    for command in [first, second] {
        succeeded(&host.stub.taken(&command).await);
        assert_eq!(host.stub.accepted(&command).len(), 1);
    }
    assert_eq!(lines(&runs), 1);
}

#[tokio::test]
async fn an_agent_that_is_stopped_leaves_its_outcomes_to_the_next_one_and_ends() {
    for fault in [Fault::Error(500, "ServerException"), Fault::Hang] {
        let mut host = Lone::start("").await;
        counting(&host, "d-1").await;
        host.stub.fail(COMPLETE, &fault, 1000);
        let command = host.command("d-1", HOOK);
        host.stub.completed(&command, 1).await;
        let began = Instant::now();
        host.agent.signal("TERM").await;
        let status = wait::until("the agent ends", async || {
            host.agent.ended().ok_or(host.log())
        })
        .await;
        assert!(
            status.success() && began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
        assert!(
            host.log()
                .contains("stops before the service has accepted the outcome"),
            "{}",
            host.log()
        );
        host.stub.recover();
        host.restart();
        succeeded(&host.stub.taken(&command).await);
    }
}

#[tokio::test]
async fn what_can_be_repeated_is_repeated_and_a_script_is_not() {
    let mut host = Lone::start("").await;
    let (runs, pid) = (host.path("runs"), host.path("pid"));
    let script = format!(
        "echo run >> {}\necho $$ > {}\nexec sleep 1000\n",
        runs.display(),
        pid.display()
    );
    known(&host, "d-1", &script);
    succeeded(&host.perform("d-1", "DownloadBundle").await);
    let command = host.command("d-1", HOOK);
    let pid = wait::until("the script runs", async || {
        let text = fs::read_to_string(&pid).unwrap_or_default();
        text.trim().parse::<i32>().map_err(|_| text)
    })
    .await;
    host.kill_and_restart().await;
    let lost = host.stub.taken(&command).await;
    assert_eq!((lost.status.as_str(), lost.error_code), ("Failed", 7));
    assert!(
        lost.message.starts_with("Failed: the agent was restarted"),
        "{}",
        lost.message
    );
    until_logged(
        &host,
        &format!("process {pid} (sleep 1000) was started by {HOOK} and still runs"),
    )
    .await;
    assert_eq!(lines(&runs), 1);
    let ours = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(ours, nix::sys::signal::Signal::SIGKILL).expect("it was left alone");

    let status: Value =
        serde_json::from_slice(&host.ask(&["status", "--json"]).await.stdout).unwrap();
    let latest = &status["agent"]["deployments"][0];
    assert_eq!(
        (
            &latest["deployment_id"],
            &latest["last_lifecycle_event"],
            &latest["outcome"]
        ),
        (&json!("d-1"), &json!(HOOK), &json!("failed")),
        "{status:#}"
    );
}

/// Writes the record of a command in progress that a killed agent leaves.
fn leave_in_progress(host: &Lone, id: &str, name: &str, starts: u32) {
    let record = in_progress(id, name, starts).to_string();
    write_record(
        host,
        "in-progress",
        &format!("{id}/{name}"),
        record.as_bytes(),
    );
}

/// The record of a command that has not begun.
fn in_progress(id: &str, name: &str, starts: u32) -> Value {
    let command = codedeploy_tests::stub::lone::command(&format!("{id}/{name}"), id, name);
    json!({"version": 1, "command": command, "received_at": now(), "starts": starts})
}

fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    now.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

fn write_record(host: &Lone, folder: &str, command: &str, bytes: &[u8]) {
    fs::write(host.record(folder, command), bytes).unwrap();
}

#[tokio::test]
async fn a_command_with_which_the_agent_ends_again_and_again_is_given_up() {
    let mut host = Lone::start("").await;
    counting(&host, "d-1").await;
    host.agent.kill().await;
    leave_in_progress(&host, "d-1", "Install", 2);
    known(&host, "d-2", "");
    leave_in_progress(&host, "d-2", "DownloadBundle", 3);
    host.restart();
    succeeded(&host.stub.taken("d-1/Install").await);
    let given_up = host.stub.taken("d-2/DownloadBundle").await;
    assert_eq!(
        (given_up.status.as_str(), given_up.error_code),
        ("Failed", 5)
    );
    assert!(
        given_up
            .message
            .contains("ended unexpectedly each of the 3 times"),
        "{}",
        given_up.message
    );
    assert!(!host.path("root/web/d-2").exists());
}

/// A host whose revisions come from a bucket that is silent until `opened`, and a deployment from
/// there.
async fn from_a_silent_bucket(opened: &Arc<AtomicBool>) -> (Lone, S3Stub) {
    let folder = tempfile::tempdir().unwrap();
    codedeploy_tests::bundle::write(
        folder.path(),
        &[("appspec.yml", "version: 0.0\nos: linux\n")],
    );
    let bundle = Arc::new(codedeploy_tests::bundle::tar(folder.path()));
    let opened = Arc::clone(opened);
    let bucket = S3Stub::serve(move |_, request| {
        let reply = Reply::object(request, &bundle, "etag");
        let hang = (!opened.load(Ordering::SeqCst)).then_some(100);
        Reply { hang, ..reply }
    })
    .await;
    let host = Lone::start(&format!("s3_endpoint_override: {}\n", bucket.endpoint)).await;
    let mut specification =
        codedeploy_tests::stub::lone::specification("web", "d-1", &host.path("unused"));
    specification["Revision"] = json!({"RevisionType": "S3",
        "S3Revision": {"Bucket": "bucket", "Key": "app.tar", "BundleType": "tar"}});
    host.stub.specify("d-1", &specification);
    (host, bucket)
}

async fn until_asked(bucket: &S3Stub, count: usize) {
    wait::until("the bucket is asked", async || {
        let asked = bucket.requests().len();
        if asked >= count { Ok(()) } else { Err(asked) }
    })
    .await;
}

#[tokio::test]
async fn a_download_that_was_interrupted_is_begun_again_without_the_service_asking() {
    let opened = Arc::default();
    let (mut host, bucket) = from_a_silent_bucket(&opened).await;
    let command = host.command("d-1", "DownloadBundle");
    until_asked(&bucket, 1).await;
    host.agent.kill().await;
    let specifications = host.stub.requests(SPECIFICATION).len();
    opened.store(true, Ordering::SeqCst);
    host.restart();
    let completion = host.stub.taken(&command).await;
    succeeded(&completion);
    assert_eq!(completion.message, "Succeeded: BundleSource=downloaded");
    assert_eq!(
        host.stub.requests(SPECIFICATION).len(),
        specifications,
        "the agent kept it"
    );
    assert!(
        host.path("root/web/d-1/deployment-archive/appspec.yml")
            .exists()
    );
}

#[tokio::test]
async fn a_download_in_which_the_agent_dies_three_times_is_given_up() {
    let (mut host, bucket) = from_a_silent_bucket(&Arc::default()).await;
    let command = host.command("d-1", "DownloadBundle");
    for start in 1..=3 {
        until_asked(&bucket, start).await;
        host.kill_and_restart().await;
    }
    let given_up = host.stub.taken(&command).await;
    assert_eq!(
        (given_up.status.as_str(), given_up.error_code),
        ("Failed", 5)
    );
    assert!(
        given_up
            .message
            .contains("ended unexpectedly each of the 3 times"),
        "{}",
        given_up.message
    );
    assert_eq!(bucket.requests().len(), 3);
    succeeded(&{
        known(&host, "d-2", "");
        host.perform("d-2", "DownloadBundle").await
    });
}

#[tokio::test]
async fn an_agent_that_is_stopped_before_the_service_answers_is_no_crash() {
    let mut host = Lone::start("").await;
    let runs = counting(&host, "d-1").await;
    host.agent.kill().await;
    leave_in_progress(&host, "d-1", HOOK, 1);
    for _ in 0..5 {
        let asked = host.stub.requests(ACKNOWLEDGE).len();
        host.stub.fail(ACKNOWLEDGE, &Fault::Hang, 1);
        host.restart();
        host.stub.requested(ACKNOWLEDGE, asked + 1).await;
        host.agent.signal("TERM").await;
        wait::until("the agent ends", async || host.agent.ended().ok_or(())).await;
    }
    host.restart();
    succeeded(&host.stub.taken("d-1/BeforeInstall").await);
    assert_eq!(lines(&runs), 1);
}

/// Waits until the agent has recorded that the service accepted the outcome.
async fn until_remembered(host: &Lone, command: &str) {
    let told = host.record("told", command);
    wait::until("it is noted", async || {
        told.exists().then_some(()).ok_or(())
    })
    .await;
}

#[tokio::test]
async fn an_install_that_only_nobody_took_note_of_is_not_repeated() {
    let mut host = Lone::start("").await;
    let target = host.path("target");
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\n",
        target.display()
    );
    host.deployment(
        "web",
        "d-1",
        &[("appspec.yml", &appspec), ("page", "hello")],
    );
    succeeded(&host.perform("d-1", "DownloadBundle").await);
    succeeded(&host.perform("d-1", "Install").await);
    until_remembered(&host, "d-1/Install").await;
    host.agent.kill().await;
    let undo = fs::read_to_string(host.path("root/web/d-1/undo.json")).unwrap();
    let undo: Value = serde_json::from_str(undo.lines().next().unwrap()).unwrap();
    // As if the agent had been killed before it recorded the outcome, and the clock had been set
    // back; and as if it had been killed in a second Install of the same deployment.
    for (before, repeated) in [(&Value::Null, false), (&undo["begun"]["token"], true)] {
        let mut record = in_progress("d-1", "Install", 1);
        record["begun"] = json!({
            "began_at": "2100-01-01T00:00:00Z", "completed_before": before, "deployment_id": "d-1", "deployment_group_id": "web", "deployment_group": "web",
            "application": "shop", "specification": {"Format": "PKCS7/JSON", "Payload": "not what was signed"}
        });
        fs::remove_file(host.record("told", "d-1/Install")).unwrap();
        write_record(
            &host,
            "in-progress",
            "d-1/Install",
            record.to_string().as_bytes(),
        );
        fs::write(target.join("page"), "changed").unwrap();
        let told = host.stub.accepted("d-1/Install").len();
        host.restart();
        succeeded(&host.stub.completed("d-1/Install", told + 1).await);
        let installed = fs::read_to_string(target.join("page")).unwrap();
        assert_eq!(installed == "hello", repeated);
        until_remembered(&host, "d-1/Install").await;
        host.agent.kill().await;
    }
    assert!(
        host.log()
            .contains("the recorded specification is unusable; it is fetched again")
    );
}

#[tokio::test]
async fn an_outcome_that_the_disk_does_not_take_is_told_all_the_same() {
    let mut host = Lone::start("").await;
    let runs = counting(&host, "d-1").await;
    for folder in ["outbox", "told"] {
        let folder = host.path("root/deployment-commands").join(folder);
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "in the way").unwrap();
    }
    succeeded(&host.perform("d-1", HOOK).await);
    until_logged(&host, "cannot record the outcome of a command").await;
    let again = host.command("d-1", HOOK);
    succeeded(&host.stub.completed(&again, 2).await);
    assert_eq!(lines(&runs), 1, "the agent remembers it while it lives");
    host.kill_and_restart().await;
    counting(&host, "d-2").await;
    assert_eq!(
        host.stub.completions(&again).len(),
        2,
        "what was told is not in progress any more"
    );
    assert!(
        host.path("root/deployment-commands/outbox.damaged")
            .exists()
    );
    until_remembered(&host, "d-2/DownloadBundle").await;
    assert_eq!(host.records("told").len(), 1);
}

#[tokio::test]
async fn records_of_no_use_are_set_aside_and_the_rest_goes_on() {
    let mut host = Lone::start("").await;
    let runs = counting(&host, "d-1").await;
    host.agent.kill().await;
    let noise = vec![b'x'; 10 << 20];
    let contents: [&[u8]; 7] = [
        b"",
        b"{\"version\":1,",
        b"[]",
        b"7",
        b"{\"version\":99}",
        b"\xff\xfe\0",
        &noise,
    ];
    let mut count = 0;
    for folder in ["in-progress", "outbox", "told"] {
        for (number, content) in contents.iter().enumerate() {
            write_record(&host, folder, &format!("{folder} {number}"), content);
        }
        let at = |name: &str| host.record(folder, &format!("{folder} {name}"));
        fs::create_dir_all(at("folder").join("full")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/proc/self/mem", at("link")).unwrap();
        fs::write(
            at("x").with_file_name(".codedeploy-0123456789abcdef-0"),
            "half",
        )
        .unwrap();
        fs::write(at("x").with_file_name("notes.txt"), "somebody's").unwrap();
        count += contents.len() + 3;
    }
    // That does not hide good records.
    leave_in_progress(&host, "d-1", HOOK, 1);
    host.restart();
    succeeded(&host.stub.taken("d-1/BeforeInstall").await);
    assert_eq!(lines(&runs), 1);
    let damaged = |folder: &str| {
        let paths = host.records(folder);
        let count = paths
            .iter()
            .filter(|path| path.to_string_lossy().ends_with(".json.damaged"))
            .count();
        assert!(
            paths.iter().any(|path| path.ends_with("notes.txt")),
            "{paths:?}"
        );
        assert!(
            !paths
                .iter()
                .any(|path| path.to_string_lossy().contains(".codedeploy-")),
            "{paths:?}"
        );
        count
    };
    assert_eq!(
        (damaged("in-progress"), damaged("outbox")),
        (count / 3, count / 3)
    );
    // Old records are read when they are needed.
    host.stub
        .deliver(codedeploy_tests::stub::lone::command("told 1", "d-1", HOOK));
    succeeded(&host.stub.taken("told 1").await);
    assert_eq!(damaged("told"), 1);
    assert_eq!(lines(&runs), 2);
}
