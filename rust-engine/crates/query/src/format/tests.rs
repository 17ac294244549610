//! Tests of whole results: golden text of every type, round trips of random batches, the stream's promises.

mod arrays;
mod blocks;
mod golden;
mod readers;
mod round_trip;
mod streaming;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;

use super::{EncodeError, EncodeOptions, Format, NumberStyle, Part, Receipt, encode};

type Failure = EncodeError<ArrowError>;

fn options(format: Format) -> EncodeOptions {
    EncodeOptions {
        envelope: super::Envelope::default(),
        format,
        numbers: NumberStyle::Exact,
        parallelism: 2,
        most: usize::MAX,
        snapshots: vec![("t".to_owned(), "s1".to_owned())],
        runtime: None,
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field = |name: &str, data_type: &DataType| Field::new(name, data_type.clone(), true);
    let fields: Vec<_> = columns.iter().map(|(name, array)| field(name, array.data_type())).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
}

/// A whole result: its chunks and its receipt.
async fn collect(
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    options: EncodeOptions,
) -> Result<(Vec<Bytes>, Receipt), Failure> {
    let input = stream::iter(batches.into_iter().map(Ok));
    let mut parts = encode(input, schema, options).expect("a schema that fits");
    let mut chunks = Vec::new();
    while let Some(part) = parts.next().await {
        match part? {
            Part::Chunk(chunk) => chunks.push(chunk),
            Part::Receipt(receipt) => {
                assert!(parts.next().await.is_none(), "nothing follows the receipt");
                return Ok((chunks, receipt));
            }
        }
    }
    panic!("neither a receipt nor an error");
}

fn blocking(batch: &RecordBatch, options: EncodeOptions) -> Result<Vec<u8>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let result = collect(batch.schema(), vec![batch.clone()], options);
    runtime.block_on(result).map(|(chunks, _)| chunks.concat())
}

fn text(batch: &RecordBatch, options: EncodeOptions) -> String {
    let bytes = blocking(batch, options).expect("encodes");
    String::from_utf8(bytes).expect("text formats are UTF-8")
}
