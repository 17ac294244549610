//! Formats out: encodes a stream of record batches as JSON, NDJSON, CSV, an Arrow IPC stream or Parquet,
//! in one pass, with bounded memory. Knows Arrow and nothing of queries or transports.
//!
//! One rule a column type and format, never dependent on the value, the plan or the cache:
//!
//! | type | JSON | CSV, where it differs |
//! |---|---|---|
//! | null | `null`; the key is always there | the empty field |
//! | bool | `true`, `false` | |
//! | integers | all digits; 64-bit ones are strings with [`NumberStyle::String`] | always bare digits |
//! | floats | the shortest digits that give the same value back, `1.0` for one, with an exponent where that is shorter; 16-bit floats as the 32-bit float they equal; NaN and ±Infinity are `null` | `NaN`, `Infinity`, `-Infinity` |
//! | decimals | all digits at the column's scale, `1.50`; strings with [`NumberStyle::String`] | always bare digits |
//! | strings | escaped only where JSON demands it | quoted where empty, with `,`, `"`, CR or LF in it, or with a space or tab at an end |
//! | binary | base64, RFC 4648 standard alphabet, padded | empty binary is `""` |
//! | dates | `"YYYY-MM-DD"` | without quotes, as all below |
//! | times | `"HH:MM:SS"` and a fraction of 0, 3, 6 or 9 digits, by the column's unit | |
//! | timestamps | `"YYYY-MM-DDTHH:MM:SS"`, the unit's fraction, then nothing for columns without zone, `Z` for UTC, `+hh:mm` otherwise (for named zones the offset in force at that instant) | |
//! | durations | `"PT90.500S"`, ISO 8601 with the unit's fraction; negative ones `"-PT90.500S"` | |
//! | intervals | `"P1Y2M"`, `"P1DT2.500S"`, `"P1M2DT3.000000000S"`, by their unit; each part has its own sign | |
//! | lists | arrays | the JSON text, quoted as a string is |
//! | structs | objects | the JSON text |
//! | maps | objects if the keys are strings, else arrays of `[key,value]`, in the order stored | the JSON text |
//! | dictionaries, run-end encoded | as their values | |
//! | unions | refused | |
//!
//! A date or timestamp outside the years 0000 to 9999 (in the column's own zone) and a time of day
//! outside one day are errors that name column and row: RFC 3339 has no text for them.
//!
//! Bodies: [`Format::Json`] is `{"rows":[…],"receipt":{…}}` and LF, where the receipt's `bytes` and
//! `digest` cover everything up to and including the `]` that closes the rows; [`Format::JsonArray`] ends
//! with LF, as does each line of [`Format::Ndjson`]; [`Format::Csv`] is RFC 4180 with a header line and
//! CRLF. A null in a CSV of one column is an empty line, and counts as a row. [`Format::Arrow`] keeps all
//! types but two, at every depth: string and binary views, which older clients can't read, become plain
//! strings and binaries, and run-end encoded columns become their values. [`Format::Parquet`] does the
//! same, and also writes dictionaries as their values and list views as lists; its pages are compressed
//! with zstd.

mod binary;
mod block;
mod cell;
mod check;
mod chunks;
mod column;
mod envelope;
mod error;
mod rows;
mod short;
mod shorts;
mod sink;
mod spans;
mod stamps;
mod stream;
mod time;
mod whole;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;

pub use chunks::Receipt;
pub use envelope::Envelope;
pub use error::{EncodeError, FormatError};
pub use stream::{EncodeOptions, Encoded, Part, encode};
pub(crate) use whole::encode_whole;

/// An encoding of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `{"rows":[…],"receipt":{…}}`.
    Json,
    /// The bare array of row objects.
    JsonArray,
    /// One row object a line.
    Ndjson,
    /// RFC 4180, with a header line.
    Csv,
    /// The Arrow IPC streaming format.
    Arrow,
    /// One Parquet file.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [Self::Json, Self::JsonArray, Self::Ndjson, Self::Csv, Self::Arrow, Self::Parquet];

    /// The name that requests use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonArray => "json-array",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How JSON carries numbers that a double can't hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NumberStyle {
    /// 64-bit integers and decimals are JSON numbers with all their digits.
    #[default]
    Exact,
    /// 64-bit integers and decimals are JSON strings.
    String,
}
