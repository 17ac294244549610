//! Text files whose columns do not stay in memory, written once as Parquet: what comes after is read from there.
//!
//! A spill is named by the content of its text file and the types of its table, and known to this process alone, from when
//! it is whole: nobody ever finds half of one, and no later process finds any.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::Compression;
use ::parquet::file::properties::WriterProperties;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, exec_err};
use indexmap::IndexMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::hot::{BLOCK_ROWS, SEGMENT_ROWS};
use crate::listing::{ListedFile, Place};
use crate::scratch::Scratch;

/// Text files that are smaller are as soon decoded again.
const WORTH_BYTES: u64 = 1 << 20;
/// What of a row group may be in memory; row groups end with the segment after that.
const GROUP_BYTES: usize = 16 << 20;
/// Rows of a row group at most.
const GROUP_ROWS: usize = 8 * SEGMENT_ROWS;

/// Names what a text file decodes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpillKey {
    /// The file's content: [`crate::inspect::FileInfo::id`].
    pub(crate) file: u64,
    /// A hash of its columns' types.
    pub(crate) kind: u64,
}

/// A text file as Parquet. The file goes with the last reader.
#[derive(Debug)]
pub(crate) struct Spilled {
    pub(crate) listed: Arc<ListedFile>,
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Drop for Spilled {
    fn drop(&mut self) {
        if let Place::Disk { path, .. } = &self.listed.place {
            let _ = std::fs::remove_file(path);
        }
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// All spills, in a folder of their own, bounded in bytes.
#[derive(Debug)]
pub struct Spills {
    scratch: Option<Arc<Scratch>>,
    capacity: u64,
    used: Arc<AtomicU64>,
    count: AtomicU64,
    state: Mutex<State>,
    /// One is written at a time.
    writing: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    /// The one that was used last comes last.
    spills: IndexMap<SpillKey, Arc<Spilled>>,
    /// Files that were decoded before, and those that can't be spilled.
    decoded: IndexMap<SpillKey, ()>,
    hopeless: HashSet<SpillKey>,
    /// Until when none is begun.
    pause: Option<Instant>,
}

/// How many files are remembered to have been decoded, or not to fit.
const REMEMBERED: usize = 10_000;
/// How long none is begun after the disk was full.
const PAUSE: Duration = Duration::from_secs(10);

impl Spills {
    /// Spills of at most `capacity` bytes in a scratch folder; none without one.
    pub fn new(scratch: Option<Arc<Scratch>>, capacity: u64) -> Self {
        Self {
            scratch,
            capacity,
            used: Arc::default(),
            count: AtomicU64::new(0),
            state: Mutex::default(),
            writing: Arc::new(Semaphore::new(1)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one insertion or removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The spill of a file, if there is one.
    pub(crate) fn get(&self, key: SpillKey) -> Option<Arc<Spilled>> {
        let mut state = self.state();
        let (at, _, spilled) = state.spills.get_full(&key)?;
        let (last, spilled) = (state.spills.len() - 1, Arc::clone(spilled));
        state.spills.move_index(at, last);
        Some(spilled)
    }

    /// Notes that a text file of `size` bytes was decoded to its end, `kept` whole or not, and says whether it should be
    /// spilled now: when it did not stay in memory, or was decoded before. The permit is for whoever does it.
    pub(crate) fn wants(&self, key: SpillKey, size: u64, kept: bool) -> Option<OwnedSemaphorePermit> {
        if self.scratch.is_none() || size < WORTH_BYTES || self.capacity == 0 {
            return None;
        }
        let mut state = self.state();
        if state.hopeless.contains(&key) || state.spills.contains_key(&key) {
            return None;
        }
        if state.pause.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let again = state.decoded.insert(key, ()).is_some();
        if state.decoded.len() > REMEMBERED {
            state.decoded.shift_remove_index(0);
        }
        if kept && !again {
            return None;
        }
        Arc::clone(&self.writing).try_acquire_owned().ok()
    }

    /// Begins to write one.
    pub(crate) fn begin(self: &Arc<Self>, key: SpillKey, schema: SchemaRef) -> Result<Writer> {
        let Some(scratch) = &self.scratch else { return exec_err!("there is no folder to spill to") };
        // So that what is written and what is there are never more than all may be.
        let most = self.capacity / 2;
        self.make_room(most);
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = scratch.path().join(format!("{number}.parquet"));
        let file = Unfinished(Some(path.clone()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_data_page_row_count_limit(2 * BLOCK_ROWS)
            .set_write_batch_size(BLOCK_ROWS)
            .build();
        let counted = Counted { file: std::fs::File::create(&path)?, written: 0, most };
        let writer = ArrowWriter::try_new(counted, schema, Some(properties))?;
        Ok(Writer { spills: Arc::clone(self), key, writer, rows: 0, file })
    }

    /// Remembers that a file can't be spilled.
    pub(crate) fn give_up(&self, key: SpillKey) {
        let mut state = self.state();
        if state.hopeless.len() >= REMEMBERED {
            state.hopeless.clear();
        }
        state.hopeless.insert(key);
    }

    /// Begins none for a while: the disk is full, or no file can be opened.
    pub(crate) fn pause(&self) {
        self.state().pause = Some(Instant::now() + PAUSE);
    }

    /// Lets the oldest go until there is room for another one.
    fn make_room(&self, bytes: u64) {
        let mut gone = Vec::new();
        let mut state = self.state();
        let mut rest: u64 = state.spills.values().map(|spilled| spilled.bytes).sum();
        while rest + bytes > self.capacity {
            let Some((_, oldest)) = state.spills.shift_remove_index(0) else { break };
            rest -= oldest.bytes;
            gone.push(oldest);
        }
        // Their files are removed once nobody else waits.
        drop(state);
    }
}

/// A file that goes unless it was finished.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Writes no more than it may.
struct Counted {
    file: std::fs::File,
    written: u64,
    most: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.written + bytes.len() as u64 > self.most {
            return Err(std::io::Error::new(
                std::io::ErrorKind::FileTooLarge,
                "a spill takes half of what all may at most",
            ));
        }
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A spill in the making.
pub(crate) struct Writer {
    spills: Arc<Spills>,
    key: SpillKey,
    writer: ArrowWriter<Counted>,
    rows: usize,
    file: Unfinished,
}

impl Writer {
    /// Adds rows. Blocking.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut at = 0;
        while at < batch.num_rows() {
            // Row groups end where segments do, so that the rows of both are counted alike.
            let count = (SEGMENT_ROWS - self.rows % SEGMENT_ROWS).min(batch.num_rows() - at);
            self.writer.write(&batch.slice(at, count))?;
            (at, self.rows) = (at + count, self.rows + count);
            if self.rows.is_multiple_of(SEGMENT_ROWS) && self.writer.in_progress_size() > GROUP_BYTES {
                self.writer.flush()?;
            }
        }
        Ok(())
    }

    /// Ends the file; from now on it is found. Blocking.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { spills, key, writer, mut file, .. } = self;
        let metadata = writer.into_inner()?.file.metadata()?;
        let Some(path) = file.0.take() else { return exec_err!("a spill has no path") };
        let (bytes, used) = (metadata.len(), Arc::clone(&spills.used));
        used.fetch_add(bytes, Ordering::Relaxed);
        let spilled = Spilled { listed: Arc::new(ListedFile::spilled(path, &metadata)), bytes, used };
        spills.state().spills.insert(key, Arc::new(spilled));
        Ok(())
    }
}
