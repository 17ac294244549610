//! Random batches of every type, through every format that can carry them, and back.

use arrow::compute::concat_batches;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::arrays::{Random, any_type, scalar_types};
use super::readers::{self, Object};
use super::*;
use crate::format::check::{check, written_schema};

/// The array without views, dictionaries, runs and list views: what readers give back.
fn plain(array: &ArrayRef) -> ArrayRef {
    let field = Field::new("v", array.data_type().clone(), true);
    let schema = written_schema(&Schema::new(vec![field]), Format::Parquet);
    readers::cast(array, schema.field(0).data_type())
}

fn same(format: Format, original: &ArrayRef, found: &ArrayRef) {
    let (original, found) = (plain(original), plain(found));
    assert_eq!(original.data_type(), found.data_type(), "{format}");
    assert_eq!(&original, &found, "{format} of {}", original.data_type());
}

fn through_json(format: Format, rows: &RecordBatch, numbers: NumberStyle) {
    let body = text(rows, EncodeOptions { numbers, ..options(format) });
    let objects: Vec<Object> = match format {
        Format::Json => {
            let mut envelope: Object = serde_json::from_str(&body).expect("a JSON object");
            let rows = envelope.remove("rows").expect("rows");
            serde_json::from_str(rows.get()).expect("rows are an array of objects")
        }
        Format::JsonArray => serde_json::from_str(&body).expect("an array of objects"),
        _ => body.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect(),
    };
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let values: Vec<Option<&RawValue>> = objects.iter().map(|object| Some(&*object[field.name()])).collect();
        same(format, column, &readers::from_json(plain(column).data_type(), &values));
    }
}

fn through_csv(rows: &RecordBatch) {
    let mut records = readers::csv(&text(rows, options(Format::Csv))).into_iter();
    let names = records.next().expect("a header line");
    let expected = rows.schema().fields().iter().map(|field| Some(field.name().clone())).collect::<Vec<_>>();
    assert_eq!(names, expected);
    let records: Vec<_> = records.collect();
    assert_eq!(records.len(), rows.num_rows());
    for (at, column) in rows.columns().iter().enumerate() {
        let texts: Vec<_> = records.iter().map(|record| record[at].clone()).collect();
        let data_type = plain(column).data_type().clone();
        let nested = data_type.is_nested();
        let found = if nested {
            let raw = |text: String| RawValue::from_string(text).expect("nested values are JSON");
            let values: Vec<_> = texts.into_iter().map(|text| text.map(raw)).collect();
            readers::from_json(&data_type, &values.iter().map(Option::as_deref).collect::<Vec<_>>())
        } else {
            readers::scalars(&data_type, texts)
        };
        same(Format::Csv, column, &found);
    }
}

fn through_binary(format: Format, rows: &RecordBatch) {
    if check(&rows.schema(), format).is_err() {
        return;
    }
    let bytes = blocking(rows, options(format)).unwrap_or_else(|error| panic!("{}: {error}", rows.schema()));
    let (schema, batches) = readers::binary(format, bytes);
    let expected = written_schema(&rows.schema(), format);
    assert_eq!(schema.fields(), expected.fields(), "{format}");
    let found = concat_batches(&schema, &batches).expect("one schema");
    for (original, found) in rows.columns().iter().zip(found.columns()) {
        same(format, original, found);
    }
}

fn through_all(rows: &RecordBatch) {
    for format in [Format::Json, Format::JsonArray, Format::Ndjson] {
        through_json(format, rows, NumberStyle::Exact);
    }
    through_json(Format::Ndjson, rows, NumberStyle::String);
    through_csv(rows);
    through_binary(Format::Arrow, rows);
    through_binary(Format::Parquet, rows);
}

#[test]
fn every_scalar_type_comes_back() {
    let mut random = Random(1);
    for data_type in scalar_types() {
        let array = random.array(&data_type, 500);
        through_all(&batch(vec![("v", array)]));
    }
}

proptest! {
    #[test]
    fn random_batches_come_back(
        types in prop::collection::vec(any_type(), 1..4),
        rows in 0_usize..40,
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let names = ["a", "b c", "d\""];
        let arrays = types.iter().map(|data_type| random.array(data_type, rows));
        through_all(&batch(names.into_iter().zip(arrays).collect()));
    }
}
