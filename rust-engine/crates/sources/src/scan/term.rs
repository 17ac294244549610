//! One term of a scan's condition.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::FilterBuilder;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::PhysicalExpr;

use super::chosen::Chosen;
use super::distinct::Distinct;

/// Rows are looked at by themselves where at most one in this many is chosen.
pub(super) const SPARSE: usize = 5;
/// What a term is taken to cost that is made of comparisons of numbers, less how many they are.
pub(super) const COMPARISONS: usize = DEAR / 2;
/// What any other term is taken to cost.
pub(super) const DEAR: usize = 1 << 20;

/// A condition over a batch, and the same over just the columns that it needs.
#[derive(Clone)]
pub(super) struct Term {
    expr: Arc<dyn PhysicalExpr>,
    columns: Vec<usize>,
    narrow: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    cost: usize,
    /// Whether it had better be evaluated once for each value of its column.
    once: bool,
}

impl Term {
    /// A term over columns of `schema`.
    pub(super) fn new(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self> {
        let mut columns: Vec<usize> = collect_columns(expr).iter().map(Column::index).collect();
        columns.sort_unstable();
        columns.dedup();
        let narrow_schema = Arc::new(schema.project(&columns)?);
        Ok(Self {
            expr: Arc::clone(expr),
            narrow: reassign_expr_columns(Arc::clone(expr), &narrow_schema)?,
            cost: cost(expr.as_ref(), &narrow_schema),
            once: !is_volatile(expr) && !is_plain(expr.as_ref()),
            columns,
            schema: narrow_schema,
        })
    }

    /// What it costs for a row, in comparison. Terms that may fail for some rows cost the most, so that they stay behind
    /// those that may keep such rows from them.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// Of the chosen rows, those that meet it.
    pub(super) fn choose(&self, batch: &RecordBatch, chosen: Chosen) -> Result<Chosen> {
        let rows = batch.num_rows();
        match chosen {
            Chosen::None => Ok(Chosen::None),
            Chosen::Some(mask) if mask.true_count() * SPARSE < rows => {
                let filter = FilterBuilder::new(&mask).build();
                let columns = self.columns.iter().map(|at| filter.filter(batch.column(*at)));
                let options = RecordBatchOptions::new().with_row_count(Some(filter.count()));
                let columns = columns.collect::<Result<_, _>>()?;
                let few = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
                let left = Chosen::of_value(self.narrow.evaluate(&few)?, few.num_rows())?;
                Ok(left.within(mask))
            }
            chosen => chosen.and(self.choose_all(batch)?),
        }
    }

    /// Those that meet it among all.
    fn choose_all(&self, batch: &RecordBatch) -> Result<Chosen> {
        if let (true, [column]) = (self.once, self.columns.as_slice())
            && let Some(distinct) = Distinct::of(batch.column(*column))?
        {
            let few = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::clone(&distinct.values)])?;
            let met = Chosen::of_value(self.narrow.evaluate(&few)?, few.num_rows())?;
            return Ok(met.of_codes(&distinct.codes));
        }
        Chosen::of_value(self.expr.evaluate(batch)?, batch.num_rows())
    }
}

/// The bytes that a comparison of numbers, dates and the like reads of a row.
fn cost(expr: &dyn PhysicalExpr, schema: &Schema) -> usize {
    let width = |kind: &DataType| kind.primitive_width();
    let widths = schema.fields().iter().map(|field| width(field.data_type())).sum::<Option<usize>>();
    match widths {
        Some(widths) if is_comparison(expr) => widths.min(COMPARISONS - 1),
        Some(_) => comparisons(expr).map_or(DEAR, |count| (COMPARISONS + count).min(DEAR - 1)),
        None => DEAR,
    }
}

fn is_comparison(expr: &dyn PhysicalExpr) -> bool {
    let plain = |side: &Arc<dyn PhysicalExpr>| side.is::<Column>() || side.is::<Literal>();
    let comparison = expr.downcast_ref::<BinaryExpr>().filter(|b| b.op().supports_propagation());
    comparison.is_some_and(|b| plain(b.left()) && plain(b.right()))
}

/// Whether an expression only compares, which takes no longer than to look for equal values.
fn is_plain(expr: &dyn PhysicalExpr) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    let plain = match expr.downcast_ref::<BinaryExpr>().map(BinaryExpr::op) {
        Some(Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | And | Or) => true,
        Some(_) => false,
        None => {
            let leaf = expr.is::<Column>() || expr.is::<Literal>();
            leaf || expr.is::<InListExpr>()
                || expr.is::<NotExpr>()
                || expr.is::<IsNullExpr>()
                || expr.is::<IsNotNullExpr>()
        }
    };
    plain && expr.children().iter().all(|child| is_plain(child.as_ref()))
}

/// How many comparisons a term is made of, if it is of nothing else.
fn comparisons(expr: &dyn PhysicalExpr) -> Option<usize> {
    if let Some(logic) = expr.downcast_ref::<BinaryExpr>().filter(|b| b.op().is_logic_operator()) {
        return Some(comparisons(logic.left().as_ref())? + comparisons(logic.right().as_ref())?);
    }
    let null = expr.downcast_ref::<IsNullExpr>().map(IsNullExpr::arg);
    let null = null.or_else(|| expr.downcast_ref::<IsNotNullExpr>().map(IsNotNullExpr::arg));
    (is_comparison(expr) || expr.is::<Literal>() || null.is_some_and(|arg| arg.is::<Column>())).then_some(1)
}
