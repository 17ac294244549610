//! A column's different values, where they are few: what is dear to find out is found out once for each of them.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::DataType;
use datafusion::common::Result;

/// How many values are few. A code for each fits a byte.
const FEW: usize = 256;
/// Places for them, so many that most have one of their own.
const PLACES: usize = 8 * FEW;
/// Fewer rows than this are looked at one by one.
const LEAST: usize = 4 * FEW;

/// The different values of a column of views, and which of them each row has.
///
/// Views are told apart, not what they show: equal text that lies at two places is two values, which costs time alone.
pub(super) struct Distinct {
    /// For each row, which of the values it has.
    pub(super) codes: Vec<u8>,
    pub(super) values: ArrayRef,
}

impl Distinct {
    /// Those of text or bytes kept as views. None where the values are many, the rows few, or the type is another.
    pub(super) fn of(column: &ArrayRef) -> Result<Option<Self>> {
        let views: &[u128] = match column.data_type() {
            _ if column.len() < LEAST => return Ok(None),
            DataType::Utf8View => column.as_string_view().views(),
            DataType::BinaryView => column.as_binary_view().views(),
            _ => return Ok(None),
        };
        let Some((codes, firsts)) = encode(views, column.nulls()) else { return Ok(None) };
        Ok(Some(Self { codes, values: take(column, &UInt32Array::from(firsts), None)? }))
    }
}

/// Each row's code, and for each code the first row that has it. A null's is its own.
fn encode(views: &[u128], nulls: Option<&NullBuffer>) -> Option<(Vec<u8>, Vec<u32>)> {
    let mut table = Table { views: [NO_VIEW; PLACES], codes: [0; PLACES], steps: views.len(), firsts: Vec::new() };
    let mut null = None;
    let mut codes = vec![0; views.len()];
    for (row, (view, code)) in views.iter().zip(&mut codes).enumerate() {
        let at = place(*view);
        *code = if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            match null {
                Some(code) => code,
                None => *null.insert(table.add(row)?),
            }
        } else if table.views[at] == *view {
            table.codes[at]
        } else {
            table.find(*view, row)?
        };
    }
    Some((codes, table.firsts))
}

/// No value is as long as this says.
const NO_VIEW: u128 = u128::MAX;

/// Values by their places, or beyond those that others have taken.
struct Table {
    views: [u128; PLACES],
    codes: [u8; PLACES],
    /// How many more may be taken beyond a value's place: values that were chosen to meet at one must not cost more than
    /// looking at each row.
    steps: usize,
    /// By code, the row that brought it.
    firsts: Vec<u32>,
}

impl Table {
    /// The code of a value that is not at its place, a new one where it is nowhere.
    #[inline(never)]
    fn find(&mut self, view: u128, row: usize) -> Option<u8> {
        let mut at = place(view);
        while self.views[at] != view {
            if self.views[at] == NO_VIEW {
                self.codes[at] = self.add(row)?;
                self.views[at] = view;
            } else {
                self.steps = self.steps.checked_sub(1)?;
                at = (at + 1) % PLACES;
            }
        }
        Some(self.codes[at])
    }

    fn add(&mut self, row: usize) -> Option<u8> {
        let code = u8::try_from(self.firsts.len()).ok()?;
        self.firsts.push(u32::try_from(row).ok()?);
        Some(code)
    }
}

/// Fibonacci hashing: the upper bits of a product with 2^64 divided by the golden ratio.
fn place(view: u128) -> usize {
    let folded = view as u64 ^ (view >> 64) as u64;
    (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - PLACES.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{StringArray, StringViewArray};

    use super::*;

    fn of(values: &StringViewArray) -> Option<Distinct> {
        Distinct::of(&(Arc::new(values.clone()) as ArrayRef)).expect("no error")
    }

    /// Text of `different` values, some of it longer than a view has room for, and nulls.
    fn text(different: usize) -> StringViewArray {
        let value = |row: usize| format!("{}{}", row % different, "x".repeat(row % different % 20));
        (0..8 * LEAST).map(|row| (row % 11 != 0).then(|| value(row))).collect()
    }

    #[test]
    fn each_row_has_its_value() {
        // Long text in one place for each value, as a dictionary leaves it.
        let few = text(100);
        let rows: UInt32Array = (0..few.len()).map(|row| Some((row * 7 % 200) as u32)).collect();
        let column = take(&few, &rows, None).expect("rows");
        let distinct = Distinct::of(&column).expect("no error").expect("few values");
        assert!(distinct.values.len() <= 256 && distinct.values.null_count() == 1);
        let codes: UInt32Array = distinct.codes.iter().map(|code| Some(u32::from(*code))).collect();
        assert_eq!(&take(&distinct.values, &codes, None).expect("values"), &column);
    }

    #[test]
    fn many_values_few_rows_and_other_types_have_none() {
        let short = |different: usize| -> StringViewArray {
            (0..8 * LEAST).map(|row| Some((row % different).to_string())).collect()
        };
        assert!(of(&short(FEW)).is_some_and(|distinct| distinct.values.len() == FEW));
        assert!(of(&short(FEW + 1)).is_none());
        assert!(of(&short(2).slice(0, LEAST - 1)).is_none());
        let other: ArrayRef = Arc::new(StringArray::from(vec!["same"; 8 * LEAST]));
        assert!(Distinct::of(&other).expect("no error").is_none());
    }

    /// Values that all belong at one place are given up before they cost more than a step a row.
    #[test]
    fn values_that_meet_at_one_place() {
        let meeting: Vec<u128> = (0..u128::MAX).filter(|view| place(*view) == 1).take(FEW).collect();
        let views: Vec<u128> = (0..8 * LEAST).map(|row| meeting[row * 7 % FEW]).collect();
        assert!(encode(&views, None).is_none());
    }
}
