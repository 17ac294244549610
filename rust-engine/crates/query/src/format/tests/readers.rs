//! Reads encoded results back into arrays, by ways that share nothing with the encoders.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::types::*;
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, IntervalUnit, SchemaRef, TimeUnit};
use arrow::ipc::reader::StreamReader;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;

use crate::format::Format;

pub(super) fn binary(format: Format, bytes: Vec<u8>) -> (SchemaRef, Vec<RecordBatch>) {
    if format == Format::Arrow {
        let reader = StreamReader::try_new(bytes.as_slice(), None).expect("an IPC stream");
        return (reader.schema(), reader.collect::<Result<_, _>>().expect("whole batches"));
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).expect("a file");
    let schema = Arc::clone(builder.schema());
    let reader = builder.build().expect("a reader");
    (schema, reader.collect::<Result<_, _>>().expect("whole batches"))
}

pub(super) fn cast(array: &ArrayRef, data_type: &DataType) -> ArrayRef {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, data_type, &strict).unwrap_or_else(|error| {
        panic!("{} to {data_type}: {error}", array.data_type());
    })
}

/// A JSON object whose members are kept as text.
pub(super) type Object = BTreeMap<String, Box<RawValue>>;

/// An array of a plain type (no views, dictionaries or runs) from JSON values; `None` and `null` are null.
pub(super) fn from_json(data_type: &DataType, values: &[Option<&RawValue>]) -> ArrayRef {
    let values: Vec<Option<&str>> =
        values.iter().map(|value| value.map(RawValue::get).filter(|text| *text != "null")).collect();
    let nulls = || Some(NullBuffer::from_iter(values.iter().map(Option::is_some)));
    match data_type {
        DataType::List(item) => {
            let (ends, items) = items(item, &values);
            Arc::new(ListArray::new(Arc::clone(item), ends, items, nulls()))
        }
        DataType::LargeList(item) => {
            let (ends, items) = items(item, &values);
            let ends = ends.iter().map(|end| i64::from(*end)).collect::<ScalarBuffer<i64>>();
            let ends = OffsetBuffer::new(ends);
            Arc::new(LargeListArray::new(Arc::clone(item), ends, items, nulls()))
        }
        DataType::FixedSizeList(item, size) => {
            let filler = format!("[{}]", vec!["null"; *size as usize].join(","));
            let filled: Vec<_> = values.iter().map(|text| text.or(Some(&filler))).collect();
            let (_, items) = items(item, &filled);
            Arc::new(FixedSizeListArray::new(Arc::clone(item), *size, items, nulls()))
        }
        DataType::Struct(fields) => {
            let objects = values.iter().map(|text| text.map(object));
            let objects: Vec<_> = objects.collect();
            let columns = fields.iter().map(|field| {
                let members = objects.iter().map(|object| object.as_ref().map(|object| &*object[field.name()]));
                from_json(field.data_type(), &members.collect::<Vec<_>>())
            });
            Arc::new(StructArray::new(fields.clone(), columns.collect(), nulls()))
        }
        DataType::Map(entries, _) => map(entries, &values, nulls()),
        _ => {
            let texts = values.iter().map(|text| {
                text.map(|text| match text.starts_with('"') {
                    true => serde_json::from_str(text).expect("a JSON string"),
                    false => text.to_owned(),
                })
            });
            scalars(data_type, texts.collect())
        }
    }
}

fn items(item: &Field, values: &[Option<&str>]) -> (OffsetBuffer<i32>, ArrayRef) {
    let lists: Vec<Vec<Box<RawValue>>> = values.iter().map(|text| text.map(list).unwrap_or_default()).collect();
    let ends = OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
    let flat: Vec<_> = lists.iter().flatten().map(|value| Some(&**value)).collect();
    (ends, from_json(item.data_type(), &flat))
}

fn object(text: &str) -> Object {
    serde_json::from_str(text).expect("a JSON object")
}

fn list(text: &str) -> Vec<Box<RawValue>> {
    serde_json::from_str(text).expect("a JSON array")
}

fn map(entries: &Arc<Field>, values: &[Option<&str>], nulls: Option<NullBuffer>) -> ArrayRef {
    let DataType::Struct(fields) = entries.data_type() else {
        panic!("entries are a struct");
    };
    let mut keys = Vec::new();
    let mut items = Vec::new();
    let mut lengths = Vec::new();
    for text in values {
        let before = keys.len();
        match text {
            None => {}
            Some(text) if text.starts_with('{') => {
                for (key, value) in object(text) {
                    let key = serde_json::value::to_raw_value(&key).expect("a string");
                    keys.push(key);
                    items.push(value);
                }
            }
            Some(text) => {
                for pair in list(text) {
                    let mut pair = list(pair.get()).into_iter();
                    keys.extend(pair.next());
                    items.extend(pair.next());
                }
            }
        }
        lengths.push(keys.len() - before);
    }
    let column = |field: &Field, values: &[Box<RawValue>]| {
        let values: Vec<_> = values.iter().map(|value| Some(&**value)).collect();
        from_json(field.data_type(), &values)
    };
    let columns = vec![column(&fields[0], &keys), column(&fields[1], &items)];
    let structs = StructArray::new(fields.clone(), columns, None);
    let ends = OffsetBuffer::from_lengths(lengths);
    Arc::new(MapArray::new(Arc::clone(entries), ends, structs, nulls, false))
}

/// An array from the text of its scalars, mostly by Arrow's own parsers.
pub(super) fn scalars(data_type: &DataType, texts: Vec<Option<String>>) -> ArrayRef {
    let bytes = |text: &Option<String>| text.as_ref().map(|text| STANDARD.decode(text).expect("base64"));
    match data_type {
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            let values: Vec<_> = texts.iter().map(bytes).collect();
            let binary: BinaryArray = values.iter().map(Option::as_deref).collect();
            cast(&(Arc::new(binary) as ArrayRef), data_type)
        }
        DataType::Null => {
            assert!(texts.iter().all(Option::is_none));
            Arc::new(NullArray::new(texts.len()))
        }
        DataType::Float16 => cast(&scalars(&DataType::Float32, texts), data_type),
        DataType::Duration(unit) => {
            let (per_second, digits) = match unit {
                TimeUnit::Second => (1, 0),
                TimeUnit::Millisecond => (1_000, 3),
                TimeUnit::Microsecond => (1_000_000, 6),
                TimeUnit::Nanosecond => (1_000_000_000, 9),
            };
            let value = |text: String| {
                let (sign, text) = match text.strip_prefix('-') {
                    Some(text) => (-1, text.to_owned()),
                    None => (1, text),
                };
                let seconds = text.strip_prefix("PT").and_then(|text| text.strip_suffix('S'));
                let (value, places) = number(seconds.expect("PT…S"));
                assert_eq!((places, per_second), (digits, 10_i64.pow(digits)));
                sign * value
            };
            let values: Int64Array = texts.into_iter().map(|text| text.map(value)).collect();
            cast(&(Arc::new(values) as ArrayRef), data_type)
        }
        DataType::Interval(unit) => intervals(*unit, texts),
        _ => {
            let strings: ArrayRef = Arc::new(texts.into_iter().collect::<StringArray>());
            cast(&strings, data_type)
        }
    }
}

/// A number without its point, and its decimal places.
fn number(text: &str) -> (i64, u32) {
    let places = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let digits = text.replace('.', "");
    (digits.parse().expect("digits"), u32::try_from(places).expect("few"))
}

/// The numbers of an ISO 8601 duration, in order.
fn parts(text: &str) -> Vec<i64> {
    let inner = text.strip_prefix('P').expect("P…").replace('T', "");
    let parts = inner.split_terminator(|letter: char| letter.is_ascii_uppercase());
    parts.map(|part| number(part).0).collect()
}

fn intervals(unit: IntervalUnit, texts: Vec<Option<String>>) -> ArrayRef {
    let texts = texts.into_iter().map(|text| text.map(|text| parts(&text)));
    let int = |value: i64| i32::try_from(value).expect("32 bits");
    match unit {
        IntervalUnit::YearMonth => {
            let values = texts.map(|parts| parts.map(|parts| int(parts[0] * 12 + parts[1])));
            Arc::new(values.collect::<IntervalYearMonthArray>())
        }
        IntervalUnit::DayTime => {
            let value = |parts: Vec<i64>| IntervalDayTime::new(int(parts[0]), int(parts[1]));
            let values = texts.map(|parts| parts.map(value));
            Arc::new(values.collect::<IntervalDayTimeArray>())
        }
        IntervalUnit::MonthDayNano => {
            let value = |parts: Vec<i64>| IntervalMonthDayNano::new(int(parts[0]), int(parts[1]), parts[2]);
            let values = texts.map(|parts| parts.map(value));
            Arc::new(values.collect::<IntervalMonthDayNanoArray>())
        }
    }
}

/// The records of a CSV text by RFC 4180; `None` for a field that is empty and not quoted.
pub(super) fn csv(text: &str) -> Vec<Vec<Option<String>>> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut field = String::new();
    let (mut quoted, mut inside) = (false, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, inside) {
            ('"', true) if letters.next_if_eq(&'"').is_some() => field.push('"'),
            ('"', true) => inside = false,
            ('"', false) => {
                assert!(field.is_empty(), "a quote inside a plain field");
                (quoted, inside) = (true, true);
            }
            (',' | '\r', false) => {
                let value = std::mem::take(&mut field);
                record.push((quoted || !value.is_empty()).then_some(value));
                quoted = false;
                if letter == '\r' {
                    assert_eq!(letters.next(), Some('\n'));
                    records.push(std::mem::take(&mut record));
                }
            }
            ('\n', false) => panic!("a bare line feed outside quotes"),
            (letter, _) => field.push(letter),
        }
    }
    assert!(record.is_empty() && field.is_empty() && !inside, "the last line ends");
    records
}
