//! The span of a call: log lines name the request by it, and traces are made of it where they are exported.

use quern_core::trace::{CALL, PART};
use quern_core::{EngineError, TableSnapshot};
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing::field::Empty;

use crate::proto;

/// The span of a call from the edge, with the edge's request id and W3C trace context.
pub(crate) fn span(metadata: &MetadataMap, method: &'static str) -> Span {
    let text = |key: &str| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
    within(text("x-request-id"), text("traceparent"), method)
}

/// The span of a request that came with others by one call.
pub(crate) fn within(request_id: &str, parent: &str, method: &'static str) -> Span {
    tracing::error_span!(
        target: CALL,
        parent: None,
        "call",
        request_id,
        trace_id = trace_id(parent),
        traceparent = parent,
        "rpc.method" = method,
        "error.type" = Empty,
        "quern.rows" = Empty,
        "quern.bytes" = Empty,
        "quern.snapshots" = Empty,
    )
}

/// The 32 digits of a traceparent that name the trace.
fn trace_id(parent: &str) -> &str {
    parent.get(3..35).unwrap_or_default()
}

/// Whether traces are exported; what would only be noted for them is not worth its text otherwise.
fn exported() -> bool {
    tracing::span_enabled!(target: PART, tracing::Level::TRACE)
}

/// Notes why a call failed.
pub(crate) fn failed(span: &Span, error: &EngineError) {
    if exported() {
        span.record("error.type", error.reason.as_str());
    }
}

/// Notes what a result has.
pub(crate) fn ended(span: &Span, receipt: &proto::Receipt, snapshots: &[TableSnapshot]) {
    if !exported() {
        return;
    }
    span.record("quern.rows", receipt.rows);
    span.record("quern.bytes", receipt.bytes);
    let names: Vec<String> = snapshots.iter().map(|read| format!("{}@{}", read.table, read.snapshot)).collect();
    span.record("quern.snapshots", names.join(","));
}

#[cfg(test)]
mod tests {
    use super::trace_id;

    #[test]
    fn the_trace_is_part_of_its_parent() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{trace}-00f067aa0ba902b7-01")), trace);
        assert_eq!(trace_id(""), "");
        assert_eq!(trace_id("00-é"), "");
    }
}
