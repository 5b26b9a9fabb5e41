//! The names of variables that the agent must, or must never, pass to scripts.

/// The script's place in a distributed trace (W3C Trace Context), if the controller sends traces.
pub const TRACE_PARENT: &str = "TRACEPARENT";

/// Variables that describe the deployment to its scripts; they come from the agent alone.
pub const DESCRIBING: [&str; 16] = [
    "LIFECYCLE_EVENT",
    "DEPLOYMENT_ID",
    "APPLICATION_NAME",
    "DEPLOYMENT_GROUP_NAME",
    "DEPLOYMENT_GROUP_ID",
    "BUNDLE_BUCKET",
    "BUNDLE_KEY",
    "BUNDLE_VERSION",
    "BUNDLE_ETAG",
    "BUNDLE_COMMIT",
    "SLOT",
    "SLOT_DIR",
    "SLOT_PORT",
    "LIVE_SLOT_DIR",
    "LIVE_SLOT_PORT",
    TRACE_PARENT,
];

/// The credentials of the agent's user.
const SECRETS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_CREDENTIAL_FILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
];

/// The prefix of this program's own settings, which include tokens.
const SETTINGS: &str = "CODEDEPLOY_";

/// Variables, besides `LD_*`, that decide which code a program loads: those of the C library
/// (ld.so(8)) and of interpreters.
const LOADER: [&str; 19] = [
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "LOCPATH",
    "NLSPATH",
    "BASH_ENV",
    "ENV",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PERL5LIB",
    "PERL5OPT",
    "PERL5DB",
    "RUBYLIB",
    "RUBYOPT",
    "NODE_OPTIONS",
    "NODE_PATH",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "CLASSPATH",
];

/// Whether a variable is a credential or one of the agent's own settings, which no script gets.
pub fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name) || is_setting(name)
}

pub(super) fn is_setting(name: &str) -> bool {
    name.starts_with(SETTINGS)
}

/// Whether a variable decides which code programs load.
pub fn is_loader(name: &str) -> bool {
    // Functions that a shell inherits replace commands.
    ["LD_", "BASH_FUNC_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || LOADER.contains(&name)
}
