//! The files that are executed, their user and their environment.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use codedeploy_api::diagnostics::ErrorCode;
use codedeploy_hooks::appspec::Script;
use codedeploy_hooks::script::MARK;

use super::host::{self, Host, as_ordinary_user, message, named, runas, until};

#[tokio::test]
async fn a_missing_script_is_reported_with_the_path_it_was_expected_at() {
    let host = Host::new();
    host.file("file", 0o644, "");
    for location in ["no/such.sh", "file/below"] {
        let report = host.run(&[named(location)]).await;
        let path = host.archive().join(location);
        assert_eq!(
            message(&report, ErrorCode::ScriptMissing, location),
            format!(
                "Script does not exist at specified location: {}",
                path.display()
            )
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
#[ignore = "needs root"]
fn a_script_that_cannot_be_made_executable_is_reported_which_needs_root_to_arrange() {
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
async fn a_script_without_an_interpreter_line_runs_in_the_shell() {
    let host = Host::new();
    host.file("bare.sh", 0o755, "echo \"$0\"\n");
    host.file("empty.sh", 0o755, "");
    let report = host.run(&[named("bare.sh"), named("empty.sh")]).await;
    assert!(report.outcome.succeeded(), "{report:?}");
    let path = host.archive().join("bare.sh");
    assert!(
        report
            .log_tail
            .contains(&format!("[stdout]{}\n", path.display())),
        "{}",
        report.log_tail
    );
}

#[tokio::test]
async fn what_stands_before_the_interpreter_line_is_said_of_a_script_that_fails() {
    let host = Host::new();
    for (contents, expected) in [
        (
            &b"\xef\xbb\xbf#!/bin/bash\nexit 3\n"[..],
            "a byte-order mark stands before its #!",
        ),
        (
            b"\n#!/bin/bash\nexit 3\n",
            "an empty line stands before its #!",
        ),
        (b" #!/bin/bash\nexit 3\n", "blanks stand before its #!"),
    ] {
        host.file("bad.sh", 0o755, contents);
        let message = message(
            &host.run(&[named("bad.sh")]).await,
            ErrorCode::ScriptFailed,
            "bad.sh",
        );
        assert!(
            message.contains("failed with exit code 3; ") && message.contains(expected),
            "{message}"
        );
    }
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
async fn a_program_that_was_built_for_another_host_is_said_to_be() {
    let host = Host::new();
    let mut foreign = std::fs::read("/usr/bin/env").unwrap();
    // A processor that does not exist.
    foreign[18..20].copy_from_slice(&[0xfe, 0xfe]);
    host.file("foreign", 0o755, foreign);
    let report = host.run(&[named("foreign")]).await;
    let text = message(&report, ErrorCode::ScriptFailed, "foreign");
    assert!(
        text.contains("is a program for another processor"),
        "{text}"
    );

    let mut program = std::fs::read("/usr/bin/env").unwrap();
    let loader = program.windows(4).position(|part| part == b"/ld-").unwrap();
    program[loader + 1] = b'x';
    host.file("program", 0o755, program);
    let report = host.run(&[named("program")]).await;
    let text = message(&report, ErrorCode::ScriptFailed, "program");
    assert!(
        text.contains("is a program whose loader does not exist on this host"),
        "{text}"
    );
}

#[tokio::test]
async fn a_script_whose_file_is_just_being_closed_is_waited_for() {
    let host = Host::new();
    let script = host.script("busy.sh", "exit 0");
    let writer = std::fs::File::options()
        .append(true)
        .open(host.archive().join("busy.sh"))
        .unwrap();
    let (report, ()) = tokio::join!(host.run(std::slice::from_ref(&script)), async {
        until("the script to begin", || {
            host.scripts_log().contains("Script - busy.sh")
        })
        .await;
        let begun = Instant::now();
        until("a first attempt to start it", || {
            begun.elapsed() > Duration::from_millis(100)
        })
        .await;
        drop(writer);
    });
    assert!(report.outcome.succeeded(), "{report:?}");
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_folder_that_the_user_cannot_enter_is_hinted_at_which_needs_root() {
    let host = Host::new();
    let script = runas(host.script("run.sh", "exit 0"), "daemon");
    std::fs::set_permissions(host.archive(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let report = host.run(&[script]).await;
    let message = message(&report, ErrorCode::ScriptFailed, "run.sh");
    assert!(
        message.contains("run as user daemon could not be started: permission denied for"),
        "{message}"
    );
    assert!(
        message.contains("check that the user may enter every folder on the way"),
        "{message}"
    );
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
        report.log_tail.ends_with(&format!(
            "[stdout]0\n[stdout]own\n[stdout]{}\n",
            here.display()
        )),
        "{}",
        report.log_tail
    );
}

#[tokio::test]
#[ignore = "needs root"]
async fn what_root_runs_is_roots_own_until_it_has_run_which_needs_root() {
    let host = Host::new();
    let path = host.file(
        "loose.sh",
        0o666,
        "#!/bin/sh\nstat -c '%u %a' \"$0\"\nexit 1\n",
    );
    std::os::unix::fs::chown(&path, Some(12345), Some(12346)).unwrap();
    let report = host.run(&[named("loose.sh")]).await;
    assert!(report.log_tail.ends_with("[stdout]0 755\n"), "{report:?}");
    let found = path.metadata().unwrap();
    assert_eq!(
        (found.uid(), found.gid(), found.mode() & 0o7777),
        (12345, 12346, 0o777)
    );

    let path = host.file("own.sh", 0o755, "#!/bin/sh\nchown 33:33 \"$0\"\n");
    std::os::unix::fs::chown(&path, Some(12345), Some(12346)).unwrap();
    assert!(host.run(&[named("own.sh")]).await.outcome.succeeded());
    assert_eq!(
        path.metadata().unwrap().uid(),
        33,
        "what a script did to itself stays"
    );
}

#[tokio::test]
#[ignore = "needs root"]
async fn runas_switches_user_groups_and_home_which_needs_root() {
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
#[ignore = "needs root"]
async fn a_private_script_stays_runnable_for_its_user_and_nobody_else_which_needs_root() {
    let host = Host::new();
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    for (owner, mode) in [(daemon.uid.as_raw(), 0o700), (0, 0o600)] {
        let path = host.file(
            "private.sh",
            mode,
            "#!/bin/sh\nstat -c '%U %G %a' \"$0\"\nid -un\n",
        );
        std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
        let report = host.run(&[runas(named("private.sh"), "daemon")]).await;
        let seen = report.log_tail.lines().rev().nth(1).unwrap_or_default();
        assert!(
            seen.contains("[stdout]root daemon 75") && !seen.ends_with(['4', '5']),
            "{report:?}"
        );
        assert!(report.log_tail.ends_with("[stdout]daemon\n"), "{report:?}");
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
        message.contains(
            "run as user no-such-user could not be started: the user no-such-user does not exist"
        ),
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
        // A sudo that prints its arguments.
        host.file("bin/sudo", 0o755, "#!/bin/sh\necho sudo \"$@\"\n");
        host.environment = vec![("PATH".into(), host.archive().join("bin").into_os_string())];
        let script = host.script("run.sh", "exit 0");
        let path = host.archive().join("run.sh");
        let plain = host.file("plain.sh", 0o755, "exit 0\n");
        let root = nix::unistd::User::from_name("root").unwrap().unwrap();
        let shell = root.shell.display();
        let cases = [
            // Without an interpreter line, for the user's shell.
            (
                Script {
                    sudo: true,
                    ..runas(named("plain.sh"), "root")
                },
                format!(
                    "[stdout]sudo -n -u root -- {shell} -c {}\n",
                    plain.display()
                ),
            ),
            (
                Script {
                    sudo: true,
                    ..runas(named("plain.sh"), "nobody")
                },
                format!("[stdout]sudo -n -u nobody -- {}\n", plain.display()),
            ),
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
            let report = host.run(std::slice::from_ref(&script)).await;
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
