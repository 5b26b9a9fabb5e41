//! The state that a script inherits from the agent's process: no open files, no blocked or ignored
//! signals, the same umask and limits.

use std::os::fd::AsRawFd;

use codedeploy_hooks::script::Report;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::host::{Host, named, runas};

fn printed(report: &Report) -> Vec<&str> {
    report
        .log_tail
        .lines()
        .filter_map(|line| line.strip_prefix("[stdout]"))
        .collect()
}

/// The first word after `name` in a file such as `/proc/self/status`.
fn field<'a>(lines: &[&'a str], name: &str) -> &'a str {
    let line = lines.iter().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_else(|| panic!("no {name} in {lines:#?}"))
}

#[tokio::test]
async fn a_script_has_its_three_streams_and_no_other_open_file() {
    let host = Host::new();
    let inherited = std::fs::File::open("/dev/null").unwrap();
    fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    assert!(inherited.as_raw_fd() > 2);
    let report = host.run_lines("exec ls /proc/self/fd").await;
    assert_eq!(
        printed(&report),
        ["0", "1", "2", "3"],
        "the last is that of ls"
    );
}

#[tokio::test]
async fn a_script_has_no_signal_blocked_and_a_broken_pipe_ends_it() {
    let host = Host::new();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own: Vec<&str> = own.lines().collect();
    let report = host.run_lines("exec cat /proc/self/status").await;
    let status = printed(&report);
    assert_eq!(field(&status, "SigBlk:"), "0000000000000000");
    let ignored = u64::from_str_radix(field(&status, "SigIgn:"), 16).unwrap();
    let pipe = 1 << (nix::sys::signal::Signal::SIGPIPE as u64 - 1);
    assert_eq!(
        ignored & pipe,
        0,
        "Rust programs ignore it, scripts must not"
    );
    assert_eq!(field(&status, "Umask:"), field(&own, "Umask:"));
}

#[tokio::test]
async fn a_script_has_the_limits_of_the_agent() {
    let host = Host::new();
    let report = host.run_lines("exec cat /proc/self/limits").await;
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let own: Vec<&str> = own.lines().map(str::trim_end).collect();
    let found: Vec<&str> = printed(&report).into_iter().map(str::trim_end).collect();
    assert_eq!(found, own);
}

#[tokio::test]
#[ignore = "needs root"]
async fn runas_gives_the_groups_of_the_user_and_takes_those_of_root_which_needs_root() {
    let host = Host::new();
    // A file that only the user's group may read; root's own groups do not matter.
    let user = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    for (name, group, readable) in [("own", user.gid.as_raw(), true), ("roots", 0, false)] {
        let path = host.file(name, 0o640, "secret\n");
        std::os::unix::fs::chown(&path, Some(0), Some(group)).unwrap();
        let script = host.script(
            "read.sh",
            &format!("cat {} 2>/dev/null || echo refused", path.display()),
        );
        let report = host.run(&[runas(script, "daemon")]).await;
        assert_eq!(
            printed(&report),
            [if readable { "secret" } else { "refused" }],
            "{name}"
        );
    }
    let root = host.run(&[runas(named("read.sh"), "root")]).await;
    assert_eq!(printed(&root), ["secret"]);
}

#[tokio::test]
#[ignore = "needs root"]
async fn root_runs_scripts_without_sudo_even_where_the_appspec_asks_for_it_which_needs_root() {
    let mut host = Host::new();
    // A sudo that requires a terminal, or that root may not use, as on some hosts.
    host.file(
        "bin/sudo",
        0o755,
        "#!/bin/sh\necho you must have a tty to run sudo >&2\nexit 1\n",
    );
    let path = format!("{}:/usr/bin:/bin", host.archive().join("bin").display());
    host.environment = vec![("PATH".into(), path.into())];
    for (user, expected) in [
        (None, "root"),
        (Some("daemon"), "daemon"),
        (Some("root"), "root"),
    ] {
        let mut script = host.script("who.sh", "id -un");
        script.sudo = true;
        script.runas = user.map(str::to_owned);
        let report = host.run(&[script]).await;
        assert_eq!(printed(&report), [expected], "{report:?}");
    }
}
