//! The engine's gRPC services: decode, call, map the error, encode. No logic of their own.

mod call;
mod catalog_service;
mod data_channel;
mod metrics_service;
mod query_service;
mod status;
mod types;

pub use catalog_service::{CatalogService, Watches};
pub use data_channel::DataChannels;
pub use metrics_service::{MetricsService, Pools};
pub use query_service::QueryService;

/// The messages and servers generated from `proto/quern/engine/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    tonic::include_proto!("quern.engine.v1");

    /// The descriptors of the contract, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
