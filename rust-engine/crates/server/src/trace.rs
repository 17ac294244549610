//! Traces: spans of calls and of their parts become spans of OpenTelemetry.
//!
//! A call is recorded where the edge records it, which its traceparent says: the edge alone decides what is sampled. What
//! ends is put into a queue that is bounded; a collector that is slow or gone costs spans, never a query's time.

mod otlp;

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use quern_core::trace::{CALL, PART};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::config::otel::TraceSettings;

/// How long what waits may take to leave at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// Whether a span is part of traces.
pub(crate) fn is_traced(span: &Metadata<'_>) -> bool {
    span.is_span() && (span.target() == CALL || span.target() == PART)
}

/// Makes spans, and what sends them.
pub(crate) fn new(settings: TraceSettings) -> (Recorder, Exporter) {
    let (sender, spans) = mpsc::channel(settings.queue);
    (Recorder { sender }, Exporter { settings, spans })
}

/// What notes spans while they last.
pub(crate) struct Recorder {
    /// Bounded by the settings' queue; what finds no place is dropped.
    sender: mpsc::Sender<Finished>,
}

/// What sends spans, before it was started.
pub(crate) struct Exporter {
    settings: TraceSettings,
    spans: mpsc::Receiver<Finished>,
}

impl Exporter {
    /// Starts sending on a runtime.
    pub(crate) fn start(self, on: &Handle) -> Exporting {
        let stop = CancellationToken::new();
        let task = on.spawn(otlp::export(self.settings, self.spans, stop.clone()));
        Exporting { stop, task }
    }
}

/// What sends spans.
pub(crate) struct Exporting {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends what waits, for a bounded time.
    pub(crate) fn stop(self, on: &Runtime) {
        self.stop.cancel();
        let _ = on.block_on(async { tokio::time::timeout(FLUSH, self.task).await });
    }
}

/// A span that has ended.
pub(crate) struct Finished {
    span: Recorded,
    end: SystemTime,
}

/// A span that lasts.
struct Recorded {
    name: &'static str,
    trace: [u8; 16],
    id: [u8; 8],
    parent: [u8; 8],
    start: SystemTime,
    fields: Fields,
}

/// What a span says of itself. Which fields there are is known where spans are made, so they are few.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

enum Value {
    Text(String),
    Number(i64),
}

impl Fields {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(key, value)| match value {
            Value::Text(text) if *key == name => Some(text.as_str()),
            _ => None,
        })
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record_i64(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), Value::Number(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), Value::Text(value.to_owned())));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), Value::Text(format!("{value:?}"))));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let above = span.parent().map(|parent| parent.extensions().get::<Recorded>().map(|r| (r.trace, r.id)));
        let from = match above {
            Some(recorded) => recorded,
            None => fields.text("traceparent").and_then(sampled),
        };
        let Some((trace, parent)) = from else { return };
        let (name, start) = (span.name(), SystemTime::now());
        span.extensions_mut().insert(Recorded { name, trace, id: rand::random(), parent, start, fields });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(recorded) = span.extensions_mut().get_mut::<Recorded>() {
            values.record(&mut recorded.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        if let Some(span) = span.extensions_mut().remove::<Recorded>() {
            // Where the queue is full, the span is lost.
            let _ = self.sender.try_send(Finished { span, end: SystemTime::now() });
        }
    }
}

/// The trace and span of a W3C traceparent that is to be recorded. The edge writes them in version 00.
fn sampled(parent: &str) -> Option<([u8; 16], [u8; 8])> {
    let (mut trace, mut span, mut flags) = ([0; 16], [0; 8], [0; 1]);
    let mut parts = parent.split('-');
    if parts.next() != Some("00") {
        return None;
    }
    hex::decode_to_slice(parts.next()?, &mut trace).ok()?;
    hex::decode_to_slice(parts.next()?, &mut span).ok()?;
    hex::decode_to_slice(parts.next()?, &mut flags).ok()?;
    (flags[0] & 1 == 1).then_some((trace, span))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::FilterFn;
    use tracing_subscriber::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn spans(queue: usize, work: impl FnOnce()) -> Vec<Recorded> {
        let settings = crate::config::otel::traces(|name| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://127.0.0.1:1".to_owned()),
            "OTEL_BSP_MAX_QUEUE_SIZE" => Some(queue.to_string()),
            _ => None,
        });
        let (recorder, mut exporter) = new(settings.expect("reads").expect("a collector"));
        let layer = recorder.with_filter(FilterFn::new(is_traced));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        std::iter::from_fn(|| exporter.spans.try_recv().ok()).map(|finished| finished.span).collect()
    }

    fn call(parent: &str) -> tracing::Span {
        tracing::error_span!(target: CALL, parent: None, "call", traceparent = parent)
    }

    #[test]
    fn parts_belong_to_their_call() {
        let spans = spans(10, || {
            let call = call(PARENT);
            let _entered = call.enter();
            let between = tracing::info_span!("not traced");
            let _between = between.enter();
            let part = tracing::trace_span!(target: PART, "scan", quern.rows = tracing::field::Empty);
            part.record("quern.rows", 7_u64);
        });
        let [part, call] = spans.as_slice() else { panic!("{} spans", spans.len()) };
        assert_eq!((part.name, part.trace, part.parent), ("scan", call.trace, call.id));
        assert_eq!((hex::encode(call.trace), hex::encode(call.parent)), (PARENT[3..35].into(), PARENT[36..52].into()));
        assert!(matches!(part.fields.0[..], [("quern.rows", Value::Number(7))]));
    }

    #[test]
    fn what_is_not_sampled_is_not_recorded() {
        let none = spans(10, || {
            for parent in ["", "rubbish", &PARENT.replace("-01", "-00"), &PARENT.replace("00-4", "01-4")] {
                let call = call(parent);
                let _entered = call.enter();
                drop(tracing::trace_span!(target: PART, "scan"));
            }
        });
        assert!(none.is_empty());
    }

    #[test]
    fn the_queue_is_bounded() {
        assert_eq!(spans(2, || (0..5).for_each(|_| drop(call(PARENT)))).len(), 2);
    }
}
