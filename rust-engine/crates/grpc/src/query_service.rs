//! `quern.engine.v1.QueryService`.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use prost_types::value::Kind as ValueKind;
use quern_core::{EngineError, Reason, TableSnapshot};
use quern_query::format::{Envelope, Format, NumberStyle, Part, Receipt};
use quern_query::rows::{Key, Keys, Node, NodeKind, OrderTerm, Rows};
use quern_query::{Ask, Engine, Outline, Params, Peeked};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span};

use crate::call;
use crate::data_channel::{DataChannels, detour};
use crate::proto::execute_response::Part as Message;
use crate::proto::filter_term::Kind;
use crate::proto::{self, query_service_server};
use crate::status::status;
use crate::types;

/// The most rows that a page may have.
const MAX_PAGE: usize = 10_000;
/// The most rows that may be looked for by key at once.
const MAX_KEYS: usize = 1_000;
/// The most requests that one call may have answered from memory.
const MAX_PEEKS: usize = 64;
/// The methods, as spans name them.
const EXECUTE: &str = "quern.engine.v1.QueryService/Execute";
const PLAN: &str = "quern.engine.v1.QueryService/Plan";
const PEEK: &str = "quern.engine.v1.QueryService/Peek";

/// Executes statements on the engine.
pub struct QueryService {
    engine: Arc<Engine>,
    channels: Option<DataChannels>,
}

impl QueryService {
    /// A service over an engine, whose large results may go by `channels` where there are some.
    pub fn new(engine: Arc<Engine>, channels: Option<DataChannels>) -> Self {
        Self { engine, channels }
    }
}

#[tonic::async_trait]
impl query_service_server::QueryService for QueryService {
    type ExecuteStream = Pin<Box<dyn Stream<Item = Result<proto::ExecuteResponse, Status>> + Send>>;

    async fn execute(&self, request: Request<proto::ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let span = call::span(request.metadata(), EXECUTE);
        let timeout = grpc_timeout(request.metadata());
        let failed = |error: EngineError| {
            call::failed(&span, &error);
            status(error)
        };
        let request = decode(request.into_inner(), timeout).map_err(failed)?;
        let execution = self.engine.execute(request).instrument(span.clone()).await.map_err(failed)?;
        let header = header(&execution.outline, &execution.envelope);
        let snapshots = execution.outline.snapshots.clone();
        let first = futures::stream::once(async { Ok(message(Message::Header(header))) });
        // The span ends with the stream.
        let parts = execution.into_parts().map(move |part| match part {
            Ok(part) => Ok(encode(part, &snapshots, &span)),
            Err(error) => {
                call::failed(&span, &error);
                Err(status(error))
            }
        });
        let mut parts = Box::pin(parts.peekable());
        // The header leaves together with the first part: its reader could do nothing with it before.
        parts.as_mut().peek().await;
        Ok(Response::new(match &self.channels {
            Some(channels) => Box::pin(first.chain(detour(parts, channels.clone()))),
            None => Box::pin(first.chain(parts)),
        }))
    }

    async fn plan(&self, request: Request<proto::PlanRequest>) -> Result<Response<proto::PlanResponse>, Status> {
        let span = call::span(request.metadata(), PLAN);
        let timeout = grpc_timeout(request.metadata());
        let statement = request.into_inner().execute.unwrap_or_default();
        let request = decode(statement, timeout).map_err(status)?;
        let outline = self.engine.outline(request).instrument(span).await.map_err(status)?;
        Ok(Response::new(proto::PlanResponse { header: Some(header(&outline, &Envelope::default())) }))
    }

    /// Answered right here: it is bounded work, and whoever asks waits for the whole.
    async fn peek(&self, request: Request<proto::PeekRequest>) -> Result<Response<proto::PeekResponse>, Status> {
        let proto::PeekRequest { requests: asked, traceparents } = request.into_inner();
        if asked.len() > MAX_PEEKS {
            let message = format!("`requests` may have {MAX_PEEKS}");
            return Err(status(EngineError::new(Reason::RequestInvalid, message)));
        }
        let traced = |parent: &String| (!parent.is_empty()).then(|| call::within("", parent, PEEK));
        let spans: Vec<_> = traceparents.iter().take(MAX_PEEKS).map(traced).collect();
        let mut answers = vec![proto::Peeked::default(); asked.len()];
        // What can't be read is told to those who execute it.
        let readable = asked.into_iter().map(|request| decode(request, None).ok()).enumerate();
        let (places, requests): (Vec<_>, Vec<_>) = readable.filter_map(|(at, request)| Some((at, request?))).unzip();
        for (at, answer) in places.into_iter().zip(self.engine.peek(requests)) {
            if let Some(answer) = answer {
                let snapshot = spans.get(at).and_then(Option::as_ref).map(|_| answer.snapshot.clone());
                answers[at] = peeked(answer);
                if let (Some(Some(span)), Some(read), Some(receipt)) = (spans.get(at), snapshot, &answers[at].receipt) {
                    call::ended(span, receipt, &[read]);
                }
            }
        }
        Ok(Response::new(proto::PeekResponse { answers }))
    }
}

fn header(outline: &Outline, envelope: &Envelope) -> proto::ExecuteHeader {
    proto::ExecuteHeader {
        columns: outline.schema.fields().iter().map(|f| types::column(f)).collect(),
        ..lean_header(&outline.snapshots, &outline.volatile, envelope)
    }
}

/// A header without columns.
fn lean_header(snapshots: &[TableSnapshot], volatile: &BTreeSet<String>, envelope: &Envelope) -> proto::ExecuteHeader {
    proto::ExecuteHeader {
        columns: Vec::new(),
        snapshots: types::snapshots(snapshots),
        cacheable: volatile.is_empty(),
        uncacheable_reason: uncacheable_reason(volatile),
        next_page_token: envelope.next_page_token.clone().unwrap_or_default(),
        total_size: envelope.total_size,
        missing: envelope.missing.iter().flatten().map(|(number, _)| *number).collect(),
    }
}

fn peeked(answer: Peeked) -> proto::Peeked {
    let header = lean_header(&[answer.snapshot], &answer.volatile, &answer.envelope);
    proto::Peeked { header: Some(header), body: answer.body, receipt: Some(receipt(&answer.receipt, &[])) }
}

fn receipt(receipt: &Receipt, snapshots: &[TableSnapshot]) -> proto::Receipt {
    proto::Receipt {
        rows: receipt.rows,
        bytes: receipt.bytes,
        sha256: receipt.sha256.to_vec(),
        snapshots: types::snapshots(snapshots),
    }
}

fn message(part: Message) -> proto::ExecuteResponse {
    proto::ExecuteResponse { part: Some(part) }
}

fn encode(part: Part, snapshots: &[TableSnapshot], span: &Span) -> proto::ExecuteResponse {
    match part {
        Part::Chunk(bytes) => message(Message::Chunk(bytes)),
        Part::Receipt(ended) => {
            let receipt = receipt(&ended, snapshots);
            call::ended(span, &receipt, snapshots);
            message(Message::Trailer(receipt))
        }
    }
}

fn uncacheable_reason(volatile: &BTreeSet<String>) -> String {
    if volatile.is_empty() {
        return String::new();
    }
    let names: Vec<String> = volatile.iter().map(|n| format!("{n}()")).collect();
    format!("the statement calls {}", names.join(", "))
}

fn decode(request: proto::ExecuteRequest, timeout: Option<Duration>) -> Result<quern_query::Request, EngineError> {
    let format = match request.format() {
        proto::Format::Unspecified => {
            return Err(EngineError::new(Reason::RequestInvalid, "`format` is missing or unknown"));
        }
        proto::Format::Json => Format::Json,
        proto::Format::JsonArray => Format::JsonArray,
        proto::Format::Ndjson => Format::Ndjson,
        proto::Format::Csv => Format::Csv,
        proto::Format::Arrow => Format::Arrow,
        proto::Format::Parquet => Format::Parquet,
    };
    let numbers = match request.numbers() {
        proto::NumberStyle::Unspecified | proto::NumberStyle::Exact => NumberStyle::Exact,
        proto::NumberStyle::String => NumberStyle::String,
    };
    let ask = match request.rows {
        None => Ask::Sql(request.sql, params(request.params)?),
        Some(read) => Ask::Rows(rows(read)?),
    };
    Ok(quern_query::Request { ask, format, numbers, timeout })
}

fn rows(read: proto::ReadRows) -> Result<Rows, EngineError> {
    let path = |path: proto::ColumnPath| path.names;
    let order = read
        .order_by
        .into_iter()
        .map(|term| OrderTerm { path: term.column.map(path).unwrap_or_default(), descending: term.descending });
    let columns = |columns: Vec<proto::ColumnPath>| columns.into_iter().map(path).collect();
    let sole = read.key.map(|key| {
        let spelled = key.values.join("~");
        Keys { columns: columns(key.columns), keys: vec![Key { values: key.values, spelled }], sole: true }
    });
    let several = read.keys.map(|keys| {
        let each = keys.keys.into_iter().map(|key| Key { values: key.values, spelled: key.spelled });
        Keys { columns: columns(keys.columns), keys: each.collect(), sole: false }
    });
    if several.as_ref().is_some_and(|keys| !(1..=MAX_KEYS).contains(&keys.keys.len())) {
        return Err(EngineError::new(Reason::RequestInvalid, format!("`keys` must have 1 to {MAX_KEYS} keys")));
    }
    Ok(Rows {
        table: read.table,
        keys: sole.or(several),
        fields: read.fields.into_iter().map(path).collect(),
        filter: filter(read.filter)?,
        order: order.collect(),
        page_size: usize::try_from(read.page_size).unwrap_or(usize::MAX).clamp(1, MAX_PAGE),
        page_token: read.page_token,
        count: read.count,
    })
}

/// A filter as a tree. It fails where the terms are not one.
fn filter(terms: Vec<proto::FilterTerm>) -> Result<Option<Node>, EngineError> {
    let broken = || EngineError::new(Reason::RequestInvalid, "the filter's terms are no expression");
    let mut stack: Vec<Node> = Vec::new();
    for term in terms {
        let kind = match term.kind.ok_or_else(broken)? {
            Kind::Column(path) => NodeKind::Column(path.names),
            Kind::Word(word) => NodeKind::Word(word),
            Kind::Text(text) => NodeKind::Text(text),
            Kind::Number(number) => NodeKind::Number(number),
            Kind::Call(call) => {
                let arity = usize::try_from(call.arity).map_err(|_| broken())?;
                let first = stack.len().checked_sub(arity).ok_or_else(broken)?;
                NodeKind::Call(call.function, stack.split_off(first))
            }
        };
        stack.push(Node { at: term.at, kind });
    }
    let filter = stack.pop();
    if stack.is_empty() { Ok(filter) } else { Err(broken()) }
}

fn params(value: Option<prost_types::Value>) -> Result<Params, EngineError> {
    match value.and_then(|v| v.kind) {
        None | Some(ValueKind::NullValue(_)) => Ok(Params::None),
        Some(ValueKind::ListValue(list)) => Ok(Params::List(list.values.into_iter().map(json).collect())),
        Some(ValueKind::StructValue(fields)) => {
            Ok(Params::Named(fields.fields.into_iter().map(|(name, v)| (name, json(v))).collect()))
        }
        Some(ValueKind::BoolValue(_) | ValueKind::NumberValue(_) | ValueKind::StringValue(_)) => Err(EngineError::new(
            Reason::ParameterInvalid,
            "`params` must be a list for `$1`, `$2`, … or an object for `$name`",
        )),
    }
}

/// Nesting is bounded by the decoder, which refuses messages nested deeper than 100.
fn json(value: prost_types::Value) -> serde_json::Value {
    match value.kind {
        None | Some(ValueKind::NullValue(_)) => serde_json::Value::Null,
        Some(ValueKind::BoolValue(b)) => b.into(),
        Some(ValueKind::NumberValue(n)) => number(n),
        Some(ValueKind::StringValue(s)) => s.into(),
        Some(ValueKind::ListValue(list)) => list.values.into_iter().map(json).collect(),
        Some(ValueKind::StructValue(fields)) => {
            serde_json::Value::Object(fields.fields.into_iter().map(|(name, v)| (name, json(v))).collect())
        }
    }
}

/// Whole numbers that a double holds exactly are integers again.
fn number(n: f64) -> serde_json::Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        return (n as i64).into();
    }
    n.into()
}

/// The call's deadline, as gRPC sends it: up to eight digits and a unit.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(amount.saturating_mul(60))),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grpc_timeouts() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("a header value"));
            grpc_timeout(&metadata)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("S"), None);
        assert_eq!(read("5x"), None);
    }

    #[test]
    fn whole_numbers_are_integers() {
        assert_eq!(number(3.0).to_string(), "3");
        assert_eq!(number(0.5).to_string(), "0.5");
        assert_eq!(number(f64::NAN), serde_json::Value::Null);
    }
}
