//! Rows of one table: filtered, ordered, page by page. Planned from typed requests; no SQL text is made.
//!
//! Pages follow each other by position, not by offset: a token holds the last row's values in the order asked for and
//! where the row lies in its table (its file's number, its number in the file), which makes every order total. In the
//! table's own order a page begins to read where the last one ended; in any other, each page is the first rows, of
//! those after the last one's, of one scan.

mod count;
mod direct;
mod filter;
mod float;
mod keys;
mod order;
mod ordered;
mod page;
mod time;
mod token;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::ident;
use futures::Stream;
use quern_core::suggest::{nearest, some_of};
use quern_core::{EngineError, Reason, Result};

use quern_sources::Positions;

pub(crate) use count::{Count, plan as count};
pub(crate) use direct::{Known, Snapshot};
use direct::{PageScan, Pages};
pub use filter::{Node, NodeKind};
pub(crate) use token::TokenKey;

use crate::errors;
use crate::format::Envelope;
use keys::Lookup;
pub(crate) use keys::{ByIndex, indexed_columns};
use order::Keyset;
use ordered::{Behind, OrderedScan};
use page::Paging;
use time::Clock;
use token::Position;

/// A column, or a field of a nested one: the names from the column on.
pub type Path = Vec<String>;

/// One page of a table's rows.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The table's name.
    pub table: String,
    /// The columns wanted; all where empty.
    pub fields: Vec<Path>,
    /// Which rows; all where there is none.
    pub filter: Option<Node>,
    /// Their order; within it, and without it, the table's own.
    pub order: Vec<OrderTerm>,
    /// How many rows a page has, at least 1.
    pub page_size: usize,
    /// The token of the page before; empty for the first page.
    pub page_token: String,
    /// Asks how many rows the filter matches, over all pages.
    pub count: bool,
    /// Asks for the rows with these keys, instead of a page; the fields from `filter` on are not read then.
    pub keys: Option<Keys>,
}

/// What names rows.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The table's key; no columns where it has none.
    pub columns: Vec<Path>,
    /// Whose rows are wanted, in this order.
    pub keys: Vec<Key>,
    /// Asks for the row of the one key that there is, which must have one.
    pub sole: bool,
}

/// What names a row.
#[derive(Clone, Debug)]
pub struct Key {
    /// The values of the key's columns.
    pub values: Vec<String>,
    /// The key as the request spelled it.
    pub spelled: String,
}

/// What rows are ordered by. Nulls come last.
#[derive(Clone, Debug)]
pub struct OrderTerm {
    /// The column.
    pub path: Path,
    /// Largest first.
    pub descending: bool,
}

/// Where a page begins.
pub(crate) struct Start {
    position: Option<Position>,
    digest: [u8; 32],
    /// What `now()` is in the filter, in nanoseconds since 1970 in UTC.
    now: i64,
}

impl Start {
    /// Reads the request's token. Fails with PAGE_TOKEN_INVALID.
    pub(crate) fn of(rows: &Rows, key: &TokenKey) -> Result<Self> {
        let digest = token::digest(rows);
        let position = if rows.page_token.is_empty() { None } else { Some(key.open(&rows.page_token, &digest)?) };
        let first = position.as_ref().and_then(|position: &Position| position.now);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Ok(Self { position, digest, now: first.unwrap_or_else(|| i64::try_from(now()).unwrap_or(i64::MAX)) })
    }

    fn clock(&self) -> Clock {
        Clock::new(self.now)
    }

    /// How many rows there are, where a page before has counted them.
    fn counted(&self) -> Option<u64> {
        self.position.as_ref()?.counted
    }

    /// The snapshot that the pages before have read.
    pub(crate) fn snapshot(&self) -> Option<&str> {
        self.position.as_ref().map(|position| position.snapshot.as_str())
    }
}

/// How to make a result of what the plan gives: columns that the caller wants, then those that help.
pub(crate) enum Reading {
    Page(Paging),
    Keys(Lookup),
}

impl Reading {
    /// The columns that the caller gets, of those that the plan gives.
    pub(crate) fn schema(&self, planned: &Schema) -> SchemaRef {
        let wanted = match self {
            Self::Page(paging) => paging.wanted,
            Self::Keys(lookup) => lookup.wanted,
        };
        Arc::new(Schema::new(planned.fields().iter().take(wanted).cloned().collect::<Vec<_>>()))
    }

    /// Reads the rows, and counts where that is asked for. What is held of them is taken from `memory`; `task` is
    /// what the count runs in. The inner error lies in what was asked.
    pub(crate) async fn read<S>(
        &self,
        input: S,
        count: Option<Count<Arc<dyn ExecutionPlan>>>,
        key: &TokenKey,
        memory: &MemoryReservation,
        task: &Arc<TaskContext>,
    ) -> Result<Result<Taken>, DataFusionError>
    where
        S: Stream<Item = Result<RecordBatch, DataFusionError>> + Unpin,
    {
        match self {
            Self::Page(paging) => Ok(Ok(paging.read(input, count, key, memory, task).await?)),
            Self::Keys(lookup) => Ok(lookup.in_order(lookup.find(input, memory).await?, memory)?),
        }
    }
}

/// What was read: the rows of the result, and what is said beside them.
pub(crate) struct Taken {
    pub(crate) batches: Batches,
    pub(crate) envelope: Envelope,
}

/// Batches that are made when they are asked for.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, DataFusionError>> + Send>;

/// Where rows come from.
pub(crate) enum Input<P> {
    Plan(P),
    Scan(PageScan),
    Ordered(OrderedScan),
    Points(ByIndex),
}

/// How rows are got.
pub(crate) struct RowsPlan {
    pub(crate) input: Input<LogicalPlan>,
    pub(crate) reading: Reading,
    /// Whether the rows of a plan come in order only where there is one partition.
    pub(crate) sequential: bool,
    /// Whether the rows depend on what time it is.
    pub(crate) timely: bool,
}

/// Plans how to get rows.
pub(crate) async fn plan(rows: &Rows, start: &Start, from: Snapshot<'_>, known: &Known) -> Result<RowsPlan> {
    if let Some(keys) = &rows.keys {
        let (input, lookup) = keys::plan(keys, &rows.fields, from, known).await?;
        return Ok(RowsPlan { input, reading: Reading::Keys(lookup), sequential: keys.sole, timely: false });
    }
    let sequential = rows.order.is_empty();
    let clock = start.clock();
    let mut paging = Paging {
        wanted: 0,
        size: rows.page_size,
        keyset: Keyset::default(),
        snapshot: from.table.snapshot.clone(),
        first: start.position.is_none(),
        counted: start.counted(),
        now: None,
        digest: start.digest,
    };
    let known_pages = if sequential { known.pages(&from.table.snapshot, start.digest) } else { None };
    let input = match known_pages {
        Some(pages) => {
            paging.wanted = pages.wanted;
            Input::Scan(pages.after(start.position.as_ref(), rows.page_size))
        }
        None => page(rows, start, from, known, &clock, &mut paging)?,
    };
    paging.now = clock.was_read().then_some(start.now);
    Ok(RowsPlan { input, reading: Reading::Page(paging), sequential, timely: clock.was_read() })
}

/// Where the rows of a page come from, and which columns it has.
fn page(
    rows: &Rows,
    start: &Start,
    from: Snapshot<'_>,
    known: &Known,
    clock: &Clock,
    paging: &mut Paging,
) -> Result<Input<LogicalPlan>> {
    let schema = from.table.schema();
    paging.keyset = Keyset::new(&rows.order, &schema)?;
    let wanted = wanted(&rows.fields, &schema)?;
    paging.wanted = wanted.exprs.len();
    let sequential = rows.order.is_empty();
    let (file, row) = (unused("__file", &schema), unused("__row", &schema));
    let failed = |e: DataFusionError| errors::planning("", &e);
    match (sequential, wanted.columns, paging.keyset.by(&schema)) {
        (true, Some(columns), _) => {
            let filters = rows.filter.iter().map(|filter| known.condition(filter, &schema, clock));
            let filters = filters.collect::<Result<_>>()?;
            let pages = Pages::new(from, Positions { file, row, after: None }, columns, filters).map_err(failed)?;
            if !clock.was_read() {
                known.keep(&from.table.snapshot, start.digest, &pages);
            }
            return Ok(Input::Scan(pages.after(start.position.as_ref(), rows.page_size)));
        }
        (false, Some(columns), Some(by)) => {
            let filter = rows.filter.as_ref().map(|filter| filter::condition(filter, &schema, clock)).transpose()?;
            let filters = filter.into_iter().map(|filter| known.physical(filter, &schema)).collect::<Result<_>>()?;
            let values = start.position.as_ref().map(|place| paging.keyset.read(&place.values)).transpose()?;
            let behind = start.position.as_ref().zip(values.as_deref()).map(|(place, values)| {
                let bound = known.physical(paging.keyset.not_before(values), &schema)?;
                Ok(Behind { values, file: place.file, row: place.row, bound })
            });
            let behind = behind.transpose()?;
            let (positions, size) = (Positions { file, row, after: None }, rows.page_size + 1);
            let scan = OrderedScan::new(from, positions, columns, &by, filters, size, behind.as_ref());
            let scan = scan.map_err(failed)?;
            return Ok(Input::Ordered(scan));
        }
        _ => {}
    }
    let after = start.position.as_ref().map(|position| (position.file, position.row));
    let positions = Positions { file, row, after: after.filter(|_| sequential) };
    let condition = rows.filter.as_ref().map(|filter| filter::condition(filter, &schema, clock)).transpose()?;
    let (file, row) = (ident(&positions.file), ident(&positions.row));
    let source = provider_as_source(Arc::new(from.provider(Some(positions))));
    let mut plan = LogicalPlanBuilder::scan(from.table.name.as_str(), source, None).map_err(failed)?;
    if let Some(condition) = condition {
        plan = plan.filter(condition).map_err(failed)?;
    }
    if let Some(position) = &start.position {
        plan = plan.filter(paging.keyset.after(position, &file, &row)?).map_err(failed)?;
    }
    if !sequential {
        plan = plan.sort(paging.keyset.sort(&file, &row)).map_err(failed)?;
    }
    let columns = wanted.exprs.into_iter().chain(paging.keyset.columns(&schema)).chain([file, row]);
    let plan = plan.limit(0, Some(rows.page_size + 1)).and_then(|plan| plan.project(columns));
    Ok(Input::Plan(plan.and_then(LogicalPlanBuilder::build).map_err(failed)?))
}

/// What a result in the making holds.
pub(crate) fn reservation(pool: &Arc<dyn datafusion::execution::memory_pool::MemoryPool>) -> MemoryReservation {
    MemoryConsumer::new("rows").register(pool)
}

/// The columns wanted.
struct Wanted {
    /// How they are computed, nested ones under their path's name.
    exprs: Vec<Expr>,
    /// Their places in the table's schema, where none is nested.
    columns: Option<Vec<usize>>,
}

fn wanted(fields: &[Path], schema: &Schema) -> Result<Wanted> {
    if fields.is_empty() {
        let exprs = schema.fields().iter().map(|field| ident(field.name())).collect();
        return Ok(Wanted { exprs, columns: Some((0..schema.fields().len()).collect()) });
    }
    let mut names = std::collections::BTreeSet::new();
    let (mut exprs, mut columns) = (Vec::new(), Some(Vec::new()));
    for path in fields {
        let (expr, _, spelled) = resolve(path, schema)?;
        let name = spelled.join(".");
        if !names.insert(name.clone()) {
            return Err(
                EngineError::new(Reason::DuplicateColumn, format!("`fields` has `{name}` twice")).with("column", name)
            );
        }
        let place = if path.len() == 1 { schema.index_of(&name).ok() } else { None };
        columns = columns.zip(place).map(|(mut columns, place)| {
            columns.push(place);
            columns
        });
        exprs.push(if path.len() == 1 { expr } else { expr.alias(name) });
    }
    Ok(Wanted { exprs, columns })
}

/// Finds a column by its path: spelled as it is, or in another case where only one fits. Returns how it is computed,
/// its type and its spelling. Fails with UNKNOWN_COLUMN.
fn resolve(path: &Path, schema: &Schema) -> Result<(Expr, DataType, Path)> {
    let mut found: Option<(Expr, DataType)> = None;
    let mut spelled = Path::new();
    for name in path {
        let fields = match &found {
            None => schema.fields().clone(),
            Some((_, DataType::Struct(fields))) => fields.clone(),
            Some((_, other)) => {
                let column = spelled.join(".");
                let message = format!("`{column}` is {} and has no field `{name}`", type_name(other));
                return Err(EngineError::new(Reason::UnknownColumn, message).with("column", column));
            }
        };
        let exact = fields.iter().find(|field| field.name() == name);
        let alike = || {
            let mut alike = fields.iter().filter(|field| field.name().to_lowercase() == name.to_lowercase());
            alike.next().filter(|_| alike.next().is_none())
        };
        let Some(field) = exact.or_else(alike) else {
            let names = || fields.iter().map(|field| field.name().as_str());
            let hint = match nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", some_of(names())),
            };
            let inside = if spelled.is_empty() { String::new() } else { format!(" in `{}`", spelled.join(".")) };
            return Err(EngineError::new(Reason::UnknownColumn, format!("no column `{name}`{inside}; {hint}"))
                .with("column", name));
        };
        let expr = match found {
            None => ident(field.name()),
            Some((outer, _)) => get_field(outer, field.name().as_str()),
        };
        spelled.push(field.name().clone());
        found = Some((expr, field.data_type().clone()));
    }
    let (expr, data_type) =
        found.ok_or_else(|| EngineError::new(Reason::RequestInvalid, "a column's name is empty"))?;
    Ok((expr, data_type, spelled))
}

/// A type in the words of SQL, for messages.
fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "BOOLEAN",
        t if t.is_integer() => "a whole number",
        t if t.is_numeric() => "a number",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Date32 | DataType::Date64 => "a DATE",
        DataType::Time32(_) | DataType::Time64(_) => "a TIME",
        DataType::Timestamp(..) => "a TIMESTAMP",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "a LIST",
        DataType::Struct(_) => "a STRUCT",
        DataType::Map(..) => "a MAP",
        DataType::Null => "always null",
        _ => "of another type",
    }
}

/// A name that no column has.
fn unused(name: &str, schema: &Schema) -> String {
    let mut name = name.to_owned();
    while schema.fields().iter().any(|field| *field.name() == name) {
        name.push('_');
    }
    name
}
