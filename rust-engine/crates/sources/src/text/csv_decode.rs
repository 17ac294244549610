//! CSV records to record batches of a given schema.

use arrow::datatypes::Fields;
use bytes::Bytes;

use super::BATCH_BYTES;
use super::build::Record;
use super::compress::Compression;
use super::csv_cell::Cell;
use super::csv_infer::{Advance, CsvReader, Records, check_width};
use super::error::{Stop, TextError};
use super::facade::CsvLayout;
use super::json_decode::{Decoded, failed_cast, no_such_column};

/// Reads CSV records into columns.
#[derive(Debug)]
pub(super) struct CsvDecoder {
    reader: CsvReader,
    batch: Batch,
}

impl CsvDecoder {
    pub(super) fn new(
        layout: &CsvLayout,
        compression: Compression,
        fields: &Fields,
        batch_rows: usize,
    ) -> Result<Self, TextError> {
        let reader = CsvReader::new(compression, Some(layout.delimiter))?;
        let record = Record::new(fields).map_err(no_such_column)?;
        let places = layout.names.iter().map(|name| record.position(name)).collect();
        let header = layout.header;
        Ok(Self { reader, batch: Batch { record, places, header, rows: 0, bytes: 0, batch_rows } })
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
    /// For each column of the file, the one that it goes to.
    places: Vec<Option<usize>>,
    header: bool,
    rows: usize,
    bytes: usize,
    batch_rows: usize,
}

impl Records for Batch {
    fn first(&mut self, _text: &str, _cells: &[Cell]) -> Result<bool, Stop> {
        Ok(self.header)
    }

    fn record(&mut self, text: &str, cells: &[Cell]) -> Result<(), Stop> {
        if cells.len() > self.places.len() {
            check_width(text, cells, self.places.len())?;
        }
        for (place, cell) in self.places.iter().zip(cells) {
            let Some(at) = *place else { continue };
            let value = cell.text(text);
            let column = self.record.column(at);
            if let Err(why) = column.parse_cell(&value, cell.quoted) {
                let name = column.wanted().name().clone();
                return Err(Stop::bad(cell.begin, why).within(&name));
            }
        }
        self.record.close();
        self.rows += 1;
        Ok(())
    }

    fn done(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.rows < self.batch_rows && self.bytes < BATCH_BYTES
    }
}
