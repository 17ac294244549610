//! What rows need not be planned for: a page in the table's order is a scan with conditions, a row by its key a look at an
//! index. What was found out for either is kept for the next request of the kind.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use futures::Stream;
use moka::sync::Cache;
use quern_core::Result;
use quern_sources::provider::SnapshotProvider;
use quern_sources::{Caches, PinnedStore, Points, Positions, RowScan, Table};

use super::filter::{self, Node};
use super::time::Clock;
use super::token::Position;
use crate::errors;

/// How many files all scans and opened tables that are kept have together, about.
const FILES: u64 = 10_000;

/// A table at one snapshot, and what reads it.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    pub(crate) table: &'a Arc<Table>,
    pub(crate) store: &'a Arc<PinnedStore>,
    pub(crate) caches: &'a Caches,
    /// Whether only what lies in memory is to be read: an index that was not made yet is not made then.
    pub(crate) at_hand: bool,
    /// How many readers may share a scan.
    pub(crate) readers: usize,
}

impl Snapshot<'_> {
    pub(super) fn provider(self, positions: Option<Positions>) -> SnapshotProvider {
        SnapshotProvider::new(Arc::clone(self.table), Arc::clone(self.store), self.caches, positions)
    }
}

/// A page of a scan in the table's order.
pub(crate) struct PageScan {
    scan: Arc<RowScan>,
    after: Option<(u32, i64)>,
    fetch: usize,
}

impl PageScan {
    pub(crate) fn schema(&self) -> SchemaRef {
        self.scan.schema()
    }

    pub(crate) fn batches(&self) -> impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static {
        self.scan.batches(self.after, Some(self.fetch))
    }

    /// The same where it lies in memory, see [`RowScan::batches_at_hand`].
    pub(crate) fn batches_at_hand(
        &self,
        blocks: Arc<AtomicUsize>,
    ) -> impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static {
        self.scan.batches_at_hand(self.after, Some(self.fetch), blocks)
    }
}

/// What all pages of a request in the table's order share.
#[derive(Clone)]
pub(super) struct Pages {
    scan: Arc<RowScan>,
    /// How many of its columns are wanted; the others are the position.
    pub(super) wanted: usize,
}

impl Pages {
    pub(super) fn new(
        from: Snapshot<'_>,
        positions: Positions,
        mut columns: Vec<usize>,
        filters: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Self, DataFusionError> {
        let wanted = columns.len();
        let end = from.table.schema().fields().len();
        columns.extend([end, end + 1]);
        let (table, store) = (Arc::clone(from.table), Arc::clone(from.store));
        let scan = RowScan::new(table, store, from.caches, Some(positions), &columns, filters, 1)?;
        Ok(Self { scan: Arc::new(scan), wanted })
    }

    /// The page behind a position.
    pub(super) fn after(&self, position: Option<&Position>, size: usize) -> PageScan {
        let after = position.map(|position| (position.file, position.row));
        PageScan { scan: Arc::clone(&self.scan), after, fetch: size + 1 }
    }
}

type Name = (String, [u8; 32]);

/// What is kept from request to request.
pub(crate) struct Known {
    /// Makes expressions of conditions.
    state: SessionState,
    /// Pages in the table's order by snapshot and request; none whose condition looks at the clock.
    pages: Cache<Name, Pages>,
    /// Opened tables by snapshot and columns.
    points: Cache<(String, Vec<usize>), Arc<Points>>,
}

impl Known {
    pub(crate) fn new(state: SessionState) -> Self {
        let weight = |files: usize| u32::try_from(files + 1).unwrap_or(u32::MAX);
        let points = Cache::builder().max_capacity(FILES);
        let points = points.weigher(move |_, points: &Arc<Points>| weight(points.files())).build();
        let pages = Cache::builder().max_capacity(FILES);
        let pages = pages.weigher(move |_, pages: &Pages| weight(pages.scan.files())).build();
        Self { state, pages, points }
    }

    /// The filter as an expression over the table's columns. Fails as [`filter::condition`] does.
    pub(super) fn condition(&self, filter: &Node, schema: &Schema, clock: &Clock) -> Result<Arc<dyn PhysicalExpr>> {
        self.physical(filter::condition(filter, schema, clock)?, schema)
    }

    /// A condition over the table's columns.
    pub(super) fn physical(&self, expr: Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        let failed = |e: DataFusionError| errors::planning("", &e);
        let columns = DFSchema::try_from(schema.clone()).map_err(failed)?;
        self.state.create_physical_expr(expr, &columns).map_err(failed)
    }

    /// The pages of a request on a snapshot, by its digest.
    pub(super) fn pages(&self, snapshot: &str, digest: [u8; 32]) -> Option<Pages> {
        self.pages.get(&(snapshot.to_owned(), digest))
    }

    pub(super) fn keep(&self, snapshot: &str, digest: [u8; 32], pages: &Pages) {
        self.pages.insert((snapshot.to_owned(), digest), pages.clone());
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
