//! What the engine is doing, for its metrics.

use std::sync::atomic::Ordering;

use quern_sources::hot::HotCounts;

use super::Engine;

/// What the engine is doing, and has done since it started.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Statements that run.
    pub running: usize,
    /// Statements that wait for a place.
    pub waiting: usize,
    /// Statements that were let in.
    pub queries: u64,
    /// Statements that may run at once.
    pub max_running: usize,
    /// Statements that may wait at once.
    pub max_waiting: usize,
    /// Statements for which there was no place.
    pub refused: u64,
    /// Requests that were answered from memory without a place.
    pub peeked: u64,
    /// Memory reserved by statements, in bytes.
    pub memory: usize,
    /// Memory that they may reserve, in bytes.
    pub max_memory: usize,
    /// Disk space that they take, in bytes.
    pub spilled: u64,
    /// Disk space that they may take, in bytes.
    pub max_spilled: u64,
    /// The columns kept in memory.
    pub hot: HotCounts,
    /// The indexes of keys, and what they take, in bytes.
    pub key_indexes: (usize, usize),
}

impl Engine {
    /// What the engine is doing.
    pub fn load(&self) -> Load {
        let (running, waiting, queries, refused) = self.admission.counts();
        let (memory, spilled) = self.runtime.taken();
        let hot = self.runtime.caches().hot.counts();
        let (max_running, max_waiting) = self.admission.most();
        Load {
            running,
            waiting,
            max_running,
            max_waiting,
            queries,
            refused,
            peeked: self.peeked.load(Ordering::Relaxed),
            memory,
            max_memory: self.limits.memory,
            spilled,
            max_spilled: self.limits.spill_bytes,
            hot,
            key_indexes: self.runtime.caches().keys.counts(),
        }
    }
}
