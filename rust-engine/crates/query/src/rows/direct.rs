//! What rows need not be planned for: a page in the table's order is a scan with conditions, a row by its key a look at an
//! index. What was found out for either is kept for the next request of the kind.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::physical_plan::PhysicalExpr;
use moka::sync::Cache;
use quern_core::Result;
use quern_sources::provider::SnapshotProvider;
use quern_sources::{Caches, PinnedStore, Points, Positions, RowScan, Table};

use super::filter::{self, Node};
use super::time::Clock;
use crate::errors;

/// How many conditions are kept.
const CONDITIONS: u64 = 1_000;
/// How many files all opened tables have together, about.
const FILES: u64 = 10_000;

/// A table at one snapshot, and what reads it.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    pub(crate) table: &'a Arc<Table>,
    pub(crate) store: &'a Arc<PinnedStore>,
    pub(crate) caches: &'a Caches,
}

impl Snapshot<'_> {
    pub(super) fn provider(self, positions: Option<Positions>) -> SnapshotProvider {
        SnapshotProvider::new(Arc::clone(self.table), Arc::clone(self.store), self.caches, positions)
    }

    pub(super) fn scan(
        self,
        positions: Positions,
        columns: &[usize],
        filters: Vec<Arc<dyn PhysicalExpr>>,
        fetch: usize,
    ) -> Result<RowScan, DataFusionError> {
        let (table, store) = (Arc::clone(self.table), Arc::clone(self.store));
        RowScan::new(table, store, self.caches, Some(positions), columns, filters, Some(fetch))
    }
}

type Name = (String, [u8; 32]);

/// What is kept from request to request.
pub(crate) struct Known {
    /// Makes expressions of conditions.
    state: SessionState,
    /// Conditions by snapshot and request; none that looks at the clock.
    conditions: Cache<Name, Arc<dyn PhysicalExpr>>,
    /// Opened tables by snapshot and columns.
    points: Cache<(String, Vec<usize>), Arc<Points>>,
}

impl Known {
    pub(crate) fn new(state: SessionState) -> Self {
        let files =
            |_: &(String, Vec<usize>), points: &Arc<Points>| u32::try_from(points.files() + 1).unwrap_or(u32::MAX);
        let points = Cache::builder().max_capacity(FILES).weigher(files).build();
        Self { state, conditions: Cache::new(CONDITIONS), points }
    }

    /// The filter as an expression over the table's columns. Fails as [`filter::condition`] does.
    pub(super) fn condition(
        &self,
        filter: &Node,
        table: &Table,
        schema: &Schema,
        clock: &Clock,
        digest: [u8; 32],
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let name = (table.snapshot.clone(), digest);
        if let Some(known) = self.conditions.get(&name) {
            return Ok(known);
        }
        let expr = filter::condition(filter, schema, clock)?;
        let failed = |e: DataFusionError| errors::planning("", &e);
        let columns = DFSchema::try_from(schema.clone()).map_err(failed)?;
        let condition = self.state.create_physical_expr(expr, &columns).map_err(failed)?;
        if !clock.was_read() {
            self.conditions.insert(name, Arc::clone(&condition));
        }
        Ok(condition)
    }

    pub(super) fn points(&self, from: Snapshot<'_>, columns: &[usize]) -> Result<Arc<Points>, DataFusionError> {
        let name = (from.table.snapshot.clone(), columns.to_vec());
        if let Some(known) = self.points.get(&name) {
            return Ok(known);
        }
        let points = Points::new(Arc::clone(from.table), Arc::clone(from.store), from.caches, columns)?;
        let points = Arc::new(points);
        self.points.insert(name, Arc::clone(&points));
        Ok(points)
    }
}
