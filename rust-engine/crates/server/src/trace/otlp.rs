//! OTLP over gRPC: the messages of `opentelemetry.proto.collector.trace.v1` that are needed, and what sends them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::{Finished, Value};
use crate::config::otel::TraceSettings;

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A collector that is gone is spoken of no more often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Sends spans until it is stopped and nothing waits any more.
pub(super) async fn export(settings: TraceSettings, mut spans: mpsc::Receiver<Finished>, stop: CancellationToken) {
    let channel = match Endpoint::from_shared(settings.endpoint.clone()) {
        Ok(endpoint) => endpoint.connect_timeout(settings.timeout).connect_lazy(),
        Err(error) => {
            tracing::warn!(%error, "traces are not exported: OTEL_EXPORTER_OTLP_ENDPOINT is no URL");
            return;
        }
    };
    let mut client = Grpc::new(channel);
    let mut complained: Option<Instant> = None;
    while let Some(batch) = next(&settings, &mut spans, &stop).await {
        let count = batch.len();
        let sent = timeout(settings.timeout, send(&mut client, &settings, batch)).await;
        let error = match sent {
            Ok(Ok(())) => continue,
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => format!("no answer within {:?}", settings.timeout),
        };
        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            tracing::warn!(error, spans = count, "spans were lost: the collector did not take them");
            complained = Some(Instant::now());
        }
    }
}

/// The next spans: as many as one export takes, or those that came while the first one waited. None at the end.
async fn next(
    settings: &TraceSettings,
    spans: &mut mpsc::Receiver<Finished>,
    stop: &CancellationToken,
) -> Option<Vec<Finished>> {
    let first = tokio::select! {
        biased;
        first = spans.recv() => first?,
        () = stop.cancelled() => return None,
    };
    let mut batch = vec![first];
    let deadline = Instant::now() + settings.delay;
    while batch.len() < settings.batch {
        let more = tokio::select! {
            biased;
            more = timeout_at(deadline, spans.recv()) => more,
            () = stop.cancelled() => break,
        };
        match more {
            Ok(Some(span)) => batch.push(span),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

async fn send(client: &mut Grpc<Channel>, settings: &TraceSettings, batch: Vec<Finished>) -> Result<(), Status> {
    let attribute = |key: &str, value: &str| KeyValue::new(key, any_value::Value::Text(value.to_owned()));
    let resource =
        Resource { attributes: settings.resource.iter().map(|(key, value)| attribute(key, value)).collect() };
    let scope = Scope { name: "quern-engine".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = ScopeSpans { scope: Some(scope), spans: batch.into_iter().map(Span::from).collect() };
    let message =
        ExportRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans: vec![spans] }] };
    let mut request = Request::new(message);
    for (name, value) in &settings.headers {
        let name = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
        if let (Ok(name), Ok(value)) = (name, AsciiMetadataValue::try_from(value.as_str())) {
            request.metadata_mut().insert(name, value);
        }
    }
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<ExportRequest, ExportResponse> = ProstCodec::default();
    client.unary(request, PathAndQuery::from_static(METHOD), codec).await?;
    Ok(())
}

impl From<Finished> for Span {
    fn from(finished: Finished) -> Self {
        const INTERNAL: i32 = 1;
        const SERVER: i32 = 2;
        const FAILED: i32 = 2;
        let recorded = finished.span;
        // A call is named by its method, and its parts by what they do.
        let method = recorded.fields.text("rpc.method").map(str::to_owned);
        let failed = recorded.fields.text("error.type").is_some();
        // Those by which log lines name the request; the span has them elsewhere.
        let shown = |name: &str| !matches!(name, "traceparent" | "trace_id");
        let mut attributes: Vec<KeyValue> = Vec::with_capacity(recorded.fields.0.len() + 2);
        if let Some((service, name)) = method.as_deref().and_then(|method| method.split_once('/')) {
            attributes.push(KeyValue::new("rpc.system", any_value::Value::Text("grpc".to_owned())));
            attributes.push(KeyValue::new("rpc.service", any_value::Value::Text(service.to_owned())));
            attributes.push(KeyValue::new("rpc.method", any_value::Value::Text(name.to_owned())));
        }
        for (name, value) in recorded.fields.0 {
            if shown(name) && name != "rpc.method" {
                attributes.push(KeyValue::new(
                    name,
                    match value {
                        Value::Text(text) => any_value::Value::Text(text),
                        Value::Number(number) => any_value::Value::Number(number),
                    },
                ));
            }
        }
        Self {
            trace_id: recorded.trace.to_vec(),
            span_id: recorded.id.to_vec(),
            parent_span_id: recorded.parent.to_vec(),
            kind: if method.is_some() { SERVER } else { INTERNAL },
            name: method.unwrap_or_else(|| recorded.name.to_owned()),
            start_time_unix_nano: nanoseconds(recorded.start),
            end_time_unix_nano: nanoseconds(finished.end),
            attributes,
            status: failed.then_some(SpanStatus { code: FAILED }),
        }
    }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl KeyValue {
    fn new(key: &str, value: any_value::Value) -> Self {
        Self { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<SpanStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SpanStatus {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "any_value::Value", tags = "1, 3")]
    value: Option<any_value::Value>,
}

mod any_value {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(int64, tag = "3")]
        Number(i64),
    }
}
