//! Keeps the process within the memory that the machine or container gives it.
//!
//! What queries reserve is counted by the pool. What decoding, functions and joins hold for a moment beside that is not, and
//! many queries at once can hold much of it. So a thread looks at what the process has in fact: above a first bound nothing
//! more is reserved for queries that have some already, and they spill or fail; above a second one queries are given up, half of
//! them at each look, those first that hold most. The kernel, which would end the whole process, comes after that.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use datafusion::execution::memory_pool::MemoryPool;
use indexmap::IndexMap;
use nix::unistd::{SysconfVar, sysconf};
use quern_core::{EngineError, Reason};
use tokio_util::sync::CancellationToken;

/// How often the thread looks, and how often while there is plenty.
const LOOK: Duration = Duration::from_millis(5);
const SELDOM: Duration = Duration::from_millis(20);
/// What is left to the kernel, to files that are mapped, and to what is allocated until queries have stopped: a tenth, and at
/// least so much, but no more than a quarter.
const RESERVE: usize = 96 << 20;
/// What a query may always reserve.
const SMALL: usize = 4 << 20;

/// What the process holds, and the queries that run.
#[derive(Debug)]
pub(crate) struct Pressure {
    /// Above this nothing more is reserved.
    high: usize,
    /// Above this queries are given up.
    critical: usize,
    /// What the process held at the last look, and what was reserved since.
    held: AtomicUsize,
    running: Mutex<IndexMap<u64, Arc<Query>>>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Query {
    stop: CancellationToken,
    pool: OnceLock<Arc<dyn MemoryPool>>,
}

/// A query as long as it runs.
#[derive(Debug)]
pub(crate) struct Entered {
    pressure: Arc<Pressure>,
    number: u64,
    query: Arc<Query>,
}

impl Pressure {
    /// Watches over a process that may have `most` bytes.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let pressure = Self::within(most);
        let watched = Arc::downgrade(&pressure);
        std::thread::spawn(move || watch(&watched));
        pressure
    }

    fn within(most: usize) -> Arc<Self> {
        let reserve = (most / 10).max(RESERVE).min(most / 4);
        Arc::new(Self {
            high: most - 2 * reserve,
            critical: most - reserve,
            held: AtomicUsize::new(0),
            running: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    fn running(&self) -> MutexGuard<'_, IndexMap<u64, Arc<Query>>> {
        // Each change is one insertion or removal.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A query begins.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let query = Arc::<Query>::default();
        self.running().insert(number, Arc::clone(&query));
        Entered { pressure: Arc::clone(self), number, query }
    }

    /// Whether a query that has reserved `before` bytes may have more.
    pub(crate) fn allows(&self, before: usize, additional: usize) -> bool {
        before + additional <= SMALL || self.held.load(Ordering::Relaxed) + additional <= self.high
    }

    /// Notes what was reserved: it will be held soon.
    pub(crate) fn reserved(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes note of what the process holds; returns when to look again.
    fn look(&self, held: usize) -> Duration {
        self.held.store(held, Ordering::Relaxed);
        if held > self.critical {
            self.relieve();
        }
        if held > self.high / 2 { LOOK } else { SELDOM }
    }

    /// Gives up half of the queries that have not been given up, those that hold most, and of these the oldest.
    fn relieve(&self) {
        let mut left: Vec<(usize, Arc<Query>)> = self
            .running()
            .values()
            .filter(|query| !query.stop.is_cancelled())
            .map(|query| (query.pool.get().map_or(0, |pool| pool.reserved()), Arc::clone(query)))
            .collect();
        // They are in the order in which they came, and those that hold the same stay in it.
        left.sort_by_key(|(reserved, _)| std::cmp::Reverse(*reserved));
        left.truncate(left.len().div_ceil(2));
        for (_, query) in &left {
            query.stop.cancel();
        }
        if !left.is_empty() {
            tracing::warn!(
                queries = left.len(),
                held = self.held.load(Ordering::Relaxed),
                "queries were given up for want of memory"
            );
        }
    }
}

impl Entered {
    /// Counts what is reserved in a pool as the query's.
    pub(crate) fn reserves_in(&self, pool: &Arc<dyn MemoryPool>) {
        let _ = self.query.pool.set(Arc::clone(pool));
    }

    /// Returns when the query is given up.
    pub(crate) fn given_up(&self) -> impl Future<Output = EngineError> + Send + 'static {
        let stopped = self.query.stop.clone().cancelled_owned();
        async move {
            stopped.await;
            EngineError::new(
                Reason::MemoryLimit,
                "all queries together needed more memory than the engine has, and this one was given up; ask again in a \
                 moment, or filter earlier, select fewer columns, or aggregate",
            )
            .retry_after(Duration::from_secs(1))
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.pressure.running().shift_remove(&self.number);
    }
}

fn watch(pressure: &Weak<Pressure>) {
    while let (Some(pressure), Some(held)) = (pressure.upgrade(), held()) {
        let wait = pressure.look(held);
        drop(pressure);
        std::thread::sleep(wait);
    }
}

/// The process's memory without what is a file's: the kernel can't take it back. Nothing where the system does not tell.
fn held() -> Option<usize> {
    let page = usize::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    // proc_pid_statm(5): size, resident, shared, in pages.
    let text = std::fs::read_to_string(Path::new("/proc/self/statm")).ok()?;
    let mut pages = text.split(' ').skip(1).map(|field| field.parse::<usize>());
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(shared) * page)
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer};
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn nothing_more_is_reserved_while_memory_is_short() {
        let pressure = Pressure::within(1024 * MIB);
        pressure.look(700 * MIB);
        assert!(pressure.allows(100 * MIB, MIB));
        pressure.reserved(200 * MIB);
        assert!(!pressure.allows(100 * MIB, MIB));
        assert!(pressure.allows(2 * MIB, MIB), "a small query goes on");
    }

    #[test]
    fn those_that_hold_most_are_given_up_first() {
        let pressure = Pressure::within(512 * MIB);
        let queries: Vec<_> = (0..4).map(|_| pressure.enter()).collect();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(MIB));
        let reservation = MemoryConsumer::new("one").register(&pool);
        reservation.try_grow(MIB).expect("fits");
        queries[2].reserves_in(&pool);
        let given_up =
            || -> Vec<bool> { queries.iter().map(|query| query.given_up().now_or_never().is_some()).collect() };
        pressure.look(400 * MIB);
        assert_eq!(given_up(), [false; 4]);
        pressure.look(500 * MIB);
        assert_eq!(given_up(), [true, false, true, false]);
        pressure.look(500 * MIB);
        assert_eq!(given_up(), [true, true, true, false]);
        drop(queries);
        assert!(pressure.running().is_empty());
    }

    #[test]
    fn the_process_holds_something() {
        assert!(held().expect("Linux") > 0);
    }
}
