//! JSON and CSV text to Arrow: inference over every row, and decoding against a schema.
//!
//! This module turns bytes into schemas and record batches. It does no I/O and knows neither files, tables nor
//! DataFusion: the caller pushes bytes and pulls results. Memory does not grow with the size of the file.
//!
//! # Rules for JSON
//! - A file is one array of rows, or rows one after another (one a line, pretty-printed, or a single object: one
//!   row). A byte order mark is skipped. An empty array or a blank file has no rows and no columns.
//! - A row is an object; its keys are the columns. A missing key and an explicit `null` are both null, and a row that
//!   is `null` has all columns null. If any row is another kind of value, the file has one column called `value`
//!   that holds the whole row.
//! - Strings stay strings, whatever they look like. Numbers are Int64; UInt64 or Decimal128(38,0) where they need it;
//!   Float64 with a fraction or an exponent or beyond 38 digits; their source text (Utf8) beyond the range of a
//!   double. Objects are structs, arrays are lists, and a column of differing kinds is widened by [`crate::widen`].
//! - JSON text is a Utf8 column marked `ARROW:extension:name = arrow.json`: what objects, arrays and scalars in one
//!   column become, an object that never has a key, and a nested object with more than 1,000 distinct keys or 10,000
//!   distinct nested ones (data used as keys). Whitespace outside its strings is dropped; nothing else changes.
//! - A key that occurs twice in one object is an error; so are more than 10,000 columns, a row of more than
//!   64 MiB, nesting deeper than 128, text that is not UTF-8, and whatever else RFC 8259 does not allow.
//!
//! # Rules for CSV
//! - Fields are separated by one byte: a tab in `.tsv`, otherwise that among `,` `;` tab `|` which splits the most of
//!   the first 50 lines into as many cells as the first line has, at least two; the more cells the better; else `,`.
//! - Lines end in LF, CRLF or CR; empty lines are skipped. A cell may stand in double quotes, a quote in it is
//!   doubled. A quote inside an unquoted cell is an ordinary character; text after a closing quote is an error.
//! - The first line is a header if it has text and none of its cells is a number, date, timestamp or boolean.
//!   Otherwise the columns are `column1`, `column2`, … An empty name becomes `columnN` by its position, a name that
//!   occurred already gets `_2`, `_3`, …
//! - A row shorter than the header ends in nulls; cells beyond the header are an error unless they are all empty.
//! - An empty cell is null. A quoted empty cell (`""`) is the empty string in a text column and null in others.
//! - A column has the first type that all its cells fit: Boolean (`true`, `false`, any case), Int64, UInt64,
//!   Decimal128(38,0), Float64 (`1.5`, `.5`, `1e3`, `NaN`), Date32 (`2024-01-31` or `2024/01/31`), Timestamp in µs
//!   (`2024-01-31 10:00`, with seconds and fraction if wanted, ns from 7 digits on if all years allow it), Timestamp in UTC if every cell has
//!   `Z` or an offset; otherwise Utf8, the cell as it stands. Spaces around a typed cell are ignored. A number with a
//!   leading zero or plus sign (zip codes, phone numbers) is text.

mod build;
mod column;
mod compress;
mod csv;
mod csv_cell;
mod csv_decode;
mod csv_infer;
mod error;
mod facade;
mod input;
mod json;
mod json_decode;
mod json_infer;
mod kinds;
mod scalar;
mod scan;
#[cfg(test)]
mod tests;

pub use compress::Compression;
pub use error::TextError;
pub use facade::{CsvOptions, Decoder, Inference, Inferred, Layout, TextFormat};

/// The most bytes that one row may take.
pub const MAX_RECORD_BYTES: usize = 64 << 20;
/// The most columns that one file may have.
pub const MAX_COLUMNS: usize = 10_000;
/// The most distinct keys of one nested object before its column is kept as JSON text.
pub const MAX_STRUCT_FIELDS: usize = 1_000;
/// The deepest nesting of one JSON row.
pub const MAX_DEPTH: usize = 128;
/// The rows of a batch unless the caller says otherwise.
pub const DEFAULT_BATCH_ROWS: usize = 8_192;

/// Source bytes after which a batch ends even if it is short of rows.
const BATCH_BYTES: usize = 16 << 20;
