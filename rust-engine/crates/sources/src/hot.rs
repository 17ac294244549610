//! Hot columns: decoded pieces of columns kept in memory, so that what is asked for again need not be decoded again.
//!
//! A file's rows are counted in blocks of [`BLOCK_ROWS`] and segments of [`SEGMENT_BLOCKS`] blocks, within each row
//! group of a Parquet file, and from the start of any other. What is kept, weighed and evicted as one is a *chunk*: one
//! column of one segment. Scans fill it block by block, as a by-product.
//!
//! Whether a chunk gets in is decided as in TinyLFU: by how often it was asked for, times what decoding it costs, against
//! the same of some that would have to go. Every byte is taken from the memory of all queries, and given back when they
//! need it. Chunks are named by a file's content, so that none is ever invalid; those of files that are gone are no longer
//! asked for and fade.

mod size;
mod sketch;

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arrow::array::ArrayRef;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use indexmap::IndexMap;
use tokio::sync::Semaphore;

use crate::spill::Spills;
use sketch::Sketch;

/// Rows of a block: those of a batch.
pub const BLOCK_ROWS: usize = 8_192;
/// Blocks of a segment.
pub const SEGMENT_BLOCKS: usize = 16;
/// Rows of a segment.
pub const SEGMENT_ROWS: usize = BLOCK_ROWS * SEGMENT_BLOCKS;

/// How many chunks are looked at to find one that can go.
const SAMPLE: usize = 12;
/// How many chunks may go for one that comes.
const MOST_VICTIMS: usize = 64;
/// The share of all bytes that may be lent: one in so many.
const LENDABLE: usize = 4;

/// Names a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// The file's content: [`crate::inspect::FileInfo::id`].
    pub file: u64,
    /// The column's place in the file.
    pub column: u32,
    /// The segment's number, counted over all row groups.
    pub segment: u32,
    /// A hash of the type that its values were brought to.
    pub kind: u64,
}

/// One column of one segment, as far as it has been decoded.
#[derive(Debug)]
pub struct Chunk {
    blocks: Box<[OnceLock<ArrayRef>]>,
    /// Where the memory that was counted lies: blocks share some of it.
    counted: Mutex<HashSet<usize>>,
    bytes: AtomicUsize,
}

impl Chunk {
    fn new(blocks: usize) -> Self {
        Self {
            blocks: (0..blocks).map(|_| OnceLock::new()).collect(),
            counted: Mutex::default(),
            bytes: AtomicUsize::new(0),
        }
    }

    /// A block's values, if they have been decoded.
    pub fn block(&self, at: usize) -> Option<&ArrayRef> {
        self.blocks.get(at)?.get()
    }
}

/// What hot columns have done since the start, and hold now.
#[derive(Clone, Copy, Debug, Default)]
pub struct HotCounts {
    /// Bytes held, those of key indexes too.
    pub bytes: u64,
    /// Bytes that may be held.
    pub capacity: u64,
    /// Blocks of columns that were taken from memory.
    pub hits: u64,
    /// Blocks of columns that were decoded.
    pub misses: u64,
    /// Chunks that made room for others, or for queries.
    pub evictions: u64,
    /// Bytes on disk, of text files that did not stay in memory.
    pub spilled: u64,
    /// Bytes that those may take.
    pub max_spilled: u64,
}

/// The cache of all tables' hot columns.
#[derive(Debug)]
pub struct HotColumns {
    capacity: usize,
    /// The share of the memory of all queries that is held.
    memory: MemoryReservation,
    inner: Mutex<Inner>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    /// Lets one scan that was cut off go on for the cache's sake.
    completions: Arc<Semaphore>,
    /// Where text goes whose columns do not stay.
    spills: Arc<Spills>,
    /// Bytes that are lent to indexes.
    lent: Arc<AtomicUsize>,
}

/// Some of the bytes that hot columns may hold, used for something else until this is dropped.
#[derive(Debug)]
pub struct Lent {
    lent: Arc<AtomicUsize>,
    memory: MemoryReservation,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.lent.fetch_sub(self.memory.size(), Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Inner {
    chunks: IndexMap<ChunkKey, Entry, BuildHasherDefault<DefaultHasher>>,
    bytes: usize,
    sketch: Sketch,
    random: u64,
}

#[derive(Debug)]
struct Entry {
    chunk: Arc<Chunk>,
    /// What it costs to decode a byte of it, in bytes of Parquet.
    cost: u8,
}

impl Inner {
    /// The next pseudo-random number (xorshift64*).
    fn random(&mut self) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
    }

    /// How much a chunk is worth keeping.
    fn worth(&self, key: &ChunkKey, cost: u8) -> u32 {
        u32::from(self.sketch.count(hash(key))) * u32::from(cost)
    }

    /// Of some chunks that are not among `spared`, the one least worth keeping.
    fn victim(&mut self, spared: &HashSet<ChunkKey>) -> Option<(ChunkKey, u32)> {
        let mut least: Option<(ChunkKey, u32)> = None;
        for _ in 0..SAMPLE.min(self.chunks.len()) {
            let at = self.random() % self.chunks.len();
            let Some((key, entry)) = self.chunks.get_index(at) else { continue };
            let (key, cost) = (*key, entry.cost);
            let worth = self.worth(&key, cost);
            if !spared.contains(&key) && least.is_none_or(|(_, known)| worth < known) {
                least = Some((key, worth));
            }
        }
        least
    }

    /// Takes a chunk out; returns its bytes.
    fn remove(&mut self, key: &ChunkKey) -> usize {
        let bytes = self.chunks.swap_remove(key).map_or(0, |entry| entry.chunk.bytes.load(Ordering::Relaxed));
        self.bytes -= bytes;
        bytes
    }
}

fn hash(key: &ChunkKey) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

impl HotColumns {
    /// A cache of at most `capacity` bytes, taken from `memory`; 0 bytes keep nothing.
    pub fn new(capacity: usize, memory: &Arc<dyn MemoryPool>, spills: Spills) -> Self {
        Self {
            capacity,
            memory: MemoryConsumer::new("hot columns").register(memory),
            inner: Mutex::new(Inner {
                chunks: IndexMap::default(),
                bytes: 0,
                sketch: Sketch::default(),
                random: 0x9E37_79B9_7F4A_7C15,
            }),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            completions: Arc::new(Semaphore::new(1)),
            spills: Arc::new(spills),
            lent: Arc::default(),
        }
    }

    /// Lends bytes, for which columns may have to go; nothing where they are more than a share of all.
    pub fn lend(&self, bytes: usize) -> Option<Lent> {
        if bytes > self.capacity / LENDABLE {
            return None;
        }
        let room = self.room(&self.inner());
        if room < bytes {
            self.shed(bytes - room);
        }
        let memory = self.memory.new_empty();
        memory.try_grow(bytes).ok()?;
        self.lent.fetch_add(bytes, Ordering::Relaxed);
        Some(Lent { lent: Arc::clone(&self.lent), memory })
    }

    /// The most bytes that indexes may hold together.
    pub fn lendable(&self) -> usize {
        self.capacity / LENDABLE
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No invariant spans a panic: counting and evicting do not call out.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything may be kept.
    pub fn enabled(&self) -> bool {
        self.capacity > 0
    }

    /// The chunks of these names that are there, and counts that they were asked for.
    pub fn lookup(&self, keys: impl Iterator<Item = ChunkKey>) -> Vec<Option<Arc<Chunk>>> {
        let mut inner = self.inner();
        keys.map(|key| {
            inner.sketch.add(hash(&key));
            inner.chunks.get(&key).map(|entry| Arc::clone(&entry.chunk))
        })
        .collect()
    }

    /// A chunk to be filled: the one that is there, or a new one if it may come in. `blocks` is how many blocks the
    /// segment has, `bytes` about what they will take together, `cost` what decoding a byte costs in bytes of Parquet.
    pub fn begin(&self, key: ChunkKey, blocks: usize, bytes: usize, cost: u8) -> Option<Arc<Chunk>> {
        if bytes > self.capacity {
            return None;
        }
        let mut inner = self.inner();
        if let Some(known) = inner.chunks.get(&key) {
            return Some(Arc::clone(&known.chunk));
        }
        let room = self.room(&inner);
        if bytes > room && !self.displace(&mut inner, key, cost, bytes - room) {
            return None;
        }
        let chunk = Arc::new(Chunk::new(blocks));
        inner.chunks.insert(key, Entry { chunk: Arc::clone(&chunk), cost });
        Some(chunk)
    }

    /// How many bytes could be kept in addition, if queries left the memory.
    fn room(&self, inner: &Inner) -> usize {
        self.capacity.saturating_sub(inner.bytes + self.lent.load(Ordering::Relaxed))
    }

    /// Makes room for a chunk where that displaces only what is worth less.
    fn displace(&self, inner: &mut Inner, key: ChunkKey, cost: u8, bytes: usize) -> bool {
        let worth = inner.worth(&key, cost);
        let (mut victims, mut freed) = (HashSet::new(), 0);
        while freed < bytes {
            let Some((victim, its_worth)) = inner.victim(&victims) else { return false };
            if its_worth >= worth || victims.len() >= MOST_VICTIMS {
                return false;
            }
            freed += inner.chunks.get(&victim).map_or(0, |entry| entry.chunk.bytes.load(Ordering::Relaxed));
            victims.insert(victim);
        }
        for victim in victims {
            self.evict(inner, &victim);
        }
        true
    }

    fn evict(&self, inner: &mut Inner, key: &ChunkKey) -> usize {
        let bytes = inner.remove(key);
        self.memory.shrink(bytes);
        self.evictions.fetch_add(1, Ordering::Relaxed);
        bytes
    }

    /// Adds a block to a chunk from [`Self::begin`]. False where there is no memory for it, or the chunk has had to go.
    pub fn fill(&self, key: ChunkKey, chunk: &Arc<Chunk>, at: usize, values: &ArrayRef) -> bool {
        let Some(slot) = chunk.blocks.get(at) else { return false };
        let bytes = {
            let mut counted = chunk.counted.lock().unwrap_or_else(PoisonError::into_inner);
            size::uncounted(values, &mut counted)
        };
        let mut inner = self.inner();
        // Another scan may have been faster.
        if slot.get().is_some() {
            return true;
        }
        let there = inner.chunks.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry.chunk, chunk));
        if !there || bytes > self.room(&inner) || self.memory.try_grow(bytes).is_err() {
            return false;
        }
        inner.bytes += bytes;
        chunk.bytes.fetch_add(bytes, Ordering::Relaxed);
        slot.set(Arc::clone(values)).is_ok()
    }

    /// Gives at least `bytes` back to the memory of all queries, if there are as many. Returns how many.
    pub fn shed(&self, bytes: usize) -> usize {
        let mut inner = self.inner();
        let (mut freed, none) = (0, HashSet::new());
        while freed < bytes {
            let Some((victim, _)) = inner.victim(&none) else { break };
            freed += self.evict(&mut inner, &victim);
        }
        freed
    }

    /// Counts blocks taken from memory and blocks decoded.
    pub(crate) fn count(&self, hits: usize, misses: usize) {
        self.hits.fetch_add(hits as u64, Ordering::Relaxed);
        self.misses.fetch_add(misses as u64, Ordering::Relaxed);
    }

    /// One at a time may decode on for the cache's sake.
    pub(crate) fn completions(&self) -> Arc<Semaphore> {
        Arc::clone(&self.completions)
    }

    /// Text files that were written as Parquet.
    pub(crate) fn spills(&self) -> &Arc<Spills> {
        &self.spills
    }

    /// What it holds, and has done.
    pub fn counts(&self) -> HotCounts {
        HotCounts {
            bytes: (self.inner().bytes + self.lent.load(Ordering::Relaxed)) as u64,
            capacity: self.capacity as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            spilled: self.spills.bytes(),
            max_spilled: self.spills.capacity(),
        }
    }
}

#[cfg(test)]
mod tests;
