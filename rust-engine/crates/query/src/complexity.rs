//! How large a statement grows once what it shares is written out.
//!
//! The planner walks a WITH query at every place that uses it, and substitutes a column's definition wherever a filter
//! names it. Thirty short queries that each use the one before twice make a billion, so the written-out size is
//! counted before anything is walked.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement, Visit, Visitor};
use quern_core::{EngineError, Reason, Result};

use crate::errors;

/// The most tables that a statement may read, each WITH query written out where it is used.
const MAX_RELATIONS: u64 = 1_000;

/// The most terms that a column's definition may have, the definitions below it written out.
const MAX_TERMS: u64 = 100_000;

fn too_complex(what: &str) -> EngineError {
    EngineError::new(Reason::SqlTooComplex, format!("the statement is too complex: {what} are taken"))
}

/// Refuses a statement whose WITH queries multiply, with SQL_TOO_COMPLEX.
pub(crate) fn check_statement(statement: &Statement) -> Result<()> {
    let mut relations = Relations { scopes: vec![Scope::default()] };
    let _ = statement.visit(&mut relations);
    let most = relations.scopes.iter().map(|s| s.weight).fold(0, u64::max);
    if most > MAX_RELATIONS {
        return Err(too_complex(&format!(
            "at most {MAX_RELATIONS} tables, counting those of a WITH query at each of its uses,"
        )));
    }
    Ok(())
}

/// Counts the relations that each query reads, with the queries that enclose it.
struct Relations {
    scopes: Vec<Scope>,
}

#[derive(Default)]
struct Scope {
    /// The query's own WITH queries that were not visited yet, the next one last: name and address.
    pending: Vec<(String, *const Query)>,
    /// What each visited WITH query weighs.
    known: HashMap<String, u64>,
    weight: u64,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|w| &w.cte_tables);
        let mut pending: Vec<_> =
            tables.map(|t| (t.alias.name.value.to_lowercase(), std::ptr::from_ref(t.query.as_ref()))).collect();
        pending.reverse();
        self.scopes.push(Scope { pending, ..Scope::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let Some(ended) = self.scopes.pop() else { return ControlFlow::Break(()) };
        let Some(outer) = self.scopes.last_mut() else { return ControlFlow::Break(()) };
        match outer.pending.pop_if(|(_, of)| std::ptr::eq(*of, query)) {
            Some((name, _)) => {
                outer.known.insert(name, ended.weight);
            }
            None => outer.weight = outer.weight.saturating_add(ended.weight),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.to_string().to_lowercase();
        let weight = self.scopes.iter().rev().find_map(|s| s.known.get(&name).copied()).unwrap_or(1);
        if let Some(scope) = self.scopes.last_mut() {
            scope.weight = scope.weight.saturating_add(weight);
        }
        ControlFlow::Continue(())
    }
}

/// Refuses a plan whose column definitions multiply, with SQL_TOO_COMPLEX.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<()> {
    let mut terms = Terms::default();
    plan.visit_with_subqueries(&mut terms).map_err(|e| errors::planning("", &e))?;
    if terms.most > MAX_TERMS {
        return Err(too_complex(&format!(
            "at most {MAX_TERMS} terms in a column, counting those of the columns that it is made of,"
        )));
    }
    Ok(())
}

/// Counts the terms of each column's definition, from the leaves up.
#[derive(Default)]
struct Terms {
    /// The columns' terms of the nodes that were visited and whose parents were not, the last one on top.
    visited: Vec<Vec<u64>>,
    /// How many there were when each enclosing node was entered.
    entered: Vec<usize>,
    most: u64,
}

impl TreeNodeVisitor<'_> for Terms {
    type Node = LogicalPlan;

    fn f_down(&mut self, _: &LogicalPlan) -> std::result::Result<TreeNodeRecursion, DataFusionError> {
        self.entered.push(self.visited.len());
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, node: &LogicalPlan) -> std::result::Result<TreeNodeRecursion, DataFusionError> {
        let inputs = node.inputs();
        let below = self.visited.split_off(self.visited.len().saturating_sub(inputs.len()));
        self.visited.truncate(self.entered.pop().unwrap_or(0)); // Leaves out the node's subqueries.
        let mut terms = Vec::new();
        node.apply_expressions(|expr| {
            terms.push(count(expr, &inputs, &below)?);
            Ok(TreeNodeRecursion::Continue)
        })?;
        self.most = terms.iter().copied().fold(self.most, u64::max);
        let all = || below.iter().flatten().copied();
        let width = node.schema().fields().len();
        let mut columns: Vec<u64> = match node {
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => terms,
            LogicalPlan::Window(_) => all().chain(terms).collect(),
            LogicalPlan::Union(_) => {
                (0..width).map(|at| below.iter().filter_map(|i| i.get(at).copied()).fold(1, u64::max)).collect()
            }
            _ => all().collect(),
        };
        columns.resize(width, 1);
        self.visited.push(columns);
        Ok(TreeNodeRecursion::Continue)
    }
}

fn count(expr: &Expr, inputs: &[&LogicalPlan], below: &[Vec<u64>]) -> std::result::Result<u64, DataFusionError> {
    let mut terms = 0u64;
    expr.apply(|e| {
        let more = match e {
            Expr::Column(column) => inputs
                .iter()
                .zip(below)
                .find_map(|(input, columns)| columns.get(input.schema().maybe_index_of_column(column)?).copied())
                .unwrap_or(1),
            _ => 1,
        };
        terms = terms.saturating_add(more);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn doubling(levels: usize) -> String {
        let mut sql = "WITH c0 AS (SELECT 1 AS n FROM t)".to_owned();
        for level in 1..=levels {
            sql += &format!(", c{level} AS (SELECT a.n FROM c{0} a JOIN c{0} b ON a.n = b.n)", level - 1);
        }
        sql + &format!(" SELECT * FROM C{levels}")
    }

    #[test]
    fn relations_are_counted_as_written_out() {
        check_statement(&parse(&doubling(9)).expect("parses")).expect("512 are fine");
        let refused = check_statement(&parse(&doubling(10)).expect("parses")).expect_err("1024 are too many");
        assert_eq!(refused.reason, Reason::SqlTooComplex);
    }

    #[test]
    fn inner_with_queries_are_counted_in_their_scope() {
        let inner = |from: &str| {
            format!("SELECT * FROM (WITH i AS (SELECT * FROM {from} x, {from} y) SELECT * FROM i p, i q, i r, i s) z")
        };
        let sql = format!("WITH a AS ({}), b AS ({}), c AS ({}) {}", inner("t"), inner("a"), inner("b"), inner("c"));
        let refused = check_statement(&parse(&sql).expect("parses")).expect_err("4,096 are too many");
        assert_eq!(refused.reason, Reason::SqlTooComplex);
    }
}
