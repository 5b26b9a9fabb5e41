//! The execution of scripts and their logs.

use super::case::{Case, INSTALLED, PLAIN};

pub(crate) const HOOKS: &[Case] = &[
    Case {
        name: "scripts run in their order with their output between",
        bundle: &[
            ("b.sh", "#!/bin/sh\necho b\n"),
            ("s/a.sh", "#!/bin/sh\necho wrong >&2\n"),
        ],
        appspec: "hooks:\n  AfterInstall: [{location: /b.sh}, {location: s/a.sh, timeout: \"10\"}]\n  BeforeInstall: [{location: b.sh}]\n",
        log: &[
            "LifecycleEvent - BeforeInstall",
            "Script - b.sh",
            "[stdout]b",
            "LifecycleEvent - AfterInstall",
            "Script - /b.sh",
            "[stdout]b",
            "Script - s/a.sh",
            "[stderr]wrong",
        ],
        ..PLAIN
    },
    Case {
        name: "the first failure ends the event and the deployment",
        bundle: &[
            ("a.sh", "#!/bin/sh\nprintf unfinished\nexit 3\n"),
            ("b.sh", "#!/bin/sh\necho b\n"),
            ("f", "new"),
        ],
        appspec: "files: [{source: f, destination: @}]\nhooks:\n  BeforeInstall: [{location: a.sh}, {location: b.sh}]\n",
        failure: "failed at BeforeInstall in a.sh: Script at specified location: a.sh failed with exit code 3",
        log: &[
            "LifecycleEvent - BeforeInstall",
            "Script - a.sh",
            "[stdout]unfinished",
        ],
        ..PLAIN
    },
    Case {
        name: "a script that is not there",
        appspec: "hooks:\n  BeforeInstall: [{location: no such.sh}]\n",
        failure: "failed at BeforeInstall in no such.sh: Script does not exist at specified location: ",
        log: &["LifecycleEvent - BeforeInstall"],
        ..PLAIN
    },
    // Agent 1.8.1 splits the path at its spaces; agent 2 cannot run a script without a #! line.
    Case {
        name: "a script with spaces in its path, no #! line, and no permission to run",
        bundle: &[(
            "my scripts/a b.sh",
            "echo \"${0##*/}\" $LIFECYCLE_EVENT $#\n",
        )],
        appspec: "hooks:\n  ValidateService: [{location: \" my scripts/a b.sh \", runas: \"\"}]\n",
        log: &[
            "LifecycleEvent - ValidateService",
            "Script - my scripts/a b.sh",
            "[stdout]a b.sh ValidateService 0",
        ],
        ..PLAIN
    },
    Case {
        name: "what a script may rely on: no input, its own group, the deployment's variables, no keys",
        bundle: &[(
            "a.sh",
            "#!/bin/sh\ncat\necho $APPLICATION_NAME $DEPLOYMENT_GROUP_NAME $DEPLOYMENT_GROUP_ID ${DEPLOYMENT_ID%%-*}\nread -r _ _ _ _ group _ < /proc/$$/stat\n[ $$ = $group ] && echo own group\necho \"<$AWS_SECRET_ACCESS_KEY>\" $INHERITED\n",
        )],
        appspec: "hooks:\n  AfterInstall: [{location: a.sh}]\n",
        options: &["-a", "shop", "-d", "Web", "-g", "web-1"],
        log: &[
            "LifecycleEvent - AfterInstall",
            "Script - a.sh",
            "[stdout]shop Web web-1 d",
            "[stdout]own group",
            "[stdout]<> yes",
        ],
        ..PLAIN
    },
    Case {
        name: "escape sequences do not reach the log, tabs do",
        bundle: &[(
            "a.sh",
            "#!/bin/sh\nprintf '\\033[31mred\\033[0m\\ttab\\r\\n\\n\\377\\n'\n",
        )],
        appspec: "hooks:\n  AfterInstall: [{location: a.sh}]\n",
        log: &[
            "LifecycleEvent - AfterInstall",
            "Script - a.sh",
            "[stdout]red\ttab",
            "[stdout]",
            "[stdout]\u{fffd}",
        ],
        ..PLAIN
    },
    Case {
        name: "the AppSpec file that is named",
        bundle: &[
            ("a.sh", "#!/bin/sh\necho other\n"),
            (
                "deploy/other.yml",
                "version: 0.0\nos: linux\nhooks: {AfterInstall: [{location: a.sh}], ValidateService: [{location: a.sh}]}\n",
            ),
        ],
        appspec: "hooks:\n  AfterInstall: [{location: nothing.sh}]\n",
        options: &["-A", "deploy/other.yml", "-e", "ValidateService"],
        log: &[
            "LifecycleEvent - ValidateService",
            "Script - a.sh",
            "[stdout]other",
        ],
        ..PLAIN
    },
    Case {
        name: "sections and events with nothing in them",
        appspec: "files:\npermissions: ~\nhooks:\n  BeforeInstall:\n  AfterInstall: []\n",
        ..PLAIN
    },
    Case {
        name: "keys that nobody knows",
        appspec: "files: [{source: d, destination: @/app, mode: 3}]\ncomment: {a: [b]}\n",
        host: INSTALLED,
        ..PLAIN
    },
    Case {
        name: "an event that is not of this deployment",
        bundle: &[("a.sh", "#!/bin/sh\n")],
        appspec: "hooks:\n  WarmUp: [{location: a.sh}]\n",
        failure: "WarmUp",
        ..PLAIN
    },
    Case {
        name: "scripts outside the revision are refused",
        appspec: "hooks:\n  AfterInstall: [{location: ../../../../a.sh}]\n",
        failure: "hooks.AfterInstall[0].location",
        ..PLAIN
    },
    Case {
        name: "a location with .. that stays inside, and a timeout in another form",
        bundle: &[("s/a.sh", "#!/bin/sh\necho ran\n"), ("d/g", "x")],
        appspec: "hooks:\n  AfterInstall: [{location: d/../s/a.sh, timeout: 0x12C, sudo: 1}]\n",
        log: &[
            "LifecycleEvent - AfterInstall",
            "Script - d/../s/a.sh",
            "[stdout]ran",
        ],
        ..PLAIN
    },
    Case {
        name: "an event with a blank in its name is none of this deployment",
        bundle: &[("a.sh", "#!/bin/sh\n")],
        appspec: "files: [{source: a.sh, destination: @/app}]\nhooks:\n  After Install: [{location: a.sh}]\n",
        failure: "After Install (did you mean AfterInstall?)",
        ..PLAIN
    },
    // AWS's agents run it; this agent runs only scripts in the revision.
    Case {
        name: "a script that is a link out of the revision is refused before anything changes",
        bundle: &[("d/g", "x"), ("l.sh", "->/bin/true")],
        appspec: "files: [{source: d, destination: @/app}]\nhooks:\n  AfterInstall: [{location: l.sh}]\n",
        failure: "links out of the revision, which are not run; put the scripts themselves into it: l.sh of AfterInstall",
        ..PLAIN
    },
    Case {
        name: "a location with arguments",
        bundle: &[("a.sh", "#!/bin/sh\n")],
        appspec: "hooks:\n  AfterInstall: [{location: a.sh worker 3}]\n",
        failure: "a location has no arguments: name the script alone, or a script that calls it with them (the revision has \"a.sh\")",
        log: &["LifecycleEvent - AfterInstall"],
        ..PLAIN
    },
];
