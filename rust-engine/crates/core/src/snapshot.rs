//! Snapshot ids: a hash of the exact set of objects that make up a table at one moment.

use sha2::{Digest, Sha256};

/// A table and the id of the exact set of objects a read of it used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableSnapshot {
    /// The table's name.
    pub table: String,
    /// The snapshot's id, 32 lower-case hex digits.
    pub snapshot: String,
}

/// Builds a snapshot id from parts. Parts are length-prefixed, so that no two lists of parts collide by joining.
pub struct SnapshotHasher(Sha256);

impl Default for SnapshotHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl SnapshotHasher {
    /// An empty set.
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds one part.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The id: the first 128 bits of the SHA-256, in hex.
    pub fn finish(self) -> String {
        hex::encode(&self.0.finalize()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let id = |parts: &[&str]| {
            let mut hasher = SnapshotHasher::new();
            for part in parts {
                hasher.part(part.as_bytes());
            }
            hasher.finish()
        };
        assert_ne!(id(&["ab", "c"]), id(&["a", "bc"]));
        assert_eq!(id(&["ab", "c"]).len(), 32);
    }
}
