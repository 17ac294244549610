//! A limit of concurrent queries with a short queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use quern_core::{EngineError, Reason, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Limits;

/// Lets at most `running` queries in, and at most `queued` wait for a bounded time.
pub(crate) struct Admission {
    running: Arc<Semaphore>,
    max_running: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
    patience: Duration,
    entered: AtomicU64,
    refused: AtomicU64,
}

/// Counts a waiting query for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let max_running = limits.max_concurrent_queries.max(1);
        Self {
            running: Arc::new(Semaphore::new(max_running)),
            max_running,
            waiting: AtomicUsize::new(0),
            max_waiting: limits.max_queued_queries,
            patience: limits.queue_patience,
            entered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// How many are running and waiting now, and how many were let in and refused since the start.
    pub(crate) fn counts(&self) -> (usize, usize, u64, u64) {
        let running = self.max_running.saturating_sub(self.running.available_permits());
        let waiting = self.waiting.load(Ordering::Relaxed);
        (running, waiting, self.entered.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// How many may run, and how many may wait.
    pub(crate) fn most(&self) -> (usize, usize) {
        (self.max_running, self.max_waiting)
    }

    /// A place to run, held until the permit is dropped.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit> {
        let entered = self.wait().await;
        let counter = if entered.is_ok() { &self.entered } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        entered
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let ahead = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        if ahead >= self.max_waiting {
            return Err(refused("too many queries are running and waiting"));
        }
        match tokio::time::timeout(self.patience, Arc::clone(&self.running).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(EngineError::new(Reason::ShuttingDown, "the engine is shutting down")),
            Err(_) => Err(refused("too many queries are running, and none ended in time")),
        }
    }
}

fn refused(why: &str) -> EngineError {
    EngineError::new(Reason::TooManyQueries, format!("{why}; ask again in a moment"))
        .retry_after(Duration::from_secs(1))
}
