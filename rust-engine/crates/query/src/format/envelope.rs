//! What the JSON envelope holds between its rows and its receipt.

use super::sink::Sink;

/// What is said of a result beside its rows. The JSON envelope holds it; for other formats it is the caller's to pass on.
#[derive(Clone, Debug, Default)]
pub struct Envelope {
    /// The keys that no row has, each with its number among those asked for, counted from 0; nothing where rows were
    /// not looked for by key.
    pub missing: Option<Vec<(u32, String)>>,
    /// How many rows there are on all pages; nothing where nobody asked.
    pub total_size: Option<u64>,
    /// The next page's token, empty on the last page; nothing where the result is no page.
    pub next_page_token: Option<String>,
}

impl Envelope {
    /// The members but for the next page's token, each after a comma.
    pub(crate) fn members(&self) -> Vec<u8> {
        let mut sink = Sink::default();
        if let Some(missing) = &self.missing {
            sink.raw(b",\"missing\":[");
            for (at, (_, key)) in missing.iter().enumerate() {
                if at > 0 {
                    sink.byte(b',');
                }
                sink.json_string(key.as_bytes(), false);
            }
            sink.byte(b']');
        }
        if let Some(total_size) = self.total_size {
            sink.raw(b",\"total_size\":");
            sink.int(total_size);
        }
        sink.buf
    }
}
