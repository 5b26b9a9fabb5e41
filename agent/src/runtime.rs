//! The one thread that a program of the agent works on.

use crate::memory;

/// Threads for file work, beside the one that everything else shares.
const BLOCKING_THREADS: usize = 4;

/// Runs `work` on the one thread that the agent's own work needs. Threads that still look up a host name when it is
/// over are not waited for.
pub(crate) fn on_runtime<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    memory::share_one_arena();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}
