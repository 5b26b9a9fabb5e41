//! The reports of commands that an error ended, or a script of an earlier deployment.

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::{Outcome, Report};

use codedeploy_api::chain::Chain;

/// The report of a failed script of the earlier deployment: the fault is not in the bundle that is
/// being deployed.
pub(super) fn of_earlier(report: Report, event: &LifecycleEvent, earlier: &str) -> Report {
    use LifecycleEvent::{AfterBlockTraffic, ApplicationStop, BeforeBlockTraffic};
    if report.outcome.succeeded() {
        return report;
    }
    let mut hint =
        format!("the script is one of the earlier deployment {earlier} and not of this bundle");
    if matches!(
        event,
        BeforeBlockTraffic | AfterBlockTraffic | ApplicationStop
    ) {
        hint += "; to go on without it, create the deployment with --ignore-application-stop-failures, or leave the event out of \
                 the --events of codedeploy-local";
    }
    let Report {
        outcome,
        log_tail,
        scripts,
    } = report;
    Report {
        outcome: Outcome::Explained {
            ending: Box::new(outcome),
            hint,
        },
        log_tail,
        scripts,
    }
}

pub(super) fn succeeded(note: Option<&str>) -> Report {
    Report {
        outcome: Outcome::Succeeded {
            note: note.map(str::to_owned),
        },
        log_tail: String::new(),
        scripts: Vec::new(),
    }
}

/// The report of a command that did nothing, because the agent ends.
pub fn stopped() -> Report {
    Report {
        outcome: Outcome::Stopped { location: None },
        log_tail: String::new(),
        scripts: Vec::new(),
    }
}

/// The report of a command that an error ended.
pub fn failed(error: &(dyn std::error::Error + 'static)) -> Report {
    Report {
        outcome: Outcome::Error {
            message: Chain(error).to_string(),
        },
        log_tail: String::new(),
        scripts: Vec::new(),
    }
}
