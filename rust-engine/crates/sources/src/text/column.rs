//! Columns under construction: values go in one by one, can be taken back, and come out as an Arrow array.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, NullArray,
    PrimitiveArray, StringArray, StructArray, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, FieldRef, Fields, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;

use super::build::Record;
use crate::widen;

/// Fixed-width values; a null takes a default value.
#[derive(Debug, Default)]
pub(super) struct Fixed<T> {
    pub(super) values: Vec<T>,
    pub(super) valid: Vec<bool>,
}

impl<T: Default> Fixed<T> {
    pub(super) fn push(&mut self, value: T) {
        self.values.push(value);
        self.valid.push(true);
    }

    fn push_null(&mut self) {
        self.values.push(T::default());
        self.valid.push(false);
    }

    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.valid.truncate(rows);
    }

    /// The values and their validity, leaving room for as many again.
    fn take(&mut self) -> (Vec<T>, Option<NullBuffer>) {
        let room = self.values.len();
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(room));
        (values, take_nulls(&mut self.valid))
    }
}

fn take_nulls(valid: &mut Vec<bool>) -> Option<NullBuffer> {
    let nulls = NullBuffer::new(BooleanBuffer::from(valid.as_slice()));
    valid.clear();
    (nulls.null_count() > 0).then_some(nulls)
}

/// Strings end to end.
#[derive(Debug)]
pub(super) struct Strings {
    pub(super) bytes: Vec<u8>,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl Default for Strings {
    fn default() -> Self {
        Self { bytes: Vec::new(), ends: vec![0], valid: Vec::new() }
    }
}

impl Strings {
    pub(super) fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.close();
    }

    /// Ends the value whose bytes the caller has appended.
    pub(super) fn close(&mut self) {
        self.end(true);
    }

    fn end(&mut self, valid: bool) {
        // A batch holds at most BATCH_BYTES and one row of MAX_RECORD_BYTES, so the length fits; were it not to, the
        // array's own check would refuse the offsets.
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
        self.valid.push(valid);
    }

    fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        self.ends.truncate(rows + 1);
        let end = self.ends.last().copied().unwrap_or(0);
        self.bytes.truncate(usize::try_from(end).unwrap_or(0));
    }

    fn take(&mut self) -> Result<StringArray, ArrowError> {
        let room = self.bytes.len();
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(room));
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        StringArray::try_new(offsets, Buffer::from_vec(bytes), take_nulls(&mut self.valid))
    }
}

/// Lists: the elements end to end.
#[derive(Debug)]
pub(super) struct Lists {
    field: FieldRef,
    pub(super) items: Box<Column>,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl Lists {
    pub(super) fn close(&mut self) {
        self.end(true);
    }

    fn end(&mut self, valid: bool) {
        self.ends.push(i32::try_from(self.items.len()).unwrap_or(i32::MAX));
        self.valid.push(valid);
    }

    fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        self.ends.truncate(rows + 1);
        let end = self.ends.last().copied().unwrap_or(0);
        self.items.truncate(usize::try_from(end).unwrap_or(0));
    }

    fn take(&mut self) -> Result<ListArray, ArrowError> {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let items = self.items.finish()?;
        ListArray::try_new(self.field.clone(), offsets, items, take_nulls(&mut self.valid))
    }
}

/// The values of a column, by what they are read as.
#[derive(Debug)]
pub(super) enum Values {
    Null(usize),
    Bool(Fixed<bool>),
    /// Integers of up to 64 bits with a sign, or up to 32 without one: those from the first to the second number.
    Int(Fixed<i64>, i64, i64),
    UInt64(Fixed<u64>),
    Float(Fixed<f64>),
    Decimal(Fixed<i128>, u8, i8),
    Date(Fixed<i32>),
    Timestamp(Fixed<i64>, TimeUnit, Option<Arc<str>>),
    Text(Strings),
    Json(Strings),
    Struct(Record),
    List(Lists),
}

/// A column under construction.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) values: Values,
    /// The type asked for, where it is not the one that values are built in.
    target: Option<Field>,
    built: Field,
}

impl Column {
    /// A column for a field, or why there can be none.
    pub(super) fn new(field: &Field) -> Result<Self, String> {
        let (values, built_type) = Self::values_for(field)?;
        let built = field.clone().with_data_type(built_type);
        let target = (built.data_type() != field.data_type()).then(|| field.clone());
        if target.is_some() && !widen::castable(&built, field) {
            return Err(format!("text cannot be read as {}", field.data_type()));
        }
        Ok(Self { values, target, built })
    }

    fn values_for(field: &Field) -> Result<(Values, DataType), String> {
        let int = |low: i64, high: i64| (Values::Int(Fixed::default(), low, high), DataType::Int64);
        let data_type = field.data_type();
        Ok(match data_type {
            DataType::Null => (Values::Null(0), DataType::Null),
            DataType::Boolean => (Values::Bool(Fixed::default()), DataType::Boolean),
            DataType::Int8 => int(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => int(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => int(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => int(i64::MIN, i64::MAX),
            DataType::UInt8 => int(0, u8::MAX.into()),
            DataType::UInt16 => int(0, u16::MAX.into()),
            DataType::UInt32 => int(0, u32::MAX.into()),
            DataType::UInt64 => (Values::UInt64(Fixed::default()), DataType::UInt64),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                (Values::Float(Fixed::default()), DataType::Float64)
            }
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
                if *scale >= 0 =>
            {
                let built = DataType::Decimal128(*precision, *scale);
                (Values::Decimal(Fixed::default(), *precision, *scale), built)
            }
            DataType::Date32 | DataType::Date64 => (Values::Date(Fixed::default()), DataType::Date32),
            DataType::Timestamp(unit, zone) => {
                (Values::Timestamp(Fixed::default(), *unit, zone.clone()), data_type.clone())
            }
            DataType::Struct(fields) => (Values::Struct(Record::new(fields)?), data_type.clone()),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                let items = Box::new(Self::new(item)?);
                let lists = Lists { field: item.clone(), items, ends: vec![0], valid: Vec::new() };
                (Values::List(lists), DataType::List(item.clone()))
            }
            DataType::Dictionary(_, value) => Self::values_for(&field.clone().with_data_type((**value).clone()))?,
            _ if widen::is_json(field) => (Values::Json(Strings::default()), DataType::Utf8),
            _ => (Values::Text(Strings::default()), DataType::Utf8),
        })
    }

    /// The field that the array is to have.
    pub(super) fn wanted(&self) -> &Field {
        self.target.as_ref().unwrap_or(&self.built)
    }

    pub(super) fn len(&self) -> usize {
        match &self.values {
            Values::Null(rows) => *rows,
            Values::Bool(fixed) => fixed.valid.len(),
            Values::Int(fixed, ..) | Values::Timestamp(fixed, ..) => fixed.valid.len(),
            Values::UInt64(fixed) => fixed.valid.len(),
            Values::Float(fixed) => fixed.valid.len(),
            Values::Decimal(fixed, ..) => fixed.valid.len(),
            Values::Date(fixed) => fixed.valid.len(),
            Values::Text(strings) | Values::Json(strings) => strings.valid.len(),
            Values::Struct(record) => record.len(),
            Values::List(lists) => lists.valid.len(),
        }
    }

    pub(super) fn push_null(&mut self) {
        match &mut self.values {
            Values::Null(rows) => *rows += 1,
            Values::Bool(fixed) => fixed.push_null(),
            Values::Int(fixed, ..) | Values::Timestamp(fixed, ..) => fixed.push_null(),
            Values::UInt64(fixed) => fixed.push_null(),
            Values::Float(fixed) => fixed.push_null(),
            Values::Decimal(fixed, ..) => fixed.push_null(),
            Values::Date(fixed) => fixed.push_null(),
            Values::Text(strings) | Values::Json(strings) => strings.end(false),
            Values::Struct(record) => record.push_null(),
            Values::List(lists) => lists.end(false),
        }
    }

    pub(super) fn truncate(&mut self, to: usize) {
        match &mut self.values {
            Values::Null(rows) => *rows = to.min(*rows),
            Values::Bool(fixed) => fixed.truncate(to),
            Values::Int(fixed, ..) | Values::Timestamp(fixed, ..) => fixed.truncate(to),
            Values::UInt64(fixed) => fixed.truncate(to),
            Values::Float(fixed) => fixed.truncate(to),
            Values::Decimal(fixed, ..) => fixed.truncate(to),
            Values::Date(fixed) => fixed.truncate(to),
            Values::Text(strings) | Values::Json(strings) => strings.truncate(to),
            Values::Struct(record) => record.truncate(to),
            Values::List(lists) => lists.truncate(to),
        }
    }

    /// The array of all values; the column is empty after.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let array = self.take()?;
        match &self.target {
            None => Ok(array),
            Some(target) => widen::cast(&array, &self.built, target),
        }
    }

    fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match &mut self.values {
            Values::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
            Values::Bool(fixed) => {
                let (values, nulls) = fixed.take();
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Values::Int(fixed, ..) => {
                let (values, nulls) = fixed.take();
                Arc::new(Int64Array::try_new(values.into(), nulls)?)
            }
            Values::UInt64(fixed) => {
                let (values, nulls) = fixed.take();
                Arc::new(UInt64Array::try_new(values.into(), nulls)?)
            }
            Values::Float(fixed) => {
                let (values, nulls) = fixed.take();
                Arc::new(Float64Array::try_new(values.into(), nulls)?)
            }
            Values::Decimal(fixed, precision, scale) => {
                let (values, nulls) = fixed.take();
                let array = Decimal128Array::try_new(values.into(), nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Values::Date(fixed) => {
                let (values, nulls) = fixed.take();
                Arc::new(Date32Array::try_new(values.into(), nulls)?)
            }
            Values::Timestamp(fixed, unit, zone) => {
                let (unit, zone) = (*unit, zone.clone());
                match unit {
                    TimeUnit::Second => timestamps::<TimestampSecondType>(fixed, zone)?,
                    TimeUnit::Millisecond => timestamps::<TimestampMillisecondType>(fixed, zone)?,
                    TimeUnit::Microsecond => timestamps::<TimestampMicrosecondType>(fixed, zone)?,
                    TimeUnit::Nanosecond => timestamps::<TimestampNanosecondType>(fixed, zone)?,
                }
            }
            Values::Text(strings) | Values::Json(strings) => Arc::new(strings.take()?),
            Values::Struct(record) => Arc::new(record.take()?),
            Values::List(lists) => Arc::new(lists.take()?),
        })
    }
}

fn timestamps<T: ArrowTimestampType>(fixed: &mut Fixed<i64>, zone: Option<Arc<str>>) -> Result<ArrayRef, ArrowError> {
    let (values, nulls) = fixed.take();
    let array = PrimitiveArray::<T>::try_new(values.into(), nulls)?;
    Ok(Arc::new(array.with_timezone_opt(zone)))
}

/// The array of a struct from its fields' arrays.
pub(super) fn struct_array(
    fields: &Fields,
    arrays: Vec<ArrayRef>,
    valid: &mut Vec<bool>,
) -> Result<StructArray, ArrowError> {
    let rows = valid.len();
    let nulls = take_nulls(valid);
    StructArray::try_new_with_length(fields.clone(), arrays, nulls, rows)
}
