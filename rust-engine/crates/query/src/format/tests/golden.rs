//! The exact text of every type, as the table in the module's documentation states it.

use std::sync::Arc;

use arrow::array::types::*;
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, i256};

use super::*;
use crate::format::cell::Half;

/// The values of one column, as NDJSON with the key cut off, and as CSV lines.
fn column(array: ArrayRef, numbers: NumberStyle) -> (Vec<String>, Vec<String>) {
    let batch = batch(vec![("v", array)]);
    let with = |format| EncodeOptions { numbers, ..options(format) };
    let json = text(&batch, with(Format::Ndjson));
    let value = |line: &str| {
        let line = line.strip_prefix("{\"v\":").expect("the key is always there");
        line.strip_suffix('}').expect("an object").to_owned()
    };
    let json = json.lines().map(value).collect();
    let csv = text(&batch, with(Format::Csv));
    let csv = csv.strip_prefix("v\r\n").expect("a header line");
    let csv = csv.split_terminator("\r\n").map(str::to_owned).collect();
    (json, csv)
}

/// Asserts the JSON of each value, and the CSV: the same without quotes where none is given.
fn golden(array: impl Array + 'static, json: &[&str], csv: Option<&[&str]>) {
    let (found, fields) = column(Arc::new(array), NumberStyle::Exact);
    assert_eq!(found, json);
    match csv {
        Some(csv) => assert_eq!(fields, csv),
        None => {
            let plain = json.iter().map(|text| match *text {
                "null" => "",
                text => text.trim_matches('"'),
            });
            assert_eq!(fields, plain.collect::<Vec<_>>());
        }
    }
}

#[test]
fn numbers() {
    golden(BooleanArray::from(vec![Some(true), Some(false), None]), &["true", "false", "null"], None);
    golden(NullArray::new(2), &["null", "null"], None);
    golden(Int8Array::from(vec![i8::MIN, 0]), &["-128", "0"], None);
    golden(UInt16Array::from(vec![u16::MAX]), &["65535"], None);
    let least = ["-9223372036854775808", "null"];
    golden(Int64Array::from(vec![Some(i64::MIN), None]), &least, None);
    golden(UInt64Array::from(vec![u64::MAX]), &["18446744073709551615"], None);
    let floats = vec![1.0, 0.1, -0.0, 1e300, 5e-324, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    golden(
        Float64Array::from(floats),
        &["1.0", "0.1", "-0.0", "1e+300", "5e-324", "null", "null", "null"],
        Some(&["1.0", "0.1", "-0.0", "1e+300", "5e-324", "NaN", "Infinity", "-Infinity"]),
    );
    golden(Float32Array::from(vec![0.1, f32::NAN]), &["0.1", "null"], Some(&["0.1", "NaN"]));
    let halves = vec![Half::from_f32(1.5), Half::NAN];
    golden(Float16Array::from(halves), &["1.5", "null"], Some(&["1.5", "NaN"]));
}

#[test]
fn decimals() {
    let small = Decimal32Array::from(vec![-5, 12_345]).with_precision_and_scale(9, 2);
    golden(small.expect("fits"), &["-0.05", "123.45"], None);
    let medium = Decimal64Array::from(vec![0]).with_precision_and_scale(18, 4);
    golden(medium.expect("fits"), &["0.0000"], None);
    let large = Decimal128Array::from(vec![10_i128.pow(37)]).with_precision_and_scale(38, 10);
    golden(large.expect("fits"), &["1000000000000000000000000000.0000000000"], None);
    let huge = i256::from_i128(10).wrapping_pow(75);
    let huge = Decimal256Array::from(vec![huge]).with_precision_and_scale(76, 0);
    let digits = format!("1{}", "0".repeat(75));
    golden(huge.expect("fits"), &[&digits], None);
    let thousands = Decimal128Array::from(vec![7]).with_precision_and_scale(5, -3);
    golden(thousands.expect("fits"), &["7000"], None);
}

#[test]
fn wide_numbers_are_strings_on_request() {
    let decimal = Decimal128Array::from(vec![150]).with_precision_and_scale(10, 2).expect("fits");
    let cases: [(ArrayRef, &str, &str); 4] = [
        (Arc::new(Int64Array::from(vec![-1])), "\"-1\"", "-1"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "\"18446744073709551615\"", "18446744073709551615"),
        (Arc::new(decimal), "\"1.50\"", "1.50"),
        (Arc::new(Int32Array::from(vec![1])), "1", "1"),
    ];
    for (array, json, csv) in cases {
        let (values, fields) = column(array, NumberStyle::String);
        assert_eq!((values[0].as_str(), fields[0].as_str()), (json, csv));
    }
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]);
    let (values, fields) = column(Arc::new(list), NumberStyle::String);
    assert_eq!(values, ["[\"1\",null]"]);
    assert_eq!(fields, ["\"[\"\"1\"\",null]\""]);
}

#[test]
fn strings_and_binary() {
    let values = vec![Some("a\"\\\n\u{1}é😀"), Some(""), None, Some("plain"), Some(" pad")];
    let json = ["\"a\\\"\\\\\\n\\u0001é😀\"", "\"\"", "null", "\"plain\"", "\" pad\""];
    let csv = ["\"a\"\"\\\n\u{1}é😀\"", "\"\"", "", "plain", "\" pad\""];
    golden(StringArray::from(values.clone()), &json, Some(&csv));
    golden(LargeStringArray::from(values.clone()), &json, Some(&csv));
    golden(StringViewArray::from(values), &json, Some(&csv));
    let bytes = vec![Some(&[0xfb_u8, 0xff][..]), Some(b""), None];
    let json = ["\"+/8=\"", "\"\"", "null"];
    let csv = ["+/8=", "\"\"", ""];
    golden(BinaryArray::from(bytes.clone()), &json, Some(&csv));
    golden(LargeBinaryArray::from(bytes.clone()), &json, Some(&csv));
    golden(BinaryViewArray::from(bytes), &json, Some(&csv));
    let fixed = FixedSizeBinaryArray::try_from(vec![&b"ab"[..], b"cd"]).expect("one size");
    golden(fixed, &["\"YWI=\"", "\"Y2Q=\""], None);
}

#[test]
fn dates_and_times() {
    golden(Date32Array::from(vec![Some(0), None]), &["\"1970-01-01\"", "null"], None);
    golden(Date64Array::from(vec![-86_400_000]), &["\"1969-12-31\""], None);
    golden(Time32SecondArray::from(vec![1]), &["\"00:00:01\""], None);
    golden(Time32MillisecondArray::from(vec![1]), &["\"00:00:00.001\""], None);
    golden(Time64MicrosecondArray::from(vec![1]), &["\"00:00:00.000001\""], None);
    golden(Time64NanosecondArray::from(vec![1]), &["\"00:00:00.000000001\""], None);
    golden(TimestampSecondArray::from(vec![0]), &["\"1970-01-01T00:00:00\""], None);
    let utc = TimestampMillisecondArray::from(vec![1]).with_timezone("UTC");
    golden(utc, &["\"1970-01-01T00:00:00.001Z\""], None);
    let india = TimestampMicrosecondArray::from(vec![1]).with_timezone("+05:30");
    golden(india, &["\"1970-01-01T05:30:00.000001+05:30\""], None);
    let berlin = TimestampNanosecondArray::from(vec![1]).with_timezone("Europe/Berlin");
    golden(berlin, &["\"1970-01-01T01:00:00.000000001+01:00\""], None);
    golden(DurationMillisecondArray::from(vec![-1_500]), &["\"-PT1.500S\""], None);
    golden(IntervalYearMonthArray::from(vec![14]), &["\"P1Y2M\""], None);
    let day = IntervalDayTimeArray::from(vec![IntervalDayTime::new(1, 2_500)]);
    golden(day, &["\"P1DT2.500S\""], None);
    let month = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]);
    golden(month, &["\"P1M2DT0.000000003S\""], None);
}

#[test]
fn nested_values() {
    let list = [Some(vec![Some(1), None]), None, Some(vec![])];
    let json = ["[1,null]", "null", "[]"];
    let csv = ["\"[1,null]\"", "", "[]"];
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(list.clone());
    golden(lists, &json, Some(&csv));
    let lists = LargeListArray::from_iter_primitive::<Int32Type, _, _>(list);
    golden(lists, &json, Some(&csv));
    let pairs = [Some([Some(1), None]), None];
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(pairs, 2);
    golden(fixed, &["[1,null]", "null"], Some(&["\"[1,null]\"", ""]));

    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None]));
    let sizes: ArrayRef = Arc::new(Int8Array::from(vec![1, 2]));
    let record =
        StructArray::from(vec![(field("na\"me", DataType::Utf8), names), (field("size", DataType::Int8), sizes)]);
    let json = ["{\"na\\\"me\":\"x\",\"size\":1}", "{\"na\\\"me\":null,\"size\":2}"];
    let quoted = json.map(|text| format!("\"{}\"", text.replace('"', "\"\"")));
    golden(record, &json, Some(&[&quoted[0], &quoted[1]]));
}

fn map(keys: ArrayRef) -> MapArray {
    let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let fields = vec![Field::new("keys", keys.data_type().clone(), false), Field::new("values", DataType::Int32, true)];
    let entries = StructArray::new(fields.into(), vec![keys, values], None);
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    MapArray::new(field, OffsetBuffer::from_lengths([2, 0]), entries, None, false)
}

#[test]
fn maps_are_objects_where_keys_are_text() {
    let text = map(Arc::new(StringArray::from(vec!["a", "b"])));
    golden(text, &["{\"a\":1,\"b\":null}", "{}"], Some(&["\"{\"\"a\"\":1,\"\"b\"\":null}\"", "{}"]));
    let numbers = map(Arc::new(Int8Array::from(vec![7, 8])));
    golden(numbers, &["[[7,1],[8,null]]", "[]"], Some(&["\"[[7,1],[8,null]]\"", "[]"]));
}

#[test]
fn encodings_of_values_are_written_as_the_values() {
    let words: DictionaryArray<Int8Type> = vec![Some("a,b"), None, Some("a,b")].into_iter().collect();
    let json = ["\"a,b\"", "null", "\"a,b\""];
    golden(words, &json, Some(&["\"a,b\"", "", "\"a,b\""]));
    // More values than rows: they are not written beforehand.
    let keys = Int8Array::from(vec![2]);
    let values = Arc::new(StringArray::from(vec!["x", "y", "z"]));
    golden(DictionaryArray::new(keys, values), &["\"z\""], None);
    let empty = DictionaryArray::new(Int8Array::new_null(1), Arc::new(StringArray::new_null(0)));
    golden(empty, &["null"], None);
    let ends = Int32Array::from(vec![2, 3]);
    let values = Date32Array::from(vec![Some(0), None]);
    let runs = RunArray::try_new(&ends, &values).expect("ends that rise");
    golden(runs.clone(), &["\"1970-01-01\"", "\"1970-01-01\"", "null"], None);
    golden(runs.slice(1, 2), &["\"1970-01-01\"", "null"], None);
}

#[test]
fn bodies_have_the_stated_shape() {
    let rows = batch(vec![
        ("a\"", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
        ("b,", Arc::new(StringArray::from(vec![Some("x"), None]))),
    ]);
    let array = "[{\"a\\\"\":1,\"b,\":\"x\"},{\"a\\\"\":2,\"b,\":null}]";
    assert_eq!(text(&rows, options(Format::JsonArray)), format!("{array}\n"));
    let json = text(&rows, options(Format::Json));
    let start = format!("{{\"rows\":{array},\"receipt\":{{\"rows\":2,\"bytes\":{},", array.len() + 8);
    assert!(json.starts_with(&start), "{json}");
    assert!(json.ends_with(":\",\"snapshots\":{\"t\":\"s1\"}}}\n"), "{json}");
    let lines = "{\"a\\\"\":1,\"b,\":\"x\"}\n{\"a\\\"\":2,\"b,\":null}\n";
    assert_eq!(text(&rows, options(Format::Ndjson)), lines);
    assert_eq!(text(&rows, options(Format::Csv)), "\"a\"\"\",\"b,\"\r\n1,x\r\n2,\r\n");
}

#[test]
fn empty_results_are_whole_results() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8View, true)]));
    let none = RecordBatch::new_empty(schema);
    let json = text(&none, options(Format::Json));
    assert!(json.starts_with("{\"rows\":[],\"receipt\":{\"rows\":0,\"bytes\":10,"), "{json}");
    assert_eq!(text(&none, options(Format::JsonArray)), "[]\n");
    assert_eq!(text(&none, options(Format::Ndjson)), "");
    assert_eq!(text(&none, options(Format::Csv)), "a\r\n");
    for format in [Format::Arrow, Format::Parquet] {
        let bytes = blocking(&none, options(format)).expect("encodes");
        let (schema, batches) = super::readers::binary(format, bytes);
        assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    }
}

#[test]
fn rows_without_columns_are_empty_objects() {
    let options_of = RecordBatchOptions::new().with_row_count(Some(2));
    let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options_of);
    let rows = rows.expect("a row count is enough");
    assert_eq!(text(&rows, options(Format::JsonArray)), "[{},{}]\n");
    assert_eq!(text(&rows, options(Format::Ndjson)), "{}\n{}\n");
}

#[test]
fn values_without_text_name_column_and_row() {
    let unit = DataType::Timestamp(TimeUnit::Second, None);
    let good: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0; 3]));
    let bad: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(0), None, Some(i64::MAX)]));
    assert_eq!(bad.data_type(), &unit);
    let rows = batch(vec![("good", good), ("bad", bad)]);
    for format in [Format::Json, Format::Csv] {
        let message = blocking(&rows, options(format)).expect_err("no text").to_string();
        let expected = "column `bad`, row 3: a date outside the years 0000 to 9999";
        assert!(message.starts_with(expected), "{message}");
    }
    for format in [Format::Arrow, Format::Parquet] {
        assert!(blocking(&rows, options(format)).is_ok(), "{format} has no such limit");
    }
}
