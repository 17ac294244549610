//! Tests of inference and decoding together, through the module's face.

mod csv;
mod json;
mod random;
mod streams;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;

use super::{Compression, CsvOptions, Decoder, Inference, Inferred, Layout, TextError, TextFormat};
use crate::widen;

const CSV: TextFormat = TextFormat::Csv(CsvOptions { delimiter: None, header: None });

fn infer_pieces(format: TextFormat, compression: Compression, pieces: &[&[u8]]) -> Result<Inferred, TextError> {
    let mut inference = Inference::new(format, compression);
    for piece in pieces {
        inference.push(piece)?;
    }
    inference.finish()
}

fn infer(format: TextFormat, text: &str) -> Result<Inferred, TextError> {
    infer_pieces(format, Compression::None, &[text.as_bytes()])
}

fn decode_pieces(
    layout: &Layout,
    compression: Compression,
    target: SchemaRef,
    pieces: &[&[u8]],
    batch_rows: usize,
) -> Result<Vec<RecordBatch>, TextError> {
    let mut decoder = Decoder::new(layout, compression, target, batch_rows)?;
    let mut batches = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(batch) = decoder.next_batch()? {
            batches.push(batch);
        }
    }
    decoder.finish();
    while let Some(batch) = decoder.next_batch()? {
        batches.push(batch);
    }
    assert!(decoder.is_done());
    Ok(batches)
}

fn decode(format: TextFormat, text: &str, target: Schema) -> Result<RecordBatch, TextError> {
    let layout = infer(format, text)?.layout;
    let schema = Arc::new(target);
    let batches = decode_pieces(&layout, Compression::None, schema.clone(), &[text.as_bytes()], 1024)?;
    Ok(concat_batches(&schema, &batches).expect("batches of one schema"))
}

/// Infers and decodes.
fn read(format: TextFormat, text: &str) -> Result<RecordBatch, TextError> {
    let schema = widen::finalize(&infer(format, text)?.schema);
    decode(format, text, schema)
}

/// `name:type` of every column; JSON text shows as `json`.
fn types(schema: &Schema) -> String {
    let shown = schema.fields().iter().map(|field| {
        let data_type = if widen::is_json(field) { "json".to_owned() } else { short(field.data_type()) };
        format!("{}:{data_type}", field.name())
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn short(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(fields) => format!("{{{}}}", types(&Schema::new(fields.clone()))),
        DataType::List(item) if widen::is_json(item) => "[json]".to_owned(),
        DataType::List(item) => format!("[{}]", short(item.data_type())),
        other => other.to_string(),
    }
}

/// Arrow prints named zones only with a feature that is not needed elsewhere.
fn with_offset(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let plain = DataType::Timestamp(*unit, Some("+00:00".into()));
            arrow::compute::cast(column, &plain).expect("the same instants")
        }
        _ => column.clone(),
    }
}

/// Rows as text: cells by `|`, rows by a newline, nulls as `~`.
fn show(batch: &RecordBatch) -> String {
    let options = FormatOptions::default().with_null("~");
    let arrays: Vec<ArrayRef> = batch.columns().iter().map(|column| with_offset(column)).collect();
    let columns: Vec<_> = arrays
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("a displayable type"))
        .collect();
    let row = |at: usize| columns.iter().map(|column| column.value(at).to_string()).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(row).collect::<Vec<_>>().join("\n")
}
