//! What an array takes of memory, each buffer once.

use std::collections::HashSet;

use arrow::array::{Array, ArrayData, ArrayRef};

/// What one buffer or array costs beside its values, about.
const OVERHEAD: usize = 96;

/// The bytes of an array's buffers that are not yet in `counted`, which has them then.
pub(super) fn uncounted(array: &ArrayRef, counted: &mut HashSet<usize>) -> usize {
    data(&array.to_data(), counted)
}

fn data(data: &ArrayData, counted: &mut HashSet<usize>) -> usize {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    let buffers = data.buffers().iter().chain(nulls);
    let own: usize = buffers
        .filter(|buffer| counted.insert(buffer.data_ptr().as_ptr() as usize))
        .map(|buffer| buffer.capacity() + OVERHEAD)
        .sum();
    OVERHEAD + own + data.child_data().iter().map(|child| self::data(child, counted)).sum::<usize>()
}
