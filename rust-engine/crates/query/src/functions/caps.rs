//! How much a call would allocate, measured before it does.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// The most that one call on one batch may make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Bytes of text.
    bytes: u64,
    /// Elements of lists.
    elements: u64,
}

impl Most {
    /// A share of a query's memory, and at most what nobody misses.
    pub(crate) fn of(query_memory: usize) -> Self {
        const MAX_BYTES: u64 = 64 * 1024 * 1024;
        const MAX_ELEMENTS: u64 = 10_000_000;
        const SHARE: u64 = 64;
        let share = query_memory as u64 / SHARE;
        Self { bytes: MAX_BYTES.min(share), elements: MAX_ELEMENTS.min(share / size_of::<u64>() as u64) }
    }
}

/// How a function's output is measured from its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cap {
    /// Bytes of the first argument times the second.
    Repeat,
    /// The second argument, in characters of at most 4 bytes.
    Pad,
    /// Bytes of the first argument times those of the last text argument.
    Replace,
    /// (stop - start) / step elements.
    Series,
    /// The second argument, in elements.
    Elements,
    /// The first argument, as often as the second says.
    Copies,
    /// Bytes of all arguments together.
    Concat,
    /// Bytes of the first argument, a list, and for each element those of the second and the third.
    Join,
}

/// The cap of a function, by the name that it has itself.
pub(crate) fn of(name: &str) -> Option<Cap> {
    CAPS.iter().find_map(|(capped, cap)| (*capped == name).then_some(*cap))
}

/// The functions that allocate by a number in their arguments, or multiply their input.
const CAPS: &[(&str, Cap)] = &[
    ("repeat", Cap::Repeat),
    ("lpad", Cap::Pad),
    ("rpad", Cap::Pad),
    ("replace", Cap::Replace),
    ("regexp_replace", Cap::Replace),
    ("concat", Cap::Concat),
    ("concat_ws", Cap::Concat),
    ("||", Cap::Concat),
    ("overlay", Cap::Concat),
    ("encode", Cap::Concat),
    ("array_concat", Cap::Concat),
    ("array_to_string", Cap::Join),
    ("range", Cap::Series),
    ("generate_series", Cap::Series),
    ("array_repeat", Cap::Copies),
    ("array_resize", Cap::Elements),
];

impl Cap {
    /// What the call would make, the cap and the unit, if it is too much.
    pub(crate) fn exceeded(self, args: &ScalarFunctionArgs, most: Most) -> Result<Option<(u64, u64, &'static str)>> {
        let (wanted, cap, unit) = match self {
            Cap::Repeat => (product(args, 0, 1)?, most.bytes, "bytes"),
            Cap::Pad => (total(args, 1)?.saturating_mul(4), most.bytes * 4, "bytes"),
            Cap::Replace => (replaced(args)?, most.bytes * 4, "bytes"),
            Cap::Concat => (joined(args)?, most.bytes * 4, "bytes"),
            Cap::Join => (list_joined(args)?, most.bytes * 4, "bytes"),
            Cap::Series => (series(args)?, most.elements, "elements"),
            Cap::Elements => (total(args, 1)?, most.elements, "elements"),
            Cap::Copies => match total(args, 1)? {
                elements if elements > most.elements => (elements, most.elements, "elements"),
                _ => (product(args, 0, 1)?, most.bytes, "bytes"),
            },
        };
        Ok((wanted > cap).then_some((wanted, cap, unit)))
    }
}

/// An argument as an array; a constant has one row, and then every row of the batch uses it.
fn argument(args: &ScalarFunctionArgs, at: usize) -> Result<Option<ArrayRef>> {
    match args.args.get(at) {
        None => Ok(None),
        Some(ColumnarValue::Array(array)) => Ok(Some(array.clone())),
        Some(ColumnarValue::Scalar(scalar)) => Ok(Some(scalar.to_array()?)),
    }
}

fn row(index: usize, array: &dyn Array) -> usize {
    if array.len() == 1 { 0 } else { index }
}

fn rows(args: &ScalarFunctionArgs) -> usize {
    let all_constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
    if all_constant { 1 } else { args.number_rows }
}

fn integers(args: &ScalarFunctionArgs, at: usize) -> Result<Option<Int64Array>> {
    let Some(array) = argument(args, at)? else { return Ok(None) };
    if !array.data_type().is_integer() {
        return Ok(None);
    }
    Ok(Some(cast(&array, &DataType::Int64)?.as_primitive().clone()))
}

fn positive(values: &Int64Array, index: usize) -> u64 {
    let at = row(index, values);
    if values.is_null(at) { 0 } else { u64::try_from(values.value(at)).unwrap_or(0) }
}

/// The lengths in bytes of values of text or bytes, about those of lists. Nulls and values of other types count as nothing.
struct Lengths<'a> {
    rows: usize,
    nulls: Option<&'a NullBuffer>,
    kept: Kept<'a>,
}

/// Where the lengths are.
#[derive(Clone, Copy)]
enum Kept<'a> {
    Offsets(&'a [i32]),
    LargeOffsets(&'a [i64]),
    Views(&'a [u128]),
    /// About the same for each.
    Each(u64),
}

impl<'a> Lengths<'a> {
    fn of(array: &'a dyn Array) -> Self {
        let kept = match array.data_type() {
            DataType::Utf8 => Kept::Offsets(array.as_string::<i32>().value_offsets()),
            DataType::LargeUtf8 => Kept::LargeOffsets(array.as_string::<i64>().value_offsets()),
            DataType::Utf8View => Kept::Views(array.as_string_view().views()),
            DataType::Binary => Kept::Offsets(array.as_binary::<i32>().value_offsets()),
            DataType::LargeBinary => Kept::LargeOffsets(array.as_binary::<i64>().value_offsets()),
            DataType::BinaryView => Kept::Views(array.as_binary_view().views()),
            DataType::List(_) | DataType::LargeList(_) => {
                let bytes = array.to_data().get_slice_memory_size().unwrap_or_default();
                Kept::Each((bytes / array.len().max(1)) as u64)
            }
            _ => Kept::Each(0),
        };
        Self { rows: array.len(), nulls: array.nulls(), kept }
    }

    /// That of a row; a constant's, of any row.
    fn at(&self, index: usize) -> u64 {
        let at = if self.rows == 1 { 0 } else { index };
        if at >= self.rows || self.nulls.is_some_and(|nulls| nulls.is_null(at)) {
            return 0;
        }
        match self.kept {
            Kept::Offsets(offsets) => u64::from(offsets[at].abs_diff(offsets[at + 1])),
            Kept::LargeOffsets(offsets) => offsets[at].abs_diff(offsets[at + 1]),
            Kept::Views(views) => u64::from(views[at] as u32),
            Kept::Each(length) => length,
        }
    }

    /// Those of all rows together.
    fn total(&self, rows: usize) -> u64 {
        match (self.kept, self.nulls) {
            _ if self.rows == 1 => self.at(0).saturating_mul(rows as u64),
            (Kept::Views(views), None) => views.iter().map(|view| u64::from(*view as u32)).sum(),
            _ => (0..rows).map(|index| self.at(index)).sum(),
        }
    }
}

fn product(args: &ScalarFunctionArgs, text: usize, times: usize) -> Result<u64> {
    let (Some(text), Some(times)) = (argument(args, text)?, integers(args, times)?) else { return Ok(0) };
    let text = Lengths::of(&text);
    Ok((0..rows(args)).fold(0, |sum: u64, i| sum.saturating_add(text.at(i).saturating_mul(positive(&times, i)))))
}

fn total(args: &ScalarFunctionArgs, at: usize) -> Result<u64> {
    let Some(values) = integers(args, at)? else { return Ok(0) };
    Ok((0..rows(args)).fold(0, |sum: u64, i| sum.saturating_add(positive(&values, i))))
}

/// Every byte of the text may be replaced, and once more at its end (an empty pattern matches there).
fn replaced(args: &ScalarFunctionArgs) -> Result<u64> {
    let (Some(text), Some(from), Some(to)) = (argument(args, 0)?, argument(args, 1)?, argument(args, 2)?) else {
        return Ok(0);
    };
    let (text, from, to) = (Lengths::of(&text), Lengths::of(&from), Lengths::of(&to));
    Ok((0..rows(args)).fold(0, |sum: u64, i| {
        let places = text.at(i) / from.at(i).clamp(1, 64) + 1;
        sum.saturating_add(places.saturating_mul(to.at(i))).saturating_add(text.at(i))
    }))
}

fn joined(args: &ScalarFunctionArgs) -> Result<u64> {
    let mut sum = 0u64;
    for at in 0..args.args.len() {
        let Some(text) = argument(args, at)? else { continue };
        sum = sum.saturating_add(Lengths::of(&text).total(rows(args)));
    }
    Ok(sum)
}

/// After each element may follow the text between them, and a null may be replaced by the last argument.
fn list_joined(args: &ScalarFunctionArgs) -> Result<u64> {
    let (Some(list), Some(between)) = (argument(args, 0)?, argument(args, 1)?) else { return Ok(0) };
    let null = argument(args, 2)?;
    let (lists, between, null) = (Lengths::of(&list), Lengths::of(&between), null.as_deref().map(Lengths::of));
    Ok((0..rows(args)).fold(0, |sum: u64, i| {
        let added = between.at(i) + null.as_ref().map_or(0, |text| text.at(i));
        sum.saturating_add(elements(&list, row(i, &list)).saturating_mul(added)).saturating_add(lists.at(i))
    }))
}

/// How many elements a list has, those of the lists in it counted in its stead.
fn elements(array: &dyn Array, index: usize) -> u64 {
    if array.is_null(index) {
        return 0;
    }
    let values = match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(index),
        DataType::LargeList(_) => array.as_list::<i64>().value(index),
        DataType::FixedSizeList(..) => array.as_fixed_size_list().value(index),
        _ => return 1,
    };
    match values.data_type() {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            (0..values.len()).map(|i| elements(&values, i)).sum()
        }
        _ => values.len() as u64,
    }
}

/// Whole numbers exactly; dates and timestamps by their distance in days and in steps of at least a second.
fn series(args: &ScalarFunctionArgs) -> Result<u64> {
    if let (Some(first), second, third) = (integers(args, 0)?, integers(args, 1)?, integers(args, 2)?) {
        return Ok((0..rows(args)).fold(0, |sum: u64, i| {
            let at = |v: &Int64Array| {
                let r = row(i, v);
                if v.is_null(r) { 0 } else { v.value(r) }
            };
            let (start, stop) = match &second {
                Some(stop) => (at(&first), at(stop)),
                None => (0, at(&first)),
            };
            let step = third.as_ref().map_or(1, at).unsigned_abs().max(1);
            sum.saturating_add(start.abs_diff(stop) / step)
        }));
    }
    temporal_series(args)
}

fn temporal_series(args: &ScalarFunctionArgs) -> Result<u64> {
    let (Some(start), Some(stop), Some(step)) = (argument(args, 0)?, argument(args, 1)?, argument(args, 2)?) else {
        return Ok(0);
    };
    let nanos = |array: &ArrayRef| -> Result<Int64Array> {
        let micros = cast(array, &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None))?;
        Ok(cast(&micros, &DataType::Int64)?.as_primitive().clone())
    };
    let (start, stop) = (nanos(&start)?, nanos(&stop)?);
    let DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano) = step.data_type() else { return Ok(0) };
    let steps = step.as_primitive::<arrow::datatypes::IntervalMonthDayNanoType>();
    Ok((0..rows(args)).fold(0, |sum: u64, i| {
        let (a, b, s) = (row(i, &start), row(i, &stop), row(i, steps));
        if start.is_null(a) || stop.is_null(b) || steps.is_null(s) {
            return sum;
        }
        let step = steps.value(s);
        let micros = (i128::from(step.months) * 28 + i128::from(step.days)) * 86_400_000_000
            + i128::from(step.nanoseconds) / 1_000;
        let count = u128::from(start.value(a).abs_diff(stop.value(b))) / micros.unsigned_abs().max(1);
        sum.saturating_add(u64::try_from(count).unwrap_or(u64::MAX))
    }))
}
