//! `sum` over integers and decimals that fails where DataFusion's would wrap around.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, PrimitiveArray, UInt64Array};
use arrow::datatypes::{
    ArrowNativeTypeOp, ArrowPrimitiveType, DataType, Decimal128Type, DecimalType, FieldRef, Int64Type, UInt64Type,
};
use arrow::error::ArrowError;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// DataFusion's `sum`, with totals of 64-bit integers and 128-bit decimals that can't wrap around.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct CheckedSum {
    inner: Sum,
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match checked(args.return_field.data_type(), args.is_distinct) {
            Some(total) => Ok(total),
            None => self.inner.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match checked(args.return_field.data_type(), args.is_distinct) {
            Some(total) => Ok(total),
            None => self.inner.create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match args.return_field.data_type() {
            DataType::Int64 => Ok(Box::new(Totals::new::<Int64Type>(&DataType::Int64))),
            DataType::UInt64 => Ok(Box::new(Totals::new::<UInt64Type>(&DataType::UInt64))),
            kind @ DataType::Decimal128(..) => Ok(Box::new(Totals::new::<Decimal128Type>(kind))),
            _ => self.inner.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// A total that is exact while it runs, for the types that have one.
fn checked(kind: &DataType, is_distinct: bool) -> Option<Box<dyn Accumulator>> {
    match (kind, is_distinct) {
        (DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..), true) => {
            Some(Box::new(DistinctTotal::new(kind)))
        }
        (DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..), false) => Some(Box::new(Total::new(kind))),
        _ => None,
    }
}

fn overflow(kind: &DataType) -> DataFusionError {
    let advice = match kind {
        DataType::Decimal128(..) => "`sum(CAST(x AS DOUBLE))` comes near",
        _ => "`sum(CAST(x AS DECIMAL(38, 0)))` has room",
    };
    let message = format!("a `sum` is beyond the range of {kind}; {advice}");
    DataFusionError::ArrowError(Box::new(ArrowError::ArithmeticOverflow(message)), None)
}

/// Calls `each` with every value of an array of `kind` that is not null. 64-bit integers and decimals of 128 bits all
/// fit in an `i128`.
fn try_each(kind: &DataType, values: &dyn Array, each: impl FnMut(i128) -> Result<()>) -> Result<()> {
    fn of<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, mut each: impl FnMut(i128) -> Result<()>) -> Result<()>
    where
        T::Native: Into<i128>,
    {
        if values.null_count() == 0 {
            return values.values().iter().try_for_each(|v| each((*v).into()));
        }
        values.iter().flatten().try_for_each(|v| each(v.into()))
    }
    match kind {
        DataType::UInt64 => of(values.as_primitive::<UInt64Type>(), each),
        DataType::Decimal128(..) => of(values.as_primitive::<Decimal128Type>(), each),
        _ => of(values.as_primitive::<Int64Type>(), each),
    }
}

/// The lower half of 64 bits.
const LOWER: i64 = 0xffff_ffff;

/// The exact sum of 64-bit values, by their upper and lower halves: unlike sums in 128 bits, these are made of several values
/// at once.
fn sum_of_halves<V: Copy>(values: &[V], halves: impl Fn(V) -> (i64, i64)) -> i128 {
    /// So many halves fit in 64 bits together.
    const MOST: usize = 1 << 30;
    let sum = |values: &[V]| {
        let (upper, lower) = values.iter().fold((0i64, 0i64), |sum, value| {
            let (upper, lower) = halves(*value);
            (sum.0 + upper, sum.1 + lower)
        });
        (i128::from(upper) << 32) + i128::from(lower)
    };
    values.chunks(MOST).map(sum).sum()
}

/// A total as a value of its type, if that has room for it.
fn in_range(sum: i128, kind: &DataType) -> Result<ScalarValue> {
    match kind {
        DataType::UInt64 => u64::try_from(sum).ok().map(ScalarValue::from),
        DataType::Decimal128(precision, scale) => Decimal128Type::is_valid_decimal_precision(sum, *precision)
            .then_some(ScalarValue::Decimal128(Some(sum), *precision, *scale)),
        _ => i64::try_from(sum).ok().map(ScalarValue::from),
    }
    .ok_or_else(|| overflow(kind))
}

/// One running total. Integers can't reach the ends of its `i128`; decimals fail there.
#[derive(Debug)]
struct Total {
    sum: i128,
    count: u64,
    kind: DataType,
}

impl Total {
    fn new(kind: &DataType) -> Self {
        Self { sum: 0, count: 0, kind: kind.clone() }
    }

    /// The sum of a batch's values.
    fn of(&self, values: &dyn Array) -> Result<i128> {
        if values.null_count() == 0 {
            match self.kind {
                DataType::Int64 => {
                    return Ok(sum_of_halves(values.as_primitive::<Int64Type>().values(), |v| (v >> 32, v & LOWER)));
                }
                DataType::UInt64 => {
                    let halves = |v: u64| ((v >> 32).cast_signed(), v.cast_signed() & LOWER);
                    return Ok(sum_of_halves(values.as_primitive::<UInt64Type>().values(), halves));
                }
                _ => {}
            }
        }
        let mut sum = 0i128;
        try_each(&self.kind, values, |value| {
            sum = sum.checked_add(value).ok_or_else(|| overflow(&self.kind))?;
            Ok(())
        })?;
        Ok(sum)
    }

    fn change(&mut self, by: Option<i128>) -> Result<()> {
        self.sum = by.ok_or_else(|| overflow(&self.kind))?;
        Ok(())
    }
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += (values[0].len() - values[0].null_count()) as u64;
        self.change(self.sum.checked_add(self.of(&values[0])?))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count = self.count.saturating_sub((values[0].len() - values[0].null_count()) as u64);
        self.change(self.sum.checked_sub(self.of(&values[0])?))
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 { ScalarValue::try_from(&self.kind) } else { in_range(self.sum, &self.kind) }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The total of what differs, and how often each value is in the frame of a window.
#[derive(Debug)]
struct DistinctTotal {
    counts: HashMap<i128, u64>,
    sum: i128,
    kind: DataType,
}

impl DistinctTotal {
    fn new(kind: &DataType) -> Self {
        Self { counts: HashMap::new(), sum: 0, kind: kind.clone() }
    }

    fn add(&mut self, values: &dyn Array) -> Result<()> {
        let Self { counts, sum, kind } = self;
        try_each(kind, values, |value| {
            let count = counts.entry(value).or_default();
            *count += 1;
            if *count == 1 {
                *sum = sum.checked_add(value).ok_or_else(|| overflow(kind))?;
            }
            Ok(())
        })
    }
}

impl Accumulator for DistinctTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0])
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Self { counts, sum, kind } = self;
        try_each(kind, &values[0], |value| {
            if let Entry::Occupied(mut count) = counts.entry(value) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                    *sum = sum.checked_sub(value).ok_or_else(|| overflow(kind))?;
                }
            }
            Ok(())
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.counts.is_empty() { ScalarValue::try_from(&self.kind) } else { in_range(self.sum, &self.kind) }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.capacity() * size_of::<(i128, u64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.counts.keys().copied();
        let values: ArrayRef = match &self.kind {
            DataType::UInt64 => Arc::new(values.map(|v| u64::try_from(v).ok()).collect::<UInt64Array>()),
            kind @ DataType::Decimal128(..) => {
                Arc::new(Decimal128Array::from_iter_values(values).with_data_type(kind.clone()))
            }
            _ => Arc::new(values.map(|v| i64::try_from(v).ok()).collect::<Int64Array>()),
        };
        Ok(vec![SingleRowListArrayBuilder::new(values).build_list_scalar()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.add(&values))
    }
}

/// A running total for each group; fails once any of them has passed the range.
struct Totals {
    inner: Box<dyn GroupsAccumulator>,
    overflowed: Arc<AtomicBool>,
    kind: DataType,
}

impl Totals {
    fn new<T: ArrowPrimitiveType + Send>(kind: &DataType) -> Self {
        let overflowed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&overflowed);
        let add = move |sum: &mut T::Native, value: T::Native| match sum.add_checked(value) {
            Ok(total) => *sum = total,
            Err(_) => seen.store(true, Ordering::Relaxed),
        };
        Self { inner: Box::new(PrimitiveGroupsAccumulator::<T, _>::new(kind, add)), overflowed, kind: kind.clone() }
    }

    fn checked<T>(&self, result: Result<T>) -> Result<T> {
        if self.overflowed.load(Ordering::Relaxed) { Err(overflow(&self.kind)) } else { result }
    }
}

impl GroupsAccumulator for Totals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let done = self.inner.update_batch(values, group_indices, opt_filter, total_num_groups);
        self.checked(done)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let totals = self.inner.evaluate(emit_to)?;
        if let DataType::Decimal128(precision, _) = self.kind {
            let decimals = totals.as_primitive::<Decimal128Type>();
            decimals.validate_decimal_precision(precision).map_err(|_| overflow(&self.kind))?;
        }
        Ok(totals)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let done = self.inner.merge_batch(values, group_indices, total_num_groups);
        self.checked(done)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, opt_filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_of_batches_are_exact(signed: Vec<i64>, unsigned: Vec<u64>, sparse: Vec<Option<i64>>) {
            let of = |kind, values: &dyn Array| Total::new(&kind).of(values).expect("in range");
            let sum: i128 = signed.iter().map(|v| i128::from(*v)).sum();
            prop_assert_eq!(of(DataType::Int64, &Int64Array::from(signed)), sum);
            let sum: i128 = unsigned.iter().map(|v| i128::from(*v)).sum();
            prop_assert_eq!(of(DataType::UInt64, &UInt64Array::from(unsigned)), sum);
            let sum: i128 = sparse.iter().flatten().map(|v| i128::from(*v)).sum();
            prop_assert_eq!(of(DataType::Int64, &Int64Array::from(sparse)), sum);
        }
    }
}
