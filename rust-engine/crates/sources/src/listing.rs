//! Our own listing: which files lie in the sources right now, and which tables they are.
//!
//! Nothing here is cached: each call looks at the file system, and for buckets at what [`crate::bucket`] saw last. The rules are DESIGN's "Where files become tables".

mod entry;
mod objects;
pub(crate) mod settle;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use quern_core::{EngineError, Reason, SnapshotHasher};

use crate::bucket::Bucket;
pub use entry::{Compression, FileFormat, ListedFile};
pub(crate) use entry::{Place, identity};
pub(crate) use objects::Objects;
pub use settle::FileSystems;
use walk::{Notes, RootEntry, RootEntryKind};

/// The most files that one table may have. A folder with more is a broken table.
pub const MAX_FILES_PER_TABLE: usize = 100_000;

/// Where tables come from.
#[derive(Clone, Debug)]
pub enum Root {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Arc<Bucket>),
}

/// What the sources hold at one moment.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every table by name; those that can't even be listed hold the reason.
    pub tables: BTreeMap<String, Result<ListedTable, EngineError>>,
    /// Names that more than one file or folder has a claim to, with the names they got instead.
    pub ambiguous: BTreeMap<String, Vec<String>>,
    /// What might be expected to be a table and is none, with the reason.
    pub passed_over: Vec<(String, String)>,
    /// Whether something listed can change without inotify telling.
    pub unwatchable: bool,
    /// Why tables may be missing: sources of which nothing is known now.
    pub(crate) unavailable: Option<EngineError>,
    /// The sources as they were just before they were listed, where a change after that would surely show.
    pub(crate) roots: Option<Vec<Witness>>,
}

/// A table as a set of files, not yet opened.
#[derive(Clone, Debug)]
pub struct ListedTable {
    /// The table's name.
    pub name: String,
    /// The files, ordered by their path.
    pub files: Vec<Arc<ListedFile>>,
    /// Whether it stays the same table as long as its one file and the source folders do: nothing else has, or can come to
    /// have, its name without a change in those.
    pub(crate) lone: bool,
}

impl ListedTable {
    /// The snapshot's id: a hash over each file's path and identity.
    pub fn snapshot_id(&self) -> String {
        let mut hasher = SnapshotHasher::new();
        hasher.part(self.name.as_bytes());
        for file in &self.files {
            hasher.part(file.shown.as_bytes()).part(file.etag.as_bytes());
        }
        hasher.finish()
    }

    /// Whether its id is that of its content for good: a change after the listing would give another one.
    pub fn settled(&self) -> bool {
        self.files.iter().all(|f| f.settled)
    }

    /// The files' size as stored, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }
}

/// A source at one moment.
#[derive(Clone, Debug)]
pub(crate) enum Witness {
    Folder { path: PathBuf, identity: String },
    Bucket { bucket: Arc<Bucket>, generation: u64 },
}

impl Witness {
    /// The source as it is now; nothing where a change might not show.
    fn of(root: &Root, systems: &FileSystems) -> Option<Self> {
        let path = match root {
            Root::Bucket(bucket) => {
                return Some(Self::Bucket { bucket: Arc::clone(bucket), generation: bucket.generation() });
            }
            Root::Folder(path) => path,
        };
        let metadata = std::fs::metadata(path).ok()?;
        let sure = systems.watchable(&metadata) && systems.settled(&metadata, std::time::SystemTime::now());
        sure.then(|| Self::Folder { path: path.clone(), identity: identity(&metadata) })
    }

    /// Whether it is still the same. Blocking, on a local file system.
    pub(crate) fn holds(&self) -> bool {
        match self {
            Self::Folder { path, identity: known } => std::fs::metadata(path).is_ok_and(|m| identity(&m) == *known),
            Self::Bucket { bucket, generation } => bucket.generation() == *generation,
        }
    }
}

/// Lists the sources. Blocking: call it off the async threads.
///
/// With `wanted`, folders whose name is not among them are not walked; their tables are left out.
pub fn list(roots: &[Root], wanted: Option<&BTreeSet<String>>, systems: &FileSystems) -> Result<Listing, EngineError> {
    let mut listing = Listing::default();
    let mut notes = Notes::new(systems);
    let mut by_name: BTreeMap<String, Vec<RootEntry>> = BTreeMap::new();
    listing.roots = roots.iter().map(|root| Witness::of(root, systems)).collect();
    for root in roots {
        let entries = match root {
            Root::Folder(path) => walk::root_entries(path, &mut notes)?,
            Root::Bucket(bucket) => {
                let (entries, unavailable) = objects::root_entries(bucket, &mut notes);
                listing.unavailable = listing.unavailable.take().or(unavailable);
                entries
            }
        };
        for entry in entries {
            by_name.entry(entry.base_name.clone()).or_default().push(entry);
        }
    }
    let bases: BTreeSet<String> = by_name.keys().chain(&notes.budding).cloned().collect();
    let mut named: BTreeMap<String, Vec<RootEntry>> = BTreeMap::new();
    for (base, entries) in by_name {
        // All or none of those that share a name: whether one is alone decides what it is called.
        if !entries.iter().any(|e| is_wanted(e, &base, wanted)) {
            continue;
        }
        let total = entries.len();
        let candidates: Vec<RootEntry> = entries.into_iter().filter_map(|e| walk::expand(e, &mut notes)).collect();
        if candidates.len() > 1 {
            let names: BTreeSet<String> = candidates.iter().map(|e| format!("{base}_{}", e.suffix)).collect();
            listing.ambiguous.insert(base.clone(), names.into_iter().collect());
            let plain =
                candidates.len() == total && candidates.iter().all(|e| e.plain) && !notes.budding.contains(&base);
            for entry in candidates {
                let name = format!("{base}_{}", entry.suffix);
                let plain = plain && !bases.contains(&name) && !may_be_claimed(&name, &bases, &base);
                named.entry(name).or_default().push(RootEntry { plain, ..entry });
            }
        } else {
            let alone = total == 1 && !notes.budding.contains(&base) && !may_be_claimed(&base, &bases, "");
            for entry in candidates {
                let plain = entry.plain && alone;
                named.entry(base.clone()).or_default().push(RootEntry { plain, ..entry });
            }
        }
    }
    for (name, mut entries) in named {
        let table = match (entries.pop(), entries.is_empty()) {
            (Some(entry), true) => to_table(&name, entry),
            (Some(last), false) => Err(name_conflict(&name, entries.iter().chain([&last]))),
            (None, _) => continue,
        };
        listing.tables.insert(name, table);
    }
    listing.passed_over = notes.passed_over;
    listing.unwatchable = notes.unwatchable;
    Ok(listing)
}

/// Whether files of another name than `own` could come to be called so: `a_json`, where there is an `a`.
fn may_be_claimed(name: &str, bases: &BTreeSet<String>, own: &str) -> bool {
    name.match_indices('_').any(|(at, _)| name[..at] != *own && bases.contains(&name[..at]))
}

fn is_wanted(entry: &RootEntry, base: &str, wanted: Option<&BTreeSet<String>>) -> bool {
    wanted.is_none_or(|names| names.contains(base) || names.contains(&format!("{base}_{}", entry.suffix)))
}

fn to_table(name: &str, entry: RootEntry) -> Result<ListedTable, EngineError> {
    match entry.kind {
        RootEntryKind::Files(files) => {
            let files = files.into_iter().map(Arc::new).collect();
            Ok(ListedTable { name: name.to_owned(), files, lone: entry.plain })
        }
        RootEntryKind::Unreadable(error) => Err(error),
        RootEntryKind::Folder(_) | RootEntryKind::Objects(..) => {
            Err(EngineError::internal(format!("the folder `{}` was not walked", entry.shown)))
        }
    }
}

fn name_conflict<'a>(name: &str, entries: impl Iterator<Item = &'a RootEntry>) -> EngineError {
    let files: Vec<String> = entries.map(|e| format!("`{}`", e.shown)).collect();
    EngineError::new(
        Reason::NameConflict,
        format!("{} all claim the table name `{name}`; rename all but one of them", files.join(", ")),
    )
    .with("table", name)
}

fn too_many_files() -> EngineError {
    let message = format!("a table may have at most {MAX_FILES_PER_TABLE} files; split the folder");
    EngineError::new(Reason::FileUnreadable, message)
}

#[cfg(test)]
mod tests;
