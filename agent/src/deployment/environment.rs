//! The environment that hook scripts see (spec: Hook scripts).

use std::ffi::{OsStr, OsString};

use codedeploy_api::lifecycle::LifecycleEvent;

use crate::config::{Environment, Hardening};
use crate::revision::Revision;
use crate::spec::DeploymentSpec;

/// The agent's own credentials; never passed on.
const SECRETS: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CREDENTIAL_FILE", "AWS_SESSION_TOKEN"];

/// What systemd tells the agent alone: a hook that inherited it would speak for the agent, or take the agent's folders for
/// its own.
const OF_THE_UNIT: [&str; 13] = [
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// What `restrict_hook_env_to_allowlist` leaves of the agent's environment.
const ALLOWED: [&str; 13] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The agent's environment without its secrets, and what a script may want to know of its deployment.
pub(super) fn for_hooks(
    own: &Environment,
    hardening: &Hardening,
    event: &LifecycleEvent,
    spec: &DeploymentSpec,
) -> Vec<(OsString, OsString)> {
    let deployment = deployment_variables(event, spec);
    let passed_on = |name: &OsStr| {
        let text = name.to_string_lossy();
        !SECRETS.contains(&&*text)
            && !OF_THE_UNIT.contains(&&*text)
            && !text.starts_with("BUNDLE_")
            && !deployment.iter().any(|(own, _)| *own == text)
            && (!hardening.hook_env_allowlist || ALLOWED.contains(&&*text) || text.starts_with("LC_"))
            && (!hardening.strip_loader_env || !text.starts_with("LD_"))
    };
    let inherited = own.variables().iter().filter(|(name, _)| passed_on(name)).cloned();
    let added = deployment.iter().map(|(name, value)| ((*name).into(), value.into()));
    inherited.chain(added).collect()
}

fn deployment_variables(event: &LifecycleEvent, spec: &DeploymentSpec) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("LIFECYCLE_EVENT", event.to_string()),
        ("DEPLOYMENT_ID", spec.deployment_id.to_string()),
        ("APPLICATION_NAME", spec.application_name.clone()),
        ("DEPLOYMENT_GROUP_NAME", spec.deployment_group_name.clone()),
        ("DEPLOYMENT_GROUP_ID", spec.deployment_group_id.to_string()),
    ];
    match &spec.revision {
        Revision::S3(s3) => {
            variables.push(("BUNDLE_BUCKET", s3.bucket.clone()));
            variables.push(("BUNDLE_KEY", s3.key.clone()));
            variables.extend(s3.version.clone().map(|version| ("BUNDLE_VERSION", version)));
            variables.extend(s3.etag.clone().map(|etag| ("BUNDLE_ETAG", etag)));
        }
        Revision::GitHub(github) => variables.push(("BUNDLE_COMMIT", github.commit_id.clone())),
        Revision::Local(_) => {}
    }
    variables
}
