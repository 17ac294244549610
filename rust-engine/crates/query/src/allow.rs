//! The allow-list over the logical plan: what may run, and whether its result may be kept.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, Volatility};
use quern_core::Result;

use crate::errors;
use crate::parse::not_allowed;

/// What a walk over the plan found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// The functions whose value differs from call to call or with the time; empty for a cacheable plan.
    pub(crate) volatile: BTreeSet<String>,
    /// Expressions that can fail on data, for the message of a failure.
    pub(crate) divisions: BTreeSet<String>,
    /// Casts, likewise.
    pub(crate) casts: BTreeSet<String>,
    /// Sums, products and differences, likewise.
    pub(crate) arithmetic: BTreeSet<String>,
}

/// Walks the plan and every subquery. Fails with STATEMENT_NOT_ALLOWED on any node that is not on the list.
pub(crate) fn check(plan: &LogicalPlan) -> Result<Findings> {
    let mut findings = Findings::default();
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        if !is_allowed(node) {
            refused = Some(not_allowed("only one read-only query (SELECT, WITH, VALUES) is taken"));
            return Ok(TreeNodeRecursion::Stop);
        }
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                note(e, &mut findings);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map_err(|e: DataFusionError| errors::planning("", &e))?;
    match refused {
        Some(error) => Err(error),
        None => Ok(findings),
    }
}

fn is_allowed(node: &LogicalPlan) -> bool {
    matches!(
        node,
        LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::RecursiveQuery(_)
    )
}

/// How many expressions of a kind are kept for messages.
const KEPT: usize = 3;

fn note(expr: &Expr, findings: &mut Findings) {
    let keep = |set: &mut BTreeSet<String>| {
        if set.len() < KEPT {
            set.insert(format!("`{}`", expr.human_display()));
        }
    };
    match expr {
        Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
            findings.volatile.insert(f.func.name().to_owned());
        }
        Expr::AggregateFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
            findings.volatile.insert(f.func.name().to_owned());
        }
        Expr::Cast(_) => keep(&mut findings.casts),
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::Divide | Operator::Modulo => keep(&mut findings.divisions),
            Operator::Plus | Operator::Minus | Operator::Multiply => keep(&mut findings.arithmetic),
            _ => {}
        },
        _ => {}
    }
}
