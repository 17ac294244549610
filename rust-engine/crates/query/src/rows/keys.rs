//! Rows by key: keys go in, rows come out, each with the keys that it is for. They are found by an index where there is one,
//! else by a scan; what comes after puts them in order and says which are missing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::RowConverter;
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use futures::{Stream, StreamExt};
use quern_core::{EngineError, Reason, Result};
use quern_sources::keys::{KeyIndex, converter};
use quern_sources::{Points, Table};

use super::filter::Operand;
use super::float::{self, rank, rank_of};
use super::{Input, Key, Keys, Known, Path, Snapshot, Taken, Wanted, resolve, unused, wanted};
use crate::allow::Findings;
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

/// A search by an index.
pub(crate) struct ByIndex {
    index: Arc<KeyIndex>,
    points: Arc<Points>,
    /// The places of the key's columns among those that are read.
    key: Vec<usize>,
    /// Whether only what lies in memory is to be read.
    at_hand: bool,
}

impl ByIndex {
    /// The columns that are read: those wanted, then those of the key that are not among them.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.points.schema()
    }

    /// The rows about one row, and its place among them.
    async fn around(&self, file: usize, row: u64) -> Result<(RecordBatch, usize), DataFusionError> {
        if !self.at_hand {
            return self.points.around(file, row).await;
        }
        self.points.at_hand(file, row)?.ok_or_else(|| exec_datafusion_err!("a row is not in memory"))
    }
}

/// Plans the search: the columns wanted, then the key's. Fails with NO_KEY, CONFIG_INVALID or KEY_INVALID.
pub(super) async fn plan(
    keys: &Keys,
    fields: &[Path],
    from: Snapshot<'_>,
    known: &Known,
) -> Result<(Input<LogicalPlan>, Lookup)> {
    let table = from.table;
    let schema = table.schema();
    let Wanted { exprs: wanted, columns: plain } = wanted(fields, &schema)?;
    let columns = columns(keys, table)?;
    let values = keys.keys.iter().map(|key| typed(key, &columns, &table.name)).collect::<Result<Vec<_>>>()?;
    let failed = |e: DataFusionError| errors::planning("", &e);
    let lookup = Lookup::new(keys, wanted.len(), &table.name, &columns, &values).map_err(failed)?;
    if let (Some(mut read), Some(key)) = (plain, indexable(&columns, &schema)) {
        let executing = |e: DataFusionError| errors::execution(&e, &Findings::default());
        let caches = from.caches;
        let index = if from.at_hand {
            caches.keys.known(table, &key)
        } else {
            caches.keys.get(table, from.store, caches, &key).await.map_err(executing)?
        };
        if let Some(index) = index {
            let place = |column: &usize| {
                read.iter().position(|known| known == column).unwrap_or_else(|| {
                    read.push(*column);
                    read.len() - 1
                })
            };
            let key = key.iter().map(place).collect();
            let points = known.points(from, &read).map_err(executing)?;
            return Ok((Input::Points(ByIndex { index, points, key, at_hand: from.at_hand }), lookup));
        }
    }
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
    let plan = LogicalPlanBuilder::scan(table.name.as_str(), provider_as_source(Arc::new(from.provider(None))), None)
        .and_then(|scan| scan.filter(condition(&columns, &values)))
        .and_then(|rows| rows.limit(0, most))
        .and_then(|rows| rows.project(projection))
        .and_then(LogicalPlanBuilder::build)
        .map_err(failed)?;
    Ok((Input::Plan(plan), lookup))
}

/// The places of a key's columns where they can be indexed. Floats are equal by rules of their own, and fields of nested
/// columns have no place.
fn indexable(columns: &[Operand], schema: &Schema) -> Option<Vec<usize>> {
    let place = |column: &Operand| {
        let plain = matches!(column.expr, Expr::Column(_)) && !column.data_type.is_floating();
        if plain && !column.data_type.is_nested() { schema.index_of(&column.name).ok() } else { None }
    };
    columns.iter().map(place).collect()
}

/// The places of the columns that a table's key is indexed by, if it is. Fails as a search does.
pub(crate) fn indexed_columns(key: &[Path], table: &Table) -> Result<Option<Vec<usize>>> {
    let keys = Keys { columns: key.to_vec(), keys: Vec::new(), sole: false };
    Ok(indexable(&columns(&keys, table)?, &table.schema()))
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
        let converter = converter(columns.iter().map(helper))?;
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

    /// Reads the rows by an index. The inner error is ROW_NOT_FOUND or KEY_NOT_UNIQUE.
    pub(crate) async fn read(
        &self,
        by: &ByIndex,
        memory: &MemoryReservation,
    ) -> Result<Result<Taken>, DataFusionError> {
        self.in_order(self.find_by(by, memory).await?, memory)
    }

    /// Finds the rows by an index. What is held of them is taken from `memory`.
    async fn find_by(&self, by: &ByIndex, memory: &MemoryReservation) -> Result<Found, DataFusionError> {
        let mut candidates = Vec::new();
        for values in self.asked.keys() {
            candidates.extend(by.index.find(values).map(|(file, row)| (file, row, values.as_ref())));
        }
        candidates.sort_unstable();
        let mut found = Found { batches: Vec::new(), places: vec![None; self.keys.keys.len()], twice: None };
        let wanted: Vec<usize> = (0..self.wanted).collect();
        let mut rest = candidates.as_slice();
        while let Some((file, row, _)) = rest.first() {
            let (batch, place) = by.around(*file, *row).await?;
            let first = row - place as u64;
            let end = first + batch.num_rows() as u64;
            let here = rest.iter().take_while(|(other, row, _)| other == file && *row < end).count();
            let (these, others) = rest.split_at(here);
            rest = others;
            let batch = if here == 1 && self.keys.sole {
                batch.slice(place, 1)
            } else {
                let rows = these.iter().map(|(_, row, _)| row - first);
                owned(&take_record_batch(&batch, &UInt64Array::from_iter_values(rows))?)?
            };
            let key: Vec<ArrayRef> = by.key.iter().map(|column| Arc::clone(batch.column(*column))).collect();
            let keys = self.converter.convert_columns(&key)?;
            for (at, ((_, _, values), key)) in these.iter().zip(keys.iter()).enumerate() {
                // Another key of the same hash.
                if key.as_ref() != *values {
                    continue;
                }
                for number in self.asked.get(*values).into_iter().flatten() {
                    if found.places[*number].replace((found.batches.len(), at)).is_some() {
                        found.twice = Some(*number);
                        return Ok(found);
                    }
                }
            }
            let batch = batch.project(&wanted)?;
            if !self.keys.sole {
                memory.try_grow(batch.get_array_memory_size())?;
            }
            found.batches.push(batch);
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
        if let ([Some((0, row))], [batch]) = (found.places.as_slice(), found.batches.as_slice()) {
            let batch = batch.slice(*row, 1);
            let envelope = Envelope { missing: (!self.keys.sole).then(Vec::new), ..Envelope::default() };
            return Ok(Ok(Taken { batches: Box::new(std::iter::once(Ok(batch))), envelope }));
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

/// A copy that holds no more than its own rows.
fn owned(batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    });
    Ok(RecordBatch::try_new(batch.schema(), columns.collect())?)
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
