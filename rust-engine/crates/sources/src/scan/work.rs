//! The work of a scan, which its readers share: files to open, and runs of rows to read.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::common::Result;
use tokio::sync::Notify;

use super::file::OpenFile;
use super::reader::Plan;
use crate::hot::{BLOCK_ROWS, Chunk, ChunkKey, SEGMENT_ROWS};

/// Rows that a cold run has at most where the scan ends after few rows: what is fetched beyond those is for nothing.
const SHORT_RUN: u64 = SEGMENT_ROWS as u64;

/// Rows of one group of a file: a row group of Parquet, the whole of any other file.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) file: Arc<OpenFile>,
    /// The row group's number.
    pub(super) number: usize,
    /// The number of its first row in the file.
    pub(super) first_row: i64,
    /// How many rows it has.
    pub(super) rows: u64,
    /// The number of its first segment in the file.
    pub(super) first_segment: u32,
    /// The rows that pages' statistics leave, where they leave out some.
    pub(super) left: Option<Arc<[Range<u64>]>>,
}

impl Group {
    /// How many rows a block has.
    pub(super) fn block_rows(&self, block: u64) -> u64 {
        (self.rows - block * BLOCK_ROWS as u64).min(BLOCK_ROWS as u64)
    }

    /// How many blocks a segment has.
    pub(super) fn segment_blocks(&self, segment: u64) -> usize {
        let rows = (self.rows - segment * SEGMENT_ROWS as u64).min(SEGMENT_ROWS as u64);
        usize::try_from(rows).unwrap_or(SEGMENT_ROWS).div_ceil(BLOCK_ROWS)
    }

    /// The names of the chunks of a segment, one for each column that is read of the file.
    pub(super) fn keys(&self, segment: u64) -> impl Iterator<Item = ChunkKey> {
        let segment = self.first_segment + u32::try_from(segment).unwrap_or(u32::MAX);
        let file = self.file.id;
        self.file.reads.iter().map(move |read| ChunkKey { file, column: read.column, segment, kind: read.kind })
    }

    /// Whether any of these rows may meet the scan's conditions.
    pub(super) fn may_match(&self, rows: &Range<u64>) -> bool {
        self.left.as_ref().is_none_or(|left| left.iter().any(|l| l.start < rows.end && rows.start < l.end))
    }
}

/// Rows to read.
pub(super) struct Run {
    pub(super) group: Group,
    /// Counted within the group.
    pub(super) rows: Range<u64>,
    /// Of each column that the scan reads of files, what is in memory: for a run that is hot all of the one segment that
    /// the run lies in; for another one the columns that are whole there, one chunk a segment.
    pub(super) chunks: Vec<Vec<Arc<Chunk>>>,
    pub(super) hot: bool,
}

/// What a scan's readers share.
#[derive(Debug)]
pub(super) struct Work {
    files: usize,
    state: Mutex<State>,
    /// Told when a file was opened.
    opened: Notify,
    /// How many rows may still leave, where that is limited.
    rest: Option<AtomicUsize>,
    short: bool,
    /// The place in the table that the scan begins behind.
    pub(super) after: Option<(u32, i64)>,
}

#[derive(Default)]
struct State {
    next: usize,
    opening: usize,
    groups: VecDeque<(Group, Range<u64>)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State(next {}, groups {})", self.next, self.groups.len())
    }
}

/// What is to be done next.
pub(super) enum Next {
    Open(usize),
    Read(Box<Run>),
    Wait,
    Nothing,
}

impl Work {
    /// The work of a scan of so many files that ends after `fetch` rows.
    pub(super) fn new(files: usize, fetch: Option<usize>, after: Option<(u32, i64)>) -> Self {
        Self {
            files,
            state: Mutex::default(),
            opened: Notify::new(),
            rest: fetch.map(AtomicUsize::new),
            short: fetch.is_some(),
            after,
        }
    }

    /// How many rows may leave at most.
    pub(super) fn most(&self) -> usize {
        self.rest.as_ref().map_or(usize::MAX, |rest| rest.load(Ordering::Relaxed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever was taken out before a panic is lost together with the query.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes rows to read for `reader`, opening files with `open` as long as there are none.
    pub(super) async fn take<F, O>(&self, plan: &Plan, open: F) -> Result<Option<Box<Run>>>
    where
        F: Fn(usize) -> O,
        O: Future<Output = Result<Vec<(Group, Range<u64>)>>>,
    {
        loop {
            let opened = self.opened.notified();
            match self.next(plan)? {
                Next::Read(run) => return Ok(Some(run)),
                Next::Nothing => return Ok(None),
                Next::Wait => opened.await,
                Next::Open(file) => {
                    let opening = Opening(self);
                    let groups = open(file).await?;
                    self.state().groups.extend(groups);
                    drop(opening);
                }
            }
        }
    }

    fn next(&self, plan: &Plan) -> Result<Next> {
        if self.rest.as_ref().is_some_and(|rest| rest.load(Ordering::Relaxed) == 0) {
            return Ok(Next::Nothing);
        }
        let mut state = self.state();
        while let Some((group, mut rows)) = state.groups.pop_front() {
            if group.file.excludes(group.number)? {
                continue;
            }
            let others = !state.groups.is_empty() || state.next < self.files;
            let run = self.split(group.clone(), &rows, plan, others);
            rows.start = run.rows.end;
            if !rows.is_empty() {
                state.groups.push_front((group, rows));
            }
            if run.group.may_match(&run.rows) {
                return Ok(Next::Read(Box::new(run)));
            }
        }
        if state.next < self.files {
            state.next += 1;
            state.opening += 1;
            return Ok(Next::Open(state.next - 1));
        }
        Ok(if state.opening > 0 { Next::Wait } else { Next::Nothing })
    }

    /// The first rows of a group that are to be read as one: what is hot of their segment, or else what is not, as far
    /// as it goes.
    fn split(&self, group: Group, rows: &Range<u64>, plan: &Plan, others: bool) -> Run {
        let segment = rows.start / SEGMENT_ROWS as u64;
        let end_of = |segment: u64| ((segment + 1) * SEGMENT_ROWS as u64).min(rows.end);
        let find = |segment: u64| plan.source.caches.hot.lookup(group.keys(segment));
        let mut chunks = find(segment);
        let first = rows.start / BLOCK_ROWS as u64;
        let last = end_of(segment).div_ceil(BLOCK_ROWS as u64);
        let hot = (first..last).take_while(|block| chunks.iter().all(|chunk| has(chunk.as_ref(), *block))).count();
        if hot > 0 {
            let end = ((first + hot as u64) * BLOCK_ROWS as u64).min(end_of(segment));
            let chunks = chunks.into_iter().map(|chunk| chunk.into_iter().collect()).collect();
            return Run { group, rows: rows.start..end, chunks, hot: true };
        }
        let most = self.longest(&group, rows, plan, others);
        let mut kept: Vec<Option<Vec<Arc<Chunk>>>> = vec![Some(Vec::new()); chunks.len()];
        let (mut at, mut end) = (segment, end_of(segment));
        loop {
            for (kept, chunk) in kept.iter_mut().zip(&chunks) {
                let whole = chunk.as_ref().filter(|chunk| is_whole(chunk, &group, at));
                match (kept.as_mut(), whole) {
                    (Some(kept), Some(chunk)) => kept.push(Arc::clone(chunk)),
                    _ => *kept = None,
                }
            }
            if end >= rows.end || end - rows.start >= most {
                break;
            }
            at += 1;
            chunks = find(at);
            if !group.file.is_stream() && chunks.iter().all(|c| c.as_ref().is_some_and(|c| is_whole(c, &group, at))) {
                break;
            }
            end = end_of(at);
        }
        let chunks = kept.into_iter().map(Option::unwrap_or_default).collect();
        Run { group, rows: rows.start..end, chunks, hot: false }
    }

    /// How many rows a cold run has at most.
    fn longest(&self, group: &Group, rows: &Range<u64>, plan: &Plan, others: bool) -> u64 {
        if group.file.is_stream() || !group.file.can_seek() {
            return u64::MAX;
        }
        if self.short {
            return SHORT_RUN;
        }
        // The last group is shared, so that no reader is idle while another one has it all.
        if others { u64::MAX } else { (rows.end - rows.start).div_ceil(plan.readers as u64).max(SHORT_RUN) }
    }

    /// Of `rows` rows that could leave, how many may.
    pub(super) fn allow(&self, rows: usize) -> usize {
        let Some(rest) = &self.rest else { return rows };
        let take = |left: usize| Some(left.saturating_sub(rows));
        match rest.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(left) | Err(left) => left.min(rows),
        }
    }

    /// Whether all rows have left that may.
    pub(super) fn is_satisfied(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.load(Ordering::Acquire) == 0)
    }
}

/// Counts a file that is being opened, also when that fails or is given up.
struct Opening<'a>(&'a Work);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.state().opening -= 1;
        self.0.opened.notify_waiters();
    }
}

/// Whether the chunk of the block's segment has the block.
fn has(chunk: Option<&Arc<Chunk>>, block: u64) -> bool {
    chunk.is_some_and(|chunk| chunk.block(block_in_segment(block)).is_some())
}

/// A block's place in its segment.
pub(super) fn block_in_segment(block: u64) -> usize {
    usize::try_from(block % (SEGMENT_ROWS / BLOCK_ROWS) as u64).unwrap_or_default()
}

fn is_whole(chunk: &Chunk, group: &Group, segment: u64) -> bool {
    (0..group.segment_blocks(segment)).all(|block| chunk.block(block).is_some())
}
