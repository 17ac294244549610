//! The targets of the spans that traces are made of. Other spans and events have their module's path.

/// Spans of calls. They are always made: log lines name the request by them.
pub const CALL: &str = "quern::call";
/// Spans of a call's parts: planning, scans, encoding. They are made only where traces are exported.
pub const PART: &str = "quern::part";
