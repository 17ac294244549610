//! Inspection: reads a file once to learn its schema, its row count and how to decode it.
//!
//! Text files are read to their end, so that the schema depends on every row. The result is kept by the file's
//! identity; a changed file is inspected anew. A file that can't be read keeps its error the same way.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Statistics;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::DataFusionError;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use futures::StreamExt;
use moka::future::Cache;
use object_store::ObjectStoreExt;
use quern_core::{EngineError, Reason};
use tokio::sync::Semaphore;

use crate::decode::{self, Layout};
use crate::listing::{FileFormat, ListedFile};
use crate::store::{PinnedStore, SnapshotChanged, object_meta, object_path};

/// How many inspections are remembered. An entry is a schema and a few counts: some kilobytes.
const REMEMBERED: u64 = 20_000;

/// What inspection found out about one file.
#[derive(Debug)]
pub struct FileInfo {
    /// Names this content of the file within the process; no other has the same.
    pub id: u64,
    /// The file's own columns, before they are united with those of other files.
    pub schema: SchemaRef,
    /// How many rows it holds.
    pub rows: u64,
    /// What the decoder must know; for Parquet nothing.
    pub(crate) layout: Layout,
    /// Parquet's statistics over `schema`; unknown for other formats, but for the row count.
    pub(crate) statistics: Arc<Statistics>,
}

type Inspected = Result<Arc<FileInfo>, EngineError>;

/// Inspects files, each content once.
#[derive(Clone)]
pub struct Inspector {
    known: Cache<String, Inspected>,
    footers: Arc<FileMetadataCache>,
    /// Bounds how many files are read at once.
    slots: Arc<Semaphore>,
}

impl Inspector {
    /// An inspector that shares the Parquet footers it reads with the scans, and reads `parallel` files at once.
    pub fn new(footers: Arc<FileMetadataCache>, parallel: usize) -> Self {
        Self { known: Cache::new(REMEMBERED), footers, slots: Arc::new(Semaphore::new(parallel.max(1))) }
    }

    /// What is known of the file without reading it.
    pub async fn peek(&self, file: &ListedFile) -> Option<Inspected> {
        self.known.get(&key(file)).await
    }

    /// Inspects the file, or waits for an inspection under way. Goes on in the background when the caller goes away.
    pub async fn inspect(&self, file: &Arc<ListedFile>) -> Inspected {
        if let Some(known) = self.peek(file).await {
            return known;
        }
        let (this, work) = (self.clone(), Arc::clone(file));
        let task = tokio::spawn(async move {
            let read = async {
                let _slot = this.slots.acquire().await;
                read(&work, &this.footers).await.map(Arc::new)
            };
            let result = this.known.get_with(key(&work), read).await;
            if matches!(&result, Err(e) if !e.reason.is_lasting()) {
                // Says nothing about the content of this identity.
                this.known.invalidate(&key(&work)).await;
            }
            result
        });
        match task.await {
            Ok(inspected) => inspected,
            // A reader of a binary format that trips over damage it does not check for.
            Err(e) if e.is_panic() => Err(corrupt(file, "its content is malformed")),
            Err(e) => Err(EngineError::internal(format!("inspection failed: {e}"))),
        }
    }
}

fn key(file: &ListedFile) -> String {
    object_path(file).to_string()
}

fn next_id() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

async fn read(file: &Arc<ListedFile>, footers: &Arc<FileMetadataCache>) -> Result<FileInfo, EngineError> {
    let store = PinnedStore::new([Arc::clone(file)]);
    let info = match file.format {
        FileFormat::Parquet => parquet(file, &store, footers).await,
        FileFormat::Json | FileFormat::Csv | FileFormat::Tsv | FileFormat::Arrow => streamed(file, &store).await,
    }?;
    refuse_duplicates(file, &info.schema)?;
    Ok(info)
}

async fn streamed(file: &ListedFile, store: &PinnedStore) -> Result<FileInfo, EngineError> {
    let mut inference = decode::Inference::new(file);
    let mut stream = store.get(&object_path(file)).await.map_err(|e| read_error(file, &e))?.into_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| read_error(file, &e))?;
        inference.push(&chunk)?;
        tokio::task::yield_now().await;
    }
    let (schema, rows, layout) = inference.finish()?;
    let mut statistics = Statistics::new_unknown(&schema);
    statistics.num_rows = datafusion::common::stats::Precision::Exact(usize::try_from(rows).unwrap_or(usize::MAX));
    Ok(FileInfo { id: next_id(), schema: Arc::new(schema), rows, layout, statistics: Arc::new(statistics) })
}

async fn parquet(
    file: &ListedFile,
    store: &PinnedStore,
    footers: &Arc<FileMetadataCache>,
) -> Result<FileInfo, EngineError> {
    let meta = object_meta(file);
    let reader = DFParquetMetadata::new(store, &meta).with_file_metadata_cache(Some(Arc::clone(footers)));
    let broken = |e: DataFusionError| passing(file, &e).unwrap_or_else(|| corrupt(file, &e.strip_backtrace()));
    let metadata = reader.fetch_metadata().await.map_err(broken)?;
    // The page index may lie in a part of the file that was cut off: what the footer promises must be there.
    let schema: Schema = reader.fetch_schema().await.map_err(broken)?.with_metadata(HashMap::new());
    let schema = Arc::new(schema);
    let statistics = DFParquetMetadata::statistics_from_parquet_metadata(&metadata, &schema).map_err(broken)?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    Ok(FileInfo { id: next_id(), schema, rows, layout: Layout::None, statistics: Arc::new(statistics) })
}

fn refuse_duplicates(file: &ListedFile, schema: &Schema) -> Result<(), EngineError> {
    let mut seen = std::collections::HashSet::new();
    match schema.fields().iter().find(|f| !seen.insert(f.name())) {
        None => Ok(()),
        Some(field) => Err(EngineError::new(
            Reason::SchemaConflict,
            format!("`{}` has two columns named `{}`; rename one of them", file.shown, field.name()),
        )
        .with("file", &file.shown)),
    }
}

/// The error of a file whose content can't be understood.
pub(crate) fn corrupt(file: &ListedFile, why: &str) -> EngineError {
    let why = why.lines().next().unwrap_or_default();
    EngineError::new(Reason::FileCorrupt, format!("`{}` can't be read: {why}", file.shown)).with("file", &file.shown)
}

/// The error of a file that changed under the reader.
pub(crate) fn changed(file: &ListedFile) -> EngineError {
    EngineError::new(Reason::SnapshotChanged, format!("`{}` changed while it was being read; ask again", file.shown))
        .with("file", &file.shown)
}

/// An error that says nothing about the file's content.
fn passing(file: &ListedFile, error: &(dyn Error + 'static)) -> Option<EngineError> {
    if find_changed(error).is_some() {
        return Some(changed(file));
    }
    find::<EngineError>(error).cloned().or_else(|| find_exhausted(error))
}

fn read_error(file: &ListedFile, error: &object_store::Error) -> EngineError {
    if let Some(told) = passing(file, error) {
        return told;
    }
    let why = std::iter::successors(error.source(), |&e| e.source())
        .find_map(|e| e.downcast_ref::<std::io::Error>())
        .map_or_else(|| "the storage failed".to_owned(), |e| e.kind().to_string());
    EngineError::new(Reason::FileUnreadable, format!("`{}` can't be read: {why}", file.shown)).with("file", &file.shown)
}

/// The [`SnapshotChanged`] among an error's causes, if there is one.
pub fn find_changed<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a SnapshotChanged> {
    find(error)
}

/// What is told of an I/O error among an error's causes, where the system has run out of something.
pub fn find_exhausted(error: &(dyn Error + 'static)) -> Option<EngineError> {
    causes(error).filter_map(|e| e.downcast_ref::<std::io::Error>()).find_map(EngineError::exhausted)
}

/// The error of this type among an error's causes, if there is one.
pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|e| e.downcast_ref::<T>())
}

/// An error, what caused it, what caused that, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| {
        if let Some(shared) = e.downcast_ref::<Arc<DataFusionError>>() {
            return Some(shared.as_ref());
        }
        // An I/O error that wraps another passes that over when it is asked for its source.
        match e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => e.source(),
        }
    })
}
