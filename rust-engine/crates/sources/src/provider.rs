//! The table provider: plans a scan of exactly the files of one snapshot.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue, Statistics, exec_datafusion_err};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;

use crate::decode::FileDecoding;
use crate::inspect::FileInfo;
use crate::listing::{FileFormat, ListedFile};
use crate::store::{PinnedStore, object_meta};
use crate::stream_source::StreamSource;
use crate::table::{NULL_PARTITION, Table};

/// The URL under which a query's runtime finds its [`crate::PinnedStore`].
pub const STORE_URL: &str = "quern://snapshot";

/// A [`Table`] as DataFusion sees it.
#[derive(Debug)]
pub struct SnapshotProvider {
    table: Arc<Table>,
    schema: SchemaRef,
    parquet_reader: Arc<CachedParquetFileReaderFactory>,
}

impl SnapshotProvider {
    /// A provider of the table's one snapshot, whose files are in `store` and whose Parquet footers may be in `footers`.
    pub fn new(table: Arc<Table>, store: Arc<PinnedStore>, footers: Arc<FileMetadataCache>) -> Self {
        let parquet_reader = Arc::new(CachedParquetFileReaderFactory::new(store, footers));
        Self { schema: table.schema(), table, parquet_reader }
    }

    fn files(&self, parquet: bool) -> impl Iterator<Item = &(Arc<ListedFile>, Arc<FileInfo>)> {
        self.table.files.iter().filter(move |(f, _)| (f.format == FileFormat::Parquet) == parquet)
    }

    fn partitioned_file(&self, file: &Arc<ListedFile>, info: &Arc<FileInfo>) -> Result<PartitionedFile> {
        let values = file.partitions.iter().zip(&self.table.partition_fields).map(|((_, value), field)| {
            if value == NULL_PARTITION {
                return ScalarValue::try_from(field.data_type());
            }
            ScalarValue::try_from_string(value.clone(), field.data_type())
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let mut partitioned = PartitionedFile::new_from_meta(object_meta(file)).with_partition_values(values);
        if file.format == FileFormat::Parquet {
            partitioned = partitioned.with_statistics(Arc::new(self.align(info)));
        } else {
            partitioned =
                partitioned.with_extension(FileDecoding { file: Arc::clone(file), layout: info.layout.clone() });
        }
        Ok(partitioned)
    }

    /// The file's statistics in the order and types of the table's columns.
    fn align(&self, info: &FileInfo) -> Statistics {
        let schema = &self.table.file_schema;
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

    fn table_schema(&self) -> TableSchema {
        TableSchema::builder(Arc::clone(&self.table.file_schema))
            .with_table_partition_cols(self.table.partition_fields.iter().cloned().collect::<Vec<_>>())
            .build()
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        parquet: bool,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let files = self.files(parquet).map(|(f, i)| self.partitioned_file(f, i)).collect::<Result<Vec<_>>>()?;
        if files.is_empty() {
            return Ok(None);
        }
        let source: Arc<dyn FileSource> = if parquet {
            let options =
                TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
            Arc::new(
                ParquetSource::new(self.table_schema())
                    .with_table_parquet_options(options)
                    .with_parquet_file_reader_factory(Arc::<CachedParquetFileReaderFactory>::clone(
                        &self.parquet_reader,
                    )),
            )
        } else {
            Arc::new(StreamSource::new(self.table_schema()))
        };
        let statistics = self.total(parquet);
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }

    fn total(&self, parquet: bool) -> Statistics {
        let each: Vec<Statistics> = self.files(parquet).map(|(_, info)| self.align(info)).collect();
        let merged = Statistics::try_merge_iter(&each, &self.table.file_schema)
            .unwrap_or_else(|_| Statistics::new_unknown(&self.table.file_schema));
        self.table
            .partition_fields
            .iter()
            .fold(merged, |s, _| s.add_column_statistics(datafusion::common::ColumnStatistics::new_unknown()))
    }
}

#[async_trait]
impl TableProvider for SnapshotProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
        let mut scans = Vec::new();
        for parquet in [true, false] {
            scans.extend(self.scan_files(state, parquet, projection, limit)?);
        }
        match (scans.pop(), scans.is_empty()) {
            (None, _) => {
                let schema = match projection {
                    Some(indices) => Arc::new(self.schema.project(indices)?),
                    None => Arc::clone(&self.schema),
                };
                Ok(Arc::new(EmptyExec::new(schema)))
            }
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                scans.push(last);
                UnionExec::try_new(scans).map_err(|e| exec_datafusion_err!("can't unite the formats of a table: {e}"))
            }
        }
    }

    fn statistics(&self) -> Option<Statistics> {
        None
    }
}
