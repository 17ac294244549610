//! Makes joins stop when their query does, and share the processor while they run.
//!
//! DataFusion's joins are polled for their output. One that finds none goes on for as long as its inputs last: it
//! neither sees that its query was dropped nor lets its thread serve another one. Two things are put into the plan:
//! joins yield on their own output, and a join's filter, which is evaluated for every few thousand candidate rows,
//! looks whether the query still runs and hands its worker's other tasks to another thread when it has run for long.

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a filter keeps its thread before it hands the thread's other tasks over.
const SLICE: Duration = Duration::from_millis(10);

/// Operators that make many rows of few: their inputs are drained early, so they must yield on their own output.
const MULTIPLIERS: &[&str] =
    &["CrossJoinExec", "NestedLoopJoinExec", "HashJoinExec", "SortMergeJoinExec", "UnnestExec", "RecursiveQueryExec"];

/// Prepares a plan to be stopped by `stop`.
pub(crate) fn interruptible(plan: Arc<dyn ExecutionPlan>, stop: &CancellationToken) -> Result<Arc<dyn ExecutionPlan>> {
    let prepared = plan.transform_up(|node| {
        if !MULTIPLIERS.contains(&node.name()) {
            return Ok(Transformed::no(node));
        }
        let node = guard(&node, stop)?.unwrap_or(node);
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(prepared.data)
}

/// The same join with a guarded filter, if it has one.
fn guard(node: &Arc<dyn ExecutionPlan>, stop: &CancellationToken) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(None) };
        let guarded =
            NestedLoopJoinExecBuilder::new(Arc::clone(join.left()), Arc::clone(join.right()), *join.join_type())
                .with_projection_ref(join.projection().clone())
                .with_filter(Some(guard_filter(filter, stop)))
                .build()?;
        return Ok(Some(Arc::new(guarded)));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(None) };
        return join.builder().with_filter(Some(guard_filter(filter, stop))).build_exec().map(Some);
    }
    if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(None) };
        let guarded = SortMergeJoinExec::try_new(
            Arc::clone(join.left()),
            Arc::clone(join.right()),
            join.on().to_vec(),
            Some(guard_filter(filter, stop)),
            join.join_type(),
            join.sort_options().to_vec(),
            join.null_equality(),
        )?;
        return Ok(Some(Arc::new(guarded)));
    }
    Ok(None)
}

fn guard_filter(filter: &JoinFilter, stop: &CancellationToken) -> JoinFilter {
    let guard = Guard {
        inner: Arc::clone(filter.expression()),
        stop: stop.clone(),
        started: Instant::now(),
        handed_over: Arc::default(),
    };
    JoinFilter::new(Arc::new(guard), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// An expression that fails once its query has ended.
#[derive(Debug)]
struct Guard {
    inner: Arc<dyn PhysicalExpr>,
    stop: CancellationToken,
    started: Instant,
    /// Milliseconds after `started` at which a thread was last handed over.
    handed_over: Arc<AtomicU64>,
}

impl Guard {
    fn is_due(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.handed_over.load(Ordering::Relaxed);
        let due = u128::from(now.saturating_sub(last)) >= SLICE.as_millis();
        due && self.handed_over.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Guard {}

impl Hash for Guard {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Display for Guard {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.inner, f)
    }
}

impl PhysicalExpr for Guard {
    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.inner.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.inner.nullable(input_schema)
    }

    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.stop.is_cancelled() {
            return exec_err!("the query was stopped");
        }
        let shares_threads = || Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
        if self.is_due() && shares_threads() {
            return tokio::task::block_in_place(|| self.inner.evaluate(batch));
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let Ok([inner]) = <[_; 1]>::try_from(children) else { return internal_err!("a guard has one child") };
        Ok(Arc::new(Self {
            inner,
            stop: self.stop.clone(),
            started: self.started,
            handed_over: Arc::clone(&self.handed_over),
        }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
