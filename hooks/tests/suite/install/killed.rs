//! An Install is killed at every system call; after recovery the host is as before or as planned,
//! and nothing is left.

use std::collections::BTreeMap;

use codedeploy_hooks::install::{self, Phase, Recovery};

use super::kill::{Act, kill_at_every_system_call, play};
use super::scene::Scene;

/// Not a test of its own: the action of the killed processes.
#[test]
fn the_part_of_the_process_that_is_killed() {
    play();
}

#[test]
fn an_install_that_is_killed_anywhere_is_taken_back_or_completed() {
    let scene = Scene::new();
    let (mut back, mut forward) = (0, 0);
    let kills = kill_at_every_system_call(Act::Install, &scene, |at| {
        let recovery = scene.bed.recover();
        let expected = match &recovery {
            Recovery::RolledBack { .. } => {
                back += 1;
                &scene.old
            }
            Recovery::RolledForward { summary, .. } => {
                forward += 1;
                assert_eq!(summary.warnings, [] as [&str; 0]);
                &scene.new
            }
            // Before the journal began, or after it was closed.
            Recovery::Nothing => {
                if forward == 0 {
                    &scene.old
                } else {
                    &scene.new
                }
            }
        };
        assert_eq!(
            scene.differences(expected),
            [] as [&str; 0],
            "killed at system call {at}: {recovery}"
        );
        assert_eq!(scene.bed.recover(), Recovery::Nothing);
        scene.assert_clean();
    });
    println!("{kills} kills: {back} taken back, {forward} completed");
    assert!(
        back > 50 && forward > 5,
        "{kills} kills, {back} taken back, {forward} completed"
    );
}

#[test]
fn taking_an_install_back_can_be_killed_anywhere() {
    let scene = Scene::new();
    let (mut back, mut forward) = (0, 0);
    let kills = kill_at_every_system_call(Act::Restore, &scene, |at| {
        let recovery = scene.bed.recover();
        let expected = match &recovery {
            Recovery::RolledBack { .. } => {
                back += 1;
                &scene.new
            }
            Recovery::RolledForward { .. } => {
                forward += 1;
                &scene.old
            }
            Recovery::Nothing => {
                if forward == 0 {
                    &scene.new
                } else {
                    &scene.old
                }
            }
        };
        assert_eq!(
            scene.differences(expected),
            [] as [&str; 0],
            "killed at system call {at}: {recovery}"
        );
        scene.assert_clean();
        if expected == &scene.new {
            scene.bed.restore().unwrap();
            assert_eq!(
                scene.differences(&scene.old),
                [] as [&str; 0],
                "killed at system call {at}"
            );
        }
    });
    println!("{kills} kills: {back} times not taken back, {forward} times completed");
    assert!(back > 50 && forward > 5, "{kills} kills, {back}, {forward}");
}

#[test]
fn a_recovery_that_is_killed_anywhere_is_recovered() {
    let scene = Scene::new();
    let mut points: BTreeMap<Phase, Vec<usize>> = BTreeMap::new();
    kill_at_every_system_call(Act::Install, &scene, |at| {
        if let Some(unfinished) = install::unfinished(&scene.bed.records.journal).unwrap() {
            points.entry(unfinished.phase).or_default().push(at);
        }
    });
    assert_eq!(points.len(), 3, "{points:?}");
    // An Install that was killed while it built, changed names, and put away.
    let mut kills = 0;
    let spread = points
        .values()
        .flat_map(|points| points.iter().step_by(points.len() / 2));
    for at in spread.copied() {
        let mut expected = None;
        kills += kill_at_every_system_call(Act::RecoverAfter(at), &scene, |kill| {
            scene.bed.recover();
            assert_eq!(scene.bed.recover(), Recovery::Nothing);
            let expected = *expected.get_or_insert_with(|| {
                if scene.seen() == scene.old {
                    &scene.old
                } else {
                    &scene.new
                }
            });
            let differences = scene.differences(expected);
            assert_eq!(
                differences,
                [] as [&str; 0],
                "Install killed at {at}, its recovery at {kill}"
            );
            scene.assert_clean();
        });
    }
    println!("{kills} kills of a recovery");
    assert!(kills > 200, "{kills} kills");
}
