//! Scans without a plan around them: rows in the table's order, and rows by their place.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, Statistics, internal_datafusion_err};
use datafusion::physical_plan::PhysicalExpr;
use futures::Stream;
use tokio::sync::OnceCell;
use tracing::Span;

use super::cold::ColdRun;
use super::file::{self, Opened};
use super::reader::{AtHand, Piece, Plan, Reader, Ready, hot_piece};
use super::work::{Group, Run, Work};
use super::{Caches, Positions, Scan, Source};
use crate::hot::{BLOCK_ROWS, SEGMENT_ROWS};
use crate::store::PinnedStore;
use crate::table::Table;

/// A scan of some columns of a table in the table's order, which may be read any number of times.
pub struct RowScan {
    ready: Ready,
    /// The files as readers of memory have opened them.
    files: Arc<[OnceCell<Opened>]>,
}

impl std::fmt::Debug for RowScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowScan({})", self.ready.schema)
    }
}

impl RowScan {
    /// A scan of the columns at these places of the table's schema, which two positions follow where there are any, of the
    /// rows that meet all `filters`. At most `readers` share it.
    pub fn new(
        table: Arc<Table>,
        store: Arc<PinnedStore>,
        caches: &Caches,
        positions: Option<Positions>,
        columns: &[usize],
        filters: Vec<Arc<dyn PhysicalExpr>>,
        readers: usize,
    ) -> Result<Self> {
        let files = table.files.iter().map(|_| OnceCell::new()).collect();
        let source = Arc::new(Source::new(table, store, caches.clone(), positions));
        let statistics = Statistics::new_unknown(&source.schema);
        let scan = Scan::new(source, Some(&columns.to_vec()), None, readers, statistics)?;
        Ok(Self { ready: Ready::new(&Scan { filters, ..scan })?, files })
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.ready.schema)
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The rows behind a place, a file's number and a row's in it, `fetch` of them at most.
    pub fn batches(
        &self,
        after: Option<(u32, i64)>,
        fetch: Option<usize>,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        Reader::new(self.ready.clone(), self.work(after, fetch), BLOCK_ROWS, None, &Span::current()).batches()
    }

    /// All rows, shared among readers, each in the table's order. Rows that filters leave of several blocks come together
    /// only as long as they are fewer than `rows`.
    pub fn readers(&self, rows: usize) -> Vec<impl Stream<Item = Result<RecordBatch>> + Send + 'static> {
        let work = self.work(None, None);
        let reader = |_| Reader::new(self.ready.clone(), Arc::clone(&work), rows, None, &Span::current()).batches();
        (0..self.ready.plan.readers).map(reader).collect()
    }

    /// The same where they lie in memory: the stream fails at rows that don't, and when `blocks` are used up. Each file that
    /// is opened and each block of rows that is looked at takes one.
    pub fn batches_at_hand(
        &self,
        after: Option<(u32, i64)>,
        fetch: Option<usize>,
        blocks: Arc<AtomicUsize>,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        let at_hand = AtHand { blocks, files: Arc::clone(&self.files) };
        Reader::new(self.ready.clone(), self.work(after, fetch), BLOCK_ROWS, Some(at_hand), &Span::none()).batches()
    }

    fn work(&self, after: Option<(u32, i64)>, fetch: Option<usize>) -> Arc<Work> {
        Arc::new(Work::new(self.files.len(), fetch, after))
    }
}

/// Rows of one snapshot by their place.
pub struct Points {
    plan: Arc<Plan>,
    /// The files, once they were opened.
    files: Vec<OnceCell<Opened>>,
}

impl std::fmt::Debug for Points {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Points({})", self.plan.schema)
    }
}

impl Points {
    /// Reads the columns at these places of the table's schema, in that order.
    pub fn new(table: Arc<Table>, store: Arc<PinnedStore>, caches: &Caches, columns: &[usize]) -> Result<Self> {
        let files = table.files.iter().map(|_| OnceCell::new()).collect();
        let source = Arc::new(Source::new(table, store, caches.clone(), None));
        let schema = Arc::new(source.schema.project(columns)?);
        Ok(Self { plan: Arc::new(Plan { source, schema, predicate: None, readers: 1 }), files })
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.schema)
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The rows that lie about a row of a file, and its place among them, if they are in memory.
    pub fn at_hand(&self, file: usize, row: u64) -> Result<Option<(RecordBatch, usize)>> {
        let opened = self.files.get(file).and_then(OnceCell::get);
        let Some((group, at)) = opened.and_then(|opened| find(opened, row)) else { return Ok(None) };
        let piece = self.hot(group, at)?;
        piece.map(|piece| self.with_place(&piece, row)).transpose()
    }

    /// The rows that lie about a row of a file, and its place among them. From memory where they are hot.
    pub async fn around(&self, file: usize, row: u64) -> Result<(RecordBatch, usize)> {
        let open = || file::open(&self.plan, file, true);
        let opened = self.files.get(file).ok_or_else(missing)?.get_or_try_init(open).await?;
        let (group, at) = find(opened, row).ok_or_else(missing)?;
        let piece = match self.hot(group, at)? {
            Some(piece) => piece,
            None => {
                // Opened anew: what was text then may be something faster to read now.
                let opened = open().await?;
                let (group, at) = find(&opened, row).ok_or_else(missing)?;
                self.cold(group, at).await?.ok_or_else(missing)?
            }
        };
        self.with_place(&piece, row)
    }

    fn with_place(&self, piece: &Piece, row: u64) -> Result<(RecordBatch, usize)> {
        let place = usize::try_from(row).ok().zip(usize::try_from(piece.first_row).ok());
        let place = place.and_then(|(row, first)| row.checked_sub(first)).filter(|place| *place < piece.rows);
        Ok((piece.batch(&self.plan.schema)?, place.ok_or_else(missing)?))
    }

    /// The block that holds row `at` of the group, if all its columns are in memory.
    fn hot(&self, group: &Group, at: u64) -> Result<Option<Piece>> {
        let segment = at / SEGMENT_ROWS as u64;
        let chunks = self.plan.source.caches.hot.lookup(group.keys(segment));
        let block = super::work::block_in_segment(at / BLOCK_ROWS as u64);
        let chunks = chunks.into_iter().map(|chunk| chunk.filter(|c| c.block(block).is_some()).map(|c| vec![c]));
        let Some(chunks) = chunks.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let rows = block_of(group, at);
        let mut start = rows.start;
        hot_piece(&self.plan, &Run { group: group.clone(), rows, chunks, hot: true }, &mut start)
    }

    /// Decodes rows of the group up to the block that holds row `at`: only that block where the file can be read so.
    async fn cold(&self, group: &Group, at: u64) -> Result<Option<Piece>> {
        let block = block_of(group, at);
        let rows = if group.file.is_stream() { block.start..group.rows } else { block };
        let chunks = group.file.reads.iter().map(|_| Vec::new()).collect();
        let mut run = Box::new(ColdRun::new(&self.plan, Run { group: group.clone(), rows, chunks, hot: false }).await?);
        let wanted = group.first_row + i64::try_from(at).unwrap_or(i64::MAX);
        while let Some(piece) = run.next().await? {
            if wanted < piece.first_row + i64::try_from(piece.rows).unwrap_or(i64::MAX) {
                run.complete();
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

fn missing() -> DataFusionError {
    internal_datafusion_err!("a row that was indexed is not there")
}

/// The group that holds a row of a file, and the row's number there.
fn find(opened: &Opened, row: u64) -> Option<(&Group, u64)> {
    let wanted = i64::try_from(row).ok()?;
    let after = opened.partition_point(|(group, _)| group.first_row <= wanted);
    let (group, rows) = opened.get(after.checked_sub(1)?)?;
    let at = u64::try_from(wanted - group.first_row).ok()?;
    rows.contains(&at).then_some((group, at))
}

fn block_of(group: &Group, at: u64) -> std::ops::Range<u64> {
    let start = at / BLOCK_ROWS as u64 * BLOCK_ROWS as u64;
    start..(start + BLOCK_ROWS as u64).min(group.rows)
}
