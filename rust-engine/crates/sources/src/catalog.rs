//! The catalogue: what tables there are right now, and tables resolved for a query.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use futures::future::join_all;
use moka::sync::Cache;
use quern_core::suggest::{nearest, some_of};
use quern_core::{EngineError, Reason, TableSnapshot};

use crate::inspect::Inspector;
use crate::listing::settle::TICK;
use crate::listing::{self, FileSystems, ListedTable, Listing, Root, Witness};
use crate::table::Table;
use crate::watch::Watcher;

/// How many united tables are remembered, by snapshot. An entry is a schema and a file list.
const REMEMBERED: u64 = 1_000;

/// How many ticks a query waits for files to settle.
const SETTLE_TRIES: usize = 5;

/// How long a listing of all tables waits for inspections before it says "inspecting".
const LIST_PATIENCE: Duration = Duration::from_secs(5);

/// The tables of some source folders. Nothing about the folders' content is cached; what is known of a file is kept
/// by the file's identity.
#[derive(Clone)]
pub struct Catalog {
    roots: Arc<[Root]>,
    systems: Arc<FileSystems>,
    inspector: Inspector,
    united: Cache<String, Result<Arc<Table>, EngineError>>,
    seen: Cache<String, Arc<Seen>>,
}

/// A table as the last listing had it, and the source folders then.
#[derive(Debug)]
struct Seen {
    table: Arc<Table>,
    roots: Arc<[Witness]>,
}

impl Seen {
    /// Whether a listing would give the same table now.
    fn holds(&self) -> bool {
        self.roots.iter().all(Witness::holds) && self.table.files.iter().all(|(listed, _)| listed.is_unchanged())
    }
}

/// A table as the catalogue describes it.
#[derive(Debug)]
pub struct TableDescription {
    /// The table's name.
    pub name: String,
    /// What is known about it.
    pub state: TableState,
    /// The formats of its files, by extension, each once.
    pub formats: Vec<String>,
    /// How many files it has.
    pub file_count: usize,
    /// The files' size as stored, in bytes.
    pub size_bytes: u64,
    /// The snapshot's id; empty where the table can't be listed.
    pub snapshot: String,
}

/// Whether a table can be read.
#[derive(Debug)]
pub enum TableState {
    /// It can: its columns and its number of rows.
    Ready(SchemaRef, u64),
    /// Its files are being read for the first time.
    Inspecting,
    /// It can't, and why.
    Broken(EngineError),
}

impl Catalog {
    /// A catalogue over sources. `footers` is shared with the scans; `parallel` bounds concurrent inspections.
    pub fn new(roots: Vec<Root>, footers: Arc<FileMetadataCache>, parallel: usize) -> Self {
        let systems = Arc::new(FileSystems::detect());
        Self {
            roots: roots.into(),
            systems,
            inspector: Inspector::new(footers, parallel),
            united: Cache::new(REMEMBERED),
            seen: Cache::new(REMEMBERED),
        }
    }

    async fn list(&self, wanted: Option<BTreeSet<String>>) -> Result<Listing, EngineError> {
        for root in self.roots.iter() {
            if let Root::Bucket(bucket) = root {
                bucket.listed().await;
            }
        }
        let (roots, systems) = (Arc::clone(&self.roots), Arc::clone(&self.systems));
        tokio::task::spawn_blocking(move || listing::list(&roots, wanted.as_ref(), &systems))
            .await
            .map_err(|e| EngineError::internal(format!("listing failed: {e}")))?
    }

    /// Lists tables whose files have settled, for which it waits a few ticks. What goes on changing longer is listed
    /// as it is, under an id that never comes again.
    async fn list_settled(&self, wanted: &BTreeSet<String>) -> Result<Listing, EngineError> {
        for _ in 0..SETTLE_TRIES {
            let listing = self.list(Some(wanted.clone())).await?;
            if listing.tables.values().flatten().all(ListedTable::settled) {
                return Ok(listing);
            }
            tokio::time::sleep(TICK).await;
        }
        self.list(Some(wanted.clone())).await
    }

    /// The snapshots that tables of these names have now; names of no table that can be listed are left out.
    pub async fn check(&self, names: BTreeSet<String>) -> Result<Vec<TableSnapshot>, EngineError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let listing = self.list_settled(&names).await?;
        let tables = listing.tables.into_values().flatten().filter(|table| names.contains(&table.name));
        Ok(tables.map(|table| TableSnapshot { snapshot: table.snapshot_id(), table: table.name }).collect())
    }

    /// Starts to watch the sources, buckets by listing them at this interval on the caller's runtime. Before that nothing is
    /// known of buckets, and whoever asks for their tables waits.
    pub fn watch(&self, bucket_poll: Duration) -> Watcher {
        Watcher::start(Arc::clone(&self.roots), Arc::clone(&self.systems), bucket_poll)
    }

    /// Every table, ordered by name, and what was passed over. Tables whose inspection takes longer than a few seconds
    /// are described without columns; their inspection goes on.
    pub async fn describe_all(&self) -> Result<(Vec<TableDescription>, Vec<(String, String)>), EngineError> {
        let listing = self.list(None).await?;
        let tables = listing.tables.into_iter().map(|(name, listed)| async move {
            let described = match &listed {
                Ok(listed) => tokio::time::timeout(LIST_PATIENCE, self.unite(listed)).await.ok(),
                Err(error) => Some(Err(error.clone())),
            };
            describe(name, listed.ok().as_ref(), described)
        });
        Ok((join_all(tables).await, listing.passed_over))
    }

    /// One table, however long its inspection takes.
    pub async fn describe(&self, name: &str) -> Result<TableDescription, EngineError> {
        let mut listing = self.list(Some(BTreeSet::from([name.to_owned()]))).await?;
        match listing.tables.remove(name) {
            None => {
                let unknown = self.unknown(name).await?;
                let reason = if unknown.reason.is_lasting() { Reason::TableNotFound } else { unknown.reason };
                Err(EngineError { reason, ..unknown })
            }
            Some(Err(error)) => Ok(describe(name.to_owned(), None, Some(Err(error)))),
            Some(Ok(listed)) => {
                let united = self.unite(&listed).await;
                Ok(describe(name.to_owned(), Some(&listed), Some(united)))
            }
        }
    }

    /// The tables of these names, each pinned to its snapshot of this moment. Fails with UNKNOWN_TABLE, TABLE_BROKEN
    /// or SNAPSHOT_CHANGED.
    pub async fn resolve(&self, names: BTreeSet<String>) -> Result<Vec<Arc<Table>>, EngineError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(same) = self.glance(&names) {
            return Ok(same);
        }
        let mut listing = self.list_settled(&names).await?;
        let roots: Option<Arc<[Witness]>> = listing.roots.take().map(Into::into);
        let mut listed = Vec::with_capacity(names.len());
        for name in names {
            match listing.tables.remove(&name) {
                Some(Ok(table)) => listed.push(table),
                Some(Err(error)) => return Err(broken(&name, &error)),
                None => return Err(self.unknown(&name).await?),
            }
        }
        let united = join_all(listed.iter().map(|table| self.unite(table))).await;
        let tables = listed.iter().zip(united).map(|(listed, united)| {
            let table = united.map_err(|e| broken(&listed.name, &e))?;
            if let (true, true, Some(roots)) = (listed.lone, listed.settled(), &roots) {
                let seen = Seen { table: Arc::clone(&table), roots: Arc::clone(roots) };
                self.seen.insert(listed.name.clone(), Arc::new(seen));
            }
            Ok(table)
        });
        tables.collect()
    }

    /// The tables as the last listing had them, where a look at their files and the source folders shows that another one
    /// would have them the same. Only what lies on local file systems is looked at so, which takes some microseconds.
    fn glance(&self, names: &BTreeSet<String>) -> Option<Vec<Arc<Table>>> {
        names.iter().map(|name| self.at_hand(name)).collect()
    }

    /// The table of this name, pinned to its snapshot of this moment, where that takes no more than a look at some local
    /// files; nothing where it takes more, or there is none. Blocking for microseconds.
    pub fn at_hand(&self, name: &str) -> Option<Arc<Table>> {
        self.seen.get(name).filter(|seen| seen.holds()).map(|seen| Arc::clone(&seen.table))
    }

    /// A table at a snapshot that it had, if that is still known: the last thousand that were asked for are. Its files
    /// may have changed since.
    pub fn remembered(&self, name: &str, snapshot: &str) -> Option<Arc<Table>> {
        self.united.get(snapshot)?.ok().filter(|table| table.name == name)
    }

    /// Starts the inspection of every file in the background, so that first queries find it done.
    pub async fn warm(&self) -> Result<(), EngineError> {
        let listing = self.list(None).await?;
        for listed in listing.tables.into_values().flatten() {
            let this = self.clone();
            tokio::spawn(async move { this.unite(&listed).await });
        }
        Ok(())
    }

    async fn unite(&self, listed: &ListedTable) -> Result<Arc<Table>, EngineError> {
        let snapshot = listed.snapshot_id();
        if let Some(known) = self.united.get(&snapshot) {
            return known;
        }
        let infos = join_all(listed.files.iter().map(|file| self.inspector.inspect(file))).await;
        let infos = infos.into_iter().collect::<Result<Vec<_>, _>>();
        let united = infos.and_then(|infos| {
            let files = listed.files.iter().cloned().zip(infos).collect();
            Table::unite(listed, snapshot.clone(), files).map(Arc::new)
        });
        if !matches!(&united, Err(e) if !e.reason.is_lasting()) {
            self.united.insert(snapshot, united.clone());
        }
        united
    }

    async fn unknown(&self, name: &str) -> Result<EngineError, EngineError> {
        let listing = self.list(None).await?;
        if let Some(unavailable) = listing.unavailable {
            return Ok(unavailable);
        }
        let names = || listing.tables.keys().map(String::as_str);
        let hint = if let Some(instead) = listing.ambiguous.get(name) {
            format!("several files have that name; ask for {}", some_of(instead.iter().map(String::as_str)))
        } else if let Some(near) = nearest(name, names()) {
            format!("did you mean `{near}`?")
        } else if listing.tables.is_empty() {
            "there are no tables".to_owned()
        } else {
            format!("there are {}", some_of(names()))
        };
        Ok(EngineError::new(Reason::UnknownTable, format!("no table `{name}`; {hint}")).with("table", name))
    }
}

/// The error of a table that can't be read. What may be otherwise at the next attempt is said as it is.
fn broken(name: &str, error: &EngineError) -> EngineError {
    if !error.reason.is_lasting() {
        return error.clone();
    }
    let mut out = EngineError::new(Reason::TableBroken, format!("table `{name}` can't be read: {}", error.message));
    out.metadata = error.metadata.clone();
    out.with("table", name).with("cause", error.reason.as_str())
}

fn describe(
    name: String,
    listed: Option<&ListedTable>,
    united: Option<Result<Arc<Table>, EngineError>>,
) -> TableDescription {
    let state = match united {
        None => TableState::Inspecting,
        Some(Ok(table)) => TableState::Ready(table.schema(), table.rows()),
        Some(Err(error)) => TableState::Broken(error),
    };
    let formats: BTreeSet<&str> = listed.iter().flat_map(|t| &t.files).map(|f| f.extension).collect();
    TableDescription {
        name,
        state,
        formats: formats.into_iter().map(str::to_owned).collect(),
        file_count: listed.map_or(0, |t| t.files.len()),
        size_bytes: listed.map_or(0, ListedTable::size_bytes),
        snapshot: listed.map(ListedTable::snapshot_id).unwrap_or_default(),
    }
}
