//! Many small pieces of work on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::lock::guard;
use crate::error::{Code, HfError, Result};

/// Upper bound of threads: file systems serialize most of what more of them would do.
const THREADS_MAX: usize = 4;

/// Runs `work` on every item, on all cores (at most four threads), and returns the results in order. The calling thread works along.
///
/// # Errors
/// The first error in time; work that had begun is finished, no other begins.
pub(super) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    // A thread costs about as much as a few links.
    let threads = cores.min(items.len() / 4).max(1);
    if threads == 1 {
        return items.iter().map(work).collect();
    }
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure = Mutex::new(None);
    let run = || {
        let mut results = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            match work(item) {
                Ok(result) => results.push((index, result)),
                Err(error) => {
                    stopped.store(true, Ordering::Relaxed);
                    guard(&failure).get_or_insert(error);
                }
            }
        }
        results
    };
    let mut results = std::thread::scope(|scope| {
        // A thread that the system refuses is one less.
        let helpers: Vec<_> = (1..threads)
            .filter_map(|_| std::thread::Builder::new().name("holdfast-files".into()).spawn_scoped(scope, run).ok())
            .collect();
        let mut results = run();
        for helper in helpers {
            match helper.join() {
                Ok(more) => results.extend(more),
                Err(_) => {
                    let error = HfError::new(Code::Panic, "a thread that works on files panicked; please report this");
                    guard(&failure).get_or_insert(error);
                }
            }
        }
        results
    });
    if let Some(error) = guard(&failure).take() {
        return Err(error);
    }
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_and_stops_at_an_error() {
        let items: Vec<u32> = (0..500).collect();
        assert_eq!(each(&items, |item| Ok(item * 2)).unwrap(), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        let done = AtomicUsize::new(0);
        let error = each(&items, |item| {
            if *item == 40 {
                return Err(HfError::new(Code::Busy, "forty"));
            }
            std::thread::sleep(std::time::Duration::from_micros(100));
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        assert_eq!(error.unwrap_err().message(), "forty");
        assert!(done.load(Ordering::Relaxed) < 400);
    }
}
