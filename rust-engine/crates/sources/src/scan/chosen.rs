//! Which rows of a batch meet a condition.

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::buffer::{BooleanBuffer, MutableBuffer};
use arrow::compute::{and, prep_null_mask_filter};
use arrow::util::bit_util;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::ColumnarValue;

/// Some rows of a batch. A mask has no nulls, and chooses neither all nor none.
pub(super) enum Chosen {
    All,
    None,
    Some(BooleanArray),
}

impl Chosen {
    /// A condition's value as a choice among `rows` rows: null is not true.
    pub(super) fn of_value(value: ColumnarValue, rows: usize) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))) => Self::All,
            ColumnarValue::Scalar(ScalarValue::Boolean(_)) => Self::None,
            ColumnarValue::Array(array) if array.len() == rows => match array.as_boolean_opt() {
                Some(mask) if mask.null_count() > 0 => Self::of(prep_null_mask_filter(mask)),
                Some(mask) => Self::of(mask.clone()),
                None => return internal_err!("a condition is {}", array.data_type()),
            },
            _ => return internal_err!("a condition has no value for each row"),
        })
    }

    fn of(mask: BooleanArray) -> Self {
        match mask.true_count() {
            0 => Self::None,
            all if all == mask.len() => Self::All,
            _ => Self::Some(mask),
        }
    }

    /// What is a choice among values, as one among the rows that have them by their codes.
    pub(super) fn of_codes(self, codes: &[u8]) -> Self {
        let Self::Some(values) = self else { return self };
        let mut chosen = [false; 1 << u8::BITS];
        chosen.iter_mut().zip(values.values()).for_each(|(chosen, value)| *chosen = value);
        Self::of(BooleanArray::new(
            BooleanBuffer::collect_bool(codes.len(), |row| chosen[usize::from(codes[row])]),
            None,
        ))
    }

    /// How many of `rows` rows it is.
    pub(super) fn count(&self, rows: usize) -> usize {
        match self {
            Self::All => rows,
            Self::None => 0,
            Self::Some(mask) => mask.true_count(),
        }
    }

    /// The rows that both choose.
    pub(super) fn and(self, other: Self) -> Result<Self> {
        Ok(match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, same) | (same, Self::All) => same,
            (Self::Some(left), Self::Some(right)) => Self::of(and(&left, &right)?),
        })
    }

    /// What is a choice among the rows that `mask` chooses, as one among all rows.
    pub(super) fn within(self, mask: BooleanArray) -> Self {
        let few = match self {
            Self::None => return Self::None,
            Self::All => return Self::Some(mask),
            Self::Some(few) => few,
        };
        let mut bits = MutableBuffer::from_len_zeroed(mask.len().div_ceil(8));
        for (at, left) in mask.values().set_indices().zip(few.values()) {
            if left {
                bit_util::set_bit(&mut bits, at);
            }
        }
        Self::Some(BooleanArray::new(BooleanBuffer::new(bits.into(), 0, mask.len()), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(bits: &str) -> BooleanArray {
        bits.chars().map(|bit| Some(bit == '1')).collect()
    }

    #[test]
    fn a_choice_among_few_rows_is_one_among_all() {
        let Chosen::Some(all) = Chosen::Some(mask("101")).within(mask("0100100001")) else { panic!("not some") };
        assert_eq!(all, mask("0100000001"));
        let Chosen::Some(all) = Chosen::Some(mask("01")).within(mask("110011").slice(1, 4)) else { panic!("not some") };
        assert_eq!(all, mask("0001"));
        assert!(matches!(Chosen::None.within(mask("01")), Chosen::None));
    }
}
