//! The order of rows, and what comes after a row in it.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, SortExpr, lit};
use quern_core::{EngineError, Reason, Result};

use super::float::rank;
use super::ordered::By;
use super::token::Position;
use super::{OrderTerm, resolve, type_name, unused};

/// The columns that rows are ordered by before their position decides. Nulls come last, either way.
#[derive(Default)]
pub(super) struct Keyset {
    terms: Vec<Term>,
}

struct Term {
    expr: Expr,
    data_type: DataType,
    descending: bool,
}

impl Keyset {
    /// Fails with UNKNOWN_COLUMN, or ORDER_INVALID for a column that has no order.
    pub(super) fn new(order: &[OrderTerm], schema: &Schema) -> Result<Self> {
        let mut seen = Vec::new();
        let terms = order.iter().map(|term| {
            let (expr, data_type, spelled) = resolve(&term.path, schema)?;
            let name = spelled.join(".");
            let invalid = |message: String| EngineError::new(Reason::OrderInvalid, message).with("column", &name);
            if data_type.is_nested() || matches!(data_type, DataType::Interval(_)) {
                return Err(invalid(format!("`{name}` is {}, by which rows can't be ordered", type_name(&data_type))));
            }
            if seen.contains(&spelled) {
                return Err(invalid(format!("`order_by` has `{name}` twice")));
            }
            seen.push(spelled);
            if data_type.is_floating() {
                return Ok(Term { expr: rank(expr), data_type: DataType::Int64, descending: term.descending });
            }
            Ok(Term { expr, data_type, descending: term.descending })
        });
        Ok(Self { terms: terms.collect::<Result<_>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The order by places in the table's schema, where all columns are plain ones and their values compare as SQL has them.
    pub(super) fn by(&self, schema: &Schema) -> Option<Vec<By>> {
        let by = |term: &Term| match &term.expr {
            Expr::Column(column) => {
                Some(By { place: schema.index_of(&column.name).ok()?, descending: term.descending })
            }
            _ => None,
        };
        self.terms.iter().map(by).collect()
    }

    /// What the first column alone tells of the rows after one with these values.
    pub(super) fn not_before(&self, values: &[ScalarValue]) -> Expr {
        let (Some(term), Some(value)) = (self.terms.first(), values.first()) else { return lit(true) };
        let column = || term.expr.clone();
        if value.is_null() {
            return column().is_null();
        }
        let value = lit(value.clone());
        let bound = if term.descending { column().lt_eq(value) } else { column().gt_eq(value) };
        bound.or(column().is_null())
    }

    /// The order in full.
    pub(super) fn sort(&self, file: &Expr, row: &Expr) -> Vec<SortExpr> {
        let terms = self.terms.iter().map(|term| term.expr.clone().sort(!term.descending, false));
        terms.chain([file, row].map(|position| position.clone().sort(true, false))).collect()
    }

    /// The columns of the order, under names that `schema` has not.
    pub(super) fn columns(&self, schema: &Schema) -> Vec<Expr> {
        let terms = self.terms.iter().enumerate();
        terms.map(|(at, term)| term.expr.clone().alias(unused(&format!("__order{at}"), schema))).collect()
    }

    fn converter(&self) -> Result<RowConverter, DataFusionError> {
        let fields = self.terms.iter().map(|term| SortField::new(term.data_type.clone()));
        Ok(RowConverter::new(fields.collect())?)
    }

    /// Writes a row's values of [`Self::columns`].
    pub(super) fn values(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, DataFusionError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let one: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
        Ok(self.converter()?.convert_columns(&one)?.row(0).as_ref().to_vec())
    }

    /// Reads what [`Self::values`] wrote; the token's seal says that nobody else did.
    pub(super) fn read(&self, values: &[u8]) -> Result<Vec<ScalarValue>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        self.parse(values).map_err(|e| EngineError::internal(format!("a page token can't be read: {e}")))
    }

    fn parse(&self, values: &[u8]) -> Result<Vec<ScalarValue>, DataFusionError> {
        let converter = self.converter()?;
        let parser = converter.parser();
        let columns = converter.convert_rows([parser.parse(values)])?;
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    /// The rows after a position: greater in the first of the columns that are not equal, in the end in the position.
    pub(super) fn after(&self, position: &Position, file: &Expr, row: &Expr) -> Result<Expr> {
        let values = self.read(&position.values)?;
        let (last_file, last_row) = (lit(position.file), lit(position.row));
        let in_file = file.clone().eq(last_file.clone()).and(row.clone().gt(last_row));
        let mut after = file.clone().gt(last_file).or(in_file);
        for (term, value) in self.terms.iter().zip(values).rev() {
            let column = || term.expr.clone();
            after = if value.is_null() {
                column().is_null().and(after)
            } else {
                let value = lit(value);
                let beyond = if term.descending { column().lt(value.clone()) } else { column().gt(value.clone()) };
                beyond.or(column().is_null()).or(column().eq(value).and(after))
            };
        }
        Ok(after)
    }
}
