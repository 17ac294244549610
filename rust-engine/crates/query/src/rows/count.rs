//! How many rows a filter matches, over all pages: one aggregate over the snapshot that the pages are read from.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::common::internal_datafusion_err;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::functions_aggregate::count::count_all;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::{ExecutionPlan, collect};
use quern_core::Result;

use super::{Rows, Snapshot, Start, filter};
use crate::errors;

/// Where the number of rows comes from.
pub(crate) enum Count<P> {
    /// It is known: an earlier page has counted, or the table itself says it where there is no filter.
    Known(u64),
    /// A plan's one row and column gives it.
    Planned(P),
}

/// Plans the count, where one is asked for.
pub(crate) fn plan(rows: &Rows, start: &Start, from: Snapshot<'_>) -> Result<Option<Count<LogicalPlan>>> {
    if !rows.count || rows.keys.is_some() {
        return Ok(None);
    }
    if let Some(counted) = start.counted() {
        return Ok(Some(Count::Known(counted)));
    }
    let Some(filter) = &rows.filter else { return Ok(Some(Count::Known(from.table.rows()))) };
    let condition = filter::condition(filter, &from.table.schema(), &start.clock())?;
    let plan =
        LogicalPlanBuilder::scan(from.table.name.as_str(), provider_as_source(Arc::new(from.provider(None))), None)
            .and_then(|scan| scan.filter(condition))
            .and_then(|rows| rows.aggregate(Vec::<Expr>::new(), vec![count_all()]))
            .and_then(LogicalPlanBuilder::build)
            .map_err(|e: DataFusionError| errors::planning("", &e))?;
    Ok(Some(Count::Planned(plan)))
}

impl Count<Arc<dyn ExecutionPlan>> {
    /// The number. `task` is what the plan runs in.
    pub(super) async fn total(self, task: &Arc<TaskContext>) -> Result<u64, DataFusionError> {
        let plan = match self {
            Self::Known(number) => return Ok(number),
            Self::Planned(plan) => plan,
        };
        let batches = collect(plan, Arc::clone(task)).await?;
        let number = batches.first().and_then(|batch| {
            let column = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
            column.iter().next().flatten()
        });
        number.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| internal_datafusion_err!("a count gave no number"))
    }
}
