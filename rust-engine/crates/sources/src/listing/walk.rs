//! Walking source folders: entries of a root, files below a folder, loops and unreadable places.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quern_core::name::table_name;
use quern_core::{EngineError, Reason};

use super::entry::{ListedFile, parse_name};
use super::objects::{self, Objects};
use super::settle::FileSystems;
use super::{MAX_FILES_PER_TABLE, too_many_files};
use crate::bucket::Bucket;

/// How deep folders below a table's folder may be nested.
pub(super) const MAX_DEPTH: usize = 32;

/// Something directly in a source folder that may be a table.
pub(super) struct RootEntry {
    pub(super) base_name: String,
    /// What is appended to the name where several entries have it: the extension, or `folder`.
    pub(super) suffix: String,
    pub(super) shown: String,
    pub(super) kind: RootEntryKind,
    /// Whether whatever becomes of it shows in its own identity: it is a file on a local file system, a link to one included,
    /// since its identity is that of the file it leads to.
    pub(super) plain: bool,
}

pub(super) enum RootEntryKind {
    Folder(PathBuf),
    /// The objects below a folder's name in a bucket.
    Objects(Arc<Bucket>, Arc<Objects>, Range<usize>),
    Files(Vec<ListedFile>),
    Unreadable(EngineError),
}

/// What a walk notices beside tables.
pub(super) struct Notes<'a> {
    /// The file systems it walks over.
    pub(super) systems: &'a FileSystems,
    /// What was passed over, with the reason.
    pub(super) passed_over: Vec<(String, String)>,
    /// Whether something can change without a change in the folders walked: symbolic and hard links, and file systems
    /// that others may write to.
    pub(super) unwatchable: bool,
    /// The names of tables that there can come to be without a change in their folder: an empty file is filled, or a symbolic
    /// link leads to another file or folder.
    pub(super) budding: HashSet<String>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(systems: &'a FileSystems) -> Self {
        Self { systems, passed_over: Vec::new(), unwatchable: false, budding: HashSet::new() }
    }

    pub(super) fn pass(&mut self, what: String, why: &str) {
        self.passed_over.push((what, why.to_owned()));
    }

    /// Returns whether it is on a local file system.
    fn look_at(&mut self, child: &Child, metadata: &Metadata) -> bool {
        let linked = child.is_link || (metadata.is_file() && metadata.nlink() > 1);
        let local = self.systems.watchable(metadata);
        self.unwatchable |= linked || !local;
        local
    }
}

/// The entries of one source folder that may be tables. Fails where the folder itself can't be listed.
pub(super) fn root_entries(root: &Path, notes: &mut Notes<'_>) -> Result<Vec<RootEntry>, EngineError> {
    let mut entries = Vec::new();
    for child in sorted_children(root).map_err(|e| {
        let unreadable =
            || EngineError::new(Reason::FileUnreadable, format!("the source folder can't be listed: {}", cause(&e)));
        EngineError::exhausted(&e).unwrap_or_else(unreadable)
    })? {
        let path = child.path.clone();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_skipped(&name) {
            continue;
        }
        let parsed = parse_name(&name);
        let metadata = fs::metadata(&path);
        if child.is_link {
            notes.budding.insert(table_name(&name));
            if let (Some(parsed), false) = (&parsed, metadata.as_ref().is_ok_and(Metadata::is_file)) {
                notes.budding.insert(table_name(parsed.stem));
            }
        }
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(e) => {
                notes.unwatchable |= child.is_link;
                if let Some(reason) = broken_link(&path, &e) {
                    notes.passed_over.push((name, reason));
                } else if let Some(parsed) = parsed {
                    entries.push(RootEntry {
                        base_name: table_name(parsed.stem),
                        suffix: parsed.suffix,
                        kind: RootEntryKind::Unreadable(unreadable(&name, &e)),
                        shown: name,
                        plain: false,
                    });
                }
                continue;
            }
        };
        let local = notes.look_at(&child, &metadata);
        if metadata.is_dir() {
            entries.push(RootEntry {
                base_name: table_name(&name),
                suffix: "folder".to_owned(),
                kind: RootEntryKind::Folder(path),
                shown: name,
                plain: false,
            });
        } else if let (true, Some(parsed)) = (metadata.is_file(), parsed) {
            if metadata.len() == 0 {
                notes.budding.insert(table_name(parsed.stem));
                notes.pass(name, "the file is empty");
                continue;
            }
            let file = ListedFile::new(path, name.clone(), &metadata, &parsed, notes.systems);
            entries.push(RootEntry {
                base_name: table_name(parsed.stem),
                suffix: parsed.suffix.clone(),
                kind: RootEntryKind::Files(vec![file]),
                shown: name,
                plain: local,
            });
        }
    }
    Ok(entries)
}

/// Walks a folder entry; `None` where it holds no data and so is no table.
pub(super) fn expand(entry: RootEntry, notes: &mut Notes<'_>) -> Option<RootEntry> {
    let passed_before = notes.passed_over.len();
    let files = match &entry.kind {
        RootEntryKind::Folder(path) => {
            let mut walk = Walk { files: Vec::new(), ancestors: HashSet::new(), notes };
            walk.folder(path, &entry.shown, &[], 0).map(|()| walk.files)
        }
        RootEntryKind::Objects(bucket, objects, range) => objects::files(bucket, objects, range.clone(), notes),
        RootEntryKind::Files(_) | RootEntryKind::Unreadable(_) => return Some(entry),
    };
    let kind = match files {
        Err(error) => RootEntryKind::Unreadable(error),
        Ok(files) if files.is_empty() => {
            if notes.passed_over.len() == passed_before {
                notes.pass(entry.shown.clone(), "the folder holds no data files");
            }
            return None;
        }
        Ok(files) => RootEntryKind::Files(files),
    };
    Some(RootEntry { kind, ..entry })
}

struct Walk<'n, 's> {
    files: Vec<ListedFile>,
    /// The folders from the table's folder down to the current one, by device and inode.
    ancestors: HashSet<(u64, u64)>,
    notes: &'n mut Notes<'s>,
}

impl Walk<'_, '_> {
    fn folder(
        &mut self,
        path: &Path,
        shown: &str,
        partitions: &[(String, String)],
        depth: usize,
    ) -> Result<(), EngineError> {
        let metadata = fs::metadata(path).map_err(|e| unreadable(shown, &e))?;
        let id = (metadata.dev(), metadata.ino());
        if depth > MAX_DEPTH || !self.ancestors.insert(id) {
            self.notes.pass(shown.to_owned(), "a symbolic link loops, or folders nest too deeply");
            return Ok(());
        }
        for child in sorted_children(path).map_err(|e| unreadable(shown, &e))? {
            let name = child.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !is_skipped(&name) {
                self.child(&child, &name, &format!("{shown}/{name}"), partitions, depth)?;
            }
        }
        self.ancestors.remove(&id);
        Ok(())
    }

    fn child(
        &mut self,
        child: &Child,
        name: &str,
        shown: &str,
        partitions: &[(String, String)],
        depth: usize,
    ) -> Result<(), EngineError> {
        let path = child.path.as_path();
        let parsed = parse_name(name);
        let metadata: Metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) => {
                self.notes.unwatchable |= child.is_link;
                return match broken_link(path, &e) {
                    Some(reason) => {
                        self.notes.passed_over.push((shown.to_owned(), reason));
                        Ok(())
                    }
                    None if parsed.is_some() => Err(unreadable(shown, &e)),
                    None => Ok(()),
                };
            }
        };
        self.notes.look_at(child, &metadata);
        if metadata.is_dir() {
            let mut below = partitions.to_vec();
            below.extend(partition(name));
            return self.folder(path, shown, &below, depth + 1);
        }
        let (true, Some(parsed)) = (metadata.is_file(), parsed) else { return Ok(()) };
        if metadata.len() == 0 {
            self.notes.pass(shown.to_owned(), "the file is empty");
            return Ok(());
        }
        if self.files.len() == MAX_FILES_PER_TABLE {
            return Err(too_many_files());
        }
        let mut file = ListedFile::new(path.to_owned(), shown.to_owned(), &metadata, &parsed, self.notes.systems);
        file.partitions = partitions.to_vec();
        self.files.push(file);
        Ok(())
    }
}

/// The column and value of a `key=value` folder.
pub(super) fn partition(folder: &str) -> Option<(String, String)> {
    folder.split_once('=').map(|(key, value)| (key.to_owned(), decode_value(value)))
}

/// Hive writes the values of partition folders percent-encoded.
fn decode_value(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let decoded = (first == b'%')
            .then(|| rest.get(..2))
            .flatten()
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match decoded {
            Some(byte) => {
                out.push(byte);
                bytes = rest.get(2..).unwrap_or_default();
            }
            None => {
                out.push(first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An entry of a folder, as the folder has it.
struct Child {
    path: PathBuf,
    is_link: bool,
}

fn sorted_children(path: &Path) -> io::Result<Vec<Child>> {
    let child = |entry: fs::DirEntry| Child {
        path: entry.path(),
        is_link: entry.file_type().is_ok_and(|kind| kind.is_symlink()),
    };
    let mut children = fs::read_dir(path)?.map(|e| e.map(child)).collect::<io::Result<Vec<_>>>()?;
    children.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(children)
}

pub(super) fn is_skipped(name: &str) -> bool {
    name.starts_with(['.', '_']) || name.ends_with(".tmp") || name == "quern.yaml"
}

/// Why a symbolic link leads nowhere; `None` where the error is another one.
fn broken_link(path: &Path, error: &io::Error) -> Option<String> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
    match (is_link, error.kind()) {
        (true, ErrorKind::NotFound) => Some("the symbolic link leads nowhere".to_owned()),
        (true, kind) if kind != ErrorKind::PermissionDenied => Some("the symbolic link loops".to_owned()),
        // Removed between listing and looking: as if it had never been there.
        (false, ErrorKind::NotFound) => Some("the file was removed just now".to_owned()),
        _ => None,
    }
}

fn unreadable(shown: &str, error: &io::Error) -> EngineError {
    let unreadable = || EngineError::new(Reason::FileUnreadable, format!("`{shown}` can't be read: {}", cause(error)));
    EngineError::exhausted(error).unwrap_or_else(unreadable).with("file", shown)
}

/// The error's kind in plain words, without paths.
fn cause(error: &io::Error) -> String {
    error.kind().to_string()
}
