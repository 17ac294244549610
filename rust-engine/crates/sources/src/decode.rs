//! One face for every format that is decoded front to back, with errors that name file and row.

mod ipc;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use quern_core::{EngineError, Reason};

use crate::inspect::corrupt;
use crate::listing::{Compression, FileFormat, ListedFile};
use crate::text::{self, CsvOptions, TextError, TextFormat};
use ipc::{IpcDecoder, IpcInference};

/// What a decoder must know of a file besides the schema it shall give.
#[derive(Clone, Debug)]
pub(crate) enum Layout {
    /// Nothing: the format describes itself.
    None,
    /// How the text is laid out.
    Text(text::Layout),
}

/// A file to decode, carried by the scan's file list.
#[derive(Clone, Debug)]
pub(crate) struct FileDecoding {
    pub(crate) file: Arc<ListedFile>,
    pub(crate) layout: Layout,
}

/// Learns schema and row count from a file's bytes.
pub(crate) struct Inference<'a> {
    file: &'a ListedFile,
    kind: InferenceKind,
}

enum InferenceKind {
    Text(Box<text::Inference>),
    Ipc(Box<IpcInference>),
}

impl<'a> Inference<'a> {
    pub(crate) fn new(file: &'a ListedFile) -> Self {
        let kind = match text_format(file.format) {
            Some(format) => InferenceKind::Text(Box::new(text::Inference::new(format, compression(file)))),
            None => InferenceKind::Ipc(Box::<IpcInference>::default()),
        };
        Self { file, kind }
    }

    pub(crate) fn push(&mut self, chunk: &Bytes) -> Result<(), EngineError> {
        match &mut self.kind {
            InferenceKind::Text(inference) => inference.push(chunk).map_err(|e| text_error(self.file, &e)),
            InferenceKind::Ipc(inference) => {
                inference.push(chunk.clone()).map_err(|e| corrupt(self.file, &e.to_string()))
            }
        }
    }

    pub(crate) fn finish(self) -> Result<(Schema, u64, Layout), EngineError> {
        match self.kind {
            InferenceKind::Text(inference) => {
                let inferred = inference.finish().map_err(|e| text_error(self.file, &e))?;
                Ok((inferred.schema, inferred.rows, Layout::Text(inferred.layout)))
            }
            InferenceKind::Ipc(inference) => {
                let (schema, rows) = inference.finish().map_err(|e| corrupt(self.file, &e.to_string()))?;
                Ok((schema, rows, Layout::None))
            }
        }
    }
}

/// Turns a file's bytes into batches of exactly the target schema.
pub(crate) struct Decoder {
    file: Arc<ListedFile>,
    kind: DecoderKind,
}

enum DecoderKind {
    Text(Box<text::Decoder>),
    Ipc(Box<IpcDecoder>),
}

impl Decoder {
    pub(crate) fn new(decoding: &FileDecoding, target: SchemaRef, batch_rows: usize) -> Result<Self, EngineError> {
        let file = Arc::clone(&decoding.file);
        let kind = match &decoding.layout {
            Layout::Text(layout) => {
                let decoder = text::Decoder::new(layout, compression(&file), target, batch_rows);
                DecoderKind::Text(Box::new(decoder.map_err(|e| text_error(&file, &e))?))
            }
            Layout::None => DecoderKind::Ipc(Box::new(IpcDecoder::new(target))),
        };
        Ok(Self { file, kind })
    }

    pub(crate) fn push(&mut self, chunk: Bytes) -> Result<(), EngineError> {
        match &mut self.kind {
            DecoderKind::Text(decoder) => decoder.push(chunk),
            DecoderKind::Ipc(decoder) => decoder.push(chunk),
        }
        Ok(())
    }

    /// Says that no more bytes come; false when the decoder had been told before and is done.
    pub(crate) fn finish(&mut self) -> Result<bool, EngineError> {
        match &mut self.kind {
            DecoderKind::Text(decoder) if decoder.is_done() => Ok(false),
            DecoderKind::Text(decoder) => {
                decoder.finish();
                Ok(true)
            }
            DecoderKind::Ipc(decoder) => decoder.finish().map_err(|e| corrupt(&self.file, &e.to_string())),
        }
    }

    pub(crate) fn next_batch(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        match &mut self.kind {
            DecoderKind::Text(decoder) => decoder.next_batch().map_err(|e| text_error(&self.file, &e)),
            DecoderKind::Ipc(decoder) => decoder.next_batch().map_err(|e| corrupt(&self.file, &e.to_string())),
        }
    }
}

fn text_format(format: FileFormat) -> Option<TextFormat> {
    match format {
        FileFormat::Json => Some(TextFormat::Json),
        FileFormat::Csv => Some(TextFormat::Csv(CsvOptions::default())),
        FileFormat::Tsv => Some(TextFormat::Csv(CsvOptions::tsv())),
        FileFormat::Parquet | FileFormat::Arrow => None,
    }
}

fn compression(file: &ListedFile) -> text::Compression {
    match file.compression {
        Compression::None => text::Compression::None,
        Compression::Gzip => text::Compression::Gzip,
        Compression::Zstd => text::Compression::Zstd,
    }
}

fn text_error(file: &ListedFile, error: &TextError) -> EngineError {
    let mut out = EngineError::new(Reason::FileCorrupt, format!("`{}` can't be read: {error}", file.shown))
        .with("file", &file.shown);
    if let Some(row) = error.row {
        out = out.with("row", row);
    }
    if let Some(column) = &error.column {
        out = out.with("column", column);
    }
    out
}
