//! The output of scripts: the logs, the reported tail, and the limits of both.

use std::path::Path;

use codedeploy_api::diagnostics::ErrorCode;
use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::lifecycle::HookPlan;
use codedeploy_hooks::script::{self, HookRun, LogPlaces, Outcome, ScriptLog};

use super::host::{DEPLOYMENT, Host, KEEPER, message, named, without_times};
use crate::own_process;

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
    assert_eq!(
        without_times(&host.scripts_log(), "0000-00-00 00:00:00 "),
        log
    );
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
async fn times_are_those_of_the_hosts_clock() {
    let mut host = Host::new();
    host.environment
        .extend(std::env::var_os("TZ").map(|zone| ("TZ".into(), zone)));
    host.run_lines("date '+%F %T'").await;
    let log = host.scripts_log();
    let mut lines = log.lines().skip(1);
    let (script, output) = (lines.next().unwrap(), lines.next().unwrap());
    let (written, now) = output.split_once(" [stdout]").unwrap();
    assert!(&script[..written.len()] <= now && now <= written, "{log}");
}

#[tokio::test]
async fn an_event_without_scripts_succeeds_and_logs_nothing() {
    let host = Host::new();
    let report = host.run(&[]).await;
    assert_eq!(report.outcome, Outcome::Succeeded { note: None });
    assert_eq!(
        (report.log_tail.as_str(), host.scripts_log().as_str()),
        ("", "")
    );
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
    // Other tests allocate memory, too.
    if !own_process::is_here(
        module_path!(),
        "a_script_that_writes_without_end_costs_neither_memory_nor_disk",
    ) {
        return;
    }
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
    let mut log = ScriptLog::open(
        LogPlaces {
            scripts: Path::new("/dev/full"),
            deployments: None,
            readers: "adm",
        },
        DEPLOYMENT,
    );
    let plan = HookPlan {
        event: LifecycleEvent::ValidateService,
        archive: host.archive(),
        scripts: vec![host.script("run.sh", "echo fine")],
    };
    let environment = &host.environment;
    let (limits, stop) = (host.limits, host.stop.clone());
    let keeper = Path::new(KEEPER);
    let run = HookRun {
        plan: &plan,
        environment,
        keeper,
        session: None,
        limits,
        deployed: None,
        log: &mut log,
        stop,
    };
    let report = script::run(run).await;
    assert!(report.outcome.succeeded(), "{report:?}");
    assert!(report.log_tail.ends_with("[stdout]fine\n"));
}
