//! The only place that waits: for a condition, never for a time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// The time after which a test reports that a condition does not come true.
pub const TIMEOUT: Duration = Duration::from_secs(60);

const INTERVAL: Duration = Duration::from_millis(20);

/// Calls `probe` until it returns a value.
///
/// # Panics
///
/// If it has returned none after [`TIMEOUT`]; the message ends with its last error.
pub async fn until<T, E: Debug>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) if began.elapsed() > TIMEOUT => {
                panic!("{what}: not within {TIMEOUT:?}; last: {last:?}")
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
