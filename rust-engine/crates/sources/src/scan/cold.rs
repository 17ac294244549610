//! A run of rows that are not all in memory: the columns that are missing are decoded, the others are taken from there.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Schema;
use datafusion::common::{Result, internal_err};
use tokio::runtime::Handle;

use super::file::{Kind, spill_key};
use super::fill::Filler;
use super::parquet::ColdGroup;
use super::reader::{Piece, Plan};
use super::stream::{ColdStream, spill};
use super::work::{Group, Run, block_in_segment};
use crate::hot::{BLOCK_ROWS, Chunk, SEGMENT_ROWS};

/// A cold run under way.
pub(super) struct ColdRun {
    plan: Arc<Plan>,
    group: Group,
    /// The rows that the decoder has yet to give.
    coming: VecDeque<Range<u64>>,
    /// The first row that is wanted: what is decoded front to back begins at the file's start.
    start: u64,
    /// Of each column that is read, where it comes from.
    columns: Vec<Origin>,
    decoding: Decoding,
    /// What was decoded and not yet passed on: the columns, the place of the next row, the number of rows.
    batch: Option<(Vec<ArrayRef>, usize, usize)>,
    filler: Filler,
}

enum Origin {
    /// Decoded: a place among the decoder's columns.
    Decoded(usize),
    /// In memory: a chunk for each segment of the run, from this one on.
    Kept(u64, Vec<Arc<Chunk>>),
}

enum Decoding {
    Group(Box<ColdGroup>),
    Stream(Box<ColdStream>),
}

impl ColdRun {
    pub(super) async fn new(plan: &Arc<Plan>, run: Run) -> Result<Self> {
        let Run { group, rows, chunks, .. } = run;
        let file = Arc::clone(&group.file);
        let first_segment = rows.start / SEGMENT_ROWS as u64;
        let (mut missing, mut columns) = (Vec::new(), Vec::new());
        for (read, chunks) in chunks.into_iter().enumerate() {
            columns.push(if chunks.is_empty() {
                missing.push(read);
                Origin::Decoded(missing.len() - 1)
            } else {
                Origin::Kept(first_segment, chunks)
            });
        }
        let whole = if file.is_stream() { 0..rows.end } else { rows.clone() };
        let coming: Vec<Range<u64>> = match &group.left {
            None => std::iter::once(whole).collect(),
            Some(left) => {
                let common = left.iter().map(|left| left.start.max(whole.start)..left.end.min(whole.end));
                common.filter(|common| !common.is_empty()).collect()
            }
        };
        let decoding = match &file.kind {
            Kind::Parquet(parquet) => {
                Decoding::Group(Box::new(ColdGroup::new(&file, parquet, group.number, &coming, &missing)?))
            }
            Kind::Stream(decoding) => {
                let fields = missing.iter().map(|read| Arc::clone(&file.reads[*read].field)).collect::<Vec<_>>();
                let columns = Arc::new(Schema::new(fields));
                Decoding::Stream(Box::new(ColdStream::new(&plan.source, decoding, columns).await?))
            }
        };
        let filler = Filler::new(&plan.source.caches.hot, &group, &missing);
        let (plan, coming) = (Arc::clone(plan), coming.into());
        Ok(Self { plan, group, coming, start: rows.start, columns, decoding, batch: None, filler })
    }

    /// The next rows, all of one block.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>> {
        loop {
            let Some(range) = self.coming.front().cloned() else {
                self.spill();
                return Ok(None);
            };
            let (arrays, at, rows) = match self.batch.take() {
                Some(batch) => batch,
                None => match self.decode().await? {
                    Some((arrays, rows)) => (arrays, 0, rows),
                    None => return internal_err!("a file holds fewer rows than were counted"),
                },
            };
            let block_end = (range.start / BLOCK_ROWS as u64 + 1) * BLOCK_ROWS as u64;
            let end = range.end.min(block_end).min(range.start + (rows - at) as u64);
            let taken = usize::try_from(end - range.start).unwrap_or(usize::MAX);
            let whole = taken == rows;
            let piece: Vec<ArrayRef> =
                arrays.iter().map(|array| if whole { Arc::clone(array) } else { array.slice(at, taken) }).collect();
            self.filler.feed(range.start, &piece, taken as u64, whole);
            if at + taken < rows {
                self.batch = Some((arrays, at + taken, rows));
            }
            self.coming.pop_front();
            if end < range.end {
                self.coming.push_front(end..range.end);
            }
            if end > self.start {
                return self.piece(range.start..end, &piece).map(Some);
            }
        }
    }

    async fn decode(&mut self) -> Result<Option<(Vec<ArrayRef>, usize)>> {
        loop {
            let decoded = match &mut self.decoding {
                Decoding::Group(group) => {
                    let arrays = group.next().await?;
                    arrays.map(|arrays| {
                        let rows = arrays.first().map_or(0, |array| array.len());
                        (arrays, rows)
                    })
                }
                Decoding::Stream(stream) => {
                    stream.next().await?.map(|batch| (batch.columns().to_vec(), batch.num_rows()))
                }
            };
            if decoded.as_ref().is_none_or(|(_, rows)| *rows > 0) {
                return Ok(decoded);
            }
        }
    }

    /// The rows with all their columns, but for those that lie before the first one wanted.
    fn piece(&self, rows: Range<u64>, decoded: &[ArrayRef]) -> Result<Piece> {
        let from = rows.start.max(self.start);
        let skip = usize::try_from(from - rows.start).unwrap_or_default();
        let length = usize::try_from(rows.end - from).unwrap_or_default();
        let block = from / BLOCK_ROWS as u64;
        let in_block = usize::try_from(from % BLOCK_ROWS as u64).unwrap_or_default();
        let arrays = self.columns.iter().map(|column| match column {
            Origin::Decoded(at) => Ok(decoded[*at].slice(skip, length)),
            Origin::Kept(first, chunks) => {
                let segment = usize::try_from(from / SEGMENT_ROWS as u64 - first).unwrap_or(usize::MAX);
                let values = chunks.get(segment).and_then(|chunk| chunk.block(block_in_segment(block)));
                match values {
                    Some(values) => Ok(values.slice(in_block, length)),
                    None => internal_err!("a hot column lacks a block that it had"),
                }
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let kept = self.columns.iter().filter(|column| matches!(column, Origin::Kept(..))).count();
        self.plan.source.caches.hot.count(kept, self.columns.len() - kept);
        let first_row = self.group.first_row + i64::try_from(from).unwrap_or(i64::MAX);
        Ok(Piece { file: Arc::clone(&self.group.file), first_row, rows: length, arrays })
    }

    /// Lets a text file that was decoded to its end be spilled, where it will have to be decoded again.
    fn spill(&self) {
        let (source, file) = (&self.plan.source, &self.group.file);
        let Some((listed, info)) = source.table.files.get(file.number) else { return };
        if !file.is_stream() || !listed.is_text() || !listed.settled || !source.caches.hot.enabled() {
            return;
        }
        let key = spill_key(source, info);
        let kept = self.filler.kept_all();
        if let Ok(runtime) = Handle::try_current()
            && let Some(permit) = source.caches.hot.spills().wants(key, listed.size, kept)
        {
            runtime.spawn(spill(Arc::clone(source), file.number, key, permit));
        }
    }

    /// Decodes on in the background what front-to-back reading has yet to give, for the cache's sake, if nobody else does
    /// at the moment: a scan that is cut off early, again and again, would otherwise never find anything in memory.
    pub(super) fn complete(mut self: Box<Self>) {
        if !self.group.file.is_stream() || self.coming.is_empty() || !self.filler.is_useful() {
            return;
        }
        let completions = self.plan.source.caches.hot.completions();
        let (Ok(permit), Ok(runtime)) = (completions.try_acquire_owned(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            let _permit = permit;
            // A failure is told to whoever reads next.
            while self.filler.is_useful() && matches!(self.next().await, Ok(Some(_))) {
                tokio::task::yield_now().await;
            }
        });
    }
}
