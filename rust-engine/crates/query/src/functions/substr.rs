//! `substr` of a column of text in views, from and for constant numbers of characters: DataFusion makes a string of each value
//! first, and counts its characters. What is not done here is left to it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ByteView, MAX_INLINE_VIEW_LEN, StringViewArray, make_view};
use arrow::buffer::ScalarBuffer;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// The first character, counted from 0, and how many there are to be.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    count: usize,
}

/// The function's values, where they can be had here.
pub(super) fn values(args: &ScalarFunctionArgs) -> Result<Option<ColumnarValue>> {
    let number = |value: &ColumnarValue| match value {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(number))) => usize::try_from(*number).ok(),
        _ => None,
    };
    let (array, start, count) = match args.args.as_slice() {
        [ColumnarValue::Array(array), start] => (array, number(start), Some(usize::MAX)),
        [ColumnarValue::Array(array), start, count] => (array, number(start), number(count)),
        _ => return Ok(None),
    };
    let (Some(text), Some(start), Some(count)) = (array.as_string_view_opt(), start, count) else { return Ok(None) };
    // Characters count from 1; what begins before them is shorter by as much.
    let Some(start) = start.checked_sub(1) else { return Ok(None) };
    Ok(Some(ColumnarValue::Array(Part { start, count }.of(text)?)))
}

impl Part {
    fn of(self, text: &StringViewArray) -> Result<ArrayRef> {
        let mut long = false;
        let views = text.views().iter().enumerate().map(|(row, view)| match *view as u32 {
            _ if text.is_null(row) => 0,
            len if len <= MAX_INLINE_VIEW_LEN => self.of_inline(*view, || text.value(row)),
            _ => {
                let value = text.value(row);
                let (from, to) = self.bytes(value);
                long |= to - from > MAX_INLINE_VIEW_LEN as usize;
                let source = ByteView::from(*view);
                // What begins within a value of at most 2^31 bytes begins there too.
                make_view(&value.as_bytes()[from..to], source.buffer_index, source.offset + from as u32)
            }
        });
        let views: ScalarBuffer<u128> = views.collect::<Vec<_>>().into();
        let buffers = if long { text.data_buffers().to_vec() } else { Vec::new() };
        Ok(Arc::new(StringViewArray::try_new(views, buffers, text.nulls().cloned())?))
    }

    /// That of a value that lies in its view, as its view.
    fn of_inline<'a>(self, view: u128, value: impl FnOnce() -> &'a str) -> u128 {
        const BEYOND_ASCII: u128 = u128::from_ne_bytes([0x80; 16]);
        let (len, text) = (view as u32 as usize, view >> u32::BITS);
        let (from, to) = if text & BEYOND_ASCII == 0 {
            (self.start.min(len), self.start.saturating_add(self.count).min(len))
        } else {
            self.bytes(value())
        };
        let kept = text >> (8 * from) & ((1 << (8 * (to - from))) - 1);
        kept << u32::BITS | (to - from) as u128
    }

    /// The bytes of it in a value: from, and up to.
    fn bytes(self, value: &str) -> (usize, usize) {
        let end = self.start.saturating_add(self.count);
        let looked_at = if self.count == usize::MAX { self.start } else { end };
        if value.as_bytes()[..looked_at.min(value.len())].is_ascii() {
            return (self.start.min(value.len()), end.min(value.len()));
        }
        let after = |text: &str, characters| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
        let from = after(value, self.start);
        (from, from + after(&value[from..], self.count))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::common::config::ConfigOptions;
    use datafusion::functions::unicode;
    use proptest::prelude::*;

    use super::*;

    /// Compares with DataFusion's own function, and says whether there were values here.
    fn compare(text: &ArrayRef, numbers: &[i64]) -> bool {
        let numbers = numbers.iter().map(|number| ColumnarValue::Scalar(ScalarValue::from(*number)));
        let args: Vec<ColumnarValue> = std::iter::once(ColumnarValue::Array(Arc::clone(text))).chain(numbers).collect();
        let args = ScalarFunctionArgs {
            arg_fields: args.iter().map(|arg| Arc::new(Field::new("argument", arg.data_type(), true))).collect(),
            args,
            number_rows: text.len(),
            return_field: Arc::new(Field::new("part", DataType::Utf8View, true)),
            config_options: Arc::new(ConfigOptions::default()),
        };
        let Some(ours) = values(&args).expect("values") else { return false };
        let theirs = unicode::substr().invoke_with_args(args).expect("values");
        let arrays = [ours, theirs].map(|values| values.into_array(text.len()).expect("an array"));
        assert_eq!(&arrays[0], &arrays[1]);
        true
    }

    proptest! {
        #[test]
        fn parts_are_datafusions(
            text in prop::collection::vec(prop::option::weighted(0.9, "[a-z0-9]{0,14}|[a-zä-ü☂𝄞]{0,30}"), 0..60),
            start in 1_i64..20,
            count in prop::option::of(0_i64..20),
            skipped in 0_usize..5,
        ) {
            let whole = StringViewArray::from(text);
            let text: ArrayRef = Arc::new(whole.slice(skipped.min(whole.len()), whole.len() - skipped.min(whole.len())));
            prop_assert!(compare(&text, &[Some(start), count].into_iter().flatten().collect::<Vec<_>>()));
        }
    }

    #[test]
    fn what_begins_before_the_text_is_left_to_datafusion() {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec!["Zürich", "a value that lies in no view"]));
        for (numbers, here) in [
            (&[0, 3][..], false),
            (&[-1], false),
            (&[1, i64::MAX], true),
            (&[i64::MAX, i64::MAX], true),
            (&[i64::MAX], true),
        ] {
            assert_eq!(compare(&text, numbers), here, "{numbers:?}");
        }
    }
}
