//! JSON rows to record batches of a given schema.

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;
use bytes::Bytes;

use super::BATCH_BYTES;
use super::build::Record;
use super::compress::Compression;
use super::error::{Stop, TextError};
use super::json::{Advance, JsonReader, Rows};
use super::json_infer::VALUE_COLUMN;
use super::scan::{Scan, Scanner, Token};

/// Reads JSON rows into columns.
#[derive(Debug)]
pub(super) struct JsonDecoder {
    reader: JsonReader,
    batch: Batch,
}

/// What a decoder's step came to.
#[derive(Debug)]
pub(super) enum Decoded {
    /// Columns and their number of rows.
    Batch(Vec<ArrayRef>, usize),
    Starved,
    End,
}

impl JsonDecoder {
    pub(super) fn new(
        values: bool,
        compression: Compression,
        fields: &Fields,
        batch_rows: usize,
    ) -> Result<Self, TextError> {
        let reader = JsonReader::new(compression, false)?;
        let record = Record::new(fields).map_err(no_such_column)?;
        Ok(Self { reader, batch: Batch { record, values, rows: 0, bytes: 0, batch_rows } })
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.reader.push(chunk);
    }

    pub(super) fn finish(&mut self) {
        self.reader.finish();
    }

    pub(super) fn ended(&self) -> bool {
        self.reader.ended() && self.batch.rows == 0
    }

    pub(super) fn decode(&mut self) -> Result<Decoded, TextError> {
        match self.reader.advance(&mut self.batch)? {
            Advance::Starved => Ok(Decoded::Starved),
            Advance::End if self.batch.rows == 0 => Ok(Decoded::End),
            Advance::End | Advance::Paused => {
                let rows = std::mem::take(&mut self.batch.rows);
                self.batch.bytes = 0;
                let last = self.reader.rows();
                let arrays = self.batch.record.finish().map_err(|fault| failed_cast(fault, last, rows))?;
                Ok(Decoded::Batch(arrays, rows))
            }
        }
    }
}

/// The batch under construction.
#[derive(Debug)]
struct Batch {
    record: Record,
    /// Whole rows go to one column.
    values: bool,
    rows: usize,
    bytes: usize,
    batch_rows: usize,
}

impl Rows for Batch {
    fn row<'a>(&mut self, scanner: &mut Scanner<'a>, token: Token<'a>) -> Scan<()> {
        if self.values {
            match self.record.position(VALUE_COLUMN) {
                Some(at) => {
                    let column = self.record.column(at);
                    column.read(scanner, token).map_err(|stop| stop.within(VALUE_COLUMN))?;
                }
                None => scanner.skip(token)?,
            }
            self.record.close();
            return Ok(());
        }
        match token {
            Token::Object => self.record.read(scanner),
            Token::Null => {
                self.record.close();
                Ok(())
            }
            _ => Err(Stop::bad(scanner.position(), "the row is not an object, although all were when it was inferred")),
        }
    }

    fn undo(&mut self) {
        self.record.truncate(self.rows);
    }

    fn done(&mut self, bytes: usize) -> bool {
        self.rows += 1;
        self.bytes += bytes;
        self.rows < self.batch_rows && self.bytes < BATCH_BYTES
    }
}

/// The error for a column that text cannot be read as.
pub(super) fn no_such_column(message: String) -> TextError {
    TextError { row: None, line: None, column: None, byte_offset: 0, message }
}

/// The error for a value that Arrow could not turn into the column's type: it does not say in which row.
pub(super) fn failed_cast((column, error): (String, ArrowError), last: u64, rows: usize) -> TextError {
    let first = last + 1 - rows as u64;
    TextError {
        row: (first == last).then_some(last),
        line: None,
        column: Some(column),
        byte_offset: 0,
        message: format!("in rows {first} to {last}: {error}"),
    }
}
