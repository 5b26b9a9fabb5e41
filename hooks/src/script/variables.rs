//! The names of variables that scripts must, or must never, get from the agent.

/// Describe the deployment to its scripts: these come from the agent alone.
pub const DESCRIBING: [&str; 10] = [
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
];

/// Credentials of whoever runs the agent.
const SECRETS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_CREDENTIAL_FILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
];

/// What this program's own settings begin with, tokens among them.
const SETTINGS: &str = "CODEDEPLOY_";

/// What decides which code a program loads, beside `LD_*`: the C library's own (ld.so(8)), and the interpreters'.
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

/// Whether a variable of the agent is a credential or a setting of its own, which no script gets.
pub fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name) || is_setting(name)
}

pub(super) fn is_setting(name: &str) -> bool {
    name.starts_with(SETTINGS)
}

/// Whether a variable decides which code programs load.
pub fn is_loader(name: &str) -> bool {
    // Functions that a shell inherits run in place of commands.
    ["LD_", "BASH_FUNC_"].iter().any(|prefix| name.starts_with(prefix)) || LOADER.contains(&name)
}
