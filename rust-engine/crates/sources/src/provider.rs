//! The table provider: plans a scan of exactly the files of one snapshot.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use crate::inspect::FileInfo;
use crate::scan::{Caches, Positions, Scan, Source};
use crate::store::PinnedStore;
use crate::table::Table;

/// A [`Table`] as DataFusion sees it.
#[derive(Debug)]
pub struct SnapshotProvider {
    source: Arc<Source>,
}

impl SnapshotProvider {
    /// A provider of the table's one snapshot, whose files are in `store`. With positions it has two columns more, after
    /// all others, and a scan by one partition gives the rows in their order.
    pub fn new(table: Arc<Table>, store: Arc<PinnedStore>, caches: &Caches, positions: Option<Positions>) -> Self {
        Self { source: Arc::new(Source::new(table, store, caches.clone(), positions)) }
    }

    /// A file's statistics in the order and types of the table's columns.
    fn align(&self, info: &FileInfo) -> Statistics {
        let schema = &self.source.table.file_schema;
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = info.statistics.num_rows;
        statistics.total_byte_size = info.statistics.total_byte_size;
        for (at, field) in schema.fields().iter().enumerate() {
            let Ok(in_file) = info.schema.index_of(field.name()) else { continue };
            let Some(known) = info.statistics.column_statistics.get(in_file) else { continue };
            let mut column = known.clone();
            match (known.min_value.cast_to(field.data_type()), known.max_value.cast_to(field.data_type())) {
                (Ok(min), Ok(max)) => {
                    column.min_value = min;
                    column.max_value = max;
                }
                _ => {
                    column.min_value = Default::default();
                    column.max_value = Default::default();
                }
            }
            if let Some(slot) = statistics.column_statistics.get_mut(at) {
                *slot = column;
            }
        }
        statistics
    }

    /// The statistics of all files. With positions they say nothing: what is left out would count.
    fn statistics(&self) -> Statistics {
        let Source { table, positions, schema, .. } = self.source.as_ref();
        if positions.is_some() {
            return Statistics::new_unknown(schema);
        }
        let each: Vec<Statistics> = table.files.iter().map(|(_, info)| self.align(info)).collect();
        let merged = Statistics::try_merge_iter(&each, &table.file_schema)
            .unwrap_or_else(|_| Statistics::new_unknown(&table.file_schema));
        table
            .partition_fields
            .iter()
            .fold(merged, |s, _| s.add_column_statistics(datafusion::common::ColumnStatistics::new_unknown()))
    }
}

#[async_trait]
impl TableProvider for SnapshotProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.source.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let source = Arc::clone(&self.source);
        if source.table.files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(source.schema.project(columns)?),
                None => Arc::clone(&source.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let readers = state.config().target_partitions();
        let scan = Scan::new(source, projection, limit, readers, self.statistics())?;
        Ok(DataSourceExec::from_data_source(scan))
    }
}
