//! The module's face: one inference and one decoder for every text format.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;

use super::compress::Compression;
use super::csv_decode::CsvDecoder;
use super::csv_infer::CsvInference;
use super::error::TextError;
use super::json_decode::{Decoded, JsonDecoder};
use super::json_infer::JsonInference;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// `.json`, `.ndjson`, `.jsonl`.
    Json,
    /// `.csv`, `.tsv`.
    Csv(CsvOptions),
}

/// What is said about a CSV file rather than found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CsvOptions {
    /// The byte between cells; none: found from the first lines.
    pub delimiter: Option<u8>,
    /// Whether the first line is a header; none: found from its cells.
    pub header: Option<bool>,
}

impl CsvOptions {
    /// Tab-separated, as `.tsv` is.
    pub fn tsv() -> Self {
        Self { delimiter: Some(b'\t'), header: None }
    }
}

/// What a decoder must know of a file besides its schema: small, and valid as long as the file does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(LayoutKind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum LayoutKind {
    Json { values: bool },
    Csv(CsvLayout),
}

/// How a CSV file is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CsvLayout {
    pub(super) delimiter: u8,
    pub(super) header: bool,
    pub(super) names: Arc<[String]>,
}

/// What a text file holds.
#[derive(Debug, Clone)]
pub struct Inferred {
    /// Its columns; those without any value have type Null, see [`crate::widen::finalize`].
    pub schema: Schema,
    /// Its rows.
    pub rows: u64,
    /// What its decoder must know.
    pub layout: Layout,
}

/// Infers the schema of a text file from all its rows. Push its bytes, then finish.
#[derive(Debug)]
pub struct Inference(InferenceState);

#[derive(Debug)]
enum InferenceState {
    Json(Box<JsonInference>),
    Csv(Box<CsvInference>),
    /// The first error, told again on every call.
    Failed(TextError),
}

impl Inference {
    /// Starts on a file.
    pub fn new(format: TextFormat, compression: Compression) -> Self {
        let state = match format {
            TextFormat::Json => JsonInference::new(compression).map(|json| InferenceState::Json(Box::new(json))),
            TextFormat::Csv(options) => {
                CsvInference::new(options, compression).map(|csv| InferenceState::Csv(Box::new(csv)))
            }
        };
        Self(state.unwrap_or_else(InferenceState::Failed))
    }

    /// Takes the next bytes of the file, of any length.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), TextError> {
        let bytes = Bytes::copy_from_slice(chunk);
        let pushed = match &mut self.0 {
            InferenceState::Json(json) => json.push(bytes),
            InferenceState::Csv(csv) => csv.push(bytes),
            InferenceState::Failed(error) => return Err(error.clone()),
        };
        pushed.inspect_err(|error| self.0 = InferenceState::Failed(error.clone()))
    }

    /// The file has ended: what it holds.
    pub fn finish(self) -> Result<Inferred, TextError> {
        match self.0 {
            InferenceState::Failed(error) => Err(error),
            InferenceState::Json(json) => {
                let found = json.finish()?;
                let layout = Layout(LayoutKind::Json { values: found.values });
                Ok(Inferred { schema: found.schema, rows: found.rows, layout })
            }
            InferenceState::Csv(csv) => {
                let found = csv.finish()?;
                let names = found.schema.fields().iter().map(|field| field.name().clone()).collect();
                let csv_layout = CsvLayout { delimiter: found.delimiter, header: found.header, names };
                Ok(Inferred { schema: found.schema, rows: found.rows, layout: Layout(LayoutKind::Csv(csv_layout)) })
            }
        }
    }
}

/// Decodes a text file into batches of a given schema. [`Self::push`] only stores a chunk and [`Self::next_batch`]
/// does the work, one batch at a time, so that a chunk which decompresses to very much never fills memory.
#[derive(Debug)]
pub struct Decoder {
    state: DecoderState,
    schema: SchemaRef,
}

#[derive(Debug)]
enum DecoderState {
    Json(Box<JsonDecoder>),
    Csv(Box<CsvDecoder>),
    Failed(TextError),
}

impl Decoder {
    /// Starts on a file whose layout is known. `target` names the wanted columns in the wanted order, by their final
    /// types; those that the file lacks are null, and there may be none (batches then only count rows).
    pub fn new(
        layout: &Layout,
        compression: Compression,
        target: SchemaRef,
        batch_rows: usize,
    ) -> Result<Self, TextError> {
        let batch_rows = batch_rows.max(1);
        let fields = target.fields();
        let state = match &layout.0 {
            LayoutKind::Json { values } => {
                DecoderState::Json(Box::new(JsonDecoder::new(*values, compression, fields, batch_rows)?))
            }
            LayoutKind::Csv(csv) => DecoderState::Csv(Box::new(CsvDecoder::new(csv, compression, fields, batch_rows)?)),
        };
        Ok(Self { state, schema: target })
    }

    /// Stores the next bytes of the file. Take all batches before pushing more.
    pub fn push(&mut self, chunk: Bytes) {
        match &mut self.state {
            DecoderState::Json(json) => json.push(chunk),
            DecoderState::Csv(csv) => csv.push(chunk),
            DecoderState::Failed(_) => {}
        }
    }

    /// No more bytes will be pushed.
    pub fn finish(&mut self) {
        match &mut self.state {
            DecoderState::Json(json) => json.finish(),
            DecoderState::Csv(csv) => csv.finish(),
            DecoderState::Failed(_) => {}
        }
    }

    /// The file has ended and all its batches have been taken.
    pub fn is_done(&self) -> bool {
        match &self.state {
            DecoderState::Json(json) => json.ended(),
            DecoderState::Csv(csv) => csv.ended(),
            DecoderState::Failed(_) => false,
        }
    }

    /// The next batch. None: push more, or, after [`Self::finish`], the end. After an error it is told again.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, TextError> {
        let decoded = match &mut self.state {
            DecoderState::Json(json) => json.decode(),
            DecoderState::Csv(csv) => csv.decode(),
            DecoderState::Failed(error) => return Err(error.clone()),
        };
        let batch = decoded.and_then(|decoded| match decoded {
            Decoded::Starved | Decoded::End => Ok(None),
            Decoded::Batch(arrays, rows) => {
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options);
                batch.map(Some).map_err(|error| TextError {
                    row: None,
                    line: None,
                    column: None,
                    byte_offset: 0,
                    message: format!("the rows do not make a batch: {error}"),
                })
            }
        });
        batch.inspect_err(|error| self.state = DecoderState::Failed(error.clone()))
    }
}
