//! Runs the cases of a table concurrently.

use std::rc::Rc;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

/// The number of concurrent cases: most of the time they wait.
const AT_ONCE: usize = 12;

/// Runs all of `cases`; each should have a folder and programs of its own.
///
/// # Panics
///
/// If one of them does.
pub async fn side_by_side(cases: Vec<impl Future<Output = ()> + 'static>) {
    let local = LocalSet::new();
    let mut tasks = JoinSet::new();
    let places = Rc::new(Semaphore::new(AT_ONCE));
    for case in cases {
        let places = Rc::clone(&places);
        let task = async move {
            let _place = places.acquire().await.expect("it is never closed");
            case.await;
        };
        tasks.spawn_local_on(task, &local);
    }
    local.run_until(tasks.join_all()).await;
}
