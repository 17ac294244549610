//! The engine: from a statement to a stream of encoded parts.

mod execution;
mod load;
mod peek;
mod tables;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider,
};
use datafusion::common::{TableReference, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use futures::StreamExt;
use futures::stream::BoxStream;
use quern_core::trace::PART;
use quern_core::{EngineError, Reason, Result, TableSnapshot};
use quern_sources::provider::SnapshotProvider;
use quern_sources::{Catalog, PinnedStore, Root, Table, Within};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::admission::Admission;
use crate::allow::{self, Findings};
use crate::casts;
use crate::complexity;
use crate::errors;
use crate::format::{self, EncodeOptions, Envelope, Format, NumberStyle};
use crate::idents;
use crate::interrupt::interruptible;
use crate::limits::Limits;
use crate::memory::reserve_batches;
use crate::params::{self, Params};
use crate::parse;
use crate::pins::Pins;
use crate::plans::{self, Plans};
use crate::pressure::Entered;
use crate::rows::{self, Count, Input, Known, Reading, Rows, RowsPlan, Snapshot, Start, TokenKey};
use crate::runtime::SharedRuntime;
use crate::session;

pub use execution::Execution;
use execution::{Running, timed_out};
pub use load::Load;
pub use peek::Peeked;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// One SQL statement: its text, and values for its placeholders.
    Sql(String, Params),
    /// A page of a table's rows.
    Rows(Rows),
}

/// One question and how to answer it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The question.
    pub ask: Ask,
    /// The encoding of the result.
    pub format: Format,
    /// How JSON carries 64-bit integers and decimals.
    pub numbers: NumberStyle,
    /// How long the caller waits; the engine's default where absent, its maximum above that.
    pub timeout: Option<Duration>,
}

/// What is known of a statement once it is planned.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The result's columns.
    pub schema: SchemaRef,
    /// What it reads, ordered by table.
    pub snapshots: Vec<TableSnapshot>,
    /// The functions that make the result differ from call to call; empty where it may be kept.
    pub volatile: BTreeSet<String>,
}

struct Planned {
    input: Input<Arc<dyn ExecutionPlan>>,
    reading: Option<Reading>,
    count: Option<Count<Arc<dyn ExecutionPlan>>>,
    tables: Vec<Arc<Table>>,
    pins: Pins,
    findings: Findings,
    stop: CancellationToken,
}

impl Planned {
    /// The columns of the input.
    fn schema(&self) -> SchemaRef {
        match &self.input {
            Input::Plan(plan) => plan.schema(),
            Input::Scan(scan) => scan.schema(),
            Input::Ordered(scan) => scan.schema(),
            Input::Points(points) => points.schema(),
        }
    }

    fn outline(&self) -> Outline {
        let snapshot = |t: &Arc<Table>| TableSnapshot { table: t.name.clone(), snapshot: t.snapshot.clone() };
        Outline {
            schema: self.reading.as_ref().map_or_else(|| self.schema(), |reading| reading.schema(&self.schema())),
            snapshots: self.tables.iter().map(snapshot).collect(),
            volatile: self.findings.volatile.clone(),
        }
    }
}

/// Executes statements over the tables of a [`Catalog`].
pub struct Engine {
    catalog: Catalog,
    template: SessionState,
    runtime: SharedRuntime,
    admission: Admission,
    limits: Limits,
    tokens: TokenKey,
    plans: Plans,
    known: Known,
    peeked: AtomicU64,
    cpu: Handle,
}

impl Engine {
    /// An engine over sources, whose planning and execution run on `cpu`. Page tokens are sealed with a key made
    /// from `secret`; engines with the same secret take each other's.
    pub fn new(roots: Vec<Root>, limits: Limits, secret: &[u8], cpu: Handle) -> Result<Self> {
        let runtime = SharedRuntime::new(&limits)
            .map_err(|e| EngineError::internal(format!("can't set up memory and spill space: {e}")))?;
        let catalog = Catalog::new(roots, Arc::clone(&runtime.caches().footers), limits.threads);
        let admission = Admission::new(&limits);
        let tokens = TokenKey::new(secret);
        let template = session::template(&limits);
        let known = Known::new(template.clone());
        Ok(Self {
            catalog,
            template,
            runtime,
            admission,
            limits,
            tokens,
            plans: Plans::new(),
            known,
            peeked: AtomicU64::new(0),
            cpu,
        })
    }

    /// The catalogue, for description.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Runs catalogue work on the engine's own threads, within the caller's span.
    pub async fn on_cpu<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        AbortOnDropHandle::new(self.cpu.spawn(work.in_current_span()))
            .await
            .unwrap_or_else(|e| Err(EngineError::internal(format!("a task failed: {e}"))))
    }

    /// Plans a statement and starts it. Waits for a free place first. The deadline counts from here.
    pub async fn execute(self: &Arc<Self>, request: Request) -> Result<Execution> {
        let deadline = self.deadline(&request);
        let this = Arc::clone(self);
        let work = async move {
            let permit = this.admission.enter().await?;
            let entered = this.runtime.pressure().enter();
            let given_up = entered.given_up();
            tokio::select! {
                biased;
                error = given_up => Err(error),
                started = Box::pin(this.start(request, deadline, permit, entered)) => started,
            }
        };
        tokio::time::timeout_at(deadline, self.on_cpu(work)).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Plans a statement, under the same limits, and does not run it.
    pub async fn outline(self: &Arc<Self>, request: Request) -> Result<Outline> {
        let deadline = self.deadline(&request);
        let this = Arc::clone(self);
        let work = async move {
            let _permit = this.admission.enter().await?;
            Ok(this.plan(&request).instrument(plan_span()).await?.outline())
        };
        tokio::time::timeout_at(deadline, self.on_cpu(work)).await.unwrap_or_else(|_| Err(timed_out()))
    }

    fn deadline(&self, request: &Request) -> Instant {
        Instant::now() + request.timeout.unwrap_or(self.limits.timeout_default).min(self.limits.timeout_max)
    }

    async fn start(
        &self,
        request: Request,
        deadline: Instant,
        permit: OwnedSemaphorePermit,
        entered: Entered,
    ) -> Result<Execution> {
        let planned = self.plan(&request).instrument(plan_span()).await?;
        let outline = planned.outline();
        tracing::debug!(tables = outline.snapshots.len(), "planned");
        let Planned { input, reading, count, pins, findings, stop, .. } = planned;
        let stop = stop.drop_guard();
        let task = self.task();
        entered.reserves_in(task.memory_pool());
        let failed = |e: DataFusionError| errors::execution(&e, &findings);
        let on_their_way = match &input {
            Input::Plan(plan) => Some(reserve_batches(plan, task.memory_pool()).map_err(failed)?),
            Input::Scan(_) | Input::Ordered(_) | Input::Points(_) => None,
        };
        let (batches, envelope) = match reading {
            None => (stream_of(input, &task).map_err(failed)?, Envelope::default()),
            Some(reading) => {
                let memory = rows::reservation(task.memory_pool());
                let taken = match (&reading, input) {
                    (Reading::Keys(lookup), Input::Points(by)) => {
                        let table = outline.snapshots.first().map_or("", |read| read.table.as_str());
                        let span = tracing::trace_span!(target: PART, "scan", quern.table = table);
                        lookup.read(&by, &memory).instrument(span).await
                    }
                    (reading, input) => {
                        let batches = stream_of(input, &task).map_err(failed)?;
                        reading.read(batches, count, &self.tokens, &memory, &task).await
                    }
                };
                let taken = match taken {
                    Ok(taken) => taken?,
                    Err(e) => return Err(pins.explain(failed(e)).await),
                };
                // What is held is given back when it has been encoded.
                let batches = futures::stream::iter(taken.batches).map(move |batch| {
                    let _ = &memory;
                    batch
                });
                (batches.boxed(), taken.envelope)
            }
        };
        let options = EncodeOptions {
            format: request.format,
            numbers: request.numbers,
            parallelism: self.limits.threads,
            most: self.limits.query_memory / 2,
            snapshots: outline.snapshots.iter().map(|s| (s.table.clone(), s.snapshot.clone())).collect(),
            envelope: envelope.clone(),
            runtime: Some(self.cpu.clone()),
        };
        let span = tracing::trace_span!(
            target: PART, "encode", quern.format = ?request.format, quern.rows = Empty, quern.bytes = Empty
        );
        let encoded = format::encode(batches, Arc::clone(&outline.schema), options).map_err(|e| errors::format(&e))?;
        Ok(Execution {
            outline,
            envelope,
            running: Running {
                encoded,
                pins,
                findings,
                deadline,
                span,
                entered,
                _on_their_way: on_their_way,
                _stops_on_drop: stop,
                _permit: permit,
            },
        })
    }

    async fn plan(&self, request: &Request) -> Result<Planned> {
        match &request.ask {
            Ask::Sql(sql, params) => self.plan_sql(sql, params).await,
            Ask::Rows(rows) => self.plan_rows(rows).await,
        }
    }

    async fn plan_sql(&self, sql: &str, params: &Params) -> Result<Planned> {
        let partitions = self.partitions();
        let key = plans::key(sql, params, partitions);
        if let Some(known) = self.plans.get(&key) {
            let tables = self.catalog.resolve(known.names.clone()).await?;
            if tables.iter().map(|table| &table.snapshot).eq(&known.snapshots) {
                return self.planned(&known.plan, known.findings.clone(), tables);
            }
        }
        let mut statement = parse::parse(sql)?;
        complexity::check_statement(&statement)?;
        let names = self.table_names(&statement)?;
        let tables = self.catalog.resolve(names.clone()).await?;
        let schemas: HashMap<_, _> = tables.iter().map(|t| (t.name.clone(), t.schema())).collect();
        idents::match_case(&mut statement, &schemas);
        let pins = Pins::of(&tables, false);
        let mut state = self.session(&tables, &pins.store)?;
        state.config_mut().options_mut().execution.target_partitions = partitions;
        let (plan, findings) = match planned_statement(&state, statement, sql, params).await {
            Err(error) if error.reason == Reason::DuplicateColumn => {
                let mut statement = parse::parse(sql)?;
                idents::match_case(&mut statement, &schemas);
                casts::name_all(&mut statement);
                planned_statement(&state, statement, sql, params).await.map_err(|_| error)?
            }
            planned => planned?,
        };
        let planned = self.planned(&plan, findings.clone(), tables)?;
        let snapshots = planned.tables.iter().map(|table| table.snapshot.clone()).collect();
        self.plans.put(key, plans::Plan { names, snapshots, plan, findings });
        Ok(planned)
    }

    /// A statement's plan made ready to run once.
    fn planned(&self, plan: &Arc<dyn ExecutionPlan>, findings: Findings, tables: Vec<Arc<Table>>) -> Result<Planned> {
        let stop = CancellationToken::new();
        let ready = plans::ready(plan, self.template.config_options());
        let plan = ready.and_then(|plan| interruptible(plan, &stop)).map_err(|e| errors::execution(&e, &findings))?;
        let pins = Pins::of(&tables, false);
        Ok(Planned { input: Input::Plan(plan), reading: None, count: None, tables, pins, findings, stop })
    }

    async fn plan_rows(&self, rows: &Rows) -> Result<Planned> {
        let start = Start::of(rows, &self.tokens)?;
        let table = self.table_at(&rows.table, start.snapshot()).await?;
        let pins = Pins::of(std::slice::from_ref(&table), start.snapshot().is_some());
        if pins.chosen
            && let Some(error) = pins.changed().await
        {
            return Err(error);
        }
        let from = Snapshot {
            table: &table,
            store: &pins.store,
            caches: self.runtime.caches(),
            at_hand: false,
            readers: self.partitions(),
        };
        let count = rows::count(rows, &start, from)?;
        let planned = match rows::plan(rows, &start, from, &self.known).await {
            Ok(planned) => planned,
            // An index is made of the files.
            Err(error) => return Err(if rows.keys.is_some() { pins.explain(error).await } else { error }),
        };
        let RowsPlan { input, reading, sequential, timely } = planned;
        let mut findings = Findings::default();
        let mut state = self.template.clone();
        state.mark_start_execution();
        let count = match count {
            None => None,
            Some(Count::Known(number)) => Some(Count::Known(number)),
            Some(Count::Planned(plan)) => Some(Count::Planned(physical(&plan, &state, &findings).await?)),
        };
        let input = match input {
            Input::Plan(plan) => {
                findings = allow::check(&plan)?;
                let partitions = if sequential { 1 } else { self.partitions() };
                let options = state.config_mut().options_mut();
                options.execution.target_partitions = partitions;
                // What follows the order, such as the ranks of floats, would be computed in parts that have none among them.
                options.optimizer.enable_round_robin_repartition = false;
                let plan = physical(&plan, &state, &findings).await?;
                if plan.output_partitioning().partition_count() > 1 {
                    return Err(EngineError::internal("the rows of a page would come in any order"));
                }
                Input::Plan(plan)
            }
            Input::Scan(scan) => Input::Scan(scan),
            Input::Ordered(scan) => Input::Ordered(scan),
            Input::Points(points) => Input::Points(points),
        };
        if timely {
            findings.volatile.insert("now".to_owned());
        }
        let (reading, tables, stop) = (Some(reading), vec![table], CancellationToken::new());
        Ok(Planned { input, reading, count, tables, pins, findings, stop })
    }

    /// Into how many parts a query that is planned now is cut: as many as there are threads, but fewer where so many queries
    /// run that each one's share of the threads is less than half of them. More parts would only take more memory.
    fn partitions(&self) -> usize {
        let (running, ..) = self.admission.counts();
        (2 * self.limits.threads / running.max(1)).clamp(1, self.limits.threads)
    }

    fn table_names(&self, statement: &Statement) -> Result<BTreeSet<String>> {
        let wrapped = DfStatement::Statement(Box::new(statement.clone()));
        let references = self.template.resolve_table_references(&wrapped).map_err(|e| errors::planning("", &e))?;
        references
            .into_iter()
            .filter(|r| !self.template.table_functions().contains_key(r.table()))
            .map(|reference| match reference {
                TableReference::Bare { table } if table.contains(['/', '\\', '.', ':']) => {
                    Err(parse::not_allowed("files can't be named in SQL; `GET /v1/tables` lists the tables"))
                }
                TableReference::Bare { table } => Ok(table.to_string()),
                TableReference::Partial { .. } | TableReference::Full { .. } => Err(EngineError::new(
                    Reason::UnknownTable,
                    format!("no table `{reference}`; tables have plain names, without a schema before them"),
                )
                .with("table", reference)),
            })
            .collect()
    }

    /// The session that plans one query: its own tables and start time, all else as in the template.
    fn session(&self, tables: &[Arc<Table>], store: &Arc<PinnedStore>) -> Result<SessionState> {
        let schema = MemorySchemaProvider::new();
        for table in tables {
            let provider = SnapshotProvider::new(Arc::clone(table), Arc::clone(store), self.runtime.caches(), None);
            schema.register_table(table.name.clone(), Arc::new(provider)).map_err(|e| errors::planning("", &e))?;
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("public", Arc::new(schema)).map_err(|e| errors::planning("", &e))?;
        let list = MemoryCatalogProviderList::new();
        list.register_catalog("datafusion".to_owned(), Arc::new(catalog));
        let mut state = self.template.clone();
        state.register_catalog_list(Arc::new(list));
        state.mark_start_execution();
        Ok(state)
    }

    /// What one query's plan runs in. Its functions are in the plan already.
    fn task(&self) -> Arc<TaskContext> {
        let mut config = self.template.config().clone();
        if tracing::span_enabled!(target: PART, tracing::Level::TRACE) {
            config.set_extension(Arc::new(Within(Span::current())));
        }
        Arc::new(TaskContext::new(
            None,
            self.template.session_id().to_owned(),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            self.runtime.query(),
        ))
    }
}

fn plan_span() -> Span {
    tracing::trace_span!(target: PART, "plan")
}

/// The plan of a statement over the state's tables, with what is to be known of it.
async fn planned_statement(
    state: &SessionState,
    statement: Statement,
    sql: &str,
    params: &Params,
) -> Result<(Arc<dyn ExecutionPlan>, Findings)> {
    let plan = state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await;
    let plan = plan.map_err(|e| errors::planning(sql, &e))?;
    complexity::check_plan(&plan)?;
    let plan = params::bind(plan, params)?;
    let findings = allow::check(&plan)?;
    let plan = state.create_physical_plan(&plan).await.map_err(|e| errors::execution(&e, &findings))?;
    Ok((plan, findings))
}

async fn physical(plan: &LogicalPlan, state: &SessionState, findings: &Findings) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = state.create_physical_plan(plan).await.and_then(|plan| plans::ready(&plan, state.config_options()));
    plan.map_err(|e| errors::execution(&e, findings))
}

type Batches = BoxStream<'static, Result<RecordBatch, DataFusionError>>;

fn stream_of(input: Input<Arc<dyn ExecutionPlan>>, task: &Arc<TaskContext>) -> Result<Batches, DataFusionError> {
    match input {
        Input::Plan(plan) => Ok(execute_stream(plan, Arc::clone(task))?.boxed()),
        Input::Scan(scan) => Ok(scan.batches().boxed()),
        Input::Ordered(scan) => Ok(scan.batches(rows::reservation(task.memory_pool())).boxed()),
        Input::Points(_) => internal_err!("only rows by key are read by an index"),
    }
}
