//! The file source for formats that are decoded front to back: JSON, CSV, TSV and Arrow IPC.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};

use crate::decode::{Decoder, FileDecoding};
use crate::store::object_path;

/// Scans files by streaming their bytes through a [`Decoder`]. Only the wanted columns are decoded.
#[derive(Clone)]
pub(crate) struct StreamSource {
    table_schema: TableSchema,
    /// Whether the last of the file's columns is not the file's but the row's number in it, an Int64 counted from 0.
    numbered: bool,
    batch_rows: usize,
    projection: SplitProjection,
    metrics: ExecutionPlanMetricsSet,
}

impl StreamSource {
    pub(crate) fn new(table_schema: TableSchema, numbered: bool) -> Self {
        Self {
            numbered,
            projection: SplitProjection::unprojected(&table_schema),
            table_schema,
            batch_rows: 8192,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl FileSource for StreamSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        _config: &FileScanConfig,
        _partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let file_schema = self.table_schema.file_schema();
        let wanted = &self.projection.file_indices;
        let schema = Arc::new(file_schema.project(wanted)?);
        let number = self.numbered.then(|| file_schema.fields().len() - 1);
        let number_at = number.and_then(|number| wanted.iter().position(|at| *at == number));
        let opener = StreamOpener { store, schema, number_at, batch_rows: self.batch_rows };
        ProjectionOpener::try_new(self.projection.clone(), Arc::new(opener), file_schema)
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table_schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_rows: batch_size, ..self.clone() })
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.table_schema.file_schema(), &merged);
        Ok(Some(Arc::new(Self { projection, ..self.clone() })))
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        "stream"
    }

    /// Records can't be found from the middle of a quoted CSV field or a JSON array.
    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut recursion = TreeNodeRecursion::Continue;
        for projected in self.projection.source.iter() {
            recursion = f(&projected.expr)?;
            if recursion == TreeNodeRecursion::Stop {
                break;
            }
        }
        Ok(recursion)
    }
}

struct StreamOpener {
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    /// Which of the schema's columns is the row's number.
    number_at: Option<usize>,
    batch_rows: usize,
}

impl FileOpener for StreamOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let decoding = file
            .extension::<FileDecoding>()
            .cloned()
            .ok_or_else(|| internal_datafusion_err!("a streamed file has no decoding"))?;
        let in_file = (0..self.schema.fields().len()).filter(|at| Some(*at) != self.number_at).collect::<Vec<_>>();
        let in_file = Arc::new(self.schema.project(&in_file)?);
        let decoder = Decoder::new(&decoding, in_file, self.batch_rows).map_err(external)?;
        let (store, schema, number_at) = (Arc::clone(&self.store), Arc::clone(&self.schema), self.number_at);
        Ok(Box::pin(async move {
            let bytes = store.get(&object_path(&decoding.file)).await?.into_stream().map_err(DataFusionError::from);
            let batches = decode(bytes.fuse().boxed(), decoder);
            Ok(match number_at {
                Some(at) => number(batches, schema, at),
                None => batches,
            })
        }))
    }
}

/// Pulls bytes only when no decoded batch is waiting, so that memory stays at one chunk and one batch.
fn decode(
    bytes: BoxStream<'static, Result<bytes::Bytes>>,
    decoder: Decoder,
) -> BoxStream<'static, Result<RecordBatch>> {
    futures::stream::try_unfold(Some((bytes, decoder)), |state| async move {
        let Some((mut bytes, mut decoder)) = state else { return Ok(None) };
        loop {
            if let Some(batch) = decoder.next_batch().map_err(external)? {
                return Ok(Some((batch, Some((bytes, decoder)))));
            }
            match bytes.next().await {
                Some(chunk) => decoder.push(chunk?).map_err(external)?,
                None => {
                    if !decoder.finish().map_err(external)? {
                        return Ok(None);
                    }
                }
            }
        }
    })
    .boxed()
}

/// Adds the row's number as column `at` of `schema`.
fn number(
    batches: BoxStream<'static, Result<RecordBatch>>,
    schema: SchemaRef,
    at: usize,
) -> BoxStream<'static, Result<RecordBatch>> {
    let mut next = 0;
    let numbered = batches.map(move |batch| {
        let batch = batch?;
        let first = next;
        next += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        let mut columns = batch.columns().to_vec();
        columns.insert(at, Arc::new(Int64Array::from_iter_values(first..next)));
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    });
    numbered.boxed()
}

fn external(error: quern_core::EngineError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
