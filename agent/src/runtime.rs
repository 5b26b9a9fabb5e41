//! The single-threaded runtime of the agent's programs.

use crate::memory;

/// The number of threads for file work, besides the main thread.
const BLOCKING_THREADS: usize = 4;

/// Runs `work` on the main thread. Threads that still look up a host name at its end are not waited
/// for.
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
