//! Bringing arrays of a file's own types to the widened ones.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;

use super::{is_json, is_nested, list_item};

/// Whether [`cast`] can bring a column of a file to a widened type. What it can not: turning text, objects or lists
/// that are not JSON text into JSON text.
pub fn castable(from: &Field, to: &Field) -> bool {
    if is_json(to) && !is_json(from) {
        return is_json_literal(from.data_type());
    }
    match (from.data_type(), to.data_type()) {
        (DataType::Null, _) => true,
        (ours, theirs) if ours == theirs => true,
        (DataType::Struct(ours), DataType::Struct(theirs)) => ours.iter().all(|field| match by_name(theirs, field) {
            Some((_, target)) => castable(field, target),
            None => true,
        }),
        (ours, theirs) => match (list_item(ours), list_item(theirs)) {
            (Some(our_item), Some(their_item)) => {
                let plain = DataType::List(our_item.clone());
                castable(our_item, their_item)
                    && can_cast_types(ours, &plain)
                    && can_cast_types(&DataType::List(their_item.clone()), theirs)
            }
            _ => is_nested(ours) == is_nested(theirs) && can_cast_types(ours, theirs),
        },
    }
}

/// Values whose text is JSON as it stands.
fn is_json_literal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Null | DataType::Boolean) || data_type.is_integer()
}

fn by_name<'a>(fields: &'a Fields, wanted: &Field) -> Option<(usize, &'a Field)> {
    fields.find(wanted.name()).map(|(at, field)| (at, field.as_ref()))
}

/// Brings an array to a widened type: structs by name with nulls for fields it lacks, lists by element. A value that
/// does not fit is an error, never a null.
pub fn cast(array: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == to.data_type() && is_json(from) == is_json(to) {
        return Ok(array.clone());
    }
    if !castable(from, to) {
        let message = format!("cannot read {} as {}", from.data_type(), to.data_type());
        return Err(ArrowError::CastError(message));
    }
    match (array.data_type(), to.data_type()) {
        (DataType::Null, wanted) => Ok(new_null_array(wanted, array.len())),
        (DataType::Struct(ours), DataType::Struct(theirs)) => cast_struct(array.as_struct(), ours, theirs),
        (ours, theirs) => match (list_item(ours), list_item(theirs)) {
            (Some(our_item), Some(their_item)) => {
                let plain = checked(array, &DataType::List(our_item.clone()))?;
                let (_, offsets, values, nulls) = plain.as_list::<i32>().clone().into_parts();
                let items = cast(&values, our_item, their_item)?;
                let list: ArrayRef = Arc::new(ListArray::try_new(their_item.clone(), offsets, items, nulls)?);
                checked(&list, theirs)
            }
            _ => checked(array, theirs),
        },
    }
}

fn checked(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(array, to, &options)
}

fn cast_struct(array: &StructArray, ours: &Fields, theirs: &Fields) -> Result<ArrayRef, ArrowError> {
    let columns = theirs.iter().map(|field| match by_name(ours, field) {
        Some((at, from)) => cast(array.column(at), from, field),
        None => Ok(new_null_array(field.data_type(), array.len())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let nulls = array.nulls().cloned();
    let cast = StructArray::try_new_with_length(theirs.clone(), columns, nulls, array.len())?;
    Ok(Arc::new(cast))
}
