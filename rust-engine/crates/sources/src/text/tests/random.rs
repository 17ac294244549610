//! Properties over random input: round trips, any split of the pushes, and no panic or hang on any bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, UInt64Type};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::{CSV, Compression, TextFormat, decode_pieces, infer_pieces, read};
use crate::widen;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "[a-z\"\\\\é\n ]{0,6}".prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn rows() -> impl Strategy<Value = Vec<Value>> {
    let row = prop::collection::btree_map("[a-d]", value(), 0..4);
    prop::collection::vec(row.prop_map(|map| Value::Object(map.into_iter().collect())), 1..8)
}

/// A row's value read back from Arrow, by its column's type.
fn back(array: &ArrayRef, field: &Field, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    if widen::is_json(field) {
        return serde_json::from_str(array.as_string::<i32>().value(row)).expect("JSON text");
    }
    match field.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Decimal128(..) => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            serde_json::from_str(&value.to_string()).expect("an integer")
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::List(item) => {
            let values = array.as_list::<i32>().value(row);
            (0..values.len()).map(|at| back(&values, item, at)).collect()
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let pairs = fields.iter().zip(columns);
            Value::Object(pairs.map(|(field, column)| (field.name().clone(), back(column, field, row))).collect())
        }
        other => panic!("unexpected type {other}"),
    }
}

/// Missing keys are nulls, numbers are doubles where a column is, scalars are text where a column is.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let null = Value::Null;
            let get = |map: &Map<String, Value>, key: &String| map.get(key).unwrap_or(&null).clone();
            left.keys().chain(right.keys()).all(|key| same(&get(left, key), &get(right, key)))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Number(_) | Value::Bool(_), Value::String(text)) => {
            serde_json::to_string(left).is_ok_and(|shown| shown == *text)
        }
        _ => left == right,
    }
}

fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut from = 0;
    let mut pieces = Vec::new();
    for to in places.into_iter().chain([bytes.len()]) {
        pieces.push(&bytes[from..to]);
        from = to;
    }
    pieces
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..6)
}

/// Infers and decodes in pieces: one batch, or the error's place.
fn whole(format: TextFormat, pieces: &[&[u8]]) -> Result<RecordBatch, (Option<u64>, Option<u64>, u64)> {
    let inferred =
        infer_pieces(format, Compression::None, pieces).map_err(|error| (error.row, error.line, error.byte_offset))?;
    let schema = Arc::new(widen::finalize(&inferred.schema));
    let batches = decode_pieces(&inferred.layout, Compression::None, schema.clone(), pieces, 3)
        .unwrap_or_else(|error| panic!("what was inferred must decode: {error}"));
    let batch = concat_batches(&schema, &batches).expect("batches of one schema");
    assert_eq!(batch.num_rows() as u64, inferred.rows);
    Ok(batch)
}

fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(":"),
        Just(","),
        Just("\"a\""),
        Just("\"b\":"),
        Just("1"),
        Just("-2.5e3"),
        Just("null"),
        Just("true"),
        Just("\n"),
        Just(" "),
        Just("\"\\u00e9\""),
        Just("\\"),
        Just("\""),
        Just("{\"a\":1}"),
        Just("18446744073709551616"),
        Just("é"),
    ];
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
}

fn nearly_csv() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(","),
        Just(";"),
        Just("\n"),
        Just("\r\n"),
        Just("\r"),
        Just("\""),
        Just("\"\""),
        Just("a"),
        Just("1"),
        Just("-2.5"),
        Just("2024-01-31"),
        Just("2024-01-31T10:00Z"),
        Just("true"),
        Just(" "),
        Just("é"),
        Just("007"),
        Just("9999-12-31 23:59:59.999999999"),
        Just("99999999999999999999999999999999999999"),
    ];
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn json_comes_back(rows in rows(), lines in any::<bool>()) {
        let text = if lines {
            rows.iter().map(|row| format!("{row}\n")).collect::<String>()
        } else {
            serde_json::to_string_pretty(&rows).expect("JSON")
        };
        let batch = read(TextFormat::Json, &text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(batch.num_rows(), rows.len());
        for (at, row) in rows.iter().enumerate() {
            let pairs = batch.schema_ref().fields().iter().zip(batch.columns());
            let read: Map<String, Value> =
                pairs.map(|(field, column)| (field.name().clone(), back(column, field, at))).collect();
            let read = Value::Object(read);
            prop_assert!(same(row, &read), "{} became {}", row, read);
        }
    }

    #[test]
    fn the_order_of_rows_makes_no_difference(rows in rows()) {
        let text = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
        let schema = |rows: &[Value]| {
            let inferred = infer_pieces(TextFormat::Json, Compression::None, &[text(rows).as_bytes()]);
            inferred.expect("valid JSON").schema
        };
        let forth = schema(&rows);
        let reversed: Vec<Value> = rows.iter().rev().cloned().collect();
        prop_assert_eq!(widen::tests::sorted(&forth), widen::tests::sorted(&schema(&reversed)));
        // Rows in two files give what rows in one file give.
        let (head, tail) = rows.split_at(rows.len() / 2);
        if !head.is_empty() {
            let united = widen::widen_schemas(&schema(head), &schema(tail)).expect("JSON always widens");
            prop_assert_eq!(widen::tests::sorted(&united), widen::tests::sorted(&forth));
        }
    }

    #[test]
    fn splits_make_no_difference(bytes in prop_oneof![nearly_json(), nearly_csv()], cuts in cuts(), csv in any::<bool>()) {
        let format = if csv { CSV } else { TextFormat::Json };
        prop_assert_eq!(whole(format, &[&bytes]), whole(format, &split(&bytes, &cuts)));
    }

    #[test]
    fn json_is_what_serde_json_takes(bytes in nearly_json()) {
        let text = format!("[{}]", String::from_utf8_lossy(&bytes));
        let ours = infer_pieces(TextFormat::Json, Compression::None, &[text.as_bytes()]);
        let theirs = serde_json::from_str::<Vec<Box<serde_json::value::RawValue>>>(&text);
        let twice = ours.as_ref().is_err_and(|error| error.message.contains("twice"));
        prop_assert!(twice || ours.is_ok() == theirs.is_ok(), "{}: {:?} {:?}", text, ours, theirs);
    }

    #[test]
    fn csv_cells_are_what_csv_core_finds(bytes in nearly_csv()) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let ours = super::super::csv_cell::split_record(&text, true, b',', &mut Vec::new());
        prop_assume!(matches!(ours, Ok(Some(_))));
        let mut cells = Vec::new();
        super::super::csv_cell::split_record(&text, true, b',', &mut cells).expect("just split");
        let ours: Vec<String> = cells.iter().map(|cell| cell.text(&text).into_owned()).collect();
        let (mut out, mut ends) = ([0; 4_096], [0; 64]);
        let mut reader = csv_core::Reader::new();
        let (_, used, written, count) = reader.read_record(text.as_bytes(), &mut out, &mut ends);
        let (_, _, rest, more) = reader.read_record(&text.as_bytes()[used..used], &mut out[written..], &mut ends[count..]);
        let _ = rest;
        let mut from = 0;
        let theirs: Vec<String> = ends[..count + more].iter().map(|&end| {
            let cell = String::from_utf8_lossy(&out[from..end]).into_owned();
            from = end;
            cell
        }).collect();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3_u8, csv in any::<bool>()) {
        let format = if csv { CSV } else { TextFormat::Json };
        let compression = [Compression::None, Compression::Gzip, Compression::Zstd][usize::from(kind)];
        let _ = infer_pieces(format, compression, &[&bytes]);
    }

    #[test]
    fn a_file_that_changed_is_survived(before in nearly_json(), after in nearly_json(), csv in any::<bool>()) {
        let format = if csv { CSV } else { TextFormat::Json };
        if let Ok(inferred) = infer_pieces(format, Compression::None, &[&before]) {
            let schema = Arc::new(widen::finalize(&inferred.schema));
            let _ = decode_pieces(&inferred.layout, Compression::None, schema, &[&after], 2);
        }
    }
}
