//! A limit of concurrent queries with a short queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quern_core::{EngineError, Reason, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Limits;

/// Lets at most `running` queries in, and at most `queued` wait for a bounded time.
pub(crate) struct Admission {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    patience: Duration,
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
        Self {
            running: Arc::new(Semaphore::new(limits.max_concurrent_queries.max(1))),
            waiting: AtomicUsize::new(0),
            max_waiting: limits.max_queued_queries,
            patience: limits.queue_patience,
        }
    }

    /// A place to run, held until the permit is dropped.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit> {
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
