//! Kills a process at each of its system calls in turn, by ptrace(2). The process is this test's
//! own binary in another role.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::install::{self, Turn};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::bed::Bed;
use super::scene::{self, Scene, second_version};

/// The variables that name the stage and the part of the killed process.
const STAGE: &str = "CODEDEPLOY_TEST_STAGE";
const PART: &str = "CODEDEPLOY_TEST_PART";

/// The action of the killed process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Install,
    /// Takes back an Install that succeeded.
    Restore,
    /// Recovers from an Install that was killed at this system call.
    RecoverAfter(usize),
}

/// Plays the part that the environment names; without one, this is not the child.
#[allow(
    clippy::disallowed_methods,
    reason = "a test binary has no other way to be told"
)]
pub(crate) fn play() {
    let (Ok(stage), Ok(part)) = (std::env::var(STAGE), std::env::var(PART)) else {
        return;
    };
    let mut bed = Bed::at(Path::new(&stage));
    bed.behavior = FileExistsBehavior::Overwrite;
    bed.deployment = "d-2".into();
    scene::settle(&bed);
    // System calls count from here on.
    raise(Signal::SIGSTOP).unwrap();
    match part.as_str() {
        "restore" => drop(bed.restore().unwrap()),
        "install" => drop(bed.install(&second_version(&bed)).unwrap()),
        _ => {
            let turn = Turn::wait(bed.records.journal.parent().unwrap()).unwrap();
            install::recover(&bed.records.journal, &turn).unwrap();
        }
    }
}

/// From the beginning of the scene, lets a process do `act` and kills it at its first system call,
/// then another one at its second, until one finishes; calls `check` after each kill. Returns the
/// number of kills.
pub(crate) fn kill_at_every_system_call(
    act: Act,
    scene: &Scene,
    mut check: impl FnMut(usize),
) -> usize {
    let mut at = 0;
    loop {
        scene.reset();
        let part = match act {
            Act::Install => "install",
            Act::Restore => {
                scene.bed.install(&second_version(&scene.bed)).unwrap();
                "restore"
            }
            Act::RecoverAfter(install) => {
                assert!(
                    killed("install", scene, install),
                    "the Install has fewer than {install} system calls"
                );
                "recover"
            }
        };
        if !killed(part, scene, at) {
            return at;
        }
        check(at);
        at += 1;
    }
}

/// Whether the process reached its system call number `at` and was killed there.
#[allow(clippy::disallowed_methods, reason = "this test starts itself")]
#[allow(
    unsafe_code,
    reason = "asking to be traced between fork and exec is one system call"
)]
fn killed(part: &str, scene: &Scene, at: usize) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "install::killed::the_part_of_the_process_that_is_killed",
        "--test-threads=1",
    ]);
    command.env(STAGE, scene.bed.root.path()).env(PART, part);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let stops = |pid, status| assert_eq!(waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap(), status);
    stops(pid, WaitStatus::Stopped(pid, Signal::SIGTRAP));
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_EXITKILL
        | ptrace::Options::PTRACE_O_TRACECLONE;
    ptrace::setoptions(pid, options).unwrap();
    ptrace::cont(pid, None).unwrap();
    // The part runs on a thread of its own, which stops at its start and where it raises a signal.
    stops(
        pid,
        WaitStatus::PtraceEvent(
            pid,
            Signal::SIGTRAP,
            ptrace::Event::PTRACE_EVENT_CLONE as i32,
        ),
    );
    let thread = Pid::from_raw(ptrace::getevent(pid).unwrap().try_into().unwrap());
    ptrace::cont(pid, None).unwrap();
    stops(thread, WaitStatus::Stopped(thread, Signal::SIGSTOP));
    ptrace::cont(thread, None).unwrap();
    stops(thread, WaitStatus::Stopped(thread, Signal::SIGSTOP));
    // Each system call stops twice: before and after. The first stop is the end of raising the
    // signal.
    for _ in 0..=2 * at + 1 {
        ptrace::syscall(thread, None).unwrap();
        match waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceSyscall(_) => {}
            WaitStatus::Exited(_, code) => {
                assert_eq!(code, 0, "the part failed");
                assert!(child.wait().unwrap().success(), "the part failed");
                return false;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    ptrace::kill(thread).unwrap();
    stops(thread, WaitStatus::Signaled(thread, Signal::SIGKILL, false));
    assert!(!child.wait().unwrap().success());
    true
}
