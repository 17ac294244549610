//! Whole rows: JSON objects or CSV records of a slice of a batch, and what stands before and after them.

use std::ops::Range;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;

use super::block::{Block, Key};
use super::cell::{Cell, Dialect, Style, json_key};
use super::sink::{Fault, Sink};
use super::{Format, NumberStyle};

/// CSV lines end as RFC 4180 says.
const CSV_LINE_END: &[u8] = b"\r\n";

/// Fewer rows are written value by value: what blocks need would take longer to make.
const FEW: usize = 16;

/// So are values that are longer than this on average: with them all time goes into copying, and blocks copy twice.
const LONG: usize = 256;

/// Encodes slices of batches of one schema; shared by the tasks that do so in parallel.
pub(crate) struct RowEncoder {
    format: Format,
    style: Style,
    names: Vec<String>,
    /// What stands before each column's value; before the first one also what stands between rows.
    keys: Vec<Key>,
    /// What ends a row, and what comes between rows.
    row_end: &'static [u8],
    between: &'static [u8],
}

/// Why a slice was not encoded.
#[derive(Debug)]
pub(crate) enum PieceError {
    Value { column: String, row: u64, fault: Fault },
    Arrow(ArrowError),
}

impl From<ArrowError> for PieceError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl RowEncoder {
    pub(crate) fn new(schema: &Schema, format: Format, numbers: NumberStyle) -> Self {
        let csv = format == Format::Csv;
        // A result can have rows without columns: each is the empty object.
        let empty = schema.fields().is_empty();
        let (row_end, between): (&[u8], &[u8]) = match format {
            Format::Csv => (CSV_LINE_END, b""),
            Format::Ndjson if empty => (b"{}\n", b""),
            Format::Ndjson => (b"}\n", b""),
            _ if empty => (b"{}", b","),
            _ => (b"}", b","),
        };
        let fields = schema.fields().iter().enumerate();
        let keys = fields.map(|(at, field)| match (csv, at) {
            (true, 0) => [row_end, between].concat(),
            (true, _) => b",".to_vec(),
            (false, 0) => [row_end, between, b"{", &json_key(field.name(), false)].concat(),
            (false, _) => json_key(field.name(), true),
        });
        let keys = keys.map(Key::new).collect();
        let dialect = if csv { Dialect::Csv } else { Dialect::Json };
        Self {
            format,
            style: Style { dialect, numbers },
            names: schema.fields().iter().map(|field| field.name().clone()).collect(),
            keys,
            row_end,
            between,
        }
    }

    /// What stands before the first row.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut sink = Sink::default();
        match self.format {
            Format::Json => sink.raw(b"{\"rows\":["),
            Format::JsonArray => sink.byte(b'['),
            Format::Csv => {
                for (at, name) in self.names.iter().enumerate() {
                    if at > 0 {
                        sink.byte(b',');
                    }
                    sink.csv_string(name.as_bytes());
                }
                sink.raw(CSV_LINE_END);
            }
            Format::Ndjson | Format::Arrow | Format::Parquet => {}
        }
        sink.buf
    }

    /// What stands after the last row; the JSON envelope's receipt comes after this.
    pub(crate) fn footer(&self) -> &'static [u8] {
        match self.format {
            Format::Json => b"]",
            Format::JsonArray => b"]\n",
            Format::Ndjson | Format::Csv | Format::Arrow | Format::Parquet => b"",
        }
    }

    /// About how many bytes the rows of a batch become.
    pub(crate) fn estimate(&self, batch: &RecordBatch) -> usize {
        let keys: usize = self.keys.iter().map(Key::len).sum();
        // Either the first key has what is between rows, or there is none.
        let fixed = if keys > 0 { keys - self.between.len() } else { self.row_end.len() } + 1;
        let values: usize = batch.columns().iter().map(|column| weigh(column)).sum();
        fixed * batch.num_rows() + values
    }

    /// The rows of `batch`, of which the first is row `first` of the result, counted from 0, and
    /// which are expected to take about `estimate` bytes.
    pub(crate) fn piece(&self, batch: &RecordBatch, first: u64, estimate: usize) -> Result<Vec<u8>, PieceError> {
        let rows = batch.num_rows();
        // A little more than the estimate, so that the buffer seldom has to move.
        let mut sink = Sink::with_capacity(estimate + estimate / 8 + 256);
        if first > 0 && rows > 0 {
            sink.raw(self.between);
        }
        if self.keys.is_empty() {
            self.empty(rows, &mut sink);
            return Ok(sink.buf);
        }
        let cells = self.cells(batch)?;
        // What ends the row before is in the first key: the first row has none before it.
        let skip = self.row_end.len() + self.between.len();
        let fault = if rows < FEW || estimate / rows > LONG * cells.len() {
            self.by_value(&cells, 0..rows, skip, &mut sink);
            None
        } else {
            self.in_blocks(&cells, rows, skip, &mut sink)
        };
        if rows > 0 {
            sink.raw(self.row_end);
        }
        match sink.fault.or(fault) {
            None => Ok(sink.buf),
            Some(fault) => Err(self.locate(&cells, rows, first, fault)),
        }
    }

    /// Rows without columns.
    fn empty(&self, rows: usize, sink: &mut Sink) {
        for row in 0..rows {
            sink.raw(if row > 0 { self.between } else { b"" });
            sink.raw(self.row_end);
        }
    }

    /// Rows in blocks, without the first `skip` bytes; where a block gives up on a value, why it did.
    fn in_blocks(&self, cells: &[Cell<'_>], rows: usize, skip: usize, sink: &mut Sink) -> Option<Fault> {
        let mut block = Block::new(&self.keys, cells, self.style.dialect);
        let step = Block::rows(sink.buf.capacity() / rows);
        let (mut row, mut skip) = (0, skip);
        while row < rows {
            let end = rows.min(row + step);
            match block.write(row..end) {
                Some(bytes) => sink.raw(&bytes[skip..]),
                None => self.by_value(cells, row..end, skip, sink),
            }
            (row, skip) = (end, 0);
        }
        block.fault()
    }

    /// Rows value by value, without the first `skip` bytes.
    fn by_value(&self, cells: &[Cell<'_>], rows: Range<usize>, skip: usize, sink: &mut Sink) {
        let mut skip = skip;
        for row in rows {
            for (key, cell) in self.keys.iter().zip(cells) {
                sink.raw(&key.text()[skip..]);
                cell.write(row, self.style.dialect, sink);
                skip = 0;
            }
        }
    }

    fn cells<'a>(&self, batch: &'a RecordBatch) -> Result<Vec<Cell<'a>>, ArrowError> {
        let columns = batch.columns().iter();
        columns.map(|column| Cell::new(column, 0..batch.num_rows(), self.style)).collect()
    }

    /// Writes once more, value by value, to learn where the fault is.
    #[cold]
    fn locate(&self, cells: &[Cell<'_>], rows: usize, first: u64, fault: Fault) -> PieceError {
        let mut sink = Sink::default();
        for row in 0..rows {
            for (cell, name) in cells.iter().zip(&self.names) {
                sink.buf.clear();
                cell.write(row, self.style.dialect, &mut sink);
                if let Some(found) = sink.fault {
                    return PieceError::Value { column: name.clone(), row: first + row as u64 + 1, fault: found };
                }
            }
        }
        PieceError::Value { column: self.names.join(", "), row: first + 1, fault }
    }
}

/// The text of all values of an array, roughly, without looking at the values themselves.
fn weigh(array: &dyn Array) -> usize {
    const SCALAR: usize = 12;
    let rows = array.len();
    if rows == 0 {
        return 0;
    }
    let between = |ends: &[i32]| (ends[rows] - ends[0]).unsigned_abs() as usize;
    let wide = |ends: &[i64]| (ends[rows] - ends[0]).unsigned_abs() as usize;
    let views = |views: &[u128]| -> usize { views.iter().map(|view| (*view as u32) as usize).sum() };
    let share = |values: &dyn Array, items: usize| weigh(values).checked_div(values.len()).unwrap_or_default() * items;
    let quotes = rows * 2;
    match array.data_type() {
        DataType::Utf8 => quotes + between(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => quotes + wide(array.as_string::<i64>().value_offsets()),
        DataType::Utf8View => quotes + views(array.as_string_view().views()),
        DataType::Binary => quotes + between(array.as_binary::<i32>().value_offsets()) * 4 / 3,
        DataType::LargeBinary => quotes + wide(array.as_binary::<i64>().value_offsets()) * 4 / 3,
        DataType::BinaryView => quotes + views(array.as_binary_view().views()) * 4 / 3,
        DataType::FixedSizeBinary(size) => rows * (2 + size.unsigned_abs() as usize * 4 / 3),
        DataType::Timestamp(..) => rows * 36,
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            quotes + share(list.values(), between(list.value_offsets()))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            quotes + share(list.values(), wide(list.value_offsets()))
        }
        DataType::ListView(_) => {
            let list = array.as_list_view::<i32>();
            let items = list.value_sizes().iter().map(|size| size.unsigned_abs() as usize);
            quotes + share(list.values(), items.sum())
        }
        DataType::LargeListView(_) => {
            let list = array.as_list_view::<i64>();
            let items = list.value_sizes().iter().map(|size| size.unsigned_abs() as usize);
            quotes + share(list.values(), items.sum())
        }
        DataType::FixedSizeList(..) => quotes + weigh(array.as_fixed_size_list().values()),
        DataType::Map(..) => {
            let map = array.as_map();
            quotes + share(map.entries(), between(map.value_offsets()))
        }
        DataType::Struct(fields) => {
            let keys: usize = fields.iter().map(|field| field.name().len() + 4).sum();
            let columns = array.as_struct().columns().iter();
            rows * keys + columns.map(|column| weigh(column)).sum::<usize>()
        }
        DataType::Dictionary(..) => share(array.as_any_dictionary().values(), rows),
        _ => rows * SCALAR,
    }
}
