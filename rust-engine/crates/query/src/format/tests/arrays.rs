//! Random types and random arrays of them.

use std::sync::Arc;

use arrow::array::types::*;
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit, i256};
use proptest::prelude::*;
use proptest::sample::select;

use crate::format::cell::Half;

/// Every scalar type, with units, zones and scales.
pub(super) fn scalar_types() -> Vec<DataType> {
    use DataType::*;
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let mut types = vec![
        Null,
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
        FixedSizeBinary(5),
        Date32,
        Date64,
        Time32(Second),
        Time32(Millisecond),
        Time64(Microsecond),
        Time64(Nanosecond),
        Decimal32(9, 2),
        Decimal64(18, 0),
        Decimal128(38, 10),
        Decimal128(5, 5),
        Decimal256(76, 20),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::DayTime),
        Interval(IntervalUnit::MonthDayNano),
    ];
    for unit in [Second, Millisecond, Microsecond, Nanosecond] {
        types.push(Duration(unit));
        for zone in [None, Some("UTC"), Some("-02:30"), Some("America/New_York")] {
            types.push(Timestamp(unit, zone.map(Arc::from)));
        }
    }
    types
}

/// Any type, nested up to three levels deep.
pub(super) fn any_type() -> impl Strategy<Value = DataType> {
    let scalar = select(scalar_types());
    scalar.prop_recursive(3, 12, 2, |inner| {
        let item = |data_type: DataType| Arc::new(Field::new("item", data_type, true));
        let leaf = select(vec![DataType::Utf8, DataType::Utf8View, DataType::Date32, DataType::Int64]);
        prop_oneof![
            inner.clone().prop_map(move |inner| DataType::List(item(inner))),
            inner.clone().prop_map(move |inner| DataType::LargeList(item(inner))),
            inner.clone().prop_map(move |inner| DataType::FixedSizeList(item(inner), 2)),
            inner.clone().prop_map(move |inner| DataType::ListView(item(inner))),
            inner.clone().prop_map(move |inner| DataType::LargeListView(item(inner))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| record(a, b)),
            inner.clone().prop_map(|inner| map(DataType::Utf8, inner)),
            inner.prop_map(|inner| map(DataType::Int32, inner)),
            leaf.clone().prop_map(dictionary),
            leaf.prop_map(runs),
        ]
    })
}

fn record(first: DataType, second: DataType) -> DataType {
    DataType::Struct(vec![Field::new("a", first, true), Field::new("b \"", second, true)].into())
}

fn map(key: DataType, value: DataType) -> DataType {
    let fields = vec![Field::new("keys", key, false), Field::new("values", value, true)];
    let entries = Field::new("entries", DataType::Struct(fields.into()), false);
    DataType::Map(Arc::new(entries), false)
}

fn dictionary(values: DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::Int16), Box::new(values))
}

fn runs(values: DataType) -> DataType {
    let ends = Field::new("run_ends", DataType::Int32, false);
    DataType::RunEndEncoded(Arc::new(ends), Arc::new(Field::new("values", values, true)))
}

/// A small generator (splitmix64), so that a seed is all that a failing case needs.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A whole number of any size: small ones are as likely as large ones.
    fn int(&mut self) -> i64 {
        let shift = self.below(64);
        (self.next() as i64) >> shift
    }

    fn within(&mut self, least: i64, most: i64) -> i64 {
        let span = i128::from(most) - i128::from(least) + 1;
        let offset = i128::from(self.int()).rem_euclid(span);
        i64::try_from(i128::from(least) + offset).expect("within 64 bits")
    }

    fn text(&mut self) -> String {
        const PARTS: [&str; 12] =
            ["a", "é", "\"", "\\", "\n", "\r\n", "\u{1}", "😀", ", ", " x ", "long plain text ", "0"];
        (0..self.below(5)).map(|_| PARTS[self.below(PARTS.len())]).collect()
    }

    fn nulls(&mut self, rows: usize) -> Option<NullBuffer> {
        (self.below(3) > 0).then(|| (0..rows).map(|_| self.below(4) > 0).collect())
    }

    fn primitive<T: ArrowPrimitiveType>(&mut self, rows: usize, value: impl Fn(&mut Self) -> T::Native) -> ArrayRef {
        let values: ScalarBuffer<T::Native> = (0..rows).map(|_| value(self)).collect::<Vec<_>>().into();
        Arc::new(PrimitiveArray::<T>::new(values, self.nulls(rows)))
    }

    fn optional<V>(&mut self, rows: usize, value: impl Fn(&mut Self) -> V) -> Vec<Option<V>> {
        (0..rows).map(|_| (self.below(4) > 0).then(|| value(self))).collect()
    }

    /// An array with a few rows cut off at both ends, so that offsets are not always zero.
    pub(super) fn array(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        let before = self.below(3);
        let after = self.below(3);
        self.whole(data_type, before + rows + after).slice(before, rows)
    }

    fn whole(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        use DataType::*;
        match data_type {
            Null => Arc::new(NullArray::new(rows)),
            Boolean => Arc::new(BooleanArray::from(self.optional(rows, |random| random.below(2) > 0))),
            Int8 => self.primitive::<Int8Type>(rows, |random| random.int() as i8),
            Int16 => self.primitive::<Int16Type>(rows, |random| random.int() as i16),
            Int32 => self.primitive::<Int32Type>(rows, |random| random.int() as i32),
            Int64 => self.primitive::<Int64Type>(rows, Self::int),
            UInt8 => self.primitive::<UInt8Type>(rows, |random| random.int() as u8),
            UInt16 => self.primitive::<UInt16Type>(rows, |random| random.int() as u16),
            UInt32 => self.primitive::<UInt32Type>(rows, |random| random.int() as u32),
            UInt64 => self.primitive::<UInt64Type>(rows, |random| random.int() as u64),
            Float16 => self.primitive::<Float16Type>(rows, |random| Half::from_f32(random.int() as i16 as f32 / 64.0)),
            Float32 => self.primitive::<Float32Type>(rows, |random| {
                let value = f32::from_bits(random.next() as u32);
                if value.is_finite() { value } else { 1.5 }
            }),
            Float64 => self.primitive::<Float64Type>(rows, |random| {
                let value = f64::from_bits(random.next());
                if value.is_finite() { value } else { random.int() as f64 }
            }),
            Utf8 => Arc::new(StringArray::from(self.optional(rows, Self::text))),
            LargeUtf8 => Arc::new(LargeStringArray::from(self.optional(rows, Self::text))),
            Utf8View => Arc::new(StringViewArray::from_iter(self.optional(rows, Self::text))),
            Binary => Arc::new(BinaryArray::from_iter(self.optional(rows, Self::text))),
            LargeBinary => Arc::new(LargeBinaryArray::from_iter(self.optional(rows, Self::text))),
            BinaryView => Arc::new(BinaryViewArray::from_iter(self.optional(rows, Self::text))),
            FixedSizeBinary(_) => {
                let values = self.optional(rows, |random| random.next().to_le_bytes()[..5].to_vec());
                let values = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 5);
                Arc::new(values.expect("one size"))
            }
            Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => self.decimals(data_type, rows),
            Struct(_) | List(_) | LargeList(_) | FixedSizeList(..) | ListView(_) | LargeListView(_) | Map(..)
            | Dictionary(..) | RunEndEncoded(..) => self.nested(data_type, rows),
            _ => self.temporal(data_type, rows),
        }
    }

    fn decimals(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        let array = match data_type {
            DataType::Decimal32(..) => {
                self.primitive::<Decimal32Type>(rows, |random| random.within(-999_999_999, 999_999_999) as i32)
            }
            DataType::Decimal64(..) => {
                self.primitive::<Decimal64Type>(rows, |random| random.within(-(10_i64.pow(18) - 1), 10_i64.pow(18) - 1))
            }
            DataType::Decimal128(5, _) => {
                self.primitive::<Decimal128Type>(rows, |random| i128::from(random.within(-99_999, 99_999)))
            }
            DataType::Decimal128(..) => self.primitive::<Decimal128Type>(rows, |random| {
                i128::from(random.int()) * i128::from(random.within(0, 10_i64.pow(18)))
            }),
            _ => self.primitive::<Decimal256Type>(rows, |random| {
                let wide = |value: i64| i256::from_i128(i128::from(value));
                wide(random.int()).wrapping_mul(wide(random.int())).wrapping_mul(wide(random.int()))
            }),
        };
        let data = array.to_data().into_builder().data_type(data_type.clone());
        make_array(data.build().expect("the same layout"))
    }

    fn temporal(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        use DataType::*;
        const DAY: i64 = 86_400;
        // A day inside the bounds of the years 0000 to 9999, so that no zone leaves them.
        let (least, most) = (-719_527, 2_932_895);
        let per_second = |unit: &TimeUnit| match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        };
        let data_type = data_type.clone();
        let integers = match &data_type {
            Date32 => return self.primitive::<Date32Type>(rows, |random| random.within(least, most) as i32),
            Interval(IntervalUnit::YearMonth) => {
                return self.primitive::<IntervalYearMonthType>(rows, |random| random.int() as i32);
            }
            Interval(IntervalUnit::DayTime) => {
                return self.primitive::<IntervalDayTimeType>(rows, |random| {
                    IntervalDayTime::new(random.int() as i32, random.int() as i32)
                });
            }
            Interval(IntervalUnit::MonthDayNano) => {
                return self.primitive::<IntervalMonthDayNanoType>(rows, |random| {
                    IntervalMonthDayNano::new(random.int() as i32, random.int() as i32, random.int())
                });
            }
            Time32(unit) => {
                let end = DAY * per_second(unit) - 1;
                let array = self.primitive::<Int32Type>(rows, |random| random.within(0, end) as i32);
                return super::readers::cast(&array, &data_type);
            }
            Time64(unit) => {
                let end = DAY * per_second(unit) - 1;
                self.primitive::<Int64Type>(rows, |random| random.within(0, end))
            }
            Date64 => self.primitive::<Int64Type>(rows, |random| random.within(least, most) * DAY * 1_000),
            Duration(_) => self.primitive::<Int64Type>(rows, |random| random.int().max(-i64::MAX)),
            Timestamp(TimeUnit::Nanosecond, _) => {
                // Arrow's parser goes through local time, which must fit 64 bits as well.
                let edge = i64::MAX / DAY / 1_000_000_000 * DAY * 1_000_000_000 - DAY * 1_000_000_000;
                self.primitive::<Int64Type>(rows, |random| random.within(-edge, edge))
            }
            Timestamp(unit, _) => {
                let (least, most) = (least * DAY * per_second(unit), most * DAY * per_second(unit));
                self.primitive::<Int64Type>(rows, |random| random.within(least, most))
            }
            other => panic!("no generator for {other}"),
        };
        let data = integers.to_data().into_builder().data_type(data_type);
        make_array(data.build().expect("the same layout"))
    }

    fn nested(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        use DataType::*;
        let lengths: Vec<usize> = (0..rows).map(|_| self.below(4)).collect();
        let total = lengths.iter().sum();
        let nulls = self.nulls(rows);
        match data_type {
            List(item) => {
                let items = self.array(item.data_type(), total);
                let ends = OffsetBuffer::from_lengths(lengths);
                Arc::new(ListArray::new(Arc::clone(item), ends, items, nulls))
            }
            LargeList(item) => {
                let items = self.array(item.data_type(), total);
                let ends = OffsetBuffer::from_lengths(lengths);
                Arc::new(LargeListArray::new(Arc::clone(item), ends, items, nulls))
            }
            FixedSizeList(item, size) => {
                let items = self.array(item.data_type(), rows * *size as usize);
                Arc::new(FixedSizeListArray::new(Arc::clone(item), *size, items, nulls))
            }
            ListView(item) => {
                let items = self.array(item.data_type(), 10);
                let starts = lengths.iter().map(|_| self.below(6) as i32).collect();
                let sizes = lengths.iter().map(|length| *length as i32).collect();
                Arc::new(ListViewArray::new(Arc::clone(item), starts, sizes, items, nulls))
            }
            LargeListView(item) => {
                let items = self.array(item.data_type(), 10);
                let starts = lengths.iter().map(|_| self.below(6) as i64).collect();
                let sizes = lengths.iter().map(|length| *length as i64).collect();
                Arc::new(LargeListViewArray::new(Arc::clone(item), starts, sizes, items, nulls))
            }
            Struct(fields) => {
                let columns = fields.iter().map(|field| self.array(field.data_type(), rows)).collect();
                Arc::new(StructArray::new(fields.clone(), columns, nulls))
            }
            Map(entries, sorted) => {
                let Struct(fields) = entries.data_type() else { panic!("entries are a struct") };
                // Keys rise within a map, as the reader's ordered objects have them.
                let keys = lengths.iter().flat_map(|length| 0..*length as i32).collect::<Int32Array>();
                let keys = super::readers::cast(&(Arc::new(keys) as ArrayRef), fields[0].data_type());
                let values = self.array(fields[1].data_type(), total);
                let structs = StructArray::new(fields.clone(), vec![keys, values], None);
                let ends = OffsetBuffer::from_lengths(lengths);
                Arc::new(MapArray::new(Arc::clone(entries), ends, structs, nulls, *sorted))
            }
            Dictionary(_, values) => {
                let size = 1 + self.below(9);
                let values = self.array(values, size);
                let keys = self.primitive::<Int16Type>(rows, |random| random.below(size) as i16);
                Arc::new(DictionaryArray::new(keys.as_primitive::<Int16Type>().clone(), values))
            }
            RunEndEncoded(_, values) => {
                let mut ends = Vec::new();
                let mut end = 0;
                while end < rows as i32 {
                    end = (end + 1 + self.below(3) as i32).min(rows as i32);
                    ends.push(end);
                }
                let values = self.array(values.data_type(), ends.len());
                Arc::new(RunArray::try_new(&Int32Array::from(ends), &*values).expect("ends that rise"))
            }
            other => panic!("no generator for {other}"),
        }
    }
}
