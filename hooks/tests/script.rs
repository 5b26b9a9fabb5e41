//! What an operator sees of hook scripts: how each ending is reported, what they run as and with, and their logs.

#[path = "script/host.rs"]
mod host;

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use codedeploy_api::diagnostics::ErrorCode;
use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::Script;
use codedeploy_hooks::lifecycle::HookPlan;
use codedeploy_hooks::script::{self, HookRun, MARK, Outcome, Report, ScriptLog};
use host::{Host, as_ordinary_user, exists, is_root, named, runas, timeout, without_times};

/// Code, script and message of a report, which must be of the given code.
fn message(report: &Report, code: ErrorCode, script: &str) -> String {
    let payload = report.outcome.diagnostics(&report.log_tail);
    assert_eq!(
        (payload.error_code, payload.script_name.as_str()),
        (code, script),
        "{report:?}"
    );
    payload.message
}

#[tokio::test]
async fn scripts_run_in_order_and_their_output_is_logged() {
    let host = Host::new();
    let scripts = [
        host.script(
            "scripts/one.sh",
            "echo out; sleep 0.1; echo err >&2; sleep 0.1; printf unterminated",
        ),
        host.script("two.sh", "echo 'second  one'; echo"),
    ];
    let report = host.run(&scripts).await;
    assert_eq!(message(&report, ErrorCode::Success, ""), "Succeeded");

    let log = "LifecycleEvent - ApplicationStart\nScript - scripts/one.sh\n[stdout]out\n[stderr]err\n\
               [stdout]unterminated\nScript - two.sh\n[stdout]second  one\n[stdout]\n";
    assert_eq!(without_times(&host.scripts_log(), "0000-00-00 00:00:00 "), log);
    let tagged: String = log
        .split_inclusive('\n')
        .flat_map(|line| ["[d-ABCDEFGHI]", line])
        .collect();
    assert_eq!(
        without_times(&host.deployments_log(), "[0000-00-00 00:00:00.000] "),
        tagged
    );
    assert_eq!(report.log_tail, log);

    host.run(&scripts).await;
    assert_eq!(
        host.scripts_log().lines().count(),
        16,
        "the next command adds to the log"
    );
}

#[tokio::test]
async fn an_event_without_scripts_succeeds_and_logs_nothing() {
    let host = Host::new();
    let report = host.run(&[]).await;
    assert_eq!(report.outcome, Outcome::Succeeded { note: None });
    assert_eq!((report.log_tail.as_str(), host.scripts_log().as_str()), ("", ""));
}

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
    assert!(report.log_tail.ends_with("Script - fails.sh\n[stdout]why\n"));
    assert!(!exists(&after));
}

#[tokio::test]
async fn a_missing_script_is_reported_with_the_path_it_was_expected_at() {
    let host = Host::new();
    host.file("file", 0o644, "");
    for location in ["no/such.sh", "file/below"] {
        let report = host.run(&[named(location)]).await;
        let path = host.archive().join(location);
        assert_eq!(
            message(&report, ErrorCode::ScriptMissing, location),
            format!("Script does not exist at specified location: {}", path.display())
        );
    }
}

#[tokio::test]
async fn a_script_that_is_not_executable_is_made_so() {
    let host = Host::new();
    let path = host.file("plain.sh", 0o644, "#!/bin/sh\nexit 0\n");
    assert!(host.run(&[named("plain.sh")]).await.outcome.succeeded());
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_script_that_cannot_be_made_executable_is_reported_which_needs_root_to_arrange() {
    if !is_root("a_script_that_cannot_be_made_executable") {
        return;
    }
    let host = Host::new();
    host.file("roots.sh", 0o644, "#!/bin/sh\n");
    for folder in ["logs", "deployment-logs"] {
        std::fs::create_dir(host.path(folder)).unwrap();
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        std::os::unix::fs::chown(host.path(folder), Some(nobody.uid.as_raw()), None).unwrap();
    }
    as_ordinary_user(async |_| {
        let report = host.run(&[named("roots.sh")]).await;
        let message = message(&report, ErrorCode::ScriptNotExecutable, "roots.sh");
        assert!(
            message.contains("not executable and cannot be made so: Operation not permitted"),
            "{message}"
        );
    });
}

#[tokio::test]
async fn a_script_that_takes_too_long_is_ended() {
    let host = Host::new();
    let start = Instant::now();
    let report = host
        .run(&[timeout(host.script("slow.sh", "echo begun; sleep 60"), 1000)])
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
    let report = host.run(&[timeout(host.script("tidy.sh", lines), 500)]).await;
    message(&report, ErrorCode::ScriptTimedOut, "tidy.sh");
    assert!(
        report.log_tail.ends_with("[stdout]cleaning\n"),
        "{}",
        report.log_tail
    );
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
         while :; do sleep 1; done",
        file("leader"),
        file("session"),
        file("orphan"),
        file("unmarked"),
    );
    let report = host
        .run(&[timeout(host.script("stubborn.sh", &lines), 2000)])
        .await;
    message(&report, ErrorCode::ScriptTimedOut, "stubborn.sh");
    for name in ["leader", "session", "orphan", "unmarked"] {
        assert!(!host.pid_in(name).await.is_alive(), "{name}");
    }
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
        assert!(
            message.contains(&format!("its {streams} stayed open")),
            "{message}"
        );
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
    assert!(message(&report, ErrorCode::ScriptFailed, "run.sh").ends_with("failed with exit code 5"));
}

#[tokio::test]
async fn a_script_without_an_interpreter_line_runs_in_the_shell() {
    let host = Host::new();
    host.file("bare.sh", 0o755, "echo \"$0\"\n");
    host.file("empty.sh", 0o755, "");
    let report = host.run(&[named("bare.sh"), named("empty.sh")]).await;
    assert!(report.outcome.succeeded(), "{report:?}");
    let path = host.archive().join("bare.sh");
    assert!(
        report.log_tail.contains(&format!("[stdout]{}\n", path.display())),
        "{}",
        report.log_tail
    );
}

#[tokio::test]
async fn what_is_wrong_with_the_interpreter_line_is_said() {
    let host = Host::new();
    let cases = [
        (
            "#!/no/such/interpreter -x\n",
            "names the interpreter /no/such/interpreter, which does not exist",
        ),
        (
            "#!/bin/sh\r\nexit 0\r\n",
            "names the interpreter /bin/sh and ends in a carriage return",
        ),
        (
            "#!/usr/bin/env sh\r\nexit 0\r\n",
            "failed with exit code 127; the first line of ",
        ),
        (
            "#!/usr/bin/env sh\r\nexit 0\r\n",
            "ends in a carriage return; save the script with Unix line endings",
        ),
    ];
    for (contents, expected) in cases {
        host.file("bad.sh", 0o755, contents);
        let report = host.run(&[named("bad.sh")]).await;
        let message = message(&report, ErrorCode::ScriptFailed, "bad.sh");
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn a_link_to_a_script_is_followed_inside_the_revision_only() {
    let host = Host::new();
    host.script("real/start.sh", "echo started");
    symlink("real/start.sh", host.archive().join("inside")).unwrap();
    symlink("/bin/true", host.archive().join("outside")).unwrap();
    symlink("../../bin/true", host.archive().join("up")).unwrap();
    assert!(host.run(&[named("inside")]).await.outcome.succeeded());
    for location in ["outside", "up"] {
        let report = host.run(&[named(location)]).await;
        let message = message(&report, ErrorCode::ScriptFailed, location);
        assert!(
            message.contains("a link that leads out of the revision"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn only_a_file_is_run() {
    let host = Host::new();
    std::fs::create_dir(host.archive().join("folder")).unwrap();
    nix::unistd::mkfifo(&host.archive().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for location in ["folder", "fifo", "/"] {
        let report = host.run(&[named(location)]).await;
        assert!(
            report
                .outcome
                .to_string()
                .contains("is not a file that could be run"),
            "{report:?}"
        );
        assert_eq!(report.outcome.code(), ErrorCode::ScriptFailed);
    }
}

#[tokio::test]
async fn a_script_gets_the_environment_it_is_given_and_no_credentials() {
    let mut host = Host::new();
    let given = [
        ("LIFECYCLE_EVENT", "ApplicationStart"),
        ("DEPLOYMENT_ID", host::DEPLOYMENT),
        ("APPLICATION_NAME", "two words"),
        ("AWS_REGION", "eu-central-1"),
    ];
    let secret = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_CREDENTIAL_FILE",
        "AWS_SESSION_TOKEN",
    ]
    .map(|n| (n, "x"));
    host.environment.extend(
        given
            .iter()
            .chain(&secret)
            .map(|(name, value)| (name.into(), value.into())),
    );
    host.file("env", 0o755, std::fs::read("/usr/bin/env").unwrap());
    let report = host.run(&[named("env")]).await;
    let mut seen: Vec<_> = report
        .log_tail
        .lines()
        .filter_map(|line| line.strip_prefix("[stdout]"))
        .collect();
    seen.retain(|line| !line.starts_with(&format!("{MARK}=")));
    let mut expected: Vec<_> = given
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    expected.push("PATH=/usr/local/bin:/usr/bin:/bin".into());
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_script_has_an_empty_stdin_its_own_process_group_and_the_agents_current_folder() {
    let host = Host::new();
    let report = host
        .run_lines("wc -c; read -r _ _ _ _ group _ < /proc/$$/stat; [ \"$group\" = $$ ] && echo own; readlink /proc/$$/cwd")
        .await;
    let here = std::fs::read_link("/proc/self/cwd").unwrap();
    assert!(
        report
            .log_tail
            .ends_with(&format!("[stdout]0\n[stdout]own\n[stdout]{}\n", here.display())),
        "{}",
        report.log_tail
    );
}

#[tokio::test]
async fn what_root_runs_is_made_roots_own_which_needs_root() {
    if !is_root("what_root_runs_is_made_roots_own") {
        return;
    }
    let host = Host::new();
    let path = host.file("loose.sh", 0o777, "#!/bin/sh\n");
    std::os::unix::fs::chown(&path, Some(12345), Some(12345)).unwrap();
    assert!(host.run(&[named("loose.sh")]).await.outcome.succeeded());
    let found = path.metadata().unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o755));
}

#[tokio::test]
async fn runas_switches_user_groups_and_home_which_needs_root() {
    if !is_root("runas_switches_user_groups_and_home") {
        return;
    }
    let host = Host::new();
    let lines = "id -un; id -ur; id -G; echo $HOME $USER $LOGNAME $SHELL; cat /proc/$$/status | grep CapEff";
    let user = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    let name = std::ffi::CString::new("daemon").unwrap();
    let groups = nix::unistd::getgrouplist(&name, user.gid).unwrap();
    let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
    let expected = format!(
        "[stdout]daemon\n[stdout]{}\n[stdout]{}\n[stdout]{} daemon daemon {}\n[stdout]CapEff:\t0000000000000000\n",
        user.uid,
        groups.join(" "),
        user.dir.display(),
        user.shell.display()
    );
    for sudo in [false, true] {
        let script = Script {
            sudo,
            ..runas(host.script("who.sh", lines), "daemon")
        };
        let report = host.run(&[script]).await;
        assert!(report.outcome.succeeded(), "{report:?}");
        assert!(
            report.log_tail.ends_with(&expected),
            "{}\n{expected}",
            report.log_tail
        );
    }

    let report = host
        .run(&[runas(host.script("fails.sh", "exit 9"), "daemon")])
        .await;
    assert_eq!(
        message(&report, ErrorCode::ScriptFailed, "fails.sh"),
        "Script at specified location: fails.sh run as user daemon failed with exit code 9"
    );
}

#[tokio::test]
async fn a_private_script_stays_runnable_for_its_user_and_nobody_else_which_needs_root() {
    if !is_root("a_private_script_stays_runnable_for_its_user") {
        return;
    }
    let host = Host::new();
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    for (owner, mode) in [(daemon.uid.as_raw(), 0o700), (0, 0o600)] {
        let path = host.file("private.sh", mode, "#!/bin/sh\nid -un\n");
        std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
        let report = host.run(&[runas(named("private.sh"), "daemon")]).await;
        assert!(report.log_tail.ends_with("[stdout]daemon\n"), "{report:?}");
        let found = path.metadata().unwrap();
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o006),
            (0, daemon.gid.as_raw(), 0)
        );
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn a_user_that_does_not_exist_is_reported() {
    let host = Host::new();
    let script = runas(host.script("run.sh", "exit 0"), "no-such-user");
    let report = host.run(&[script]).await;
    let message = message(&report, ErrorCode::ScriptFailed, "run.sh");
    assert!(
        message
            .contains("run as user no-such-user could not be started: the user no-such-user does not exist"),
        "{message}"
    );
}

#[test]
fn an_agent_that_is_not_root_runs_scripts_as_its_own_user_alone() {
    as_ordinary_user(async |user| {
        let host = Host::new();
        let own = runas(host.script("own.sh", "id -un; echo $USER"), user);
        let report = host.run(&[own]).await;
        assert!(
            report
                .log_tail
                .ends_with(&format!("[stdout]{user}\n[stdout]{user}\n")),
            "{report:?}"
        );

        let other = runas(host.script("other.sh", "id -un"), "root");
        let report = host.run(&[other]).await;
        let message = message(&report, ErrorCode::ScriptFailed, "other.sh");
        assert!(
            message.contains("only root can run a script as another user"),
            "{message}"
        );
    });
}

#[test]
fn an_agent_that_is_not_root_uses_sudo_where_the_appspec_asks_for_it() {
    as_ordinary_user(async |_| {
        let mut host = Host::new();
        // A sudo that shows what it was asked for.
        host.file("bin/sudo", 0o755, "#!/bin/sh\necho sudo \"$@\"\n");
        host.environment = vec![("PATH".into(), host.archive().join("bin").into_os_string())];
        let script = host.script("run.sh", "exit 0");
        let path = host.archive().join("run.sh");
        let cases = [
            (
                Script {
                    sudo: true,
                    ..script.clone()
                },
                format!("[stdout]sudo -n -- {}\n", path.display()),
            ),
            (
                Script {
                    sudo: true,
                    ..runas(script, "daemon")
                },
                format!("[stdout]sudo -n -u daemon -- {}\n", path.display()),
            ),
        ];
        for (script, expected) in cases {
            let report = host.run(&[script.clone()]).await;
            assert!(report.log_tail.ends_with(&expected), "{report:?}");
        }

        host.environment = vec![("PATH".into(), "/nonexistent".into())];
        let report = host
            .run(&[Script {
                sudo: true,
                ..host.script("run.sh", "exit 0")
            }])
            .await;
        let message = message(&report, ErrorCode::ScriptFailed, "run.sh");
        assert!(
            message.contains("sudo, which the AppSpec asks for, cannot be run"),
            "{message}"
        );
    });
}

#[tokio::test]
async fn output_is_made_plain_text() {
    let host = Host::new();
    host.script(
        "odd.sh",
        r"printf '\033[31mred\033[0m\tand \377\376 \033]0;title\007\001end\r\n'; printf 'caf\303\251'",
    );
    let report = host.run(&[named("odd.sh")]).await;
    let expected = "Script - odd.sh\n[stdout]red\tand \u{fffd}\u{fffd} end\n[stdout]café\n";
    assert!(report.log_tail.ends_with(expected), "{:?}", report.log_tail);
    assert!(without_times(&host.scripts_log(), "0000-00-00 00:00:00 ").ends_with(expected));
}

#[tokio::test]
async fn a_script_that_writes_without_end_costs_neither_memory_nor_disk() {
    let host = Host::new();
    let before = resident();
    let report = host
        .run_lines("head -c 268435456 /dev/zero | tr '\\0' a; echo; echo the end")
        .await;
    let grown = resident().saturating_sub(before);
    assert!(report.outcome.succeeded(), "{report:?}");
    assert!(grown < 64 << 20, "{grown} bytes more are resident");
    assert!(report.log_tail.ends_with("[stdout]the end\n"));
    let log = host.path("logs/scripts.log");
    assert!(log.metadata().unwrap().len() < (64 << 20) + 1024);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.lines().all(|line| line.len() < 66_000));
    let note = text.lines().last().unwrap();
    let left_out: u64 = note[20..].split(' ').next().unwrap().parse().unwrap();
    assert!(
        note.ends_with("bytes of output are left out: a script may log 67108864"),
        "{note}"
    );
    let logged: usize = text.matches('a').count();
    assert!(
        (268_435_456..268_500_000).contains(&(left_out + logged as u64)),
        "{left_out} and {logged}"
    );
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_log_that_cannot_be_written_does_not_fail_the_script() {
    let host = Host::new();
    // Every write to it fails as on a full disk.
    let mut log = ScriptLog::open(Path::new("/dev/full"), None, host::DEPLOYMENT).unwrap();
    let plan = HookPlan {
        event: LifecycleEvent::ValidateService,
        archive: host.archive(),
        scripts: vec![host.script("run.sh", "echo fine")],
    };
    let environment = &host.environment;
    let (limits, stop) = (host.limits, host.stop.clone());
    let report = script::run(HookRun {
        plan: &plan,
        environment,
        limits,
        log: &mut log,
        stop,
    })
    .await;
    assert!(report.outcome.succeeded(), "{report:?}");
    assert!(report.log_tail.ends_with("[stdout]fine\n"));
}
