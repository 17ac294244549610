//! `quern.engine.v1.CatalogService`.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use quern_core::{EngineError, Reason};
use quern_query::Engine;
use quern_sources::watch::Event;
use quern_sources::{TableDescription, TableState, Watcher};
use tokio::sync::{broadcast, watch};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::call;
use crate::proto::watch_snapshots_response::Event as WatchEvent;
use crate::proto::{self, catalog_service_server};
use crate::status::status;
use crate::types;

/// The most tables that one check may name.
const MOST_CHECKED: usize = 1_000;
/// How often a watch says something.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// Answers from the engine's catalogue.
pub struct CatalogService {
    engine: Arc<Engine>,
    watches: Arc<Watches>,
}

/// What watching needs.
pub struct Watches {
    /// The watcher of the engine's sources.
    pub watcher: Watcher,
    /// Names the engine's build.
    pub build: String,
    /// True once the engine stops; watches end then, so that they don't hold it up.
    pub stopping: watch::Receiver<bool>,
}

impl CatalogService {
    /// A service over an engine.
    pub fn new(engine: Arc<Engine>, watches: Watches) -> Self {
        Self { engine, watches: Arc::new(watches) }
    }
}

/// One watch on its way.
struct Watch {
    watches: Arc<Watches>,
    events: broadcast::Receiver<Event>,
    stopping: watch::Receiver<bool>,
    /// What was known when it began, until it is sent.
    picture: Option<BTreeMap<String, String>>,
    /// Whether a picture was sent, which changes can refer to.
    begun: bool,
}

impl Watch {
    fn new(watches: Arc<Watches>) -> Self {
        let (picture, events) = watches.watcher.subscribe();
        let stopping = watches.stopping.clone();
        Self { watches, events, stopping, picture, begun: false }
    }

    /// The next event, `None` when the engine stops.
    async fn next(&mut self) -> Option<proto::WatchSnapshotsResponse> {
        loop {
            if let Some(picture) = self.picture.take() {
                self.begun = true;
                return Some(self.message(picture));
            }
            let mut stopping = self.stopping.clone();
            let event = tokio::select! {
                _ = stopping.wait_for(|stopped| *stopped) => return None,
                event = tokio::time::timeout(HEARTBEAT, self.events.recv()) => event,
            };
            match event {
                Ok(Ok(Event::Behind)) if self.begun => return Some(event_of(WatchEvent::Behind(proto::Behind {}))),
                Ok(Ok(Event::Changes { changed, removed })) if self.begun => {
                    let changed = types::snapshots(&changed);
                    return Some(event_of(WatchEvent::Changes(proto::SnapshotChanges { changed, removed })));
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                // Before the first picture, and after events were missed, only a whole one will do.
                Ok(_) => {
                    (self.picture, self.events) = self.watches.watcher.subscribe();
                    if self.begun && self.picture.is_none() {
                        self.begun = false;
                        return Some(event_of(WatchEvent::Behind(proto::Behind {})));
                    }
                }
                Err(_) if self.begun && self.watches.watcher.is_well() => {
                    return Some(event_of(WatchEvent::Heartbeat(proto::Heartbeat {})));
                }
                Err(_) => {}
            }
        }
    }

    fn message(&self, picture: BTreeMap<String, String>) -> proto::WatchSnapshotsResponse {
        let snapshots = picture.into_iter().map(|(table, snapshot)| proto::TableSnapshot { table, snapshot }).collect();
        event_of(WatchEvent::Picture(proto::SnapshotPicture { snapshots, build: self.watches.build.clone() }))
    }
}

fn event_of(event: WatchEvent) -> proto::WatchSnapshotsResponse {
    proto::WatchSnapshotsResponse { event: Some(event) }
}

#[tonic::async_trait]
impl catalog_service_server::CatalogService for CatalogService {
    async fn list_tables(
        &self,
        request: Request<proto::ListTablesRequest>,
    ) -> Result<Response<proto::ListTablesResponse>, Status> {
        let span = call::span(request.metadata(), "quern.engine.v1.CatalogService/ListTables");
        let catalog = self.engine.catalog().clone();
        let work = async move { catalog.describe_all().await };
        let (tables, passed_over) = self.engine.on_cpu(work).instrument(span).await.map_err(status)?;
        Ok(Response::new(proto::ListTablesResponse {
            tables: tables.into_iter().map(table).collect(),
            passed_over: passed_over.into_iter().map(|(path, reason)| proto::PassedOver { path, reason }).collect(),
        }))
    }

    async fn check_snapshots(
        &self,
        request: Request<proto::CheckSnapshotsRequest>,
    ) -> Result<Response<proto::CheckSnapshotsResponse>, Status> {
        let names: BTreeSet<String> = request.into_inner().tables.into_iter().collect();
        if names.len() > MOST_CHECKED {
            let message = format!("{} tables are named; at most {MOST_CHECKED} are checked at once", names.len());
            return Err(status(EngineError::new(Reason::RequestInvalid, message)));
        }
        // Not on the threads of queries, which may be busy: someone waits for a verdict on what is in memory.
        let snapshots = self.engine.catalog().check(names).await.map_err(status)?;
        Ok(Response::new(proto::CheckSnapshotsResponse { snapshots: types::snapshots(&snapshots) }))
    }

    type WatchSnapshotsStream = Pin<Box<dyn Stream<Item = Result<proto::WatchSnapshotsResponse, Status>> + Send>>;

    async fn watch_snapshots(
        &self,
        _request: Request<proto::WatchSnapshotsRequest>,
    ) -> Result<Response<Self::WatchSnapshotsStream>, Status> {
        let events = futures::stream::unfold(Watch::new(Arc::clone(&self.watches)), |mut watch| async move {
            let event = watch.next().await?;
            Some((Ok(event), watch))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_table(
        &self,
        request: Request<proto::GetTableRequest>,
    ) -> Result<Response<proto::GetTableResponse>, Status> {
        let span = call::span(request.metadata(), "quern.engine.v1.CatalogService/GetTable");
        let engine = Arc::clone(&self.engine);
        let proto::GetTableRequest { name, key } = request.into_inner();
        let work = async move {
            let mut table = table(engine.catalog().describe(&name).await?);
            if !key.is_empty() && table.state() == proto::TableState::Ready {
                let key: Vec<_> = key.into_iter().map(|column| vec![column]).collect();
                table.duplicate_key = match engine.duplicate_key(&name, &key).await {
                    Ok(duplicate) => duplicate.unwrap_or_default(),
                    // Whether there is one is not known.
                    Err(busy) if busy.reason == Reason::TooManyQueries => return Err(busy),
                    // What else is wrong with the key is said to those who ask by it.
                    Err(_) => String::new(),
                };
            }
            Ok(table)
        };
        let table = self.engine.on_cpu(work).instrument(span).await.map_err(status)?;
        Ok(Response::new(proto::GetTableResponse { table: Some(table) }))
    }
}

fn table(described: TableDescription) -> proto::Table {
    let (state, columns, row_count, problem) = match described.state {
        TableState::Inspecting => (proto::TableState::Inspecting, Vec::new(), None, None),
        TableState::Broken(error) => (proto::TableState::Broken, Vec::new(), None, Some(to_problem(error))),
        TableState::Ready(schema, rows) => {
            let columns = schema.fields().iter().map(|f| types::column(f)).collect();
            (proto::TableState::Ready, columns, Some(rows), None)
        }
    };
    proto::Table {
        name: described.name,
        description: String::new(),
        state: state.into(),
        problem,
        columns,
        formats: described.formats,
        file_count: described.file_count as u64,
        size_bytes: described.size_bytes,
        row_count,
        snapshot: described.snapshot,
        duplicate_key: String::new(),
    }
}

fn to_problem(error: EngineError) -> proto::Problem {
    proto::Problem {
        reason: error.reason.as_str().to_owned(),
        file: error.metadata.get("file").cloned().unwrap_or_default(),
        row: error.metadata.get("row").and_then(|r| r.parse().ok()),
        message: error.message,
    }
}
