//! A Parquet file of a scan: its footer, what its statistics exclude, and the reader of what is not in memory.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use ::parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
use ::parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, parquet_column};
use ::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    BloomFilterStatistics, CachedParquetFileReaderFactory, PagePruningAccessPlanFilter, ParquetAccessPlan,
    ParquetFileMetrics, ParquetFileReaderFactory, RowGroupAccess, RowGroupAccessPlanFilter,
    apply_file_schema_type_coercions,
};
use datafusion::physical_expr::DynamicFilterTracking;
use datafusion::physical_expr_adapter::{DefaultPhysicalExprAdapterFactory, PhysicalExprAdapterFactory};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::StreamExt;

use super::file::{GroupRows, Left, OpenFile};
use super::prune::simplify;
use super::reader::Plan;
use crate::hot::BLOCK_ROWS;
use crate::listing::ListedFile;
use crate::store::{PinnedStore, object_meta};
use crate::widen;

type Stream = ParquetRecordBatchStream<Box<dyn AsyncFileReader>>;

/// An open Parquet file.
pub(super) struct ParquetFile {
    readers: CachedParquetFileReaderFactory,
    metadata: ArrowReaderMetadata,
    metrics: ParquetFileMetrics,
    /// What statistics are asked anew, while conditions are still being found out.
    late: Option<Mutex<Late>>,
}

/// Conditions that change while the scan runs.
struct Late {
    predicate: Arc<dyn PhysicalExpr>,
    tracking: DynamicFilterTracking,
    pruning: Option<Arc<PruningPredicate>>,
}

fn reader(readers: &CachedParquetFileReaderFactory, listed: &ListedFile) -> Result<Box<dyn AsyncFileReader>> {
    let file = PartitionedFile::new_from_meta(object_meta(listed));
    Ok(readers.create_reader(0, file, None, &ExecutionPlanMetricsSet::new())?)
}

impl ParquetFile {
    /// Opens a file in a store and asks its statistics, bloom filters and page index which rows may meet the predicate, which is
    /// over the source's columns.
    pub(super) async fn open(
        plan: &Plan,
        listed: &ListedFile,
        store: Arc<PinnedStore>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<(Box<Self>, Vec<GroupRows>)> {
        let readers = CachedParquetFileReaderFactory::new(store, Arc::clone(&plan.source.caches.footers));
        let mut reader = reader(&readers, listed)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let mut metadata = ArrowReaderMetadata::load_async(&mut reader, options).await?;
        if let Some(schema) = apply_file_schema_type_coercions(&plan.source.table.file_schema, metadata.schema()) {
            let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
            metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)?;
        }
        let mut file = Self {
            readers,
            metadata,
            metrics: ParquetFileMetrics::new(0, "", &ExecutionPlanMetricsSet::new()),
            late: None,
        };
        let groups = match predicate {
            None => file.all(),
            Some(predicate) => {
                let predicate = file.adapt(plan, predicate)?;
                let groups = file.prune(&predicate, reader).await;
                let tracking = DynamicFilterTracking::classify(&predicate);
                if matches!(tracking, DynamicFilterTracking::Watching(_)) {
                    file.late = Some(Mutex::new(Late { predicate, tracking, pruning: None }));
                }
                groups
            }
        };
        Ok((Box::new(file), groups))
    }

    fn footer(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    fn all(&self) -> Vec<GroupRows> {
        let rows = self.footer().row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or_default());
        rows.map(|rows| GroupRows { rows, left: Left::All }).collect()
    }

    /// The predicate over the file's own columns and types.
    fn adapt(&self, plan: &Plan, predicate: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let logical = Arc::clone(&plan.source.table.file_schema);
        let adapter = DefaultPhysicalExprAdapterFactory.create(logical, Arc::clone(self.schema()))?;
        simplify(adapter.rewrite(predicate)?, self.schema())
    }

    fn pruning(&self, predicate: &Arc<dyn PhysicalExpr>) -> Option<Arc<PruningPredicate>> {
        PruningPredicateBuilder::new().with_file_schema(Arc::clone(self.schema())).build(Arc::clone(predicate))
    }

    async fn prune(&self, predicate: &Arc<dyn PhysicalExpr>, reader: Box<dyn AsyncFileReader>) -> Vec<GroupRows> {
        let groups = self.footer().row_groups();
        let mut filter = RowGroupAccessPlanFilter::new(ParquetAccessPlan::new_all(groups.len()));
        if let Some(pruning) = self.pruning(predicate) {
            let parquet_schema = self.metadata.parquet_schema();
            filter.prune_by_statistics(self.schema(), parquet_schema, groups, &pruning, &self.metrics);
            self.prune_by_bloom(&mut filter, &pruning, reader).await;
        }
        let mut access = filter.build();
        if !access.is_empty() {
            let pages = PagePruningAccessPlanFilter::new(predicate, Arc::clone(self.schema()));
            access = pages.prune_plan_with_page_index(
                access,
                self.schema(),
                self.metadata.parquet_schema(),
                self.footer(),
                &self.metrics,
            );
        }
        let mut rows = self.all();
        for (group, access) in rows.iter_mut().zip(access.inner()) {
            group.left = match access {
                RowGroupAccess::Skip => Left::None,
                RowGroupAccess::Scan => Left::All,
                RowGroupAccess::Selection(selection) => match ranges(selection) {
                    ranges if ranges.is_empty() => Left::None,
                    ranges => Left::Some(ranges.into()),
                },
            };
        }
        rows
    }

    /// Leaves out groups whose bloom filters know none of the values asked for. One that can't be read excludes nothing.
    async fn prune_by_bloom(
        &self,
        filter: &mut RowGroupAccessPlanFilter,
        pruning: &PruningPredicate,
        reader: Box<dyn AsyncFileReader>,
    ) {
        let groups = self.footer().row_groups();
        let schema = self.metadata.parquet_schema();
        let columns = pruning.literal_columns().into_iter().filter_map(|name| {
            let (column, _) = parquet_column(schema, self.schema(), &name)?;
            groups.iter().any(|group| group.column(column).bloom_filter_offset().is_some()).then_some((name, column))
        });
        let columns: Vec<(String, usize)> = columns.collect();
        if columns.is_empty() {
            return;
        }
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone());
        let mut found = vec![BloomFilterStatistics::new(); groups.len()];
        for group in filter.row_group_indexes().collect::<Vec<_>>() {
            for (name, column) in &columns {
                let kind = schema.column(*column);
                match builder.get_row_group_column_bloom_filter(group, *column).await {
                    Ok(Some(bloom)) => found[group].insert(name, bloom, kind.physical_type(), kind.type_length()),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "a bloom filter can't be read"),
                }
            }
        }
        filter.prune_by_bloom_filters(pruning, &self.metrics, &found);
    }

    /// Whether conditions found out since excludes the group.
    pub(super) fn excludes(&self, group: usize) -> Result<bool> {
        let Some(late) = &self.late else { return Ok(false) };
        let pruning = {
            let mut late = late.lock().unwrap_or_else(PoisonError::into_inner);
            if late.tracking.watcher().is_some_and(|watcher| watcher.changed()) {
                late.pruning = self.pruning(&late.predicate);
            }
            late.pruning.clone()
        };
        let Some(pruning) = pruning else { return Ok(false) };
        let groups = self.footer().row_groups();
        let mut access = ParquetAccessPlan::new_none(groups.len());
        access.scan(group);
        let mut filter = RowGroupAccessPlanFilter::new(access);
        filter.prune_by_statistics(self.schema(), self.metadata.parquet_schema(), groups, &pruning, &self.metrics);
        Ok(filter.is_empty())
    }

    /// Whether the file says where its pages lie.
    pub(super) fn can_seek(&self) -> bool {
        self.footer().offset_index().is_some()
    }
}

/// The rows that a selection selects.
fn ranges(selection: &RowSelection) -> Vec<Range<u64>> {
    let (mut at, mut ranges) = (0, Vec::new());
    for selector in selection.iter() {
        let end = at + selector.row_count as u64;
        if !selector.skip && selector.row_count > 0 {
            ranges.push(at..end);
        }
        at = end;
    }
    ranges
}

/// Reads some columns of some rows of a row group, front to back.
pub(super) struct ColdGroup {
    stream: Stream,
    /// Of each column wanted, its place in the stream's batches, and the file's and the table's field.
    columns: Vec<Column>,
}

struct Column {
    at: usize,
    from: arrow::datatypes::FieldRef,
    to: arrow::datatypes::FieldRef,
}

impl ColdGroup {
    /// A reader of the columns `wanted`, which are places in [`OpenFile::reads`], for `rows` of the group, of which there
    /// is at least one.
    pub(super) fn new(
        file: &OpenFile,
        parquet: &ParquetFile,
        group: usize,
        rows: &[Range<u64>],
        wanted: &[usize],
    ) -> Result<Self> {
        let roots: Vec<usize> = wanted.iter().map(|read| file.reads[*read].column as usize).collect();
        let sorted: std::collections::BTreeSet<usize> = roots.iter().copied().collect();
        let columns = wanted.iter().zip(&roots).map(|(read, root)| {
            let at = sorted.iter().position(|known| known == root);
            let from = parquet.schema().fields().get(*root);
            let missing = || internal_datafusion_err!("a column of a Parquet file is not there");
            let (at, from) = at.zip(from).ok_or_else(missing)?;
            Ok(Column { at, from: Arc::clone(from), to: Arc::clone(&file.reads[*read].field) })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let mask = ProjectionMask::roots(parquet.metadata.parquet_schema(), sorted);
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(
            reader(&parquet.readers, &file.listed)?,
            parquet.metadata.clone(),
        )
        .with_row_groups(vec![group])
        .with_projection(mask)
        .with_batch_size(BLOCK_ROWS);
        let all = u64::try_from(parquet.footer().row_group(group).num_rows()).unwrap_or_default();
        if rows != std::slice::from_ref(&(0..all)) {
            builder = builder.with_row_selection(selection(rows));
        }
        Ok(Self { stream: builder.build()?, columns })
    }

    /// The next rows, of the table's types.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<ArrayRef>>> {
        let Some(batch) = self.stream.next().await.transpose()? else { return Ok(None) };
        let cast = |column: &Column| {
            widen::cast(batch.column(column.at), &column.from, &column.to).map_err(DataFusionError::from)
        };
        self.columns.iter().map(cast).collect::<Result<_>>().map(Some)
    }
}

fn selection(rows: &[Range<u64>]) -> RowSelection {
    let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    let (mut at, mut selectors) = (0, Vec::new());
    for range in rows {
        if range.start > at {
            selectors.push(RowSelector::skip(count(range.start - at)));
        }
        selectors.push(RowSelector::select(count(range.end - range.start)));
        at = range.end;
    }
    RowSelection::from(selectors)
}
