//! The conditions of a scan, evaluated over its batches.
//!
//! Each term of a conjunction is evaluated by itself, the cheapest first, and for the rows alone that the ones before it
//! left where those are few: only the columns that a term needs are filtered for it. Among terms that cost alike, what joins
//! and limits find out comes first: a limit's bound leaves few rows to compare with the place where a page begins.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_expr::utils::reassign_expr_columns;
use datafusion::physical_expr::{DynamicFilterTracking, split_conjunction};
use datafusion::physical_expr_common::physical_expr::snapshot_generation;
use datafusion::physical_plan::PhysicalExpr;

use super::chosen::Chosen;
use super::term::{COMPARISONS, DEAR, Term};

/// Rows over which a condition that need not be evaluated is watched.
const TRIAL: usize = 65_536;
/// The share of rows that it must drop to be worth its while: one in this many.
const WORTH: usize = 8;

/// What rows must meet.
#[derive(Clone)]
pub(super) struct Condition {
    /// The cheapest first.
    fixed: Vec<Term>,
    hints: Vec<Hint>,
}

/// A condition that joins and limits find out while they run. They would drop the same rows themselves, so that each term
/// may be left out where it costs more than it saves.
#[derive(Clone)]
struct Hint {
    expr: Arc<dyn PhysicalExpr>,
    generation: Option<u64>,
    terms: Vec<Trial>,
}

/// A term, and what came of it so far.
#[derive(Clone)]
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

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.hints.is_empty()
    }

    /// Evaluates it.
    pub(super) fn choose(&mut self, batch: &RecordBatch) -> Result<Chosen> {
        for hint in &mut self.hints {
            hint.refresh(batch.schema_ref())?;
        }
        let mut chosen = Chosen::All;
        let mut fixed = self.fixed.iter().peekable();
        for costs in [0..COMPARISONS, COMPARISONS..DEAR, DEAR..DEAR + 1] {
            let hints = self.hints.iter_mut().flat_map(|hint| &mut hint.terms);
            for trial in hints.filter(|trial| trial.is_worth() && costs.contains(&trial.term.cost())) {
                let before = chosen.count(batch.num_rows());
                chosen = trial.term.choose(batch, chosen)?;
                trial.seen += before;
                trial.dropped += before - chosen.count(batch.num_rows());
            }
            while let Some(term) = fixed.next_if(|term| costs.contains(&term.cost())) {
                chosen = term.choose(batch, chosen)?;
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{AsArray, BooleanArray, Int64Array, StringArray, StringViewArray};
    use arrow::compute::prep_null_mask_filter;
    use arrow::datatypes::{DataType, Field};
    use datafusion::common::cast::as_boolean_array;
    use datafusion::logical_expr::{ColumnarValue, Operator, Volatility, create_udf};
    use datafusion::physical_expr::expressions::{binary, col, like, lit};
    use datafusion::physical_expr::{ScalarFunctionExpr, conjunction};

    use super::*;

    const ROWS: i64 = 1_000;

    fn batch() -> RecordBatch {
        let fields = [("key", DataType::Int64), ("text", DataType::Utf8), ("small", DataType::Int64)];
        let schema = Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec());
        let keys: Int64Array = (0..ROWS).map(|row| (row % 7 != 0).then_some(row * 37 % ROWS)).collect();
        let texts: StringArray = (0..ROWS).map(|row| (row % 5 != 0).then(|| format!("text {row}"))).collect();
        let smalls: Int64Array = (0..ROWS).map(|row| Some(row % 10)).collect();
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(texts), Arc::new(smalls)])
            .expect("a batch")
    }

    fn mask(chosen: Chosen, rows: usize) -> BooleanArray {
        match chosen {
            Chosen::All => BooleanArray::from(vec![true; rows]),
            Chosen::None => BooleanArray::from(vec![false; rows]),
            Chosen::Some(mask) => mask,
        }
    }

    fn compare(schema: &Schema, column: &str, op: Operator, value: i64) -> Arc<dyn PhysicalExpr> {
        binary(col(column, schema).expect("a column"), op, lit(value), schema).expect("a comparison")
    }

    #[test]
    fn terms_choose_what_their_conjunction_does() {
        let batch = batch();
        let schema = batch.schema();
        let ends = like(false, false, col("text", &schema).expect("a column"), lit("%3"), &schema).expect("a pattern");
        for least in [0, 500, 900, 980, 1_000] {
            let filters = [
                Arc::clone(&ends),
                compare(&schema, "key", Operator::GtEq, least),
                compare(&schema, "small", Operator::NotEq, 4),
            ];
            let value = conjunction(filters.clone()).evaluate(&batch).expect("a value");
            let expected = value.into_array(batch.num_rows()).expect("an array");
            let expected = prep_null_mask_filter(as_boolean_array(&expected).expect("booleans"));
            let mut condition = Condition::new(&filters, &schema).expect("a condition");
            assert_eq!(mask(condition.choose(&batch).expect("a choice"), batch.num_rows()), expected);
        }
    }

    #[test]
    fn what_is_dear_is_found_out_once_for_each_value() {
        let text: StringViewArray = (0..ROWS * 4).map(|row| (row % 9 != 0).then(|| format!("{}", row % 8))).collect();
        let schema = Schema::new(vec![Field::new("text", DataType::Utf8View, true)]);
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![Arc::new(text.clone())]).expect("a batch");
        let seen = Arc::new(AtomicUsize::new(0));
        let (counted, volatility) = (Arc::clone(&seen), Volatility::Immutable);
        let odd = create_udf(
            "odd",
            vec![DataType::Utf8View],
            DataType::Boolean,
            volatility,
            Arc::new(move |args| {
                let values = args[0].to_array(1)?;
                counted.fetch_add(values.len(), Ordering::Relaxed);
                let odd = |text: &str| text.parse::<u8>().is_ok_and(|number| number % 2 == 1);
                Ok(ColumnarValue::Array(Arc::new(BooleanArray::from_unary(values.as_string_view(), odd))))
            }),
        );
        let arguments = vec![col("text", &schema).expect("a column")];
        let call = ScalarFunctionExpr::try_new(Arc::new(odd), arguments, &schema, Arc::default()).expect("a call");
        let mut condition = Condition::new(&[Arc::new(call)], &schema).expect("a condition");
        let expected: BooleanArray =
            text.iter().map(|text| Some(text.is_some_and(|text| "1357".contains(text)))).collect();
        assert_eq!(mask(condition.choose(&batch).expect("a choice"), batch.num_rows()), expected);
        assert_eq!(seen.load(Ordering::Relaxed), 8 + 1);
    }

    #[test]
    fn hints_are_followed_once_they_are_known_and_left_out_where_they_drop_little() {
        let batch = batch();
        let schema = batch.schema();
        let columns = ["key", "small"].map(|name| col(name, &schema).expect("a column"));
        let dynamic = Arc::new(DynamicFilterPhysicalExpr::new(columns.to_vec(), lit(true)));
        let hint: Arc<dyn PhysicalExpr> = Arc::clone(&dynamic) as _;
        let mut condition = Condition::new(&[hint], &schema).expect("a condition");
        let mut count = || condition.choose(&batch).expect("a choice").count(batch.num_rows());
        assert_eq!(count(), batch.num_rows());

        let (low, few) = (compare(&schema, "key", Operator::GtEq, 0), compare(&schema, "key", Operator::Lt, 10));
        dynamic.update(conjunction([low, few])).expect("an update");
        let keys = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
        let known = keys.iter().flatten().filter(|key| *key < 10).count();
        for _ in 0..2 * TRIAL / keys.len() {
            assert_eq!(count(), known);
        }

        dynamic.update(compare(&schema, "small", Operator::LtEq, 8)).expect("an update");
        let kept = (0..TRIAL.div_ceil(keys.len())).map(|_| count()).max();
        assert_eq!((kept, count()), (Some(keys.len() / 10 * 9), keys.len()));
    }
}
