//! What can be told of a scan's conditions before any value is looked at.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::physical_expr::simplifier::PhysicalExprSimplifier;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{conjunction_opt, split_conjunction};
use datafusion::physical_expr_adapter::replace_columns_with_literals;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::Literal;

use super::Source;

/// The conditions that statistics may judge: those over columns that have any, and whose statistics can be relied on.
///
/// Those of floats leave out NaN, which by the order of SQL's comparisons here is beyond all numbers. Rows are compared
/// by IEEE 754, where it is not (see the `rows` module of the query crate): theirs can be relied on.
pub(super) fn judged(filters: &[Arc<dyn PhysicalExpr>], source: &Source) -> Option<Arc<dyn PhysicalExpr>> {
    let row = source.positions.as_ref().map(|positions| positions.row.as_str());
    let floats_too = source.positions.is_some();
    let reliable = |filter: &&Arc<dyn PhysicalExpr>| {
        collect_columns(filter).iter().all(|column| {
            let field = source.schema.fields().get(column.index());
            let float = field.is_none_or(|field| field.data_type().is_floating());
            (floats_too || !float) && Some(column.name()) != row
        })
    };
    conjunction_opt(filters.iter().flat_map(split_conjunction).filter(reliable).cloned())
}

/// What is left of a condition when some columns are known.
pub(super) enum Bound {
    /// No row meets it.
    Never,
    Perhaps(Arc<dyn PhysicalExpr>),
}

/// Puts a file's constants into a condition.
pub(super) fn with_constants(
    predicate: &Arc<dyn PhysicalExpr>,
    constants: &HashMap<String, ScalarValue>,
    schema: &SchemaRef,
) -> Result<Bound> {
    if !collect_columns(predicate).iter().any(|column| constants.contains_key(column.name())) {
        return Ok(Bound::Perhaps(Arc::clone(predicate)));
    }
    let replaced = replace_columns_with_literals(Arc::clone(predicate), constants)?;
    let predicate = simplify(replaced, schema)?;
    let value = predicate.downcast_ref::<Literal>().map(Literal::value);
    let never = matches!(value, Some(ScalarValue::Boolean(Some(false) | None)));
    Ok(if never { Bound::Never } else { Bound::Perhaps(predicate) })
}

pub(super) fn simplify(predicate: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    PhysicalExprSimplifier::new(schema).simplify(predicate)
}
