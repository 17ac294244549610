//! `sum` over integers that fails where DataFusion's would wrap around.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{ArrowNativeTypeOp, ArrowPrimitiveType, DataType, FieldRef, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// DataFusion's `sum`, with totals of 64-bit integers that can't wrap around.
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
        match args.return_field.data_type() {
            kind @ (DataType::Int64 | DataType::UInt64) if !args.is_distinct => Ok(Box::new(Total::new(kind))),
            _ => self.inner.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match args.return_field.data_type() {
            kind @ (DataType::Int64 | DataType::UInt64) if !args.is_distinct => Ok(Box::new(Total::new(kind))),
            _ => self.inner.create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match args.return_field.data_type() {
            DataType::Int64 => Ok(Box::new(Totals::new::<Int64Type>(&DataType::Int64))),
            DataType::UInt64 => Ok(Box::new(Totals::new::<UInt64Type>(&DataType::UInt64))),
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

fn overflow(kind: &DataType) -> DataFusionError {
    let message = format!("a `sum` is beyond the range of {kind}; `sum(CAST(x AS DECIMAL(38, 0)))` has room");
    DataFusionError::ArrowError(Box::new(ArrowError::ArithmeticOverflow(message)), None)
}

/// One running total, exact while it runs.
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

    /// The sum and the count of a batch's values.
    fn of(&self, values: &[ArrayRef]) -> (i128, u64) {
        let values = values[0].as_ref();
        let sum = match self.kind {
            DataType::UInt64 => exact_sum(values.as_primitive::<UInt64Type>()),
            _ => exact_sum(values.as_primitive::<Int64Type>()),
        };
        (sum, (values.len() - values.null_count()) as u64)
    }
}

fn exact_sum<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>) -> i128
where
    T::Native: Into<i128>,
{
    if values.null_count() == 0 {
        return values.values().iter().map(|v| (*v).into()).sum();
    }
    values.iter().flatten().map(Into::into).sum()
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = self.of(values);
        self.sum += sum;
        self.count += count;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = self.of(values);
        self.sum -= sum;
        self.count = self.count.saturating_sub(count);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&self.kind);
        }
        match self.kind {
            DataType::UInt64 => u64::try_from(self.sum).ok().map(ScalarValue::from),
            _ => i64::try_from(self.sum).ok().map(ScalarValue::from),
        }
        .ok_or_else(|| overflow(&self.kind))
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
        self.inner.evaluate(emit_to)
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
