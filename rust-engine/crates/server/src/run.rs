//! Start and stop. The CPU runtime starts first and stops last; health turns NOT_SERVING before connections close.

use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use quern_core::SnapshotHasher;
use quern_grpc::proto;
use quern_grpc::proto::catalog_service_server::CatalogServiceServer;
use quern_grpc::proto::metrics_service_server::MetricsServiceServer;
use quern_grpc::proto::query_service_server::QueryServiceServer;
use quern_grpc::{CatalogService, DataChannels, MetricsService, Pools, QueryService, Watches};
use quern_query::Engine;
use quern_sources::{Bucket, Root};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};

use crate::config::Config;
use crate::listen::{self, Listener};
use crate::tls::Tls;
use crate::trace::Exporter;

/// Plans recurse over the statement's tree; the parser bounds its depth, and this stack holds it.
const CPU_STACK: usize = 64 << 20;

/// The longest message the edge may send: SQL, parameters and their framing.
const MAX_REQUEST: usize = 4 << 20;

/// The name by which health answers for the process as such.
const LIVENESS: &str = "liveness";

/// Runs the engine until it is told to stop.
pub(crate) fn run(config: Config, exporter: Option<Exporter>) -> Result<()> {
    let limits = config.limits();
    tracing::info!(memory = limits.memory, hot_bytes = limits.hot_bytes, threads = limits.threads, "limits");
    let tls = config.tls()?.map(Tls::open).transpose().context("can't set up TLS")?;
    let cpu = Builder::new_multi_thread()
        .worker_threads(limits.threads)
        .thread_stack_size(CPU_STACK)
        .thread_name("quern-cpu")
        .on_thread_start(step_back)
        .enable_all()
        .build()
        .context("can't start the CPU threads")?;
    let io = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("quern-io")
        .enable_all()
        .build()
        .context("can't start the I/O threads")?;
    let sources = config.sources.iter().map(|source| open(source)).collect::<Result<Vec<_>>>()?;
    let engine = Engine::new(sources, limits, config.page_token_secret.as_bytes(), cpu.handle().clone())
        .context("can't set up the engine")?;
    let exporting = exporter.map(|exporter| exporter.start(io.handle()));
    let pools = Pools { cpu: cpu.handle().clone(), io: io.handle().clone() };
    let result = io.block_on(serve(config, tls, Arc::new(engine), pools));
    if let Some(exporting) = exporting {
        exporting.stop(&io);
    }
    shut_down(io);
    shut_down(cpu);
    result
}

fn open(source: &str) -> Result<Root> {
    if Bucket::is_url(source) {
        return Ok(Root::Bucket(Arc::new(Bucket::open(source)?)));
    }
    let folder = Path::new(source).canonicalize();
    Ok(Root::Folder(folder.with_context(|| format!("the source folder {source} can't be opened"))?))
}

/// Gives a thread of heavy work less weight (nice 10) than those that accept calls and pass bytes on: a call's way in
/// and out stays short while all processors compute. Where the system refuses, the thread is like any other.
fn step_back() {
    /// Of 0 to 99, where 50 is nice 0.
    const WEIGHT: u8 = 25;
    let Ok(weight) = ThreadPriorityValue::try_from(WEIGHT) else { return };
    if let Err(error) = set_current_thread_priority(ThreadPriority::Crossplatform(weight)) {
        tracing::debug!(?error, "the system keeps the thread's priority");
    }
}

/// Blocking work that is still running (a read of a slow disk) must not keep the process alive.
fn shut_down(runtime: Runtime) {
    runtime.shutdown_timeout(Duration::from_secs(1));
}

async fn serve(config: Config, tls: Option<Tls>, engine: Arc<Engine>, pools: Pools) -> Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in ["", LIVENESS] {
        health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("can't set up reflection")?;
    let (stop, mut stopping) = watch::channel(false);
    let watches = Watches {
        watcher: engine.catalog().watch(config.bucket_poll),
        build: build(config.page_token_secret.as_bytes()),
        stopping: stopping.clone(),
    };
    let catalog = CatalogServiceServer::new(CatalogService::new(Arc::clone(&engine), watches));
    let (listener, bound) = listen::bind(&config.listen, tls.is_some() || config.plain_tcp).await?;
    let channels = matches!(listener, Listener::Unix { .. }).then(DataChannels::default);
    let query = QueryService::new(Arc::clone(&engine), channels.clone());
    let query = QueryServiceServer::new(query).max_decoding_message_size(MAX_REQUEST);
    let metrics = MetricsServiceServer::new(MetricsService::new(Arc::clone(&engine), pools, env!("CARGO_PKG_VERSION")));
    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(health_service.clone())
        .add_service(reflection)
        .add_service(catalog)
        .add_service(metrics)
        .add_service(query);

    if let Some(address) = &config.health {
        let socket =
            TcpListener::bind(address).await.with_context(|| format!("can't listen on `--health {address}`"))?;
        let alone = Server::builder().add_service(health_service);
        // It answers as long as the process lives.
        tokio::spawn(alone.serve_with_incoming(TcpIncoming::from(socket)));
    }
    warm_up(&engine);
    let grace = config.grace_period;
    // A supervisor sends no more queries, and its own variables are the engine's too.
    let delay = if config.supervised { Duration::ZERO } else { config.drain_delay };
    tokio::spawn(async move {
        let reason = stop_signal(config.supervised).await;
        tracing::info!(reason, "stopping");
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            reason = stop_signal(config.supervised) => tracing::info!(reason, "stopping now"),
        }
        let _ = stop.send(true);
    });
    tracing::info!(listen = bound, tls = tls.is_some(), "serving");
    let mut drained = stopping.clone();
    let drain = async move {
        let _ = drained.wait_for(|stopped| *stopped).await;
    };
    let limit = async move {
        let _ = stopping.wait_for(|stopped| *stopped).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        served = listen_on(router, listener, tls, channels, drain) => served,
        () = limit => {
            tracing::warn!("the grace period is over; queries were cut off");
            Ok(())
        }
    }
}

async fn listen_on(
    router: Router,
    listener: Listener,
    tls: Option<Tls>,
    channels: Option<DataChannels>,
    drain: impl Future<Output = ()>,
) -> Result<()> {
    match (listener, tls) {
        (Listener::Unix { grpc, data, files }, _) => {
            let incoming = listen::patient(UnixListenerStream::new(data));
            let channels = channels.map(|channels| AbortOnDropHandle::new(tokio::spawn(channels.serve(incoming))));
            let incoming = listen::patient(UnixListenerStream::new(grpc));
            let served = router.serve_with_incoming_shutdown(incoming, drain).await;
            drop(channels);
            files.remove_folder();
            served.context("serving failed")
        }
        (Listener::Tcp(socket), Some(tls)) => {
            router.serve_with_incoming_shutdown(tls.accept_on(socket), drain).await.context("serving failed")
        }
        (Listener::Tcp(socket), None) => {
            // The end of an answer would wait for the edge to acknowledge what came before it, which takes 40 ms.
            let incoming = listen::patient(TcpIncoming::from(socket).with_nodelay(Some(true)));
            router.serve_with_incoming_shutdown(incoming, drain).await.context("serving failed")
        }
    }
}

/// Names this build of the engine: its version, the size and time of its binary, and what seals its page tokens, since
/// answers that hold tokens are of no use to other engines.
fn build(page_secret: &[u8]) -> String {
    let mut hasher = SnapshotHasher::new();
    hasher.part(env!("CARGO_PKG_VERSION").as_bytes()).part(page_secret);
    if let Ok(binary) = std::env::current_exe().and_then(std::fs::metadata) {
        let modified = binary.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        hasher.part(&binary.len().to_le_bytes()).part(&modified.as_nanos().to_le_bytes());
    }
    hasher.finish()
}

/// Inspects all files in the background, so that first queries need not wait. Serving starts at once.
fn warm_up(engine: &Arc<Engine>) {
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        let catalog = engine.catalog().clone();
        if let Err(error) = engine.on_cpu(async move { catalog.warm().await }).await {
            tracing::warn!(error = %error, "the sources can't be listed yet");
        }
    });
}

/// Waits for SIGTERM, SIGINT, or with `supervised` the end of standard input.
async fn stop_signal(supervised: bool) -> &'static str {
    let orphaned = async {
        if !supervised {
            return std::future::pending().await;
        }
        let (gone, wait) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut byte = [0];
            while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
            let _ = gone.send(());
        });
        let _ = wait.await;
    };
    let signalled = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = orphaned => "the supervisor is gone",
        () = signalled(SignalKind::terminate()) => "SIGTERM",
        () = signalled(SignalKind::interrupt()) => "SIGINT",
    }
}
