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

/// The same for a command that succeeds or fails.
macro_rules! done {
    ($($example:literal),+ $(,)?) => {
        end!($($example),+; "0  done", "1  failed; the standard error has the reason")
    };
}

/// The same for a command that reads the settings.
macro_rules! with_settings {
    ($($example:literal),+ ; $($code:literal),+ $(,)?) => {
        concat!(end!($($example),+; $($code),+), "\n  78  the settings are wrong")
    };
}

/// The same for a command that can wait for the end of a deployment.
macro_rules! outcome {
    ($($example:literal),+ ; $($code:literal),+ $(,)?) => {
        concat!(
            end!($($example),+; $($code),+),
            "\n  3  the deployment failed",
            "\n  4  the deployment was stopped",
            "\n  5  the deployment has not ended in time",
        )
    };
}

pub(super) const CONTROLLER: &str = done!(
    "codedeploy-controller serve",
    "codedeploy-controller config",
    "codedeploy-controller host add box1 --tag env=production",
);

pub(super) const SERVE: &str = with_settings!(
    "codedeploy-controller serve",
    "codedeploy-controller serve --data-dir ./controller --listen 127.0.0.1:7080";
    "0  a signal stopped the service",
    "1  the service cannot start, or cannot go on",
);

pub(super) const CONFIG: &str = with_settings!(
    "codedeploy-controller config",
    "codedeploy-controller config --config-file ./controller.yml --json";
    "0  the service could start with the settings",
    "1  failed; the standard error has the reason",
);

pub(super) const CONSOLE: &str = done!(
    "sudo codedeploy-controller console",
    "sudo codedeploy-controller console --role read-only --application shop",
);

pub(super) const CREDENTIALS: &str = done!(
    "codedeploy-controller credentials create --role operator",
    "codedeploy-controller credentials list",
);

pub(super) const CREATE: &str = done!(
    "codedeploy-controller credentials create --role operator",
    "codedeploy-controller credentials create --role operator --expires-in 12h --json",
);

pub(super) const LIST_CREDENTIALS: &str = done!("codedeploy-controller credentials list --all");

pub(super) const REVOKE: &str = done!("codedeploy-controller credentials revoke AKIA…");

pub(super) const HOST: &str = done!(
    "codedeploy-controller host add box1 --tag env=production",
    "codedeploy-controller host list",
);

pub(super) const ADD_HOST: &str = done!(
    "codedeploy-controller host add box1 --tag env=production --tag role=web",
    "codedeploy-controller host add box1 --tag env=production --output ./box1",
);

pub(super) const LIST_HOSTS: &str = done!("codedeploy-controller host list --json");

pub(super) const REMOVE_HOST: &str = done!("codedeploy-controller host remove box1");

pub(super) const GITHUB_TOKEN: &str = done!(
    "codedeploy-controller github-token add deploy --account example --application shop < token",
    "codedeploy-controller github-token list",
);

pub(super) const ADD_TOKEN: &str = done!(
    "codedeploy-controller github-token add deploy --account example --application shop < token",
    "codedeploy-controller github-token add deploy --account example --replace < token",
);

pub(super) const LIST_TOKENS: &str = done!("codedeploy-controller github-token list --json");

pub(super) const LINK: &str = done!("codedeploy-controller github-token link deploy shop blog");

pub(super) const UNLINK: &str = done!("codedeploy-controller github-token unlink blog");

pub(super) const REMOVE_TOKEN: &str = done!("codedeploy-controller github-token remove deploy");

pub(super) const SIGNER: &str = done!("codedeploy-controller signer");

pub(super) const CERTIFICATE: &str = done!("codedeploy-controller certificate > authority.pem");

pub(super) const REPLACE_KEY: &str = done!(
    "codedeploy-controller replace-key signer --next",
    "codedeploy-controller replace-key signer",
);

pub(super) const BACKUP: &str = done!("codedeploy-controller backup /var/backups/controller.db");

pub(super) const RESTORE: &str = done!("codedeploy-controller restore /var/backups/controller.db");

pub(super) const STATUS: &str = done!(
    "codedeploy-controller status",
    "codedeploy-controller status shop web --json",
);

pub(super) const HOSTS: &str = done!(
    "codedeploy-controller hosts --silent",
    "codedeploy-controller hosts box1",
);

pub(super) const DEPLOYMENTS: &str = done!(
    "codedeploy-controller deployments shop web",
    "codedeploy-controller deployments --status Failed -n 5",
);

pub(super) const FOLLOW: &str = outcome!(
    "codedeploy-controller follow d-1A2B3C4D5 --timeout 10m";
    "0  the deployment succeeded",
    "1  failed; the standard error has the reason",
);

pub(super) const WHY: &str = done!(
    "codedeploy-controller why",
    "codedeploy-controller why d-1A2B3C4D5",
    "codedeploy-controller why d-1A2B3C4D5 --log --host box1",
);

pub(super) const STOP: &str = done!(
    "codedeploy-controller stop d-1A2B3C4D5",
    "codedeploy-controller stop d-1A2B3C4D5 --rollback",
);

pub(super) const CONTINUE: &str = done!("codedeploy-controller continue d-1A2B3C4D5");

pub(super) const DIFF: &str = done!(
    "codedeploy-controller diff shop web ./shop",
    "codedeploy-controller diff shop web s3://revisions/shop.zip --json",
);

pub(super) const DRAIN: &str = concat!(
    end!(
        "codedeploy-controller drain box1 --reason 'new memory' --wait";
        "0  the host is drained; with --wait, it is idle",
        "1  failed; the standard error has the reason"
    ),
    "\n  5  the host is not idle in time",
);

pub(super) const UNDRAIN: &str = done!("codedeploy-controller undrain box1");

pub(super) const UPDATE_AGENTS: &str = concat!(
    end!(
        "codedeploy-controller update-agents box1 --wait",
        "codedeploy-controller update-agents --application shop --group web --at-a-time 5",
        "codedeploy-controller update-agents --wait",
        "codedeploy-controller update-agents --stop";
        "0  the update began, or is shown; with --wait, it succeeded",
        "1  failed; the standard error has the reason"
    ),
    "\n  3  the update failed",
    "\n  4  the update was stopped",
    "\n  5  the update has not ended in time",
);

pub(super) const ROLLBACK: &str = outcome!(
    "codedeploy-controller rollback shop web --wait";
    "0  the rollback began; with --wait, it succeeded",
    "1  failed; the standard error has the reason",
);

pub(super) const DEPLOY: &str = outcome!(
    "codedeploy-controller deploy shop web ./shop --wait --timeout 10m",
    "codedeploy-controller deploy shop web s3://revisions/shop.zip";
    "0  the deployment began; with --wait, it succeeded",
    "1  failed; the standard error has the reason",
);

pub(super) const AUDIT: &str = done!("codedeploy-controller audit --since 2h");
