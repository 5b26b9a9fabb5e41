//! Errors in the middle of an Install: everything is as before.

use std::error::Error as _;

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::appspec::{Mode, Principal};
use codedeploy_hooks::install::{self, InstallError};

use super::bed::{Bed, link, write};

type Obstacle = fn(&Bed);

/// An app with an earlier version, conflicting files of the operator, and a plan that touches
/// everything.
fn second_version() -> (Bed, install::InstallPlan) {
    let mut bed = Bed::new();
    bed.behavior = FileExistsBehavior::Overwrite;
    bed.revision(&[("a", "1"), ("gone/x/y", "1"), ("remade/x", "1"), ("z", "1")]);
    link("a", &bed.archive("link"));
    bed.install_all("app").unwrap();
    write(&bed.host("app/config"), "operator's");
    write(&bed.host("etc/exact"), "operator's");
    bed.revision(&[
        ("a", "2"),
        ("config", "2"),
        ("new/x", "2"),
        ("remade/x", "2"),
        ("z", "2"),
    ]);
    let mut appspec = bed.all_to("app");
    let mut exact = bed.permission("etc/exact");
    exact.mode = Mode::new(0o600);
    appspec.permissions.push(exact);
    let plan = bed.plan(&appspec).unwrap();
    (bed, plan)
}

#[test]
fn without_an_obstacle_the_second_version_is_installed() {
    let (bed, plan) = second_version();
    install::install(plan, &bed.turn()).unwrap();
    let expected = [
        "app/",
        "app/a 2",
        "app/config 2",
        "app/new/",
        "app/new/x 2",
        "app/remade/",
        "app/remade/x 2",
        "app/z 2",
        "etc/",
        "etc/exact operator's",
    ];
    assert_eq!(bed.listing(), expected);
}

#[test]
fn whatever_changes_between_plan_and_install_everything_is_put_back() {
    let obstacles: [(&str, Obstacle); 7] = [
        ("something stands where a new folder goes", |bed| {
            write(&bed.host("app/new"), "operator's")
        }),
        ("a file came into a folder that is to be removed", |bed| {
            write(&bed.host("app/gone/x/late"), "late")
        }),
        (
            "a file came into a folder that is to be made fresh",
            |bed| write(&bed.host("app/remade/late"), "late"),
        ),
        ("a folder stands where a file is to be replaced", |bed| {
            std::fs::remove_file(bed.host("app/z")).unwrap();
            write(&bed.host("app/z/x"), "operator's");
        }),
        ("the file whose mode is to change is gone", |bed| {
            std::fs::remove_file(bed.host("etc/exact")).unwrap()
        }),
        ("the record cannot be written", |bed| {
            std::fs::remove_file(&bed.records.cleanup).unwrap();
            write(&bed.records.cleanup.join("x"), "");
        }),
        ("a file of the revision is gone", |bed| {
            std::fs::remove_file(bed.archive("remade/x")).unwrap()
        }),
    ];
    for (obstacle, make) in obstacles {
        let (bed, plan) = second_version();
        make(&bed);
        let before = bed.tree();
        let error = install::install(plan, &bed.turn()).expect_err(obstacle);
        assert!(
            matches!(error, InstallError::Failed { .. }),
            "{obstacle}: {error:?}"
        );
        assert_eq!(bed.tree(), before, "{obstacle}");
    }
}

#[test]
fn a_destination_that_became_a_link_is_not_written_through() {
    let (bed, plan) = second_version();
    std::fs::rename(bed.host("app"), bed.host("moved")).unwrap();
    link("moved", &bed.host("app"));
    let before = bed.tree();
    install::install(plan, &bed.turn()).unwrap_err();
    assert_eq!(bed.tree(), before);
}

#[test]
fn a_folder_that_was_exchanged_for_another_one_stays_as_it_is() {
    let (bed, plan) = second_version();
    std::fs::rename(bed.host("app"), bed.host("moved")).unwrap();
    write(&bed.host("app/a"), "another application's");
    let before = bed.tree();
    let error = install::install(plan, &bed.turn()).unwrap_err();
    let cause = error.source().and_then(|error| error.source()).unwrap();
    assert!(
        cause
            .to_string()
            .contains("app is another folder than when the files were planned"),
        "{cause}"
    );
    assert_eq!(bed.tree(), before);
}

#[test]
#[ignore = "needs an ordinary user"]
fn an_owner_that_may_not_be_given_is_an_error_which_needs_an_ordinary_user() {
    let bed = Bed::new();
    bed.revision(&[("a", "1")]);
    let mut appspec = bed.all_to("app");
    let mut permission = bed.permission("app");
    permission.owner = Some(Principal::Id(0));
    appspec.permissions.push(permission);
    let before = bed.tree();
    let error = bed.install(&appspec).unwrap_err();
    let step = error.source().unwrap();
    let cause = step.source().unwrap().to_string();
    assert!(cause.contains("needs root"), "{step}: {cause}");
    assert_eq!(bed.tree(), before);
}

#[test]
#[ignore = "needs root"]
fn an_immutable_file_is_found_in_the_plan_which_needs_immutable_files() {
    let bed = Bed::new();
    bed.revision(&[("a", "1"), ("b", "1")]);
    bed.install_all("app").unwrap();
    assert!(immutable(&bed, "+i"), "chattr makes a file immutable");
    let before = bed.tree();
    let found = super::bed::conflicts(bed.install_all("app"));
    assert!(immutable(&bed, "-i"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].to_string().contains("app/a: is immutable"),
        "{}",
        found[0]
    );
    assert_eq!(bed.tree(), before);

    assert!(chattr("+a", &bed.host("app")));
    bed.revision(&[]);
    let found = super::bed::conflicts(bed.install_all("elsewhere"));
    assert!(chattr("-a", &bed.host("app")));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .to_string()
            .contains("app: is immutable or append-only"),
        "{}",
        found[0]
    );
    assert_eq!(bed.tree(), before);
}

fn immutable(bed: &Bed, flag: &str) -> bool {
    chattr(flag, &bed.host("app/a"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "only a tool of the system sets the flag"
)]
fn chattr(flag: &str, path: &std::path::Path) -> bool {
    let status = std::process::Command::new("chattr")
        .arg(flag)
        .arg(path)
        .status();
    status.is_ok_and(|status| status.success())
}
