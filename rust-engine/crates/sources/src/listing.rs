//! Our own listing: which files lie in the sources right now, and which tables they are.
//!
//! Nothing here is cached: each call looks at the file system. The rules are DESIGN's "Where files become tables".

mod entry;
pub(crate) mod settle;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quern_core::{EngineError, Reason, SnapshotHasher};

pub(crate) use entry::identity;
pub use entry::{Compression, FileFormat, ListedFile};
pub use settle::FileSystems;
use walk::{Notes, RootEntry, RootEntryKind};

/// The most files that one table may have. A folder with more is a broken table.
pub const MAX_FILES_PER_TABLE: usize = 100_000;

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
    /// The source folders as they were just before they were listed, where a change after that would surely show.
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

/// A source folder at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    path: PathBuf,
    identity: String,
}

impl Witness {
    /// The folder as it is now; nothing where a change might not show.
    fn of(path: &Path, systems: &FileSystems) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let sure = systems.watchable(&metadata) && systems.settled(&metadata, std::time::SystemTime::now());
        sure.then(|| Self { path: path.to_owned(), identity: identity(&metadata) })
    }

    /// Whether it is still the same. Blocking, on a local file system.
    pub(crate) fn holds(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity)
    }
}

/// Lists the sources. Blocking: call it off the async threads.
///
/// With `wanted`, folders whose name is not among them are not walked; their tables are left out.
pub fn list(
    roots: &[PathBuf],
    wanted: Option<&BTreeSet<String>>,
    systems: &FileSystems,
) -> Result<Listing, EngineError> {
    let mut listing = Listing::default();
    let mut notes = Notes::new(systems);
    let mut by_name: BTreeMap<String, Vec<RootEntry>> = BTreeMap::new();
    listing.roots = roots.iter().map(|root| Witness::of(root, systems)).collect();
    for root in roots {
        for entry in walk::root_entries(root, &mut notes)? {
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
        RootEntryKind::Folder(path) => Err(EngineError::internal(format!("folder `{}` was not walked", shown(&path)))),
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

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
