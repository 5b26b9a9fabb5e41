//! File systems that only one test sees, and that disappear with it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

/// The time that a file system may stay busy after its last user has gone.
const FREE_WITHIN: Duration = Duration::from_secs(20);

/// A file system, mounted in this thread's mount namespace until this is dropped.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
}

/// Runs a test in a thread with mounts of its own, which end with it in any case.
///
/// # Panics
///
/// Without root, if the test panics, or if the kernel refuses a mount namespace.
pub fn in_own_mounts<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "mounting a file system needs root"
    );
    let whole = move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).expect("the kernel gives mounts of its own");
        let none = None::<&str>;
        nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .expect("they can be private");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(test());
    };
    if let Err(panic) = std::thread::spawn(whole).join() {
        std::panic::resume_unwind(panic);
    }
}

impl Mounted {
    /// Mounts a file system at `path` with these arguments of mount(8).
    pub fn mount(arguments: &[&OsStr], path: &Path) -> Result<Self, String> {
        run(Command::new("mount").args(arguments).arg(path))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// A file system in memory.
    pub fn in_memory(path: &Path) -> Result<Self, String> {
        Self::mount(&["-t", "tmpfs", "tmpfs"].map(OsStr::new), path)
    }

    /// Changes options while it is in use.
    pub fn change(&self, options: &str) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.path))
    }

    /// Unmounts it in order.
    pub fn unmount(self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            // A child that another test is just starting holds this process's handles for a moment.
            match run(Command::new("umount").arg(&self.path)) {
                Err(error) if began.elapsed() > FREE_WITHIN => return Err(error),
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing is mounted if it was unmounted before.
        let _ = nix::mount::umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// Runs a command that must succeed; `Err` is its output.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
