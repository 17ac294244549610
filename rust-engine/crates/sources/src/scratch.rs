//! A folder of this process's own for what it writes for itself, which does not outlive it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// What the names of such folders begin with.
const PREFIX: &str = "quern-scratch-";
/// The file in each that its process holds locked.
const LOCK: &str = "lock";

/// The folder. It goes when it is dropped; that of a process that was killed goes when another one is opened beside it.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes a folder below `parent`, which must exist, and removes those there whose processes are gone. Nothing in them is
    /// looked at.
    pub fn open(parent: &Path) -> io::Result<Self> {
        remove_stale(parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // Locked before it has the name by which others find it.
        let unseen = folder.path().join("unlocked");
        let lock = File::create(&unseen)?;
        lock.try_lock().map_err(io::Error::other)?;
        fs::rename(&unseen, folder.path().join(LOCK))?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes folders whose lock nobody holds. One without a lock is being made or removed at the moment; it is left.
fn remove_stale(parent: &Path) {
    let Ok(children) = fs::read_dir(parent) else { return };
    for child in children.flatten().filter(|child| child.file_name().to_string_lossy().starts_with(PREFIX)) {
        let held = File::open(child.path().join(LOCK)).map_or(true, |lock| lock.try_lock().is_err());
        if !held && let Err(error) = fs::remove_dir_all(child.path()) {
            tracing::warn!(%error, "what a killed engine left can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_go_with_their_process() {
        let parent = tempfile::tempdir().expect("a folder");
        let one = Scratch::open(parent.path()).expect("opens");
        // What a killed process leaves: a folder whose lock nobody holds.
        let stale = parent.path().join(format!("{PREFIX}x"));
        fs::create_dir(&stale).expect("can create");
        fs::write(stale.join(LOCK), "").expect("can write");
        fs::write(stale.join("rest"), "x").expect("can write");
        let two = Scratch::open(parent.path()).expect("opens");
        assert!(!stale.exists());
        assert!(one.path().exists() && two.path().exists() && one.path() != two.path());
        drop((one, two));
        assert_eq!(fs::read_dir(parent.path()).expect("lists").count(), 0);
    }
}
