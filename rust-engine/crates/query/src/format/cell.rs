//! One column of one batch, made ready for row-wise writing: types matched, buffers borrowed, keys and
//! escapes worked out once, so that writing a value is one jump and one copy.

use std::ops::Range;

use arrow::array::types::*;
use arrow::array::{Array, AsArray, BinaryViewArray, FixedSizeBinaryArray, RunArray, StringViewArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, i256};
use arrow::error::ArrowError;

use super::NumberStyle;
use super::sink::{Sink, json_clean};
use super::spans::SLACK;
use super::time::Zone;

/// The 16-bit float, named through Arrow since it comes with it.
pub(crate) type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// What kind of text a cell is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A JSON value.
    Json,
    /// A CSV field; what is inside nested values is JSON.
    Csv,
}

/// A column of a batch, or a child of one.
pub(crate) struct Cell<'a> {
    pub(super) nulls: Option<&'a NullBuffer>,
    /// Whether JSON puts quotes around the scalar's text.
    pub(super) quoted: bool,
    pub(super) body: Body<'a>,
}

/// The values, by how they are written.
pub(crate) enum Body<'a> {
    Null,
    Bool(&'a BooleanBuffer),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    F16(&'a [Half]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    Decimal32(&'a [i32], i8),
    Decimal64(&'a [i64], i8),
    Decimal128(&'a [i128], i8),
    Decimal256(&'a [i256], i8),
    Date32(&'a [i32]),
    Date64(&'a [i64]),
    Time32(&'a [i32], TimeUnit),
    Time64(&'a [i64], TimeUnit),
    Timestamp(&'a [i64], TimeUnit, Zone),
    Duration(&'a [i64], TimeUnit),
    YearMonth(&'a [i32]),
    DayTime(&'a [IntervalDayTime]),
    MonthDayNano(&'a [IntervalMonthDayNano]),
    /// UTF-8; `true` where no value needs an escape.
    Text(Blobs<'a>, bool),
    Binary(Blobs<'a>),
    /// A dictionary whose values were written once: keys, and where each value's text ends.
    Encoded(Vec<usize>, Vec<usize>, Vec<u8>),
    Dictionary(Vec<usize>, Box<Cell<'a>>),
    Runs(Runs<'a>, Box<Cell<'a>>),
    List(Spans<'a>, Box<Cell<'a>>),
    /// A JSON object where keys are text, else a list of `[key,value]`.
    Map(Spans<'a>, Box<Cell<'a>>, Box<Cell<'a>>, bool),
    /// Each field with `"name":`, from the second on with a comma before it.
    Struct(Vec<(Vec<u8>, Cell<'a>)>),
}

/// Strings of bytes, by how Arrow lays them out.
pub(crate) enum Blobs<'a> {
    Small(&'a [i32], &'a [u8]),
    Large(&'a [i64], &'a [u8]),
    TextView(&'a StringViewArray),
    View(&'a BinaryViewArray),
    Fixed(&'a FixedSizeBinaryArray),
}

impl<'a> Blobs<'a> {
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &'a [u8] {
        match self {
            Self::Small(ends, bytes) => &bytes[ends[index] as usize..ends[index + 1] as usize],
            Self::Large(ends, bytes) => &bytes[ends[index] as usize..ends[index + 1] as usize],
            Self::TextView(array) => array.value(index).as_bytes(),
            Self::View(array) => array.value(index),
            Self::Fixed(array) => array.value(index),
        }
    }

    /// Whether JSON needs no escape for these rows. Views are not looked at: their bytes lie scattered.
    fn clean(&self, rows: &Range<usize>) -> bool {
        let bytes = match self {
            Self::Small(ends, bytes) => &bytes[ends[rows.start] as usize..ends[rows.end] as usize],
            Self::Large(ends, bytes) => &bytes[ends[rows.start] as usize..ends[rows.end] as usize],
            Self::TextView(_) | Self::View(_) | Self::Fixed(_) => return false,
        };
        json_clean(bytes)
    }
}

/// Which items belong to which row of a list.
pub(crate) enum Spans<'a> {
    Small(&'a [i32]),
    Large(&'a [i64]),
    Fixed(usize),
    View(&'a [i32], &'a [i32]),
    LargeView(&'a [i64], &'a [i64]),
}

impl Spans<'_> {
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Range<usize> {
        let sized = |start: usize, size: usize| start..start + size;
        match self {
            Self::Small(ends) => ends[index] as usize..ends[index + 1] as usize,
            Self::Large(ends) => ends[index] as usize..ends[index + 1] as usize,
            Self::Fixed(size) => sized(index * size, *size),
            Self::View(starts, sizes) => sized(starts[index] as usize, sizes[index] as usize),
            Self::LargeView(starts, sizes) => sized(starts[index] as usize, sizes[index] as usize),
        }
    }

    /// The items that `rows` may reach, of `items` in all.
    fn items(&self, rows: &Range<usize>, items: usize) -> Range<usize> {
        match self {
            Self::Small(ends) => ends[rows.start] as usize..ends[rows.end] as usize,
            Self::Large(ends) => ends[rows.start] as usize..ends[rows.end] as usize,
            Self::Fixed(size) => rows.start * size..rows.end * size,
            Self::View(..) | Self::LargeView(..) => 0..items,
        }
    }
}

/// A run-end encoded array, by the type of its run ends.
pub(crate) enum Runs<'a> {
    I16(&'a RunArray<Int16Type>),
    I32(&'a RunArray<Int32Type>),
    I64(&'a RunArray<Int64Type>),
}

impl Runs<'_> {
    #[inline]
    pub(crate) fn get(&self, index: usize) -> usize {
        match self {
            Self::I16(array) => array.get_physical_index(index),
            Self::I32(array) => array.get_physical_index(index),
            Self::I64(array) => array.get_physical_index(index),
        }
    }
}

/// What all cells of a piece share.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) dialect: Dialect,
    pub(crate) numbers: NumberStyle,
}

impl<'a> Cell<'a> {
    /// Prepares `rows` of `array`.
    ///
    /// # Errors
    /// A type that has no JSON text; the schema check refuses those before.
    pub(crate) fn new(array: &'a dyn Array, rows: Range<usize>, style: Style) -> Result<Self, ArrowError> {
        let data_type = array.data_type();
        let body = match scalar(array, &rows) {
            Some(body) => body,
            None => nested(array, rows, style)?,
        };
        let wide = match data_type {
            DataType::Int64 | DataType::UInt64 => true,
            other => other.is_decimal(),
        };
        let quoted = matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
            || data_type.is_temporal()
            || matches!(body, Body::Binary(_))
            || (wide && style.numbers == NumberStyle::String);
        Ok(Self { nulls: array.nulls().filter(|nulls| nulls.null_count() > 0), quoted, body })
    }
}

fn scalar<'a>(array: &'a dyn Array, rows: &Range<usize>) -> Option<Body<'a>> {
    use DataType::*;
    let text = |blobs: Blobs<'a>| {
        let clean = blobs.clean(rows);
        Body::Text(blobs, clean)
    };
    Some(match array.data_type() {
        Null => Body::Null,
        Boolean => Body::Bool(array.as_boolean().values()),
        Int8 => Body::I8(array.as_primitive::<Int8Type>().values()),
        Int16 => Body::I16(array.as_primitive::<Int16Type>().values()),
        Int32 => Body::I32(array.as_primitive::<Int32Type>().values()),
        Int64 => Body::I64(array.as_primitive::<Int64Type>().values()),
        UInt8 => Body::U8(array.as_primitive::<UInt8Type>().values()),
        UInt16 => Body::U16(array.as_primitive::<UInt16Type>().values()),
        UInt32 => Body::U32(array.as_primitive::<UInt32Type>().values()),
        UInt64 => Body::U64(array.as_primitive::<UInt64Type>().values()),
        Float16 => Body::F16(array.as_primitive::<Float16Type>().values()),
        Float32 => Body::F32(array.as_primitive::<Float32Type>().values()),
        Float64 => Body::F64(array.as_primitive::<Float64Type>().values()),
        Decimal32(_, s) => Body::Decimal32(array.as_primitive::<Decimal32Type>().values(), *s),
        Decimal64(_, s) => Body::Decimal64(array.as_primitive::<Decimal64Type>().values(), *s),
        Decimal128(_, s) => Body::Decimal128(array.as_primitive::<Decimal128Type>().values(), *s),
        Decimal256(_, s) => Body::Decimal256(array.as_primitive::<Decimal256Type>().values(), *s),
        Utf8 => {
            let array = array.as_string::<i32>();
            text(Blobs::Small(array.value_offsets(), array.value_data()))
        }
        LargeUtf8 => {
            let array = array.as_string::<i64>();
            text(Blobs::Large(array.value_offsets(), array.value_data()))
        }
        Utf8View => text(Blobs::TextView(array.as_string_view())),
        Binary => {
            let array = array.as_binary::<i32>();
            Body::Binary(Blobs::Small(array.value_offsets(), array.value_data()))
        }
        LargeBinary => {
            let array = array.as_binary::<i64>();
            Body::Binary(Blobs::Large(array.value_offsets(), array.value_data()))
        }
        BinaryView => Body::Binary(Blobs::View(array.as_binary_view())),
        FixedSizeBinary(_) => Body::Binary(Blobs::Fixed(array.as_fixed_size_binary())),
        _ => return temporal(array),
    })
}

fn temporal(array: &dyn Array) -> Option<Body<'_>> {
    use DataType::*;
    Some(match array.data_type() {
        Date32 => Body::Date32(array.as_primitive::<Date32Type>().values()),
        Date64 => Body::Date64(array.as_primitive::<Date64Type>().values()),
        Time32(unit) => Body::Time32(time32(array, *unit)?, *unit),
        Time64(unit) => Body::Time64(time64(array, *unit)?, *unit),
        Timestamp(unit, zone) => {
            let zone = Zone::parse(zone.as_deref())?;
            Body::Timestamp(timestamps(array, *unit), *unit, zone)
        }
        Duration(unit) => Body::Duration(durations(array, *unit), *unit),
        Interval(IntervalUnit::YearMonth) => Body::YearMonth(array.as_primitive::<IntervalYearMonthType>().values()),
        Interval(IntervalUnit::DayTime) => Body::DayTime(array.as_primitive::<IntervalDayTimeType>().values()),
        Interval(IntervalUnit::MonthDayNano) => {
            Body::MonthDayNano(array.as_primitive::<IntervalMonthDayNanoType>().values())
        }
        _ => return None,
    })
}

fn time32(array: &dyn Array, unit: TimeUnit) -> Option<&[i32]> {
    match unit {
        TimeUnit::Second => Some(array.as_primitive::<Time32SecondType>().values()),
        TimeUnit::Millisecond => Some(array.as_primitive::<Time32MillisecondType>().values()),
        TimeUnit::Microsecond | TimeUnit::Nanosecond => None,
    }
}

fn time64(array: &dyn Array, unit: TimeUnit) -> Option<&[i64]> {
    match unit {
        TimeUnit::Microsecond => Some(array.as_primitive::<Time64MicrosecondType>().values()),
        TimeUnit::Nanosecond => Some(array.as_primitive::<Time64NanosecondType>().values()),
        TimeUnit::Second | TimeUnit::Millisecond => None,
    }
}

fn timestamps(array: &dyn Array, unit: TimeUnit) -> &[i64] {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
    }
}

fn durations(array: &dyn Array, unit: TimeUnit) -> &[i64] {
    match unit {
        TimeUnit::Second => array.as_primitive::<DurationSecondType>().values(),
        TimeUnit::Millisecond => array.as_primitive::<DurationMillisecondType>().values(),
        TimeUnit::Microsecond => array.as_primitive::<DurationMicrosecondType>().values(),
        TimeUnit::Nanosecond => array.as_primitive::<DurationNanosecondType>().values(),
    }
}

fn nested<'a>(array: &'a dyn Array, rows: Range<usize>, style: Style) -> Result<Body<'a>, ArrowError> {
    // CSV quotes the JSON text of nested values as a whole: inside, all is JSON.
    let inner = Style { dialect: Dialect::Json, ..style };
    let list = |spans: Spans<'a>, values: &'a dyn Array| {
        let items = spans.items(&rows, values.len());
        Ok(Body::List(spans, Box::new(Cell::new(values, items, inner)?)))
    };
    match array.data_type() {
        DataType::List(_) => {
            let array = array.as_list::<i32>();
            list(Spans::Small(array.value_offsets()), array.values())
        }
        DataType::LargeList(_) => {
            let array = array.as_list::<i64>();
            list(Spans::Large(array.value_offsets()), array.values())
        }
        DataType::FixedSizeList(_, size) => {
            let size = usize::try_from(*size).unwrap_or_default();
            list(Spans::Fixed(size), array.as_fixed_size_list().values())
        }
        DataType::ListView(_) => {
            let array = array.as_list_view::<i32>();
            list(Spans::View(array.value_offsets(), array.value_sizes()), array.values())
        }
        DataType::LargeListView(_) => {
            let array = array.as_list_view::<i64>();
            list(Spans::LargeView(array.value_offsets(), array.value_sizes()), array.values())
        }
        DataType::Map(_, _) => {
            let array = array.as_map();
            let spans = Spans::Small(array.value_offsets());
            let items = spans.items(&rows, array.entries().len());
            let keys = Cell::new(array.keys(), items.clone(), inner)?;
            let values = Cell::new(array.values(), items, inner)?;
            let object = is_text(array.keys().data_type());
            Ok(Body::Map(spans, Box::new(keys), Box::new(values), object))
        }
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let cells = array.columns().iter().zip(fields).enumerate();
            let prepare = cells.map(|(at, (column, field))| {
                let cell = Cell::new(column, rows.clone(), inner)?;
                Ok((json_key(field.name(), at > 0), cell))
            });
            Ok(Body::Struct(prepare.collect::<Result<_, ArrowError>>()?))
        }
        DataType::Dictionary(_, _) => dictionary(array, style),
        DataType::RunEndEncoded(ends, _) => runs(array, ends.data_type(), style),
        other => Err(ArrowError::NotYetImplemented(format!("no text for {other}"))),
    }
}

fn dictionary(array: &dyn Array, style: Style) -> Result<Body<'_>, ArrowError> {
    let dictionary = array.as_any_dictionary();
    let values = dictionary.values();
    if values.is_empty() {
        return Ok(Body::Null);
    }
    let keys = dictionary.normalized_keys();
    let cell = Cell::new(values, 0..values.len(), style)?;
    if values.len() > array.len() {
        return Ok(Body::Dictionary(keys, Box::new(cell)));
    }
    let mut sink = Sink::default();
    let mut ends = vec![0];
    for index in 0..values.len() {
        cell.write(index, style.dialect, &mut sink);
        ends.push(sink.buf.len());
    }
    // A value without text may never be referred to: leave the judgement to the rows.
    if sink.fault.is_some() {
        return Ok(Body::Dictionary(keys, Box::new(cell)));
    }
    // Texts are copied in fixed widths: there must be something behind the last one.
    sink.buf.resize(sink.buf.len() + SLACK, 0);
    Ok(Body::Encoded(keys, ends, sink.buf))
}

fn runs<'a>(array: &'a dyn Array, ends: &DataType, style: Style) -> Result<Body<'a>, ArrowError> {
    let (runs, values) = match ends {
        DataType::Int16 => {
            let array = array.as_run::<Int16Type>();
            (Runs::I16(array), array.values())
        }
        DataType::Int32 => {
            let array = array.as_run::<Int32Type>();
            (Runs::I32(array), array.values())
        }
        _ => {
            let array = array.as_run::<Int64Type>();
            (Runs::I64(array), array.values())
        }
    };
    let cell = Cell::new(values, 0..values.len(), style)?;
    Ok(Body::Runs(runs, Box::new(cell)))
}

/// Whether values of a type are JSON strings that can be an object's keys.
fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => other.is_string(),
    }
}

/// `"name":`, with a comma before it for all but the first of an object.
pub(crate) fn json_key(name: &str, comma: bool) -> Vec<u8> {
    let mut sink = Sink::default();
    if comma {
        sink.byte(b',');
    }
    sink.json_string(name.as_bytes(), false);
    sink.byte(b':');
    sink.buf
}
