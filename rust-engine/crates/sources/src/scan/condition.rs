//! The conditions of a scan, evaluated over its batches.
//!
//! Each term of a conjunction is evaluated by itself, the cheapest first, and for the rows alone that the ones before it
//! left where those are few: only the columns that a term needs are filtered for it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_expr::utils::reassign_expr_columns;
use datafusion::physical_expr::{DynamicFilterTracking, split_conjunction};
use datafusion::physical_expr_common::physical_expr::snapshot_generation;
use datafusion::physical_plan::PhysicalExpr;

use super::chosen::Chosen;
use super::term::Term;
use arrow::datatypes::Schema;

/// Rows over which a condition that need not be evaluated is watched.
const TRIAL: usize = 65_536;
/// The share of rows that it must drop to be worth its while: one in this many.
const WORTH: usize = 8;

/// What rows must meet.
pub(super) struct Condition {
    fixed: Vec<Term>,
    hints: Vec<Hint>,
}

/// A condition that joins and limits find out while they run. They would drop the same rows themselves, so that each term
/// may be left out where it costs more than it saves.
struct Hint {
    expr: Arc<dyn PhysicalExpr>,
    generation: Option<u64>,
    terms: Vec<Trial>,
}

/// A term, and what came of it so far.
struct Trial {
    term: Term,
    seen: usize,
    dropped: usize,
}

impl Trial {
    fn is_worth(&self) -> bool {
        self.seen < TRIAL || self.dropped * WORTH >= self.seen
    }
}

impl Hint {
    /// Takes over what was found out since: all is tried anew whenever it has changed.
    fn refresh(&mut self, schema: &Schema) -> Result<()> {
        let generation = snapshot_generation(&self.expr);
        if self.generation == Some(generation) {
            return Ok(());
        }
        let now = match self.expr.downcast_ref::<DynamicFilterPhysicalExpr>() {
            Some(dynamic) => dynamic.current()?,
            None => Arc::clone(&self.expr),
        };
        let trial = |term: &Arc<dyn PhysicalExpr>| Ok(Trial { term: Term::new(term, schema)?, seen: 0, dropped: 0 });
        self.terms = split_conjunction(&now).into_iter().map(trial).collect::<Result<_>>()?;
        self.generation = Some(generation);
        Ok(())
    }
}

impl Condition {
    /// The filters over columns of `schema`, which they find by name.
    pub(super) fn new(filters: &[Arc<dyn PhysicalExpr>], schema: &Schema) -> Result<Self> {
        let (mut fixed, mut hints) = (Vec::new(), Vec::new());
        for filter in filters.iter().flat_map(split_conjunction) {
            let expr = reassign_expr_columns(Arc::clone(filter), schema)?;
            if DynamicFilterTracking::classify(&expr).contains_dynamic_filter() {
                hints.push(Hint { expr, generation: None, terms: Vec::new() });
            } else {
                fixed.push(Term::new(&expr, schema)?);
            }
        }
        fixed.sort_by_key(Term::cost);
        Ok(Self { fixed, hints })
    }

    /// Evaluates it.
    pub(super) fn choose(&mut self, batch: &RecordBatch) -> Result<Chosen> {
        let mut chosen = Chosen::All;
        for term in &self.fixed {
            chosen = term.choose(batch, chosen)?;
        }
        for hint in &mut self.hints {
            hint.refresh(batch.schema_ref())?;
            for trial in hint.terms.iter_mut().filter(|trial| trial.is_worth()) {
                let before = chosen.count(batch.num_rows());
                chosen = trial.term.choose(batch, chosen)?;
                trial.seen += before;
                trial.dropped += before - chosen.count(batch.num_rows());
            }
        }
        Ok(chosen)
    }
}
