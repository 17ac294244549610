//! Arrow IPC, front to back: the streaming format, and the file format as the stream that it contains.

use std::collections::VecDeque;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use bytes::Bytes;

use crate::widen;

/// What an IPC file starts with; a stream starts with its first message.
const MAGIC: &[u8] = b"ARROW1\0\0";

/// Reads batches from bytes pushed in any division.
#[derive(Default)]
struct Messages {
    decoder: StreamDecoder,
    waiting: VecDeque<Buffer>,
    /// The first bytes, until there are enough to tell a file from a stream.
    start: Option<Vec<u8>>,
    started: bool,
    is_file: bool,
    /// Between a file's magic and its first message: writers pad with zeros to their own alignment.
    in_padding: bool,
    ended: bool,
}

impl Messages {
    fn push(&mut self, chunk: Bytes) {
        if self.started {
            self.waiting.push_back(Buffer::from(chunk));
            return;
        }
        let start = self.start.get_or_insert_default();
        start.extend_from_slice(&chunk);
        if start.len() >= MAGIC.len() {
            self.started = true;
            let mut buffer = Buffer::from_vec(self.start.take().unwrap_or_default());
            self.is_file = buffer.starts_with(MAGIC);
            self.in_padding = self.is_file;
            if self.is_file {
                buffer.advance(MAGIC.len());
            }
            self.waiting.push_back(buffer);
        }
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        while !self.ended {
            let Some(buffer) = self.waiting.front_mut() else { return Ok(None) };
            if self.in_padding {
                let zeros = buffer.iter().take_while(|b| **b == 0).count();
                buffer.advance(zeros);
                self.in_padding = buffer.is_empty();
            }
            match self.decoder.decode(buffer) {
                Ok(Some(batch)) => return Ok(Some(batch)),
                Ok(None) => drop(self.waiting.pop_front()),
                // The footer follows the end-of-stream marker of a file.
                Err(ArrowError::IpcError(why)) if self.is_file && why == "Unexpected EOS" => self.ended = true,
                Err(e) => return Err(e),
            }
        }
        self.waiting.clear();
        Ok(None)
    }

    fn finish(&mut self) -> Result<(), ArrowError> {
        if self.is_file && !self.ended || self.decoder.schema().is_none() {
            return Err(ArrowError::IpcError("the file is cut short".to_owned()));
        }
        self.decoder.finish().map_err(|_| ArrowError::IpcError("the file is cut short".to_owned()))
    }
}

/// Learns the schema and counts the rows.
#[derive(Default)]
pub(super) struct IpcInference {
    messages: Messages,
    rows: u64,
}

impl IpcInference {
    pub(super) fn push(&mut self, chunk: Bytes) -> Result<(), ArrowError> {
        self.messages.push(chunk);
        while let Some(batch) = self.messages.next()? {
            self.rows += batch.num_rows() as u64;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(Schema, u64), ArrowError> {
        self.messages.finish()?;
        let schema = self.messages.decoder.schema();
        let schema = schema.ok_or_else(|| ArrowError::IpcError("the file has no schema".to_owned()))?;
        Ok((Schema::new(schema.fields().clone()), self.rows))
    }
}

/// Gives batches of the target schema: by name, cast, missing columns null.
pub(super) struct IpcDecoder {
    messages: Messages,
    target: SchemaRef,
    finished: bool,
}

impl IpcDecoder {
    pub(super) fn new(target: SchemaRef) -> Self {
        Self { messages: Messages::default(), target, finished: false }
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.messages.push(chunk);
    }

    pub(super) fn finish(&mut self) -> Result<bool, ArrowError> {
        if self.finished {
            return Ok(false);
        }
        self.finished = true;
        self.messages.finish()?;
        Ok(true)
    }

    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let Some(batch) = self.messages.next()? else { return Ok(None) };
        let columns = self.target.fields().iter().map(|field| -> Result<ArrayRef, ArrowError> {
            match batch.schema_ref().column_with_name(field.name()) {
                Some((at, from)) => widen::cast(batch.column(at), from, field),
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.target.clone(), columns.collect::<Result<_, _>>()?, &options).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};
    use arrow::ipc::writer::{FileWriter, StreamWriter};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec![Some("a"), None]))];
        RecordBatch::try_new(Arc::new(schema), columns).expect("a batch")
    }

    fn encoded(as_file: bool) -> Vec<u8> {
        let (mut out, batch) = (Vec::new(), batch());
        if as_file {
            let mut writer = FileWriter::try_new(&mut out, batch.schema_ref()).expect("a writer");
            writer.write(&batch).and_then(|()| writer.write(&batch)).and_then(|()| writer.finish()).expect("writes");
        } else {
            let mut writer = StreamWriter::try_new(&mut out, batch.schema_ref()).expect("a writer");
            writer.write(&batch).and_then(|()| writer.write(&batch)).and_then(|()| writer.finish()).expect("writes");
        }
        out
    }

    #[test]
    fn file_and_stream_in_any_division() {
        for as_file in [true, false] {
            let bytes = encoded(as_file);
            for size in [1, 7, 64, bytes.len()] {
                let mut inference = IpcInference::default();
                bytes.chunks(size).for_each(|c| inference.push(Bytes::copy_from_slice(c)).expect("reads"));
                let (schema, rows) = inference.finish().expect("whole");
                assert_eq!((schema.fields().len(), rows), (2, 4));
            }
        }
    }

    #[test]
    fn a_cut_file_is_an_error_at_every_length() {
        let bytes = encoded(true);
        let end = bytes.windows(8).position(|w| w == [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).expect("has a marker") + 8;
        for len in 0..end {
            let mut inference = IpcInference::default();
            let pushed = inference.push(Bytes::copy_from_slice(&bytes[..len]));
            assert!(pushed.is_err() || inference.finish().is_err(), "cut at {len} passed as whole");
        }
    }

    #[test]
    fn decodes_into_another_schema() {
        let target = Schema::new(vec![
            Field::new("s", DataType::Utf8, true),
            Field::new("n", DataType::Float64, true),
            Field::new("missing", DataType::Utf8, true),
        ]);
        let mut decoder = IpcDecoder::new(Arc::new(target));
        decoder.push(encoded(true).into());
        let first = decoder.next_batch().expect("decodes").expect("a batch");
        assert_eq!(first.column(1).data_type(), &DataType::Float64);
        assert_eq!(first.column(2).null_count(), 2);
    }
}
