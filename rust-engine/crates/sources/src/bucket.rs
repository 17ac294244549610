//! Buckets as sources: what is in them is known by listing them again and again.
//!
//! A bucket tells nobody when it changes. It is listed every few seconds, all of it that lies below the source's prefix, and
//! all requests in between see what the last listing saw: a change is seen one interval and one listing later at the
//! latest. An object is known by its entity tag and size, and read on the condition that it still has that tag
//! (`If-Match`). While listings fail, nobody knows what is there, and the bucket's tables are unavailable.

use std::fmt::{self, Debug, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, Error, ObjectMeta, ObjectStore, RetryConfig};
use quern_core::{EngineError, Reason};
use tokio::sync::watch;
use url::Url;

use crate::listing::Objects;

/// The most objects that one source may have. An entry of a listing takes some hundred bytes.
pub const MAX_OBJECTS: usize = 1_000_000;

/// How long a listing may take.
const LISTING: Duration = Duration::from_secs(30);
/// How long one call may take, its answer's body included.
const CALL: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// How long a call that failed may be tried again, and how often.
const PATIENCE: Duration = Duration::from_secs(15);
const TRIES: usize = 6;

/// The schemes of buckets' URLs.
const SCHEMES: &[&str] = &["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"];

/// A bucket, or what lies below a prefix in it.
pub struct Bucket {
    /// The URL without what may be secret.
    shown: String,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    seen: watch::Sender<Seen>,
}

/// What the last listing saw.
#[derive(Clone, Default)]
struct Seen {
    /// Counts the changes.
    generation: u64,
    /// The objects, or why they are not known; nothing before the first listing.
    objects: Option<Result<Arc<Objects>, EngineError>>,
    /// The objects of the last listing that succeeded.
    known: Option<Arc<Objects>>,
}

impl Bucket {
    /// Whether a source is the URL of a bucket.
    pub fn is_url(source: &str) -> bool {
        source.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()))
    }

    /// The bucket at a URL: `s3://bucket/prefix`, `gs://…`, `az://…`. Credentials, region and endpoint are in the usual
    /// environment variables of its service. Nothing is asked of it yet.
    pub fn open(source: &str) -> Result<Self, EngineError> {
        let wrong = |why: String| EngineError::new(Reason::RequestInvalid, format!("can't serve the bucket: {why}"));
        let url = Url::parse(source).map_err(|e| wrong(format!("its URL is malformed: {e}")))?;
        let shown = format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
        let options = ClientOptions::new().with_timeout(CALL).with_connect_timeout(CONNECT);
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(3), ..BackoffConfig::default() };
        let retry = RetryConfig { max_retries: TRIES, retry_timeout: PATIENCE, backoff };
        let store: Result<Arc<dyn ObjectStore>, Error> = match url.scheme() {
            "s3" | "s3a" => {
                // Plain HTTP is allowed where the endpoint says so.
                let plain = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];
                let plain = plain.iter().any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("http://")));
                let builder = AmazonS3Builder::from_env().with_url(source).with_retry(retry);
                let builder = builder.with_client_options(options.with_allow_http(plain));
                builder.build().map(|store| Arc::new(store) as _)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(source).with_retry(retry);
                builder.with_client_options(options).build().map(|store| Arc::new(store) as _)
            }
            _ => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(source).with_retry(retry);
                builder.with_client_options(options).build().map(|store| Arc::new(store) as _)
            }
        };
        let store = store.map_err(|e| wrong(cause(&e)))?;
        let prefix = Path::from_url_path(url.path()).map_err(|e| wrong(format!("its path is malformed: {e}")))?;
        Ok(Self::new(shown, store, prefix))
    }

    pub(crate) fn new(shown: String, store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { shown, store, prefix, seen: watch::Sender::default() }
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Lists the bucket every `interval`, until it is dropped.
    pub(crate) async fn poll(self: Arc<Self>, interval: Duration) {
        loop {
            let listed = match tokio::time::timeout(LISTING, self.list()).await {
                Ok(listed) => listed,
                Err(_) => Err(self.unavailable(&format!("listing it took more than {} s", LISTING.as_secs()))),
            };
            self.learn(listed);
            tokio::time::sleep(interval).await;
        }
    }

    async fn list(&self) -> Result<Vec<ObjectMeta>, EngineError> {
        let mut found = Vec::new();
        let mut objects = self.store.list(Some(&self.prefix));
        while let Some(object) = objects.try_next().await.map_err(|e| self.unavailable(&cause(&e)))? {
            if found.len() == MAX_OBJECTS {
                return Err(self.unavailable(&format!("it has more than {MAX_OBJECTS} objects; serve a prefix of it")));
            }
            found.push(object);
        }
        Ok(found)
    }

    /// Takes over a listing. Only the poll calls this, so that nothing changes between the look and the change.
    fn learn(&self, listed: Result<Vec<ObjectMeta>, EngineError>) {
        let seen = self.seen.borrow().clone();
        let same = match (&listed, &seen.objects) {
            (Ok(new), Some(Ok(known))) => known.same(new),
            (Err(new), Some(Err(known))) => new.message == known.message,
            _ => false,
        };
        if same {
            return;
        }
        if let Err(error) = &listed {
            tracing::warn!(bucket = self.shown, error = error.message, "the bucket can't be listed");
        }
        let objects = listed.map(|objects| Arc::new(Objects::new(&self.prefix, objects)));
        let known = objects.as_ref().ok().cloned().or(seen.known);
        self.seen.send_replace(Seen { generation: seen.generation + 1, objects: Some(objects), known });
    }

    /// Waits for the first listing, which is bounded itself.
    pub(crate) async fn listed(&self) {
        // The sender lives as long as the bucket.
        let _ = self.seen.subscribe().wait_for(|seen| seen.objects.is_some()).await;
    }

    /// Is told of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<impl Sized + use<>> {
        self.seen.subscribe()
    }

    /// Which change was the last.
    pub(crate) fn generation(&self) -> u64 {
        self.seen.borrow().generation
    }

    /// The objects as they were last known, and why they are not known now, if they are not.
    pub(crate) fn objects(&self) -> (Option<Arc<Objects>>, Option<EngineError>) {
        let seen = self.seen.borrow();
        let error = match &seen.objects {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(error.clone()),
            None => Some(self.unavailable("it was not listed yet")),
        };
        (seen.known.clone(), error)
    }

    /// The error of what can't be had of it now.
    pub(crate) fn unavailable(&self, why: &str) -> EngineError {
        let message = format!("the bucket `{}` can't be read now: {why}", self.shown);
        let error = EngineError::new(Reason::SourceUnavailable, message).with("source", &self.shown);
        error.retry_after(Duration::from_secs(1))
    }
}

/// Why a call failed, in one line and without what may be secret.
pub(crate) fn cause(error: &Error) -> String {
    const REFUSED: &str = "it does not accept the credentials";
    const MISSING: &str = "there is no such bucket";
    let text = match error {
        Error::NotFound { .. } => return MISSING.to_owned(),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => return REFUSED.to_owned(),
        Error::Generic { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    // What was asked, with which URL, and after how many tries stands before what came of it.
    let outcome = text.lines().next().unwrap_or_default().rsplit(" - ").next().unwrap_or_default();
    let status = outcome.split_once("status code: ").map(|(_, status)| status.split(':').next().unwrap_or_default());
    match status {
        Some(status) if status.starts_with("401") || status.starts_with("403") => format!("{REFUSED} ({status})"),
        Some(status) if status.starts_with("404") => format!("{MISSING} ({status})"),
        Some(status) => format!("it answers {status}"),
        // Signatures are in the queries of URLs.
        None => outcome.split(' ').map(|word| word.split('?').next().unwrap_or_default()).collect::<Vec<_>>().join(" "),
    }
}

impl Display for Bucket {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Debug for Bucket {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.shown)
    }
}

#[cfg(test)]
mod tests;
