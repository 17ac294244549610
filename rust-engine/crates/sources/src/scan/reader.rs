//! One partition of a scan: takes runs of rows, chooses those that meet the conditions, and gives them as batches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{BatchCoalescer, FilterBuilder, FilterPredicate};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;
use futures::Stream;
use quern_core::trace::PART;
use tokio::sync::OnceCell;
use tracing::{Span, field};

use super::chosen::Chosen;
use super::cold::ColdRun;
use super::condition::Condition;
use super::file::{self, OpenFile, Opened, Slot};
use super::term::SPARSE;
use super::work::{Run, Work, block_in_segment};
use super::{Scan, Source, prune};
use crate::hot::BLOCK_ROWS;

/// Batches of at least this many rows are not put together with others.
const LARGE: usize = BLOCK_ROWS / 2;

/// What a reader needs to know of its scan.
pub(super) struct Plan {
    pub(super) source: Arc<Source>,
    /// The columns that are needed, for the output or a condition, in the source's order.
    pub(super) schema: SchemaRef,
    /// The conditions that statistics may judge, over the source's columns.
    pub(super) predicate: Option<Arc<dyn PhysicalExpr>>,
    /// How many readers there are.
    pub(super) readers: usize,
}

/// Some rows of one block of a file.
pub(super) struct Piece {
    pub(super) file: Arc<OpenFile>,
    /// The number of the first row in the file.
    pub(super) first_row: i64,
    pub(super) rows: usize,
    /// The columns that are read of the file.
    pub(super) arrays: Vec<ArrayRef>,
}

enum Reading {
    Hot { run: Box<Run>, at: u64 },
    Cold(Box<ColdRun>),
}

/// A scan made ready to be read, any number of times.
#[derive(Clone)]
pub(super) struct Ready {
    pub(super) plan: Arc<Plan>,
    /// Over the columns that it needs, which are the first to be looked at.
    condition: Condition,
    judged: Arc<[usize]>,
    judged_schema: SchemaRef,
    /// The output's columns, as places among those that are needed.
    output: Arc<[usize]>,
    pub(super) schema: SchemaRef,
}

impl Ready {
    pub(super) fn new(scan: &Scan) -> Result<Self> {
        let source = Arc::clone(&scan.source);
        let projected = scan.projection.column_indices();
        let filtered = scan.filters.iter().flat_map(collect_columns).map(|column| column.index());
        let filtered: BTreeSet<usize> = filtered.collect();
        let needed: BTreeSet<usize> = projected.into_iter().chain(filtered.iter().copied()).collect();
        let needed: Vec<usize> = needed.into_iter().collect();
        let schema = Arc::new(source.schema.project(&needed)?);
        let output = scan.projection.iter().flat_map(|column| collect_columns(&column.expr));
        let output = output.map(|column| schema.index_of(column.name())).collect::<Result<_, _>>()?;
        let judged: Arc<[usize]> =
            (0..).zip(&needed).filter(|(_, at)| filtered.contains(at)).map(|(at, _)| at).collect();
        let judged_schema = Arc::new(schema.project(&judged)?);
        let condition = Condition::new(&scan.filters, &judged_schema)?;
        let predicate = prune::judged(&scan.filters, &source);
        let plan = Arc::new(Plan { source, schema, predicate, readers: scan.partitions });
        let schema = Arc::clone(&scan.schema);
        Ok(Self { plan, condition, judged, judged_schema, output, schema })
    }
}

/// What a reader may do that reads memory only.
pub(super) struct AtHand {
    /// How much may still be looked at.
    pub(super) blocks: Arc<AtomicUsize>,
    /// The files as the first such reader has opened them.
    pub(super) files: Arc<[OnceCell<Opened>]>,
}

/// A partition's reader.
pub(super) struct Reader {
    ready: Ready,
    work: Arc<Work>,
    reading: Option<Reading>,
    small: BatchCoalescer,
    done: bool,
    at_hand: Option<AtHand>,
    /// Begins and ends with the reader.
    span: Span,
    given: u64,
}

impl Reader {
    /// A reader that gives batches of about so many rows. Its span belongs to `within`.
    pub(super) fn new(ready: Ready, work: Arc<Work>, rows: usize, at_hand: Option<AtHand>, within: &Span) -> Box<Self> {
        let table = ready.plan.source.table.name.as_str();
        let span =
            tracing::trace_span!(target: PART, parent: within, "scan", quern.table = table, quern.rows = field::Empty);
        let rows = rows.min(work.most()).max(1);
        let small = BatchCoalescer::new(Arc::clone(&ready.schema), rows).with_biggest_coalesce_batch_size(Some(LARGE));
        Box::new(Self { ready, work, reading: None, small, done: false, at_hand, span, given: 0 })
    }

    /// What it gives.
    pub(super) fn batches(self: Box<Self>) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        futures::stream::try_unfold(self, |mut reader| async move {
            let Some(batch) = reader.next().await? else { return Ok(None) };
            reader.given += batch.num_rows() as u64;
            Ok(Some((batch, reader)))
        })
    }

    /// The next batch.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.small.next_completed_batch() {
                return Ok(Some(batch));
            }
            if self.done {
                return Ok(None);
            }
            let Some(piece) = self.piece().await? else {
                self.done = true;
                self.small.finish_buffered_batch()?;
                continue;
            };
            if let Some(batch) = self.take(piece)? {
                return Ok(Some(batch));
            }
            // Rows that nobody wants are read for as long as that takes, unless the query ends.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// The next rows of the runs; nothing after the last, or once enough rows have left.
    async fn piece(&mut self) -> Result<Option<Piece>> {
        loop {
            if self.work.is_satisfied() {
                return Ok(None);
            }
            if self.reading.is_some() {
                spend(self.at_hand.as_ref())?;
            }
            let piece = match &mut self.reading {
                Some(Reading::Hot { run, at }) => hot_piece(&self.ready.plan, run, at)?,
                Some(Reading::Cold(run)) => run.next().await?,
                None => {
                    let (plan, at_hand, after) = (&self.ready.plan, self.at_hand.as_ref(), self.work.after);
                    let Some(run) = self.work.take(plan, |file| open(plan, file, after, at_hand)).await? else {
                        return Ok(None);
                    };
                    if at_hand.is_some() && !run.hot {
                        return exec_err!("rows are not in memory");
                    }
                    self.reading = Some(if run.hot {
                        let at = run.rows.start;
                        Reading::Hot { run, at }
                    } else {
                        Reading::Cold(Box::new(ColdRun::new(plan, *run).await?))
                    });
                    continue;
                }
            };
            match piece {
                Some(piece) => return Ok(Some(piece)),
                None => self.reading = None,
            }
        }
    }

    /// Chooses rows of a piece. A batch that is large enough comes back, a small one waits for others.
    fn take(&mut self, piece: Piece) -> Result<Option<RecordBatch>> {
        let chosen = if self.ready.judged.is_empty() && self.ready.condition.is_empty() {
            Chosen::All
        } else {
            let judged = self.ready.judged.iter().map(|at| piece.column(*at)).collect();
            self.ready.condition.choose(&piece.batch_of(&self.ready.judged_schema, judged)?)?
        };
        let count = chosen.count(piece.rows);
        let allowed = self.work.allow(count);
        if allowed == 0 {
            return Ok(None);
        }
        if self.ready.output.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(allowed));
            return Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.ready.schema), vec![], &options)?));
        }
        let mask = match chosen {
            Chosen::None => return Ok(None),
            Chosen::All => {
                let output = self.output(&piece)?.slice(0, allowed);
                if allowed >= LARGE || self.work.is_satisfied() {
                    // What waits goes first, and by itself: put together with it, all of this would be copied.
                    self.small.finish_buffered_batch()?;
                    if self.small.is_empty() {
                        return Ok(Some(output));
                    }
                }
                self.small.push_batch(output)?;
                return Ok(None);
            }
            // The rows up to and including the last one that may leave.
            Chosen::Some(mask) if allowed < count => {
                let end = mask.values().set_indices().nth(allowed - 1).map_or(0, |at| at + 1);
                mask.slice(0, end)
            }
            Chosen::Some(mask) => mask,
        };
        if allowed * SPARSE < piece.rows {
            let filter = FilterBuilder::new(&mask).optimize().build();
            let columns = self.ready.output.iter().map(|at| piece.chosen(*at, &mask, &filter));
            let options = RecordBatchOptions::new().with_row_count(Some(allowed));
            let columns = columns.collect::<Result<_>>()?;
            let few = RecordBatch::try_new_with_options(Arc::clone(&self.ready.schema), columns, &options)?;
            self.small.push_batch(few)?;
        } else {
            self.small.push_batch_with_filter(self.output(&piece)?.slice(0, mask.len()), &mask)?;
        }
        Ok(None)
    }

    /// The piece's columns that leave.
    fn output(&self, piece: &Piece) -> Result<RecordBatch> {
        piece.batch_of(&self.ready.schema, self.ready.output.iter().map(|at| piece.column(*at)).collect())
    }
}

/// Opens a file, and leaves out what a scan begins behind.
async fn open(plan: &Plan, file: usize, after: Option<(u32, i64)>, at_hand: Option<&AtHand>) -> Result<Opened> {
    let Some(start) = file::start(plan, file, after) else { return Ok(Vec::new()) };
    spend(at_hand)?;
    let opened = match at_hand.and_then(|at_hand| at_hand.files.get(file)) {
        Some(known) => known.get_or_try_init(|| file::open(plan, file, false)).await?.clone(),
        None => file::open(plan, file, true).await?,
    };
    Ok(file::from(opened, start))
}

/// Uses up one of the blocks that may be looked at.
fn spend(at_hand: Option<&AtHand>) -> Result<()> {
    let Some(AtHand { blocks, .. }) = at_hand else { return Ok(()) };
    match blocks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
        Ok(_) => Ok(()),
        Err(_) => exec_err!("there is more to look at than was allowed"),
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.span.record("quern.rows", self.given);
        if let Some(Reading::Cold(run)) = self.reading.take() {
            run.complete();
        }
    }
}

impl Piece {
    /// The rows with all columns that are needed.
    pub(super) fn batch(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        self.batch_of(schema, (0..self.file.slots.len()).map(|at| self.column(at)).collect())
    }

    /// The rows with these columns.
    fn batch_of(&self, schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }

    /// Of one of the columns that are needed, the rows that a mask over the first ones chooses.
    fn chosen(&self, at: usize, mask: &BooleanArray, filter: &FilterPredicate) -> Result<ArrayRef> {
        let values = match &self.file.slots[at] {
            Slot::Read(at) => self.arrays[*at].slice(0, mask.len()),
            Slot::Constant(values) => return Ok(values.slice(0, filter.count())),
            Slot::Row => {
                let rows = mask.values().set_indices();
                let numbers = rows.map(|row| self.first_row + i64::try_from(row).unwrap_or_default());
                return Ok(Arc::new(Int64Array::from_iter_values(numbers)));
            }
        };
        Ok(filter.filter(&values)?)
    }

    /// One of the columns that are needed.
    fn column(&self, at: usize) -> ArrayRef {
        match &self.file.slots[at] {
            Slot::Read(at) => Arc::clone(&self.arrays[*at]),
            Slot::Constant(values) => values.slice(0, self.rows),
            Slot::Row => {
                let end = self.first_row + i64::try_from(self.rows).unwrap_or_default();
                Arc::new(Int64Array::from_iter_values(self.first_row..end))
            }
        }
    }
}

/// The next block of a run that is in memory, from row `at` on.
pub(super) fn hot_piece(plan: &Plan, run: &Run, at: &mut u64) -> Result<Option<Piece>> {
    let size = BLOCK_ROWS as u64;
    while *at < run.rows.end {
        let (start, block) = (*at, *at / size);
        let end = ((block + 1) * size).min(run.rows.end);
        *at = end;
        if !run.group.may_match(&(start..end)) {
            continue;
        }
        let rows = usize::try_from(end - start).unwrap_or_default();
        let skip = usize::try_from(start % size).unwrap_or_default();
        let block = block_in_segment(block);
        let arrays = run.chunks.iter().map(|chunks| {
            let values = chunks.first()?.block(block)?;
            Some(if values.len() == rows { Arc::clone(values) } else { values.slice(skip, rows) })
        });
        // Its chunks had all blocks when the run was taken, and lose none.
        let Some(arrays) = arrays.collect::<Option<Vec<ArrayRef>>>() else {
            return internal_err!("a hot column lacks a block that it had");
        };
        plan.source.caches.hot.count(arrays.len(), 0);
        let first_row = run.group.first_row + i64::try_from(start).unwrap_or(i64::MAX);
        return Ok(Some(Piece { file: Arc::clone(&run.group.file), first_row, rows, arrays }));
    }
    Ok(None)
}
