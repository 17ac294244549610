//! Rows by key: keys go in, rows come out, each with the keys that it is for. [`plan`] and [`Lookup::find`] are all that
//! knows how rows are found; today that is one scan. What comes after puts them in order and says which are missing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use futures::{Stream, StreamExt};
use quern_core::{EngineError, Reason, Result};
use quern_sources::Table;
use quern_sources::provider::SnapshotProvider;

use super::filter::Operand;
use super::float::{self, rank, rank_of};
use super::{Key, Keys, Path, Taken, resolve, unused, wanted};
use crate::errors;
use crate::format::Envelope;

/// Which rows are looked for, and how they are known among those that the plan gives.
pub(crate) struct Lookup {
    pub(super) wanted: usize,
    keys: Keys,
    table: String,
    converter: RowConverter,
    /// The keys with these values, by their numbers. Values are written by the converter.
    asked: HashMap<Box<[u8]>, Vec<usize>>,
}

/// The rows that were found.
pub(super) struct Found {
    batches: Vec<RecordBatch>,
    /// Where each key's row is: its batch, and its place there.
    places: Vec<Option<(usize, usize)>>,
    /// A key that more than one row has; the search ended with it.
    twice: Option<usize>,
}

/// Plans the search: the columns wanted, then the key's. Fails with NO_KEY, CONFIG_INVALID or KEY_INVALID.
pub(super) fn plan(
    keys: &Keys,
    fields: &[Path],
    table: &Table,
    provider: SnapshotProvider,
) -> Result<(LogicalPlan, Lookup)> {
    let schema = table.schema();
    let wanted = wanted(fields, &schema)?;
    let columns = columns(keys, table)?;
    let values = keys.keys.iter().map(|key| typed(key, &columns, &table.name)).collect::<Result<Vec<_>>>()?;
    let failed = |e: DataFusionError| errors::planning("", &e);
    let lookup = Lookup::new(keys, wanted.len(), &table.name, &columns, &values).map_err(failed)?;
    let helpers = columns.iter().enumerate().map(|(at, column)| {
        let name = unused(&format!("__key{at}"), &schema);
        if column.data_type.is_floating() {
            rank(column.expr.clone()).alias(name)
        } else {
            column.expr.clone().alias(name)
        }
    });
    let projection: Vec<Expr> = wanted.into_iter().chain(helpers).collect();
    // Two rows of one key are enough to know that it is none.
    let most = keys.sole.then_some(2);
    let plan = LogicalPlanBuilder::scan(table.name.as_str(), provider_as_source(Arc::new(provider)), None)
        .and_then(|scan| scan.filter(condition(&columns, &values)))
        .and_then(|rows| rows.limit(0, most))
        .and_then(|rows| rows.project(projection))
        .and_then(LogicalPlanBuilder::build)
        .map_err(failed)?;
    Ok((plan, lookup))
}

/// The key's columns. Fails with NO_KEY or CONFIG_INVALID.
fn columns(keys: &Keys, table: &Table) -> Result<Vec<Operand>> {
    let (schema, name) = (table.schema(), &table.name);
    if keys.columns.is_empty() {
        let message = format!(
            "table `{name}` has no key; name its column in quern.yaml, as in `tables: {{{name}: {{key: id}}}}`, or \
             several: `key: [a, b]`"
        );
        return Err(EngineError::new(Reason::NoKey, message).with("table", name));
    }
    let column = |path| column(path, &schema, name);
    keys.columns.iter().map(column).collect()
}

fn column(path: &Path, schema: &Schema, table: &str) -> Result<Operand> {
    let (expr, data_type, spelled) = resolve(path, schema).map_err(|mut error| {
        error.reason = Reason::ConfigInvalid;
        error.message = format!("the key of `{table}` in quern.yaml: {}", error.message);
        error
    })?;
    Ok(Operand { expr, data_type, name: spelled.join(".") })
}

/// A key's values as their columns' types; nothing where a column can't hold its value, so that no row has the key.
/// Fails with KEY_INVALID.
fn typed(key: &Key, columns: &[Operand], table: &str) -> Result<Option<Vec<ScalarValue>>> {
    let invalid =
        |message| EngineError::new(Reason::KeyInvalid, message).with("table", table).with("key", &key.spelled);
    if columns.len() != key.values.len() {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(invalid(format!(
            "the key of `{table}` has {} columns ({}), separated by `~`; {} given in `{}`",
            names.len(),
            names.join(", "),
            key.values.len(),
            key.spelled
        )));
    }
    let values = columns.iter().zip(&key.values).map(|(column, given)| {
        let value = column.value(given).map_err(invalid)?;
        Ok(if column.data_type.is_floating() { Some(value) } else { exactly(value, &column.data_type) })
    });
    values.collect::<Result<Option<_>>>()
}

/// The same value as another type, where that has it.
fn exactly(value: ScalarValue, data_type: &DataType) -> Option<ScalarValue> {
    // Beyond this, neighbours among whole numbers are one and the same float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.data_type() == *data_type {
        return Some(value);
    }
    if matches!(value, ScalarValue::Float64(Some(number)) if number.abs() >= EXACT) {
        return None;
    }
    let cast = value.cast_to(data_type).ok()?;
    let back = cast.cast_to(&value.data_type()).ok()?;
    (back == value).then_some(cast)
}

/// The condition that each column has one of its values: true of every row that is looked for, and with several columns
/// of some others.
fn condition(columns: &[Operand], values: &[Option<Vec<ScalarValue>>]) -> Expr {
    let each = columns.iter().enumerate().map(|(at, column)| {
        let mut seen = HashSet::new();
        let values = values.iter().flatten().map(|values| values[at].clone());
        one_of(column, values.filter(|value| seen.insert(value.clone())).collect())
    });
    each.reduce(Expr::and).unwrap_or_else(|| lit(false))
}

fn one_of(column: &Operand, values: Vec<ScalarValue>) -> Expr {
    match values.as_slice() {
        [] => return lit(false),
        [only] => return column.compared("=", only.clone()),
        _ => {}
    }
    if column.data_type.is_floating() {
        let number = |value| if let ScalarValue::Float64(number) = value { number } else { None };
        return float::one_of(&column.expr, values.into_iter().filter_map(number).collect());
    }
    let order = |a: &ScalarValue, b: &ScalarValue| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal);
    let least = values.iter().cloned().min_by(order);
    let most = values.iter().cloned().max_by(order);
    let listed = column.expr.clone().in_list(values.into_iter().map(lit).collect(), false);
    // Statistics of files exclude by bounds, and by lists only while these are short.
    match (least, most) {
        (Some(least), Some(most)) => {
            let (low, high) = (column.expr.clone().gt_eq(lit(least)), column.expr.clone().lt_eq(lit(most)));
            low.and(high).and(listed)
        }
        _ => listed,
    }
}

impl Lookup {
    fn new(
        keys: &Keys,
        wanted: usize,
        table: &str,
        columns: &[Operand],
        values: &[Option<Vec<ScalarValue>>],
    ) -> Result<Self, DataFusionError> {
        let helper = |column: &Operand| {
            if column.data_type.is_floating() { DataType::Int64 } else { column.data_type.clone() }
        };
        let converter = RowConverter::new(columns.iter().map(|column| SortField::new(helper(column))).collect())?;
        let known: Vec<(usize, &Vec<ScalarValue>)> =
            values.iter().enumerate().filter_map(|(number, values)| Some((number, values.as_ref()?))).collect();
        let mut asked: HashMap<Box<[u8]>, Vec<usize>> = HashMap::new();
        if !known.is_empty() {
            let arrays = (0..columns.len()).map(|at| {
                ScalarValue::iter_to_array(known.iter().map(|(_, values)| match &values[at] {
                    ScalarValue::Float64(Some(number)) => ScalarValue::Int64(Some(rank_of(*number))),
                    other => other.clone(),
                }))
            });
            let rows = converter.convert_columns(&arrays.collect::<Result<Vec<ArrayRef>, _>>()?)?;
            for ((number, _), row) in known.iter().zip(rows.iter()) {
                asked.entry(row.as_ref().into()).or_default().push(*number);
            }
        }
        Ok(Self { wanted, keys: keys.clone(), table: table.to_owned(), converter, asked })
    }

    /// Finds the rows among those that the plan gives. What is held of them is taken from `memory`.
    pub(super) async fn find<S>(&self, mut input: S, memory: &MemoryReservation) -> Result<Found, DataFusionError>
    where
        S: Stream<Item = Result<RecordBatch, DataFusionError>> + Unpin,
    {
        let mut found = Found { batches: Vec::new(), places: vec![None; self.keys.keys.len()], twice: None };
        let wanted: Vec<usize> = (0..self.wanted).collect();
        while let Some(batch) = input.next().await {
            let batch = batch?;
            let values = self.converter.convert_columns(&batch.columns()[self.wanted..])?;
            let mut taken = Vec::new();
            for (row, values) in (0..).zip(values.iter()) {
                let Some(asked) = self.asked.get(values.as_ref()) else { continue };
                for key in asked {
                    if found.places[*key].replace((found.batches.len(), taken.len())).is_some() {
                        found.twice = Some(*key);
                        return Ok(found);
                    }
                }
                taken.push(row);
            }
            if !taken.is_empty() {
                let batch = take_record_batch(&batch.project(&wanted)?, &UInt64Array::from(taken))?;
                memory.try_grow(batch.get_array_memory_size())?;
                found.batches.push(batch);
            }
        }
        Ok(found)
    }

    /// Puts the rows in the order of the keys. The inner error is ROW_NOT_FOUND or KEY_NOT_UNIQUE.
    pub(super) fn in_order(&self, found: Found, memory: &MemoryReservation) -> Result<Result<Taken>, DataFusionError> {
        let spelled = |key: usize| format!("`{}`", self.keys.keys[key].spelled);
        if let Some(key) = found.twice {
            let message = format!(
                "more than one row has the key {} in `{}`; `key` in quern.yaml must name columns that tell rows apart",
                spelled(key),
                self.table
            );
            return Ok(Err(EngineError::new(Reason::KeyNotUnique, message).with("table", &self.table)));
        }
        let numbered = || (0_u32..).zip(&found.places).zip(&self.keys.keys);
        let missing = numbered().filter(|((_, place), _)| place.is_none());
        let missing: Vec<_> = missing.map(|((number, _), key)| (number, key.spelled.clone())).collect();
        if self.keys.sole && !missing.is_empty() {
            let message = format!("no row {} in `{}`", spelled(0), self.table);
            return Ok(Err(EngineError::new(Reason::RowNotFound, message).with("table", &self.table)));
        }
        // Each part is a copy of some of the rows, and only one part is made at a time.
        memory.try_grow(memory.size())?;
        let parts = parts(found.places.into_iter().flatten());
        let batches = found.batches;
        let batches = parts.into_iter().map(move |part| {
            let sources: Vec<&RecordBatch> = batches.iter().collect();
            Ok(interleave_record_batch(&sources, &part)?)
        });
        let envelope = Envelope { missing: (!self.keys.sole).then_some(missing), ..Envelope::default() };
        Ok(Ok(Taken { batches: Box::new(batches), envelope }))
    }
}

/// Cuts places so that no part has one of them twice: a key may be asked for any number of times, and its row may be
/// large.
fn parts(places: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<(usize, usize)>> {
    let mut parts = Vec::new();
    let (mut part, mut seen) = (Vec::new(), HashSet::new());
    for place in places {
        if !seen.insert(place) {
            parts.push(std::mem::take(&mut part));
            seen = HashSet::from([place]);
        }
        part.push(place);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_change_their_type_only_where_nothing_is_lost() {
        let number = |n: f64| ScalarValue::Float64(Some(n));
        assert_eq!(exactly(number(3.0), &DataType::Int8), Some(ScalarValue::Int8(Some(3))));
        assert_eq!(exactly(number(3.5), &DataType::Int8), None);
        assert_eq!(exactly(number(1e17), &DataType::Int64), None);
        assert_eq!(exactly(ScalarValue::Int64(Some(300)), &DataType::UInt8), None);
        assert_eq!(exactly(ScalarValue::Int64(Some(-1)), &DataType::UInt64), None);
        let decimal = |n, scale| ScalarValue::Decimal128(Some(n), 38, scale);
        let column = DataType::Decimal128(5, 2);
        assert_eq!(exactly(decimal(1500, 3), &column), Some(ScalarValue::Decimal128(Some(150), 5, 2)));
        assert_eq!(exactly(decimal(1501, 3), &column), None);
        assert_eq!(exactly(decimal(1_000_000, 2), &column), None);
    }

    #[test]
    fn no_part_has_a_place_twice() {
        let cut = parts([(0, 1), (0, 0), (0, 1), (0, 1), (1, 0)].into_iter());
        assert_eq!(cut, [vec![(0, 1), (0, 0)], vec![(0, 1)], vec![(0, 1), (1, 0)]]);
        assert!(parts(std::iter::empty()).is_empty());
    }
}
