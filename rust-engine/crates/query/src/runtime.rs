//! What a query runs in: its share of memory, shared spill space and caches.

use std::sync::Arc;

use datafusion::common::{Result, exec_err};
use datafusion::execution::cache::cache_manager::{CacheManager, CacheManagerConfig};
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::ObjectStore;
use quern_sources::Caches;
use quern_sources::hot::HotColumns;
use quern_sources::keys::KeyIndexes;
use quern_sources::scratch::Scratch;
use quern_sources::spill::Spills;
use url::Url;

use crate::limits::Limits;
use crate::memory::QueryPool;
use crate::pressure::Pressure;

/// Parquet footers kept in memory, in bytes.
const FOOTER_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// What all queries share.
pub(crate) struct SharedRuntime {
    memory: Arc<dyn MemoryPool>,
    query_memory: usize,
    pressure: Arc<Pressure>,
    disk: Arc<DiskManager>,
    manager: Arc<CacheManager>,
    caches: Caches,
    /// Goes last: what lies in it is in use until then.
    _scratch: Arc<Scratch>,
}

impl SharedRuntime {
    pub(crate) fn new(limits: &Limits) -> Result<Self> {
        let scratch = Arc::new(Scratch::open(&limits.spill_dir)?);
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![scratch.path().to_owned()]))
            .with_max_temp_directory_size(limits.spill_bytes)
            .build()?;
        let footers = FOOTER_CACHE_BYTES.min(limits.memory / 8);
        let config = CacheManagerConfig::default().with_metadata_cache_limit(footers).with_list_files_cache_limit(0);
        let manager = CacheManager::try_new(&config)?;
        let memory: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limits.memory));
        let spills = Spills::new(Some(Arc::clone(&scratch)), limits.hot_spill_bytes);
        let hot = Arc::new(HotColumns::new(limits.hot_bytes.min(limits.memory), &memory, spills));
        let keys = Arc::new(KeyIndexes::new(hot.lendable()));
        let caches = Caches { footers: manager.get_file_metadata_cache(), hot, keys };
        let query_memory = limits.query_memory.min(limits.memory);
        let pressure = Pressure::new(limits.process_memory);
        Ok(Self { memory, query_memory, pressure, disk: Arc::new(disk), manager, caches, _scratch: scratch })
    }

    /// What inspection and scans leave for later ones.
    pub(crate) fn caches(&self) -> &Caches {
        &self.caches
    }

    /// What the process holds.
    pub(crate) fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
    }

    /// How much memory queries have reserved, and how much disk space is taken, in bytes.
    pub(crate) fn taken(&self) -> (usize, u64) {
        let hot = usize::try_from(self.caches.hot.counts().bytes).unwrap_or_default();
        (self.memory.reserved().saturating_sub(hot), self.disk.used_disk_space())
    }

    /// The environment of one query.
    pub(crate) fn query(&self) -> Arc<RuntimeEnv> {
        let pool = QueryPool::new(
            self.query_memory,
            Arc::clone(&self.memory),
            self.caches.clone(),
            Arc::clone(&self.pressure),
        );
        Arc::new(RuntimeEnv {
            memory_pool: Arc::new(pool),
            disk_manager: Arc::clone(&self.disk),
            cache_manager: Arc::clone(&self.manager),
            object_store_registry: Arc::new(NoStores),
        })
    }
}

/// A registry that holds nothing: scans have their own snapshot's store, and no path can lead elsewhere.
#[derive(Debug)]
struct NoStores;

impl ObjectStoreRegistry for NoStores {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, _: &Url) -> Result<Arc<dyn ObjectStore>> {
        exec_err!("only the query's own snapshot can be read")
    }
}
