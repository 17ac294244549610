//! `quern.engine.v1.MetricsService`.

use std::sync::Arc;

use quern_query::{Engine, Load};
use tokio::runtime::{Handle, RuntimeMetrics};
use tonic::{Request, Response, Status};

use crate::proto::{self, MetricKind, metrics_service_server};

/// Answers with what the engine counts. The names of its metrics are declared here and nowhere else.
pub struct MetricsService {
    engine: Arc<Engine>,
    pools: Pools,
    version: &'static str,
}

/// The engine's pools of threads.
pub struct Pools {
    /// Plans, executes and encodes.
    pub cpu: Handle,
    /// Takes calls and passes bytes on.
    pub io: Handle,
}

impl MetricsService {
    /// A service over an engine of some version, and the threads that it runs on.
    pub fn new(engine: Arc<Engine>, pools: Pools, version: &'static str) -> Self {
        Self { engine, pools, version }
    }
}

#[tonic::async_trait]
impl metrics_service_server::MetricsService for MetricsService {
    async fn get_metrics(
        &self,
        _request: Request<proto::GetMetricsRequest>,
    ) -> Result<Response<proto::GetMetricsResponse>, Status> {
        let load = self.engine.load();
        let build = gauge("quern_engine_build_info", "1, with the version that runs.", 1.0);
        let mut metrics = vec![labelled(build, "version", self.version)];
        metrics.extend(queries(&load));
        metrics.extend(space(&load));
        metrics.extend(hot(&load));
        for (pool, handle) in [("cpu", &self.pools.cpu), ("io", &self.pools.io)] {
            metrics.extend(threads(&handle.metrics()).map(|metric| labelled(metric, "pool", pool)));
        }
        Ok(Response::new(proto::GetMetricsResponse { metrics }))
    }
}

fn queries(load: &Load) -> [proto::Metric; 7] {
    [
        counter("quern_engine_queries_total", "Statements that were let in to run.", load.queries as f64),
        counter("quern_engine_queries_refused_total", "Statements for which there was no place.", load.refused as f64),
        counter(
            "quern_engine_peeked_total",
            "Requests for rows that were answered from memory at once.",
            load.peeked as f64,
        ),
        gauge("quern_engine_queries_running", "Statements that run.", load.running as f64),
        gauge("quern_engine_queries_running_max", "Statements that may run at once.", load.max_running as f64),
        gauge("quern_engine_queries_waiting", "Statements that wait for a place.", load.waiting as f64),
        gauge("quern_engine_queries_waiting_max", "Statements that may wait at once.", load.max_waiting as f64),
    ]
}

fn space(load: &Load) -> [proto::Metric; 4] {
    [
        gauge("quern_engine_memory_reserved_bytes", "Memory that statements have reserved.", load.memory as f64),
        gauge("quern_engine_memory_max_bytes", "Memory that statements may reserve.", load.max_memory as f64),
        gauge("quern_engine_spilled_bytes", "Disk space that statements take.", load.spilled as f64),
        gauge("quern_engine_spilled_max_bytes", "Disk space that statements may take.", load.max_spilled as f64),
    ]
}

fn hot(load: &Load) -> [proto::Metric; 9] {
    let (indexes, index_bytes) = load.key_indexes;
    [
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
        gauge(
            "quern_engine_hot_spilled_max_bytes",
            "Disk space that such text files may take.",
            load.hot.max_spilled as f64,
        ),
        counter("quern_engine_hot_hits_total", "Blocks of columns that were taken from memory.", load.hot.hits as f64),
        counter("quern_engine_hot_misses_total", "Blocks of columns that were decoded.", load.hot.misses as f64),
        counter(
            "quern_engine_hot_evictions_total",
            "Chunks of columns that made room for others, or for queries.",
            load.hot.evictions as f64,
        ),
        gauge("quern_engine_key_indexes", "Indexes of tables' keys in memory.", indexes as f64),
        gauge(
            "quern_engine_key_index_bytes",
            "Memory that key indexes take, a part of quern_engine_hot_bytes.",
            index_bytes as f64,
        ),
    ]
}

/// What tokio's stable metrics say of a pool.
fn threads(pool: &RuntimeMetrics) -> [proto::Metric; 4] {
    let busy = (0..pool.num_workers()).map(|worker| pool.worker_total_busy_duration(worker).as_secs_f64()).sum();
    [
        gauge("quern_engine_threads", "Threads of a pool.", pool.num_workers() as f64),
        counter("quern_engine_threads_busy_seconds_total", "Time that a pool's threads were at work, in all.", busy),
        gauge("quern_engine_tasks", "Tasks of a pool that have not ended.", pool.num_alive_tasks() as f64),
        gauge("quern_engine_tasks_queued", "Tasks that wait for any thread.", pool.global_queue_depth() as f64),
    ]
}

fn counter(name: &str, help: &str, value: f64) -> proto::Metric {
    metric(name, help, MetricKind::Counter, value)
}

fn gauge(name: &str, help: &str, value: f64) -> proto::Metric {
    metric(name, help, MetricKind::Gauge, value)
}

fn metric(name: &str, help: &str, kind: MetricKind, value: f64) -> proto::Metric {
    proto::Metric { name: name.to_owned(), help: help.to_owned(), kind: kind.into(), value, labels: Vec::new() }
}

fn labelled(metric: proto::Metric, name: &str, value: &str) -> proto::Metric {
    let label = proto::MetricLabel { name: name.to_owned(), value: value.to_owned() };
    proto::Metric { labels: vec![label], ..metric }
}
