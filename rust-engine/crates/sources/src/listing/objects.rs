//! The objects of a bucket as a tree: which tables they are, by the rules for folders.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use object_store::ObjectMeta;
use object_store::path::Path;
use quern_core::EngineError;
use quern_core::name::table_name;

use super::entry::{ListedFile, ParsedName, parse_name};
use super::walk::{MAX_DEPTH, Notes, RootEntry, RootEntryKind, is_skipped, partition};
use super::{MAX_FILES_PER_TABLE, too_many_files};
use crate::bucket::Bucket;

/// The objects below a prefix at one moment, in the order of a walk over folders.
pub(crate) struct Objects {
    all: Vec<Object>,
    /// What lies directly below the prefix: an object, or all that have a folder's name before them.
    roots: Vec<(String, Range<usize>)>,
}

struct Object {
    /// Below the prefix.
    path: String,
    meta: ObjectMeta,
}

impl Object {
    fn file(&self, bucket: &Arc<Bucket>, name: &ParsedName<'_>, partitions: Vec<(String, String)>) -> ListedFile {
        ListedFile::of(Arc::clone(bucket), self.meta.clone(), &self.path, name, partitions)
    }
}

impl Objects {
    pub(crate) fn new(prefix: &Path, listed: Vec<ObjectMeta>) -> Self {
        let below = |meta: ObjectMeta| {
            let path = meta.location.prefix_match(prefix)?.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>();
            let path = if path.is_empty() { meta.location.filename()?.to_owned() } else { path.join("/") };
            Some(Object { path, meta })
        };
        let mut all: Vec<Object> = listed.into_iter().filter_map(below).collect();
        all.sort_unstable_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        let mut roots: Vec<(String, Range<usize>)> = Vec::new();
        for (at, object) in all.iter().enumerate() {
            // An object `a` and a folder `a` are two.
            let (name, is_folder) = match object.path.split_once('/') {
                Some((folder, _)) => (folder, true),
                None => (object.path.as_str(), false),
            };
            match roots.last_mut() {
                Some((last, range)) if is_folder && last == name && all[range.start].path.contains('/') => {
                    range.end = at + 1
                }
                _ => roots.push((name.to_owned(), at..at + 1)),
            }
        }
        Self { all, roots }
    }

    /// Whether a listing, in any order, found the same.
    pub(crate) fn same(&self, listed: &[ObjectMeta]) -> bool {
        let names: HashSet<(&Path, Option<&str>, u64)> = self.all.iter().map(|object| name(&object.meta)).collect();
        listed.len() == self.all.len() && listed.iter().all(|meta| names.contains(&name(meta)))
    }
}

fn name(meta: &ObjectMeta) -> (&Path, Option<&str>, u64) {
    (&meta.location, meta.e_tag.as_deref(), meta.size)
}

/// The entries of a bucket that may be tables. While it can't be listed they are those of the last listing, unreadable.
pub(super) fn root_entries(bucket: &Arc<Bucket>, notes: &mut Notes<'_>) -> (Vec<RootEntry>, Option<EngineError>) {
    let (objects, error) = bucket.objects();
    let Some(objects) = objects else { return (Vec::new(), error) };
    let mut entries = Vec::new();
    for (name, range) in objects.roots.iter().filter(|(name, _)| !is_skipped(name)) {
        let Some(first) = objects.all.get(range.start) else { continue };
        let parsed = parse_name(name);
        let (base, suffix) = match &parsed {
            _ if first.path.contains('/') => (name.as_str(), "folder".to_owned()),
            Some(parsed) => (parsed.stem, parsed.suffix.clone()),
            None => continue,
        };
        let kind = match (&error, parsed) {
            (Some(error), _) => RootEntryKind::Unreadable(error.clone()),
            (None, Some(parsed)) if !first.path.contains('/') => {
                if first.meta.size == 0 {
                    notes.budding.insert(table_name(parsed.stem));
                    notes.pass(name.clone(), "the file is empty");
                    continue;
                }
                RootEntryKind::Files(vec![first.file(bucket, &parsed, Vec::new())])
            }
            _ => RootEntryKind::Objects(Arc::clone(bucket), Arc::clone(&objects), range.clone()),
        };
        entries.push(RootEntry { base_name: table_name(base), suffix, shown: name.clone(), kind, plain: true });
    }
    (entries, error)
}

/// The files among the objects of a folder.
pub(super) fn files(
    bucket: &Arc<Bucket>,
    objects: &Objects,
    range: Range<usize>,
    notes: &mut Notes<'_>,
) -> Result<Vec<ListedFile>, EngineError> {
    let mut files = Vec::new();
    for object in objects.all.get(range).unwrap_or_default() {
        let parts: Vec<&str> = object.path.split('/').collect();
        let Some((name, folders)) = parts.split_last() else { continue };
        let Some(parsed) = parse_name(name).filter(|_| !parts.iter().skip(1).any(|part| is_skipped(part))) else {
            continue;
        };
        if folders.len() > MAX_DEPTH + 1 {
            notes.pass(object.path.clone(), "folders nest too deeply");
            continue;
        }
        if object.meta.size == 0 {
            notes.pass(object.path.clone(), "the file is empty");
            continue;
        }
        if files.len() == MAX_FILES_PER_TABLE {
            return Err(too_many_files());
        }
        let partitions = folders.iter().skip(1).filter_map(|folder| partition(folder)).collect();
        files.push(object.file(bucket, &parsed, partitions));
    }
    Ok(files)
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objects({})", self.all.len())
    }
}
