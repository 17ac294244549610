//! One sum for many: `sum(x + 1), sum(x + 2)` become `sum(x) + 1 * count(x)` and `sum(x) + 2 * count(x)`.
//!
//! DataFusion does so too, but by the operators, which [`crate::checked`] takes from it. This rule comes before that one, so
//! that what it writes is checked like all else.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Projection};
use datafusion::optimizer::AnalyzerRule;

/// Rewrites the sums of an aggregate that differ by constants only.
#[derive(Debug)]
pub(crate) struct ShareSums;

impl AnalyzerRule for ShareSums {
    fn name(&self) -> &'static str {
        "share_sums"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate) => share(aggregate),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rewritten.data)
    }
}

/// A sum of 64-bit integers plus a constant: the sum without it, and the constant.
fn shifted(expr: &Expr, aggregate: &Aggregate) -> Option<(AggregateFunction, Expr)> {
    let Expr::AggregateFunction(sum) = expr else { return None };
    let [Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right })] = sum.params.args.as_slice() else {
        return None;
    };
    let (of, constant) = match (left.as_ref(), right.as_ref()) {
        (Expr::Literal(..), Expr::Literal(..)) => return None,
        (of, constant @ Expr::Literal(..)) | (constant @ Expr::Literal(..), of) => (of, constant),
        _ => return None,
    };
    let schema = aggregate.input.schema();
    let is_int64 = |expr: &Expr| expr.get_type(schema).is_ok_and(|kind| kind == DataType::Int64);
    let plain = !sum.params.distinct && sum.params.order_by.is_empty() && sum.params.null_treatment.is_none();
    if sum.func.name() != "sum" || !plain || of.is_volatile() || !is_int64(of) || !is_int64(constant) {
        return None;
    }
    let mut bare = sum.clone();
    bare.params.args = vec![of.clone()];
    Some((bare, constant.clone()))
}

fn share(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let sums: Vec<_> = aggregate.aggr_expr.iter().map(|expr| shifted(expr, &aggregate)).collect();
    let mut times: HashMap<&AggregateFunction, usize> = HashMap::new();
    for (sum, _) in sums.iter().flatten() {
        *times.entry(sum).or_default() += 1;
    }
    // One alone would be two aggregates instead of one.
    let shared = |sum: &AggregateFunction| times.get(sum).is_some_and(|times| *times > 1);
    let grouped_by_sets = matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]);
    if grouped_by_sets || !sums.iter().flatten().any(|(sum, _)| shared(sum)) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let mut aggregates: Vec<Expr> = Vec::new();
    let mut column = |expr: Expr| {
        let name = expr.schema_name().to_string();
        if !aggregates.contains(&expr) {
            aggregates.push(expr);
        }
        Expr::Column(Column::new_unqualified(name))
    };
    let groups = aggregate.schema.iter().take(aggregate.group_expr.len());
    let mut columns: Vec<Expr> = groups.map(|field| Expr::Column(Column::from(field))).collect();
    for (expr, sum) in aggregate.aggr_expr.iter().zip(&sums) {
        let column = match sum {
            Some((sum, constant)) if shared(sum) => {
                let mut count = sum.clone();
                count.func = count_udaf();
                let (sum, count) =
                    (column(Expr::AggregateFunction(sum.clone())), column(Expr::AggregateFunction(count)));
                (sum + constant.clone() * count).alias(expr.schema_name().to_string())
            }
            _ => column(expr.clone()),
        };
        columns.push(column);
    }
    let Ok(below) = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), aggregates) else {
        // Two of its columns would have one name, as a cast and what it casts do.
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let input = Arc::new(LogicalPlan::Aggregate(below));
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, input)?)))
}
