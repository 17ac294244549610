//! `quern.engine.v1.CatalogService`.

use std::sync::Arc;

use quern_core::EngineError;
use quern_query::Engine;
use quern_sources::{TableDescription, TableState};
use tonic::{Request, Response, Status};

use crate::proto::{self, catalog_service_server};
use crate::status::status;
use crate::types;

/// Answers from the engine's catalogue.
pub struct CatalogService {
    engine: Arc<Engine>,
}

impl CatalogService {
    /// A service over an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl catalog_service_server::CatalogService for CatalogService {
    async fn list_tables(
        &self,
        _request: Request<proto::ListTablesRequest>,
    ) -> Result<Response<proto::ListTablesResponse>, Status> {
        let catalog = self.engine.catalog().clone();
        let work = async move { catalog.describe_all().await };
        let (tables, passed_over) = self.engine.on_cpu(work).await.map_err(status)?;
        Ok(Response::new(proto::ListTablesResponse {
            tables: tables.into_iter().map(table).collect(),
            passed_over: passed_over.into_iter().map(|(path, reason)| proto::PassedOver { path, reason }).collect(),
        }))
    }

    async fn get_table(
        &self,
        request: Request<proto::GetTableRequest>,
    ) -> Result<Response<proto::GetTableResponse>, Status> {
        let catalog = self.engine.catalog().clone();
        let name = request.into_inner().name;
        let described = self.engine.on_cpu(async move { catalog.describe(&name).await }).await.map_err(status)?;
        Ok(Response::new(proto::GetTableResponse { table: Some(table(described)) }))
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
