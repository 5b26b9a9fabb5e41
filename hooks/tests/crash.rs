//! An Install is killed at every system call; after recovery the host is as before or as planned, and nothing is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up fails")]

#[path = "install/bed.rs"]
#[allow(dead_code, reason = "shared with the tests of Install")]
mod bed;
#[path = "crash/killed.rs"]
mod killed;
#[path = "crash/scene.rs"]
mod scene;

use codedeploy_hooks::install::Recovery;
use killed::{Act, kill_at_every_system_call, play};
use scene::Scene;

/// Not a test of its own: what the processes that are killed do.
#[test]
fn the_part_of_the_process_that_is_killed() {
    play();
}

#[test]
fn an_install_that_is_killed_anywhere_is_taken_back_or_completed() {
    let scene = Scene::new();
    let (mut back, mut forward) = (0, 0);
    let kills = kill_at_every_system_call(Act::Install, &scene, |at| {
        match scene.bed.recover() {
            Recovery::RolledForward { summary, .. } => {
                forward += 1;
                assert_eq!(summary.warnings, [] as [&str; 0]);
                assert_eq!(scene.seen(), scene.new, "killed at system call {at}");
            }
            Recovery::RolledBack { .. } => {
                back += 1;
                assert_eq!(scene.seen(), scene.old, "killed at system call {at}");
            }
            // Before the journal was begun, or after it was closed.
            Recovery::Nothing => {
                let expected = if forward == 0 { &scene.old } else { &scene.new };
                assert_eq!(&scene.seen(), expected, "killed at system call {at}");
            }
        }
        assert_eq!(scene.bed.recover(), Recovery::Nothing);
        scene.assert_clean();
    });
    println!("{kills} kills: {back} taken back, {forward} completed");
    assert!(back > 50 && forward > 5, "{kills} kills, {back} taken back, {forward} completed");
}

#[test]
fn a_recovery_that_is_killed_anywhere_is_recovered() {
    let scene = Scene::new();
    let all = kill_at_every_system_call(Act::Install, &scene, |_| {});
    // An Install that was killed while it built, changed names, and put away.
    for at in [all / 4, all / 2, all * 3 / 4, all - 12] {
        let mut expected = None;
        let kills = kill_at_every_system_call(Act::RecoverAfter(at), &scene, |kill| {
            scene.bed.recover();
            assert_eq!(scene.bed.recover(), Recovery::Nothing);
            let seen = scene.seen();
            let expected = expected.get_or_insert(seen.clone());
            assert_eq!(&seen, expected, "Install killed at {at}, recovery at {kill}");
            assert!(seen == scene.old || seen == scene.new, "Install killed at {at}, recovery at {kill}");
            scene.assert_clean();
        });
        assert!(kills > 10, "{kills} kills of a recovery");
    }
}
