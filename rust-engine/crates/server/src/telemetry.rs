//! Logs, one JSON object a line on standard error, and traces.

use quern_core::trace::PART;
use tracing_subscriber::filter::{FilterExt, FilterFn, LevelFilter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::otel::TraceSettings;
use crate::trace::{self, Exporter, is_traced};

/// Starts logging at `level`, such as `info` or `quern_query=debug,warn`, and recording spans where they are to be exported.
/// The spans of calls, by which lines name their request, are there at any level that writes errors.
pub(crate) fn init(level: &str, traces: Option<TraceSettings>) -> Option<Exporter> {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    // Parts of calls are for traces only: no line names them, whatever the level. Without the hint, what the level leaves out
    // would be asked for at each of its places.
    let no_parts = FilterFn::new(|metadata| metadata.target() != PART).with_max_level_hint(LevelFilter::TRACE);
    let logs = fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr)
        .with_current_span(true)
        .with_span_list(false)
        .with_filter(filter.and(no_parts));
    let (recorder, exporter) = traces.map(trace::new).unzip();
    let recorder = recorder.map(|recorder| recorder.with_filter(FilterFn::new(is_traced)));
    tracing_subscriber::registry().with(logs).with(recorder).init();
    exporter
}
