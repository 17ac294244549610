//! The lattice: its rules, and that it is one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, TimeUnit};
use proptest::prelude::*;

use super::{cast, castable, finalize, is_json, json_field, widen, widen_schemas};

fn field(data_type: DataType) -> Field {
    Field::new("c", data_type, true)
}

fn list(item: DataType) -> DataType {
    DataType::List(Field::new("item", item, true).into())
}

fn record(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect())
}

fn stamp(unit: TimeUnit, zone: Option<&str>) -> DataType {
    DataType::Timestamp(unit, zone.map(Into::into))
}

/// The fields in the order of their names, at every depth: widening is commutative up to that order.
pub(crate) fn sorted(schema: &Schema) -> Schema {
    fn fields(of: &Fields) -> Fields {
        let mut all: Vec<Field> = of.iter().map(|inner| one(inner)).collect();
        all.sort_by(|left, right| left.name().cmp(right.name()));
        all.into()
    }
    fn one(of: &Field) -> Field {
        let data_type = match of.data_type() {
            DataType::Struct(inner) => DataType::Struct(fields(inner)),
            DataType::List(item) => DataType::List(one(item).into()),
            DataType::LargeList(item) => DataType::LargeList(one(item).into()),
            other => other.clone(),
        };
        of.clone().with_data_type(data_type).with_nullable(true)
    }
    Schema::new(fields(schema.fields()))
}

#[test]
fn rules() {
    use DataType::{
        Boolean, Date32, Decimal32, Decimal128, Decimal256, Float32, Float64, Int8, Int32, Int64, LargeUtf8, Null,
        UInt8, UInt32, UInt64, Utf8, Utf8View,
    };
    let words = DataType::Dictionary(Box::new(Int32), Box::new(Utf8));
    let table = [
        (Null, Int64, Int64),
        (Int8, Int32, Int32),
        (Int8, UInt8, DataType::Int16),
        (Int64, UInt32, Int64),
        (Int64, UInt64, Decimal128(20, 0)),
        (Int64, Decimal128(38, 0), Decimal128(38, 0)),
        (Int64, Decimal128(10, 2), Decimal128(21, 2)),
        (Decimal32(9, 2), Decimal128(5, 4), Decimal128(11, 4)),
        (Decimal128(38, 0), Decimal128(10, 5), Decimal256(43, 5)),
        (Decimal256(76, 0), Decimal128(10, 5), Float64),
        (Int32, Float32, Float64),
        (Decimal128(38, 0), Float64, Float64),
        (Date32, stamp(TimeUnit::Microsecond, None), stamp(TimeUnit::Microsecond, None)),
        (stamp(TimeUnit::Second, None), stamp(TimeUnit::Nanosecond, None), stamp(TimeUnit::Nanosecond, None)),
        (
            stamp(TimeUnit::Second, Some("Asia/Tokyo")),
            stamp(TimeUnit::Second, Some("UTC")),
            stamp(TimeUnit::Second, Some("UTC")),
        ),
        (stamp(TimeUnit::Second, None), stamp(TimeUnit::Second, Some("UTC")), Utf8),
        (Boolean, Int64, Utf8),
        (Utf8View, LargeUtf8, Utf8),
        (Utf8View, Utf8View, Utf8View),
        (words.clone(), words.clone(), words.clone()),
        (words, Utf8View, Utf8),
        (DataType::BinaryView, DataType::FixedSizeBinary(2), DataType::Binary),
        (list(Int64), list(Float64), list(Float64)),
        (DataType::LargeList(Field::new("item", Int64, true).into()), list(Int64), list(Int64)),
        (record(&[("a", Int64)]), record(&[("b", Utf8), ("a", Float64)]), record(&[("a", Float64), ("b", Utf8)])),
    ];
    for (left, right, wide) in table {
        let found = widen(&field(left.clone()), &field(right.clone())).expect("widens");
        assert_eq!(found.data_type(), &wide, "{left} and {right}");
    }
    for (left, right) in [(record(&[]), Int64), (list(Int64), record(&[])), (list(Int64), Utf8)] {
        assert!(is_json(&widen(&field(left), &field(right)).expect("widens")));
    }
    assert!(is_json(&widen(&json_field("c"), &field(Utf8)).expect("widens")));
    let error = widen(&field(record(&[("x", DataType::Binary)])), &field(record(&[("x", Int64)]))).expect_err("bytes");
    assert_eq!(error.path, "c.x");
}

#[test]
fn schemas_unite_and_finalize() {
    let left = Schema::new(vec![Field::new("a", DataType::Null, true), Field::new("b", record(&[]), false)]);
    let right = Schema::new(vec![Field::new("c", list(DataType::Null), false)]);
    let united = finalize(&widen_schemas(&left, &right).expect("unites"));
    let names: Vec<&str> = united.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(united.field(0).data_type(), &DataType::Utf8);
    assert!(is_json(united.field(1)));
    assert_eq!(united.field(2).data_type(), &list(DataType::Utf8));
    assert!(united.fields().iter().all(|field| field.is_nullable()));
}

#[test]
fn casts_go_by_name() {
    let from = field(record(&[("x", DataType::Int32)]));
    let to = field(record(&[("y", DataType::Utf8), ("x", DataType::Int64)]));
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let DataType::Struct(fields) = from.data_type().clone() else { panic!("a struct") };
    let array: ArrayRef = Arc::new(StructArray::new(fields, vec![numbers], None));
    let cast = cast(&array, &from, &to).expect("casts");
    assert_eq!(cast.as_struct().column(0).null_count(), 2);
    assert_eq!(cast.as_struct().column(1).as_primitive::<Int64Type>().value(0), 1);

    assert!(castable(&field(DataType::Int64), &json_field("c")));
    assert!(!castable(&field(DataType::Utf8), &json_field("c")));
    assert!(!castable(&from, &json_field("c")));
    assert!(castable(&field(DataType::Null), &json_field("c")));
    assert!(!castable(&from, &field(DataType::Utf8)));
}

fn kinds() -> impl Strategy<Value = DataType> {
    let units = prop::sample::select(vec![TimeUnit::Second, TimeUnit::Microsecond, TimeUnit::Nanosecond]);
    let zones = prop::sample::select(vec![None, Some("UTC"), Some("+02:00")]);
    let plain = prop::sample::select(vec![
        DataType::Null,
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Date32,
        DataType::Date64,
        DataType::Time32(TimeUnit::Second),
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Duration(TimeUnit::Second),
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8View)),
        DataType::Decimal128(20, 0),
        DataType::Decimal128(38, 0),
        DataType::Decimal128(12, 2),
        DataType::Decimal64(5, 3),
        DataType::Decimal32(4, 2),
        DataType::Decimal256(60, 10),
    ]);
    let scalar = prop_oneof![4 => plain, 1 => (units, zones).prop_map(|(unit, zone)| stamp(unit, zone))];
    scalar.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(list),
            inner.clone().prop_map(|item| DataType::LargeList(Field::new("item", item, true).into())),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| {
                DataType::Struct(map.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn is_a_semilattice(a in kinds(), b in kinds(), c in kinds()) {
        let join = |left: &Field, right: &Field| widen(left, right).expect("no bytes among them");
        let shape = |of: &Field| sorted(&Schema::new(vec![of.clone()]));
        let (a, b, c) = (field(a), field(b), field(c));
        prop_assert_eq!(shape(&join(&a, &a)), shape(&a));
        prop_assert_eq!(shape(&join(&a, &b)), shape(&join(&b, &a)));
        prop_assert_eq!(shape(&join(&join(&a, &b), &c)), shape(&join(&a, &join(&b, &c))));
    }
}
