//! What bounds the engine: the configuration of this crate.

use std::path::PathBuf;
use std::time::Duration;

/// The bounds of time, memory and concurrency.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The memory of all queries together, in bytes. Decode and encode buffers come on top.
    pub memory: usize,
    /// How much of it decoded columns may take while queries leave it, in bytes; 0 keeps none.
    pub hot_bytes: usize,
    /// How much disk space text files may take that were decoded and did not stay in memory, in bytes.
    pub hot_spill_bytes: u64,
    /// All memory that the process may have, in bytes; above most of it queries are given up.
    pub process_memory: usize,
    /// The memory of one query, in bytes.
    pub query_memory: usize,
    /// Where queries spill.
    pub spill_dir: PathBuf,
    /// How much all queries together may spill, in bytes.
    pub spill_bytes: u64,
    /// How many queries run at once.
    pub max_concurrent_queries: usize,
    /// How many queries may wait for one of those to end.
    pub max_queued_queries: usize,
    /// How long a query waits at most before it is refused.
    pub queue_patience: Duration,
    /// The deadline of a query whose caller names none.
    pub timeout_default: Duration,
    /// The longest deadline a caller gets.
    pub timeout_max: Duration,
    /// Threads that plan, execute and encode.
    pub threads: usize,
}

/// The longest SQL text, in bytes.
pub(crate) const MAX_SQL_BYTES: usize = 256 * 1024;

/// The most tokens that are operators; each may add a level to the expression tree.
pub(crate) const MAX_OPERATORS: usize = 4_000;

/// The most tokens in all.
pub(crate) const MAX_TOKENS: usize = 100_000;

/// How deep parentheses and subqueries may nest.
pub(crate) const MAX_NESTING: usize = 100;
