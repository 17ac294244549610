//! `||` over views of text or bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, MAX_INLINE_VIEW_LEN, make_view};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, StringViewType};
use arrow::error::ArrowError;
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;

/// Each value of the left followed by the right's; null where one is. Both have the same type, text or bytes.
pub(super) fn concat(left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    let one = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => Ok(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => scalar.to_array(),
    };
    let of_views = |value: &ColumnarValue| match value.data_type() {
        DataType::Utf8View | DataType::BinaryView => {
            !matches!(value, ColumnarValue::Scalar(scalar) if scalar.is_null())
        }
        _ => false,
    };
    if !of_views(left) || !of_views(right) {
        return Ok(concat_elements_dyn(&left.to_array(rows)?, &right.to_array(rows)?)?);
    }
    let (left, right) = (one(left)?, one(right)?);
    Ok(match (left.as_string_view_opt(), right.as_string_view_opt()) {
        (Some(left), Some(right)) => Arc::new(views::<StringViewType>(left, right, rows)?),
        _ => Arc::new(views::<BinaryViewType>(left.as_binary_view(), right.as_binary_view(), rows)?),
    })
}

/// What is short lies in its view, and is put together there, by shifts. A side of one row is the same for all.
fn views<T: ByteViewType>(
    left: &GenericByteViewArray<T>,
    right: &GenericByteViewArray<T>,
    rows: usize,
) -> Result<GenericByteViewArray<T>, ArrowError> {
    let nulls = NullBuffer::union(left.nulls(), right.nulls());
    let at = |array: &GenericByteViewArray<T>, row| if array.len() == 1 { 0 } else { row };
    let mut views = Vec::with_capacity(rows);
    let mut long = Vec::new();
    for row in 0..rows {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            views.push(0);
            continue;
        }
        let (l, r) = (at(left, row), at(right, row));
        let (before, after) = (left.views()[l], right.views()[r]);
        let len = u64::from(before as u32) + u64::from(after as u32);
        if len <= u64::from(MAX_INLINE_VIEW_LEN) {
            let bytes = (before >> 32) | (after >> 32).unbounded_shl(8 * (before as u32));
            views.push(bytes << 32 | u128::from(len));
            continue;
        }
        let start = long.len();
        long.extend_from_slice(left.value(l).as_ref());
        long.extend_from_slice(right.value(r).as_ref());
        let (offset, end) = (u32::try_from(start), i32::try_from(long.len()));
        let (Ok(offset), Ok(_)) = (offset, end) else { return Err(ArrowError::OffsetOverflowError(long.len())) };
        views.push(make_view(&long[start..], 0, offset));
    }
    let long: Vec<Buffer> = if long.is_empty() { Vec::new() } else { vec![Buffer::from_vec(long)] };
    GenericByteViewArray::try_new(ScalarBuffer::from(views), long, nulls)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryViewArray, StringViewArray};
    use datafusion::common::ScalarValue;
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::weighted(0.9, "[a-cä-ü☂]{0,5}|[a-z]{11,14}")
    }

    fn column(values: Vec<Option<String>>) -> [ColumnarValue; 2] {
        let text = StringViewArray::from(values);
        let bytes: BinaryViewArray = text.iter().map(|value| value.map(str::as_bytes)).collect();
        [ColumnarValue::Array(Arc::new(text)), ColumnarValue::Array(Arc::new(bytes))]
    }

    fn constant(value: Option<String>) -> [ColumnarValue; 2] {
        let bytes = value.clone().map(String::into_bytes);
        [ColumnarValue::Scalar(ScalarValue::Utf8View(value)), ColumnarValue::Scalar(ScalarValue::BinaryView(bytes))]
    }

    proptest! {
        /// Whatever lengths, nulls and constants meet, values and bytes are those of Arrow's kernel.
        #[test]
        fn as_arrow_has_it(rows in proptest::collection::vec((text(), text()), 0..40), fixed in text()) {
            let count = rows.len();
            let (left, right): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let sides = [column(left), column(right), constant(fixed)];
            for (l, r) in [(0, 1), (0, 2), (2, 1), (2, 2)] {
                for kind in [0, 1] {
                    let (left, right) = (&sides[l][kind], &sides[r][kind]);
                    let expected = concat_elements_dyn(&left.to_array(count)?, &right.to_array(count)?)?;
                    prop_assert_eq!(&concat(left, right, count)?, &expected);
                }
            }
        }
    }

    /// A part of an array, whose views lead into buffers that it shares with the rest.
    #[test]
    fn slices() -> Result<()> {
        let whole = StringViewArray::from(vec!["a", "longer than a view has room for", "c", "d"]);
        let (left, right) =
            (ColumnarValue::Array(Arc::new(whole.slice(1, 2))), ColumnarValue::Array(Arc::new(whole.slice(2, 2))));
        let joined = concat(&left, &right, 2)?;
        assert_eq!(joined.as_string_view(), &StringViewArray::from(vec!["longer than a view has room forc", "cd"]));
        Ok(())
    }
}
