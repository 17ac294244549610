//! The thread that lists, so that the watching thread can say that it takes long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use crate::listing::{self, FileSystems, Root};

/// Every table's snapshot id by name.
pub(super) type Tables = BTreeMap<String, String>;

/// What a listing found.
pub(super) struct Answer {
    pub(super) tables: Tables,
    pub(super) unwatchable: bool,
    /// Whether some file is too young for its identity to be relied on.
    pub(super) unsettled: bool,
}

/// Lists on a thread of its own, one listing at a time.
pub(super) struct Lister {
    jobs: SyncSender<()>,
    answers: Receiver<Option<Answer>>,
}

impl Lister {
    pub(super) fn start(roots: Arc<[Root]>, systems: Arc<FileSystems>) -> Self {
        let (jobs, received) = mpsc::sync_channel(1);
        let (answered, answers) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            while received.recv().is_ok() {
                if answered.send(list(&roots, &systems)).is_err() {
                    return;
                }
            }
        });
        Self { jobs, answers }
    }

    /// Lists all tables; `late` is called when that takes longer than `patience`. `None` where they can't be listed.
    pub(super) fn list(&self, patience: Duration, late: impl FnOnce()) -> Option<Answer> {
        self.jobs.send(()).ok()?;
        match self.answers.recv_timeout(patience) {
            Ok(Some(answer)) => Some(answer),
            Err(RecvTimeoutError::Timeout) => {
                late();
                self.answers.recv().ok().flatten()
            }
            // Nothing is known of sources that can't be listed.
            Ok(None) | Err(RecvTimeoutError::Disconnected) => {
                late();
                None
            }
        }
    }
}

fn list(roots: &[Root], systems: &FileSystems) -> Option<Answer> {
    let listing = listing::list(roots, None, systems).ok()?;
    let tables: Vec<_> = listing.tables.into_values().flatten().collect();
    Some(Answer {
        unsettled: !tables.iter().all(listing::ListedTable::settled),
        unwatchable: listing.unwatchable,
        tables: tables.into_iter().map(|table| (table.name.clone(), table.snapshot_id())).collect(),
    })
}
