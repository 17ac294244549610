//! The schema of a CSV file, from every cell, and the reader that it shares with decoding.

use arrow::datatypes::{Field, Schema};
use bytes::Bytes;

use super::MAX_RECORD_BYTES;
use super::compress::Compression;
use super::csv::{SNIFF_BYTES, header_names, looks_like_header, numbered_names, sniff_delimiter};
use super::csv_cell::{Cell, count_lines, split_record};
use super::error::{Stop, TextError};
use super::facade::CsvOptions;
use super::input::{Input, More, TOO_LONG};
use super::kinds::Kinds;
use super::scalar::cell_kind;

/// Takes the records of a CSV file.
pub(super) trait Records {
    /// The first record, before it is known to be a header. Returns whether it is one.
    fn first(&mut self, text: &str, cells: &[Cell]) -> Result<bool, Stop>;
    /// A data record.
    fn record(&mut self, text: &str, cells: &[Cell]) -> Result<(), Stop>;
    /// The record took so many bytes. Returns whether to go on at once.
    fn done(&mut self, bytes: usize) -> bool;
}

/// Why [`CsvReader::advance`] came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    Starved,
    Paused,
    End,
}

/// Reads records from chunks of a CSV file.
#[derive(Debug)]
pub(super) struct CsvReader {
    input: Input,
    delimiter: Option<u8>,
    cells: Vec<Cell>,
    begun: bool,
    rows: u64,
    /// Line ends passed.
    lines: u64,
    ended: bool,
}

impl CsvReader {
    /// Without a delimiter, it is found from the first lines.
    pub(super) fn new(compression: Compression, delimiter: Option<u8>) -> Result<Self, TextError> {
        let input = Input::new(compression)?;
        Ok(Self { input, delimiter, cells: Vec::new(), begun: false, rows: 0, lines: 0, ended: false })
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.input.push(chunk);
    }

    pub(super) fn finish(&mut self) {
        self.input.finish();
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter.unwrap_or(b',')
    }

    /// Hands records to `taker` until it asks for a pause or the text at hand is used up.
    pub(super) fn advance(&mut self, taker: &mut impl Records) -> Result<Advance, TextError> {
        loop {
            if self.ended {
                return Ok(Advance::End);
            }
            let enough = self.input.ended() || self.input.spoiled() || self.input.unread().len() >= SNIFF_BYTES;
            if self.delimiter.is_none() && enough {
                self.delimiter = Some(sniff_delimiter(self.input.unread(), self.input.ended()));
            }
            if let Some(delimiter) = self.delimiter {
                if let Some(advance) = self.read_records(delimiter, taker)? {
                    return Ok(advance);
                }
                self.input.want_more();
            } else {
                self.input.want_at_least(SNIFF_BYTES);
            }
            let more = self.input.read_more().map_err(|error| self.in_row(error))?;
            if more == More::Starved {
                return Ok(Advance::Starved);
            }
        }
    }

    fn read_records(&mut self, delimiter: u8, taker: &mut impl Records) -> Result<Option<Advance>, TextError> {
        let text = self.input.unread();
        let last = self.input.ended();
        let mut consumed = 0;
        let outcome = loop {
            let rest = &text[consumed..];
            let outcome = split_record(rest, last, delimiter, &mut self.cells);
            let taken = match outcome {
                Ok(None) => {
                    self.ended = true;
                    break Ok(Some(Advance::End));
                }
                Ok(Some(end)) if end > MAX_RECORD_BYTES => Err(Stop::bad(0, TOO_LONG)),
                Ok(Some(end)) => take(&mut self.begun, &mut self.rows, taker, rest, &self.cells).map(|()| end),
                Err(stop) => Err(stop),
            };
            match taken {
                Ok(end) => {
                    self.lines += count_lines(&rest[..end]);
                    consumed += end;
                    if self.begun && !taker.done(end) {
                        break Ok(Some(Advance::Paused));
                    }
                }
                Err(Stop::Incomplete) => break Ok(None),
                Err(Stop::Bad(fault)) => {
                    let mut error = self.input.error(consumed + fault.position, fault.message);
                    error.column = fault.column;
                    let before = rest.get(..fault.position).unwrap_or_default();
                    error.line = Some(self.lines + count_lines(before) + 1);
                    break Err(error);
                }
            }
        };
        self.input.consume(consumed);
        outcome.map_err(|error| self.in_row(error))
    }

    fn in_row(&self, mut error: TextError) -> TextError {
        error.row = self.begun.then_some(self.rows + 1);
        error
    }
}

/// Hands one record on, as the header or as a row.
fn take(begun: &mut bool, rows: &mut u64, taker: &mut impl Records, text: &str, cells: &[Cell]) -> Result<(), Stop> {
    let header = !*begun && taker.first(text, cells)?;
    *begun = true;
    if !header {
        taker.record(text, cells)?;
        *rows += 1;
    }
    Ok(())
}

/// Refuses cells beyond the columns, unless all of them are empty.
pub(super) fn check_width(text: &str, cells: &[Cell], columns: usize) -> Result<(), Stop> {
    let Some(extra) = cells.get(columns..).and_then(|extra| extra.iter().find(|cell| !cell.text(text).is_empty()))
    else {
        return Ok(());
    };
    let message =
        format!("{} cells where the file has {columns} columns; quote cells that contain the delimiter", cells.len());
    Err(Stop::bad(extra.begin, message))
}

/// What a CSV file turned out to hold.
#[derive(Debug)]
pub(super) struct CsvInferred {
    pub(super) schema: Schema,
    pub(super) rows: u64,
    pub(super) delimiter: u8,
    pub(super) header: bool,
}

/// Infers the schema of a CSV file.
#[derive(Debug)]
pub(super) struct CsvInference {
    reader: CsvReader,
    columns: Columns,
}

impl CsvInference {
    pub(super) fn new(options: CsvOptions, compression: Compression) -> Result<Self, TextError> {
        let columns = Columns { force_header: options.header, ..Columns::default() };
        Ok(Self { reader: CsvReader::new(compression, options.delimiter)?, columns })
    }

    pub(super) fn push(&mut self, chunk: Bytes) -> Result<(), TextError> {
        self.reader.push(chunk);
        self.reader.advance(&mut self.columns).map(|_| ())
    }

    pub(super) fn finish(mut self) -> Result<CsvInferred, TextError> {
        self.reader.finish();
        self.reader.advance(&mut self.columns)?;
        let named = self.columns.names.iter().zip(&self.columns.kinds);
        let fields: Vec<Field> = named.map(|(name, kinds)| Field::new(name, kinds.data_type(), true)).collect();
        Ok(CsvInferred {
            schema: Schema::new(fields),
            rows: self.reader.rows(),
            delimiter: self.reader.delimiter(),
            header: self.columns.header,
        })
    }
}

#[derive(Debug, Default)]
struct Columns {
    force_header: Option<bool>,
    header: bool,
    names: Vec<String>,
    kinds: Vec<Kinds>,
}

impl Records for Columns {
    fn first(&mut self, text: &str, cells: &[Cell]) -> Result<bool, Stop> {
        self.header = match self.force_header {
            Some(header) => header,
            None => looks_like_header(text, cells)?,
        };
        self.names = if self.header { header_names(text, cells) } else { numbered_names(cells.len()) };
        self.kinds = vec![Kinds::default(); cells.len()];
        Ok(self.header)
    }

    fn record(&mut self, text: &str, cells: &[Cell]) -> Result<(), Stop> {
        if cells.len() > self.kinds.len() {
            check_width(text, cells, self.kinds.len())?;
        }
        for (kinds, cell) in self.kinds.iter_mut().zip(cells) {
            // Text absorbs every other kind, so that such columns need no further look.
            if cell.begin < cell.end && !kinds.contains(Kinds::TEXT) {
                kinds.insert(cell_kind(&cell.text(text)));
            }
        }
        Ok(())
    }

    fn done(&mut self, _bytes: usize) -> bool {
        true
    }
}
