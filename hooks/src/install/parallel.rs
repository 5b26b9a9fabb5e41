//! Runs independent work on many objects on a few threads, to keep the disk busy.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fs::Handles;

/// More threads than this would disturb the host's applications.
const MOST_THREADS: usize = 4;

/// Fewer objects than this are not worth a thread.
const WORTH_A_THREAD: usize = 8;

/// Runs `work` on each of `pieces`. After an error, no further piece begins; the error returned is
/// that of the first failed piece in the list.
pub(super) fn each<T: Sync, E: Send>(
    pieces: &[T],
    handles: impl Fn() -> Handles + Sync,
    work: impl Fn(&T, &mut Handles) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let threads = MOST_THREADS.min(pieces.len() / WORTH_A_THREAD).max(1);
    // Neighbours lie in one folder, which then stays open.
    let stretch = (pieces.len() / (threads * 8)).clamp(1, 128);
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let run = || {
        let mut handles = handles();
        loop {
            let start = next.fetch_add(stretch, Ordering::Relaxed);
            for (index, piece) in pieces.iter().enumerate().skip(start).take(stretch) {
                if let Err(error) = work(piece, &mut handles) {
                    // Earlier pieces of the list have already begun.
                    next.fetch_max(pieces.len(), Ordering::Relaxed);
                    let mut failed = failed
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                    if failed.as_ref().is_none_or(|(first, _)| index < *first) {
                        *failed = Some((index, error));
                    }
                    return;
                }
            }
            if start + stretch >= pieces.len() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread, this one does all the work.
            if std::thread::Builder::new()
                .name("install".into())
                .spawn_scoped(scope, run)
                .is_err()
            {
                break;
            }
        }
        run();
    });
    let failed = failed
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    failed.map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_and_the_first_error_by_place_is_told() {
        for count in [0, 1, 7, 8, 100, 5000] {
            let pieces: Vec<usize> = (0..count).collect();
            let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            let work = |piece: &usize, _: &mut Handles| {
                done[*piece].fetch_add(1, Ordering::Relaxed);
                Ok::<_, usize>(())
            };
            assert_eq!(each(&pieces, Handles::default, work), Ok(()));
            assert!(
                done.iter().all(|done| done.load(Ordering::Relaxed) == 1),
                "{count}"
            );
            let fails = |piece: &usize, _: &mut Handles| {
                if piece % 30 == 29 {
                    Err(*piece)
                } else {
                    Ok(())
                }
            };
            assert_eq!(
                each(&pieces, Handles::default, fails),
                if count > 29 { Err(29) } else { Ok(()) }
            );
        }
    }
}
