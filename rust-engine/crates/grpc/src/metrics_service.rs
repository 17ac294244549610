//! `quern.engine.v1.MetricsService`.

use std::sync::Arc;

use quern_query::Engine;
use tonic::{Request, Response, Status};

use crate::proto::{self, MetricKind, metrics_service_server};

/// Answers with what the engine counts. The names of its metrics are declared here and nowhere else.
pub struct MetricsService {
    engine: Arc<Engine>,
}

impl MetricsService {
    /// A service over an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl metrics_service_server::MetricsService for MetricsService {
    async fn get_metrics(
        &self,
        _request: Request<proto::GetMetricsRequest>,
    ) -> Result<Response<proto::GetMetricsResponse>, Status> {
        let load = self.engine.load();
        let metrics = vec![
            counter("quern_engine_queries_total", "Statements that were let in to run.", load.queries as f64),
            counter(
                "quern_engine_queries_refused_total",
                "Statements for which there was no place.",
                load.refused as f64,
            ),
            counter(
                "quern_engine_peeked_total",
                "Requests for rows that were answered from memory at once.",
                load.peeked as f64,
            ),
            gauge("quern_engine_queries_running", "Statements that run.", load.running as f64),
            gauge("quern_engine_queries_waiting", "Statements that wait for a place.", load.waiting as f64),
            gauge("quern_engine_memory_reserved_bytes", "Memory that statements have reserved.", load.memory as f64),
            gauge("quern_engine_memory_max_bytes", "Memory that statements may reserve.", load.max_memory as f64),
            gauge("quern_engine_spilled_bytes", "Disk space that statements take.", load.spilled as f64),
            gauge("quern_engine_hot_bytes", "Memory that decoded columns and key indexes take.", load.hot.bytes as f64),
            gauge(
                "quern_engine_hot_max_bytes",
                "Memory that decoded columns and key indexes may take.",
                load.hot.capacity as f64,
            ),
            gauge(
                "quern_engine_hot_spilled_bytes",
                "Disk space of text files whose columns did not stay in memory.",
                load.hot.spilled as f64,
            ),
            counter(
                "quern_engine_hot_hits_total",
                "Blocks of columns that were taken from memory.",
                load.hot.hits as f64,
            ),
            counter("quern_engine_hot_misses_total", "Blocks of columns that were decoded.", load.hot.misses as f64),
            counter(
                "quern_engine_hot_evictions_total",
                "Chunks of columns that made room for others, or for queries.",
                load.hot.evictions as f64,
            ),
        ];
        Ok(Response::new(proto::GetMetricsResponse { metrics }))
    }
}

fn counter(name: &str, help: &str, value: f64) -> proto::Metric {
    metric(name, help, MetricKind::Counter, value)
}

fn gauge(name: &str, help: &str, value: f64) -> proto::Metric {
    metric(name, help, MetricKind::Gauge, value)
}

fn metric(name: &str, help: &str, kind: MetricKind, value: f64) -> proto::Metric {
    proto::Metric { name: name.to_owned(), help: help.to_owned(), kind: kind.into(), value }
}
