//! A query's share of the memory pool.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use quern_sources::Caches;

/// Grants memory only while both the query's share and the pool of all queries have it. What caches hold of the
/// latter is there for queries.
#[derive(Debug)]
pub(crate) struct QueryPool {
    share: FairSpillPool,
    all: Arc<dyn MemoryPool>,
    caches: Caches,
    size: usize,
}

impl QueryPool {
    pub(crate) fn new(size: usize, all: Arc<dyn MemoryPool>, caches: Caches) -> Self {
        Self { share: FairSpillPool::new(size), all, caches, size }
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
        self.share.try_grow(reservation, additional)?;
        if self.all.try_grow(reservation, additional).is_ok() {
            return Ok(());
        }
        self.caches.shed(additional);
        self.all.try_grow(reservation, additional).inspect_err(|_| self.share.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.share.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.size)
    }
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
        let pool = |size| Arc::new(QueryPool::new(size, Arc::clone(&all), caches.clone())) as Arc<dyn MemoryPool>;
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
