//! What a query runs in: its share of memory, shared spill space and caches, and its own pinned store.

use std::sync::Arc;

use datafusion::common::{Result, exec_err};
use datafusion::execution::cache::cache_manager::{CacheManager, CacheManagerConfig, FileMetadataCache};
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::ObjectStore;
use quern_sources::PinnedStore;
use url::Url;

use crate::limits::Limits;
use crate::memory::QueryPool;

/// Parquet footers kept in memory, in bytes.
const FOOTER_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// What all queries share.
pub(crate) struct SharedRuntime {
    memory: Arc<dyn MemoryPool>,
    query_memory: usize,
    disk: Arc<DiskManager>,
    caches: Arc<CacheManager>,
}

impl SharedRuntime {
    pub(crate) fn new(limits: &Limits) -> Result<Self> {
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![limits.spill_dir.clone()]))
            .with_max_temp_directory_size(limits.spill_bytes)
            .build()?;
        let caches =
            CacheManagerConfig::default().with_metadata_cache_limit(FOOTER_CACHE_BYTES).with_list_files_cache_limit(0);
        Ok(Self {
            memory: Arc::new(GreedyMemoryPool::new(limits.memory)),
            query_memory: limits.query_memory.min(limits.memory),
            disk: Arc::new(disk),
            caches: CacheManager::try_new(&caches)?,
        })
    }

    /// The footers that inspection reads and scans use again.
    pub(crate) fn footers(&self) -> Arc<FileMetadataCache> {
        self.caches.get_file_metadata_cache()
    }

    /// How much memory is reserved, and how much disk space is taken, in bytes.
    pub(crate) fn taken(&self) -> (usize, u64) {
        (self.memory.reserved(), self.disk.used_disk_space())
    }

    /// The environment of one query.
    pub(crate) fn query(&self, store: Arc<PinnedStore>) -> Arc<RuntimeEnv> {
        Arc::new(RuntimeEnv {
            memory_pool: Arc::new(QueryPool::new(self.query_memory, Arc::clone(&self.memory))),
            disk_manager: Arc::clone(&self.disk),
            cache_manager: Arc::clone(&self.caches),
            object_store_registry: Arc::new(OnlyStore(store)),
        })
    }
}

/// A registry that holds one query's pinned store and nothing else: no path can lead elsewhere.
#[derive(Debug)]
struct OnlyStore(Arc<PinnedStore>);

impl ObjectStoreRegistry for OnlyStore {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if url.scheme() != "quern" {
            return exec_err!("only the query's own snapshot can be read");
        }
        Ok(Arc::clone(&self.0) as Arc<dyn ObjectStore>)
    }
}
