//! `start`, `stop`, `restart` and `status` with real processes, as an operator sees them.

use std::io::{BufRead, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;

use super::host::{Host, json, stderr, stdout};

/// An address where nobody listens.
const NO_SERVICE: &str =
    "deploy_control_endpoint: http://127.0.0.1:9\ns3_endpoint_override: http://127.0.0.1:9\n";

fn pid(host: &Host) -> i32 {
    std::fs::read_to_string(host.path("run/codedeploy-agent.pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn an_agent_is_started_asked_restarted_and_stopped() {
    let host = Host::new(NO_SERVICE);
    let stopped = host.run(&["status"]);
    assert_eq!(stopped.status.code(), Some(3));
    assert_eq!(stderr(&stopped), "error: No AWS CodeDeploy agent running\n");
    assert_eq!(json(&host.run(&["status", "--json"]))["state"], "stopped");

    let started = host.run(&["start"]);
    assert!(started.status.success(), "{started:?}");
    let first = pid(&host);
    let expected = format!("The AWS CodeDeploy agent is running as PID {first}\n");
    assert_eq!(stdout(&started), expected);
    let running = host.run(&["status"]);
    assert_eq!(
        (running.status.code(), stdout(&running)),
        (Some(0), expected)
    );
    let told = json(&host.run(&["status", "--json"]));
    assert_eq!(told["pid"], first);
    assert_eq!(
        told["agent"]["host_identifier"],
        "arn:aws:iam::123456789012:user/box1"
    );
    assert_eq!(told["agent"]["deployments"], serde_json::json!([]));
    let socket = host.path("run/codedeploy-agent.sock").metadata().unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o777, 0o600);
    let stat = std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_ne!(
        fields[3],
        first.to_string(),
        "a daemon does not lead its session"
    );
    assert_eq!(fields[4], "0", "a daemon has no terminal");

    let again = host.run(&["start"]);
    assert!(
        again.status.success() && stdout(&again).contains(&format!("already as PID {first}")),
        "{again:?}"
    );
    let restarted = host.run(&["restart"]);
    assert!(restarted.status.success(), "{restarted:?}");
    let second = pid(&host);
    assert!(second != first && !is_alive(first) && is_alive(second));

    let stopped = host.run(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(!is_alive(second) && !host.path("run/codedeploy-agent.pid").exists());
    assert!(!host.path("run/codedeploy-agent.sock").exists());
    let nothing = host.run(&["stop"]);
    assert_eq!(
        (nothing.status.code(), stdout(&nothing).as_str()),
        (Some(0), "No AWS CodeDeploy agent running\n")
    );
}

#[test]
fn the_environment_says_who_and_where_the_host_is_and_the_log_says_what_came_of_it() {
    let host = Host::new("deploy_control_endpoint: http://192.0.2.1:9\n");
    let named = "arn:aws:iam::123456789012:user/named";
    // The official agents' spelling of the option.
    let mut start = std::process::Command::new(env!("CARGO_BIN_EXE_codedeploy-agent"));
    start
        .args(["start", "--config_file"])
        .arg(host.path("agent.yml"));
    let started = start
        .env("AWS_HOST_IDENTIFIER", named)
        .env("AWS_REGION", "eu-central-1")
        .output()
        .unwrap();
    assert!(started.status.success(), "{started:?}");
    assert_eq!(
        json(&host.run(&["status", "--json"]))["agent"]["host_identifier"],
        named
    );
    let log = std::fs::read_to_string(host.path("log/codedeploy-agent.log")).unwrap();
    let line = |message: &str| {
        let lines = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .into_iter()
            .find(|line| line["message"].as_str().unwrap().contains(message))
            .unwrap_or_else(|| panic!("{log}"))
    };
    let started = line("agent started");
    assert_eq!(
        (&started["region"], &started["host"]),
        (&"eu-central-1".into(), &named.into())
    );
    let source = started["credentials"].as_str().unwrap();
    assert!(
        source.contains(host.path("codedeploy.onpremises.yml").to_str().unwrap()),
        "{source}"
    );
    assert_eq!(line("plain http, readable on the way")["level"], "WARN");
    assert!(!log.contains("hush-hush"), "{log}");
}

#[test]
fn a_start_that_takes_long_says_so_and_can_be_stopped() {
    let host = Host::new(NO_SERVICE);
    // The metadata service does not respond here, perhaps because the instance is still booting.
    std::fs::remove_file(host.path("codedeploy.onpremises.yml")).unwrap();
    let mut start = host
        .command(&["start"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    // The reader stops reading; that must not cause a failure.
    std::io::BufReader::new(start.stderr.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert!(said.contains("still starting"), "{said}");
    let log = std::fs::read_to_string(host.path("log/codedeploy-agent.log")).unwrap();
    assert_eq!(
        log.matches("waiting for EC2 instance metadata").count(),
        1,
        "{log}"
    );
    assert!(host.run(&["stop"]).status.success());
    assert_eq!(start.wait().unwrap().code(), Some(1));
}

#[test]
fn a_service_that_does_not_answer_is_told_beside_the_state() {
    let host = Host::new(NO_SERVICE);
    assert!(host.run(&["start"]).status.success());
    let told = (0..1200).find_map(|_| {
        let status = host.run(&["status"]);
        assert_eq!(status.status.code(), Some(0));
        Some(stderr(&status)).filter(|said| !said.is_empty())
    });
    let told = told.unwrap();
    assert!(
        told.contains("does not answer (it was never reached)"),
        "{told}"
    );
    assert!(host.run(&["stop"]).status.success());
}

#[test]
fn a_document_that_cannot_be_written_is_a_failure() {
    let host = Host::new(NO_SERVICE);
    assert!(host.run(&["start"]).status.success());
    for words in [
        &["status", "--json"][..],
        &["doctor", "--json"],
        &["doctor"],
    ] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = host
            .command(words)
            .stdout(full)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(
            stderr(&output).contains("cannot write to the standard output"),
            "{words:?}: {output:?}"
        );
    }
    assert!(host.run(&["stop"]).status.success());
}

#[test]
fn a_reader_who_has_gone_fails_no_command() {
    let host = Host::new(NO_SERVICE);
    for words in [&["status", "--json"][..], &["status"]] {
        let (_, out) = std::io::pipe().unwrap();
        let (_, err) = std::io::pipe().unwrap();
        assert_eq!(
            host.command(words)
                .stdout(out)
                .stderr(err)
                .status()
                .unwrap()
                .code(),
            Some(3),
            "{words:?}"
        );
    }
}

#[test]
fn of_many_starts_at_once_one_runs() {
    let host = Host::new(NO_SERVICE);
    for _ in 0..5 {
        let starts: Vec<_> = (0..4)
            .map(|_| {
                host.command(&["start"])
                    .stdout(std::process::Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let said: Vec<String> = starts
            .into_iter()
            .map(|start| stdout(&start.wait_with_output().unwrap()))
            .collect();
        let up = said
            .iter()
            .filter(|said| said.starts_with("The AWS CodeDeploy agent is running as PID"))
            .count();
        let refused = said
            .iter()
            .filter(|said| said.contains("is running already"))
            .count();
        assert_eq!((up, refused), (1, 3), "{said:?}");
        assert!(host.run(&["stop"]).status.success());
    }
}

#[test]
fn in_the_foreground_the_same_lock_is_taken() {
    let host = Host::new(NO_SERVICE);
    assert!(host.run(&["start"]).status.success());
    let refused = host.run(&["run"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("is running already as PID"),
        "{refused:?}"
    );
}

#[test]
fn a_pid_file_that_names_another_live_process_is_stale() {
    let host = Host::new(NO_SERVICE);
    std::fs::create_dir_all(host.path("run")).unwrap();
    for named in [1, std::process::id()] {
        std::fs::write(host.path("run/codedeploy-agent.pid"), format!("{named}\n")).unwrap();
        let status = host.run(&["status"]);
        assert_eq!(status.status.code(), Some(3));
        assert!(
            stderr(&status).contains(&format!("names process {named}, which is not the agent"))
        );
        // If the stale pid were used, this would end the test's own process.
        assert_eq!(
            stdout(&host.run(&["stop"])),
            "No AWS CodeDeploy agent running\n"
        );
        assert!(host.run(&["start"]).status.success());
        assert!(is_alive(pid(&host)) && pid(&host).unsigned_abs() != named);
        assert!(host.run(&["stop"]).status.success());
    }
}

#[test]
fn a_killed_agent_leaves_nothing_that_stops_the_next() {
    let host = Host::new(NO_SERVICE);
    assert!(host.run(&["start"]).status.success());
    let killed = pid(&host);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(killed),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    while is_alive(killed) {
        std::thread::yield_now();
    }
    assert_eq!(host.run(&["status"]).status.code(), Some(3));
    assert!(host.run(&["start"]).status.success());
    assert_eq!(
        json(&host.run(&["status", "--json"]))["agent"]["commands"],
        serde_json::json!([])
    );
}

#[test]
fn why_an_agent_does_not_start_is_told_to_who_started_it() {
    let host = Host::new("max_revisions: 0\n");
    let refused = host.run(&["start"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("max_revisions: found 0"),
        "{refused:?}"
    );
    let unknown = host.run(&["status"]);
    assert_eq!(unknown.status.code(), Some(4));
    assert!(stderr(&unknown).contains("max_revisions"), "{unknown:?}");
    assert_eq!(json(&host.run(&["status", "--json"]))["state"], "unknown");

    host.configure(NO_SERVICE);
    std::fs::create_dir_all(host.path("run/codedeploy-agent.sock")).unwrap();
    let refused = host.run(&["start"]);
    assert!(
        stderr(&refused).contains("codedeploy-agent.sock is not a socket"),
        "{refused:?}"
    );
    std::fs::remove_dir(host.path("run/codedeploy-agent.sock")).unwrap();
    std::fs::create_dir(host.path("run/codedeploy-agent.pid")).unwrap();
    let refused = host.run(&["start"]);
    assert!(
        stderr(&refused).contains("codedeploy-agent.pid"),
        "{refused:?}"
    );
    assert_eq!(host.run(&["status"]).status.code(), Some(4));
    std::fs::remove_dir(host.path("run/codedeploy-agent.pid")).unwrap();

    std::fs::write(
        host.path("codedeploy.onpremises.yml"),
        "region: us-east-1\n",
    )
    .unwrap();
    let refused = host.run(&["start"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("codedeploy.onpremises.yml"),
        "{refused:?}"
    );
    assert_eq!(host.run(&["status"]).status.code(), Some(3));
}

#[test]
fn a_folder_deeper_than_a_socket_s_address_is_fine() {
    let host = Host::new(NO_SERVICE);
    let deep = host.path(&"deep".repeat(40));
    let text = std::fs::read_to_string(host.path("agent.yml")).unwrap();
    let run = host.path("run").display().to_string();
    std::fs::write(
        host.path("agent.yml"),
        text.replace(&run, &deep.display().to_string()),
    )
    .unwrap();
    assert!(host.run(&["start"]).status.success());
    let told = json(&host.run(&["status", "--json"]));
    assert_eq!(
        told["agent"]["agent_version"],
        env!("CARGO_PKG_VERSION"),
        "{told}"
    );
}

#[test]
fn hostile_clients_of_the_socket_neither_block_nor_end_the_agent() {
    let host = Host::new(NO_SERVICE);
    assert!(host.run(&["start"]).status.success());
    let connect = || UnixStream::connect(host.path("run/codedeploy-agent.sock")).unwrap();
    let silent = [connect(), connect()];
    let requests: [&[u8]; 5] = [
        b"\n",
        b"\xff\xfe\n",
        b"{\"version\":7,\"request\":\"status\"}\n",
        b"{}\n",
        b"[[[[[[",
    ];
    for request in requests {
        let mut client = connect();
        client.write_all(request).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"error\""), "{answer}");
    }
    let mut flood = connect();
    // The server hangs up after the first few thousand bytes.
    let _ = flood.write_all(&vec![b'x'; 10 << 20]);
    let told = json(&host.run(&["status", "--json"]));
    assert_eq!(
        told["agent"]["agent_version"],
        env!("CARGO_PKG_VERSION"),
        "{told}"
    );
    drop(silent);
}
