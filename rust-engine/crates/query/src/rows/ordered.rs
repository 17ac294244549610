//! The first rows in an order, without a plan: readers share the rows of a table, each keeps the best that it has seen, and
//! the worst of those is a bound that all of them ask from then on, statistics of files too.

use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch};
use arrow::compute::SortOptions;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, DynamicFilterPhysicalExpr, lit};
use datafusion::physical_plan::PhysicalExpr;
use futures::future::try_join_all;
use futures::{Stream, TryStreamExt};
use quern_sources::{Positions, RowScan};
use tokio_util::task::AbortOnDropHandle;

use super::direct::Snapshot;

/// How many batches a reader holds rows of before it copies the rows out.
const BATCHES: usize = 64;

/// A column that rows are ordered by, nulls last: its place in the table's schema.
#[derive(Clone)]
pub(super) struct By {
    pub(super) place: usize,
    pub(super) descending: bool,
}

/// What pages begin behind: a row's values of the order's columns, and its place.
pub(super) struct Behind<'a> {
    pub(super) values: &'a [ScalarValue],
    pub(super) file: u32,
    pub(super) row: i64,
    /// What the order's first column alone tells of the rows behind it.
    pub(super) bound: Arc<dyn PhysicalExpr>,
}

/// The first rows in an order, behind a row.
pub(crate) struct OrderedScan {
    scan: RowScan,
    order: Arc<Order>,
    bound: Arc<Bound>,
}

/// An order of rows: columns, then where the rows lie.
struct Order {
    /// Of the scan's columns, those before the order's.
    wanted: usize,
    fields: Vec<SortField>,
    /// How many rows are looked for.
    size: usize,
    /// The row that they come behind.
    after: Option<OwnedRow>,
}

impl OrderedScan {
    /// The first `size` rows of those that meet `filters`, behind one where it is given. The scan has the columns at these places of the table's schema, then the order's, then the position.
    pub(super) fn new(
        from: Snapshot<'_>,
        positions: Positions,
        mut columns: Vec<usize>,
        order: &[By],
        mut filters: Vec<Arc<dyn PhysicalExpr>>,
        size: usize,
        behind: Option<&Behind<'_>>,
    ) -> Result<Self> {
        let schema = from.table.schema();
        let wanted = columns.len();
        columns.extend(order.iter().map(|by| by.place));
        let end = schema.fields().len();
        columns.extend([end, end + 1]);
        let options = |descending| SortOptions { descending, nulls_first: false };
        let by = order
            .iter()
            .map(|by| SortField::new_with_options(schema.field(by.place).data_type().clone(), options(by.descending)));
        let position =
            [DataType::UInt32, DataType::Int64].map(|kind| SortField::new_with_options(kind, options(false)));
        let fields: Vec<SortField> = by.chain(position).collect();
        let after = behind.map(|row| key(&fields, row)).transpose()?;
        let first = order.first().ok_or_else(|| internal_datafusion_err!("an order has no column"))?;
        let bound = Arc::new(Bound::new(schema.field(first.place).name(), first, behind));
        filters.push(Arc::clone(&bound.filter) as Arc<dyn PhysicalExpr>);
        let (table, store) = (Arc::clone(from.table), Arc::clone(from.store));
        let scan = RowScan::new(table, store, from.caches, Some(positions), &columns, filters, from.readers)?;
        Ok(Self { scan, order: Arc::new(Order { wanted, fields, size, after }), bound })
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        self.scan.schema()
    }

    /// The rows in their order, in one batch. What is held of them meanwhile is taken from `memory`.
    pub(crate) fn batches(self, memory: MemoryReservation) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        futures::stream::once(self.find(Arc::new(memory))).try_filter_map(|batch| async { Ok(batch) })
    }

    async fn find(self, memory: Arc<MemoryReservation>) -> Result<Option<RecordBatch>> {
        let streams = self.scan.readers(self.order.size);
        let readers = streams.into_iter().map(|batches| {
            let best = Best::new(Arc::clone(&self.order), Arc::clone(&self.bound), Arc::clone(&memory));
            AbortOnDropHandle::new(tokio::spawn(async move { best?.of(batches).await }))
        });
        let found = try_join_all(readers).await.map_err(|e| internal_datafusion_err!("a reader failed: {e}"))?;
        let mut batches = Vec::new();
        let mut candidates = Vec::new();
        for best in found {
            let best = best?;
            let first = batches.len();
            batches.extend(best.batches);
            candidates.extend(best.heap.into_iter().map(|found| Candidate { batch: first + found.batch, ..found }));
        }
        candidates.sort_unstable();
        candidates.truncate(self.order.size);
        if candidates.is_empty() {
            return Ok(None);
        }
        let sources: Vec<&RecordBatch> = batches.iter().collect();
        let places: Vec<(usize, usize)> = candidates.iter().map(|found| (found.batch, found.row)).collect();
        Ok(Some(interleave_record_batch(&sources, &places)?))
    }
}

/// The key of a row.
fn key(fields: &[SortField], of: &Behind<'_>) -> Result<OwnedRow> {
    let place = [ScalarValue::UInt32(Some(of.file)), ScalarValue::Int64(Some(of.row))];
    let arrays = of.values.iter().chain(&place).map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
    Ok(RowConverter::new(fields.to_vec())?.convert_columns(&arrays)?.row(0).owned())
}

/// A row that may be among the first, ordered by its key.
struct Candidate {
    key: OwnedRow,
    batch: usize,
    row: usize,
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// The best rows that one reader has seen.
struct Best {
    order: Arc<Order>,
    bound: Arc<Bound>,
    memory: Arc<MemoryReservation>,
    converter: RowConverter,
    /// The worst on top.
    heap: BinaryHeap<Candidate>,
    batches: Vec<RecordBatch>,
    held: usize,
}

impl Best {
    fn new(order: Arc<Order>, bound: Arc<Bound>, memory: Arc<MemoryReservation>) -> Result<Self> {
        let converter = RowConverter::new(order.fields.clone())?;
        let heap = BinaryHeap::with_capacity(order.size + 1);
        Ok(Self { order, bound, memory, converter, heap, batches: Vec::new(), held: 0 })
    }

    async fn of(mut self, batches: impl Stream<Item = Result<RecordBatch>>) -> Result<Self> {
        let mut batches = std::pin::pin!(batches);
        while let Some(batch) = batches.try_next().await? {
            self.take(batch)?;
            tokio::task::coop::consume_budget().await;
        }
        Ok(self)
    }

    fn take(&mut self, batch: RecordBatch) -> Result<()> {
        let keys = self.converter.convert_columns(&batch.columns()[self.order.wanted..])?;
        if !self.keep(&keys) {
            return Ok(());
        }
        self.hold(&batch)?;
        if let (true, Some(worst)) = (self.heap.len() == self.order.size, self.heap.peek()) {
            let batch = self.batches.get(worst.batch).unwrap_or(&batch);
            self.bound.tighten(worst, batch.column(self.order.wanted).as_ref())?;
        }
        if self.batches.len() > BATCHES {
            self.copy_out()?;
        }
        Ok(())
    }

    /// Takes in the rows of the next batch that are better than what is there; says whether there are any.
    fn keep(&mut self, keys: &Rows) -> bool {
        let mut kept = false;
        for (row, key) in keys.iter().enumerate() {
            let passed = self.order.after.as_ref().is_some_and(|after| key <= after.row());
            let full = self.heap.len() == self.order.size;
            if passed || full && self.heap.peek().is_some_and(|worst| key >= worst.key.row()) {
                continue;
            }
            if full {
                self.heap.pop();
            }
            self.heap.push(Candidate { key: key.owned(), batch: self.batches.len(), row });
            kept = true;
        }
        kept
    }

    fn hold(&mut self, batch: &RecordBatch) -> Result<()> {
        let bytes = batch.get_array_memory_size();
        self.memory.try_grow(bytes)?;
        self.held += bytes;
        self.batches.push(batch.clone());
        Ok(())
    }

    /// Copies the rows into a batch of their own, and lets go of those that they came in.
    fn copy_out(&mut self) -> Result<()> {
        let mut candidates = std::mem::take(&mut self.heap).into_vec();
        let sources: Vec<&RecordBatch> = self.batches.iter().collect();
        let places: Vec<(usize, usize)> = candidates.iter().map(|found| (found.batch, found.row)).collect();
        let copy = interleave_record_batch(&sources, &places)?;
        for (row, found) in candidates.iter_mut().enumerate() {
            (found.batch, found.row) = (0, row);
        }
        self.batches.clear();
        self.memory.shrink(std::mem::take(&mut self.held));
        self.heap = candidates.into();
        self.hold(&copy)
    }
}

/// What the order's first column must be for a row to be among the first. Rows that it leaves out come behind as many as are
/// looked for.
struct Bound {
    column: Arc<dyn PhysicalExpr>,
    descending: bool,
    /// The value that all rows come behind, if it is none of the nulls.
    behind: Option<ScalarValue>,
    filter: Arc<DynamicFilterPhysicalExpr>,
    /// The best of the worst rows that readers have told.
    worst: Mutex<Option<(OwnedRow, ScalarValue)>>,
}

impl Bound {
    fn new(name: &str, by: &By, behind: Option<&Behind<'_>>) -> Self {
        let column = Arc::new(Column::new(name, by.place)) as Arc<dyn PhysicalExpr>;
        let at_first = behind.map_or_else(|| lit(true), |row| Arc::clone(&row.bound));
        let filter = Arc::new(DynamicFilterPhysicalExpr::new(vec![Arc::clone(&column)], at_first));
        let behind = behind.and_then(|row| row.values.first()).filter(|value| !value.is_null()).cloned();
        Self { column, descending: by.descending, behind, filter, worst: Mutex::default() }
    }

    /// Takes over the worst row of a reader that has enough, where it is better than what is known.
    fn tighten(&self, found: &Candidate, first: &dyn Array) -> Result<()> {
        let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        if worst.as_ref().is_some_and(|(known, _)| *known <= found.key) {
            return Ok(());
        }
        let value = ScalarValue::try_from_array(first, found.row)?;
        let same = worst.as_ref().is_some_and(|(_, known)| *known == value);
        *worst = Some((found.key.clone(), value.clone()));
        // Rows come before nulls, and some nulls before others.
        if same || value.is_null() {
            return Ok(());
        }
        let (before, behind) =
            if self.descending { (Operator::GtEq, Operator::LtEq) } else { (Operator::LtEq, Operator::GtEq) };
        let compared = |operator, value| -> Arc<dyn PhysicalExpr> {
            Arc::new(BinaryExpr::new(Arc::clone(&self.column), operator, lit(value)))
        };
        let before = compared(before, value);
        self.filter.update(match &self.behind {
            None => before,
            Some(least) => Arc::new(BinaryExpr::new(before, Operator::And, compared(behind, least.clone()))),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, UInt32Array};
    use arrow::datatypes::{Field, Int64Type, Schema};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};

    use super::*;

    /// Rows that get better batch by batch are copied out again and again, and what was held is given back.
    #[test]
    fn the_best_rows_outlive_their_batches() {
        const SIZE: usize = 7;
        let fields = [Field::new("v", DataType::Int64, true), Field::new("file", DataType::UInt32, false)];
        let row = Field::new("row", DataType::Int64, false);
        let schema = Arc::new(Schema::new(fields.into_iter().chain([row]).collect::<Vec<_>>()));
        let options = SortOptions { descending: true, nulls_first: false };
        let sorted = schema.fields().iter().enumerate().map(|(at, field)| {
            let options = SortOptions { descending: at == 0, ..options };
            SortField::new_with_options(field.data_type().clone(), options)
        });
        let order = Arc::new(Order { wanted: 0, fields: sorted.collect(), size: SIZE, after: None });
        let bound = Arc::new(Bound::new("v", &By { place: 0, descending: true }, None));
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        let memory = Arc::new(MemoryConsumer::new("order").register(&pool));
        let mut best = Best::new(order, Arc::clone(&bound), Arc::clone(&memory)).expect("columns that have an order");
        for number in 0..500_i64 {
            let values = Int64Array::from(vec![Some(number), None, Some(number / 2)]);
            let rows = Int64Array::from_iter_values(number * 3..number * 3 + 3);
            let columns: [Arc<dyn Array>; 3] =
                [Arc::new(values), Arc::new(UInt32Array::from(vec![0; 3])), Arc::new(rows)];
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns.to_vec()).expect("a batch");
            best.take(batch).expect("memory");
            assert!(best.batches.len() <= BATCHES + 1);
        }
        let value =
            |found: &Candidate| best.batches[found.batch].column(0).as_primitive::<Int64Type>().value(found.row);
        let mut found: Vec<i64> = best.heap.iter().map(value).collect();
        found.sort_unstable();
        assert_eq!(found, (493..500).collect::<Vec<_>>());
        assert_eq!(bound.filter.current().expect("a condition").to_string(), "v@0 >= 493");
        assert!(memory.size() <= best.held && best.held < 64 << 10);
        drop((best, memory));
        assert_eq!(pool.reserved(), 0);
    }
}
