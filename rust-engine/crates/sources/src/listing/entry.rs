//! One file as it was listed: path, identity and format.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use quern_core::SnapshotHasher;

use super::settle::{self, FileSystems};
use crate::bucket::Bucket;

/// What a file holds, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileFormat {
    /// `.json`, `.ndjson`, `.jsonl`.
    Json,
    /// `.csv`.
    Csv,
    /// `.tsv`.
    Tsv,
    /// `.parquet`.
    Parquet,
    /// `.arrow`: an Arrow IPC file or stream.
    Arrow,
}

/// How a text file is compressed, by its second extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// `.gz`.
    Gzip,
    /// `.zst`.
    Zstd,
}

/// A file name taken apart: stem, extension as written in table names (`csv`, `csv_gz`), format, compression.
pub(crate) struct ParsedName<'a> {
    pub(crate) stem: &'a str,
    pub(crate) suffix: String,
    pub(crate) extension: &'static str,
    pub(crate) format: FileFormat,
    pub(crate) compression: Compression,
}

const EXTENSIONS: &[(&str, FileFormat)] = &[
    ("json", FileFormat::Json),
    ("ndjson", FileFormat::Json),
    ("jsonl", FileFormat::Json),
    ("csv", FileFormat::Csv),
    ("tsv", FileFormat::Tsv),
    ("parquet", FileFormat::Parquet),
    ("arrow", FileFormat::Arrow),
];

/// Takes a file name apart; `None` where its extension is not one of ours.
pub(crate) fn parse_name(name: &str) -> Option<ParsedName<'_>> {
    let (inner, compression, compressed) = match name.rsplit_once('.') {
        Some((inner, ext)) if ext.eq_ignore_ascii_case("gz") => (inner, Compression::Gzip, "_gz"),
        Some((inner, ext)) if ext.eq_ignore_ascii_case("zst") => (inner, Compression::Zstd, "_zst"),
        _ => (name, Compression::None, ""),
    };
    let (stem, ext) = inner.rsplit_once('.')?;
    let (extension, format) = EXTENSIONS.iter().find(|(known, _)| ext.eq_ignore_ascii_case(known))?;
    let is_text = !matches!(format, FileFormat::Parquet | FileFormat::Arrow);
    if stem.is_empty() || (compression != Compression::None && !is_text) {
        return None;
    }
    Some(ParsedName { stem, suffix: format!("{extension}{compressed}"), extension, format: *format, compression })
}

/// Where a file lies, and by what a later look knows it unchanged.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// On a file system.
    Disk {
        /// Never shown to callers.
        path: PathBuf,
        identity: String,
    },
    /// In a bucket, as it was listed.
    Bucket { bucket: Arc<Bucket>, meta: ObjectMeta },
}

/// A file at one moment: where it lies and the identity by which a later read knows it unchanged.
#[derive(Clone, Debug)]
pub struct ListedFile {
    /// Where it lies.
    pub(crate) place: Place,
    /// The path below its source folder, for messages.
    pub shown: String,
    /// The size in bytes.
    pub size: u64,
    /// When the content was last changed, by the file system's word.
    pub modified: DateTime<Utc>,
    /// The identity: device, inode, size, and the times of the last change to content and to inode, in nanoseconds; of an
    /// object its entity tag. While the file is not settled, with a word that no other listing has.
    pub etag: String,
    /// Whether a change after the listing would surely show in the identity.
    pub settled: bool,
    /// The format.
    pub format: FileFormat,
    /// The extension without its dot, in lower case.
    pub extension: &'static str,
    /// The compression.
    pub compression: Compression,
    /// The `key=value` folders above it, outermost first.
    pub partitions: Vec<(String, String)>,
}

impl ListedFile {
    pub(super) fn new(
        path: PathBuf,
        shown: String,
        metadata: &Metadata,
        name: &ParsedName<'_>,
        systems: &FileSystems,
    ) -> Self {
        let state = state(metadata);
        let settled = systems.settled(metadata, SystemTime::now());
        Self {
            shown,
            size: metadata.len(),
            modified: metadata.modified().map(DateTime::from).unwrap_or_default(),
            etag: if settled { state } else { format!("{state}-{}", settle::once()) },
            settled,
            format: name.format,
            extension: name.extension,
            compression: name.compression,
            partitions: Vec::new(),
            place: Place::Disk { path, identity: identity(metadata) },
        }
    }

    /// An object of a bucket. Its entity tag is all that is asked of it later.
    pub(super) fn of(
        bucket: Arc<Bucket>,
        meta: ObjectMeta,
        shown: &str,
        name: &ParsedName<'_>,
        partitions: Vec<(String, String)>,
    ) -> Self {
        let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
        let mut hasher = SnapshotHasher::new();
        hasher.part(bucket.to_string().as_bytes()).part(meta.location.as_ref().as_bytes());
        hasher.part(tag.as_bytes()).part(&meta.size.to_le_bytes());
        Self {
            shown: shown.to_owned(),
            size: meta.size,
            modified: meta.last_modified,
            etag: hasher.finish(),
            settled: true,
            format: name.format,
            extension: name.extension,
            compression: name.compression,
            partitions,
            place: Place::Bucket { bucket, meta },
        }
    }

    /// Whether it is still what was listed, as far as a look at a local file system tells; whoever reads an object names its
    /// tag. Blocking for microseconds.
    pub(crate) fn is_unchanged(&self) -> bool {
        match &self.place {
            Place::Disk { path, identity: known } => std::fs::metadata(path).is_ok_and(|m| identity(&m) == *known),
            Place::Bucket { .. } => true,
        }
    }
    /// Whether it is text, which is dear to decode.
    pub(crate) fn is_text(&self) -> bool {
        !matches!(self.format, FileFormat::Parquet | FileFormat::Arrow)
    }

    /// A Parquet file that this process has written for itself and that nobody writes to any more.
    pub(crate) fn spilled(path: PathBuf, metadata: &Metadata) -> Self {
        Self {
            shown: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            size: metadata.len(),
            modified: metadata.modified().map(DateTime::from).unwrap_or_default(),
            etag: state(metadata),
            place: Place::Disk { path, identity: identity(metadata) },
            settled: true,
            format: FileFormat::Parquet,
            extension: "parquet",
            compression: Compression::None,
            partitions: Vec::new(),
        }
    }
}

/// The identity of an open or listed file: its device, and its state there.
pub(crate) fn identity(metadata: &Metadata) -> String {
    format!("{:x}-{}", metadata.dev(), state(metadata))
}

/// The state of a file in its file system. Any write, rename-over or recreation changes it: the inode's change time can't
/// be set by programs, unlike the modification time. Each machine numbers devices its own way, so that engines on several
/// machines over one network file system give a file the same state, and a table the same snapshot, only without them.
fn state(metadata: &Metadata) -> String {
    format!(
        "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}
