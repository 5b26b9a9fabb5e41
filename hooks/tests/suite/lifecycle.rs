//! The revision of every event, and the no-op events.

use std::time::Duration;

use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_hooks::appspec::{AppSpec, ArchivePath, Script};
use codedeploy_hooks::lifecycle::{DeploymentKind, HookPlan, Origin, origin};

const KINDS: [DeploymentKind; 4] = [
    DeploymentKind {
        rollback: false,
        blue_green: false,
    },
    DeploymentKind {
        rollback: false,
        blue_green: true,
    },
    DeploymentKind {
        rollback: true,
        blue_green: false,
    },
    DeploymentKind {
        rollback: true,
        blue_green: true,
    },
];

/// An event, its origin before this deployment has an archive, and its origin in a blue/green
/// rollback.
const TABLE: [(&str, Origin, Origin); 14] = {
    use Origin::*;
    [
        ("BeforeBlockTraffic", LastSuccessful, MostRecent),
        ("BlockTraffic", ThisDeployment, ThisDeployment),
        ("AfterBlockTraffic", LastSuccessful, MostRecent),
        ("ApplicationStop", LastSuccessful, LastSuccessful),
        ("DownloadBundle", ThisDeployment, ThisDeployment),
        ("BeforeInstall", ThisDeployment, ThisDeployment),
        ("Install", ThisDeployment, ThisDeployment),
        ("AfterInstall", ThisDeployment, ThisDeployment),
        ("ApplicationStart", ThisDeployment, ThisDeployment),
        ("ValidateService", ThisDeployment, ThisDeployment),
        ("BeforeAllowTraffic", ThisDeployment, LastSuccessful),
        ("AllowTraffic", ThisDeployment, ThisDeployment),
        ("AfterAllowTraffic", ThisDeployment, LastSuccessful),
        ("WarmUp", ThisDeployment, ThisDeployment),
    ]
};

#[test]
fn before_an_archive_exists_events_run_from_the_deployment_of_the_table() {
    for (name, usual, swapping_back) in TABLE {
        let event: LifecycleEvent = name.parse().unwrap();
        for kind in KINDS {
            let expected = if kind.rollback && kind.blue_green {
                swapping_back
            } else {
                usual
            };
            assert_eq!(origin(&event, kind, false), expected, "{name}, {kind:?}");
        }
    }
    let named: Vec<_> = TABLE.iter().map(|(name, ..)| *name).collect();
    assert!(LifecycleEvent::standard().all(|event| named.contains(&event.name())));
}

#[test]
fn once_its_archive_exists_a_deployment_runs_its_own_scripts() {
    for (name, ..) in TABLE {
        for kind in KINDS {
            assert_eq!(
                origin(&name.parse().unwrap(), kind, true),
                Origin::ThisDeployment,
                "{name}, {kind:?}"
            );
        }
    }
}

#[test]
fn a_plan_holds_the_scripts_of_its_event_in_order() {
    let script = |location: &str| Script {
        location: ArchivePath::new(location).unwrap(),
        timeout: Duration::from_secs(1),
        runas: None,
        sudo: false,
    };
    let appspec = AppSpec {
        files: Vec::new(),
        file_exists_behavior: None,
        permissions: Vec::new(),
        hooks: vec![
            (LifecycleEvent::ApplicationStop, vec![script("stop.sh")]),
            (
                LifecycleEvent::ApplicationStart,
                vec![script("b.sh"), script("a.sh")],
            ),
        ],
        unknown_hooks: Vec::new(),
        strategy: None,
    };
    let plan = HookPlan::new(LifecycleEvent::ApplicationStart, "/srv/archive", &appspec);
    assert_eq!(plan.scripts, [script("b.sh"), script("a.sh")]);
    assert!(!plan.is_noop());
    assert!(HookPlan::new(LifecycleEvent::ValidateService, "/srv/archive", &appspec).is_noop());
}

#[test]
fn only_download_bundle_and_install_have_something_to_do_without_scripts() {
    for (name, ..) in TABLE {
        let plan = HookPlan::nothing(name.parse().unwrap());
        assert_eq!(
            plan.is_noop(),
            !["DownloadBundle", "Install"].contains(&name),
            "{name}"
        );
    }
}
