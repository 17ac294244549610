//! Logs, one JSON object a line on standard error, and traces.

use quern_core::trace::PART;
use tracing_subscriber::filter::{FilterExt, FilterFn, LevelFilter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::otel::TraceSettings;
use crate::trace::{self, Exporter, is_traced};

/// Below these levels the crates that carry calls and watch folders speak of themselves alone, four times a second or at each
/// file that goes, and those that parse and plan write a hundred lines a statement, its literals among them.
const QUIET: &[(&str, LevelFilter)] = &[
    // A name stands for all that begin with it.
    ("datafusion", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("notify", LevelFilter::WARN),
    ("sqlparser", LevelFilter::INFO),
];

/// The filter of a level or of levels by module, which may ask for what is quiet otherwise.
fn filter(level: &str) -> EnvFilter {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let Ok(plain) = level.parse::<LevelFilter>() else { return filter };
    let quiet = QUIET.iter().filter(|(_, most)| plain > *most);
    quiet.filter_map(|(name, most)| format!("{name}={most}").parse().ok()).fold(filter, EnvFilter::add_directive)
}

/// Starts logging at `level`, such as `info` or `quern_query=debug,warn`, and recording spans where they are to be exported.
/// The spans of calls, by which lines name their request, are there at any level that writes errors.
pub(crate) fn init(level: &str, traces: Option<TraceSettings>) -> Option<Exporter> {
    // Parts of calls are for traces only: no line names them, whatever the level. Without the hint, what the level leaves out
    // would be asked for at each of its places.
    let no_parts = FilterFn::new(|metadata| metadata.target() != PART).with_max_level_hint(LevelFilter::TRACE);
    let logs = fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr)
        .with_current_span(true)
        .with_span_list(false)
        .with_filter(filter(level).and(no_parts));
    let (recorder, exporter) = traces.map(trace::new).unzip();
    let recorder = recorder.map(|recorder| recorder.with_filter(FilterFn::new(is_traced)));
    tracing_subscriber::registry().with(logs).with(recorder).init();
    exporter
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn some_crates_are_quiet_unless_they_are_asked_for() {
        let told = |level: &str| {
            let mut directives: Vec<String> = filter(level).to_string().split(',').map(str::to_owned).collect();
            directives.sort();
            directives.join(",")
        };
        assert_eq!(
            told("debug"),
            "datafusion=info,debug,h2=info,hyper=info,hyper_util=info,notify=warn,sqlparser=info"
        );
        assert_eq!(told("info"), "info,notify=warn");
        assert_eq!(told("error"), "error");
        assert_eq!(told("h2=trace,warn"), "h2=trace,warn");
    }
}
