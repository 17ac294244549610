//! One CSV record: where its cells begin and end (RFC 4180).
//!
//! Written here rather than taken from csv-core because that neither tells `""` from an empty cell nor reports a
//! quote that is never closed, which is how a truncated file shows.

use std::borrow::Cow;

use super::MAX_COLUMNS;
use super::error::Stop;

/// A cell by its place in the text, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) begin: usize,
    pub(super) end: usize,
    pub(super) quoted: bool,
    /// It has doubled quotes.
    doubled: bool,
}

impl Cell {
    pub(super) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let raw = &text[self.begin..self.end];
        if self.doubled { Cow::Owned(raw.replace("\"\"", "\"")) } else { Cow::Borrowed(raw) }
    }
}

/// Splits the first record off `text`, passing over empty lines: its cells and where it ends, with its line ending.
/// None if only empty lines are left. `last`: no text follows.
pub(super) fn split_record(
    text: &str,
    last: bool,
    delimiter: u8,
    cells: &mut Vec<Cell>,
) -> Result<Option<usize>, Stop> {
    cells.clear();
    let bytes = text.as_bytes();
    let mut at = 0;
    while matches!(bytes.get(at), Some(b'\n' | b'\r')) {
        at += 1;
    }
    if at == bytes.len() {
        return if last { Ok(None) } else { Err(Stop::Incomplete) };
    }
    loop {
        let cell =
            if bytes.get(at) == Some(&b'"') { quoted_cell(bytes, at, last)? } else { plain_cell(bytes, at, delimiter) };
        cells.push(cell);
        if cells.len() > MAX_COLUMNS {
            return Err(Stop::bad(at, format!("more than {MAX_COLUMNS} columns; is the delimiter right?")));
        }
        at = cell.end + usize::from(cell.quoted);
        match bytes.get(at) {
            Some(&byte) if byte == delimiter => at += 1,
            Some(b'\n') => return Ok(Some(at + 1)),
            Some(b'\r') => match bytes.get(at + 1) {
                Some(b'\n') => return Ok(Some(at + 2)),
                None if !last => return Err(Stop::Incomplete),
                _ => return Ok(Some(at + 1)),
            },
            None if last => return Ok(Some(at)),
            None => return Err(Stop::Incomplete),
            Some(_) => {
                let message = "text after a closing quote; a quote within a quoted cell must be doubled";
                return Err(Stop::bad(at, message));
            }
        }
    }
}

fn plain_cell(bytes: &[u8], begin: usize, delimiter: u8) -> Cell {
    let rest = &bytes[begin..];
    let ends = |byte: &u8| *byte == delimiter || *byte == b'\n' || *byte == b'\r';
    let length = rest.iter().position(ends).unwrap_or(rest.len());
    Cell { begin, end: begin + length, quoted: false, doubled: false }
}

fn quoted_cell(bytes: &[u8], quote: usize, last: bool) -> Result<Cell, Stop> {
    let begin = quote + 1;
    let mut at = begin;
    let mut doubled = false;
    loop {
        let Some(length) = memchr::memchr(b'"', &bytes[at..]) else {
            if last {
                return Err(Stop::bad(quote, "the quote that opens this cell is never closed; is the file truncated?"));
            }
            return Err(Stop::Incomplete);
        };
        at += length;
        match bytes.get(at + 1) {
            Some(b'"') => {
                doubled = true;
                at += 2;
            }
            None if !last => return Err(Stop::Incomplete),
            _ => return Ok(Cell { begin, end: at, quoted: true, doubled }),
        }
    }
}

/// Line ends in a piece of text: LF, CRLF or CR.
pub(super) fn count_lines(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let feeds = memchr::memchr_iter(b'\n', bytes).count();
    let returns = memchr::memchr_iter(b'\r', bytes).filter(|&at| bytes.get(at + 1) != Some(&b'\n')).count();
    (feeds + returns) as u64
}
