//! Rows that are put together in blocks are the rows that writing value by value gives.

use arrow::array::*;
use arrow::datatypes::*;
use proptest::prelude::*;

use super::arrays::{Random, any_type};
use super::*;
use crate::format::cell::{Cell, Dialect, Style, json_key};
use crate::format::rows::RowEncoder;
use crate::format::sink::Sink;

const FORMATS: [Format; 3] = [Format::JsonArray, Format::Ndjson, Format::Csv];

/// The rows of a batch, each value written by itself.
fn by_value(rows: &RecordBatch, format: Format, numbers: NumberStyle) -> String {
    let dialect = if format == Format::Csv { Dialect::Csv } else { Dialect::Json };
    let schema = rows.schema();
    let style = Style { dialect, numbers };
    let cells = rows.columns().iter().map(|column| Cell::new(column, 0..rows.num_rows(), style).expect("a text"));
    let cells: Vec<_> = cells.collect();
    let mut sink = Sink::default();
    for row in 0..rows.num_rows() {
        sink.raw(if format == Format::JsonArray && row > 0 { b"," } else { b"" });
        sink.raw(if dialect == Dialect::Json { b"{" } else { b"" });
        for (at, (cell, field)) in cells.iter().zip(schema.fields()).enumerate() {
            match dialect {
                Dialect::Json => sink.raw(&json_key(field.name(), at > 0)),
                Dialect::Csv => sink.raw(if at > 0 { b"," } else { b"" }),
            }
            cell.write(row, dialect, &mut sink);
        }
        sink.raw(match format {
            Format::Csv => b"\r\n",
            Format::Ndjson => b"}\n",
            _ => b"}",
        });
    }
    assert_eq!(sink.fault, None);
    String::from_utf8(sink.buf).expect("text formats are UTF-8")
}

fn same(rows: &RecordBatch, estimates: &[usize]) {
    for format in FORMATS {
        for numbers in [NumberStyle::Exact, NumberStyle::String] {
            let expected = by_value(rows, format, numbers);
            let encoder = RowEncoder::new(&rows.schema(), format, numbers);
            for estimate in estimates.iter().copied().chain([encoder.estimate(rows)]) {
                let found = encoder.piece(rows, 0, estimate).expect("encodes");
                assert_eq!(String::from_utf8_lossy(&found), expected, "{format}");
                // Not the first rows of a result: what stands between rows comes first.
                let found = encoder.piece(rows, 1, estimate).expect("encodes");
                let between = if format == Format::JsonArray && rows.num_rows() > 0 { "," } else { "" };
                assert_eq!(String::from_utf8_lossy(&found), format!("{between}{expected}"), "{format}");
            }
        }
    }
}

/// An array, and slices of it that do not begin where its buffers do.
fn same_column(array: ArrayRef) {
    for rows in [array.slice(0, array.len()), array.slice(3, array.len() - 5)] {
        same(&batch(vec![("v", Arc::clone(&rows)), ("w", rows)]), &[]);
    }
}

proptest! {
    #[test]
    fn random_batches_are_the_same(
        types in prop::collection::vec(any_type(), 1..4),
        rows in 0_usize..150,
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let names = ["a", "b c", "d\" and a key that is longer than the others are"];
        let arrays = types.iter().map(|data_type| random.array(data_type, rows));
        same(&batch(names.into_iter().zip(arrays).collect()), &[0, rows * 700]);
    }
}

#[test]
fn numbers_of_every_length_are_the_same() {
    // Blocks of numbers up to each power of ten, so that each way of writing them is taken.
    let mut values = Vec::new();
    for digits in 0..19 {
        let power = 10_i64.pow(digits);
        let around = [power - 1, power, power + 1, power / 3, power / 7 * 2];
        values.extend((0..64).map(|at| around[at % around.len()] - power * i64::from(at == 7)));
        values.extend((0..64).map(|at| around[at % around.len()] * if at % 2 > 0 { -1 } else { 1 }));
    }
    values.extend([i64::MIN, i64::MAX, 0]);
    same_column(Arc::new(Int64Array::from(values.clone())));
    same_column(Arc::new(UInt64Array::from_iter_values(values.iter().map(|value| *value as u64))));
    same_column(Arc::new(Int32Array::from_iter_values(values.iter().map(|value| *value as i32))));
    same_column(Arc::new(UInt32Array::from_iter_values(values.iter().map(|value| *value as u32))));
    for scale in [-3, 0, 1, 2, 6, 7, 8, 11, 12, 13, 14, 18] {
        let decimals = Decimal128Array::from_iter_values(values.iter().map(|value| i128::from(*value)));
        same_column(Arc::new(decimals.with_precision_and_scale(38, scale).expect("digits enough")));
        let decimals = Decimal64Array::from_iter_values(values.iter().map(|value| *value % 10_i64.pow(18)));
        same_column(Arc::new(decimals.with_precision_and_scale(18, scale).expect("digits enough")));
    }
}

#[test]
fn strings_of_every_length_are_the_same() {
    // From one block to the next the longest text grows; within it, lengths differ.
    let text = |row: usize, most: usize| "a quick brown fox ".repeat(40)[..(row * 37 + 11) % (most + 1)].to_owned();
    for most in [0, 1, 11, 12, 13, 31, 32, 33, 63, 64, 65, 127, 128, 129, 500] {
        for nulls in [0, 5] {
            let values = || (0..200).map(|row| (nulls == 0 || row % nulls > 0).then(|| text(row, most)));
            same_column(Arc::new(StringArray::from_iter(values())));
            same_column(Arc::new(LargeStringArray::from_iter(values())));
            same_column(Arc::new(StringViewArray::from_iter(values())));
            let dictionary: DictionaryArray<Int16Type> = values()
                .map(|text| text.map(|text| text[..text.len() / 9].to_owned()))
                .collect::<Vec<_>>()
                .iter()
                .map(|text| text.as_deref())
                .collect();
            same_column(Arc::new(dictionary));
        }
    }
}

#[test]
fn one_text_that_needs_care_changes_nothing_else() {
    for (at, odd) in [(0, "\""), (63, "\n"), (64, "\\"), (99, ","), (130, ""), (150, " x"), (199, "\u{1}")] {
        let values = || (0..200).map(|row| if row == at { odd } else { "plain, or nearly" });
        same_column(Arc::new(StringArray::from_iter_values(values())));
        same_column(Arc::new(StringViewArray::from_iter_values(values())));
        let values = || (0..200).map(|row| if row == at { odd } else { "plain" });
        same_column(Arc::new(StringViewArray::from_iter_values(values())));
    }
}

#[test]
fn rows_too_long_for_a_block_are_the_same() {
    let long = |row: usize| "0123456789".repeat(if row % 40 == 7 { 5_000 } else { row % 30 });
    let strings: ArrayRef = Arc::new(StringArray::from_iter_values((0..150).map(long)));
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..150).map(long)));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..150));
    let key = "k".repeat(40_000);
    same(&batch(vec![("s", strings), ("v", Arc::clone(&views)), ("n", Arc::clone(&numbers))]), &[0, 1 << 30]);
    same(&batch(vec![(&key, numbers), ("v", views)]).slice(40, 10), &[0, 1 << 30]);
    let wide: Vec<_> = (0..3_000).map(|at| format!("column {at}")).collect();
    let column: ArrayRef = Arc::new(Int8Array::from_iter_values(0..70));
    same(&batch(wide.iter().map(|name| (name.as_str(), Arc::clone(&column))).collect()), &[0]);
}

#[test]
fn what_lies_under_nulls_is_not_looked_at() {
    let nulls = || Some((0..100).map(|row| row % 3 > 0).collect());
    let days = |row: i32| if row % 3 > 0 { row } else { i32::MAX };
    same_column(Arc::new(Date32Array::new((0..100).map(days).collect(), nulls())));
    let stamps = |row: i64| if row % 3 > 0 { row } else { i64::MIN };
    for zone in [None, Some("UTC"), Some("-02:30")] {
        let array = TimestampMillisecondArray::new((0..100).map(stamps).collect(), nulls());
        same_column(Arc::new(array.with_timezone_opt(zone)));
    }
    same_column(Arc::new(Int64Array::new((0..100).map(stamps).collect(), nulls())));
}

#[test]
fn timestamps_of_every_unit_and_zone_are_the_same() {
    let values: Vec<i64> = (-80..80).map(|at: i64| at * 187_654_321_987 + at % 7).collect();
    for zone in [None, Some("UTC"), Some("+05:30"), Some("-11:00"), Some("Europe/Berlin")] {
        same_column(Arc::new(
            TimestampSecondArray::from_iter_values(values.iter().map(|at| at / 1_000)).with_timezone_opt(zone),
        ));
        same_column(Arc::new(TimestampMillisecondArray::from_iter_values(values.clone()).with_timezone_opt(zone)));
        same_column(Arc::new(TimestampMicrosecondArray::from_iter_values(values.clone()).with_timezone_opt(zone)));
        same_column(Arc::new(TimestampNanosecondArray::from_iter_values(values.clone()).with_timezone_opt(zone)));
    }
}
