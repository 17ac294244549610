//! What can go wrong: before the first byte ([`FormatError`]) and after it ([`EncodeError`]).

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use super::Format;

/// Why a result's columns can't be written in a format. Found before any byte is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Two columns, or two fields of one struct, have the same name.
    #[error("two columns are named `{column}`; give one of them another name with AS")]
    DuplicateColumn {
        /// The name, with the struct's path before it for a nested field.
        column: String,
    },
    /// The format has no place for values of this type.
    #[error("column `{column}` has type {data_type}, which {format} can't carry; {hint}")]
    Unsupported {
        /// Path of the column: `a.b` for a field of a struct, `a[]` for a list's items.
        column: String,
        /// The Arrow type.
        data_type: DataType,
        /// The format that was asked for.
        format: Format,
        /// What would work.
        hint: &'static str,
    },
    /// A timestamp's zone is neither an offset nor a known name.
    #[error("column `{column}` has the unknown time zone `{zone}`; cast it to a timestamp in UTC")]
    UnknownZone {
        /// Path of the column.
        column: String,
        /// The zone as the type has it.
        zone: String,
    },
    /// The format can't hold a result that has no columns.
    #[error("the result has no columns, which {format} can't carry; select at least one")]
    NoColumns {
        /// The format that was asked for.
        format: Format,
    },
    /// The format's writer refused the schema.
    #[error("{format} can't carry the result's columns: {reason}")]
    Refused {
        /// The format that was asked for.
        format: Format,
        /// The writer's own words.
        reason: String,
    },
    /// There is no tokio runtime to encode on: a mistake of the caller, not of the request.
    #[error("no runtime to encode on")]
    NoRuntime,
}

/// Why a result stopped midway. `E` is the error of the stream of batches.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError<E> {
    /// The query itself failed.
    #[error(transparent)]
    Source(E),
    /// A value has no text.
    #[error("column `{column}`, row {row}: {reason}")]
    Data {
        /// The top-level column.
        column: String,
        /// The row of the result, counted from 1.
        row: u64,
        /// What is wrong with the value.
        reason: &'static str,
    },
    /// A row's text alone would take more memory than a query may have.
    #[error(
        "row {row} alone would be about {bytes} bytes of text, more than the {most} that a query may hold; select less in one value"
    )]
    RowTooLarge {
        /// The row of the result, counted from 1.
        row: u64,
        /// About how long its text would be.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// A batch does not have the columns that were announced.
    #[error("a batch has {found} where {expected} was announced")]
    Mismatch {
        /// The columns or type of the schema.
        expected: String,
        /// Those of the batch.
        found: String,
    },
    /// Arrow could not convert or write a batch.
    #[error("writing Arrow data: {0}")]
    Arrow(#[from] ArrowError),
    /// The Parquet writer failed.
    #[error("writing Parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// Encoding panicked, or its runtime was shut down.
    #[error("encoding was cut short: {0}")]
    Stopped(String),
}
