//! A query's share of the memory pool.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, resources_err};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, InListExpr, LikeExpr, Literal};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use quern_sources::Caches;
use quern_sources::hot::BLOCK_ROWS;

use crate::pressure::Pressure;

/// Grants memory only while both the query's share and the pool of all queries have it. What caches hold of the
/// latter is there for queries.
#[derive(Debug)]
pub(crate) struct QueryPool {
    share: FairSpillPool,
    all: Arc<dyn MemoryPool>,
    caches: Caches,
    pressure: Arc<Pressure>,
    size: usize,
}

impl QueryPool {
    pub(crate) fn new(size: usize, all: Arc<dyn MemoryPool>, caches: Caches, pressure: Arc<Pressure>) -> Self {
        Self { share: FairSpillPool::new(size), all, caches, pressure, size }
    }
}

impl Display for QueryPool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "query_share({})", self.size)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query_share"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.share.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.share.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.share.grow(reservation, additional);
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.share.shrink(reservation, shrink);
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if !self.pressure.allows(self.share.reserved(), additional) {
            self.caches.shed(additional);
            return resources_err!("the process has no memory left for {additional} bytes");
        }
        self.share.try_grow(reservation, additional)?;
        if self.all.try_grow(reservation, additional).is_err() {
            self.caches.shed(additional);
            self.all.try_grow(reservation, additional).inspect_err(|_| self.share.shrink(reservation, additional))?;
        }
        self.pressure.reserved(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.share.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.size)
    }
}

/// Reserves what the batches of a plan take on their way, where they are wide: operators don't count what they only pass on.
pub(crate) fn reserve_batches(plan: &Arc<dyn ExecutionPlan>, pool: &Arc<dyn MemoryPool>) -> Result<MemoryReservation> {
    /// What is too little to count.
    const NARROW: usize = 2 << 20;
    let (mut most, statistics) = (0, StatisticsContext::new());
    plan.apply(|node| {
        let row: usize = node.schema().fields().iter().map(|field| width(field.data_type())).sum();
        let mut constant = 0;
        node.apply_expressions(&mut |expr| {
            constant += constants(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        // A batch that comes in and one that goes out, in each part.
        let batches = 2 * node.output_partitioning().partition_count();
        if (row + constant) * BLOCK_ROWS * batches > NARROW {
            let rows = |of| Ok(most_rows(of, &statistics)?.min(BLOCK_ROWS * batches));
            let mut bytes = row * rows(node)?;
            if constant > 0 {
                // An aggregate has them for each row that comes in.
                let inputs = node.children().into_iter().map(rows).collect::<Result<Vec<_>>>()?;
                bytes += constant * inputs.into_iter().max().unwrap_or(BLOCK_ROWS * batches);
            }
            most = most.max(bytes);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let reservation = MemoryConsumer::new("batches").register(pool);
    reservation.try_grow(most.saturating_sub(NARROW))?;
    Ok(reservation)
}

/// How many rows a part of a plan can give at most: those of the tables below it, where nothing between makes more of them.
fn most_rows(node: &Arc<dyn ExecutionPlan>, statistics: &StatisticsContext) -> Result<usize> {
    let below = node.children();
    let sets = node.downcast_ref::<AggregateExec>().is_some_and(|aggregate| !aggregate.group_expr().is_single());
    let fewer = !sets && matches!(node.cardinality_effect(), CardinalityEffect::Equal | CardinalityEffect::LowerEqual);
    Ok(match (statistics.compute(node.as_ref(), &StatisticsArgs::new())?.num_rows, below.as_slice()) {
        (Precision::Exact(rows), _) => rows,
        // A scan that filters counts all rows that it looks at.
        (Precision::Inexact(rows), []) => rows,
        // Of no rows an aggregate makes one.
        (_, [one]) if fewer => most_rows(one, statistics)?.max(1),
        _ => usize::MAX,
    })
}

/// About what a value takes.
fn width(kind: &DataType) -> usize {
    const VARIABLE: usize = 16;
    kind.primitive_width().unwrap_or(VARIABLE)
}

/// What the long constants of an expression take for each row: most operators write a constant out for every row of a
/// batch.
fn constants(expr: &Arc<dyn PhysicalExpr>) -> Result<usize> {
    /// What is too short to count, in bytes.
    const SHORT: usize = 4 << 10;
    let size = |expr: &Arc<dyn PhysicalExpr>| {
        expr.downcast_ref::<Literal>().map(|constant| constant.value().size()).filter(|size| *size > SHORT).unwrap_or(0)
    };
    let mut row = size(expr);
    expr.apply(|node| {
        // Operators and these take a constant as the one value that it is.
        let once = node.downcast_ref::<InListExpr>().is_some()
            || node.downcast_ref::<LikeExpr>().is_some()
            || node.downcast_ref::<BinaryExpr>().is_some();
        if !once {
            row += node.children().into_iter().map(size).sum::<usize>();
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use datafusion::execution::cache::cache_manager::{CacheManager, CacheManagerConfig};
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use quern_sources::hot::HotColumns;
    use quern_sources::keys::KeyIndexes;
    use quern_sources::spill::Spills;

    use super::*;

    #[test]
    fn both_bounds_hold_and_everything_is_given_back() {
        let all: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(150));
        let footers = CacheManager::try_new(&CacheManagerConfig::default()).expect("a cache").get_file_metadata_cache();
        let hot = Arc::new(HotColumns::new(0, &all, Spills::new(None, 0)));
        let caches = Caches { footers, hot, keys: Arc::new(KeyIndexes::new(0)) };
        let pool = |size| {
            Arc::new(QueryPool::new(size, Arc::clone(&all), caches.clone(), Pressure::new(usize::MAX)))
                as Arc<dyn MemoryPool>
        };
        let (first, second) = (pool(100), pool(100));
        let one = MemoryConsumer::new("one").register(&first);
        let two = MemoryConsumer::new("two").register(&second);
        one.try_grow(100).expect("fits its share");
        one.try_grow(1).expect_err("beyond its share");
        two.try_grow(60).expect_err("beyond the pool of all");
        assert_eq!(second.reserved(), 0);
        two.try_grow(50).expect("fits");
        drop((one, two));
        assert_eq!(all.reserved(), 0);
    }
}
