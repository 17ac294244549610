//! A file of a scan that is decoded front to back: JSON, CSV, TSV and Arrow IPC.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use quern_core::EngineError;

use super::Source;
use super::file::OpenFile;
use crate::decode::{Decoder, FileDecoding};
use crate::hot::BLOCK_ROWS;
use crate::store::object_path;

/// Decodes some columns of a file. Bytes are taken only when no decoded batch is waiting, so that memory stays at one
/// chunk and one batch.
pub(super) struct ColdStream {
    bytes: BoxStream<'static, Result<Bytes>>,
    decoder: Decoder,
}

impl ColdStream {
    /// A reader of the columns `wanted`, which are places in [`OpenFile::reads`].
    pub(super) async fn new(
        source: &Source,
        file: &OpenFile,
        decoding: &FileDecoding,
        wanted: &[usize],
    ) -> Result<Self> {
        let fields = wanted.iter().map(|read| Arc::clone(&file.reads[*read].field)).collect::<Vec<_>>();
        let decoder = Decoder::new(decoding, Arc::new(Schema::new(fields)), BLOCK_ROWS).map_err(external)?;
        let bytes = source.store.get(&object_path(&decoding.file)).await?.into_stream().map_err(DataFusionError::from);
        Ok(Self { bytes: bytes.fuse().boxed(), decoder })
    }

    /// The next rows, of the table's types.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<ArrayRef>, usize)>> {
        loop {
            if let Some(batch) = self.decoder.next_batch().map_err(external)? {
                let rows = batch.num_rows();
                return Ok(Some((batch.columns().to_vec(), rows)));
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
