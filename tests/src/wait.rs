//! The one place that waits: for a condition, never for a time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a condition may take before a test says that it does not come true.
pub const PATIENCE: Duration = Duration::from_secs(60);

const INTERVAL: Duration = Duration::from_millis(20);

/// Asks `probe` until it gives a value.
///
/// # Panics
///
/// When it has given none after [`PATIENCE`]; the message ends with what it last said.
pub async fn until<T, E: Debug>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) if began.elapsed() > PATIENCE => {
                panic!("{what}: not within {PATIENCE:?}; last: {last:?}")
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
