//! Rows of one table: filtered, ordered, page by page. Planned from typed requests; no SQL text is made.
//!
//! Pages follow each other by position, not by offset: a token holds the last row's values in the order asked for and
//! where the row lies in its table (its file's number, its number in the file), which makes every order total. In the
//! table's own order a page begins to read where the last one ended; in any other, each page is the first rows, of
//! those after the last one's, of one scan.

mod filter;
mod float;
mod order;
mod token;

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, UInt32Type};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::ident;
use futures::{Stream, StreamExt};
use quern_core::suggest::{nearest, some_of};
use quern_core::{EngineError, Reason, Result};
use quern_sources::Positions;
use quern_sources::Table;
use quern_sources::provider::SnapshotProvider;

pub use filter::{Node, NodeKind};
pub(crate) use token::TokenKey;

use crate::errors;
use order::Keyset;
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
    /// Asks for the one row with this key, instead of a page.
    pub key: Option<Key>,
}

/// What names a row.
#[derive(Clone, Debug)]
pub struct Key {
    /// The table's key; no columns where it has none.
    pub columns: Vec<Path>,
    /// Their values.
    pub values: Vec<String>,
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
}

impl Start {
    /// Reads the request's token. Fails with PAGE_TOKEN_INVALID.
    pub(crate) fn of(rows: &Rows, key: &TokenKey) -> Result<Self> {
        let digest = token::digest(rows);
        let position = if rows.page_token.is_empty() { None } else { Some(key.open(&rows.page_token, &digest)?) };
        Ok(Self { position, digest })
    }

    /// The snapshot that the pages before have read.
    pub(crate) fn snapshot(&self) -> Option<&str> {
        self.position.as_ref().map(|position| position.snapshot.as_str())
    }
}

/// How to make a page of what the plan gives: columns that the caller wants, then those of the order, then the position.
pub(crate) struct Paging {
    wanted: usize,
    size: usize,
    keyset: Keyset,
    snapshot: String,
    digest: [u8; 32],
    /// How messages call the row that is asked for, where it is one.
    row: Option<String>,
}

/// A page: its batches, its columns, and the token of the next page, empty on the last.
pub(crate) struct Page {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) next: String,
}

/// A page's plan.
pub(crate) struct RowsPlan {
    pub(crate) plan: LogicalPlan,
    pub(crate) paging: Paging,
    /// Whether the rows come in order only where there is one partition.
    pub(crate) sequential: bool,
}

/// Plans a page of `table`, for which `read` makes a provider with positions.
pub(crate) fn plan(
    rows: &Rows,
    start: Start,
    table: &Table,
    read: impl FnOnce(Positions) -> SnapshotProvider,
) -> Result<RowsPlan> {
    let schema = table.schema();
    let keyset = Keyset::new(&rows.order, &schema)?;
    let wanted = wanted(&rows.fields, &schema)?;
    let sequential = keyset.is_empty();
    let after = start.position.as_ref().map(|position| (position.file, position.row));
    let positions = Positions {
        file: unused("__file", &schema),
        row: unused("__row", &schema),
        after: after.filter(|_| sequential),
    };
    let (file, row) = (ident(&positions.file), ident(&positions.row));
    let provider = read(positions);
    let failed = |e: DataFusionError| errors::planning("", &e);
    let scan = LogicalPlanBuilder::scan(table.name.as_str(), provider_as_source(Arc::new(provider)), None);
    let mut plan = scan.map_err(failed)?;
    if let Some(key) = &rows.key {
        plan = plan.filter(filter::key(key, table)?).map_err(failed)?;
    }
    if let Some(filter) = &rows.filter {
        plan = plan.filter(filter::condition(filter, &schema)?).map_err(failed)?;
    }
    if let Some(position) = &start.position {
        plan = plan.filter(keyset.after(position, &file, &row)?).map_err(failed)?;
    }
    if !sequential {
        plan = plan.sort(keyset.sort(&file, &row)).map_err(failed)?;
    }
    let count = wanted.len();
    let columns = wanted.into_iter().chain(keyset.columns(&schema)).chain([file, row]);
    let plan = plan.limit(0, Some(rows.page_size + 1)).and_then(|plan| plan.project(columns)).map_err(failed)?;
    let paging = Paging {
        wanted: count,
        size: rows.page_size,
        keyset,
        snapshot: table.snapshot.clone(),
        digest: start.digest,
        row: rows.key.as_ref().map(|key| format!("`{}` in `{}`", key.values.join("~"), table.name)),
    };
    Ok(RowsPlan { plan: plan.build().map_err(failed)?, paging, sequential })
}

impl Paging {
    /// The columns that the caller gets, of those that the plan gives.
    pub(crate) fn schema(&self, planned: &Schema) -> SchemaRef {
        Arc::new(Schema::new(planned.fields().iter().take(self.wanted).cloned().collect::<Vec<_>>()))
    }

    /// The one row that was asked for. Fails with ROW_NOT_FOUND or KEY_NOT_UNIQUE; does nothing for pages.
    pub(crate) fn check(&self, page: &Page) -> Result<()> {
        let Some(row) = &self.row else { return Ok(()) };
        if page.batches.is_empty() {
            return Err(EngineError::new(Reason::RowNotFound, format!("no row {row}")));
        }
        if !page.next.is_empty() {
            let message = format!(
                "more than one row has the key {row}; `key` in quern.yaml must name columns that tell rows apart"
            );
            return Err(EngineError::new(Reason::KeyNotUnique, message));
        }
        Ok(())
    }

    /// Whether the result is a page, which has a token, and not a row.
    pub(crate) fn is_page(&self) -> bool {
        self.row.is_none()
    }

    /// Reads a page, and one row more to learn whether there is a next one. What it holds is taken from `memory`.
    pub(crate) async fn read<S>(
        &self,
        mut input: S,
        key: &TokenKey,
        memory: &MemoryReservation,
    ) -> Result<Page, DataFusionError>
    where
        S: Stream<Item = Result<RecordBatch, DataFusionError>> + Unpin,
    {
        let (mut batches, mut rows, mut last) = (Vec::new(), 0, None);
        while let Some(batch) = input.next().await {
            let batch = batch?;
            memory.try_grow(batch.get_array_memory_size())?;
            let taken = batch.num_rows().min(self.size - rows);
            if taken > 0 {
                rows += taken;
                batches.push(batch.slice(0, taken).project(&(0..self.wanted).collect::<Vec<_>>())?);
            }
            let more = batch.num_rows() > taken;
            if taken > 0 {
                last = Some((batch, taken - 1));
            }
            if let (true, Some((batch, at))) = (more, &last) {
                return Ok(Page { batches, next: key.seal(&self.position(batch, *at)?, &self.digest) });
            }
        }
        Ok(Page { batches, next: String::new() })
    }

    fn position(&self, batch: &RecordBatch, at: usize) -> Result<Position, DataFusionError> {
        let end = batch.num_columns();
        Ok(Position {
            snapshot: self.snapshot.clone(),
            file: batch.column(end - 2).as_primitive::<UInt32Type>().value(at),
            row: batch.column(end - 1).as_primitive::<Int64Type>().value(at),
            values: self.keyset.values(&batch.columns()[self.wanted..end - 2], at)?,
        })
    }
}

/// What a page in the making holds.
pub(crate) fn reservation(pool: &Arc<dyn datafusion::execution::memory_pool::MemoryPool>) -> MemoryReservation {
    MemoryConsumer::new("page").register(pool)
}

/// The columns wanted, nested ones under their path's name.
fn wanted(fields: &[Path], schema: &Schema) -> Result<Vec<Expr>> {
    if fields.is_empty() {
        return Ok(schema.fields().iter().map(|field| ident(field.name())).collect());
    }
    let mut names = std::collections::BTreeSet::new();
    let each = fields.iter().map(|path| {
        let (expr, _, spelled) = resolve(path, schema)?;
        let name = spelled.join(".");
        if !names.insert(name.clone()) {
            return Err(
                EngineError::new(Reason::DuplicateColumn, format!("`fields` has `{name}` twice")).with("column", name)
            );
        }
        Ok(if path.len() == 1 { expr } else { expr.alias(name) })
    });
    each.collect()
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
