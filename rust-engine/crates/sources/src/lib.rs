//! From files to record batches: listing, snapshots, inference, pinned reads and table providers.
//!
//! Data flows one way: [`listing`] finds files, [`inspect`] learns each file's schema once, [`table`] unites the files
//! of a table, [`provider`] scans exactly those files through [`store`], and keeps what it decodes in [`hot`]. Nothing here
//! knows SQL limits or transports.

pub mod bucket;
pub mod catalog;
pub mod hot;
pub mod inspect;
pub mod keys;
pub mod listing;
pub mod provider;
pub mod scratch;
pub mod spill;
pub mod store;
pub mod table;
pub mod text;
pub mod watch;
pub mod widen;

mod decode;
mod scan;

pub use bucket::Bucket;
pub use catalog::{Catalog, TableDescription, TableState};
pub use listing::Root;
pub use scan::{Caches, Points, Positions, RowScan, Within};
pub use store::{PinnedStore, SnapshotChanged};
pub use table::Table;
pub use watch::Watcher;
