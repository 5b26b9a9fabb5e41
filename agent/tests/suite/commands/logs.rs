//! `codedeploy-agent logs` as an operator uses it, and the log that the agent itself writes.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use codedeploy_hooks::clock::LocalTime;
use serde_json::Value;

const AGENT: &str = env!("CARGO_BIN_EXE_codedeploy-agent");
const TIMEOUT: Duration = Duration::from_secs(30);

/// A host: its configuration, its logs.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Self { folder };
        fs::create_dir(host.path("log")).unwrap();
        fs::create_dir_all(host.path("root/deployment-logs")).unwrap();
        let place = host.folder.path().display();
        let text = format!(
            "log_dir: {place}/log\nroot_dir: {place}/root\npid_dir: {place}/run\n\
             on_premises_config_file: {place}/identity.yml\n{more}"
        );
        fs::write(host.path("conf.yml"), text).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn agent_log(&self) -> PathBuf {
        self.path("log/codedeploy-agent.log")
    }

    fn deployments_log(&self) -> PathBuf {
        self.path("root/deployment-logs/codedeploy-agent-deployments.log")
    }

    fn add(&self, path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// A deployment of two events, in both logs; the agent's continues after a rotation.
    fn story(&self) {
        let event = |second, message: &str, event: &str| {
            format!(
                r#"{{"time":"{}","level":"INFO","message":"{message}","deployment_id":"d-ONE","deployment_group":"web","application":"shop","lifecycle_event":"{event}","duration_ms":1500,"target":"t"}}{}"#,
                utc(second),
                "\n"
            )
        };
        let started = format!(
            r#"{{"time":"{}","level":"INFO","message":"agent started","target":"t"}}"#,
            utc(0)
        );
        self.add(
            self.path("log/codedeploy-agent.20261121.log"),
            &format!("{started}\n"),
        );
        self.add(
            self.path("log/codedeploy-agent.20261121.1.log"),
            &event(1, "Install succeeded", "Install"),
        );
        self.add(
            self.agent_log(),
            &event(2, "ApplicationStart begins", "ApplicationStart"),
        );
        self.add(
            self.agent_log(),
            &event(5, "ApplicationStart succeeded", "ApplicationStart"),
        );
        for (second, entry) in [
            (3, "LifecycleEvent - ApplicationStart"),
            (3, "Script - bin/start"),
        ] {
            let file = self.deployments_log().with_extension("log.0");
            self.add(file, &format!("[{}] [d-ONE]{entry}\n", local(second)));
        }
        self.add(
            self.deployments_log(),
            &format!("[{}] [d-ONE][stdout]up \u{1b}[31m\n", local(4)),
        );
        self.add(
            self.deployments_log(),
            &format!("[{}] [d-TWO][stderr]elsewhere\n", local(6)),
        );
    }

    fn logs(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(AGENT);
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
        command
            .arg("logs")
            .arg("--config-file")
            .arg(self.path("conf.yml"))
            .args(arguments)
            .env_remove("NO_COLOR");
        command
    }
}

fn moment(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_381_200 + second)
}

fn utc(second: u64) -> String {
    format!("2026-11-22T21:00:{second:02}.000Z")
}

fn local(second: u64) -> String {
    LocalTime::of(moment(second)).milliseconds()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn all_logs_are_one_story_in_the_order_of_time() {
    let host = Host::new("");
    host.story();
    let expected = format!(
        "{} INFO  agent started\n\
         ── d-ONE of shop to web\n\
         {} INFO  Install succeeded (1.5 s)\n\
         {} INFO  ApplicationStart begins (1.5 s)\n\
         {}   LifecycleEvent - ApplicationStart\n\
         {}   Script - bin/start\n\
         {}   bin/start | up \\u{{1b}}[31m\n\
         {} INFO  ApplicationStart succeeded (1.5 s)\n\
         ── d-TWO\n\
         {}   script ! elsewhere\n",
        local(0),
        local(1),
        local(2),
        local(3),
        local(3),
        local(4),
        local(5),
        local(6),
    );
    let shown = stdout(&host.logs(&[]));
    assert_eq!(shown, expected);
    assert!(!shown.contains('\u{1b}'), "no colours where no terminal is");
}

#[test]
fn options_choose_what_is_shown() {
    let host = Host::new("");
    host.story();
    let messages = |arguments: &[&str]| -> Vec<String> {
        let output = host.logs(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let lines = stdout(&output);
        lines
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["message"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(messages(&["--deployment", "d-TWO"]), ["elsewhere"]);
    assert_eq!(
        messages(&["--agent", "-n", "2"]),
        ["ApplicationStart begins", "ApplicationStart succeeded"]
    );
    assert_eq!(messages(&["--scripts"]).len(), 4);
    assert_eq!(
        messages(&["--since", "2026-11-22T21:00:05Z"]),
        ["ApplicationStart succeeded", "elsewhere"]
    );
    assert_eq!(
        messages(&["--since", "2026-11-22T21:00:05Z", "--agent"]),
        ["ApplicationStart succeeded"]
    );
    let output = host.logs(&["--since", "soon"]);
    assert!(stderr(&output).contains("30m"), "{}", stderr(&output));
}

#[test]
fn a_deployment_without_the_common_log_is_told_by_its_own() {
    let host = Host::new("enable_deployments_log: false\n");
    fs::remove_dir_all(host.path("root/deployment-logs")).unwrap();
    let time = LocalTime::of(moment(1)).seconds();
    host.add(
        host.path("root/group/d-ONE/logs/scripts.log"),
        &format!("{time} [stdout]one\n{time} [stdout]unfinished"),
    );
    let shown = stdout(&host.logs(&["--deployment", "d-ONE"]));
    assert!(shown.contains("| one\n"), "{shown}");
    assert!(shown.contains("| unfinished\n"), "{shown}");
}

#[test]
fn lines_of_the_official_agent_are_shown_with_ours() {
    let host = Host::new("");
    let time = LocalTime::of(moment(0)).seconds().replace(' ', "T");
    host.add(
        host.agent_log(),
        &format!("{time} ERROR [codedeploy-agent(12)]: broken d-ONE\n\tfrom /opt/x.rb:1:in `y'\n"),
    );
    let shown = stdout(&host.logs(&[]));
    assert_eq!(
        shown,
        format!(
            "{0} ERROR broken d-ONE\n{0} ERROR \\tfrom /opt/x.rb:1:in `y'\n",
            local(0)
        )
    );
    assert!(stdout(&host.logs(&["--deployment", "d-ONE"])).contains("broken"));
}

#[test]
fn nothing_yet_and_an_unknown_deployment_are_said_so() {
    let host = Host::new("");
    let output = host.logs(&[]);
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("there are no log lines yet in"),
        "{}",
        stderr(&output)
    );
    host.story();
    let output = host.logs(&["--deployment", "d-NONE"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("there are no log lines of the deployment d-NONE"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn whatever_stands_in_place_of_a_log_is_named_or_shown_harmlessly() {
    let noise: Vec<u8> = (0..10_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let contents: [&[u8]; 5] = [b"", b"\n\n\n", b"{\"time\":", &[0xff; 100], &noise];
    for content in contents {
        let host = Host::new("");
        host.story();
        fs::write(host.agent_log(), content).unwrap();
        fs::write(host.deployments_log(), content).unwrap();
        let options = [&[][..], &["--json"], &["--deployment", "d-ONE"]];
        // Once is enough for large content.
        for arguments in options
            .into_iter()
            .take(if content.len() > 1000 { 1 } else { 3 })
        {
            let output = host.logs(arguments);
            assert!(output.status.success(), "{}", stderr(&output));
            let shown = stdout(&output);
            assert!(shown.contains("Install succeeded"));
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
        }
    }
    let host = Host::new("");
    host.story();
    for path in [host.agent_log(), host.deployments_log()] {
        fs::remove_file(&path).unwrap();
    }
    nix::unistd::mkfifo(&host.agent_log(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(host.deployments_log()).unwrap();
    let output = host.logs(&[]);
    assert!(
        stdout(&output).contains("agent started"),
        "the others are shown"
    );
    for path in [host.agent_log(), host.deployments_log()] {
        let told = format!(
            "not shown: {}: is not a file; expected a log",
            path.display()
        );
        assert!(stderr(&output).contains(&told), "{}", stderr(&output));
    }
}

#[test]
#[ignore = "needs an ordinary user"]
fn without_permission_the_rest_is_shown_and_the_way_out_is_told_which_needs_an_ordinary_user() {
    let host = Host::new("");
    host.story();
    fs::set_permissions(host.deployments_log(), fs::Permissions::from_mode(0o000)).unwrap();
    let output = host.logs(&[]);
    assert!(stdout(&output).contains("agent started"));
    assert!(
        stderr(&output).contains("run this with sudo"),
        "{}",
        stderr(&output)
    );
}

/// A program whose output is read line by line.
struct Reading {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Reading {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
                .ok();
        });
        Self { child, lines }
    }

    /// Waits for a line that contains `text`; skips the lines before it.
    fn until(&self, text: &str) {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(TIMEOUT) {
                Ok(line) if line.contains(text) => return,
                Ok(line) => seen.push(line),
                Err(_) => panic!("{text} does not come; seen: {seen:#?}"),
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn following_survives_every_kind_of_rotation() {
    let host = Host::new("");
    host.story();
    let line = |message: &str| {
        format!(
            r#"{{"time":"{}","level":"INFO","message":"{message}","target":"t"}}{}"#,
            utc(9),
            "\n"
        )
    };
    let reading = Reading::start(host.command(&["-f"]));
    reading.until("elsewhere");
    host.add(host.agent_log(), &line("added"));
    reading.until("added");
    host.add(host.agent_log(), &line("last of its file"));
    fs::rename(
        host.agent_log(),
        host.path("log/codedeploy-agent.20261122.log"),
    )
    .unwrap();
    host.add(host.agent_log(), &line("first after the rotation"));
    reading.until("last of its file");
    reading.until("first after the rotation");
    fs::remove_file(host.agent_log()).unwrap();
    host.add(host.agent_log(), &line("after the removal"));
    reading.until("after the removal");
    File::options()
        .write(true)
        .open(host.agent_log())
        .unwrap()
        .set_len(0)
        .unwrap();
    host.add(host.agent_log(), &line("short"));
    reading.until("short");
    host.add(host.agent_log(), r#"{"time":"#);
    host.add(
        host.deployments_log(),
        &format!("[{}] [d-TWO][stdout]half", local(9)),
    );
    host.add(host.deployments_log(), " and half\n");
    reading.until("half and half");
}

/// The daemon, polling an address where nobody listens.
fn daemon(host: &Host, shell: &str) -> Child {
    let identity = "region: us-east-1\niam_user_arn: arn:aws:iam::1:user/x\naws_access_key_id: AKID\naws_secret_access_key: hush\n";
    fs::write(host.path("identity.yml"), identity).unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("{shell} exec \"$0\" run --config-file \"$1\""),
        ])
        .arg(AGENT)
        .arg(host.path("conf.yml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Through a pipe, because the file size limit also applies to stderr.
    let (mut from, mut to) = (
        child.stderr.take().unwrap(),
        File::create(host.path("stderr")).unwrap(),
    );
    std::thread::spawn(move || std::io::copy(&mut from, &mut to).unwrap());
    child
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    let (_never, timer) = mpsc::channel::<()>();
    while !condition() {
        assert!(began.elapsed() < TIMEOUT, "{what}: not within {TIMEOUT:?}");
        let _ = timer.recv_timeout(Duration::from_millis(20));
    }
}

fn stop(mut child: Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_log_that_is_full_costs_no_line() {
    let unknown: String = (0..40)
        .map(|number| format!("nothing_known_{number}: 1\n"))
        .collect();
    let host = Host::new(&format!(
        "deploy_control_endpoint: http://127.0.0.1:1\n{unknown}"
    ));
    // Writing beyond 1024 bytes fails until somebody lifts the limit.
    let agent = daemon(&host, "trap '' XFSZ; ulimit -S -f 2;");
    let said = || fs::read_to_string(host.path("stderr")).unwrap();
    wait_for("lines come to stderr", || said().contains("agent started"));
    assert_eq!(
        said().matches("cannot write the log").count(),
        1,
        "{}",
        said()
    );
    let pid = agent.id().to_string();
    let lifted = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &pid])
        .status()
        .unwrap();
    assert!(lifted.success());
    stop(agent);
    wait_for("the log is written again", || {
        said().contains("is written again")
    });
    let log = fs::read_to_string(host.agent_log()).unwrap();
    let messages: Vec<String> = log
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["message"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    for number in 0..40 {
        let named = messages
            .iter()
            .filter(|message| message.contains(&format!("nothing_known_{number}:")));
        assert_eq!(named.count(), 1, "{number} in {messages:#?}");
    }
    assert!(messages.iter().any(|message| message == "agent started"));
    assert_eq!(messages.last().unwrap(), "stopped");
}

#[test]
fn the_text_layout_is_that_of_the_official_agent() {
    let host = Host::new("log_format: text\ndeploy_control_endpoint: http://127.0.0.1:1\n");
    let agent = daemon(&host, "");
    let pid = agent.id();
    wait_for("the agent starts", || {
        fs::read_to_string(host.agent_log()).is_ok_and(|log| log.contains("cannot poll"))
    });
    stop(agent);
    let log = fs::read_to_string(host.agent_log()).unwrap();
    for line in log.lines() {
        let (time, rest) = line.split_at(19);
        assert!(
            LocalTime::parse(time).is_some() && time.contains('T'),
            "{line}"
        );
        let layout = ["INFO ", "WARN "]
            .iter()
            .any(|level| rest.starts_with(&format!(" {level} [codedeploy-agent({pid})]: ")));
        assert!(layout, "{line}");
    }
    assert!(!log.contains("hush"));
}

#[test]
fn a_log_that_is_no_file_stops_the_start_and_is_named() {
    let host = Host::new("");
    fs::create_dir(host.agent_log()).unwrap();
    let mut agent = daemon(&host, "");
    assert_eq!(agent.wait().unwrap().code(), Some(1));
    let said = || fs::read_to_string(host.path("stderr")).unwrap();
    let named = format!(
        "cannot open the log {}: found a directory, expected a file",
        host.agent_log().display()
    );
    wait_for("the reason is told", || said().contains(&named));
}
