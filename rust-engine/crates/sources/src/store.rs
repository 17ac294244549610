//! A read-only object store that holds exactly the files of some snapshots.
//!
//! Every read of a file checks, before and after, that it is still the one that was listed; every read of a bucket's object
//! is on the condition that it is. What changed is [`SnapshotChanged`], never mixed content. Object paths contain the file's identity, so that caches keyed by path
//! (Parquet footers) can never answer for other content.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, coalesce_ranges,
};

use crate::bucket::{Bucket, cause};
use crate::listing::{ListedFile, Place, identity};

/// How much of a file one read of a stream fetches, in bytes. Bounds the memory of a streamed read.
const STREAM_CHUNK: u64 = 1 << 20;
/// The same of a bucket, where each read takes a while to begin.
const REMOTE_CHUNK: usize = 8 << 20;

/// A file is no longer the one that its snapshot names.
#[derive(Debug, thiserror::Error)]
#[error("`{file}` changed while it was being read")]
pub struct SnapshotChanged {
    /// The file's path below its source folder.
    pub file: String,
}

/// The files of one request's snapshots, by object path.
#[derive(Debug, Default)]
pub struct PinnedStore {
    files: HashMap<Path, Arc<ListedFile>>,
}

impl PinnedStore {
    /// A store of exactly these files.
    pub fn new(files: impl IntoIterator<Item = Arc<ListedFile>>) -> Self {
        Self { files: files.into_iter().map(|f| (object_path(&f), f)).collect() }
    }

    /// The first file that is no longer what was listed. Blocking.
    pub fn first_changed(&self) -> Option<SnapshotChanged> {
        self.files.values().find_map(|f| (!f.is_unchanged()).then(|| SnapshotChanged { file: f.shown.clone() }))
    }

    fn file(&self, location: &Path) -> Result<Arc<ListedFile>> {
        self.files.get(location).cloned().ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "not a file of this request's snapshots".into(),
        })
    }
}

/// The object path of a listed file: its identity, then its shown path.
pub fn object_path(file: &ListedFile) -> Path {
    Path::from_iter([file.etag.as_str(), file.shown.as_str()])
}

/// What object stores say about a listed file.
pub fn object_meta(file: &ListedFile) -> ObjectMeta {
    ObjectMeta {
        location: object_path(file),
        last_modified: file.modified,
        size: file.size,
        e_tag: Some(file.etag.clone()),
        version: None,
    }
}

/// An open file whose identity is checked around each read.
struct OpenFile {
    file: File,
    listed: Arc<ListedFile>,
    identity: String,
}

impl OpenFile {
    fn open(listed: Arc<ListedFile>, path: &std::path::Path, identity: String) -> Result<Self> {
        match File::open(path) {
            Ok(file) => Ok(Self { file, listed, identity }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(changed(&listed)),
            Err(e) => Err(Error::Generic { store: "local", source: Box::new(e) }),
        }
    }

    fn read(&self, range: &Range<u64>) -> Result<Bytes> {
        let mut buffer = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        self.check()?;
        match self.file.read_exact_at(&mut buffer, range.start) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(changed(&self.listed)),
            Err(e) => return Err(Error::Generic { store: "local", source: Box::new(e) }),
        }
        self.check()?;
        Ok(buffer.into())
    }

    /// The open file must be the listed one; the name may meanwhile belong to another, which later requests see.
    fn check(&self) -> Result<()> {
        let metadata = self.file.metadata().map_err(|e| Error::Generic { store: "local", source: Box::new(e) })?;
        if identity(&metadata) == self.identity { Ok(()) } else { Err(changed(&self.listed)) }
    }
}

fn changed(listed: &ListedFile) -> Error {
    Error::Precondition { path: listed.shown.clone(), source: Box::new(SnapshotChanged { file: listed.shown.clone() }) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

fn stream(open: Arc<OpenFile>, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    stream::unfold((open, range), |(open, range)| async move {
        if range.is_empty() {
            return None;
        }
        let next = range.start..range.end.min(range.start + STREAM_CHUNK);
        let rest = next.end..range.end;
        let reader = Arc::clone(&open);
        match blocking(move || reader.read(&next)).await {
            Ok(bytes) => Some((Ok(bytes), (open, rest))),
            Err(e) => Some((Err(e), (open, range.end..range.end))),
        }
    })
    .boxed()
}

/// An object of a bucket, read as long as it is what was listed.
#[derive(Clone)]
struct Remote {
    bucket: Arc<Bucket>,
    meta: ObjectMeta,
    listed: Arc<ListedFile>,
}

impl Remote {
    async fn read(self, range: Range<u64>) -> Result<Bytes> {
        let tagged = self.meta.e_tag.is_some();
        let options = GetOptions {
            if_match: self.meta.e_tag.clone(),
            if_unmodified_since: (!tagged).then_some(self.meta.last_modified),
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let read = async { self.bucket.store().get_opts(&self.meta.location, options).await?.bytes().await };
        match read.await {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
            Ok(bytes) => {
                let wanted = range.end - range.start;
                Err(self.failed(&format!("it sent {} bytes where {wanted} were asked for", bytes.len())))
            }
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Err(changed(&self.listed)),
            Err(error) => Err(self.failed(&cause(&error))),
        }
    }

    fn failed(&self, why: &str) -> Error {
        Error::Generic { store: "bucket", source: Box::new(self.bucket.unavailable(why)) }
    }

    /// The bytes of a range front to back; the next part is on its way while one is worked on.
    fn stream(self, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        let parts =
            range.clone().step_by(REMOTE_CHUNK).map(move |start| start..(start + REMOTE_CHUNK as u64).min(range.end));
        stream::iter(parts).map(move |part| self.clone().read(part)).buffered(2).boxed()
    }
}

fn read_only<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.to_owned(), implementer: "PinnedStore".to_owned() })
}

impl Display for PinnedStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedStore({} files)", self.files.len())
    }
}

#[async_trait]
impl ObjectStore for PinnedStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let listed = self.file(location)?;
        let meta = object_meta(&listed);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            None => 0..meta.size,
            Some(GetRange::Bounded(r)) => r.start.min(meta.size)..r.end.min(meta.size),
            Some(GetRange::Offset(start)) => (*start).min(meta.size)..meta.size,
            Some(GetRange::Suffix(n)) => meta.size.saturating_sub(*n)..meta.size,
        };
        let payload = if options.head {
            stream::empty().boxed()
        } else {
            match listed.place.clone() {
                Place::Disk { path, identity } => {
                    let open = blocking(move || {
                        let open = OpenFile::open(listed, &path, identity)?;
                        open.check()?;
                        Ok(open)
                    });
                    stream(Arc::new(open.await?), range.clone())
                }
                Place::Bucket { bucket, meta } => Remote { bucket, meta, listed }.stream(range.clone()),
            }
        };
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let listed = self.file(location)?;
        match listed.place.clone() {
            Place::Disk { path, identity } => {
                let ranges = ranges.to_vec();
                blocking(move || {
                    let open = OpenFile::open(listed, &path, identity)?;
                    ranges.iter().map(|range| open.read(range)).collect()
                })
                .await
            }
            Place::Bucket { bucket, meta } => {
                let remote = Remote { bucket, meta, listed };
                coalesce_ranges(ranges, |range| remote.clone().read(range), OBJECT_STORE_COALESCE_DEFAULT).await
            }
        }
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        read_only("put")
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        read_only("put_multipart")
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { read_only("delete") }).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async { read_only("list") }).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        read_only("list")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        read_only("copy")
    }
}
