//! `doctor`: checks everything that a deployment needs, and reports in one line each what is wrong
//! and what to do.
//!
//! Facts are gathered concurrently with short timeouts; pure functions judge them. Nothing on the
//! host or in the service changes, no command is taken, and no secret is printed. Without root,
//! `doctor` reports what it can see.

pub mod leftovers;
pub mod local;
pub mod network;
mod slots;
mod users;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::aws::Access;

use crate::config::{Environment, Settings};
use crate::control_socket::Place;
use crate::identity::Identity;
use crate::output;
use crate::spec::envelope;
use codedeploy_api::chain::Chain;

/// The time that EC2's metadata may take to identify this host: somebody is waiting for the checks.
const EC2_TIMEOUT: Duration = Duration::from_secs(3);

/// The verdict on one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// It works, but not as it should; or it could not be checked.
    Warning,
    /// Deployments fail, or will fail.
    Problem,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    /// The finding, on one line.
    pub text: String,
    /// The advice; absent if there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            text: on_one_line(&text.into()),
            advice: None,
        }
    }

    fn warning(name: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(on_one_line(&advice.into()));
        Self {
            verdict: Verdict::Warning,
            advice,
            ..Self::ok(name, text)
        }
    }

    fn problem(name: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Problem,
            ..Self::warning(name, text, advice)
        }
    }

    /// A check that was skipped because of an earlier problem.
    fn skipped(name: &'static str, because_of: &'static str) -> Self {
        Self::warning(name, "not checked", format!("fix {because_of} first"))
    }
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `doctor`: prints every check; fails if one is a problem.
pub fn main(config_file: Option<&Path>, json: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return output::fail("codedeploy-agent", &error);
        }
    };
    let checks = runtime.block_on(examine(config_file, &Environment::of_process()));
    // A name service that hangs must not delay the result.
    runtime.shutdown_background();
    let worst = checks
        .iter()
        .map(|check| check.verdict)
        .max()
        .unwrap_or(Verdict::Ok);
    let printed = if json {
        let document = serde_json::json!({ "version": 1, "verdict": worst, "checks": checks });
        output::print_json(serde_json::to_string_pretty(&document).unwrap_or_default())
    } else {
        output::print(checks.iter().map(line).collect::<Vec<_>>().join("\n"))
    };
    if worst == Verdict::Problem {
        ExitCode::FAILURE
    } else {
        printed
    }
}

fn line(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Problem => "problem",
    };
    let advice = check
        .advice
        .as_ref()
        .map_or_else(String::new, |advice| format!("; {advice}"));
    format!("{verdict:<8} {:<14} {}{advice}", check.name, check.text)
}

/// All checks, in the order in which they depend on each other.
pub async fn examine(config_file: Option<&Path>, environment: &Environment) -> Vec<Check> {
    let named = config_file.unwrap_or(Path::new(crate::config::DEFAULT_FILE));
    let (settings, warnings) = match Settings::load(config_file, environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            let mut checks = vec![Check::problem(
                "configuration",
                Chain(&error).to_string(),
                "correct the file; the agent does not start with it",
            )];
            checks.extend(
                after_configuration().map(|name| Check::skipped(name, "the configuration")),
            );
            return checks;
        }
    };
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let identity = Identity::find(&settings, environment, EC2_TIMEOUT).await;
    let access = match &identity {
        Ok(identity) => Some(Access::new(
            &settings,
            identity.region.clone(),
            &identity.credentials,
        )),
        Err(_) => None,
    };
    let mut checks = vec![match envelope::check_trust(&settings.signer) {
        Ok(()) => configuration(named, &warnings),
        Err(error) => Check::problem(
            "configuration",
            Chain(&error).to_string(),
            "put the certificate of the authority that signs deployments there; the agent does not start without",
        ),
    }];
    let place = Place::of(&settings);
    let (here, there) = tokio::join!(
        local::checks(&settings),
        network::checks(
            &settings,
            identity.as_ref().ok(),
            access.as_ref().and_then(|access| access.as_ref().ok())
        ),
    );
    checks.push(match (&identity, &access) {
        (Err(error), _) => Check::problem(
            "identity",
            Chain(error).to_string(),
            "register this host and put its identity there, or set on_premises_config_file",
        ),
        (_, Some(Err(error))) => Check::problem(
            "identity",
            Chain(error).to_string(),
            "correct the named setting of the agent's configuration",
        ),
        (Ok(identity), _) => Check::ok(
            "identity",
            format!(
                "{} in {}; {}",
                identity.host_identifier, identity.region, identity.credentials
            ),
        ),
    });
    checks.extend(there);
    checks.extend(here);
    checks.extend(slots::checks(&settings));
    checks.push(leftovers::check(&settings, &place, environment));
    checks
}

/// The names of the checks that need a configuration, in order.
fn after_configuration() -> impl Iterator<Item = &'static str> {
    ["identity"].into_iter().chain(network::NAMES).chain([
        "permissions",
        "disk",
        "users",
        "other-agents",
    ])
}

fn configuration(path: &Path, warnings: &[String]) -> Check {
    if !warnings.is_empty() {
        let text = format!("{}: {}", path.display(), warnings.join("; "));
        return Check::warning("configuration", text, "remove or correct these lines");
    }
    if path.symlink_metadata().is_err() {
        return Check::ok(
            "configuration",
            format!("{} does not exist: defaults", path.display()),
        );
    }
    Check::ok("configuration", format!("{} is usable", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_one_line_with_its_advice() {
        let check = Check::problem("dns", "a\n  - b", "do\nthis");
        assert_eq!(line(&check), "problem  dns            a - b; do this");
        assert_eq!(
            line(&Check::ok("proxy", "none")),
            "ok       proxy          none"
        );
        assert!(Verdict::Ok < Verdict::Warning && Verdict::Warning < Verdict::Problem);
    }
}
