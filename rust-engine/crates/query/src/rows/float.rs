//! Floats in filters and orders, where NaN and the zeros must be the same to all who look at them.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::utils::take_function_args;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast, lit,
};

/// Floats by an integer of the same order, NaN after all others and both zeros alike. Sorting, comparing and the
/// statistics of files disagree about those values; integers leave nothing to disagree about.
pub(super) fn rank(floats: Expr) -> Expr {
    ScalarUDF::new_from_impl(Rank { signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) })
        .call(vec![cast(floats, DataType::Float64)])
}

/// A comparison of floats with a number by IEEE 754: NaN is unequal to it, and neither below nor above, zeros are equal.
///
/// A bound that says no more than the ranks do stands beside them, for the statistics of files, which know no ranks. It
/// may be negated together with them: what the statistics leave out is then up to the ranks.
pub(super) fn compare(floats: Expr, operator: &str, number: f64) -> Expr {
    let (ranks, value) = (rank(floats.clone()), lit(rank_of(number)));
    let (low, high) = if number == 0.0 { (lit(-0.0), lit(0.0)) } else { (lit(number), lit(number)) };
    match operator {
        "=" => ranks.eq(value).and(floats.clone().gt_eq(low)).and(floats.lt_eq(high)),
        "!=" => ranks.not_eq(value),
        "<" => ranks.lt(value).and(floats.lt_eq(high)),
        "<=" => ranks.lt_eq(value).and(floats.lt_eq(high)),
        ">" => ranks.between(value + lit(1_i64), lit(i64::MAX - 1)).and(floats.gt_eq(low)),
        _ => ranks.between(value, lit(i64::MAX - 1)).and(floats.gt_eq(low)),
    }
}

/// The condition that floats are one of several numbers, none of which is NaN; bounds stand beside it as above.
pub(super) fn one_of(floats: &Expr, numbers: Vec<f64>) -> Expr {
    let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = (if low == 0.0 { -0.0 } else { low }, if high == 0.0 { 0.0 } else { high });
    let ranks = numbers.into_iter().map(|number| lit(rank_of(number))).collect();
    rank(floats.clone()).in_list(ranks, false).and(floats.clone().gt_eq(lit(low))).and(floats.clone().lt_eq(lit(high)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rank {
    signature: Signature,
}

impl ScalarUDFImpl for Rank {
    fn name(&self) -> &str {
        "rank_of_float"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let [floats] = take_function_args(self.name(), args.args)?;
        let floats = floats.into_array(args.number_rows)?;
        let ranks: Int64Array = floats.as_primitive::<Float64Type>().unary(rank_of);
        Ok(ColumnarValue::Array(Arc::new(ranks)))
    }
}

pub(super) fn rank_of(float: f64) -> i64 {
    if float.is_nan() {
        return i64::MAX;
    }
    // Adding zero makes both zeros the positive one. The bits of what is left rise with the value, or fall below zero.
    let bits = (float + 0.0).to_bits().cast_signed();
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

#[cfg(test)]
mod tests {
    use super::rank_of;

    #[test]
    fn ranks_rise_with_floats() {
        let rising =
            [f64::NEG_INFINITY, f64::MIN, -1.5, -1.0, -f64::MIN_POSITIVE, -5e-324, 0.0, 5e-324, 1.0, 1.5, f64::MAX];
        let ends = [f64::INFINITY, f64::NAN];
        for pair in rising.iter().chain(&ends).collect::<Vec<_>>().windows(2) {
            assert!(rank_of(*pair[0]) < rank_of(*pair[1]), "{pair:?}");
        }
        assert_eq!(rank_of(-0.0), rank_of(0.0));
        assert_eq!(rank_of(-f64::NAN), rank_of(f64::NAN));
    }
}
