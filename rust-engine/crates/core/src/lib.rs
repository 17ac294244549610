//! What every engine crate shares: the error table, table names, suggestions and snapshot ids.
//!
//! This crate knows no transport, no file system and no query engine.

pub mod error;
pub mod name;
pub mod snapshot;
pub mod suggest;
pub mod trace;

pub use error::{Code, EngineError, Reason, Result};
pub use snapshot::{SnapshotHasher, TableSnapshot};
