//! The report to the service for every ending, which always fits.

use std::time::Duration;

use codedeploy_api::command::MAX_DIAGNOSTICS_PAYLOAD;
use codedeploy_api::diagnostics::{ErrorCode, MAX_LOG_CHARS};
use codedeploy_hooks::script::{Holder, OpenStreams, Outcome};
use proptest::prelude::*;

fn failed(location: &str) -> Outcome {
    Outcome::Failed {
        location: location.into(),
        exit_code: 1,
        user: None,
        hint: None,
    }
}

#[test]
fn every_ending_has_its_code_script_and_message() {
    let location = || "scripts/run.sh".to_owned();
    let user = || Some("www".to_owned());
    let table = [
        (Outcome::Succeeded { note: None }, 0, "", "Succeeded"),
        (
            Outcome::Succeeded {
                note: Some("BundleSource=downloaded".into()),
            },
            0,
            "",
            "Succeeded: BundleSource=downloaded",
        ),
        (
            Outcome::ScriptMissing {
                location: location(),
                path: "/a/scripts/run.sh".into(),
                hint: String::new(),
            },
            1,
            "scripts/run.sh",
            "Script does not exist at specified location: /a/scripts/run.sh",
        ),
        (
            Outcome::NotExecutable {
                location: location(),
                reason: "read-only file system".into(),
            },
            2,
            "scripts/run.sh",
            "Script at specified location: scripts/run.sh is not executable and cannot be made so: read-only file system",
        ),
        (
            Outcome::TimedOut {
                location: location(),
                timeout: Duration::from_secs(300),
                user: user(),
            },
            3,
            "scripts/run.sh",
            "Script at specified location: scripts/run.sh run as user www failed to complete in 300 seconds",
        ),
        (
            Outcome::Failed {
                location: location(),
                exit_code: 2,
                user: user(),
                hint: None,
            },
            4,
            "scripts/run.sh",
            "Script at specified location: scripts/run.sh run as user www failed with exit code 2",
        ),
        (
            Outcome::Killed {
                location: location(),
                signal: 9,
                user: None,
            },
            4,
            "scripts/run.sh",
            "Script at specified location: scripts/run.sh was killed by signal 9 (SIGKILL)",
        ),
        (
            Outcome::NotStarted {
                location: location(),
                user: None,
                reason: "why".into(),
            },
            4,
            "scripts/run.sh",
            "Script at specified location: scripts/run.sh could not be started: why",
        ),
        (
            Outcome::Error {
                message: "disk full".into(),
            },
            5,
            "",
            "disk full",
        ),
        (
            Outcome::OutputLeftOpen {
                location: location(),
                streams: OpenStreams::Both,
                holders: (1..=7)
                    .map(|pid| Holder {
                        pid,
                        command: "d".into(),
                    })
                    .collect(),
                drained: Duration::from_secs(5),
            },
            6,
            "scripts/run.sh",
            "Script at specified location: scripts/run.sh ended, but its stdout and stderr stayed open for 5 more \
             seconds (output_drain_seconds); held by process 1 (d), process 2 (d), process 3 (d), process 4 (d), process 5 (d) \
             and 2 more; a script that starts a background \
             process must redirect its stdout and stderr",
        ),
        (
            Outcome::OutputLeftOpen {
                location: location(),
                streams: OpenStreams::Stderr,
                holders: Vec::new(),
                drained: Duration::from_millis(500),
            },
            6,
            "scripts/run.sh",
            "Script at specified location: scripts/run.sh ended, but its stderr stayed open for 0.5 more seconds \
             (output_drain_seconds); which process holds it could not be found out",
        ),
        (
            Outcome::Stopped {
                location: Some(location()),
            },
            7,
            "",
            "Failed: the agent was stopped while the script scripts/run.sh ran, and ended it",
        ),
        (
            Outcome::FailedAfterRestart {
                message: "the agent was restarted".into(),
            },
            7,
            "",
            "Failed: the agent was restarted",
        ),
    ];
    for (outcome, code, script_name, message) in table {
        let payload = outcome.diagnostics("[stdout]log\n");
        assert_eq!(u8::from(payload.error_code), code, "{outcome:?}");
        assert_eq!(
            (payload.script_name.as_str(), payload.message.as_str()),
            (script_name, message)
        );
        assert_eq!(payload.log, "[stdout]log\n");
        assert_eq!(outcome.succeeded(), outcome.code() == ErrorCode::Success);
    }
}

#[test]
fn the_log_loses_its_oldest_lines_never_a_part_of_one() {
    let log: String = (0..200)
        .map(|n| format!("[stdout]line number {n}\n"))
        .collect();
    let kept = failed("run.sh").diagnostics(&log).log;
    assert!(log.ends_with(&kept) && kept.starts_with("[stdout]line"));
    assert!((MAX_LOG_CHARS - 30..=MAX_LOG_CHARS).contains(&kept.chars().count()));
}

#[test]
fn a_log_of_characters_that_are_escaped_is_kept_whole() {
    for worst in ["\"", "\\", "\t", "é", "🦀"] {
        let log = format!("{}\n", worst.repeat(MAX_LOG_CHARS - 1));
        let outcome = Outcome::Error {
            message: "\"".repeat(10_000),
        };
        assert_eq!(outcome.diagnostics(&log).log, log, "{worst}");
    }
}

#[test]
fn a_long_message_keeps_its_beginning_and_says_that_it_is_shortened() {
    let outcome = Outcome::Error {
        message: format!("cannot copy {}", "x".repeat(20_000)),
    };
    let message = outcome.diagnostics("").message;
    assert!(message.starts_with("cannot copy x") && message.ends_with("x… (shortened)"));
}

proptest! {
    #[test]
    fn whatever_is_in_it_the_payload_fits(
        location in r#"[\x00-\x7f"\\🦀é]{0,3000}"#,
        message in r#"[\x00-\x7f"\\🦀é]{0,6000}"#,
        log in r#"[\x00-\x7f"\\🦀é]{0,6000}"#,
    ) {
        let endings = [
            failed(&location),
            Outcome::Error { message: message.clone() },
            Outcome::NotStarted { location, user: Some(message.clone()), reason: message },
        ];
        for outcome in endings {
            let payload = outcome.diagnostics(&log);
            let json = serde_json::to_string(&payload).unwrap();
            prop_assert!(json.chars().count() <= MAX_DIAGNOSTICS_PAYLOAD, "{}", json.chars().count());
            prop_assert!(payload.log.chars().count() <= MAX_LOG_CHARS);
            let (dropped, kept) = log.split_at(log.len() - payload.log.len());
            prop_assert_eq!(kept, &payload.log);
            prop_assert!(dropped.is_empty() || kept.is_empty() || dropped.ends_with('\n'));
        }
    }
}
