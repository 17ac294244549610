//! The files that an execution is bound to, and what is said when one of them is no longer what it was.

use std::sync::Arc;

use quern_core::{EngineError, Reason};
use quern_sources::{PinnedStore, Table};

/// The files that a question reads, and whether an earlier page has chosen them.
pub(crate) struct Pins {
    pub(crate) store: Arc<PinnedStore>,
    pub(crate) chosen: bool,
}

impl Pins {
    /// The files of these tables.
    pub(crate) fn of(tables: &[Arc<Table>], chosen: bool) -> Self {
        let files = tables.iter().flat_map(|t| &t.files).map(|(f, _)| Arc::clone(f));
        Self { store: Arc::new(PinnedStore::new(files)), chosen }
    }

    /// What to say when reading failed: that a file is no longer what it was, or else the error.
    pub(crate) async fn explain(&self, error: EngineError) -> EngineError {
        match self.changed().await {
            Some(changed) => changed,
            None if self.chosen && error.reason == Reason::SnapshotChanged => gone(&error.message),
            None => error,
        }
    }

    /// The error that says that a file is no longer what it was, if one is not.
    pub(crate) async fn changed(&self) -> Option<EngineError> {
        let store = Arc::clone(&self.store);
        let changed = tokio::task::spawn_blocking(move || store.first_changed()).await.ok()??;
        if self.chosen {
            return Some(gone(&changed.to_string()).with("file", changed.file));
        }
        Some(EngineError::new(Reason::SnapshotChanged, format!("{changed}; ask again")).with("file", changed.file))
    }
}

/// The snapshot of an earlier page can't be read.
pub(crate) fn gone(why: &str) -> EngineError {
    EngineError::new(
        Reason::SnapshotGone,
        format!(
            "the snapshot that the pages before were read from is gone ({why}); leave `page_token` out to start again"
        ),
    )
}
