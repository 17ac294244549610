//! Plans of statements that were asked before: a statement is parsed, planned and optimized once for each state of the
//! tables that it reads.
//!
//! What is kept is the plan before its last step. That step ties joins and limits to the scans that they tell what they
//! found out, which belongs to one execution; it is taken for each anew, on operators in their first state.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use moka::sync::Cache;

use crate::allow::Findings;
use crate::params::Params;

/// What all plans together may take, about, in bytes.
const CAPACITY: u64 = 64 << 20;
/// What an operator of a plan takes, about.
const NODE_BYTES: usize = 8 << 10;
/// What a byte of a statement takes in its plan, about.
const TEXT_BYTES: usize = 32;

/// A statement that was planned.
pub(crate) struct Plan {
    /// The tables that it names.
    pub(crate) names: BTreeSet<String>,
    /// Their snapshots, in the same order.
    pub(crate) snapshots: Vec<String>,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) findings: Findings,
}

/// Plans by statement and parameters.
pub(crate) struct Plans(Cache<String, Arc<Plan>>);

impl Plans {
    pub(crate) fn new() -> Self {
        let weigh = |key: &String, plan: &Arc<Plan>| {
            let bytes = count(&plan.plan) * NODE_BYTES + key.len() * TEXT_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(CAPACITY).weigher(weigh).build())
    }

    /// The last plan of a statement.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Plan>> {
        self.0.get(key)
    }

    /// Keeps a plan that may be used again: one that gives the same rows each time, and whose operators can be set back.
    pub(crate) fn put(&self, key: String, plan: Plan) {
        if plan.findings.volatile.is_empty() && is_repeatable(&plan.plan) {
            self.0.insert(key, Arc::new(plan));
        }
    }
}

/// What names a statement with its parameters and partitions; other spellings of it have other names.
pub(crate) fn key(sql: &str, params: &Params, partitions: usize) -> String {
    // The text's length before it keeps it from running into the parameters.
    format!("{partitions} {}\n{sql}{params:?}", sql.len())
}

fn count(plan: &Arc<dyn ExecutionPlan>) -> usize {
    1 + plan.children().into_iter().map(count).sum::<usize>()
}

/// Recursive queries hold the state of their recursion in the plan.
fn is_repeatable(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut repeatable = true;
    let visited = plan.apply(|node| {
        repeatable &= !matches!(node.name(), "RecursiveQueryExec" | "WorkTableExec");
        Ok(if repeatable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    repeatable && visited.is_ok()
}

/// The optimizer's rules but for the last step.
pub(crate) fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let last = last_step();
    PhysicalOptimizer::new().rules.into_iter().filter(|rule| rule.name() != last.name()).collect()
}

fn last_step() -> FilterPushdown {
    FilterPushdown::new_post_optimization()
}

/// Makes a plan ready for one execution.
pub(crate) fn ready(plan: &Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
    last_step().optimize(reset_plan_states(Arc::clone(plan))?, config)
}
