//! The scan of a table's snapshot: of any formats, from memory where columns are hot, from the files where they are not.
//!
//! Partitions share the scan's work: whoever is free takes the next rows. What is hot is handed out segment by segment;
//! what is not, in runs that a reader goes through front to back, decoding only the columns that are missing and leaving
//! them to [`crate::hot`]. Row groups and pages that statistics exclude are not looked at in either case, so that a hot
//! column never makes a scan read more. Conditions are evaluated here, those that joins and limits find out while they run
//! too, so that rows which nobody wants are copied nowhere.

mod chosen;
mod cold;
mod condition;
mod direct;
mod distinct;
mod file;
mod fill;
mod parquet;
mod prune;
mod reader;
mod stream;
mod term;
mod work;

use std::any::Any;
use std::fmt::{self, Formatter};
use std::sync::Arc;

use ::parquet::arrow::RowNumber;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::datasource::source::{DataSource, OpenArgs};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::utils::reassign_expr_columns;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tracing::Span;

use crate::hot::{BLOCK_ROWS, HotColumns, SEGMENT_ROWS};
use crate::keys::KeyIndexes;
use crate::store::PinnedStore;
use crate::table::Table;
use reader::{Reader, Ready};
use work::Work;

pub use direct::{Points, RowScan};

/// Two more columns that say where in its table each row lies: the number of its file among the table's files
/// (UInt32), and its own number in that file (Int64), both counted from 0. Together they order a table's rows.
#[derive(Clone, Debug)]
pub struct Positions {
    /// The name of the file's column.
    pub file: String,
    /// The name of the row's column.
    pub row: String,
    /// Leaves out rows up to and including this one.
    pub after: Option<(u32, i64)>,
}

impl Positions {
    fn fields(&self) -> [FieldRef; 2] {
        let row = Field::new(&self.row, DataType::Int64, false).with_extension_type(RowNumber);
        [Arc::new(Field::new(&self.file, DataType::UInt32, false)), Arc::new(row)]
    }
}

/// What all scans share: what was learned of files, and what is kept of them.
#[derive(Clone, Debug)]
pub struct Caches {
    /// The footers of Parquet files.
    pub footers: Arc<FileMetadataCache>,
    /// Decoded columns.
    pub hot: Arc<HotColumns>,
    /// Where rows lie by their keys.
    pub keys: Arc<KeyIndexes>,
}

/// The span that a query's scans belong to, as an extension of its session: scans are opened by tasks that have none.
#[derive(Debug)]
pub struct Within(pub Span);

impl Caches {
    /// Gives at least `bytes` back to the memory of all queries, if as many are held.
    pub fn shed(&self, bytes: usize) {
        if self.hot.shed(bytes) < bytes {
            self.keys.clear();
        }
    }
}

/// What is scanned.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) table: Arc<Table>,
    pub(crate) store: Arc<PinnedStore>,
    pub(crate) caches: Caches,
    pub(crate) positions: Option<Positions>,
    /// The files' columns, then those of partitions, then the positions.
    pub(crate) schema: SchemaRef,
}

impl Source {
    pub(crate) fn new(
        table: Arc<Table>,
        store: Arc<PinnedStore>,
        caches: Caches,
        positions: Option<Positions>,
    ) -> Self {
        let all = table.schema();
        let fields = all.fields().iter().cloned().chain(positions.iter().flat_map(Positions::fields));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { table, store, caches, positions, schema }
    }
}

/// A scan as a plan has it.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    source: Arc<Source>,
    /// Columns of [`Source::schema`], under any names.
    projection: ProjectionExprs,
    schema: SchemaRef,
    /// What each row must meet, over [`Source::schema`].
    filters: Vec<Arc<dyn PhysicalExpr>>,
    fetch: Option<usize>,
    partitions: usize,
    /// Of the unfiltered table.
    statistics: Arc<Statistics>,
}

impl Scan {
    /// A scan of these columns of the source by at most `partitions` readers; by one, rows come in the table's order.
    pub(crate) fn new(
        source: Arc<Source>,
        columns: Option<&Vec<usize>>,
        fetch: Option<usize>,
        partitions: usize,
        statistics: Statistics,
    ) -> Result<Self> {
        let all = || (0..source.schema.fields().len()).collect::<Vec<_>>();
        let projection = ProjectionExprs::from_indices(&columns.cloned().unwrap_or_else(all), &source.schema);
        let schema = Arc::new(projection.project_schema(&source.schema)?);
        let most = usize::try_from(source.table.rows()).unwrap_or(usize::MAX).div_ceil(SEGMENT_ROWS);
        Ok(Self {
            source,
            projection,
            schema,
            filters: Vec::new(),
            fetch,
            partitions: partitions.min(most).max(1),
            statistics: Arc::new(statistics),
        })
    }

    fn work(&self) -> Work {
        let after = self.source.positions.as_ref().and_then(|positions| positions.after);
        Work::new(self.source.table.files.len(), self.fetch, after)
    }
}

impl DataSource for Scan {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.open_with_args(OpenArgs::new(partition, context))
    }

    fn create_sibling_state(&self, _: &ConfigOptions) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::new(self.work()))
    }

    fn open_with_args(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
        let shared = args.sibling_state.and_then(|state| Arc::downcast::<Work>(state).ok());
        let work = shared.unwrap_or_else(|| Arc::new(self.work()));
        let within = args.context.session_config().get_extension::<Within>();
        let within = within.map_or_else(Span::current, |within| within.0.clone());
        let reader = Reader::new(Ready::new(self)?, work, BLOCK_ROWS, None, &within);
        let stream = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), reader.batches().boxed());
        Ok(Box::pin(cooperative(stream)))
    }

    fn fmt_as(&self, kind: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        match kind {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "table={}, files={}", self.source.table.name, self.source.table.files.len())?;
                write!(
                    f,
                    ", columns=[{}]",
                    self.schema.fields().iter().map(|c| c.name().as_str()).collect::<Vec<_>>().join(", ")
                )?;
                if !self.filters.is_empty() {
                    let filters = self.filters.iter().map(ToString::to_string).collect::<Vec<_>>();
                    write!(f, ", filter={}", filters.join(" AND "))?;
                }
                match self.fetch {
                    Some(fetch) => write!(f, ", fetch={fetch}"),
                    None => Ok(()),
                }
            }
            DisplayFormatType::TreeRender => writeln!(f, "table={}", self.source.table.name),
        }
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(self.partitions)
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(Arc::clone(&self.schema))
    }

    fn scheduling_type(&self) -> SchedulingType {
        SchedulingType::Cooperative
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        if partition.is_some() && self.partitions > 1 {
            return Ok(Arc::new(Statistics::new_unknown(&self.schema)));
        }
        let all = self.projection.project_statistics(self.statistics.as_ref().clone(), &self.schema)?;
        Ok(Arc::new(if self.filters.is_empty() && self.fetch.is_none() { all } else { all.to_inexact() }))
    }

    fn with_fetch(&self, fetch: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(Self { fetch, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    /// Takes over a projection that only chooses and names columns.
    fn try_swapping_with_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
        if !projection.iter().all(|column| column.expr.downcast_ref::<Column>().is_some()) {
            return Ok(None);
        }
        let projection = self.projection.try_merge(projection)?;
        let schema = Arc::new(projection.project_schema(&self.source.schema)?);
        Ok(Some(Arc::new(Self { projection, schema, ..self.clone() })))
    }

    /// Takes over all filters: every one can be evaluated here.
    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn DataSource>>> {
        // A limit comes after what is in the scan already, and before what is not.
        if self.fetch.is_some() {
            let none = vec![PushedDown::No; filters.len()];
            return Ok(FilterPushdownPropagation::with_parent_pushdown_result(none));
        }
        let taken = vec![PushedDown::Yes; filters.len()];
        let ours = filters
            .iter()
            .map(|filter| reassign_expr_columns(self.projection.unproject_expr(filter)?, &self.source.schema));
        let filters = self.filters.iter().cloned().map(Ok).chain(ours).collect::<Result<Vec<_>>>()?;
        let scan: Arc<dyn DataSource> = Arc::new(Self { filters, ..self.clone() });
        Ok(FilterPushdownPropagation::with_parent_pushdown_result(taken).with_updated_node(scan))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut recursion = TreeNodeRecursion::Continue;
        for expr in self.projection.iter().map(|column| &column.expr).chain(&self.filters) {
            recursion = f(expr)?;
            if recursion == TreeNodeRecursion::Stop {
                break;
            }
        }
        Ok(recursion)
    }
}

#[cfg(test)]
mod tests;
