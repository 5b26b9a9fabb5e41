//! The end of a script, and the fate of the processes that it started.

use std::time::{Duration, Instant};

use codedeploy_api::diagnostics::ErrorCode;
use codedeploy_hooks::script::Outcome;

use super::host::{Host, exists, message, timeout};

#[tokio::test]
async fn the_first_failure_ends_the_event() {
    let host = Host::new();
    let after = host.path("after");
    let scripts = [
        host.script("fails.sh", "echo why; exit 7"),
        host.script("after.sh", &format!("touch {}", after.display())),
    ];
    let report = host.run(&scripts).await;
    assert_eq!(
        message(&report, ErrorCode::ScriptFailed, "fails.sh"),
        "Script at specified location: fails.sh failed with exit code 7"
    );
    assert!(
        report
            .log_tail
            .ends_with("Script - fails.sh\n[stdout]why\n")
    );
    assert!(!exists(&after));
}

#[tokio::test]
async fn a_script_that_takes_too_long_is_ended() {
    let host = Host::new();
    let start = Instant::now();
    let report = host
        .run(&[timeout(
            host.script("slow.sh", "echo begun; sleep 60"),
            1000,
        )])
        .await;
    assert_eq!(
        message(&report, ErrorCode::ScriptTimedOut, "slow.sh"),
        "Script at specified location: slow.sh failed to complete in 1 seconds"
    );
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(report.log_tail.ends_with("[stdout]begun\n"));
}

#[tokio::test]
async fn a_script_may_clean_up_when_its_time_is_over() {
    let host = Host::new();
    let lines = "trap 'echo cleaning; exit 0' TERM; echo ready; sleep 60 & wait";
    let report = host
        .run(&[timeout(host.script("tidy.sh", lines), 1500)])
        .await;
    message(&report, ErrorCode::ScriptTimedOut, "tidy.sh");
    assert!(
        report.log_tail.ends_with("[stdout]cleaning\n"),
        "{}",
        report.log_tail
    );
}

#[tokio::test]
async fn what_a_script_started_may_clean_up_too_wherever_it_is() {
    let host = Host::new();
    let lines = "setsid sh -c 'trap \"echo bye; exit\" TERM; echo ready; while :; do sleep 0.05; done' & wait";
    let report = host
        .run(&[timeout(host.script("tidy.sh", lines), 1500)])
        .await;
    message(&report, ErrorCode::ScriptTimedOut, "tidy.sh");
    assert!(
        report.log_tail.contains("[stdout]bye\n"),
        "{}",
        report.log_tail
    );
}

#[tokio::test]
async fn a_script_that_never_stops_writing_is_ended_all_the_same() {
    let host = Host::new();
    let start = Instant::now();
    let report = host
        .run(&[timeout(
            host.script("loud.sh", "trap '' TERM; yes & yes >&2"),
            500,
        )])
        .await;
    message(&report, ErrorCode::ScriptTimedOut, "loud.sh");
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert!(report.log_tail.ends_with("y\n"));
}

#[tokio::test]
async fn a_script_that_was_stopped_by_a_signal_is_ended_all_the_same() {
    let host = Host::new();
    let report = host
        .run(&[timeout(host.script("asleep.sh", "kill -STOP $$"), 300)])
        .await;
    message(&report, ErrorCode::ScriptTimedOut, "asleep.sh");
}

#[tokio::test]
async fn nothing_outlives_a_timeout() {
    let host = Host::new();
    let file = |name: &str| host.path(name).display().to_string();
    let lines = format!(
        "trap '' TERM\n\
         echo $$ > {}\n\
         setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done' &\n\
         (setsid sh -c 'echo $$ > {}; exec sleep 60' &)\n\
         env -i /usr/bin/setsid /bin/sh -c 'echo $$ > {}; /bin/sleep 60' &\n\
         (setsid env -i /bin/sh -c 'trap \"\" TERM; echo $$ > {}; /bin/sleep 60; /bin/sleep 60' \
             </dev/null >/dev/null 2>&1 &)\n\
         while :; do sleep 1; done",
        file("leader"),
        file("session"),
        file("orphan"),
        file("unmarked"),
        file("traceless"),
    );
    let report = host
        .run(&[timeout(host.script("stubborn.sh", &lines), 3000)])
        .await;
    message(&report, ErrorCode::ScriptTimedOut, "stubborn.sh");
    for name in ["leader", "session", "orphan", "unmarked", "traceless"] {
        assert!(!host.pid_in(name).await.is_alive(), "{name}");
    }
}

#[tokio::test]
async fn a_process_whose_first_thread_is_gone_does_not_outlive_a_timeout_either() {
    let host = Host::new();
    let python = "import ctypes, os, sys, threading, time\n\
        threading.Thread(target=lambda: time.sleep(60)).start()\n\
        open(sys.argv[1], 'w').write(str(os.getpid()))\n\
        ctypes.CDLL(None).pthread_exit(None)\n";
    let program = host.file("threads.py", 0o644, python);
    let pid_file = host.path("threads");
    let lines = format!(
        "(setsid env -i \"$(command -v python3)\" {} {} </dev/null >/dev/null 2>&1 &)\nsleep 60",
        program.display(),
        pid_file.display()
    );
    let report = host
        .run(&[timeout(host.script("slow.sh", &lines), 3000)])
        .await;
    message(&report, ErrorCode::ScriptTimedOut, "slow.sh");
    let pid = host.pid_in("threads").await;
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.0)).exists());
}

#[tokio::test]
async fn what_a_script_leaves_behind_belongs_to_init_once_the_script_is_over() {
    let host = Host::new();
    let pid_file = host.path("daemon");
    let lines = format!(
        "(setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $! > {})\necho $PPID > {}",
        pid_file.display(),
        host.path("parent").display()
    );
    assert!(host.run_lines(&lines).await.outcome.succeeded());
    let daemon = host.pid_in("daemon").await;
    let keeper = host.pid_in("parent").await;
    assert!(daemon.is_alive());
    assert!(!keeper.is_alive(), "nothing of the agent stays");
    assert_ne!(daemon.parent(), keeper.0);
    keeper.leave();
}

#[tokio::test]
async fn when_the_agent_can_wait_no_longer_the_script_is_ended() {
    let host = Host::new();
    let lines = format!("echo $$ > {}; sleep 60", host.path("pid").display());
    let scripts = [
        host.script("long.sh", &lines),
        host.script("next.sh", "echo never"),
    ];
    let (report, ()) = tokio::join!(host.run(&scripts), async {
        host.pid_in("pid").await.leave();
        host.stop.cancel();
    });
    assert_eq!(
        message(&report, ErrorCode::FailedAfterRestart, ""),
        "Failed: the agent was stopped while the script long.sh ran, and ended it"
    );
    assert!(!host.pid_in("pid").await.is_alive());
    assert!(!report.log_tail.contains("never"));

    let report = host.run(&scripts).await;
    assert_eq!(
        report.outcome,
        Outcome::Stopped { location: None },
        "stopped before it began"
    );
}

#[tokio::test]
async fn a_script_that_is_killed_is_reported_with_the_signal() {
    let host = Host::new();
    let report = host.run_lines("kill -SEGV $$").await;
    assert_eq!(
        message(&report, ErrorCode::ScriptFailed, "run.sh"),
        "Script at specified location: run.sh was killed by signal 11 (SIGSEGV)"
    );
}

#[tokio::test]
async fn a_daemon_that_closed_its_output_survives_its_script() {
    let host = Host::new();
    let pid_file = host.path("daemon");
    let lines = format!(
        "setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $! > {}",
        pid_file.display()
    );
    for (exit_code, lines) in [(0, lines.clone()), (3, format!("{lines}; exit 3"))] {
        let report = host.run_lines(&lines).await;
        let ended = match report.outcome {
            Outcome::Succeeded { .. } => 0,
            Outcome::Failed { exit_code, .. } => exit_code,
            other => panic!("{other:?}"),
        };
        assert_eq!(ended, exit_code);
        assert!(host.pid_in("daemon").await.is_alive());
        std::fs::remove_file(&pid_file).unwrap();
    }
}

#[tokio::test]
async fn a_process_that_keeps_the_output_open_is_named() {
    for (redirection, streams) in [
        ("2>/dev/null", "stdout"),
        (">/dev/null", "stderr"),
        ("", "stdout and stderr"),
    ] {
        let host = Host::new();
        let pid_file = host.path("holder");
        let lines = format!(
            "sleep 61 {redirection} & echo $! > {}; echo done",
            pid_file.display()
        );
        let start = Instant::now();
        let report = host.run_lines(&lines).await;
        let holder = host.pid_in("holder").await;
        let message = message(&report, ErrorCode::OutputLeftOpen, "run.sh");
        let stayed = format!("its {streams} stayed open for 1 more seconds (output_drain_seconds)");
        assert!(message.contains(&stayed), "{message}");
        assert!(
            message.contains(&format!("held by process {} (sleep 61);", holder.0)),
            "{message}"
        );
        assert!(report.log_tail.ends_with("[stdout]done\n"));
        assert!(
            holder.is_alive(),
            "only a timeout ends what a script leaves behind"
        );
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test]
async fn a_process_that_only_reads_the_output_does_not_keep_it_open() {
    let host = Host::new();
    let lines = format!(
        "sleep 61 2>/dev/null & echo $! > {}\n\
         sleep 62 3</proc/self/fd/1 >/dev/null 2>&1 & echo $! > {}",
        host.path("writer").display(),
        host.path("reader").display()
    );
    let report = host.run_lines(&lines).await;
    let writer = host.pid_in("writer").await;
    assert!(host.pid_in("reader").await.is_alive());
    let message = message(&report, ErrorCode::OutputLeftOpen, "run.sh");
    assert!(
        message.contains(&format!("held by process {} (sleep 61);", writer.0)),
        "{message}"
    );
}

#[tokio::test]
async fn output_that_arrives_within_the_grace_counts() {
    let mut host = Host::new();
    host.limits.drain_grace = Duration::from_secs(30);
    let report = host.run_lines("(sleep 0.3; echo late) & exit 0").await;
    assert!(report.outcome.succeeded(), "{report:?}");
    assert!(report.log_tail.ends_with("[stdout]late\n"));
}

#[tokio::test]
async fn the_exit_code_counts_more_than_an_open_output() {
    let host = Host::new();
    let report = host
        .run_lines(&format!(
            "sleep 60 & echo $! > {}; exit 5",
            host.path("holder").display()
        ))
        .await;
    host.pid_in("holder").await;
    assert!(
        message(&report, ErrorCode::ScriptFailed, "run.sh").ends_with("failed with exit code 5")
    );
}
