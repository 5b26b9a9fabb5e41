//! The environment that hook scripts see (spec: Hook scripts).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::script::variables::{DESCRIBING, is_loader, is_secret};

use crate::config::{Environment, Hardening};
use crate::revision::Revision;
use crate::spec::DeploymentSpec;

/// The name of the variable with the script's event.
const EVENT: &str = "LIFECYCLE_EVENT";

/// Variables that systemd sets for the agent alone: a hook that inherited them would speak for the
/// agent, or take the agent's folders for its own.
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

/// The variables that remain under `restrict_hook_env_to_allowlist`.
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

/// Returns the agent's environment without its secrets, plus the variables that describe the
/// deployment. `downloaded` is the ETag of the downloaded bundle, because the service does not
/// always send one.
pub(super) fn for_hooks(
    own: &Environment,
    hardening: &Hardening,
    event: &LifecycleEvent,
    deployment: &BTreeMap<String, String>,
) -> Vec<(OsString, OsString)> {
    let passed_on = |name: &OsStr| {
        let text = name.to_string_lossy();
        !is_secret(&text)
            && !OF_THE_UNIT.contains(&&*text)
            && !DESCRIBING.contains(&&*text)
            && (!hardening.hook_env_allowlist
                || ALLOWED.contains(&&*text)
                || text.starts_with("LC_"))
            && (!hardening.strip_loader_env || !is_loader(&text))
    };
    let inherited = own
        .variables()
        .iter()
        .filter(|(name, _)| passed_on(name))
        .cloned();
    let added = deployment
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    inherited
        .chain([(EVENT.into(), event.to_string().into())])
        .chain(added)
        .collect()
}

/// The variables that describe the deployment to its scripts, except for the event.
pub(super) fn variables(
    spec: &DeploymentSpec,
    downloaded: Option<String>,
) -> BTreeMap<String, String> {
    let mut variables = vec![
        ("DEPLOYMENT_ID", spec.deployment_id.to_string()),
        ("APPLICATION_NAME", spec.application_name.clone()),
        ("DEPLOYMENT_GROUP_NAME", spec.deployment_group_name.clone()),
        ("DEPLOYMENT_GROUP_ID", spec.deployment_group_id.to_string()),
    ];
    match &spec.revision {
        Revision::S3(s3) => {
            variables.push(("BUNDLE_BUCKET", s3.bucket.clone()));
            variables.push(("BUNDLE_KEY", s3.key.clone()));
            variables.extend(
                s3.version
                    .clone()
                    .map(|version| ("BUNDLE_VERSION", version)),
            );
            variables.extend(
                s3.etag
                    .clone()
                    .or(downloaded)
                    .map(|etag| ("BUNDLE_ETAG", etag)),
            );
        }
        Revision::GitHub(github) => variables.push(("BUNDLE_COMMIT", github.commit_id.clone())),
        Revision::Local(_) => {}
    }
    variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::envelope;

    /// The agent's own variables that a script may see.
    fn passed_on(hardening: &Hardening) -> Vec<String> {
        let own = [
            "PATH",
            "LC_ALL",
            "MINE",
            "LD_PRELOAD",
            "PYTHONPATH",
            "BASH_FUNC_ls%%",
            "BUNDLE_KEY",
        ];
        let secret = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_CREDENTIAL_FILE",
            "CODEDEPLOY_GITHUB_TOKEN",
            "CODEDEPLOY_HOST_SECRET_ACCESS_KEY",
        ];
        let variables = own
            .into_iter()
            .chain(secret)
            .map(|name| (name.into(), "own".into()));
        let spec =
            br#"{"DeploymentId": "d-1", "DeploymentGroupId": "g", "DeploymentGroupName": "n",
            "ApplicationName": "a", "Revision": {"RevisionType": "S3",
            "S3Revision": {"Bucket": "b", "Key": "k", "BundleType": "zip"}}}"#;
        let spec = DeploymentSpec::parse(&envelope::trusted(spec.to_vec())).unwrap();
        let (own, event) = (
            Environment::new(variables),
            "BeforeInstall".parse().unwrap(),
        );
        let seen = for_hooks(&own, hardening, &event, &super::variables(&spec, None));
        seen.into_iter()
            .filter(|(_, value)| value == "own")
            .map(|(name, _)| name.into_string().unwrap())
            .collect()
    }

    #[test]
    fn secrets_never_reach_a_script_and_hardening_strips_more() {
        let plain = [
            "PATH",
            "LC_ALL",
            "MINE",
            "LD_PRELOAD",
            "PYTHONPATH",
            "BASH_FUNC_ls%%",
        ];
        assert_eq!(passed_on(&Hardening::default()), plain);
        let stripped = Hardening {
            strip_loader_env: true,
            ..Hardening::default()
        };
        assert_eq!(passed_on(&stripped), ["PATH", "LC_ALL", "MINE"]);
        let listed = Hardening {
            hook_env_allowlist: true,
            ..Hardening::default()
        };
        assert_eq!(passed_on(&listed), ["PATH", "LC_ALL"]);
    }

    #[test]
    fn scripts_see_where_their_revision_came_from() {
        let seen = |revision: &str, downloaded: Option<&str>| {
            let spec = format!(
                r#"{{"DeploymentId": "d-1", "DeploymentGroupId": "g", "DeploymentGroupName": "n", "ApplicationName": "a",
                    "Revision": {revision}}}"#
            );
            let spec = DeploymentSpec::parse(&envelope::trusted(spec.into_bytes())).unwrap();
            let variables = super::variables(&spec, downloaded.map(str::to_owned));
            let bundle = variables
                .into_iter()
                .filter(|(name, _)| name.starts_with("BUNDLE_"));
            bundle
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let s3 = r#"{"RevisionType": "S3", "S3Revision":
            {"Bucket": "b", "Key": "k", "BundleType": "zip", "Version": "v", "ETag": "named"}}"#;
        let all = "BUNDLE_BUCKET=b BUNDLE_ETAG=named BUNDLE_KEY=k BUNDLE_VERSION=v";
        assert_eq!(seen(s3, Some("noted")), all);
        let github = r#"{"RevisionType": "GitHub", "GitHubRevision":
            {"Account": "o", "Repository": "r", "CommitId": "c0ffee"}}"#;
        assert_eq!(seen(github, None), "BUNDLE_COMMIT=c0ffee");
    }
}
