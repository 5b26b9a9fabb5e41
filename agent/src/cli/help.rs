//! The ends of help texts and manual pages: examples, and the exit codes of `docs/exit-codes.md`.

/// Joins lines into the two sections.
macro_rules! end {
    ($($example:literal),+ ; $($code:literal),+ $(,)?) => {
        concat!(
            "Examples:\n", $("  ", $example, "\n",)+
            "\nExit codes:\n", $("  ", $code, "\n",)+
            "  2  wrong usage",
        )
    };
}

pub(super) const AGENT: &str = end!(
    "codedeploy-agent doctor",
    "codedeploy-agent status",
    "codedeploy-agent logs --follow";
    "0  success",
    "1  failure; the standard error has the reason",
);

pub(super) const RUN: &str = end!(
    "codedeploy-agent run",
    "codedeploy-agent run --config-file ./codedeployagent.yml";
    "0  a signal stopped the agent",
    "1  the agent cannot start",
);

pub(super) const LOGS: &str = end!(
    "codedeploy-agent logs --follow",
    "codedeploy-agent logs --deployment d-1A2B3C4D5 --scripts",
    "codedeploy-agent logs --since 1h --json";
    "0  the lines were printed",
    "1  no log can be read, or there is no line of the deployment",
);

pub(super) const START: &str = end!(
    "codedeploy-agent start";
    "0  the agent is up, or ran before",
    "1  the agent cannot start",
);

pub(super) const STOP: &str = end!(
    "codedeploy-agent stop",
    "codedeploy-agent stop --force";
    "0  the agent has stopped, or did not run",
    "1  the agent was not stopped, such as during a deployment",
);

pub(super) const RESTART: &str = end!(
    "codedeploy-agent restart";
    "0  the agent is up",
    "1  the agent was not stopped, or cannot start",
);

pub(super) const STATUS: &str = "\
Examples:
  codedeploy-agent status
  codedeploy-agent status --json

Exit codes:
  0  the agent runs
  2  wrong usage
  3  the agent does not run
  4  unknown";

pub(super) const DOCTOR: &str = end!(
    "codedeploy-agent doctor",
    "codedeploy-agent doctor --json";
    "0  no check found a problem",
    "1  a check found a problem, or the checks cannot run",
);

pub(super) const JOURNAL: &str = end!(
    "codedeploy-agent journal";
    "0  no Install is unfinished",
    "1  an Install is unfinished, or the journals cannot be read",
);

pub(super) const ROLLBACK: &str = end!(
    "codedeploy-agent rollback --deployment-group web";
    "0  the files are restored, and the scripts of the previous revision succeeded",
    "1  nothing was taken back, or a script failed",
);

pub(super) const CONFIG: &str = end!(
    "codedeploy-agent config",
    "codedeploy-agent config --config-file ./codedeployagent.yml";
    "0  the settings were printed",
    "1  the settings are wrong, or cannot be read",
);

pub(super) const REGISTER: &str = end!(
    "codedeploy-agent register --instance-name box1 --region eu-west-1 \\",
    "    --iam-user-arn arn:aws:iam::123456789012:user/box1 --access-key-id AKIA… \\",
    "    --secret-access-key-file ./secret --tag env=production";
    "0  the instance is registered, or was before",
    "1  the instance is not registered; the steps that were done are named",
);

pub(super) const DEREGISTER: &str = end!(
    "codedeploy-agent deregister --instance-name box1 --region eu-west-1";
    "0  the instance is not registered any more",
    "1  a step failed; the steps that were done are named",
);

pub(super) const LOCAL: &str = end!(
    "codedeploy-local --bundle-location ./shop --events ApplicationStop,ApplicationStart",
    "codedeploy-local -l s3://revisions/shop.zip -t zip -g web -b OVERWRITE",
    "codedeploy-local --dry-run -l ./shop";
    "0  the deployment succeeded",
    "1  the deployment failed, or was rejected before it began",
);

pub(super) const PLAN: &str = end!(
    "codedeploy-local plan -l ./shop",
    "codedeploy-local plan -l ./shop --json";
    "0  the deployment could start",
    "1  the deployment would fail, or the bundle cannot be used",
);

/// Its code 2 has another meaning, too.
pub(super) const VALIDATE: &str = "\
Examples:
  codedeploy-local validate appspec.yml
  codedeploy-local validate --strict ./shop
  codedeploy-local validate --format github ./shop

Exit codes:
  0  everything is valid
  1  something is not valid
  2  a file cannot be read, or wrong usage";
