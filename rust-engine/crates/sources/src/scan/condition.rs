//! The conditions of a scan, evaluated over its batches.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{and, prep_null_mask_filter};
use arrow::datatypes::Schema;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::utils::reassign_expr_columns;
use datafusion::physical_expr::{DynamicFilterTracking, conjunction_opt, split_conjunction};
use datafusion::physical_expr_common::physical_expr::snapshot_generation;
use datafusion::physical_plan::PhysicalExpr;

/// Rows over which a condition that need not be evaluated is watched.
const TRIAL: usize = 65_536;
/// The share of rows that it must drop to be worth its while: one in this many.
const WORTH: usize = 8;
/// Conditions are evaluated for chosen rows alone where at most one in this many is left.
const SPARSE: usize = 5;

/// What rows must meet.
pub(super) struct Condition {
    fixed: Option<Arc<dyn PhysicalExpr>>,
    hints: Vec<Hint>,
}

/// A condition that joins and limits find out while they run. They would drop the same rows themselves, so that it may be
/// left out where it costs more than it saves.
struct Hint {
    expr: Arc<dyn PhysicalExpr>,
    generation: u64,
    seen: usize,
    dropped: usize,
}

impl Hint {
    /// Whether to evaluate it: it is tried anew whenever it has changed.
    fn is_worth(&mut self) -> bool {
        let generation = snapshot_generation(&self.expr);
        if generation != self.generation {
            *self = Self { expr: Arc::clone(&self.expr), generation, seen: 0, dropped: 0 };
        }
        self.seen < TRIAL || self.dropped * WORTH >= self.seen
    }
}

/// Which rows of a batch meet a condition.
pub(super) enum Chosen {
    All,
    None,
    Some(BooleanArray),
}

impl Condition {
    /// The filters over columns of `schema`, which they find by name.
    pub(super) fn new(filters: &[Arc<dyn PhysicalExpr>], schema: &Schema) -> Result<Self> {
        let (mut fixed, mut hints) = (Vec::new(), Vec::new());
        for filter in filters.iter().flat_map(split_conjunction) {
            let expr = reassign_expr_columns(Arc::clone(filter), schema)?;
            if DynamicFilterTracking::classify(&expr).contains_dynamic_filter() {
                hints.push(Hint { expr, generation: 0, seen: 0, dropped: 0 });
            } else {
                fixed.push(expr);
            }
        }
        Ok(Self { fixed: conjunction_opt(fixed), hints })
    }

    /// Evaluates it.
    pub(super) fn choose(&mut self, batch: &RecordBatch) -> Result<Chosen> {
        let mut chosen = match &self.fixed {
            Some(fixed) => choice(fixed.evaluate(batch)?, batch.num_rows())?,
            None => Chosen::All,
        };
        for hint in &mut self.hints {
            if matches!(chosen, Chosen::None) || !hint.is_worth() {
                continue;
            }
            let before = chosen.count(batch.num_rows());
            chosen = match chosen {
                Chosen::Some(mask) if before * SPARSE < mask.len() => {
                    let more = hint.expr.evaluate_selection(batch, &mask)?;
                    Chosen::Some(mask).and(choice(more, batch.num_rows())?)?
                }
                chosen => chosen.and(choice(hint.expr.evaluate(batch)?, batch.num_rows())?)?,
            };
            hint.seen += before;
            hint.dropped += before - chosen.count(batch.num_rows());
        }
        Ok(chosen)
    }
}

impl Chosen {
    /// How many of `rows` rows it is.
    pub(super) fn count(&self, rows: usize) -> usize {
        match self {
            Self::All => rows,
            Self::None => 0,
            Self::Some(mask) => mask.true_count(),
        }
    }

    fn of(mask: BooleanArray) -> Self {
        match mask.true_count() {
            0 => Self::None,
            all if all == mask.len() => Self::All,
            _ => Self::Some(mask),
        }
    }

    fn and(self, other: Self) -> Result<Self> {
        Ok(match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, same) | (same, Self::All) => same,
            (Self::Some(left), Self::Some(right)) => Self::of(and(&left, &right)?),
        })
    }
}

/// A condition's value as a choice: null is not true.
fn choice(value: ColumnarValue, rows: usize) -> Result<Chosen> {
    Ok(match value {
        ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))) => Chosen::All,
        ColumnarValue::Scalar(ScalarValue::Boolean(_)) => Chosen::None,
        ColumnarValue::Array(array) if array.len() == rows => match array.as_boolean_opt() {
            Some(mask) if mask.null_count() > 0 => Chosen::of(prep_null_mask_filter(mask)),
            Some(mask) => Chosen::of(mask.clone()),
            None => return internal_err!("a condition is {}", array.data_type()),
        },
        _ => return internal_err!("a condition has no value for each row"),
    })
}
