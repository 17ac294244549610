//! A file of a scan that is decoded front to back: JSON, CSV, TSV and Arrow IPC.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use quern_core::EngineError;
use tokio::sync::OwnedSemaphorePermit;

use super::Source;
use super::file::whole;
use crate::decode::{Decoder, FileDecoding};
use crate::hot::BLOCK_ROWS;
use crate::inspect::find_exhausted;
use crate::spill::SpillKey;
use crate::store::object_path;

/// Decodes some columns of a file. Bytes are taken only when no decoded batch is waiting, so that memory stays at one
/// chunk and one batch.
pub(super) struct ColdStream {
    bytes: BoxStream<'static, Result<Bytes>>,
    decoder: Decoder,
    columns: SchemaRef,
}

impl ColdStream {
    /// A reader of these columns.
    pub(super) async fn new(source: &Source, decoding: &FileDecoding, columns: SchemaRef) -> Result<Self> {
        let decoder = Decoder::new(decoding, Arc::new(without_views(&columns)), BLOCK_ROWS).map_err(external)?;
        let bytes = source.store.get(&object_path(&decoding.file)).await?.into_stream().map_err(DataFusionError::from);
        Ok(Self { bytes: bytes.fuse().boxed(), decoder, columns })
    }

    /// Views over the same bytes where views are wanted.
    fn with_views(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = batch.columns().iter().zip(self.columns.fields());
        let columns = columns.map(|(values, field)| match field.data_type() {
            view @ (DataType::Utf8View | DataType::BinaryView) => cast(values, view),
            _ => Ok(Arc::clone(values)),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.columns), columns, &options)?)
    }

    /// The next rows.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.decoder.next_batch().map_err(external)? {
                return self.with_views(&batch).map(Some);
            }
            match self.bytes.next().await {
                Some(chunk) => self.decoder.push(chunk?).map_err(external)?,
                None => {
                    if !self.decoder.finish().map_err(external)? {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

fn external(error: EngineError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What the decoders give where views are wanted.
fn without_views(schema: &Schema) -> Schema {
    let plain = |field: &FieldRef| match field.data_type() {
        DataType::Utf8View => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        DataType::BinaryView => Arc::new(field.as_ref().clone().with_data_type(DataType::Binary)),
        _ => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>())
}

/// Writes a text file as Parquet, for whoever reads it next. Where that fails for want of room it is tried again later; where
/// it fails otherwise, never. `permit` is from
/// [`crate::spill::Spills::wants`].
pub(super) async fn spill(source: Arc<Source>, number: usize, key: SpillKey, permit: OwnedSemaphorePermit) {
    let spills = Arc::clone(source.caches.hot.spills());
    if let Err(error) = write(&source, number, key).await {
        tracing::debug!(%error, "a text file was not spilled");
        if find_exhausted(&error).is_some() {
            spills.pause();
        } else {
            spills.give_up(key);
        }
    }
    drop(permit);
}

async fn write(source: &Source, number: usize, key: SpillKey) -> Result<()> {
    let Some((listed, info)) = source.table.files.get(number) else { return Ok(()) };
    let decoding = FileDecoding { file: Arc::clone(listed), layout: info.layout.clone() };
    let schema = Arc::new(whole(source, info));
    let mut rows = ColdStream::new(source, &decoding, Arc::clone(&schema)).await?;
    let mut writer = source.caches.hot.spills().begin(key, schema)?;
    while let Some(batch) = rows.next().await? {
        writer.write(&batch)?;
        tokio::task::yield_now().await;
    }
    writer.finish()
}
