//! The table provider: plans a scan of exactly the files of one snapshot.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue, Statistics, exec_datafusion_err};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{CachedParquetFileReaderFactory, ParquetRowSelection};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use parquet::arrow::RowNumber;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

use crate::decode::FileDecoding;
use crate::inspect::FileInfo;
use crate::listing::{FileFormat, ListedFile};
use crate::store::{PinnedStore, object_meta};
use crate::stream_source::StreamSource;
use crate::table::{NULL_PARTITION, Table};

/// The URL under which a query's runtime finds its [`crate::PinnedStore`].
pub const STORE_URL: &str = "quern://snapshot";

/// Two more columns that say where in its table each row lies: the number of its file among the table's files
/// (UInt32), and its own number in that file (Int64), both counted from 0. Together they order a table's rows.
#[derive(Clone, Debug)]
pub struct Positions {
    /// The name of the file's column.
    pub file: String,
    /// The name of the row's column.
    pub row: String,
    /// Leaves out, as far as that is cheap, rows up to and including this one.
    pub after: Option<(u32, i64)>,
}

/// A [`Table`] as DataFusion sees it.
#[derive(Debug)]
pub struct SnapshotProvider {
    table: Arc<Table>,
    positions: Option<Positions>,
    schema: SchemaRef,
    parquet_reader: Arc<CachedParquetFileReaderFactory>,
}

impl SnapshotProvider {
    /// A provider of the table's one snapshot, whose files are in `store` and whose Parquet footers may be in `footers`.
    pub fn new(table: Arc<Table>, store: Arc<PinnedStore>, footers: Arc<FileMetadataCache>) -> Self {
        let parquet_reader = Arc::new(CachedParquetFileReaderFactory::new(store, footers));
        Self { schema: table.schema(), table, positions: None, parquet_reader }
    }

    /// The provider with two columns more, after all others. Its scans have the order of the positions where there is
    /// one partition and [`Self::mixed`] does not hold.
    #[must_use]
    pub fn with_positions(self, positions: Positions) -> Self {
        let [file, row] = position_fields(&positions);
        let fields =
            self.table.schema().fields().iter().cloned().chain([Arc::new(file), Arc::new(row)]).collect::<Fields>();
        Self { schema: Arc::new(Schema::new(fields)), positions: Some(positions), ..self }
    }

    /// Whether two readers share the table's files, so that its rows come in no order.
    pub fn mixed(&self) -> bool {
        self.files(true).next().is_some() && self.files(false).next().is_some()
    }

    fn files(&self, parquet: bool) -> impl Iterator<Item = (u32, &Arc<ListedFile>, &Arc<FileInfo>)> {
        let numbered = (0..).zip(&self.table.files).map(|(number, (file, info))| (number, file, info));
        numbered.filter(move |(_, f, _)| (f.format == FileFormat::Parquet) == parquet)
    }

    /// What to scan of the file: nothing where all its rows lie before the position asked for.
    fn partitioned_file(
        &self,
        number: u32,
        file: &Arc<ListedFile>,
        info: &Arc<FileInfo>,
    ) -> Result<Option<PartitionedFile>> {
        let mut read_before = 0;
        if let Some((last_file, last_row)) = self.positions.as_ref().and_then(|p| p.after) {
            if number == last_file {
                read_before = u64::try_from(last_row).unwrap_or_default() + 1;
            }
            if number < last_file || read_before >= info.rows {
                return Ok(None);
            }
        }
        let values = file.partitions.iter().zip(&self.table.partition_fields).map(|((_, value), field)| {
            if value == NULL_PARTITION {
                return ScalarValue::try_from(field.data_type());
            }
            ScalarValue::try_from_string(value.clone(), field.data_type())
        });
        let mut values = values.collect::<Result<Vec<_>>>()?;
        if self.positions.is_some() {
            values.push(ScalarValue::UInt32(Some(number)));
        }
        let mut partitioned = PartitionedFile::new_from_meta(object_meta(file)).with_partition_values(values);
        if file.format == FileFormat::Parquet {
            partitioned = partitioned.with_statistics(Arc::new(self.align(info)));
            if read_before > 0 {
                let rest =
                    [read_before, info.rows - read_before].map(|rows| usize::try_from(rows).unwrap_or(usize::MAX));
                let selection = RowSelection::from(vec![RowSelector::skip(rest[0]), RowSelector::select(rest[1])]);
                partitioned = partitioned.with_extension(ParquetRowSelection::new(selection));
            }
        } else {
            partitioned =
                partitioned.with_extension(FileDecoding { file: Arc::clone(file), layout: info.layout.clone() });
        }
        Ok(Some(partitioned))
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

    /// The partition columns as a scan knows them: with the file's number where positions are wanted.
    fn partition_columns(&self) -> Vec<FieldRef> {
        let file = self.positions.as_ref().map(|positions| Arc::new(position_fields(positions)[0].clone()));
        self.table.partition_fields.iter().cloned().chain(file).collect()
    }

    fn parquet_source(&self, state: &dyn Session) -> Arc<dyn FileSource> {
        let rows = self.positions.as_ref().map(|positions| Arc::new(position_fields(positions)[1].clone()));
        let schema = TableSchema::builder(Arc::clone(&self.table.file_schema))
            .with_table_partition_cols(self.partition_columns())
            .with_virtual_columns(rows.into_iter().collect::<Vec<_>>())
            .build();
        let options =
            TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
        let reader = Arc::<CachedParquetFileReaderFactory>::clone(&self.parquet_reader);
        let source = ParquetSource::new(schema).with_table_parquet_options(options);
        Arc::new(source.with_parquet_file_reader_factory(reader))
    }

    /// Streams number their rows themselves: the column stands after the file's own there.
    fn stream_source(&self) -> Arc<dyn FileSource> {
        let rows = self.positions.as_ref().map(|positions| Arc::new(position_fields(positions)[1].clone()));
        let numbered = rows.is_some();
        let fields = self.table.file_schema.fields().iter().cloned().chain(rows).collect::<Vec<_>>();
        let schema = TableSchema::builder(Arc::new(Schema::new(fields)))
            .with_table_partition_cols(self.partition_columns())
            .build();
        Arc::new(StreamSource::new(schema, numbered))
    }

    /// The provider's columns as the stream source counts them.
    fn stream_projection(&self, projection: Option<&Vec<usize>>) -> Option<Vec<usize>> {
        if self.positions.is_none() {
            return projection.cloned();
        }
        let (files, last) = (self.table.file_schema.fields().len(), self.schema.fields().len() - 1);
        let moved = |at: usize| match at {
            at if at < files => at,
            at if at == last => files,
            at => at + 1,
        };
        Some(projection.map_or_else(|| (0..=last).map(moved).collect(), |p| p.iter().copied().map(moved).collect()))
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        parquet: bool,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let files = self.files(parquet).filter_map(|(n, f, i)| self.partitioned_file(n, f, i).transpose());
        let files = files.collect::<Result<Vec<_>>>()?;
        if files.is_empty() {
            return Ok(None);
        }
        let (source, projection) = if parquet {
            (self.parquet_source(state), projection.cloned())
        } else {
            (self.stream_source(), self.stream_projection(projection))
        };
        let statistics = self.total(parquet);
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection)?
            .with_limit(limit)
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }

    /// The statistics of a scan. With positions, columns of different readers stand in different places, and what was
    /// left out would count: nothing is said then.
    fn total(&self, parquet: bool) -> Statistics {
        if self.positions.is_some() {
            return Statistics::new_unknown(&self.schema);
        }
        let each: Vec<Statistics> = self.files(parquet).map(|(_, _, info)| self.align(info)).collect();
        let merged = Statistics::try_merge_iter(&each, &self.table.file_schema)
            .unwrap_or_else(|_| Statistics::new_unknown(&self.table.file_schema));
        self.table
            .partition_fields
            .iter()
            .fold(merged, |s, _| s.add_column_statistics(datafusion::common::ColumnStatistics::new_unknown()))
    }
}

/// The columns of the positions: the file's, the row's.
fn position_fields(positions: &Positions) -> [Field; 2] {
    let file = Field::new(&positions.file, DataType::UInt32, false);
    [file, Field::new(&positions.row, DataType::Int64, false).with_extension_type(RowNumber)]
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
