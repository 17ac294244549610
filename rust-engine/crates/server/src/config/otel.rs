//! Where traces go: the standard variables of OpenTelemetry, as far as they mean something here.

use std::time::Duration;

/// What an exporter of traces needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceSettings {
    /// The collector, `http://host:port`, which takes OTLP over gRPC.
    pub(crate) endpoint: String,
    /// Metadata of each export.
    pub(crate) headers: Vec<(String, String)>,
    /// How long one export may take.
    pub(crate) timeout: Duration,
    /// What the spans' process says of itself, its name among it.
    pub(crate) resource: Vec<(String, String)>,
    /// How many spans may wait.
    pub(crate) queue: usize,
    /// How many spans go by one export.
    pub(crate) batch: usize,
    /// How long a span waits for others at most.
    pub(crate) delay: Duration,
}

/// Reads the variables. Nothing where no collector is named or traces are switched off; a sentence where it can't be used.
pub(crate) fn traces(variable: impl Fn(&str) -> Option<String>) -> Result<Option<TraceSettings>, String> {
    let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let either = |name: &str| {
        get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || get("OTEL_TRACES_EXPORTER").is_some_and(|value| value != "otlp");
    let Some(endpoint) = either("ENDPOINT").filter(|_| !off) else { return Ok(None) };
    if !endpoint.starts_with("http://") {
        return Err(format!("the engine sends traces without TLS: `{endpoint}` must be http://host:port"));
    }
    let number = |value: Option<String>, otherwise: u64| match value {
        Some(text) => text.trim().parse().ok().filter(|number| *number > 0).unwrap_or(otherwise),
        None => otherwise,
    };
    let size = |name: &str, otherwise| usize::try_from(number(get(name), otherwise)).unwrap_or(usize::MAX);
    let mut resource = pairs(get("OTEL_RESOURCE_ATTRIBUTES"));
    if let Some(name) = get("OTEL_SERVICE_NAME") {
        resource.retain(|(key, _)| key != SERVICE_NAME);
        resource.push((SERVICE_NAME.to_owned(), name));
    }
    if !resource.iter().any(|(key, _)| key == SERVICE_NAME) {
        resource.push((SERVICE_NAME.to_owned(), "quern-engine".to_owned()));
    }
    resource.push(("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    // Whatever was asked for, what waits is bounded.
    let queue = size("OTEL_BSP_MAX_QUEUE_SIZE", 2_048).min(65_536);
    Ok(Some(TraceSettings {
        endpoint,
        headers: pairs(either("HEADERS")),
        timeout: Duration::from_millis(number(either("TIMEOUT"), 10_000)),
        resource,
        queue,
        batch: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
        delay: Duration::from_millis(number(get("OTEL_BSP_SCHEDULE_DELAY"), 5_000)),
    }))
}

const SERVICE_NAME: &str = "service.name";

/// `key=value,key=value`, the values percent-encoded.
fn pairs(text: Option<String>) -> Vec<(String, String)> {
    let text = text.unwrap_or_default();
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), decoded(value.trim()))).collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| *first == b'%').and_then(|digits| hex::decode(digits).ok());
        match escape {
            Some(byte) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, String> {
        traces(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn traces_are_off_unless_a_collector_is_named() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://here:4317");
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://here:4317")]).is_err());
        let settings = read(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://there:4317"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%20c, d = e"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,zone=1"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ]);
        let settings = settings.expect("reads").expect("a collector");
        assert_eq!(settings.endpoint, "http://there:4317");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(settings.headers, [pair("a", "b c"), pair("d", "e")]);
        assert_eq!(settings.resource[..2], [pair("zone", "1"), pair("service.name", "mine")]);
        assert_eq!((settings.queue, settings.batch), (2_048, 512));
    }
}
