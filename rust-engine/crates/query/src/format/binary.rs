//! The formats that other libraries write: the Arrow IPC stream and Parquet. Batches are cast to the
//! types that are written, the bytes are taken out of the writers as they appear.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::Format;
use super::check::written_schema;

/// A row group is closed at this many encoded bytes or when the writer holds this much memory, so that
/// an export of any size needs little of it.
const ROW_GROUP_BYTES: usize = 16 << 20;
const WRITER_MEMORY: usize = 40 << 20;

/// Fast, and read by everything that reads Parquet.
const ZSTD_LEVEL: i32 = 1;

/// An encoder with state from the first batch to the last.
pub(crate) struct BinaryEncoder {
    schema: SchemaRef,
    writer: Writer,
}

enum Writer {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

/// Either library's error.
#[derive(Debug)]
pub(crate) enum BinaryError {
    Arrow(ArrowError),
    Parquet(ParquetError),
}

impl From<ArrowError> for BinaryError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl From<ParquetError> for BinaryError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl std::fmt::Display for BinaryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Arrow(error) => error.fmt(f),
            Self::Parquet(error) => error.fmt(f),
        }
    }
}

impl BinaryEncoder {
    /// `None` for the formats of rows.
    pub(crate) fn new(schema: &Schema, format: Format) -> Option<Result<Self, BinaryError>> {
        let schema = Arc::new(written_schema(schema, format));
        let writer = match format {
            Format::Arrow => arrow_writer(&schema),
            Format::Parquet => parquet_writer(&schema),
            Format::Json | Format::JsonArray | Format::Ndjson | Format::Csv => return None,
        };
        Some(writer.map(|writer| Self { schema, writer }))
    }

    /// Writes a batch; returns the bytes that are ready, which may be none.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, BinaryError> {
        let batch = self.convert(batch)?;
        match &mut self.writer {
            Writer::Arrow(writer) => {
                writer.write(&batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Writer::Parquet(writer) => {
                writer.write(&batch)?;
                if writer.in_progress_size() > ROW_GROUP_BYTES || writer.memory_size() > WRITER_MEMORY {
                    writer.flush()?;
                }
                Ok(std::mem::take(writer.inner_mut()))
            }
        }
    }

    /// Ends the stream or file; returns its last bytes.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>, BinaryError> {
        match &mut self.writer {
            Writer::Arrow(writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Writer::Parquet(writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.inner_mut()))
            }
        }
    }

    fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let fields = self.schema.fields().iter();
        let columns = batch.columns().iter().zip(fields).map(|(column, field)| {
            if column.data_type() == field.data_type() {
                return Ok(Arc::clone(column));
            }
            strict_cast(column, field.data_type())
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)
    }
}

/// A cast that fails where the default would put nulls.
fn strict_cast(column: &ArrayRef, data_type: &arrow::datatypes::DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, data_type, &options)
}

fn arrow_writer(schema: &SchemaRef) -> Result<Writer, BinaryError> {
    let writer = StreamWriter::try_new(Vec::new(), schema)?;
    Ok(Writer::Arrow(Box::new(writer)))
}

fn parquet_writer(schema: &SchemaRef) -> Result<Writer, BinaryError> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("quern".to_owned())
        .build();
    let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?;
    Ok(Writer::Parquet(Box::new(writer)))
}
